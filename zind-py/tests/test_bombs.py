"""Payloads that take all they can get: this machine stays as it was, the exit says why, and nothing is left."""

from __future__ import annotations

import os
import pathlib
import subprocess
import time

import kit
import pytest
from groups import MIB, need, popen, python, run

import zind


def responsive() -> None:
    """This machine still starts programs, and has memory left."""
    assert subprocess.run(["true"], timeout=30, check=False).returncode == 0
    meminfo = dict(line.split(":", 1) for line in pathlib.Path("/proc/meminfo").read_text().splitlines())
    assert int(meminfo["MemAvailable"].split()[0]) > 128 * 1024


def gone(process: zind.Popen, paths: list[str]) -> None:
    assert kit.wait_until(lambda: not any(os.path.exists(path) for path in paths), 10), paths


FORK_BOMB = """
import os, time
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.001)
"""


@pytest.mark.limit(180)
def test_fork_bomb_ends_with_its_time():
    need("pids")
    # On a busy machine the payload may not even have begun in the shorter times.
    for patience in (4, 10, 30):
        with pytest.raises(zind.TimeoutExpired) as info:
            python(FORK_BOMB, pids=64, memory="200m", timeout=patience)
        if (info.value.stats.pids_peak or 64) >= 64:
            break
    assert info.value.exit.kind == "timeout"
    assert info.value.stats.pids_peak in (64, None)
    assert info.value.stats.pids_limited is None or info.value.stats.pids_limited > 0
    responsive()


@pytest.mark.limit(180)
def test_fork_bomb_is_killed_in_one_go_with_and_without_a_pid_1_of_ours():
    need("pids")
    for init in (True, False):
        process = zind.Popen(
            ["/usr/bin/python3", "-S", "-c", FORK_BOMB],
            stdin=zind.DEVNULL,
            init=init,
            resources=zind.Resources(pids=100, memory="300m"),
        )
        with process:
            assert kit.wait_until(lambda: (process.stats().pids or 0) >= 90, 60, 0.05), process.stats()
            paths = list(process.isolation.cgroup)
            responsive()
            process.kill()
            assert process.wait(timeout=60) == -9
        assert process.exit.kind == "signaled"
        assert process.processes() == []
        gone(process, paths)


def test_memory_bomb_is_told_as_oom():
    need("memory")
    result = run(["tail", "/dev/zero"], memory="64m", swap=0, timeout=120)
    assert result.exit.kind == "oom"
    assert result.stats.memory_peak <= 64 * MIB
    responsive()


def test_memory_bomb_of_many_processes():
    need("memory")
    script = "for i in 1 2 3 4 5 6; do tail /dev/zero & done; wait; echo survived"
    result = run(["sh", "-c", script], memory="64m", swap=0, pids=20, timeout=120)
    assert result.stdout == "survived\n", "the shell itself is small"
    assert result.stats.oom_kills == 6
    responsive()


def test_memory_that_ran_out_is_oom_whoever_waits():
    need("memory")
    process = popen(["tail", "/dev/zero"], memory="64m")
    with process:
        assert process.wait(timeout=120) == -9
    assert process.exit.kind == "oom"
    assert process.stats().oom_kills == 1


@pytest.mark.limit(180)
@pytest.mark.parametrize("options", [{}, {"init": False}], ids=str)
def test_a_kill_by_somebody_after_memory_ran_out_is_none_for_memory(options):
    need("memory")
    # The shell lives on when its child is killed for memory.
    process = popen(["sh", "-c", "tail /dev/zero; echo $?; exec sleep 60"], memory="32m", swap=0, options=options)
    with process:
        assert process.stdout.readline() == b"137\n"
        kit.kill_from_outside(process)
        assert process.wait(timeout=60) == -9
    assert process.stats().oom_kills == 1
    # Whoever watches was there before systemd's scope, and does not see the count.
    sees = not any(".scope" in path for path in process.isolation.cgroup)
    assert process.exit.kind == ("signaled" if sees else "oom")


@pytest.mark.limit(180)
@pytest.mark.parametrize("options", [{}, {"init": False}], ids=str)
def test_memory_that_ran_out_twice_is_oom(options):
    need("memory")
    # One child, then the payload.
    script = "tail /dev/zero; echo $?; sleep 0.2; exec tail /dev/zero"
    process = popen(["sh", "-c", script], memory="32m", swap=0, options=options)
    with process:
        assert process.stdout.readline() == b"137\n"
        assert process.wait(timeout=120) == -9
    assert (process.exit.kind, process.stats().oom_kills) == ("oom", 2)


@pytest.mark.parametrize("where", ["/tmp", "/dev/shm", "/var/tmp"])
def test_a_full_tmpfs_is_paid_for_by_the_container(where):
    need("memory")
    # cat is what grows; its pages are the tmpfs's. Nothing can be taken back, so that the writer is killed, or told ENOSPC.
    result = run(["sh", "-c", f"exec cat /dev/zero > {where}/full"], memory="48m", swap=0, timeout=120)
    assert result.exit.kind == "oom" or (result.exit.kind == "exited" and "No space" in result.stderr), result
    if result.exit.kind == "oom":
        assert result.stats.memory_peak <= 48 * MIB
    responsive()


def test_a_tmpfs_with_a_size_is_full_before_memory_is():
    need("memory")
    mount = zind.Mount.tmpfs("/full", size="8m")
    result = run(["sh", "-c", "cat /dev/zero > /full/x; ls -l /full/x | cut -d' ' -f5"], memory="64m", mounts=[mount])
    assert "No space left" in result.stderr
    assert result.stdout == f"{8 * MIB}\n"


def test_busy_payloads_leave_time_for_this_machine():
    need("cpu")
    # Before the first of them: starting the others takes its time, too.
    began = time.monotonic()
    processes = [popen(["sh", "-c", "while :; do :; done"], cpus=0.25, pids=10) for _ in range(4)]
    responsive()
    kit.outside("import zind; zind.run(['true'])")
    for process in processes:
        process.kill()
        process.stdout.close()
    assert [process.wait(timeout=60) for process in processes] == [-9] * 4
    used = sum(process.stats().cpu_user + process.stats().cpu_system for process in processes)
    assert used <= 4 * (0.25 * (time.monotonic() - began) + 0.1) + 0.5


@pytest.mark.parametrize("state", ["running", "paused"])
def test_crash_of_the_caller_leaves_no_group(state):
    need("memory")
    source = """
import os, sys, zind
process = zind.Popen(["sleep", "600"], stdin=zind.DEVNULL, stdout=zind.DEVNULL, resources=zind.Resources(memory="64m", pids=10))
if sys.argv[1] == "paused":
    process.pause()
print("\\n".join(process.isolation.cgroup), flush=True)
os.kill(os.getpid(), 9)
"""
    ended = kit.outside(source, state, check=False)
    assert ended.returncode == -9, ended.stderr
    paths = ended.stdout.split()
    assert paths
    # By itself: what is frozen is thawed by a task of zind's own, and a scope of systemd's goes with its last process.
    assert kit.wait_until(lambda: not any(map(kit.alive, groups_pids(paths))), 20)
    assert kit.wait_until(lambda: not any(os.path.exists(path) for path in paths), 20), paths


def groups_pids(paths: list[str]) -> list[int]:
    found: list[int] = []
    for path in paths:
        try:
            found += [int(line) for line in (pathlib.Path(path) / "cgroup.procs").read_text().split()]
        except OSError:
            pass
    return found


