"""zind.aio: the same, awaited, with no helper thread."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest

import kit
import zind
from zind import aio


def test_run():
    async def main():
        result = await aio.run(["sh", "-c", "cat; echo err >&2; exit 3"], input="text", capture_output=True, text=True)
        return result

    result = asyncio.run(main())
    assert (result.returncode, result.stdout, result.stderr) == (3, "text", "err\n")
    assert result.exit.kind == "exited" and "seccomp" in result.isolation.in_force


def test_fifty_at_once_without_a_thread():
    threads = set()

    async def one(number: int) -> int:
        result = await aio.run(["sh", "-c", f"sleep 0.1; exit {number}"], stdin=zind.DEVNULL)
        threads.update(os.listdir("/proc/self/task"))
        return result.returncode

    async def main():
        return await asyncio.gather(*(one(number) for number in range(50)))

    before = len(os.listdir("/proc/self/task"))
    assert asyncio.run(main()) == list(range(50))
    assert len(threads) == before == threading.active_count()


def test_the_loop_goes_on_during_a_start_and_a_run():
    async def main() -> int:
        ticks = 0
        # It ends when the loop has gone on for a while, and not before.
        async with await aio.Popen.start(["cat"], stdin=zind.PIPE) as process:
            task = asyncio.ensure_future(process.wait())
            while ticks < 15:
                await asyncio.sleep(0.005)
                ticks += 1
            assert not task.done()
            process.stdin.close()
            assert await task == 0
        task = asyncio.ensure_future(aio.run(["sleep", "0.3"]))
        while not task.done():
            await asyncio.sleep(0.005)
            ticks += 1
        return ticks

    assert asyncio.run(main()) > 16


def test_timeout_keeps_what_was_written():
    async def main(timeout: float):
        await aio.run(["sh", "-c", "echo first; sleep 100"], stdout=zind.PIPE, timeout=timeout)

    e = kit.times_out(lambda timeout: asyncio.run(main(timeout)), lambda e: e.stdout)
    assert e.stdout == b"first\n" and e.exit.kind == "timeout"


def test_a_cancelled_run_is_gone():
    async def main():
        task = asyncio.ensure_future(aio.run(["sleep", "5151"]))
        while not kit.running("sleep", "5151"):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert not kit.running("sleep", "5151")


def test_a_start_that_is_cancelled_at_once_is_gone():
    async def main():
        for _ in range(20):
            task = asyncio.ensure_future(aio.run(["sleep", "5252"]))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert kit.wait_until(lambda: not kit.running("sleep", "5252"))


def test_popen_streams_and_signals():
    async def main():
        async with await aio.Popen.start(["cat"], stdin=zind.PIPE, stdout=zind.PIPE) as process:
            process.stdin.write(b"one\n")
            assert await process.stdout.readline() == b"one\n"
            process.stdin.close()
            assert await process.wait() == 0
        process = await aio.Popen.start(["sh", "-c", "trap 'exit 4' TERM; echo up; while :; do sleep 0.02; done"], stdout=zind.PIPE)
        assert await process.stdout.readline() == b"up\n"
        process.terminate()
        assert await process.wait() == 4
        process = await aio.Popen.start(["sleep", "100"])
        process.kill()
        assert await process.wait() == -9

    asyncio.run(main())


def test_errors_are_the_same():
    async def main(argv):
        await aio.run(argv)

    kit.refused(FileNotFoundError, lambda: asyncio.run(main(["no-such-program"])), step="Exec")
    kit.refused(zind.SpecError, lambda: asyncio.run(main([])), field="argv")


def test_a_large_output_arrives():
    async def main():
        return await aio.run(["head", "-c", "20000000", "/dev/zero"], stdout=zind.PIPE)

    began = time.monotonic()
    assert len(asyncio.run(main()).stdout) == 20_000_000
    assert time.monotonic() - began < 60
