"""What a container's end and isolation look like to a program."""

from __future__ import annotations

import subprocess
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, NamedTuple, Union

    from . import _zind

    AnyStr = Union[bytes, str]

    class _ExitBase(NamedTuple):
        kind: Literal["exited", "signaled", "timeout", "oom"]
        code: int | None
        signal: int | None

    class _StatsBase(NamedTuple):
        cpu_user: float | None
        cpu_system: float | None
        max_rss: int | None
        wall: float
        memory_peak: int | None = None
        pids_peak: int | None = None
        io: dict[str, int] | None = None

    class _IdMapBase(NamedTuple):
        container: int
        host: int
        size: int

    class _OffsetsBase(NamedTuple):
        monotonic: float
        boottime: float
else:
    # Not typing.NamedTuple: importing typing would be a third of zind's import time.
    _ExitBase = namedtuple("_ExitBase", "kind code signal")
    _StatsBase = namedtuple(
        "_StatsBase", "cpu_user cpu_system max_rss wall memory_peak pids_peak io", defaults=(None, None, None)
    )
    _IdMapBase = namedtuple("_IdMapBase", "container host size")
    _OffsetsBase = namedtuple("_OffsetsBase", "monotonic boottime", defaults=(0.0, 0.0))


class Exit(_ExitBase):
    """How a container ended: ``kind`` is "exited" (``code`` is set), "signaled" (``signal`` is set) or "timeout"."""

    __slots__ = ()

    @property
    def returncode(self) -> int:
        """As in :mod:`subprocess`: the exit code, or the negative signal number."""
        return self.code if self.code is not None else -(self.signal or 9)

    def __repr__(self) -> str:
        if self.kind == "exited":
            return f"<zind.Exit exited {self.code}>"
        return f"<zind.Exit {self.kind} by signal {self.signal}>"


class Stats(_StatsBase):
    """What a container used over its whole life: ``cpu_user``, ``cpu_system`` and ``wall`` in seconds, ``max_rss`` (the
    largest resident set of one process) in bytes. ``None`` where it is not known: ``memory_peak``, ``pids_peak`` and ``io``
    take a control group, which this version does not make."""

    __slots__ = ()

    def __repr__(self) -> str:
        known = self.cpu_user is not None and self.cpu_system is not None
        cpu = f"{self.cpu_user + self.cpu_system:.6f}s" if known else "unknown"  # type: ignore[operator]
        return f"<zind.Stats wall={self.wall:.6f}s cpu={cpu} max_rss={self.max_rss}>"

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in zip(self._fields, self))
        return f"<table>{rows}</table>"


class IdMap(_IdMapBase):
    """``size`` ids from ``container`` on are the host's from ``host`` on: one line of ``uid_map`` or ``gid_map``."""

    __slots__ = ()


class TimeOffsets(_OffsetsBase):
    """Seconds added to CLOCK_MONOTONIC and CLOCK_BOOTTIME in a new time namespace."""

    __slots__ = ()


class Isolation(dict):  # type: ignore[type-arg]
    """What is in force for one container. The keys are attributes too: ``r.isolation.seccomp``."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __repr__(self) -> str:
        return f"<zind.Isolation {' '.join(self['in_force'])}>"

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><td>{key}</td><td>{value}</td></tr>" for key, value in self.items())
        return f"<table>{rows}</table>"


class CompletedProcess(subprocess.CompletedProcess):  # type: ignore[type-arg]
    """As in :mod:`subprocess`, with ``exit``, ``stats`` and ``isolation``."""

    exit: Exit
    stats: Stats

    def __init__(
        self,
        args: Any,
        returncode: int,
        stdout: Any = None,
        stderr: Any = None,
        exit: Exit | None = None,
        stats: Stats | None = None,
        isolation: Isolation | _zind.Isolation | None = None,
    ) -> None:
        super().__init__(args, returncode, stdout, stderr)
        self.exit = exit if exit is not None else Exit("exited", returncode, None)
        self.stats = stats if stats is not None else Stats(None, None, None, 0.0)
        self._isolation = isolation if isolation is not None else Isolation(in_force=[])

    @property
    def isolation(self) -> Isolation:
        """What was in force."""
        if not isinstance(self._isolation, Isolation):
            self._isolation = Isolation(self._isolation.to_dict())
        return self._isolation

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_isolation": self.isolation}

    def check_returncode(self) -> None:
        """Raises :class:`zind.CalledProcessError` unless the program exited with 0."""
        if self.returncode:
            from .errors import CalledProcessError

            error = CalledProcessError(self.returncode, self.args, self.stdout, self.stderr)
            error.exit, error.stats = self.exit, self.stats
            raise error
