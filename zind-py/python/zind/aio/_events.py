"""What happens in a container, and to those of a place, awaited."""

from __future__ import annotations

from .._containers import ContainerEvent, Containers
from .._containers import ContainerEvents as _ContainerEvents
from .._containers import _opened
from .._events import Event
from .._events import Events as _Events
from ._loop import _readable, _soon

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._options import Path

__all__ = ["ContainerEvents", "Events"]


class Events:
    """The events of a container, awaited: ``async for event in process.events()``. It ends after ``empty``."""

    def __init__(self, events: _Events) -> None:
        self._events = events

    async def get(self) -> Event | None:
        """The next event; ``None`` when there will be no more."""
        while True:
            event = self._events.get(0)
            if event is not None or self._events.over:
                return event
            await _readable(self._events.fileno())

    def close(self) -> None:
        """Lets go of its descriptors; twice is fine."""
        self._events.close()

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> Event:
        event = await self.get()
        if event is None:
            self.close()
            raise StopAsyncIteration
        return event

    async def __aenter__(self) -> Events:
        return self

    async def __aexit__(self, kind: object, value: object, traceback: object) -> None:
        self.close()


class ContainerEvents:
    """What happens to the containers of a place, awaited: ``async for event in ContainerEvents(zind.Containers())``."""

    def __init__(self, containers: Containers | Path | None = None, *, since: int | None = None) -> None:
        self._events: _ContainerEvents = _opened(containers).events(since=since)

    async def get(self) -> ContainerEvent | None:
        """The next event; ``None`` once it is closed."""
        while not self._events.over:
            event = self._events.get(0)
            if event is not None:
                return event
            await _soon(self._events.fileno(), 1)
        return None

    def close(self) -> None:
        """Lets go of its descriptors; twice is fine."""
        self._events.close()

    def __aiter__(self) -> ContainerEvents:
        return self

    async def __anext__(self) -> ContainerEvent:
        event = await self.get()
        if event is None:
            raise StopAsyncIteration
        return event

    async def __aenter__(self) -> ContainerEvents:
        return self

    async def __aexit__(self, kind: object, value: object, traceback: object) -> None:
        self.close()
