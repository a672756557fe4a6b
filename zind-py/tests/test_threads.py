"""Any thread, any number of them: no hang, no lost status, nothing left."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

import kit
import zind

TRUE = "/bin/true"


@pytest.mark.limit(400)
def test_5000_instant_exits_from_64_threads():
    starts = 5000
    todo = iter(range(starts))
    lock = threading.Lock()
    seen: list[tuple[int, int]] = []
    failures: list[BaseException] = []

    def work() -> None:
        keep = []
        while not failures:
            with lock:
                number = next(todo, None)
            if number is None:
                return
            keep.append(bytearray(10_000 + number))
            del keep[:-20]
            try:
                code = number % 251
                result = zind.run(["sh", "-c", f"exit {code}"] if number % 50 == 0 else [TRUE], stdin=zind.DEVNULL)
                with lock:
                    seen.append((code if number % 50 == 0 else 0, result.returncode))
            except BaseException as error:  # noqa: BLE001  it is raised again below
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    assert len(seen) == starts
    assert all(wanted == got for wanted, got in seen)


def test_other_threads_go_on_during_a_run():
    ticks = 0
    done = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not done.wait(0.005):
            ticks += 1

    thread = threading.Thread(target=tick)
    thread.start()
    zind.run(["sleep", "0.5"])
    done.set()
    thread.join()
    assert ticks > 20


def test_a_container_outlives_the_thread_that_started_it():
    started: list[zind.Popen] = []
    thread = threading.Thread(target=lambda: started.append(zind.Popen(["sleep", "0.5"])))
    thread.start()
    thread.join()
    assert started[0].wait(timeout=20) == 0


INTERRUPTED = """
import sys, zind
try:
    zind.run(["sh", "-c", f"echo ready > /dev/stderr; sleep {sys.argv[1]}"])
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_ends_a_run_and_its_container():
    import subprocess
    import sys

    # A number of our own.
    seconds = f"1000.{os.getpid()}"
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, seconds], env=kit.child_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stderr.readline() == "ready\n"
        began = time.monotonic()
        os.kill(child.pid, signal.SIGINT)
        out, err = child.communicate(timeout=20)
        assert out == "interrupted\n", err
        assert time.monotonic() - began < 5
    assert kit.wait_until(lambda: not kit.running("sleep", seconds))
