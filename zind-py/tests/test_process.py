"""Attributes of the program's process."""

import errno
import fcntl
import os
import select
import resource
import signal
import time

import pytest

import kit
import zind
from kit import GID, ROOT, STATUS, UID, needs_root, outside, probe, refused, sh, wait_until

RANGES = {} if ROOT else {"uid_map": "auto"}

# --- arguments and environment ---------------------------------------------------------------------------------------


def test_argv0():
    assert sh("tr '\\0' ' ' </proc/$$/cmdline; echo", argv0="meow").startswith("meow -c")
    r = zind.run(["cat", "/proc/self/cmdline"], argv0=b"\xff", capture_output=True)
    assert r.stdout == b"\xff\0/proc/self/cmdline\0"


def test_env_is_added_to_the_default_one():
    env = probe("answer(dict(os.environ))", env={"A": "1", "HOME": "/tmp", "ODD": "a=b \n'"})
    assert (env["A"], env["HOME"], env["ODD"], env["LANG"]) == ("1", "/tmp", "a=b \n'", "C.UTF-8")
    assert env["PATH"].startswith("/usr/local/sbin:")


def test_env_of_bytes():
    r = zind.run(["env"], env={b"X": b"\xff"}, capture_output=True)
    assert b"X=\xff\n" in r.stdout


def test_clear_env_is_clear():
    assert zind.run(["/usr/bin/env"], clear_env=True, capture_output=True).stdout == b""
    assert zind.run(["/usr/bin/env"], clear_env=True, env={"A": "1"}, capture_output=True).stdout == b"A=1\n"


def test_keep_env(monkeypatch):
    monkeypatch.setenv("KEPT", "yes")
    monkeypatch.setenv("DROPPED", "no")
    r = zind.run(["/usr/bin/env"], clear_env=True, keep_env=["KEPT", "MISSING"], capture_output=True)
    assert r.stdout == b"KEPT=yes\n"


def test_inherit_env(monkeypatch):
    monkeypatch.setenv("KEPT", "yes")
    r = zind.run(["/usr/bin/env"], inherit_env=True, env={"KEPT": "changed", "NEW": "1"}, capture_output=True)
    lines = r.stdout.decode().splitlines()
    assert "KEPT=changed" in lines and "NEW=1" in lines and f"PATH={os.environ['PATH']}" in lines


def test_many_arguments_and_a_large_environment():
    words = [f"{i:0>100}" for i in range(10_000)]
    r = zind.run(["sh", "-c", 'echo $# ${#BIG}', "sh", *words], env={"BIG": "x" * 100_000}, capture_output=True)
    assert r.stdout == b"10000 100000\n"


# --- directory -------------------------------------------------------------------------------------------------------


def test_cwd():
    assert sh("pwd") == "/"
    assert sh("pwd", cwd="/usr/lib") == "/usr/lib"


def test_cwd_with_an_odd_name(tmp_path):
    odd = os.fsdecode(b"/data/a \xff")
    r = zind.run(["pwd"], cwd=odd, mounts=[zind.Mount.bind(tmp_path, odd)], capture_output=True)
    assert os.fsdecode(r.stdout) == odd + "\n"


def test_a_cwd_only_the_user_may_enter(tmp_path):
    r = sh("pwd; id -u", cwd="/priv", mounts=[zind.Mount.tmpfs("/priv", mode=0o755)], user="1234:1234", **RANGES)
    assert r.split() == ["/priv", "1234"]


@pytest.mark.parametrize("path", ["/proc/self/fd/8", "/proc/self/cwd", "/proc/self/root", "/proc/1/root"])
def test_a_cwd_through_a_magic_link_is_refused(path):
    """CVE-2024-21626"""
    refused(zind.SysError, lambda: zind.run(["true"], cwd=path), step="Chdir", hint=False)


# --- ids -------------------------------------------------------------------------------------------------------------
IDS = "answer([os.getresuid(), os.getresgid(), sorted(os.getgroups())])"


def test_the_default_user_is_root_of_the_container():
    uids, gids, groups = probe(IDS)
    assert (uids, gids) == ([0, 0, 0], [0, 0, 0])
    # Without ranges of ids an ordinary user cannot drop groups; the report says so.
    isolation = zind.run(["true"]).isolation
    assert isolation.user == {"uid": 0, "gid": 0}
    assert isolation.keeps_groups is (not ROOT)
    if ROOT:
        assert groups == []


@pytest.mark.parametrize(
    ("user", "expected"),
    [("1000:1000", (1000, 1000)), (1000, (1000, 0)), ("0", (0, 0)), ("root", (0, 0)), ("nobody", (65534, 65534)), ("nobody:tty", (65534, 5)), ("7:tty", (7, 5))],
)
def test_user_by_number_and_name(user, expected):
    uids, gids, groups = probe(IDS, user=user, **RANGES)
    assert (uids, gids, groups) == ([expected[0]] * 3, [expected[1]] * 3, [])


@pytest.mark.parametrize("user", ["1000:1000", "nobody", 0])
def test_any_user_with_a_single_id(user):
    """One mapped id is enough for one user, and no helper is needed."""
    r = zind.run(["id", "-u"], user=user, uid_map="single", capture_output=True, text=True)
    assert r.stdout.strip() == {"nobody": "65534", "1000:1000": "1000", 0: "0"}[user]
    assert r.isolation.uid_map == [{"container": int(r.stdout), "host": UID, "size": 1}]


def test_groups_by_number_and_name():
    _, _, groups = probe(IDS, user="1000:1000", groups=[10, "tty", "27"], **RANGES)
    assert groups == [5, 10, 27]
    assert probe(IDS, groups=[], **RANGES)[2] == []


def test_the_user_cannot_become_root_again():
    source = """
found = []
for call, value in ((os.setuid, 0), (os.setgid, 0), (os.setgroups, [0])):
    try: call(value); found.append("done")
    except OSError as error: found.append(error.errno)
answer(found)
"""
    assert probe(source, user="1000:1000", **RANGES) == [errno.EPERM] * 3


def test_files_of_a_mapped_user_belong_to_it(tmp_path):
    sh("echo >/data/f", mounts=[zind.Mount.bind(tmp_path, "/data")])
    meta = (tmp_path / "f").stat()
    assert (meta.st_uid, meta.st_gid) == (UID, GID)


# --- mask, limits, priorities ----------------------------------------------------------------------------------------


def test_umask():
    assert sh("umask") == "0022"
    assert sh("umask; : >/tmp/x; stat -c %a /tmp/x", umask=0o077).split() == ["0077", "600"]
    assert sh("umask", umask=0) == "0000"


def test_the_umask_of_the_caller_changes_nothing():
    old = os.umask(0o777)
    try:
        assert sh("umask; stat -c %a /etc /tmp /usr /etc/passwd").split() == ["0022", "755", "1777", "755", "644"]
        assert sh("stat -c %a /etc /etc/passwd", hostname="box", user=5).split() == ["755", "644"]
    finally:
        assert os.umask(old) == 0o777


def test_rlimits():
    limits = {"nofile": 512, "RLIMIT_CORE": 0, "stack": (1 << 20, 2 << 20), resource.RLIMIT_CPU: (50, "unlimited"), "fsize": "unlimited", "as": -1}
    source = "import resource; answer([resource.getrlimit(getattr(resource, 'RLIMIT_' + n)) for n in sys.argv[1:]])"
    found = probe(source, "NOFILE", "CORE", "STACK", "CPU", "FSIZE", "AS", rlimits=limits)
    assert found == [[512, 512], [0, 0], [1 << 20, 2 << 20], [50, -1], [-1, -1], [-1, -1]]
    assert set(zind.run(["true"], rlimits=limits).isolation.rlimits) == {"nofile", "core", "stack", "cpu", "fsize", "as"}


def test_rlimits_are_otherwise_the_callers():
    assert sh("ulimit -n") == str(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def test_an_rlimit_is_enforced():
    r = zind.run(["python3", "-c", "bytearray(500 << 20)"], rlimits={"as": 300 << 20}, capture_output=True)
    assert r.returncode == 1 and b"MemoryError" in r.stderr


def test_oom_score_adj():
    assert sh("cat /proc/self/oom_score_adj", oom_score_adj=500) == "500"
    assert sh("cat /proc/self/oom_score_adj", oom_score_adj=1000, init=False) == "1000"
    assert sh("cat /proc/self/oom_score_adj", oom_score_adj=777, namespaces={"pid": "host"}) == "777"


def test_nice():
    assert sh("nice", nice=7) == "7"


@pytest.mark.parametrize(("name", "policy"), [("batch", os.SCHED_BATCH), ("idle", os.SCHED_IDLE), ("other", os.SCHED_OTHER)])
def test_scheduler(name, policy):
    assert probe("answer(os.sched_getscheduler(0))", scheduler=name) == policy


def test_scheduler_with_nice():
    assert probe("answer([os.sched_getscheduler(0), os.nice(0)])", scheduler="batch", nice=3) == [os.SCHED_BATCH, 3]


def test_personality():
    addr_no_randomize = 0x0040000
    assert int(sh("cat /proc/self/personality", personality=addr_no_randomize), 16) == addr_no_randomize
    two = {sh("grep -m1 stack /proc/self/maps", personality=addr_no_randomize) for _ in range(2)}
    assert len(two) == 1


# --- session and terminal --------------------------------------------------------------------------------------------
SESSION = "answer([os.getpid(), os.getpgrp(), os.getsid(0)])"


def test_the_program_leads_a_session_of_its_own():
    pid, group, session = probe(SESSION)
    assert pid == group == session


def test_without_setsid_it_stays_in_the_callers():
    pid, group, session = probe(SESSION, setsid=False)
    assert group != pid and session != pid
    pid, group, session = probe(SESSION, setsid=False, namespaces={"pid": "host"})
    assert (group, session) == (os.getpgrp(), os.getsid(0))


def test_pgid_0_is_a_new_group():
    pid, group, session = probe(SESSION, setsid=False, pgid=0)
    assert group == pid and session != pid


TERMINAL = """
import json, os, sys
fd = os.open("/dev/tty", os.O_RDWR)
found = [os.isatty(i) for i in (0, 1, 2)] + [os.tcgetpgrp(fd) == os.getpgrp(), os.getsid(0) == os.getpid()]
os.write(fd, ("=" + json.dumps(found) + "=").encode())
print("stdout")
"""


@pytest.mark.parametrize("init", [True, False])
def test_controlling_terminal_and_foreground(init):
    main, other = os.openpty()
    try:
        with zind.Popen(["python3", "-c", TERMINAL], stdin=other, stdout=other, stderr=other, setctty=True, foreground=True, init=init) as p:
            os.close(other)
            text = b""
            while p.poll() is None or wait_until(lambda: False, 0.05):
                try:
                    text += os.read(main, 4096)
                except OSError:  # EIO: the last one has closed it
                    break
            assert p.wait(timeout=10) == 0, text
        assert b"=[true, true, true, true, true]=" in text and b"stdout\r\n" in text
    finally:
        os.close(main)


def test_a_key_of_the_terminal_reaches_the_program():
    main, other = os.openpty()
    script = "trap 'echo interrupted; exit 3' INT; echo ready; while :; do sleep 0.02; done"
    with zind.Popen(["sh", "-c", script], stdin=other, stdout=other, stderr=other, setctty=True, foreground=True) as p:
        os.close(other)
        text = os.read(main, 100)
        assert b"ready" in text
        os.write(main, b"\x03")
        assert p.wait(timeout=10) == 3
        # The echo of the key may come by itself.
        text = b""
        while b"interrupted" not in text and select.select([main], [], [], 10)[0]:
            text += os.read(main, 100)
        assert b"interrupted" in text
    os.close(main)


def test_another_descriptor_as_terminal():
    main, other = os.openpty()
    source = "import os; fd = os.open('/dev/tty', os.O_RDWR); os.write(fd, b'found')"
    assert zind.run(["python3", "-c", source], pass_fds=[other], ctty=other, setctty=True).returncode == 0
    assert os.read(main, 100) == b"found"
    os.close(main)
    os.close(other)


def test_noctty_gives_the_terminal_up():
    source = """
import fcntl, os, sys, termios, zind
os.setsid()
main, other = os.openpty()
fcntl.ioctl(other, termios.TIOCSCTTY, 0)
open("/dev/tty").close()
found = []
for options in ({}, {"noctty": True, "ctty": 0, "stdin": other}):
    r = zind.spawn(["sh", "-c", "( : </dev/tty ) 2>/dev/null && echo has || echo has not"], stdout=zind.PIPE, **options)
    found.append(r.communicate()[0].decode().strip())
print(found)
"""
    assert outside(source).stdout.strip() == "['has', 'has not']"


def test_a_container_has_no_terminal_of_the_callers():
    source = """
import fcntl, os, termios, zind
os.setsid()
main, other = os.openpty()
fcntl.ioctl(other, termios.TIOCSCTTY, 0)
print(zind.run(["sh", "-c", "( : </dev/tty ) 2>/dev/null && echo has || echo has not"], stdout=zind.PIPE, text=True).stdout.strip())
"""
    assert outside(source).stdout.strip() == "has not"


# --- privileges ------------------------------------------------------------------------------------------------------
CAPS = STATUS + "answer({k: int(v, 16) for k, v in status().items() if k.startswith('Cap')})"
NET_BIND, CHOWN = 10, 0


def test_capabilities_of_root():
    found = probe(CAPS, capabilities=["NET_BIND_SERVICE", "cap_chown"])
    wanted = 1 << NET_BIND | 1 << CHOWN
    assert found == {"CapInh": 0, "CapPrm": wanted, "CapEff": wanted, "CapBnd": wanted, "CapAmb": 0}


def test_capabilities_of_a_user_work():
    source = CAPS + "\nimport socket; socket.socket().bind(('127.0.0.1', 80))"
    found = probe(source, capabilities=["NET_BIND_SERVICE"], user="1000:1000", **RANGES)
    assert found["CapEff"] == found["CapAmb"] == found["CapBnd"] == 1 << NET_BIND
    refused_ = zind.run(["python3", "-c", "import socket; socket.socket().bind(('127.0.0.1', 80))"], capture_output=True, user="1000:1000", **RANGES)
    # Since Linux 4.11 a network namespace says from which port on anybody may bind; a new one starts at 1024.
    assert b"PermissionError" in refused_.stderr


def test_ambient_capabilities():
    found = probe(CAPS, capabilities=["NET_BIND_SERVICE", "CHOWN"], ambient_caps=["NET_BIND_SERVICE"])
    assert found["CapAmb"] == found["CapInh"] == 1 << NET_BIND
    assert found["CapEff"] == 1 << NET_BIND | 1 << CHOWN


def test_the_docker_set():
    found = probe(CAPS, capabilities="docker")
    assert found["CapEff"] == 0xA80425FB == found["CapBnd"]


def test_privileged():
    found = probe(STATUS + "answer(status())", privileged=True)
    bounding = int(next(line for line in open("/proc/self/status") if line.startswith("CapBnd")).split()[1], 16)
    # In a user namespace of its own it has them all.
    assert int(found["CapEff"], 16) == (bounding if os.geteuid() == 0 else int(found["CapBnd"], 16)) != 0
    assert found["Seccomp"] == "0"


def test_no_new_privileges_can_be_left_out():
    assert probe(STATUS + "answer(status()['NoNewPrivs'])", no_new_privileges=False) == "0"


def test_pdeathsig():
    """The payload gets the signal when the process above it, zind's own, ends."""
    assert probe("import ctypes; n = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(n)); answer(n.value)", pdeathsig="TERM") == signal.SIGTERM
    assert probe("import ctypes; n = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(n)); answer(n.value)", pdeathsig=9) == 9


# --- descriptors and signals -----------------------------------------------------------------------------------------
FDS = "answer(sorted(int(f) for f in os.listdir('/proc/self/fd')))"


def test_pass_fds_and_everything_else_closed():
    read_end, write_end = os.pipe()
    inheritable = [os.open("/dev/zero", os.O_RDONLY) for _ in range(5)]
    high = fcntl.fcntl(inheritable[0], fcntl.F_DUPFD, 500)
    for fd in [*inheritable, high]:
        os.set_inheritable(fd, True)
    try:
        found = probe("os.write(int(sys.argv[1]), b'x'); " + FDS, str(write_end), pass_fds=[write_end, high])
        # The last one is the listing's own.
        assert [fd for fd in found if fd > 2] == sorted({write_end, high, min(set(range(3, 600)) - {write_end, high})})
        assert os.read(read_end, 10) == b"x"
        assert not os.get_inheritable(write_end)
        assert zind.run(["true"], pass_fds=[write_end]).isolation.pass_fds == [write_end]
    finally:
        for fd in [read_end, write_end, high, *inheritable]:
            os.close(fd)


@pytest.mark.parametrize("options", [{}, {"init": False}, {"namespaces": {"pid": "host"}}])
def test_no_descriptor_comes_along(options):
    extra = os.open("/", os.O_RDONLY)
    os.set_inheritable(extra, True)
    try:
        assert probe(FDS, **options) == [0, 1, 2, 3]
    finally:
        os.close(extra)


def test_many_passed_descriptors():
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(300)]
    try:
        assert set(fds) <= set(probe(FDS, pass_fds=fds))
    finally:
        for fd in fds:
            os.close(fd)


def test_a_passed_descriptor_may_be_a_standard_stream_too(tmp_path):
    with open(tmp_path / "f", "wb") as file:
        r = zind.run(["bash", "-c", f"echo a; echo b >&{file.fileno()}"], stdout=file, stderr=file, pass_fds=[file.fileno()])
    assert r.returncode == 0
    assert (tmp_path / "f").read_bytes() == b"a\nb\n"


def test_streams_crosswise(tmp_path):
    """The caller's 1 as stderr and 2 as stdout."""
    source = "import zind; zind.run(['sh', '-c', 'echo out; echo err >&2'], stdout=2, stderr=1, check=True)"
    r = outside(source)
    assert (r.stdout, r.stderr) == ("err\n", "out\n")


def test_no_signal_is_blocked_or_ignored():
    source = """
import signal, zind
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGTERM])
r = zind.run(["cat", "/proc/self/status"], stdout=zind.PIPE, text=True)
print([line.split()[1].strip("0") for line in r.stdout.splitlines() if line.startswith(("SigBlk", "SigIgn", "SigCgt"))])
print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])) == [signal.SIGUSR2, signal.SIGTERM] or sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))
"""
    lines = outside(source).stdout.splitlines()
    assert lines == ["['', '', '']", "True"]


def test_the_caller_is_not_changed():
    before = (os.getcwd(), os.umask(0o022), dict(os.environ), signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.getsignal(signal.SIGCHLD))
    os.umask(before[1])
    zind.run(["sh", "-c", "cd /tmp"], cwd="/usr", umask=0o077, env={"X": "1"}, nice=5, oom_score_adj=100, rlimits={"nofile": 100})
    after = (os.getcwd(), os.umask(0o022), dict(os.environ), signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.getsignal(signal.SIGCHLD))
    os.umask(after[1])
    assert before == after
    dumpable = kit._libc.prctl(3)
    assert dumpable == 1


def test_a_stopped_program_goes_on():
    with zind.Popen(["sh", "-c", "echo ready; read x; echo $x"], stdin=zind.PIPE, stdout=zind.PIPE) as p:
        assert p.stdout.readline() == b"ready\n"
        inner = next(pid for pid, (_, parent, _) in kit.processes().items() if parent == p.pid)
        p.send_signal(signal.SIGSTOP)
        assert wait_until(lambda: kit.processes()[inner][0] == "T")
        time.sleep(0.05)
        assert p.poll() is None
        p.send_signal(signal.SIGCONT)
        p.stdin.write(b"on\n")
        p.stdin.close()
        assert p.stdout.read() == b"on\n"


def test_real_time_policies():
    needs_root("CAP_SYS_NICE")
    # CAP_SYS_NICE is there, but a control group without real-time runtime refuses; then the reason is told.
    try:
        assert probe("answer(os.sched_getscheduler(0))", scheduler=("rr", 5)) == os.SCHED_RR
    except zind.SysError as error:
        assert (error.step, error.errno) == ("Scheduler", errno.EPERM) and "rt_runtime" in error.hint
