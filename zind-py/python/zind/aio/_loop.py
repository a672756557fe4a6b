"""What is awaited: descriptors that the loop watches, and work that a thread of its executor does."""

from __future__ import annotations

import asyncio
import os

from .. import _zind
from ..errors import NotFoundError, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from .._images import ProgressFunction

    T = TypeVar("T")


async def _readable(fd: int) -> None:
    """Waits until a descriptor can be read."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    # A copy: whoever owns the descriptor may close it while the loop still knows its number.
    watched = os.dup(fd)

    def wake() -> None:
        if not future.done():
            future.set_result(None)

    try:
        loop.add_reader(watched, wake)
        await future
    finally:
        loop.remove_reader(watched)
        os.close(watched)


async def _soon(fd: int, most: float) -> None:
    """Waits until a descriptor can be read, or the time is over."""
    try:
        await asyncio.wait_for(_readable(fd), most)
    except asyncio.TimeoutError:
        pass


async def _in_thread(work: Callable[[_zind.Cancel], T]) -> T:
    """Runs long work on a thread; cancelled, it is stopped, and this waits until it has."""
    cancel = _zind.Cancel()
    begun: list[None] = []
    called_off: list[None] = []

    def begin() -> T:
        begun.append(None)
        if called_off:
            raise InterruptedError
        return work(cancel)

    future = asyncio.get_running_loop().run_in_executor(None, begin)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        called_off.append(None)
        cancel.set()
        if not begun:
            # All threads are busy. If it gets one before this takes it away, it does nothing there.
            future.cancel()
        await _through(future)
        if not future.cancelled():
            future.exception()
        raise


async def _through(future: asyncio.Future[Any]) -> None:
    """Waits until it is done, however often this is cancelled meanwhile: what nobody waits for, nobody would clean up."""
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            pass


async def _undone(work: Callable[[], object]) -> None:
    """Takes back what was done, on a thread, and waits for that, cancelled or not."""

    def quietly() -> None:
        try:
            work()
        except (NotFoundError, StateError):
            # It is gone, or has ended, by itself.
            pass

    await _through(asyncio.get_running_loop().run_in_executor(None, quietly))


def _on_loop(progress: ProgressFunction) -> ProgressFunction:
    """The function is called by the loop. What it raises then is the loop's to report."""
    if progress is None:
        return None
    loop = asyncio.get_running_loop()
    hear = progress
    return lambda event: loop.call_soon_threadsafe(hear, event)
