"""A container lives no longer than the process that made it, whatever ends that."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest

import kit
import zind

FOREVER = """
import os, sys, threading, zind
def work():
    while True:
        p = zind.Popen(["sleep", "4242"], stdout=zind.PIPE)
        zind.run(["true"])
        p.kill()
        p.wait()
zind.run(["true"])
for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
os.write(1, b"x")
work()
"""


@pytest.mark.limit(400)
def test_sigkill_at_200_moments_leaves_nothing():
    random.seed(20)
    for _ in range(200):
        owner = subprocess.Popen([sys.executable, "-c", FOREVER], env=kit.child_env(), stdout=subprocess.PIPE)
        assert owner.stdout.read(1) == b"x"
        time.sleep(random.uniform(0, 0.03))
        owner.kill()
        owner.wait()
        owner.stdout.close()
    assert kit.wait_until(lambda: not kit.running("sleep", "4242")), "payloads outlive their owner"
    names = lambda: [row for row in kit.descendants().values() if row[0] not in "ZX"]  # noqa: E731
    assert kit.wait_until(lambda: not names()), names()


def test_a_container_may_be_told_to_stay():
    out = kit.outside("import zind; D = zind.DEVNULL; print(zind.Popen(['sleep', '4343'], stdin=D, stdout=D, stderr=D, die_with_owner=False).pid)").stdout
    pid = int(out)
    assert kit.alive(pid)
    time.sleep(0.2)
    assert kit.alive(pid)
    os.kill(pid, signal.SIGKILL)
    assert kit.wait_until(lambda: not kit.running("sleep", "4343"))


OWN_CHILDREN = """
import os, signal, sys, threading, time, zind
caught = []
signal.signal(signal.SIGCHLD, lambda *_: caught.append(1))
reaped = []
def reap():
    while True:
        try:
            reaped.append(os.waitpid(-1, 0)[0])
        except ChildProcessError:
            time.sleep(0.001)
threading.Thread(target=reap, daemon=True).start()
for i in range(50):
    assert zind.run(["sh", "-c", f"exit {i}"], stdin=zind.DEVNULL).returncode == i
assert not caught and not reaped, (caught, reaped)
child = os.fork()
if child == 0:
    os._exit(3)
for _ in range(3000):
    if reaped: break
    time.sleep(0.01)
assert reaped == [child], reaped
"""


def test_wait_and_sigchld_of_the_caller_are_its_own():
    kit.outside(OWN_CHILDREN)


def test_ignored_sigchld_loses_no_status():
    kit.outside(
        "import signal, zind; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "assert zind.run(['sh', '-c', 'exit 5']).returncode == 5"
    )


def test_a_forked_child_can_start_containers_of_its_own():
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(zind.run(["sh", "-c", "exit 6"]).returncode)
        except BaseException:  # noqa: BLE001
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 6


def test_a_forked_child_does_not_keep_its_parents_container_alive():
    source = (
        "import os, time, zind\n"
        "p = zind.Popen(['sleep', '4444'])\n"
        "if os.fork() == 0: time.sleep(30); os._exit(0)\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.Popen([sys.executable, "-c", source], env=kit.child_env(), stdin=subprocess.DEVNULL).wait()
    assert kit.wait_until(lambda: not kit.running("sleep", "4444"))
    for pid in [pid for pid, _ in kit.descendants().items() if "4444" in " ".join(kit.cmdline(pid))]:
        os.kill(pid, signal.SIGKILL)
