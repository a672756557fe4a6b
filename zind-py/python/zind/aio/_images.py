"""``Store`` and ``build``, awaited."""

from __future__ import annotations

from .. import _images, _zind
from ._loop import _in_thread, _on_loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from .._images import (
        Auth,
        Collected,
        Compression,
        Fault,
        Format,
        Image,
        Mirrors,
        Policy,
        ProgressFunction,
        Usage,
    )
    from .._options import IdMaps, Path

__all__ = ["Builder", "Store", "build"]


class Store:
    """:class:`zind.Store`, awaited. Long work goes to a thread of the loop's default executor and is stopped when the call is
    cancelled; ``progress`` functions are called by the loop."""

    __slots__ = ("_sync",)

    def __init__(self, path: Path | None = None, *, limits: Mapping[str, int] | None = None) -> None:
        """As :class:`zind.Store`."""
        self._sync = _images.Store(path, limits=limits)

    @property
    def limits(self) -> dict[str, int]:
        """As :attr:`zind.Store.limits`."""
        return self._sync.limits

    @property
    def path(self) -> str:
        """Where it is."""
        return self._sync.path

    async def image(self, name: str) -> Image:
        """As :meth:`zind.Store.image`: a look into one file, on the loop."""
        return self._sync.image(name)

    async def images(self) -> list[Image]:
        """As :meth:`zind.Store.images`: a look into one file, on the loop."""
        return self._sync.images()

    async def tag(self, image: Image, name: str) -> None:
        """As :meth:`zind.Store.tag`."""
        await _in_thread(lambda _: self._sync.tag(image, name))

    async def remove(self, name: str | Image) -> None:
        """As :meth:`zind.Store.remove`."""
        await _in_thread(lambda _: self._sync.remove(name))

    async def gc(self, *, progress: ProgressFunction = None) -> Collected:
        """As :meth:`zind.Store.gc`."""
        hear = _on_loop(progress)
        return await _in_thread(lambda cancel: self._sync._collect(_images.watch(hear, cancel)))

    async def usage(self) -> Usage:
        """As :meth:`zind.Store.usage`."""
        return await _in_thread(lambda cancel: self._sync._measure(_images.watch(None, cancel)))

    async def verify(self, *, progress: ProgressFunction = None) -> list[Fault]:
        """As :meth:`zind.Store.verify`."""
        hear = _on_loop(progress)
        found = await _in_thread(lambda cancel: self._sync._store.verify(_images.watch(hear, cancel)))
        return [_images.Fault(**fault) for fault in found]

    async def load(self, path: Path, *, progress: ProgressFunction = None) -> list[Image]:
        """As :meth:`zind.Store.load`."""
        hear = _on_loop(progress)
        images = await _in_thread(lambda cancel: self._sync._store.load(path, _images.watch(hear, cancel)))
        return [_images.Image(image) for image in images]

    async def save(
        self, images: Image | Iterable[Image], path: Path, format: Format = "oci", *, progress: ProgressFunction = None
    ) -> None:
        """As :meth:`zind.Store.save`."""
        hear = _on_loop(progress)
        given = [images] if isinstance(images, _images.Image) else list(images)
        plain = [image._image for image in given]
        await _in_thread(lambda cancel: self._sync._store.save(plain, path, format, _images.watch(hear, cancel)))

    async def import_rootfs(
        self,
        source: Path,
        *,
        tag: str | None = None,
        config: Mapping[str, Any] | None = None,
        progress: ProgressFunction = None,
    ) -> Image:
        """As :meth:`zind.Store.import_rootfs`."""
        hear, text = _on_loop(progress), _images._json(config)
        work = self._sync._store.import_rootfs
        return _images.Image(await _in_thread(lambda cancel: work(source, tag, text, _images.watch(hear, cancel))))

    async def pull(
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
        """As :meth:`zind.Store.pull`."""
        hear = _on_loop(progress)
        given = _images.registry_options(
            auth, auth_file, tls_verify, cert_dir, mirrors, proxy, timeout, retries, parallel
        )

        def work(cancel: _zind.Cancel) -> _zind.Image:
            watch = _images.watch(hear, cancel)
            return self._sync._store.pull(
                reference, False, policy, platform, foreign_layers, unpack, given, watch
            )

        return _images.Image(await _in_thread(work))

    async def push(
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
        """As :meth:`zind.Store.push`."""
        if isinstance(image, str):
            reference = reference or image
            image = self._sync.image(image)
        elif reference is None:
            raise TypeError("push(image, reference): the image's name in the registry is missing")
        hear, plain, name, tags = _on_loop(progress), image._image, reference, _images.texts("extra_tags", extra_tags)
        given = _images.registry_options(auth, auth_file, tls_verify, cert_dir, None, proxy, timeout, retries, parallel)

        def work(cancel: _zind.Cancel) -> None:
            watch = _images.watch(hear, cancel)
            self._sync._store.push(plain, name, chunk_size, mount_from, tags, given, watch)

        await _in_thread(work)

    def __repr__(self) -> str:
        return f"<zind.aio.Store {self.path!r}>"


class Builder(_images.Builder):
    """:class:`zind.Builder`, whose :meth:`commit` is awaited."""

    async def commit(  # type: ignore[override]
        self,
        tag: str | Iterable[str] | None = None,
        *,
        author: str | None = None,
        message: str | None = None,
        created: str | None = None,
        compression: Compression = "gzip",
        progress: ProgressFunction = None,
    ) -> Image:
        """As :meth:`zind.Builder.commit`. Cancelled, it stops the step that runs; the results of those before stay."""
        options = _images.commit_options(tag, None, author, message, created, compression)
        hear = _on_loop(progress)
        work = self._builder.commit
        image, steps = await _in_thread(lambda cancel: work(options, _images.watch(hear, cancel)))
        self.steps = [_images.BuildStep(**step) for step in steps]
        return _images.Image(image)


async def build(
    base: Image | str | None = None,
    *,
    store: Store | _images.Store | Path | None = None,
    pull: Policy = "missing",
    platform: str | None = None,
    uid_map: IdMaps = None,
    gid_map: IdMaps = None,
    cache: bool = True,
) -> Builder:
    """As :func:`zind.build`; awaited, since its base may have to be pulled.

    >>> image = await (await zind.aio.build("debian:12")).run(["touch", "/x"]).commit("local/x")  # doctest: +SKIP
    """
    place = store._sync if isinstance(store, Store) else store
    if isinstance(base, str):
        name, where = base, place

        def work(cancel: _zind.Cancel) -> Image:
            return _images.find(name, where, pull, platform, cancel)

        base = await _in_thread(work)
    return Builder(base, store=place, pull=pull, platform=platform, uid_map=uid_map, gid_map=gid_map, cache=cache)
