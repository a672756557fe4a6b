"""Files into and out of roots, and directories that outlive containers."""

from __future__ import annotations

import os
from collections import namedtuple

from . import _zind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path as _Path
    from types import TracebackType
    from typing import NamedTuple

    from ._options import Path

    class _CopyStatsBase(NamedTuple):
        files: int
        directories: int
        symlinks: int
        hard_links: int
        nodes: int
        bytes: int
        skipped: int
        not_kept: int
else:
    _CopyStatsBase = namedtuple(
        "_CopyStatsBase", "files directories symlinks hard_links nodes bytes skipped not_kept"
    )

__all__ = ["CopyStats", "Root", "Volume", "VolumeHold", "Volumes"]


class CopyStats(_CopyStatsBase):
    """What a copy did: ``files``, ``directories``, ``symlinks``, ``hard_links`` (further names of files), ``nodes`` (FIFOs
    and devices) and ``bytes`` of data without holes. ``skipped``: sockets, the inside of ``/proc`` and its like, and what
    went away meanwhile. ``not_kept``: owners, modes, times and extended attributes that this user, the file system or its
    user namespace does not allow."""

    __slots__ = ()

    def __repr__(self) -> str:
        found = ", ".join(f"{name}={value}" for name, value in zip(self._fields, self) if value)
        return f"<zind.CopyStats {found or 'nothing'}>"


class Root:
    """The inside of a root: a directory, or that of a running container (:attr:`zind.Popen.root`).

    All paths begin at the root, absolute or not. Links and ``..`` never lead out of it, whatever a program in there swaps
    meanwhile. It is held by a descriptor: closed by :meth:`close`, as a context manager, or with the object.
    """

    __slots__ = ("_root",)

    def __init__(self, path: Path) -> None:
        """:raises zind.SysError: the directory cannot be opened."""
        self._root: _zind.Root | None = _zind.Root(path)

    @classmethod
    def _of(cls, root: _zind.Root) -> Root:
        self = cls.__new__(cls)
        self._root = root
        return self

    def _open(self) -> _zind.Root:
        if self._root is None:
            raise ValueError("this root is closed")
        return self._root

    @property
    def path(self) -> _Path:
        """What it was opened by."""
        return self._open().path

    def copy_in(
        self,
        source: Path,
        target: Path,
        *,
        owner: tuple[int, int] | None = None,
        follow_links: bool = False,
        overwrite: bool = True,
        strict: bool = False,
    ) -> CopyStats:
        """Copies a file or a tree from the host into the root, as ``cp -a`` does.

        If ``target`` is a directory the source goes into it; a source that ends with ``/.`` means what is inside. Else
        ``target`` is the name of the copy, and missing directories on the way are made. A link to a
        directory inside is that directory; any other link as the last part of ``target`` is replaced, not followed.

        :param owner: (uid, gid) of everything; ``None`` keeps the source's.
        :param follow_links: a link as the last part of ``source`` is followed.
        :param overwrite: files are replaced; otherwise the first one is a :class:`FileExistsError`.
        :param strict: what may not be kept is an error; otherwise it is counted in ``not_kept``.
        :raises zind.SysError: with the path that refused; what was copied before stays.
        """
        copied = self._open().copy_in(
            source, target, owner=owner, follow_links=follow_links, overwrite=overwrite, strict=strict
        )
        return CopyStats(*copied)

    def copy_out(
        self,
        source: Path,
        target: Path,
        *,
        owner: tuple[int, int] | None = None,
        follow_links: bool = False,
        overwrite: bool = True,
        strict: bool = False,
    ) -> CopyStats:
        """Copies a file or a tree out of the root to the host, by the rules of :meth:`copy_in`, except that missing
        directories on the way to ``target`` are an error. Set-uid programs stay what they are, and for root device nodes."""
        copied = self._open().copy_out(
            source, target, owner=owner, follow_links=follow_links, overwrite=overwrite, strict=strict
        )
        return CopyStats(*copied)

    def read_file(self, path: Path, *, limit: int = 16 << 20) -> bytes:
        """The content of a regular file; links are followed inside the root.

        :param limit: a file of more bytes is a :class:`zind.SysError` with ``EFBIG``.
        """
        return self._open().read_file(path, limit)

    def write_file(self, path: Path, data: bytes, *, mode: int = 0o644) -> None:
        """Writes a file, or replaces one at once. ``mode`` is exact; missing directories are made; a link as the last
        part is replaced."""
        self._open().write_file(path, data, mode)

    def fileno(self) -> int:
        """The descriptor, opened with ``O_PATH``; it belongs to this object."""
        return self._open().fileno()

    def close(self) -> None:
        """Closes the descriptor; twice is fine."""
        self._root = None

    def __enter__(self) -> Root:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return "<zind.Root closed>" if self._root is None else f"<zind.Root {str(self.path)!r}>"


class VolumeHold:
    """A volume in use: it cannot be removed until this is closed. It ends with the process at the latest."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """The descriptor that stands for it; duplicates of it hold the volume, too."""
        if self._fd < 0:
            raise ValueError("this hold is closed")
        return self._fd

    def close(self) -> None:
        """Ends the hold; twice is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> VolumeHold:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class Volume:
    """A named directory that outlives containers."""

    __slots__ = ("_volume",)

    def __init__(self, volume: _zind.Volume) -> None:
        self._volume = volume

    @property
    def name(self) -> str:
        """Its name."""
        return self._volume.name

    @property
    def path(self) -> _Path:
        """The directory that containers see."""
        return self._volume.path

    @property
    def is_fresh(self) -> bool:
        """It was neither filled nor marked as used yet."""
        return self._volume.is_fresh

    def hold(self) -> VolumeHold:
        """Uses the volume: it cannot be removed meanwhile. :raises zind.NotFoundError: it was removed."""
        return VolumeHold(self._volume.hold())

    def fill_from(self, root: Root, path: Path) -> CopyStats | None:
        """Fills a fresh volume with what is in the directory ``path`` of ``root``. ``None`` if there is nothing to do: it
        was used before, has something in it, or the root has no such directory. Whoever comes second waits; after a
        failure or a crash the volume is fresh still."""
        filled = self._volume.fill_from(root._open(), path)
        return None if filled is None else CopyStats(*filled)

    def mark_used(self) -> None:
        """Says that it was used: it is not filled any more."""
        self._volume.mark_used()

    def __repr__(self) -> str:
        return f"<zind.Volume {self.name} {str(self.path)!r}>"


class Volumes:
    """The volumes of one place: a directory, or ``/var/lib/zind/volumes`` for root and
    ``$XDG_DATA_HOME/zind/volumes`` for an ordinary user."""

    __slots__ = ("_volumes",)

    def __init__(self, place: Path | None = None) -> None:
        """:raises zind.SysError: the place cannot be made."""
        self._volumes = _zind.Volumes(place)

    @property
    def place(self) -> _Path:
        """Where they are."""
        return self._volumes.place

    def create(self, name: str) -> Volume:
        """Makes a volume. :raises FileExistsError: there is one. :raises zind.SpecError: this cannot be a name."""
        return Volume(self._volumes.create(name))

    def get(self, name: str) -> Volume:
        """A volume that exists. :raises zind.NotFoundError: there is none."""
        return Volume(self._volumes.get(name))

    def get_or_create(self, name: str) -> Volume:
        """The volume of this name, made if there is none."""
        return Volume(self._volumes.get_or_create(name))

    def list(self) -> list[Volume]:
        """All of them, by name."""
        return [Volume(volume) for volume in self._volumes.list()]

    def remove(self, name: str) -> None:
        """Removes a volume and all that is in it. :raises zind.StateError: somebody uses it."""
        self._volumes.remove(name)

    def __repr__(self) -> str:
        return f"<zind.Volumes {str(self.place)!r}>"
