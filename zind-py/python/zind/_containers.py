"""``Containers``: those of one place on disk; which there are, and what happens to them."""

from __future__ import annotations

import os
from collections import namedtuple

from . import _container, _zind
from ._output import _within
from ._results import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import TracebackType
    from typing import Any, Literal, NamedTuple, Union

    from ._container import Container
    from ._options import Argv, Path

    State = Literal["creating", "created", "running", "paused", "stopped"]
    Labels = Union[Mapping[str, "str | None"], Iterable[str], None]

    class _ContainerEventBase(NamedTuple):
        time: float
        what: Literal["created", "started", "oom", "paused", "resumed", "died", "deleted", "renamed"]
        id: str
        name: str | None
        exit: Exit | None
        number: int

    class _PrunedBase(NamedTuple):
        containers: list[str]
        groups: list[str]

else:
    _ContainerEventBase = namedtuple("_ContainerEventBase", "time what id name exit number")
    _PrunedBase = namedtuple("_PrunedBase", "containers groups")

__all__ = ["ContainerEvent", "ContainerEvents", "Containers", "Pruned", "containers", "prune"]


class ContainerEvent(_ContainerEventBase):
    """What happened to which container; ``exit`` is there when it ``died``. ``number`` counts all of a place, without a gap: for
    ``events(since=)``."""

    __slots__ = ()


class Pruned(_PrunedBase):
    """What :func:`zind.prune` has removed: the ids of containers, and control groups that nobody was in any more."""

    __slots__ = ()


def _labels(labels: Labels) -> list[tuple[str, str | None]]:
    """``{"a": "1", "b": None}``, or ``["a=1", "b"]``."""
    if labels is None:
        return []
    if isinstance(labels, str):
        raise TypeError("labels is a mapping or a sequence of texts")
    if hasattr(labels, "items"):
        return [(str(name), None if value is None else str(value)) for name, value in labels.items()]
    pairs = [str(label).partition("=") for label in labels]
    return [(name, value if equals else None) for name, equals, value in pairs]


def _opened(place: Containers | Path | None) -> Containers:
    return place if isinstance(place, Containers) else Containers(place)


class Containers:
    """The containers of one place: ``None`` is the user's own (root's is ``/var/lib/zind``, others'
    ``$XDG_DATA_HOME/zind``), where they lie beside the images."""

    def __init__(self, path: Path | None = None) -> None:
        self._containers = _zind.Containers(None if path is None else os.fspath(path))

    @classmethod
    def _of(cls, found: _zind.Containers) -> Containers:
        self = cls.__new__(cls)
        self._containers = found
        return self

    @property
    def path(self) -> str:
        """The directory they are in."""
        return os.fspath(self._containers.place)

    def create(self, argv: Argv | None = None, **options: Any) -> Container:
        """A new container here: arguments as of :class:`zind.Container`."""
        return _container.Container(argv, containers=self, **options)

    def find(self, name: str) -> Container:
        """By its name, its id, or how its id begins. :raises zind.NotFoundError: there is none."""
        return _container.Container._of(self._containers.find(name))

    def list(
        self,
        *,
        all: bool = False,
        labels: Labels = None,
        name: str | None = None,
        states: Iterable[State] = (),
    ) -> list[Container]:
        """Those that run, the latest first; with ``all`` those, too, that do not. ``labels``: those that have all of them, as
        ``{"a": "1", "b": None}`` or ``["a=1", "b"]``; ``name``: those with this in their names; ``states``: those in one of
        these, whatever ``all`` says."""
        return [_container.Container._of(one) for one in self._containers.list(all, _labels(labels), name, [*states])]

    def prune(self) -> Pruned:
        """Deletes every container that does not run, and what crashed programs have left."""
        found, groups = self._containers.prune()
        return Pruned(found, [os.fspath(path) for path in groups])

    def events(self, *, since: int | None = None) -> ContainerEvents:
        """What happens to the containers here from now on, each thing once and in order; with ``since``, before that what has
        happened since the event with this number, itself included: the last four thousand and more are kept."""
        _within("since", since, 0)
        return ContainerEvents(self._containers.events(since))

    def __iter__(self) -> Iterator[Container]:
        return iter(self.list(all=True))

    def __reduce__(self) -> tuple[Any, ...]:
        return Containers, (self.path,)

    def __repr__(self) -> str:
        return f"<zind.Containers {self.path}>"


class ContainerEvents:
    """What happens to the containers of one place: an iterator of :class:`zind.ContainerEvent`, which blocks and has no end."""

    def __init__(self, events: _zind.ContainerEvents) -> None:
        self._events = events
        self._is_over = False

    def get(self, timeout: float | None = None) -> ContainerEvent | None:
        """The next event; ``None`` when the time (seconds) is over first, or once it is closed."""
        found = self._events.next(timeout)
        if found is None:
            return None
        time, what, id, name, exit, number = found
        return ContainerEvent(time, what, id, name, None if exit is None else Exit(*exit), number)

    @property
    def over(self) -> bool:
        """True once it is closed."""
        return self._is_over

    def fileno(self) -> int:
        """A descriptor for an event loop, readable when something may have happened; that a monitor was killed is not told
        by it, so look every second, too. It belongs to this object."""
        return -1 if self._is_over else self._events.fileno()

    def close(self) -> None:
        """Lets go of its descriptors, and ends the wait of another thread; twice is fine."""
        self._is_over = True
        self._events.close()

    def __iter__(self) -> ContainerEvents:
        return self

    def __next__(self) -> ContainerEvent:
        event = self.get()
        if event is None:
            raise StopIteration
        return event

    def __enter__(self) -> ContainerEvents:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def containers(
    all: bool = False,
    labels: Labels = None,
    *,
    name: str | None = None,
    states: Iterable[State] = (),
    containers: Containers | Path | None = None,
) -> list[Container]:
    """The user's containers that run, the latest first: :meth:`zind.Containers.list`."""
    return _opened(containers).list(all=all, labels=labels, name=name, states=states)


def prune(*, containers: Containers | Path | None = None) -> Pruned:
    """Deletes every container that does not run, and what crashed programs have left: :meth:`zind.Containers.prune`."""
    return _opened(containers).prune()
