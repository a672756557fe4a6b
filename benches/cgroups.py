"""Bars of control groups: what limits add to a start, beside the bare system calls; readings; killing many.

The first half runs in the measuring process, the second asks it. On its own (``python benches/cgroups.py``) it measures where it is run, for
machines with version 2 alone: `make bench-vm`.
"""
import contextlib
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIMITS = {"memory": "64m", "cpus": 0.5, "pids": 64}
#: The same in each hierarchy of version 1.
V1 = {
    "memory": ["memory.limit_in_bytes=67108864"],
    "cpu": ["cpu.cfs_quota_us=50000"],
    "pids": ["pids.max=64"],
}


# ---- Measured here ----

def memberships():
    """controllers -> path of this process's group."""
    rows = (line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines())
    return {tuple(row[1].split(",")): row[2] for row in rows}


def mounts():
    """(type, options) -> mount point."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        found.append((right.split()[0], right.split()[2].split(","), left.split()[4]))
    return found


def own(controller):
    """The directory of this process's group in the version 1 hierarchy with a controller; None without."""
    for names, path in memberships().items():
        if controller in names:
            point = next(point for kind, options, point in mounts() if kind == "cgroup" and controller in options)
            return point + path
    return None


def is_v2():
    return own("memory") is None


def compiled(build, name):
    program = Path(build) / name
    if not program.exists():
        subprocess.run(["cc", "-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, HERE / f"{name}.c"], check=True)
    return program


def floor(build, count, program):
    """Milliseconds that the bare calls take: on version 2 all of them around a bare start, on version 1 the median of the slowest hierarchy."""
    if is_v2():
        return floor_v2(compiled(build, "floor"), count, program)

    def measured(*arguments):
        output = subprocess.check_output([compiled(build, "groups"), *map(str, arguments)], text=True)
        return statistics.median(int(line) for line in output.split()) / 1e6

    return max(measured("v1", max(count // 5, 5), own(name), *limits) for name, limits in V1.items())


def floor_v2(floor, count, program):
    """What a group with limits adds to a container of bare system calls: the kernel also charges what is started in it to the group."""
    point = next(point for kind, _, point in mounts() if kind == "cgroup2")
    # Just those that zind switches on for these limits, so that both make groups of the same controllers.
    Path(point, "cgroup.subtree_control").write_text("+memory +cpu +pids")
    with bare_root(program) as root:
        kinds = {"without": [], "with": ["--group", point]}
        times = {name: [] for name in kinds}
        for _ in range(max(count // 10, 4)):
            for name in random.sample(list(kinds), len(kinds)):
                begin = used()
                command = [floor, "--rootfs", root, *kinds[name], "floor", "10", "/program"]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                # And the one that warms up.
                times[name].append((used() - begin) * 1e3 / 11)
    return statistics.median(times["with"]) - statistics.median(times["without"])


def used():
    """CPU time of this process and of its children that have ended, in seconds."""
    usages = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


@contextlib.contextmanager
def bare_root(program):
    root = Path(tempfile.mkdtemp(prefix="zind-bench-", dir="/var/tmp"))
    try:
        for name in ("dev", "etc", "proc", "sys", "tmp"):
            (root / name).mkdir()
        (root / "program").write_bytes(Path(program).read_bytes())
        (root / "program").chmod(0o755)
        yield root
    finally:
        subprocess.run(["rm", "-r", root], check=True)


def added(program, rounds, batch=5):
    """Milliseconds that the limits add to start and end."""
    import zind

    # On version 1 an attach soon after another one does not wait for a grace period; a caller's mostly do.
    pause, rounds, batch = (0, rounds, batch) if is_v2() else (0.2, rounds, 1)
    with bare_root(program) as root:
        kinds = {"without": {}, "with": {"resources": zind.Resources(**LIMITS)}}
        for options in kinds.values():
            zind.run(["/program"], rootfs=root, read_only=True, check=True, **options)
        times = {name: [] for name in kinds}
        for _ in range(rounds):
            for name in random.sample(list(kinds), len(kinds)):
                # On version 2 there is nothing to wait for but the kernel's ticks, which are long beside the rest: time of the CPU.
                clock = used if is_v2() else time.perf_counter
                time.sleep(pause)
                begin = clock()
                for _ in range(batch):
                    zind.run(["/program"], rootfs=root, read_only=True, **kinds[name])
                times[name].append((clock() - begin) * 1e3 / batch)
        return statistics.median(times["with"]) - statistics.median(times["without"])


def group_calls():
    """Calls that name a control group, in a start without limits."""
    source = "import zind; zind.run(['true']); print('begin', flush=True); zind.run(['true'])"
    with tempfile.NamedTemporaryFile("r", suffix=".strace") as trace:
        command = ["strace", "-f", "-qq", "-e", "trace=openat,open,mkdir,mkdirat,write", "-o", trace.name, sys.executable, "-c", source]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
        second = trace.read().partition('"begin')[2]
    # /proc/self/cgroup is not one; nor is the mount of /sys in the container.
    return sum("/cgroup" in line and "/proc/" not in line for line in second.splitlines())


def stats_us(rounds=200):
    """Median microseconds of one look at a running container."""
    import zind

    with zind.Popen(["sleep", "600"], stdin=zind.DEVNULL, resources=zind.Resources(**LIMITS)) as process:
        times = []
        for _ in range(rounds):
            begin = time.perf_counter_ns()
            process.stats()
            times.append((time.perf_counter_ns() - begin) / 1e3)
        process.kill()
    return statistics.median(times)


def kill_many(count=500):
    """Seconds of CPU time that the kill of all takes, from the first to the last that is gone."""
    import zind

    limits = zind.Resources(pids=10)
    running = [zind.Popen(["sleep", "600"], stdin=zind.DEVNULL, stdout=zind.DEVNULL, stderr=zind.DEVNULL, resources=limits) for _ in range(count)]

    def own():
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime

    begin = own()
    for process in running:
        process.kill()
    for process in running:
        process.wait()
    return own() - begin


QUESTIONS = {"floor": floor, "added": added, "group_calls": group_calls, "stats": stats_us, "kill": kill_many, "is_v2": is_v2}


# ---- Asked from there ----

class GroupGates:
    """The bars p to s."""

    def __init__(self, shop, options):
        self.shop, self.options, self.answers = shop, options, {}

    def all(self):
        from gates import Gate

        limit, what = (1.3, "the bare calls") if is_v2() else (1.1, "the slowest hierarchy alone")
        return [
            Gate("p", f"limits on memory, cpu and pids / {what}", "<=", limit, "x", self.limits),
            Gate("q", "calls that name a control group, without limits", "<=", 0, "", lambda: self.ask("group_calls")),
            Gate("r", "stats() of a running container", "<=", 100, "us", lambda: self.ask("stats")),
            Gate("s", "CPU time to kill 500 containers", "<=", 1, "s", lambda: self.ask("kill")),
        ]

    def ask(self, what, **arguments):
        if what not in self.answers:
            self.answers[what] = self.shop.caller.ask("cgroups", what=what, **arguments)
        return self.answers[what]

    def limits(self):
        rounds = 10 if self.options.quick else 40
        added = self.ask("added", program=str(self.shop.directory / "z"), rounds=rounds)
        return added / self.ask("floor", build=str(self.shop.directory), count=rounds * 5, program=str(self.shop.directory / "z"))


def main():
    """Without the rest of the bench: needs a C compiler and zind."""
    with tempfile.TemporaryDirectory(prefix="zind-bench-", dir="/var/tmp") as build:
        program = sys.argv[1] if len(sys.argv) > 1 else "/bin/busybox"
        if not Path(program).exists() or program.endswith("busybox"):
            program = f"{build}/z"
            subprocess.run(["cc", "-nostdlib", "-static", "-o", program, HERE / "true.S"], check=True)
        rounds = int(os.environ.get("ROUNDS", "20"))
        base, more = floor(build, rounds * 5, program), added(program, rounds)
        print(f"version {'2' if is_v2() else '1'}: floor {base:.3f} ms, limits add {more:.3f} ms: {more / base:.2f} x")
        print(f"calls that name a control group, without limits: {group_calls()}")
        print(f"stats(): {stats_us():.0f} us")
        count = int(os.environ.get("MANY", "500"))
        print(f"CPU time to kill {count}: {kill_many(count):.2f} s")


if __name__ == "__main__":
    main()
