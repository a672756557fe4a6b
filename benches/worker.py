"""The process that starts containers and measures each start; bench.py asks it in lines of JSON.

Options prepare the process before the first question:
    --without-cgroup2    unmount the cgroup2 part of a hybrid hierarchy, in a mount namespace of its own (for crun)
    --mounts N DIR       make N mounts below DIR, in a mount namespace of its own
    --memory BYTES       touch this much memory
    --threads N          keep N idle threads
"""
import argparse
import ctypes
import json
import os
import subprocess
import sys
import threading
import time

CLONE_NEWNS = 0x00020000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
PR_SET_CHILD_SUBREAPER = 36
CGROUP2_OF_HYBRID = "/sys/fs/cgroup/unified"

libc = ctypes.CDLL(None, use_errno=True)


# ---- Preparation ----

def call(name, *arguments):
    if getattr(libc, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def mount(source, target, kind, flags):
    call("mount", source.encode(), target.encode(), kind, ctypes.c_ulong(flags), None)


def private_mounts():
    call("unshare", CLONE_NEWNS)
    mount("none", "/", None, MS_REC | MS_PRIVATE)


def leave_cgroup2():
    if os.path.ismount(CGROUP2_OF_HYBRID):
        private_mounts()
        call("umount2", CGROUP2_OF_HYBRID.encode(), MNT_DETACH)


def add_mounts(count, directory):
    private_mounts()
    mount("mounts", directory, b"tmpfs", 0)
    source = os.path.join(directory, "source")
    os.mkdir(source)
    for number in range(count - 1):
        target = os.path.join(directory, str(number))
        os.mkdir(target)
        mount(source, target, None, MS_BIND)


def touch_memory(size):
    memory = ctypes.create_string_buffer(size)
    ctypes.memset(memory, 1, size)
    return memory


def start_threads(count):
    for _ in range(count):
        threading.Thread(target=threading.Event().wait, daemon=True).start()


# ---- Questions ----

def zind_options(options):
    """`options` as keyword arguments: `bind` is a pair of paths, because JSON knows no zind.Mount."""
    import zind

    options = dict(options)
    if "bind" in options:
        options["mounts"] = [zind.Mount.bind(*options.pop("bind"))]
    return options


def start_zind(argv, options):
    import zind

    return zind.run(argv, capture_output=True, **options)


def time_zind(argv, options, count):
    options = zind_options(options)
    return [timed(argv, lambda: start_zind(argv, options)) for _ in range(count)]


def time_process(argv, count):
    """`{id}` in `argv` is a new name for each start."""
    def start():
        identity = f"bench-{os.getpid()}-{time.monotonic_ns()}"
        return subprocess.run([word.replace("{id}", identity) for word in argv], capture_output=True)

    times = [timed(argv, start) for _ in range(count)]
    reap_orphans()
    return times


def reap_orphans():
    """bwrap and others leave before their children do; as their reaper we keep the account of what they used."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass
    except ChildProcessError:
        pass


def timed(argv, start):
    begin = time.perf_counter_ns()
    result = start()
    end = time.perf_counter_ns()
    if result.returncode != 0:
        raise RuntimeError(f"{argv[0]} ended with {result.returncode}: {last_line(result.stderr)}")
    return end - begin


def last_line(output):
    lines = (output or b"").decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no message"


def throughput(argv, options, threads, count):
    """Starts per second: `count` starts divided among `threads` threads that begin at the same moment."""
    options, failures = zind_options(options), []
    barrier = threading.Barrier(threads + 1)

    def work():
        barrier.wait()
        try:
            for _ in range(count // threads):
                timed(argv, lambda: start_zind(argv, options))
        except Exception as error:
            failures.append(error)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    begin = time.perf_counter()
    barrier.wait()
    for worker in workers:
        worker.join()
    if failures:
        raise failures[0]
    return count / (time.perf_counter() - begin)


def first_process_pss(argv):
    """Bytes of PSS of the first process of a waiting container."""
    import zind

    process = zind.Popen(argv)
    try:
        time.sleep(0.2)
        return pss(first_process(process.pid))
    finally:
        process.kill()
        process.wait()


def first_process(pid):
    """`pid` or the ancestor that is number 1 in the pid namespace of `pid`."""
    numbers = namespace_pids(pid)
    while len(numbers) > 1 and numbers[-1] != "1":
        pid = int(read_status(pid)["PPid"])
        numbers = namespace_pids(pid)
    if len(numbers) < 2:
        raise RuntimeError("the container has no pid namespace of its own, or has ended")
    return pid


def namespace_pids(pid):
    return read_status(pid)["NSpid"].split()


def read_status(pid):
    with open(f"/proc/{pid}/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def pss(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))


def attribute(name):
    import zind

    return getattr(zind, name)


def filesystem(what, **arguments):
    from filesystem import QUESTIONS as questions

    return questions[what](**arguments)


def cgroups(what, **arguments):
    from cgroups import QUESTIONS as questions

    return questions[what](**arguments)


def many(what, **arguments):
    from many import QUESTIONS as questions

    return questions[what](**arguments)


QUESTIONS = {
    "cgroups": cgroups,
    "many": many,
    "filesystem": filesystem,
    "time_zind": time_zind,
    "time_process": time_process,
    "throughput": throughput,
    "first_process_pss": first_process_pss,
    "attribute": attribute,
}


# ---- The loop ----

def answer(question):
    try:
        return {"value": QUESTIONS[question.pop("ask")](**question)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def keep_streams():
    """The questions and answers on descriptors that nothing started from here inherits."""
    questions, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    return questions, answers


def parse_options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--without-cgroup2", action="store_true")
    parser.add_argument("--mounts", nargs=2, metavar=("N", "DIR"))
    parser.add_argument("--memory", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    return parser.parse_args()


def prepare(options):
    call("prctl", PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0)
    if options.without_cgroup2:
        leave_cgroup2()
    if options.mounts:
        add_mounts(int(options.mounts[0]), options.mounts[1])
    start_threads(options.threads)
    return touch_memory(options.memory) if options.memory else None


def main():
    questions, answers = keep_streams()
    memory = prepare(parse_options())  # noqa: F841  kept alive as long as the process
    for line in questions:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
