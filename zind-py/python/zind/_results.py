"""What a container's end and isolation look like to a program."""

from __future__ import annotations

import subprocess
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, NamedTuple, Union

    from . import _zind
    from ._resources import IoStats, PressureStats

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
        io: list[IoStats] | None = None
        cpu_throttled: float | None = None
        cpu_throttled_periods: int | None = None
        memory_current: int | None = None
        memory_anon: int | None = None
        memory_file: int | None = None
        memory_shmem: int | None = None
        memory_kernel: int | None = None
        memory_swap: int | None = None
        memory_limit: int | None = None
        memory_high_events: int | None = None
        oom_events: int | None = None
        oom_kills: int | None = None
        pids: int | None = None
        pids_limited: int | None = None
        pressure: PressureStats | None = None

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
        "_StatsBase",
        "cpu_user cpu_system max_rss wall memory_peak pids_peak io cpu_throttled cpu_throttled_periods memory_current"
        " memory_anon memory_file memory_shmem memory_kernel memory_swap memory_limit memory_high_events oom_events oom_kills"
        " pids pids_limited pressure",
        defaults=(None,) * 18,
    )
    _IdMapBase = namedtuple("_IdMapBase", "container host size")
    _OffsetsBase = namedtuple("_OffsetsBase", "monotonic boottime", defaults=(0.0, 0.0))


class Exit(_ExitBase):
    """How a container ended: ``kind`` is "exited" (``code`` is set), "signaled" (``signal`` is set), "timeout" or
    "oom": the kernel killed it because memory ran out."""

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
    """What a container used over its whole life, or uses now (:meth:`zind.Popen.stats`). Times are seconds, memory is bytes;
    ``None`` where it is not known. Without a control group (``resources=``) there are, at the end, ``cpu_user``,
    ``cpu_system``, ``wall`` and ``max_rss``, the largest resident set of one process.

    =====================  =========================================================================================
    memory_peak            most memory there was; ``memory_current``, ``_anon``, ``_file``, ``_shmem``, ``_kernel``,
                           ``_swap``: now; ``memory_limit``: the limit in force
    cpu_throttled          seconds it waited because its quota was used up; ``cpu_throttled_periods``: how often
    oom_kills              processes killed because memory ran out; ``oom_events``, ``memory_high_events`` (v2)
    pids                   processes and threads now, zind's own not counted; ``pids_peak``; ``pids_limited``: forks refused
    io                     :class:`zind.IoStats` of each disk
    pressure               :class:`zind.PressureStats`
    =====================  =========================================================================================
    """

    __slots__ = ()

    @classmethod
    def _of(cls, found: _zind.Stats) -> Stats:
        self = cls._make(found.values())
        if self.io is None and self.pressure is None:
            return self
        from ._resources import IoStats, Pressure, PressureStats, Stall

        def resource(one: Any) -> Pressure | None:
            return None if one is None else Pressure(Stall(*one[0]), Stall(*one[1]))

        io = None if self.io is None else [IoStats(*one) for one in self.io]
        pressure = None if self.pressure is None else PressureStats(*map(resource, self.pressure))
        return self._replace(io=io, pressure=pressure)

    def __repr__(self) -> str:
        known = self.cpu_user is not None and self.cpu_system is not None
        cpu = f"{self.cpu_user + self.cpu_system:.6f}s" if known else "unknown"  # type: ignore[operator]
        known_too = [(name, getattr(self, name)) for name in ("memory_peak", "pids_peak", "oom_kills")]
        more = "".join(f" {name}={value}" for name, value in known_too if value is not None)
        return f"<zind.Stats wall={self.wall:.6f}s cpu={cpu} max_rss={self.max_rss}{more}>"

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
    #: What :func:`zind.learn` has learned: an OCI profile.
    profile: dict[str, Any] | None = None

    def __init__(
        self,
        args: Any,
        returncode: int,
        stdout: Any = None,
        stderr: Any = None,
        exit: Exit | None = None,
        stats: Stats | _zind.Stats | None = None,
        isolation: Isolation | _zind.Isolation | None = None,
    ) -> None:
        super().__init__(args, returncode, stdout, stderr)
        self.exit = exit if exit is not None else Exit("exited", returncode, None)
        self._stats = stats if stats is not None else Stats(None, None, None, 0.0)
        self._isolation = isolation if isolation is not None else Isolation(in_force=[])

    @property
    def stats(self) -> Stats:
        """What it used."""
        if not isinstance(self._stats, Stats):
            self._stats = Stats._of(self._stats)
        return self._stats

    @property
    def isolation(self) -> Isolation:
        """What was in force."""
        if not isinstance(self._isolation, Isolation):
            self._isolation = Isolation(self._isolation.to_dict())
        return self._isolation

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stats": self.stats, "_isolation": self.isolation}

    def check_returncode(self) -> None:
        """Raises :class:`zind.CalledProcessError` unless the program exited with 0."""
        if self.returncode:
            from .errors import CalledProcessError

            error = CalledProcessError(self.returncode, self.args, self.stdout, self.stderr)
            error.exit, error.stats = self.exit, self.stats
            raise error
