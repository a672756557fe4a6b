"""Who is PID 1, and what dies with it."""

import os
import signal
import time

import pytest

import kit
import zind
from kit import needs_user, probe, running, sh, wait_until

PIDS = "answer({p: open(f'/proc/{p}/comm').read().strip() for p in os.listdir('/proc') if p.isdigit()})"


def test_the_init_is_pid_1_and_the_program_its_child():
    assert probe("answer([os.getpid(), os.getppid(), open('/proc/1/comm').read().strip()])") == [2, 1, "zind-init"]


def test_without_init_the_program_is_pid_1():
    assert probe("answer([os.getpid(), os.getppid()])", init=False) == [1, 0]
    assert zind.run(["true"], init=False).isolation.init is False
    assert zind.run(["true"]).isolation.init is True


def test_orphans_are_reaped():
    source = """
import time
for _ in range(20):
    if os.fork() == 0:
        if os.fork() == 0: time.sleep(0.1)
        os._exit(0)
    os.wait()
end = time.monotonic() + 30
while time.monotonic() < end:
    left = [p for p in os.listdir("/proc") if p.isdigit() and p not in ("1", str(os.getpid()))]
    if not left: break
    time.sleep(0.02)
answer(left)
"""
    assert probe(source) == []


def test_without_init_the_program_has_to_reap():
    source = """
import time
if os.fork() == 0:
    if os.fork() == 0: os._exit(0)
    time.sleep(0.05); os._exit(0)
time.sleep(0.3)
found = []
while True:
    try: found.append(os.wait()[0])
    except ChildProcessError: break
answer(len(found))
"""
    assert probe(source, init=False) == 2


@pytest.mark.parametrize("how", ["send_signal", "kill"])
@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1", "USR2", "WINCH", "CONT"])
def test_signals_are_forwarded(how, name):
    number = getattr(signal, f"SIG{name}")
    script = f"trap 'echo got; exit 5' {name}; echo ready; while :; do sleep 0.01; done"
    with zind.Popen(["sh", "-c", script], stdout=zind.PIPE) as p:
        assert p.stdout.readline() == b"ready\n"
        if how == "kill":
            os.kill(p.pid, number)
        else:
            p.send_signal(number)
        assert p.wait(timeout=10) == 5
        assert p.stdout.read() == b"got\n"


def test_a_program_without_handlers_dies_of_sigterm():
    """With init it is not PID 1, which the kernel would spare."""
    with zind.Popen(["sleep", "100"]) as p:
        p.send_signal(signal.SIGTERM)
        assert p.wait(timeout=10) == -signal.SIGTERM


def test_pid_1_without_handlers_is_spared_but_not_from_kill():
    with zind.Popen(["sleep", "100"], init=False) as p:
        p.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        assert p.poll() is None
        p.kill()
        assert p.wait(timeout=10) == -signal.SIGKILL


def test_signals_reach_a_program_that_is_pid_1():
    script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done"
    with zind.Popen(["sh", "-c", script], stdout=zind.PIPE, init=False) as p:
        assert p.stdout.readline() == b"ready\n"
        p.terminate()
        assert p.wait(timeout=10) == 5


def test_forward_signals_reaches_the_group():
    script = "sh -c 'trap \"echo child; exit 0\" USR1; echo ready; while :; do sleep 0.01; done' & trap 'wait; exit 6' USR1; wait; wait"
    with zind.Popen(["sh", "-c", script], stdout=zind.PIPE, forward_signals=True) as p:
        assert p.stdout.readline() == b"ready\n"
        os.kill(p.pid, signal.SIGUSR1)
        assert p.stdout.read() == b"child\n"
        assert p.wait(timeout=10) == 6


@pytest.mark.parametrize("options", [{}, {"init": False}, {"namespaces": {"pid": "host"}}])
def test_background_processes_die_with_the_program(options):
    script = "sleep 7654.5 & setsid nohup sleep 7654.5 >/dev/null 2>&1 & (setsid sleep 7654.5 &) ; echo done; exit 3"
    began = time.monotonic()
    r = zind.run(["sh", "-c", script], capture_output=True, **options)
    assert (r.stdout, r.returncode) == (b"done\n", 3)
    assert time.monotonic() - began < 3, "it waited for the background"
    assert running("sleep", "7654.5") == []


@pytest.mark.parametrize("options", [{}, {"init": False}, {"namespaces": {"pid": "host"}}])
def test_kill_ends_everything(options):
    script = "setsid sleep 7655.5 & (setsid sleep 7655.5 &) ; echo ready; sleep 7655.5"
    with zind.Popen(["sh", "-c", script], stdout=zind.PIPE, **options) as p:
        assert p.stdout.readline() == b"ready\n"
        assert wait_until(lambda: len(running("sleep", "7655.5")) == 3)
        p.kill()
        assert p.wait(timeout=10) == -9
        assert wait_until(lambda: running("sleep", "7655.5") == [])


def test_whole_trees_die_where_the_pid_namespace_is_the_hosts():
    """A deep and wide tree of daemons, in sessions of their own, some of which keep forking."""
    source = """
import os, time
def daemon(depth):
    for _ in range(2):
        if os.fork() == 0:
            os.setsid()
            if depth: daemon(depth - 1)
            os.execvp("sleep", ["sleep", "7656.5"])
daemon(4)
time.sleep(0.3)
"""
    zind.run(["python3", "-c", source], namespaces={"pid": "host"}, check=True)
    assert running("sleep", "7656.5") == []


def test_killing_the_init_ends_the_container():
    with zind.Popen(["sh", "-c", "echo ready; sleep 7657.5"], stdout=zind.PIPE) as p:
        assert p.stdout.readline() == b"ready\n"
        os.kill(p.pid, signal.SIGKILL)
        assert p.wait(timeout=10) == -9 and p.exit.kind == "signaled"
    assert wait_until(lambda: running("sleep", "7657.5") == [])


def test_the_program_cannot_harm_its_init():
    assert sh("kill -9 1; kill -STOP 1; sleep 0.1; (sleep 0.05 &); sleep 0.1; cut -d' ' -f3 /proc/1/stat") == "S"


def test_what_the_program_sends_to_pid_1_comes_back():
    assert sh("trap 'echo got' TERM; kill -TERM 1; sleep 0.1; sleep 0.1; echo alive").split() == ["got", "alive"]


def test_the_init_holds_nothing_of_the_program():
    """A pipe the program has closed is closed, though its init lives."""
    with zind.Popen(["sh", "-c", "exec >&-; read x"], stdin=zind.PIPE, stdout=zind.PIPE) as p:
        assert p.stdout.read() == b""
        assert p.poll() is None
        p.stdin.close()


def test_the_init_cannot_be_looked_into():
    source = """
found = {}
for name in ("environ", "mem", "maps", "fd", "exe", "cwd", "root", "syscall", "stack"):
    try:
        path = f"/proc/1/{name}"
        links = [f"{path}/{fd}" for fd in os.listdir(path)] if name == "fd" else [path]
        for link in links: (os.readlink if name in ("exe", "cwd", "root", "fd") else lambda p: open(p, "rb").read(1))(link)
        found[name] = "open"
    except OSError as error: found[name] = error.errno
answer(found)
"""
    assert set(probe(source).values()) <= {1, 13}, probe(source)


def test_the_init_has_no_privileges_left():
    status = probe(kit.STATUS + "answer(status(1))")
    assert int(status["CapEff"], 16) & ~(1 << 5) == 0, "CAP_KILL at most"


def test_a_join_of_the_pid_namespace_excludes_an_init():
    kit.refused(zind.SpecError, lambda: zind.run(["true"], namespaces={"pid": 1}), field="init")


def test_exit_of_the_program_while_a_daemon_holds_the_pipe():
    began = time.monotonic()
    r = zind.run(["sh", "-c", "sleep 1000 & echo x"], capture_output=True, namespaces={"pid": "host"})
    assert r.stdout == b"x\n" and time.monotonic() - began < 3


def test_an_ordinary_user_may_signal_the_init_from_outside():
    needs_user("root may anyway")
    with zind.Popen(["sleep", "100"]) as p:
        os.kill(p.pid, signal.SIGTERM)
        assert p.wait(timeout=10) == -signal.SIGTERM
