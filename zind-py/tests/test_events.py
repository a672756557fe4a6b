"""Events of a container, as they happen: blocking, in an event loop, with a descriptor."""

from __future__ import annotations

import asyncio
import select
import threading

import kit
import pytest
from groups import need, on_v2, popen

import zind

BUSY = "for i in 1 2 3 4 5 6; do sh -c 'while :; do :; done' & done; wait"


def kinds(events) -> list[str]:
    return [event.kind for event in events]


def test_memory_that_ran_out_is_told_and_then_the_end():
    need("memory")
    with popen(["tail", "/dev/zero"], memory="48m") as process:
        told = list(process.events())
    assert kinds(told)[-1] == "empty"
    assert {"oom", "oom_kill"} <= set(kinds(told))
    assert next(event for event in told if event.kind == "oom_kill") == zind.Event("oom_kill", 1, None)
    assert {"oom_kill", "empty"} <= set(kinds(process.events())), "asked once more, after the end"


def test_events_are_of_the_whole_life_whenever_they_are_asked_for():
    need("memory")
    process = popen(["sh", "-c", "tail /dev/zero; echo killed; read x"], memory="48m")
    with process:
        assert process.stdout.readline() == b"killed\n"
        process.wait(timeout=60)
    told = kinds(process.events())
    assert "oom_kill" in told and told[-1] == "empty", told


def test_freezing_is_told():
    need("memory")
    with popen(["sleep", "60"], memory="64m") as process:
        events = process.events()
        assert events.get(timeout=0) is None
        process.pause()
        first = events.get(timeout=30) if HAS_V2 else None
        process.resume()
        second = events.get(timeout=30) if HAS_V2 else None
        if HAS_V2:
            assert (first.kind, second.kind) == ("frozen", "thawed")
        process.kill()
        assert kinds(events) == ["empty"]
        assert events.over and events.get() is None
        events.close()
        events.close()
        assert events.fileno() == -1


#: A group of version 2 is there, in a hybrid tree too.
HAS_V2 = any(line.startswith("0::") for line in open("/proc/self/cgroup", encoding="utf-8"))


def test_limits_that_are_met_are_told():
    need("pids")
    if not on_v2("pids"):
        pytest.skip("limits that are met are told on version 2 only")
    source = "import os, time\ntry:\n    [os.fork() or time.sleep(60) for _ in range(50)]\nexcept OSError: pass"
    with popen(["/usr/bin/python3", "-S", "-c", source], pids=5, memory="100m") as process:
        with process.events() as events:
            assert events.get(timeout=60).kind == "pids_max"
        process.kill()


def test_memory_high_is_told():
    need("memory")
    if not on_v2("memory"):
        pytest.skip("limits that are met are told on version 2 only")
    with popen(["sh", "-c", "head -c 40m /dev/zero | tail -c 30m | wc -c; sleep 60"], memory_high="16m", memory="200m") as process:
        with process.events() as events:
            assert events.get(timeout=60).kind == "memory_high"
        process.kill()


def test_lost_time_is_told():
    need("cpu")
    trigger = zind.PressureTrigger("cpu", stall=0.05, window=2)
    if not HAS_V2:
        pytest.skip("pressure needs version 2")
    with popen(["sh", "-c", BUSY], cpus=0.5, pids=20) as process:
        with process.events(pressure=[trigger]) as events:
            told = events.get(timeout=40)
            assert (told.kind, told.resource) == ("pressure", "cpu")
        pressure = process.stats().pressure
        assert pressure is None or pressure.cpu is None or pressure.cpu.some.total > 0
        process.kill()


def test_triggers_without_sense_are_refused():
    need("memory")
    with popen(["sleep", "60"], memory="64m") as process:
        for trigger in (("cpu", 0, 2), ("cpu", 3, 2), ("cpu", 0.1, 20), ("cpu", 0.1, 0.1), ("disk", 0.1, 2)):
            kit.refused(zind.SpecError, lambda trigger=trigger: process.events(pressure=[zind.PressureTrigger(*trigger)]), field="pressure")
        if not kit.ROOT:
            # Only windows of 2 s and more are everybody's.
            error = kit.refused(zind.SysError, lambda: process.events(pressure=[zind.PressureTrigger("cpu", 0.1, 1)]))
            assert "multiple of 2 s" in error.hint
        process.kill()


def test_without_resources_there_are_no_events():
    with zind.Popen(["sleep", "60"], stdin=zind.DEVNULL) as process:
        kit.refused(zind.StateError, lambda: process.events())
        process.kill()


def test_a_loop_of_descriptors_is_woken():
    need("memory")
    with popen(["tail", "/dev/zero"], memory="48m") as process:
        with process.events() as events:
            told = []
            while not events.over:
                assert select.select([events], [], [], 60)[0], told
                while (event := events.get(timeout=0)) is not None:
                    told.append(event.kind)
        assert "oom_kill" in told and told[-1] == "empty"


def test_asyncio_is_told():
    need("memory")

    async def main() -> list[str]:
        limits = zind.Resources(memory="48m")
        process = await zind.aio.Popen.start(["tail", "/dev/zero"], stdin=zind.DEVNULL, stdout=zind.DEVNULL, resources=limits)
        async with process:
            return [event.kind async for event in process.events()]

    told = asyncio.run(main())
    assert "oom_kill" in told and told[-1] == "empty"


def test_asyncio_is_told_of_lost_time():
    need("cpu")
    if not HAS_V2:
        pytest.skip("pressure needs version 2")

    async def main() -> zind.Event:
        limits = zind.Resources(cpus=0.5, pids=20)
        process = await zind.aio.Popen.start(["sh", "-c", BUSY], stdin=zind.DEVNULL, resources=limits)
        async with process:
            async with process.events(pressure=[zind.PressureTrigger("cpu", 0.05, 2)]) as events:
                told = await asyncio.wait_for(events.get(), 40)
            process.kill()
            return told

    assert asyncio.run(main()) == zind.Event("pressure", 1, "cpu")


def test_another_thread_waits_while_this_one_goes_on():
    need("memory")
    told: list[str] = []
    with popen(["sleep", "60"], memory="64m") as process:
        thread = threading.Thread(target=lambda: told.extend(kinds(process.events())))
        thread.start()
        assert process.stats().memory_current > 0
        process.kill()
        thread.join(60)
    assert told == ["empty"]
    assert not thread.is_alive()


def test_the_end_is_told_when_the_container_was_over_before():
    need("memory")
    with popen(["true"], memory="64m") as process:
        process.wait(timeout=60)
    assert kinds(process.events()) == ["empty"]


def test_the_iterator_can_be_interrupted():
    need("memory")
    source = """
import signal, sys, zind
process = zind.Popen(["sleep", "60"], stdin=zind.DEVNULL, stdout=zind.DEVNULL, resources=zind.Resources(memory="64m"))
signal.signal(signal.SIGALRM, lambda *_: sys.exit(7))
signal.setitimer(signal.ITIMER_REAL, 0.2)
try:
    next(process.events())
finally:
    process.kill()
    process.wait()
"""
    assert kit.outside(source, check=False).returncode == 7



def test_another_thread_closes_them_and_asks_whether_they_are_over():
    with zind.Popen(["sleep", "60"], stdin=zind.DEVNULL, resources=zind.Resources()) as p:
        events = p.events()
        told = []
        waiting = threading.Thread(target=lambda: told.extend(events))
        waiting.start()
        assert not events.over
        events.close()
        waiting.join(20)
        assert not waiting.is_alive() and told == []
        assert events.over and events.fileno() == -1 and events.get() is None
        p.kill()
