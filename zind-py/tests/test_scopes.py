"""Containers in scopes of a user's manager, for a caller outside of that manager's tree: a login session, or a service of the machine's
that runs as a user. Only systemd takes a process from there into the scope.

Needs a machine that systemd has started: ``make test-vm SUITES=systemd``.
"""

from __future__ import annotations

import os
import subprocess

import kit
import pytest

pytestmark = pytest.mark.skipif(not (kit.ROOT and os.path.isdir("/run/systemd/system")), reason="needs root, and a machine that systemd has started")


@pytest.fixture(scope="module")
def outsider(user_python):
    """Runs Python as an ordinary user who has a manager, in a group that is not the manager's."""
    runtime = f"/run/user/{user_python.uid}"
    subprocess.run(["loginctl", "enable-linger", str(user_python.uid)], check=True)
    assert kit.wait_until(lambda: os.path.exists(f"{runtime}/bus"), 60)
    env = {"XDG_RUNTIME_DIR": runtime, "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus"}
    yield lambda source, *args: user_python.snippet(source, *args, timeout=100, **env)
    subprocess.run(["loginctl", "disable-linger", str(user_python.uid)], check=True)
    assert kit.wait_until(lambda: not os.path.exists(f"{runtime}/bus"), 60)


EXEC = """
import concurrent.futures, os, pathlib, sys, time, zind
MANAGER = f"user@{os.getuid()}.service"
def group(pid): return pathlib.Path(f"/proc/{pid}/cgroup").read_text().strip()
assert MANAGER not in group("self"), group("self")
limits = zind.Resources(pids=20, memory="128m")
quiet = {"stdin": zind.DEVNULL, "stdout": zind.DEVNULL, "stderr": zind.DEVNULL}

def look(running, pid):
    inside = group(pid)
    assert MANAGER in inside and ".scope/zind-" in inside, inside
    with running.popen(["sleep", "600"], **quiet) as q:
        assert group(q.pid) == inside, (group(q.pid), inside)
        # It counts, as everything in the container does, and whoever watches over it does not.
        assert running.stats().pids == 2, running.stats()
        q.kill()
    assert running.exec(["true"], stdin=zind.DEVNULL).returncode == 0
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert {done.returncode for done in pool.map(lambda n: running.exec(["sh", "-c", f"exit {n}"], stdin=zind.DEVNULL), range(4))} == {0, 1, 2, 3}
    bomb = running.exec(["sh", "-c", "for i in $(seq 40); do sleep 5 & done"], **quiet)
    assert bomb.returncode != 0, bomb
    assert running.stats().pids_limited >= 1, running.stats()
    return inside

with zind.Popen(["sleep", "600"], resources=limits, **quiet) as p:
    first = look(p, p.pid)
    p.kill()
try:
    p.exec(["true"])
except zind.StateError:
    pass
else:
    raise AssertionError("it has ended")
with zind.Container(["sleep", "600"], name="far", containers=zind.Containers(sys.argv[1]), resources=limits) as c:
    c.start()
    second = look(c, c.pid)
    c.kill()
    c.wait(20)
# systemd takes the scopes away with the last process.
until = time.monotonic() + 30
for inside in (first, second):
    scope = pathlib.Path("/sys/fs/cgroup" + inside.partition("::")[2]).parent
    while scope.exists():
        assert time.monotonic() < until, scope
        time.sleep(0.05)
print("ok")
"""


@pytest.mark.limit(240)
def test_programs_come_into_a_scope_from_outside(outsider, user_python):
    assert outsider(EXEC, os.path.join(user_python.tmp, "places")) == "ok\n"
