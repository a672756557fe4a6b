"""``Resources``: limits of a container, and what it uses."""

from __future__ import annotations

from collections import namedtuple

from . import _zind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, Literal, NamedTuple, Union

    from ._options import Path, Size

    Limit = Union[Size, Literal["max"]]

    class _IoLimitBase(NamedTuple):
        device: Path
        rbps: Limit | None = None
        wbps: Limit | None = None
        riops: Limit | None = None
        wiops: Limit | None = None
        latency_us: int | None = None
        weight: int | None = None

    class _DeviceRuleBase(NamedTuple):
        rule: str
        allow: bool = True

    class _StallBase(NamedTuple):
        avg10: float
        avg60: float
        avg300: float
        total: float

    class _PressureBase(NamedTuple):
        some: Stall
        full: Stall

    class _PressureStatsBase(NamedTuple):
        cpu: Pressure | None
        memory: Pressure | None
        io: Pressure | None

    class _IoStatsBase(NamedTuple):
        device: str
        read_bytes: int
        write_bytes: int
        reads: int
        writes: int

    class _ProcessInfoBase(NamedTuple):
        pid: int
        container_pid: int
        ppid: int
        uid: int
        name: str
        cmdline: list[str]
        state: str
        threads: int
        rss: int
        cpu: float
else:
    _IoLimitBase = namedtuple(
        "_IoLimitBase", "device rbps wbps riops wiops latency_us weight", defaults=(None, None, None, None, None, None)
    )
    _DeviceRuleBase = namedtuple("_DeviceRuleBase", "rule allow", defaults=(True,))
    _StallBase = namedtuple("_StallBase", "avg10 avg60 avg300 total")
    _PressureBase = namedtuple("_PressureBase", "some full")
    _PressureStatsBase = namedtuple("_PressureStatsBase", "cpu memory io")
    _IoStatsBase = namedtuple("_IoStatsBase", "device read_bytes write_bytes reads writes")
    _ProcessInfoBase = namedtuple(
        "_ProcessInfoBase", "pid container_pid ppid uid name cmdline state threads rss cpu"
    )

__all__ = [
    "DeviceRule",
    "IoLimit",
    "IoStats",
    "Pressure",
    "PressureStats",
    "ProcessInfo",
    "Resources",
    "Stall",
    "sweep_groups",
]


class IoLimit(_IoLimitBase):
    """Limits of one disk, by its node (``"/dev/vda"``, a whole disk) or numbers (``"254:0"``): bytes (``rbps``, ``wbps``) and
    operations (``riops``, ``wiops``) per second, ``latency_us`` (v2), ``weight`` 1 to 10000."""

    __slots__ = ()


class DeviceRule(_DeviceRuleBase):
    """``DeviceRule("c 1:3 rwm")`` allows, ``DeviceRule("a", allow=False)`` denies; the last rule that fits decides."""

    __slots__ = ()


class Stall(_StallBase):
    """Time lost by waiting: averages of 10, 60 and 300 seconds in percent, ``total`` in seconds."""

    __slots__ = ()


class Pressure(_PressureBase):
    """One resource: when ``some`` of the tasks waited, and when all (``full``) did."""

    __slots__ = ()


class PressureStats(_PressureStatsBase):
    """Pressure stall information of ``cpu``, ``memory`` and ``io``."""

    __slots__ = ()


class IoStats(_IoStatsBase):
    """Use of one disk; ``device`` is its numbers."""

    __slots__ = ()


class ProcessInfo(_ProcessInfoBase):
    """One process of a container: ``pid`` and ``ppid`` as the caller sees them, ``container_pid`` as the container does,
    ``rss`` in bytes, ``cpu`` in seconds."""

    __slots__ = ()


class Resources:
    """What a container may use; what is not given is not limited. Sizes are bytes or text (``"256m"``); ``-1`` and ``"max"``
    take a limit away (:meth:`zind.Popen.update`).

    A container with resources has a control group of its own, even if nothing is limited: for :meth:`zind.Popen.stats`,
    :meth:`zind.Popen.pause` and ``stats`` of results. A limit that cannot be set is an error, and the program does not run.

    ================  ==================================================================================================
    memory            most memory, page cache and tmpfs included; beyond it something of the container is killed
    memory_high       beyond it the container is slowed down (v2)
    memory_low        memory is taken from others first below it; ``memory_min``: never (v2)
    swap              most swap space, by itself; 0 is none (on v1 it needs ``memory``)
    oom_group         out of memory ends all of the container (v2)
    cpus              CPUs: 0.5 is half of one, ``"max"`` all; or ``cpu_quota_us`` in each ``cpu_period_us``, ``cpu_burst_us``
    cpu_weight        share where CPUs are scarce, 1 to 10000, usually 100; or ``cpu_shares``, 2 to 262144, usually 1024
    cpu_idle          only what nobody else wants
    cpuset            CPUs it may run on, ``"0-3,7"``; ``cpuset_mems``: memory nodes
    pids              most processes and threads; zind's own PID 1 does not count
    io, io_weight     limits of disks (:class:`zind.IoLimit`), share of all disks, 1 to 10000
    hugetlb           bytes of huge pages by size: ``{"2MB": "64m"}``
    rdma, misc        ``{"mlx5_0": (handles, objects)}``, ``{"sev": 5}``
    devices           :class:`zind.DeviceRule`, or text of rules that allow
    unified           files of cgroup v2 with their texts, written last
    ================  ==================================================================================================

    On v1 only: ``oom_kill_disable``, ``swappiness``, ``cpu_rt_runtime_us``, ``cpu_rt_period_us``, ``net_classid``,
    ``net_priorities``.

    :raises zind.SpecError: a value without sense.
    """

    __slots__ = ("_given", "_inner")
    _given: dict[str, Any]
    _inner: _zind.Resources

    def __init__(
        self,
        *,
        memory: Limit | None = None,
        memory_high: Limit | None = None,
        memory_low: Limit | None = None,
        memory_min: Limit | None = None,
        swap: Limit | None = None,
        oom_group: bool | None = None,
        oom_kill_disable: bool | None = None,
        swappiness: int | None = None,
        cpus: float | Literal["max"] | None = None,
        cpu_quota_us: int | None = None,
        cpu_period_us: int | None = None,
        cpu_burst_us: int | None = None,
        cpu_weight: int | None = None,
        cpu_shares: int | None = None,
        cpu_idle: bool | None = None,
        cpuset: str | None = None,
        cpuset_mems: str | None = None,
        cpu_rt_runtime_us: int | None = None,
        cpu_rt_period_us: int | None = None,
        pids: int | Literal["max"] | None = None,
        io: Iterable[IoLimit] | None = None,
        io_weight: int | None = None,
        hugetlb: Mapping[str, Limit] | None = None,
        rdma: Mapping[str, tuple[int | None, int | None]] | None = None,
        misc: Mapping[str, Limit] | None = None,
        devices: Iterable[DeviceRule | str] | None = None,
        net_classid: int | None = None,
        net_priorities: Mapping[str, int] | None = None,
        unified: Mapping[str, str] | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__") and value is not None}
        for name in ("io", "devices"):
            if name in given and not isinstance(given[name], str):
                given[name] = list(given[name])
        for name in ("hugetlb", "rdma", "misc", "net_priorities", "unified"):
            if name in given:
                given[name] = dict(given[name])
        self._set(_zind.Resources(given))

    def _set(self, inner: _zind.Resources) -> None:
        self._inner = inner
        self._given = inner.values()

    @classmethod
    def from_oci(cls, document: Mapping[str, Any] | str) -> Resources:
        """From the ``linux.resources`` object of OCI, or its text. ``memory.swap`` is memory and swap together there."""
        if not isinstance(document, str):
            import json

            document = json.dumps(document)
        self = cls.__new__(cls)
        self._set(_zind.Resources.from_oci(document))
        return self

    def to_oci(self) -> dict[str, Any]:
        """The ``linux.resources`` object of OCI; what OCI has no field for is in ``unified``."""
        return self._inner.to_oci()

    def __getattr__(self, name: str) -> Any:
        if name in _NAMES:
            value = self._given.get(name)
            if name == "io":
                return [IoLimit(str(limit[0]), *limit[1:]) for limit in value or ()]
            if name == "devices":
                return [DeviceRule(*rule) for rule in value or ()]
            return value
        raise AttributeError(name)

    def __eq__(self, other: object) -> bool:
        return self._given == other._given if isinstance(other, Resources) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._given,)

    def __repr__(self) -> str:
        return f"zind.Resources({', '.join(f'{name}={value!r}' for name, value in self._given.items())})"


_NAMES = frozenset(Resources.__init__.__kwdefaults__ or ())


def _rebuild(given: dict[str, Any]) -> Resources:
    return Resources(**given)


def sweep_groups(parent: Path | None = None) -> list[str]:
    """Removes the control groups that crashed processes left behind, below the caller's own groups or ``parent``; what runs
    in one is killed, unless it was started with ``die_with_owner=False``. Every start with resources does it too, every few
    seconds at most. Returns the paths that were removed."""
    return [str(path) for path in _zind.sweep_groups(parent)]
