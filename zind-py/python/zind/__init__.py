"""Containers as a library: run a command in a real Linux container, without a daemon.

>>> import zind
>>> zind.run(["sh", "-c", "echo hello; rm -rf /usr"], capture_output=True).stdout
b'hello\\n'
"""

from __future__ import annotations

from ._container import (
    Attachment,
    Chunk,
    Container,
    ContainerEvent,
    ContainerEvents,
    Containers,
    Hook,
    HookWarning,
    LogLine,
    LogOptions,
    Logs,
    Pruned,
    containers,
    prune,
)
from . import _zind, oci
from ._copy import CopyStats, Root, Volume, VolumeHold, Volumes
from ._images import (
    Builder,
    BuildStep,
    Collected,
    Fault,
    History,
    Image,
    ImageUsage,
    Layer,
    PackStats,
    Progress,
    Store,
    Usage,
    build,
)
from ._events import Event, Events, PressureTrigger
from ._landlock import Landlock
from ._layers import Change, Layers, Metadata, Snapshot
from ._process import DEVNULL, PIPE, STDOUT, Popen, Pty, learn, run
from ._resources import (
    DeviceRule,
    IoLimit,
    IoStats,
    Pressure,
    PressureStats,
    ProcessInfo,
    Resources,
    Stall,
    sweep_groups,
)
from ._seccomp import Call, Notifier, Violation, Violations
from ._results import CompletedProcess, Exit, IdMap, Isolation, Stats, TimeOffsets
from ._zind import LAUNCHER_SIZE, Device, Mount, __version__
from .errors import (
    CalledProcessError,
    Error,
    ExistsError,
    ImageError,
    NotFoundError,
    RegistryError,
    SpecError,
    StateError,
    StepFailed,
    SysError,
    TimeoutExpired,
    UnsupportedError,
)
from .lowlevel import (
    Namespace,
    Proc,
    ProcAttr,
    chroot,
    mount,
    namespaces,
    pivot_root,
    proc,
    setdomainname,
    sethostname,
    setns,
    spawn,
    umount,
    unshare,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    from . import aio
    from ._options import Options
    from ._constants import *  # noqa: F403  a stub: the CLONE_, MS_, MNT_, UMOUNT_ and MOUNT_ATTR_ constants

# The kernel's constants, by their own names.
_constants = {
    name: value for name, value in vars(_zind).items() if name.startswith(("CLONE_", "MS_", "MNT_", "UMOUNT_", "MOUNT_ATTR_"))
}
globals().update(_constants)

__all__ = [
    "DEVNULL",
    "LAUNCHER_SIZE",
    "PIPE",
    "STDOUT",
    "Attachment",
    "BuildStep",
    "Builder",
    "Call",
    "CalledProcessError",
    "Change",
    "Chunk",
    "Collected",
    "CompletedProcess",
    "Container",
    "ContainerEvent",
    "ContainerEvents",
    "Containers",
    "CopyStats",
    "Device",
    "DeviceRule",
    "Error",
    "Event",
    "Events",
    "ExistsError",
    "Exit",
    "Fault",
    "History",
    "Hook",
    "HookWarning",
    "IdMap",
    "Image",
    "ImageError",
    "ImageUsage",
    "IoLimit",
    "IoStats",
    "Isolation",
    "Landlock",
    "Layer",
    "Layers",
    "LogLine",
    "LogOptions",
    "Logs",
    "Metadata",
    "Mount",
    "Namespace",
    "NotFoundError",
    "Notifier",
    "PackStats",
    "Popen",
    "Pressure",
    "PressureStats",
    "PressureTrigger",
    "Proc",
    "ProcAttr",
    "Progress",
    "Pruned",
    "Pty",
    "RegistryError",
    "ProcessInfo",
    "Report",
    "Resources",
    "Root",
    "Snapshot",
    "SpecError",
    "Stall",
    "StateError",
    "Stats",
    "StepFailed",
    "Store",
    "SysError",
    "TimeOffsets",
    "TimeoutExpired",
    "UnsupportedError",
    "Usage",
    "Violation",
    "Violations",
    "Volume",
    "VolumeHold",
    "Volumes",
    "__version__",
    "aio",
    "build",
    "chroot",
    "containers",
    "doctor",
    "learn",
    "mount",
    "namespaces",
    "oci",
    "pivot_root",
    "proc",
    "prune",
    "run",
    "setdomainname",
    "sethostname",
    "setns",
    "spawn",
    "sweep_groups",
    "umount",
    "unshare",
    *_constants,
]


class Report:
    """What :func:`doctor` found: ``checks`` is a list of dicts with name, ok, detail and cure."""

    def __init__(self, checks: list[dict[str, Any]], text: str) -> None:
        self.checks = checks
        self._text = text

    @property
    def ok(self) -> bool:
        """Everything is as it should be."""
        return all(check["ok"] for check in self.checks)

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        failed = [check["name"] for check in self.checks if not check["ok"]]
        return f"<zind.Report {len(self.checks)} checks, not ok: {', '.join(failed) or 'none'}>"

    def _repr_html_(self) -> str:
        cells = ("".join(f"<td>{check[key]}</td>" for key in ("name", "ok", "detail", "cure")) for check in self.checks)
        return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def doctor() -> Report:
    """What works here, what does not, and the cure."""
    found, text = _zind.doctor()
    return Report(found["checks"], text)


def __getattr__(name: str) -> ModuleType:
    # asyncio takes longer to import than all of zind.
    if name == "aio":
        import importlib

        return importlib.import_module("zind.aio")
    raise AttributeError(f"module 'zind' has no attribute {name!r}")
