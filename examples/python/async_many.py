"""Twenty containers at once from asyncio, in one thread."""

import asyncio
import threading
import time

import zind


async def square(number: int) -> int:
    result = await zind.aio.run(
        ["sh", "-c", f"sleep 0.5; echo $(({number} * {number}))"], capture_output=True, text=True, check=True, timeout=30
    )
    return int(result.stdout)


async def chat() -> None:
    async with await zind.aio.Popen.start(["cat"], stdin=zind.PIPE, stdout=zind.PIPE) as cat:
        cat.stdin.write(b"round trip\n")
        assert await cat.stdout.readline() == b"round trip\n"


async def main() -> None:
    began = time.monotonic()
    answers = await asyncio.gather(*(square(number) for number in range(20)))
    wall = time.monotonic() - began
    print(f"20 containers that sleep 0.5 s each took {wall:.2f} s, with {threading.active_count()} thread in this program")
    assert answers == [number**2 for number in range(20)]
    assert wall < 5 and threading.active_count() == 1

    await chat()

    # Time limits and cancelling end the container; nothing is left running.
    try:
        await zind.aio.run(["sleep", "60"], timeout=0.2)
        raise AssertionError("no time limit")
    except zind.TimeoutExpired as expired:
        print("time limit:", expired.exit)
    task = asyncio.create_task(zind.aio.run(["sleep", "60"]))
    await asyncio.sleep(0.2)
    task.cancel()
    try:
        await task
        raise AssertionError("not cancelled")
    except asyncio.CancelledError:
        print("cancelled")


asyncio.run(main())
