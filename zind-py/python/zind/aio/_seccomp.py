"""What a container's filter asks and refuses, awaited."""

from __future__ import annotations

import asyncio
from inspect import isawaitable

from .. import _seccomp
from ._loop import _readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._seccomp import Call, Violation

__all__ = ["Notifier", "Violations"]


class Notifier:
    """Decides about calls, awaited: ``async for call in process.notifier``. As :class:`zind.Notifier`."""

    def __init__(self, notifier: _seccomp.Notifier) -> None:
        self._notifier = notifier

    def fileno(self) -> int:
        """The listener; it belongs to this object."""
        return self._notifier.fileno()

    async def get(self) -> Call | None:
        """The next call; ``None`` when there will be no more."""
        while True:
            call = self._notifier.get(0)
            if call is not None or self._notifier.over:
                return call
            await _readable(self._notifier.fileno())

    def detach(self) -> int:
        """The listener's descriptor, which belongs to the caller from now on; this object is closed."""
        return self._notifier.detach()

    def close(self) -> None:
        """Calls that wait, and all later ones, fail; twice is fine."""
        self._notifier.close()

    def __aiter__(self) -> Notifier:
        return self

    async def __anext__(self) -> Call:
        call = await self.get()
        if call is None:
            raise StopAsyncIteration
        return call


class Violations:
    """What a container's filter refuses, awaited: ``async for violation in process.violations()``."""

    def __init__(self, violations: _seccomp.Violations) -> None:
        self._violations = violations

    async def get(self) -> Violation | None:
        """The next one; ``None`` when there will be no more."""
        while True:
            found = self._violations.get(0)
            if found is not None or self._violations.over:
                return found
            await _readable(self._violations.fileno())

    @property
    def lost(self) -> int:
        """As of :class:`zind.Violations`."""
        return self._violations.lost

    def __aiter__(self) -> Violations:
        return self

    async def __anext__(self) -> Violation:
        found = await self.get()
        if found is None:
            raise StopAsyncIteration
        return found


async def _called(function: Any, argument: Any) -> Any:
    """A function of the caller's, which may be a coroutine."""
    value = function(argument)
    return await value if isawaitable(value) else value


async def _answer(notifier: Notifier, function: Any) -> None:
    """Asks the function about each call, several at a time if it awaits something."""
    answering: set[asyncio.Task[None]] = set()
    errors: list[BaseException] = []

    async def one(call: Call) -> None:
        value = None
        try:
            value = await _called(function, call)
        except BaseException as error:
            errors.append(error)
        _seccomp.settle(call, value)

    async for call in notifier:
        task = asyncio.get_running_loop().create_task(one(call))
        answering.add(task)
        task.add_done_callback(answering.discard)
    for task in list(answering):
        await task
    if errors:
        raise errors[0]


async def _tell(violations: Violations, function: Any) -> None:
    """Tells the function of each violation, one after the other."""
    first: BaseException | None = None
    async for violation in violations:
        try:
            await _called(function, violation)
        except BaseException as error:
            first = first or error
    if first is not None:
        raise first
