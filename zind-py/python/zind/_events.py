"""``Events``: what happens in a container, as it happens."""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Literal, NamedTuple

    from . import _zind

    class _EventBase(NamedTuple):
        kind: Literal[
            "oom", "oom_kill", "memory_high", "memory_max", "pids_max", "pressure", "frozen", "thawed", "empty"
        ]
        count: int = 1  # type: ignore[assignment]
        resource: Literal["cpu", "memory", "io"] | None = None

    class _PressureTriggerBase(NamedTuple):
        resource: Literal["cpu", "memory", "io"]
        stall: float
        window: float = 2.0
        full: bool = False

else:
    # Not typing.NamedTuple: importing typing would be a third of zind's import time.
    _EventBase = namedtuple("_EventBase", "kind count resource", defaults=(1, None))
    _PressureTriggerBase = namedtuple("_PressureTriggerBase", "resource stall window full", defaults=(2.0, False))

__all__ = ["Event", "Events", "PressureTrigger"]


class Event(_EventBase):
    """One event; equal ones that came together are one with a ``count``.

    ===============  =================================================================================================
    oom              memory ran out: the limit is reached and nothing could be taken back
    oom_kill         a process was killed because memory ran out
    memory_high      the container is beyond ``memory_high`` and is slowed down (v2)
    memory_max       it was about to go beyond ``memory``; mostly memory can be taken back (v2)
    pids_max         a fork met the limit of processes (v2)
    pressure         more time than a :class:`zind.PressureTrigger` has was lost waiting for ``resource`` (v2)
    frozen, thawed   everything in the container stands still, or goes on (v2)
    empty            the container has ended; nothing comes after it
    ===============  =================================================================================================
    """

    __slots__ = ()


class PressureTrigger(_PressureTriggerBase):
    """Asks to be told when more than ``stall`` seconds of any ``window`` (0.5 to 10 seconds) were lost waiting for a
    resource: by at least one task, or with ``full`` by all of them. An ordinary user's window is a multiple of 2 seconds."""

    __slots__ = ()


class Events:
    """The events of a container from its start on: :meth:`zind.Popen.events`. An iterator, which blocks and ends after
    ``empty``; :meth:`fileno` is readable when there is something to be told."""

    def __init__(self, process: _zind.Process | _zind.Container, pressure: Iterable[PressureTrigger]) -> None:
        triggers = [PressureTrigger(*trigger) for trigger in pressure]
        given: list[tuple[str, bool, float, float]] = [
            (one.resource, one.full, float(one.stall), float(one.window)) for one in triggers
        ]
        self._events = process.events(given)

    def fileno(self) -> int:
        """A descriptor for an event loop, readable when :meth:`get` has something; it belongs to this object."""
        return self._events.fileno()

    def get(self, timeout: float | None = None) -> Event | None:
        """The next event; ``None`` when the time (seconds) is over first, or when there will be no more."""
        event = self._events.next(timeout)
        return None if event is None else Event(*event)

    @property
    def over(self) -> bool:
        """True after ``empty``, and once it is closed."""
        return self._events.is_over

    def close(self) -> None:
        """Lets go of its descriptors; twice is fine."""
        self._events.close()

    def __iter__(self) -> Events:
        return self

    def __next__(self) -> Event:
        event = self.get()
        if event is None:
            raise StopIteration
        return event

    def __enter__(self) -> Events:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
