"""``Landlock``: rules of the kernel's for files, ports, sockets and signals inside of a container."""

from __future__ import annotations

import os

from . import _zind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Literal, Union

    from ._options import Path

    Paths = Union[Path, bytes, Iterable[Union[Path, bytes]]]
    Ports = Union[int, Literal["any"], Iterable[int]]
    Names = Union[str, Iterable[str]]

__all__ = ["Landlock"]


def _paths(given: Paths) -> list[bytes]:
    if isinstance(given, (str, bytes, os.PathLike)):
        given = [given]
    return [os.fsencode(path).replace(b"\\", b"\\\\").replace(b",", b"\\,") for path in given]


def _ports(given: Ports) -> list[int | str]:
    return [given] if isinstance(given, (int, str)) else list(given)


def _names(given: Names) -> str:
    return given if isinstance(given, str) else "+".join(given)


class Landlock:
    """Rules for ``landlock=``: whatever Landlock handles is refused but for what a rule lets pass. All rights that the kernel
    knows are handled, unless ``handle=`` names less.

    :param text: rules as ``zind run --landlock`` takes them: ``"rox=/usr,rw=/work,connect=443"``.
    :param ro: paths of the container, below which files and lists of directories can be read.
    :param rox: read and executed.
    :param rw: read, written, made, removed, moved.
    :param rwx: all of that.
    :param allow: other rights, and the path or paths: ``{"read+ioctl_dev": "/dev/tty"}``.
    :param connect: ports to which TCP connections can be made, or ``"any"``.
    :param bind: ports to which TCP sockets can be bound, or ``"any"``.
    :param handle: the only rights that are handled: ``["fs", "net"]`` (all of both), ``"write"``.
    :param scope: what is cut off from whatever was there before: ``"abstract"`` (unix sockets), ``"signal"``, or ``"none"``. ``None``:
        what goes with the host's namespaces.
    :param log: what the kernel's audit log tells: ``"same_exec_off"``, ``"new_exec_on"``, ``"subdomains_off"``.
    :param best_effort: what the kernel lacks is left out, and told in ``isolation.landlock["missing"]``.
    :raises zind.SpecError: a name, port or path is none.
    """

    __slots__ = ("_text",)

    def __init__(
        self,
        text: str = "",
        *,
        ro: Paths = (),
        rox: Paths = (),
        rw: Paths = (),
        rwx: Paths = (),
        allow: Mapping[str, Paths] | None = None,
        connect: Ports = (),
        bind: Ports = (),
        handle: Names | None = None,
        scope: Names | None = None,
        log: Names = (),
        best_effort: bool = False,
    ) -> None:
        items = [os.fsencode(text)] if text else []
        given = [("ro", ro), ("rox", rox), ("rw", rw), ("rwx", rwx), *(allow or {}).items()]
        items += [os.fsencode(name) + b"=" + path for name, paths in given for path in _paths(paths)]
        for name, ports in (("connect", connect), ("bind", bind)):
            items += [f"{name}={port}".encode() for port in _ports(ports)]
        for name, names in (("handle", handle), ("scope", scope), ("log", log or None)):
            if names is not None:
                items.append(f"{name}={_names(names)}".encode())
        if best_effort:
            items.append(b"best_effort")
        self._text = _zind.landlock(b",".join(items))

    def __str__(self) -> str:
        """The text that ``zind run --landlock`` takes."""
        return os.fsdecode(self._text)

    def __repr__(self) -> str:
        return f"zind.Landlock({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Landlock) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> tuple[type[Landlock], tuple[str]]:
        return Landlock, (str(self),)
