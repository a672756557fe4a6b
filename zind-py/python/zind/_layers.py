"""``Layers``: a root that stays, branches and goes back."""

from __future__ import annotations

import os
from collections import namedtuple

from . import _images, _zind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, Literal, NamedTuple

    from ._images import Compression, Image, PackStats, ProgressFunction, Store
    from ._options import IdMaps, Path

    class _MetadataBase(NamedTuple):
        type: Literal["file", "directory", "symlink", "char", "block", "fifo", "socket"]
        mode: int
        uid: int
        gid: int
        size: int
        mtime_ns: int
        device: tuple[int, int] | None
        target: str | None

    class _ChangeBase(NamedTuple):
        kind: Literal["added", "modified", "deleted"]
        path: str
        old: Metadata | None
        new: Metadata | None

    class _SnapshotBase(NamedTuple):
        name: str
        parent: str | None
        time: float
else:
    _MetadataBase = namedtuple("_MetadataBase", "type mode uid gid size mtime_ns device target")
    _ChangeBase = namedtuple("_ChangeBase", "kind path old new")
    _SnapshotBase = namedtuple("_SnapshotBase", "name parent time")


class Metadata(_MetadataBase):
    """What is known of a file besides its content: ``type``, ``mode`` (up to 0o7777), ``uid`` and ``gid`` as the last
    container saw them, ``size`` in bytes, ``mtime_ns``, ``device`` (major and minor) and ``target`` of a link."""

    __slots__ = ()

    def __repr__(self) -> str:
        target = "" if self.target is None else f" -> {self.target!r}"
        return f"<zind.Metadata {self.type} {self.mode:04o} {self.uid}:{self.gid} {self.size} bytes{target}>"


class Change(_ChangeBase):
    """One difference: ``kind`` is "added", "modified" or "deleted", ``path`` an absolute path of the container (names that
    are not UTF-8 as :func:`os.fsdecode` has them), ``old`` and ``new`` what was and is there, or ``None``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<zind.Change {self.kind} {self.path!r}>"


class Snapshot(_SnapshotBase):
    """A state that has a name: ``parent`` is the snapshot it came after, ``time`` seconds since 1970."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<zind.Snapshot {self.name!r} after {self.parent!r}>"


def changes(found: list[_zind._Change]) -> list[Change]:
    """As the extension module has them."""
    return [Change(kind, path, old and Metadata(*old), new and Metadata(*new)) for kind, path, old, new in found]


class Layers:
    """A root file system that stays from one container to the next, with snapshots to go back to and clones to branch off.

    >>> layers = zind.Layers.create("work", "/srv/debian")  # doctest: +SKIP
    >>> zind.run(["apt-get", "install", "-y", "gcc"], rootfs=layers, network="host")  # doctest: +SKIP
    >>> layers.snapshot("gcc")  # doctest: +SKIP

    It is a directory of overlay layers over base directories, which are never written to. One container at a time runs on
    it; until its end was waited for, everything but :meth:`snapshots`, :meth:`diff` and :meth:`clone` raises
    :class:`zind.StateError`.
    Containers with a user namespace and without one cannot use the same layers: the first start settles it. A directory
    that is a clone or has clones must stay where it is.
    """

    __slots__ = ("_layers",)

    def __init__(self, layers: _zind.Layers) -> None:
        if not isinstance(layers, _zind.Layers):
            raise TypeError("use zind.Layers.create(dir, base) or zind.Layers.open(dir)")
        self._layers = layers

    @classmethod
    def create(
        cls,
        dir: Path,
        base: Path | Iterable[Path] | Image,
        *,
        volatile: bool = False,
        uid_map: IdMaps = None,
        gid_map: IdMaps = None,
        progress: ProgressFunction = None,
    ) -> Layers:
        """New layers in ``dir``, which must be missing or empty, over a root directory, or several, topmost first, or over an
        image. The image stays in its store as long as ``dir`` is there, and containers run as it says.

        :param volatile: sync nothing when a container ends: faster, but what was written may be torn after a crash of the
            machine.
        :param uid_map: of an image: the ids of the containers that are to run on it, as in :func:`zind.run`; they decide whose
            the image's files are.
        :raises zind.SpecError: no base, or one that is in ``dir`` or has it inside.
        :raises zind.StateError: there is something in ``dir``.
        """
        if isinstance(base, _images.Image):
            watch = _images.watch(progress)
            return cls(_zind.Layers.create_over(dir, base._image, volatile, uid_map, gid_map, watch))
        if uid_map is not None or gid_map is not None:
            raise TypeError("uid_map and gid_map go with an image as base")
        bases = [base] if isinstance(base, (str, os.PathLike)) else list(base)
        return cls(_zind.Layers.create(dir, bases, volatile))

    @classmethod
    def open(cls, dir: Path) -> Layers:
        """The layers in a directory. What a crash has left there is removed, unless they are in use.

        :raises zind.NotFoundError: there are none.
        :raises zind.StateError: the file ``state`` is damaged, or of a later version.
        """
        return cls(_zind.Layers.open(dir))

    @property
    def dir(self) -> str:
        """Where they are: an absolute path."""
        return self._layers.dir()

    @property
    def upper(self) -> str:
        """The directory that containers write to now; snapshots and restores change it."""
        return self._layers.upper()

    @property
    def base(self) -> list[str]:
        """The directories below all layers, topmost first."""
        return self._layers.base()

    @property
    def volatile(self) -> bool:
        """Whether safety against power loss is given up for speed; can be set."""
        return self._layers.is_volatile()

    @volatile.setter
    def volatile(self, volatile: bool) -> None:
        self._layers.set_volatile(volatile)

    @property
    def image(self) -> Image | None:
        """The image that the base is of."""
        image = self._layers.image()
        return None if image is None else _images.Image(image)

    def commit(
        self,
        tag: str | Iterable[str] | None = None,
        *,
        store: Store | None = None,
        config: Mapping[str, Any] | None = None,
        author: str | None = None,
        message: str | None = None,
        created: str | None = None,
        compression: Compression = "gzip",
        progress: ProgressFunction = None,
    ) -> Image:
        """Makes an image of everything that was changed: one layer over the image that these layers lie on. Of layers over
        plain directories it is an image of one layer that has everything.

        :param tag: its name, or several.
        :param store: only for layers over plain directories: where it goes.
        :param config: how containers of it run, instead of what the image below says: ``{"Cmd": ["sh"]}``.
        :param created: when, as RFC 3339; ``None``: now.
        :raises zind.ImageError: a file that no layer can hold: a name that begins with ``.wh.``, an owner outside of the id maps.
        :raises zind.SysError: something cannot be read by this user; ``filename`` says what.
        """
        options = _images.commit_options(tag, config, author, message, created, compression)
        place = None if store is None else store._store
        return _images.Image(self._layers.commit(place, options, _images.watch(progress)))

    def export(self, path: Path, *, compression: Compression = "none", progress: ProgressFunction = None) -> PackStats:
        """Writes the present state, with all that lies below, as a tar of a root file system. ``path`` must not exist."""
        return _images.PackStats(*self._layers.export(path, compression, _images.watch(progress)))

    def snapshot(self, name: str) -> None:
        """Gives the present state a name. The cost depends neither on the size of the root nor on that of the changes.

        :raises zind.StateError: the layers are in use, the name is taken, or 500 layers lie on each other, which is all an
            overlay can have.
        """
        self._layers.snapshot(name)

    def restore(self, name: str) -> None:
        """Throws away what was changed since and is exactly as it was at a snapshot; those made after it stay.

        :raises zind.NotFoundError: there is no such snapshot.
        """
        self._layers.restore(name)

    def snapshots(self) -> list[Snapshot]:
        """All of them, oldest first."""
        return [Snapshot(name, parent, time_ns / 1e9) for name, parent, time_ns in self._layers.snapshots()]

    def remove(self, name: str) -> None:
        """Forgets a snapshot and removes the layers nothing else stands on. The present state does not change.

        :raises zind.SysError: some files cannot be removed by this user; the next :meth:`open` tries again.
        """
        self._layers.remove(name)

    def diff(self, since: str | None = None) -> list[Change]:
        """What differs between a snapshot (``None``: the base) and the present state, sorted by path, part by part.

        The cost depends on what was changed, not on the size of the root. A directory that is gone is one change, whatever
        was in it; the times of a directory are none, since they follow from its entries.

        :raises zind.SysError: something of the layers cannot be read by this user; ``filename`` says what.
        """
        return changes(self._layers.diff(since))

    def clone(self, dir: Path) -> Layers:
        """Another root in the present state, in a directory that must be missing or empty. Both go their own ways from
        then on; the layers up to now are shared and stay here, so this directory can only be deleted after its clones.

        While a container runs on them, what was changed since the last snapshot is copied instead, at a cost that is
        proportional to it. Pause the container meanwhile (SIGSTOP), for the copy to be of one moment.

        :raises zind.StateError: somebody is changing or cloning them; ``dir`` is not empty.
        :raises zind.SysError: of a copy, also with the path of what this user may not read; nothing is left of the clone.
        """
        return Layers(self._layers.clone_to(dir))

    def delete(self) -> None:
        """Removes the directory and everything in it.

        :raises zind.StateError: the layers are in use or have clones.
        """
        self._layers.delete()

    def __eq__(self, other: object) -> bool:
        return self.dir == other.dir if isinstance(other, Layers) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.dir)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Layers.open, (self.dir,)

    def __repr__(self) -> str:
        try:
            names = ", ".join(snapshot.name for snapshot in self.snapshots())
        except Exception as error:
            return f"<zind.Layers {self.dir!r}: {error}>"
        return f"<zind.Layers {self.dir!r} snapshots: {names or 'none'}>"
