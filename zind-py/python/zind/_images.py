"""``Store``, ``Image`` and ``build``: images on disk, from and to registries and archives, and made from others."""

from __future__ import annotations

import os
from collections import namedtuple

from . import _zind
from ._copy import Root
from .errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, Literal, NamedTuple, Optional, Union

    from typing_extensions import Unpack

    from ._options import Argv, IdMaps, Options, Path

    Auth = Union[None, Literal["anonymous"], "tuple[str, str]", Mapping[str, str]]
    Mirrors = Optional[Mapping[str, Sequence[Union[str, "tuple[str, bool]"]]]]
    ProgressFunction = Optional[Callable[["Progress"], object]]
    Compression = Literal["none", "gzip", "zstd"]
    Format = Literal["oci", "oci-dir", "docker"]
    Policy = Literal["missing", "always", "never"]

    class _ProgressBase(NamedTuple):
        kind: Literal["download", "upload", "unpack", "load", "save", "check", "pack", "build", "collect"]
        layer: int | None
        layers: int | None
        digest: str | None
        done: int
        total: int | None

    class _LayerBase(NamedTuple):
        digest: str
        diff_id: str | None
        size: int
        media_type: str

    class _HistoryBase(NamedTuple):
        created: str | None
        created_by: str | None
        author: str | None
        comment: str | None
        empty_layer: bool

    class _CollectedBase(NamedTuple):
        blobs: int
        snapshots: int
        leftovers: int
        bytes: int

    class _FaultBase(NamedTuple):
        what: str
        rule: str
        cure: str
        images: list[str]

    class _UsageBase(NamedTuple):
        blobs: int
        snapshots: int
        partial: int
        unused: int
        images: list[ImageUsage]

    class _ImageUsageBase(NamedTuple):
        id: str
        tags: list[str]
        size: int
        unique: int
        unpacked: int

    class _PackStatsBase(NamedTuple):
        entries: int
        whiteouts: int
        bytes: int
        skipped: int

    class _BuildStepBase(NamedTuple):
        what: str
        cached: bool
        diff_id: str | None
        time: float
else:
    _ProgressBase = namedtuple("_ProgressBase", "kind layer layers digest done total")
    _LayerBase = namedtuple("_LayerBase", "digest diff_id size media_type")
    _HistoryBase = namedtuple("_HistoryBase", "created created_by author comment empty_layer")
    _CollectedBase = namedtuple("_CollectedBase", "blobs snapshots leftovers bytes")
    _FaultBase = namedtuple("_FaultBase", "what rule cure images")
    _UsageBase = namedtuple("_UsageBase", "blobs snapshots partial unused images")
    _ImageUsageBase = namedtuple("_ImageUsageBase", "id tags size unique unpacked")
    _PackStatsBase = namedtuple("_PackStatsBase", "entries whiteouts bytes skipped")
    _BuildStepBase = namedtuple("_BuildStepBase", "what cached diff_id time")

__all__ = [
    "BuildStep",
    "Builder",
    "Collected",
    "Fault",
    "History",
    "Image",
    "ImageUsage",
    "Layer",
    "PackStats",
    "Progress",
    "Store",
    "Usage",
    "build",
]


class Progress(_ProgressBase):
    """How far one piece of work has come, as a ``progress`` function hears of it: ``kind`` ("download", "upload", "unpack",
    "load", "save", "check", "pack", "build", "collect"), ``layer`` of ``layers`` counted from 0 (``None`` for what is no layer), the blob's
    ``digest`` if it is known, and bytes ``done`` of ``total`` (``None`` if that is not known).

    The function is called on the thread of the call, a few times a second for each piece, and at its beginning and end. An
    exception it raises stops the work and comes out of the call.
    """

    __slots__ = ()


class Layer(_LayerBase):
    """A layer of an image: ``digest`` and ``size`` of its blob, ``diff_id`` of what is in it, ``media_type``."""

    __slots__ = ()


class History(_HistoryBase):
    """A step on the way to an image: ``created``, ``created_by``, ``author``, ``comment``, ``empty_layer``."""

    __slots__ = ()


class Collected(_CollectedBase):
    """What :meth:`Store.gc` removed: ``blobs``, ``snapshots`` (unpacked layers), ``leftovers`` of what was interrupted, and
    the ``bytes`` given back."""

    __slots__ = ()


class Fault(_FaultBase):
    """What :meth:`Store.verify` found: ``what`` is broken, the ``rule`` it breaks, the ``cure``, and the ``images`` that have it."""

    __slots__ = ()


class Usage(_UsageBase):
    """What a store takes, in bytes: ``blobs``, ``snapshots``, ``partial`` downloads, ``unused`` (what gc would give back of the
    blobs), and a :class:`zind.ImageUsage` per image."""

    __slots__ = ()


class ImageUsage(_ImageUsageBase):
    """What an image takes, in bytes: ``size`` of its blobs, ``unique`` of those no other image has, ``unpacked`` on disk."""

    __slots__ = ()


class PackStats(_PackStatsBase):
    """What became a tar: ``entries``, of which ``whiteouts`` are deletions, ``bytes`` of content, and ``skipped`` sockets."""

    __slots__ = ()


class BuildStep(_BuildStepBase):
    """What became of a step: ``what`` it is, whether its result was ``cached``, the ``diff_id`` of the layer that it made
    (``None`` if it changed no file), the ``time`` in seconds."""

    __slots__ = ()


def watch(progress: ProgressFunction, cancel: _zind.Cancel | None = None) -> tuple[Any, _zind.Cancel | None]:
    """A function that hears :class:`Progress`, as the extension module calls it."""
    if progress is None:
        return None, cancel
    hear = progress
    return lambda *event: hear(Progress(*event)), cancel


def texts(field: str, value: Any) -> list[Any]:
    """A list; a string would be one of its letters."""
    if isinstance(value, (str, bytes)):
        raise SpecError(f"{field} is a string; give a list like [{value!r}]", field)
    try:
        return list(value)
    except TypeError:
        raise SpecError(f"{field} is no list", field) from None


def _mapping(field: str, value: Any) -> Iterable[tuple[str, Any]]:
    if value is None:
        return ()
    try:
        return value.items()  # type: ignore[no-any-return]
    except AttributeError:
        raise SpecError(f"{field} is no dict", field) from None


def _mirror(place: Any) -> tuple[str, bool]:
    if isinstance(place, str):
        return place, False
    if isinstance(place, (tuple, list)) and len(place) == 2 and isinstance(place[0], str) and isinstance(place[1], bool):
        return place[0], place[1]
    raise SpecError(f"mirrors has {place!r}, which is neither a place nor (place, True)", "mirrors")


def _who(auth: Any) -> tuple[str, str, str]:
    if auth is None:
        return "files", "", ""
    if auth == "anonymous":
        return "anonymous", "", ""
    if isinstance(auth, (tuple, list)) and len(auth) == 2 and all(isinstance(part, str) for part in auth):
        return "basic", auth[0], auth[1]
    if hasattr(auth, "items") and len(auth) == 1:
        ((kind, secret),) = auth.items()
        if kind in ("bearer", "identity") and isinstance(secret, str):
            return kind, secret, ""
    # Not what it is: it may be a secret.
    rule = 'is none of "anonymous", (user, password), {"bearer": token} and {"identity": token}'
    raise SpecError(f"auth {rule}", "auth")


def registry_options(
    auth: Auth,
    auth_file: Path | None,
    tls_verify: bool,
    cert_dir: Path | None,
    mirrors: Mirrors,
    proxy: str | None,
    timeout: float | None,
    retries: int | None,
    parallel: int | None,
) -> tuple[Any, ...]:
    """How registries are reached, as the extension module has it."""
    places = {host: [_mirror(place) for place in texts("mirrors", list_)] for host, list_ in _mapping("mirrors", mirrors)}
    return _who(auth), auth_file, tls_verify, cert_dir, places, proxy, timeout, retries, parallel


def _json(config: Mapping[str, Any] | None) -> str | None:
    # Not at the top: it takes longer to import than all of zind.
    import json

    return None if config is None else json.dumps(config)


def commit_options(
    tag: str | Iterable[str] | None,
    config: Mapping[str, Any] | None,
    author: str | None,
    message: str | None,
    created: str | None,
    compression: Compression,
) -> tuple[Any, ...]:
    """What a commit is told, as the extension module has it."""
    tags = [] if tag is None else [tag] if isinstance(tag, str) else texts("tag", tag)
    return tags, _json(config), author, message, created, compression


class Image:
    """An image of a store: what was known about it when it was looked up. Made by :class:`zind.Store`."""

    __slots__ = ("_document", "_image")

    def __init__(self, image: _zind.Image) -> None:
        if not isinstance(image, _zind.Image):
            raise TypeError("use zind.Store().image(name), or pull, load, import_rootfs")
        self._image = image
        self._document: dict[str, Any] | None = None

    def _described(self) -> dict[str, Any]:
        if self._document is None:
            self._document = self._image.to_dict()
        return self._document

    @property
    def id(self) -> str:
        """The digest of its configuration: what Docker calls the image's id."""
        return self._image.id

    @property
    def digest(self) -> str:
        """The digest of its manifest: what registries know it by."""
        return self._image.digest

    @property
    def tags(self) -> list[str]:
        """Its names."""
        return self._image.tags

    @property
    def size(self) -> int:
        """Bytes of its blobs, as they are stored."""
        return self._image.size

    @property
    def created(self) -> str | None:
        """When it was made, as RFC 3339."""
        return self._image.created

    @property
    def platform(self) -> str:
        """What it runs on: ``"linux/amd64"``."""
        return self._image.platform

    @property
    def config(self) -> dict[str, Any]:
        """Its configuration, as the image-spec has it: ``image.config["config"]["Cmd"]``."""
        return self._described()["config"]  # type: ignore[no-any-return]

    @property
    def layers(self) -> list[Layer]:
        """Its layers, bottommost first."""
        return [Layer(**layer) for layer in self._described()["layers"]]

    @property
    def history(self) -> list[History]:
        """How it came to be, oldest first."""
        return [History(**entry) for entry in self._described()["history"]]

    @property
    def store(self) -> Store:
        """The store it is in."""
        return Store(self._image.place)

    def mount(self, *, progress: ProgressFunction = None) -> Root:
        """Its root file system for reading, as a :class:`zind.Root`: nothing in it can be changed, nothing is mounted on the
        host. The image stays in its store as long as this is open."""
        return Root._of(self._image.mount(watch(progress)))

    def unpack(self, *, progress: ProgressFunction = None) -> None:
        """Unpacks the layers that are not unpacked yet; a start would do it otherwise."""
        self._image.unpack(watch(progress))

    def export(self, path: Path, *, compression: Compression = "none", progress: ProgressFunction = None) -> PackStats:
        """Writes its root file system as a tar. ``path`` must not exist."""
        return PackStats(*self._image.export(path, compression, watch(progress)))

    def save(self, path: Path, format: Format = "oci", *, progress: ProgressFunction = None) -> None:
        """Writes it into an archive: :meth:`zind.Store.save`."""
        self.store.save(self, path, format, progress=progress)

    def _repr_html_(self) -> str:
        rows = {"id": self.id, "tags": ", ".join(self.tags), "size": str(self.size), "created": str(self.created)}
        return f"<table>{''.join(f'<tr><th>{name}</th><td>{value}</td></tr>' for name, value in rows.items())}</table>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Image):
            return NotImplemented
        return (self.digest, self._image.place) == (other.digest, other._image.place)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return _image_of, (os.fspath(self._image.place), self.digest)

    def __repr__(self) -> str:
        return f"<zind.Image {self.id.partition(':')[2][:12]} {', '.join(self.tags) or 'without a name'}>"


def _image_of(place: str, digest: str) -> Image:
    return Store(place).image(digest)


class Store:
    """Images and their unpacked layers in a directory, which any number of processes use at once.

    >>> store = zind.Store()  # doctest: +SKIP
    >>> image = store.pull("debian:12", progress=print)  # doctest: +SKIP
    >>> zind.run(["cat", "/etc/os-release"], image=image)  # doctest: +SKIP

    Its ``images/`` is an OCI image-layout directory, which other programs read.
    """

    __slots__ = ("_store",)

    def __init__(self, path: Path | None = None, *, limits: Mapping[str, int] | None = None) -> None:
        """:param path: made if it is missing; ``None``: ``/var/lib/zind`` for root, ``$XDG_DATA_HOME/zind`` for an ordinary user.
        :param limits: other bounds on foreign archives than the usual ones, by name: see :attr:`limits`.
        :raises zind.StateError: it belongs to somebody else, or to a later version."""
        self._store = _zind.Store(path, [(name, value) for name, value in _mapping("limits", limits)])

    @property
    def limits(self) -> dict[str, int]:
        """Its bounds on foreign archives. What goes beyond is :class:`zind.ImageError`. ``entries`` of a layer; bytes of a file
        (``file_size``) and of a layer (``layer_size``); ``ratio``, how many times larger a layer may become by decompression, from
        ``ratio_from`` bytes on; ``depth`` of directories; bytes of an entry's extended headers (``header``) and of a ``document``;
        ``zstd_window_log``, the window of zstd as a power of two."""
        return self._store.limits()

    @property
    def path(self) -> str:
        """Where it is."""
        return os.fspath(self._store.place)

    def image(self, name: str) -> Image:
        """An image by its name, its id or digest (``sha256:...``), or the first 4 or more digits of one.

        :raises zind.NotFoundError: there is none.
        """
        return Image(self._store.image(name))

    def images(self) -> list[Image]:
        """All of them, in the order in which they came."""
        return [Image(image) for image in self._store.images()]

    def pull(
        self,
        reference: str,
        *,
        policy: Policy = "always",
        platform: str | None = None,
        foreign_layers: bool = False,
        unpack: bool = True,
        progress: ProgressFunction = None,
        auth: Auth = None,
        auth_file: Path | None = None,
        tls_verify: bool = True,
        cert_dir: Path | None = None,
        mirrors: Mirrors = None,
        proxy: str | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        parallel: int | None = None,
    ) -> Image:
        """Takes an image from its registry. What is here already is not fetched again, and what was interrupted is gone on with.

        :param policy: ``"always"``: the registry is asked what the name stands for now; ``"missing"``: only if there is none of that name; ``"never"``: it has to be here.
        :param platform: ``"linux/arm64/v8"``; ``None``: this machine's.
        :param unpack: unpack the layers while they come.
        :param auth: ``None``: what the user's ``auth.json`` files of docker and containers say; ``"anonymous"``;
            ``(user, password)``; ``{"bearer": token}``; ``{"identity": token}``.
        :param auth_file: the only file to look for credentials in.
        :param tls_verify: off, any certificate will do, and plain HTTP if the registry has no TLS.
        :param cert_dir: a directory with ``*.crt``, ``*.cert`` and ``*.key``, or with directories ``HOST:PORT`` of them; mirrors
            have only the latter.
        :param mirrors: ``{"docker.io": ["mirror:5000/hub", ("other:5000", True)]}``; with ``True`` as if ``tls_verify`` was off.
        :param timeout: the longest silence of a server, in seconds.
        :param parallel: how many layers come at the same time, 1 to 16.
        :raises zind.RegistryError: the registry, or the way to it, refused.
        :raises zind.ImageError: the content is not what was promised.
        """
        given = registry_options(auth, auth_file, tls_verify, cert_dir, mirrors, proxy, timeout, retries, parallel)
        pulled = self._store.pull(
            reference, False, policy, platform, foreign_layers, unpack, given, watch(progress)
        )
        return Image(pulled)

    def _find(self, name: str, policy: Policy, platform: str | None, cancel: _zind.Cancel | None = None) -> Image:
        """The image of a start."""
        given = registry_options(None, None, True, None, None, None, None, None, None)
        return Image(self._store.pull(name, True, policy, platform, False, True, given, watch(None, cancel)))

    def push(
        self,
        image: Image | str,
        reference: str | None = None,
        *,
        chunk_size: int | None = None,
        mount_from: str | None = None,
        extra_tags: Iterable[str] = (),
        progress: ProgressFunction = None,
        auth: Auth = None,
        auth_file: Path | None = None,
        tls_verify: bool = True,
        cert_dir: Path | None = None,
        proxy: str | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        parallel: int | None = None,
    ) -> None:
        """Gives an image to a registry. Options as in :meth:`pull`.

        :param reference: its name there; ``None``: ``image`` is a name itself.
        :param chunk_size: send blobs in pieces of so many bytes; ``None``: in one.
        :param mount_from: a repository of the same registry that may have the blobs already.
        """
        if isinstance(image, str):
            reference = reference or image
            image = self.image(image)
        elif reference is None:
            raise TypeError("push(image, reference): the image's name in the registry is missing")
        given = registry_options(auth, auth_file, tls_verify, cert_dir, None, proxy, timeout, retries, parallel)
        self._store.push(
            image._image, reference, chunk_size, mount_from, texts("extra_tags", extra_tags), given, watch(progress)
        )

    def load(self, path: Path, *, progress: ProgressFunction = None) -> list[Image]:
        """Takes the images of an archive: an OCI image-layout directory or tar, or what ``docker save`` wrote, also compressed.

        :raises zind.ImageError: it is broken or hostile; nothing of it was taken.
        """
        return [Image(image) for image in self._store.load(path, watch(progress))]

    def import_rootfs(
        self,
        source: Path,
        *,
        tag: str | None = None,
        config: Mapping[str, Any] | None = None,
        progress: ProgressFunction = None,
    ) -> Image:
        """Makes an image of one layer of a root file system: a directory, or a tar (also compressed), as mmdebstrap makes them.

        :param config: how containers of it run: ``{"Cmd": ["bash"], "Env": ["A=1"], "User": "web"}``.
        """
        text = _json(config)
        return Image(self._store.import_rootfs(source, tag, text, watch(progress)))

    def save(
        self,
        images: Image | Iterable[Image],
        path: Path,
        format: Format = "oci",
        *,
        progress: ProgressFunction = None,
    ) -> None:
        """Writes images with their names into an archive. ``path`` must not exist.

        :param format: ``"oci"`` (a tar), ``"oci-dir"`` (a directory), ``"docker"`` (what ``docker load`` reads).
        """
        given = [images] if isinstance(images, Image) else list(images)
        self._store.save([image._image for image in given], path, format, watch(progress))

    def tag(self, image: Image, name: str) -> None:
        """Gives an image one more name; another image that has it loses it."""
        self._store.tag(image._image, name)

    def remove(self, name: str | Image) -> None:
        """Takes a name away, or all names with an id or an image. An image without names is gone; its blobs go with :meth:`gc`."""
        self._store.remove(name.id if isinstance(name, Image) else name)

    def gc(self, *, progress: ProgressFunction = None) -> Collected:
        """Removes what no image, no container and no :class:`zind.Layers` has. Safe beside everything else. It can be stopped; what was
        removed by then stays removed."""
        return self._collect(watch(progress))

    def _collect(self, watch: Any) -> Collected:
        return Collected(**self._store.gc(watch))

    def verify(self, *, progress: ProgressFunction = None) -> list[Fault]:
        """Checks every digest and every unpacked file; what is broken."""
        return [Fault(**fault) for fault in self._store.verify(watch(progress))]

    def usage(self) -> Usage:
        """What it takes on disk."""
        return self._measure(watch(None))

    def _measure(self, watch: Any) -> Usage:
        found = self._store.usage(watch)
        return Usage(**{**found, "images": [ImageUsage(**image) for image in found["images"]]})

    def __eq__(self, other: object) -> bool:
        return self.path == other.path if isinstance(other, Store) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.path)

    def __reduce__(self) -> tuple[object, tuple[str, dict[str, int]]]:
        return _store_of, (self.path, self.limits)

    def __repr__(self) -> str:
        return f"<zind.Store {self.path!r}>"


def _store_of(path: str, limits: dict[str, int]) -> Store:
    return Store(path, limits=limits)


#: Stores that starts have opened, by place: opening one reads what images it has.
_kept: dict[object, tuple[object, Store]] = {}
_KEPT = 16


def opened(path: Path | None) -> Store:
    """The store at a place, opened once per process, as long as it is the same directory. For any number of threads."""
    usual = [os.environ.get(name) for name in ("XDG_DATA_HOME", "HOME")] if path is None else []
    where = os.path.abspath(os.fsdecode(path)) if path is not None else tuple(usual)
    key = os.getpid(), os.geteuid(), where
    kept = _kept.get(key)
    if kept is not None and _identity(kept[1].path) == kept[0]:
        return kept[1]
    store = Store(path)
    # Of two threads the later one is kept; both stores are good.
    while len(_kept) >= _KEPT:
        _kept.pop(next(iter(list(_kept)), None), None)
    _kept[key] = _identity(store.path), store
    return store


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def find(image: object, store: Store | Path | None, policy: Policy, platform: str | None, cancel: _zind.Cancel | None = None) -> Image:
    """The image that a start asks for."""
    if isinstance(image, Image):
        return image
    if not isinstance(image, str):
        raise TypeError(f"image must be a zind.Image or the name of one, not {type(image).__name__}")
    place = store if isinstance(store, Store) else opened(store)
    return place._find(image, policy, platform, cancel)


def settle(given: dict[str, Any], cancel: _zind.Cancel | None = None) -> None:
    """Replaces the options that find an image by the image, and a document by its text."""
    config: Any = given.get("config")
    if hasattr(config, "keys"):
        import json

        given["config"] = json.dumps(dict(config)).encode()
    elif isinstance(config, str) and config.lstrip().startswith("{"):
        given["config"] = config.encode()
    store, policy, platform = given.pop("store", None), given.pop("pull", None), given.pop("platform", None)
    if given.get("image") is None:
        if store is not None or policy is not None or platform is not None:
            raise TypeError("store, pull and platform go with image")
        return
    given["image"] = find(given["image"], store, policy or "missing", platform, cancel)


class Builder:
    """The steps of an image that is to be built; made by :func:`zind.build`. Nothing happens before :meth:`commit`.

    Each method but that returns the builder, so that they can be written in a row.
    """

    def __init__(
        self,
        base: Image | str | None = None,
        *,
        store: Store | Path | None = None,
        pull: Policy = "missing",
        platform: str | None = None,
        uid_map: IdMaps = None,
        gid_map: IdMaps = None,
        cache: bool = True,
    ) -> None:
        if store is None and isinstance(base, Image):
            store = base.store
        place = store if isinstance(store, Store) else opened(store)
        found = None if base is None else find(base, place, pull, platform)
        plain = None if found is None else found._image
        self._builder = _zind.Builder(place._store, plain, uid_map, gid_map, cache)
        #: What became of each step in the last :meth:`commit`.
        self.steps: list[BuildStep] = []

    def run(self, argv: Argv, **options: Unpack[Options]) -> Builder:
        """A program to run, as the user and in the directory of the steps before. It must exit with 0. Options as in
        :func:`zind.run`, such as ``network="host"``, ``mounts`` or ``env``; all but its streams are part of what the step is.
        As root it has the capabilities that Docker gives, unless ``capabilities`` says otherwise. A step that mounts something
        of the host, or a volume, is carried out each time."""
        self._builder.run(argv, dict(options))
        return self

    def copy(self, source: Path, target: Path, *, owner: str = "0:0") -> Builder:
        """Files or trees of the host into the image, by the rules of :meth:`zind.Root.copy_in`. ``owner``: ``"user[:group]"``, by
        name or number of the image."""
        self._builder.copy(source, target, owner)
        return self

    def _configure(self, what: str, *values: str) -> Builder:
        self._builder.configure(what, list(values))
        return self

    def env(self, variables: Mapping[str, str] | None = None, /, **more: str) -> Builder:
        """Variables, for the steps after it and for containers of the image."""
        for name, value in {**(variables or {}), **more}.items():
            self._configure("env", name, value)
        return self

    def label(self, labels: Mapping[str, str] | None = None, /, **more: str) -> Builder:
        """Labels."""
        for name, value in {**(labels or {}), **more}.items():
            self._configure("label", name, value)
        return self

    def workdir(self, path: str) -> Builder:
        """The directory in which the steps after it and containers run."""
        return self._configure("workdir", path)

    def user(self, user: str) -> Builder:
        """Who the steps after it and containers run as."""
        return self._configure("user", user)

    def entrypoint(self, argv: Sequence[str]) -> Builder:
        """What comes before a container's arguments; the command that the base has is not used then."""
        return self._configure("entrypoint", *texts("entrypoint", argv))

    def cmd(self, argv: Sequence[str]) -> Builder:
        """The arguments of a container that is given none."""
        return self._configure("cmd", *texts("cmd", argv))

    def expose(self, port: int | str) -> Builder:
        """A port that programs of the image listen at: ``80``, ``"53/udp"``."""
        return self._configure("expose", str(port))

    def volume(self, path: str) -> Builder:
        """A directory that is meant to be a volume."""
        return self._configure("volume", path)

    def stop_signal(self, signal: int | str) -> Builder:
        """How containers are asked to stop."""
        return self._configure("stop_signal", str(signal))

    def commit(
        self,
        tag: str | Iterable[str] | None = None,
        *,
        author: str | None = None,
        message: str | None = None,
        created: str | None = None,
        compression: Compression = "gzip",
        progress: ProgressFunction = None,
    ) -> Image:
        """Carries out the steps whose results are not there, and makes the image. The same steps over the same content are
        the same image.

        :raises zind.StepFailed: a program did not exit with 0.
        """
        options = commit_options(tag, None, author, message, created, compression)
        image, steps = self._builder.commit(options, watch(progress))
        self.steps = [BuildStep(**step) for step in steps]
        return Image(image)


def build(
    base: Image | str | None = None,
    *,
    store: Store | Path | None = None,
    pull: Policy = "missing",
    platform: str | None = None,
    uid_map: IdMaps = None,
    gid_map: IdMaps = None,
    cache: bool = True,
) -> Builder:
    """An image from another (``None``: from nothing), by steps whose results are kept.

    >>> image = (  # doctest: +SKIP
    ...     zind.build("debian:12")
    ...     .run(["apt-get", "update"], network="host")
    ...     .copy("app", "/srv/app")
    ...     .env(MODE="test").workdir("/srv/app").cmd(["./start"])
    ...     .commit("local/app:1")
    ... )

    :param pull: when the registry is asked for the base: ``"missing"``, ``"always"``, ``"never"``.
    :param uid_map: ids of a user namespace for the steps that run, as in :func:`zind.run`.
    :param cache: whether results of earlier builds are used.
    """
    return Builder(
        base, store=store, pull=pull, platform=platform, uid_map=uid_map, gid_map=gid_map, cache=cache
    )
