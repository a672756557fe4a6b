"""Further programs in a running container: under its rules, and out of the reach of what waits for them there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
import time

import pytest

import kit
import zind
import zind.aio

#: What of /proc/self/status is the same for everything in a container.
POLICY = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters")


@pytest.fixture
def box():
    """Starts containers, and ends them."""
    started = []

    def start(argv=("sleep", "600"), **options):
        started.append(zind.Popen(list(argv), stdin=zind.DEVNULL, **options))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        # An ended container keeps its pidfd until it is forgotten.
        del process._process


@contextlib.contextmanager
def killed(process):
    """A container that ends with the block, however that ends."""
    try:
        yield process
    finally:
        process.kill()
        with process:
            pass
        del process._process


def text(process, *argv, **options) -> str:
    return process.exec(list(argv), capture_output=True, text=True, check=True, timeout=30, **options).stdout


def policy(lines: str) -> dict[str, list[str]]:
    fields = dict(line.split(":", 1) for line in lines.splitlines() if ":" in line)
    return {name: fields[name].split() for name in POLICY if name in fields}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"user": "1000:1001", "groups": [7, 8], "capabilities": ["CHOWN", "KILL"]},
        {"uid_map": [(0, 100000, 65536)], "gid_map": [(0, 100000, 65536)]},
        {"privileged": True},
        {"seccomp": None, "no_new_privileges": False},
        {"init": False},
        {"init": False, "namespaces": {"pid": "host"}},
    ],
    ids=["plain", "user", "user namespace", "privileged", "no filter", "no init", "host pids"],
)
def test_a_program_is_under_the_rules_of_the_container(box, options):
    kit.needs_root("maps and users of all kinds")
    source = "import time; print(open('/proc/self/status').read(), flush=True); time.sleep(600)"
    p = zind.Popen(["python3", "-c", source], stdin=zind.DEVNULL, stdout=zind.PIPE, text=True, umask=0o027,
                   rlimits={"nofile": 99}, env={"A": "b"}, cwd="/usr", **options)  # fmt: skip
    lines = []
    while not (lines and lines[-1].startswith("nonvoluntary")):
        lines.append(p.stdout.readline())
    try:
        own = policy("".join(lines))
        assert policy(text(p, "cat", "/proc/self/status")) == own
        assert text(p, "sh", "-c", "umask; ulimit -n; echo $A $HOME; pwd").split()[:3] == ["0027", "99", "b"]
        assert text(p, "pwd").strip() == "/usr"
        first = p.pid
        for kind in ("mnt", "net", "uts", "ipc", "cgroup", "user", "pid"):
            assert text(p, "readlink", f"/proc/self/ns/{kind}").strip() == os.readlink(f"/proc/{first}/ns/{kind}")
    finally:
        p.kill()
        with p:
            pass


def test_each_rule_can_be_another_one(box):
    kit.needs_root("capabilities")
    p = box(env={"A": "b"}, cwd="/usr")
    found = policy(text(p, "cat", "/proc/self/status", user="12:34", groups=[5], capabilities=["CHOWN"], no_new_privileges=False, seccomp=None))
    assert found["Uid"] == ["12"] * 4 and found["Gid"] == ["34"] * 4 and found["Groups"] == ["5"]
    assert int(found["CapPrm"][0], 16) == int(found["CapBnd"][0], 16) == 1
    assert found["NoNewPrivs"] == ["0"] and found["Seccomp"] == ["0"]
    shown = text(p, "sh", "-c", "pwd; umask; ulimit -n; env", cwd="/tmp", umask=0o77, rlimits={"nofile": 33}, env={"C": "d"}, clear_env=True)
    assert shown.split()[:3] == ["/tmp", "0077", "33"] and "C=d" in shown and "A=b" not in shown
    privileged = policy(text(p, "cat", "/proc/self/status", privileged=True))
    assert privileged["Seccomp"] == ["0"] and int(privileged["CapPrm"][0], 16) == int(policy(open("/proc/self/status").read())["CapBnd"][0], 16)
    kit.refused(zind.SpecError, lambda: p.exec(["true"], hostname="x"), field="exec")
    kit.refused(zind.SpecError, lambda: p.exec(["true"], privileged=True, capabilities=[]), field="capabilities")
    kit.refused(zind.SpecError, lambda: p.exec(["true"], cwd="relative"), field="cwd")
    with pytest.raises(TypeError):
        p.exec(["true"], nonsense=1)


def test_users_are_looked_up_in_the_container_as_it_is(box, tiny_root):
    kit.needs_root("users of the image")
    p = box(rootfs=tiny_root)
    assert text(p, "/bin/id", "-u", user="web").strip() == "33"
    assert text(p, "/bin/sh", "-c", "echo new:x:77:78::/:/bin/sh >>/etc/passwd; id -u", user=0).strip() == "0"
    assert text(p, "/bin/id", "-u", user="new").strip() == "77"
    # A name that is a number is one, whatever a line says (CVE-2016-3697), and no number wraps (CVE-2024-40635).
    assert text(p, "/bin/id", "-u", user="1000").strip() == "1000"
    for bad in ("4294967295", "4294967296", "nobody-here", ""):
        kit.refused(zind.SpecError, lambda bad=bad: p.exec(["/bin/true"], user=bad), field="user")


@pytest.mark.parametrize("trap", ["mkfifo /etc/passwd", "ln -s /proc/self/environ /etc/passwd", "ln -s /etc/passwd /etc/passwd", "mkdir /etc/passwd",
                                  "dd if=/dev/zero of=/etc/passwd bs=1M count=3"])  # fmt: skip
def test_a_hostile_passwd_is_refused_and_does_not_hang(box, tiny_root, trap):
    p = box(rootfs=tiny_root)
    text(p, "/bin/sh", "-c", f"rm /etc/passwd; {trap} 2>/dev/null")
    with pytest.raises(zind.Error):
        p.exec(["/bin/true"], user="web")
    assert text(p, "/bin/echo", "fine", user=0).strip() == "fine"


def test_a_replaced_proc_dev_or_shell_leads_nowhere(box, tiny_root):
    kit.needs_root("mounts in a running container")
    p = box(rootfs=tiny_root)
    p.umount("/proc")
    p.mount(zind.Mount.tmpfs("/proc"))
    text(p, "/bin/sh", "-c", "mkdir -p /proc/self/ns /proc/self/fd; echo trap >/proc/self/oom_score_adj; rm /bin/sh; ln -s /proc/self/exe /bin/sh")
    assert text(p, "/bin/echo", "fine", oom_score_adj=7).strip() == "fine"
    # Without a filesystem of its own kind there is no terminal, not somebody else's.
    p.umount("/dev/pts")
    p.mount(zind.Mount.tmpfs("/dev/pts"))
    text(p, "/bin/mkfifo", "/dev/pts/ptmx")
    kit.refused(zind.SysError, lambda: p.exec(["/bin/tty"], pty=True, capture_output=True), step="Terminal")
    kit.refused(zind.SysError, lambda: p.exec(["/bin/sh"]), step="Exec")


WATCH = """
import ctypes, json, os, select, sys
libc = ctypes.CDLL(None, use_errno=True)
own, seen, found, caps = os.getpid(), set(), set(), set()
print("ready", flush=True)
while not select.select([0], [], [], 0)[0]:
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in (1, own):
            continue
        try:
            status = dict(line.split(":\\t", 1) for line in open(f"/proc/{name}/status").read().splitlines() if ":\\t" in line)
            seen.add(name)
            caps.add(int(status["CapPrm"], 16))
            found.add("exe " + os.readlink(f"/proc/{name}/exe"))
            found.add("cwd " + os.readlink(f"/proc/{name}/cwd"))
            for fd in os.listdir(f"/proc/{name}/fd"):
                found.add("fd " + os.readlink(f"/proc/{name}/fd/{fd}"))
                try:
                    handle = os.open(f"/proc/{name}/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK)
                    found.add("open " + os.readlink(f"/proc/self/fd/{handle}"))
                    os.close(handle)
                except OSError:
                    pass
            if libc.ptrace(16, int(name), 0, 0) == 0:  # PTRACE_ATTACH
                found.add("traced")
                os.waitpid(int(name), 0x40000000)  # __WALL: before its exec it is not a child like others
                libc.ptrace(17, int(name), 0, 0)
                os.kill(int(name), 18)  # SIGCONT: the attach's SIGSTOP may be still to come
        except (OSError, KeyError):
            pass
print(json.dumps({"seen": len(seen), "found": sorted(found), "caps": sorted(caps)}))
"""


@pytest.mark.parametrize("may_trace", [False, True])
def test_who_waits_inside_gets_nothing_of_the_joining_process(may_trace):
    """CVE-2016-9962, with and without CAP_SYS_PTRACE."""
    kit.needs_root("a container without a user namespace")
    allowed = ["SYS_PTRACE"] if may_trace else []
    with killed(zind.Popen(["python3", "-c", WATCH], stdin=zind.PIPE, stdout=zind.PIPE, text=True, capabilities=allowed)) as p:
        assert p.stdout.readline() == "ready\n"
        for _ in range(40):
            p.exec(["/bin/true"], stdin=zind.DEVNULL, stdout=zind.DEVNULL, stderr=zind.DEVNULL, cwd="/tmp")
        # Not by a program: it would be looked at, too, while it does its work.
        p.stdin.close()
        report = json.loads(p.stdout.read())
        assert p.wait() == 0
    assert report["seen"] > 5
    for item in report["found"]:
        kind, _, where = item.partition(" ")
        assert kind in ("exe", "cwd", "fd", "open", "traced")
        if kind == "cwd":
            assert where in ("/tmp", "/"), item
        elif kind in ("fd", "open"):
            assert where.startswith(("/dev/null", "/usr/", "/lib", "/etc/ld.so", "/proc/sys", "pipe:")), item
        elif kind == "exe":
            assert where.startswith(("/usr/", "/memfd:zind-init")), item
    # Whoever can be traced has nothing that the tracer lacks.
    rights = 1 << 19 if may_trace else 0
    assert all(caps & ~rights == 0 for caps in report["caps"]), [hex(caps) for caps in report["caps"]]


OVERWRITE = """
import os, sys
own, kept = os.getpid(), {}
print("ready", flush=True)
while not os.path.exists("/tmp/stop"):
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in (1, own):
            try:
                kept.setdefault(os.readlink(f"/proc/{name}/exe"), os.open(f"/proc/{name}/exe", os.O_RDONLY))
            except OSError:
                pass
written = []
for name, fd in kept.items():
    try:
        handle = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
        written.append((name, os.write(handle, b"#!/bin/sh\\n")))
    except OSError:
        pass
print([name for name, _ in written if "zind" in name])
"""


def test_the_launcher_cannot_be_overwritten():
    """CVE-2019-5736: its image is sealed, and the library is never executed."""
    kit.needs_root("a container without a user namespace")
    allowed = ["SYS_PTRACE", "DAC_OVERRIDE"]
    with killed(zind.Popen(["python3", "-c", OVERWRITE], stdin=zind.DEVNULL, stdout=zind.PIPE, text=True, capabilities=allowed)) as p:
        assert p.stdout.readline() == "ready\n"
        for _ in range(10):
            p.exec(["/bin/true"])
            # The program that the launcher's own link leads to.
            p.exec(["/proc/self/exe"])
        p.exec(["touch", "/tmp/stop"])
        assert p.stdout.read().strip() == "[]"
    assert zind.run(["/bin/true"]).returncode == 0


def test_no_directory_of_the_host_is_reached_by_a_descriptor(box):
    """CVE-2024-21626."""
    p = box()
    text(p, "sh", "-c", "cd /tmp; for n in 3 4 5 6 7 8 9 10 11 12 13 14; do ln -s /proc/self/fd/$n $n; done; ln -s /proc/self/cwd cwd")
    for fd in range(3, 15):
        for cwd in (f"/proc/self/fd/{fd}", f"/proc/thread-self/fd/{fd}", f"/tmp/{fd}"):
            kit.refused(zind.SysError, lambda cwd=cwd: p.exec(["true"], cwd=cwd), step="Chdir")
    kit.refused(zind.SysError, lambda: p.exec(["true"], cwd="/tmp/cwd"), step="Chdir")
    listed = text(p, "sh", "-c", "ls -l /proc/self/fd", stdin=zind.DEVNULL)
    assert sorted(line.split()[8] for line in listed.splitlines()[1:]) == ["0", "1", "2", "3"], listed
    assert "/proc/" in listed.splitlines()[-1]


def test_a_killed_program_takes_what_it_started_and_nothing_else(box):
    p = box()
    before = {one.pid for one in p.processes()}
    q = p.popen(["sh", "-c", "sleep 601 & (sleep 602 & sleep 603) & echo up; sleep 604"], stdout=zind.PIPE, stdin=zind.DEVNULL)
    assert q.stdout.read(3) == b"up\n"
    assert kit.wait_until(lambda: len(p.processes()) >= len(before) + 5)
    q.kill()
    assert q.wait() == -9
    assert kit.wait_until(lambda: {one.pid for one in p.processes()} == before)
    assert p.poll() is None
    with q:
        pass


def test_time_limits_exits_and_streams(box):
    p = box()
    call = lambda timeout: p.exec(["sh", "-c", "echo begun; sleep 600"], capture_output=True, timeout=timeout)  # noqa: E731
    over = kit.times_out(call, lambda e: e.stdout)
    assert over.exit.kind == "timeout" and over.stdout == b"begun\n"
    r = p.exec(["sh", "-c", "cat; echo err >&2; exit 7"], input=b"in", capture_output=True)
    assert (r.returncode, r.stdout, r.stderr, r.exit.kind) == (7, b"in", b"err\n", "exited")
    assert p.exec(["sh", "-c", "kill -TERM $$"]).exit.signal == 15
    r = p.exec(["python3", "-c", "sum(range(3_000_000))"])
    assert r.stats.cpu_user > 0.01 and r.stats.wall > 0
    with pytest.raises(zind.CalledProcessError):
        p.exec(["false"], check=True)
    kit.refused(zind.SysError, lambda: p.exec(["no-such-program"]), step="Exec")
    with p.popen(["cat"], stdin=zind.PIPE, stdout=zind.PIPE) as q:
        q.send_signal(15)
        assert q.wait() == -15
    assert p.poll() is None


def test_what_a_program_leaves_stays_in_the_container(box):
    p = box()
    text(p, "sh", "-c", "sleep 605 >/dev/null 2>&1 </dev/null &")
    assert kit.wait_until(lambda: any(one.cmdline == ["sleep", "605"] for one in p.processes()))


def test_many_at_once(box):
    p = box()
    results, errors = [], []

    def work(number: int) -> None:
        try:
            for turn in range(5):
                results.append(text(p, "echo", f"{number}-{turn}").strip() == f"{number}-{turn}")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not errors and results == [True] * 40


def test_the_containers_end_is_the_programs_end(box):
    for options in ({}, {"init": False}, {"init": False, "namespaces": {"pid": "host"}}):
        if options.get("namespaces") and os.geteuid():
            continue
        p = box(**options)
        q = p.popen(["sleep", "606"], stdin=zind.DEVNULL)
        time.sleep(0.05)
        p.kill()
        assert q.wait(20) == -9
        p.wait()
        error = kit.refused(zind.StateError, lambda: p.exec(["true"]), hint=False)
        assert "ended" in str(error)


def test_a_guest_takes_no_guests(box):
    p = box()
    q = p.popen(["sleep", "607"], stdin=zind.DEVNULL)
    assert "container" in str(kit.refused(zind.StateError, lambda: q.exec(["true"]), hint=False))
    kit.refused(zind.StateError, q.pause, hint=False)
    q.kill()
    q.wait()


def test_in_the_containers_control_groups_and_not_while_it_is_paused(box):
    kit.needs_root("control groups")
    p = box(resources=zind.Resources(pids=20))
    q = p.popen(["sleep", "608"], stdin=zind.DEVNULL)
    assert open(f"/proc/{q.pid}/cgroup").read() == open(f"/proc/{p.pid}/cgroup").read()
    p.pause()
    began = time.monotonic()
    error = kit.refused(zind.StateError, lambda: p.exec(["true"]), hint=False)
    assert "paused" in str(error) and time.monotonic() - began < 30
    p.resume()
    assert p.exec(["true"]).returncode == 0
    # The limit is the container's, for all of its programs together.
    many = p.exec(["sh", "-c", "for i in $(seq 40); do sleep 600 & done; wait"], capture_output=True, text=True)
    assert many.returncode == 2 and "fork" in many.stderr.lower(), many
    q.kill()
    q.wait()


OWNER = """
import os, zind
p = zind.Popen(["sleep", "608"], stdin=zind.DEVNULL, stdout=zind.DEVNULL, stderr=zind.DEVNULL, die_with_owner=False)
q = p.popen(["sleep", "609"], stdin=zind.DEVNULL, stdout=zind.DEVNULL, stderr=zind.DEVNULL)
print(p.pid, q.pid, flush=True)
os.kill(os.getpid(), 9)
"""


def test_the_program_ends_with_its_owner():
    container, program = map(int, kit.outside(OWNER, check=False).stdout.split())
    try:
        assert kit.wait_until(lambda: not kit.alive(program), timeout=20)
        assert kit.alive(container)
    finally:
        os.kill(container, 9)


def test_awaited(box):
    async def session() -> None:
        async with await zind.aio.Popen.start(["sleep", "610"], stdin=zind.DEVNULL) as p:
            many = await asyncio.gather(*(p.exec(["echo", str(n)], capture_output=True, text=True) for n in range(10)))
            assert [r.stdout for r in many] == [f"{n}\n" for n in range(10)]
            r = await p.exec(["sh", "-c", "tty; cat"], capture_output=True, pty=zind.Pty(5, 50), input=b"typed\n")
            assert r.stdout.startswith(b"typed\r\n/dev/pts/0\r\n") or r.stdout.startswith(b"/dev/pts/0\r\n"), r.stdout
            q = await p.popen(["sleep", "611"], stdin=zind.DEVNULL)
            q.kill()
            assert await q.wait() == -9
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(p.exec(["sleep", "612"], stdin=zind.DEVNULL), 0.3)
            assert not any(one.cmdline == ["sleep", "612"] for one in await p.processes())
            p.kill()

    asyncio.run(session())


AS_USER = """
import os, sys, zind

def refused(call):
    try:
        call()
    except zind.SysError as error:
        return error.step

maps = {"uid_map": "auto", "gid_map": "auto"} if sys.argv[1] == "auto" else {}
p = zind.Popen(["sleep", "613"], stdin=zind.DEVNULL, **maps)
try:
    script = "id -u; readlink /proc/self/ns/user; tty"
    lines = p.exec(["sh", "-c", script], capture_output=True, text=True, pty=True).stdout.split()
    assert lines == ["0", os.readlink(f"/proc/{p.pid}/ns/user"), "/dev/pts/0"], lines
    q = p.popen(["sh", "-c", "sleep 614 & sleep 615"], stdin=zind.DEVNULL)
    while not {"614", "615"} <= {one.cmdline[-1] for one in p.processes() if one.cmdline}:
        pass
    q.kill()
    assert q.wait() == -9
    while len(p.processes()) != 2:
        pass
    assert refused(lambda: p.exec(["true"], cwd="/proc/self/fd/5")) == "Chdir"
    if maps:
        assert p.exec(["id", "-u"], user=12, capture_output=True).stdout == b"12\\n"
    else:
        assert refused(lambda: p.exec(["true"], user=12)) == "Setuid"
    assert p.exec(["true"]).returncode == 0
finally:
    p.kill()
    p.wait()
print("fine")
"""


@pytest.mark.parametrize("maps", ["auto", "single"])
def test_as_an_ordinary_user(user_python, maps):
    assert user_python.snippet(AS_USER, maps).strip() == "fine"
