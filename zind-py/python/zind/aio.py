"""zind for :mod:`asyncio`: the same names, awaited.

Starts, ends and streams are watched as descriptors in the running loop; there is no helper thread.
"""

from __future__ import annotations

import asyncio
import os
import signal as _signal
from subprocess import PIPE

from . import _zind
from ._copy import CopyStats, Root
from ._events import Event
from ._events import Events as _Events
from ._process import completed, streams
from ._resources import ProcessInfo
from ._results import CompletedProcess, Exit, Isolation, Stats
from ._text import Text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from typing_extensions import Unpack

    from ._events import PressureTrigger
    from ._options import Argv, Options, Path
    from ._resources import Resources
    from ._zind import Mount

__all__ = ["PIPE", "Events", "Popen", "run"]


async def _readable(fd: int) -> None:
    """Waits until a descriptor can be read."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    # A copy: whoever owns the descriptor may close it while the loop still knows its number.
    watched = os.dup(fd)

    def wake() -> None:
        if not future.done():
            future.set_result(None)

    try:
        loop.add_reader(watched, wake)
        await future
    finally:
        loop.remove_reader(watched)
        os.close(watched)


async def _start(argv: Any, given: dict[str, Any]) -> _zind.Process:
    start = _zind.begin(argv, given)
    try:
        await _readable(start.fileno())
    except BaseException:
        start.cancel()
        raise
    return start.finish()


async def _reader(fd: int) -> asyncio.StreamReader | None:
    if fd < 0:
        return None
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await loop.connect_read_pipe(lambda: protocol, os.fdopen(fd, "rb", 0))
    return reader


async def _writer(fd: int) -> asyncio.StreamWriter | None:
    if fd < 0:
        return None
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.connect_write_pipe(lambda: protocol, os.fdopen(fd, "wb", 0))
    return asyncio.StreamWriter(transport, protocol, None, loop)


class Popen:
    """A container that runs. ``await Popen.start(argv, ...)`` makes one; ``async with`` waits for its end."""

    args: Any
    stdin: asyncio.StreamWriter | None
    stdout: asyncio.StreamReader | None
    stderr: asyncio.StreamReader | None

    def __init__(self) -> None:
        raise TypeError("use: p = await zind.aio.Popen.start(argv, ...)")

    @classmethod
    async def start(cls, argv: Argv, **options: Unpack[Options]) -> Popen:
        """Starts a container; the program runs when this returns. Options as in :class:`zind.Popen`."""
        process = await _start(argv, dict(options))
        self = cls.__new__(cls)
        self.args = argv
        self._process = process
        self._exit = None
        stdin, stdout, stderr = process.take_streams()
        self.stdin, self.stdout, self.stderr = await _writer(stdin), await _reader(stdout), await _reader(stderr)
        return self

    _process: _zind.Process
    _exit: Exit | None

    @property
    def pid(self) -> int:
        """As in :class:`zind.Popen`."""
        return self._process.pid

    @property
    def pidfd(self) -> int:
        """As in :class:`zind.Popen`."""
        return self._process.pidfd

    @property
    def isolation(self) -> Isolation:
        """What is in force."""
        return Isolation(self._process.isolation)

    @property
    def exit(self) -> Exit | None:
        """How it ended."""
        return self._exit

    @property
    def returncode(self) -> int | None:
        """As in :mod:`subprocess`; ``None`` until somebody has waited."""
        return None if self._exit is None else self._exit.returncode

    def stats(self) -> Stats:
        """What it uses now; once it has ended, what it used over its whole life."""
        return Stats._of(self._process.stats())

    def update(self, resources: Resources) -> None:
        """Changes limits while it runs; what is not given stays as it is, ``-1`` or ``"max"`` takes a limit away.

        :raises zind.StateError: it has ended, or was started without ``resources=``, or without that controller.
        :raises zind.SysError: ``EBUSY`` for less memory than is in use and cannot be taken back.
        """
        self._process.update(resources)

    def pause(self) -> None:
        """Stops everything in the container until :meth:`resume`. It needs ``resources=``, be it without limits."""
        self._process.pause()

    def resume(self) -> None:
        """Lets everything go on."""
        self._process.resume()

    @property
    def paused(self) -> bool:
        """Between :meth:`pause` and :meth:`resume`."""
        return self._process.is_paused()

    def events(self, *, pressure: Iterable[PressureTrigger] = ()) -> Events:
        """As :meth:`zind.Popen.events`, for ``async for``."""
        return Events(_Events(self._process, pressure))

    def processes(self) -> list[ProcessInfo]:
        """Everything that runs in the container, zind's PID 1 included; nothing once it has ended."""
        return [ProcessInfo(**info) for info in self._process.processes()]

    async def wait(self) -> int:
        """Waits for the end; the return code."""
        while self._exit is None:
            exit = self._process.poll()
            if exit is not None:
                self._exit = Exit(*exit)
                break
            await _readable(self._process.end_fd)
        return self._exit.returncode

    async def communicate(self, input: bytes | None = None) -> tuple[bytes | None, bytes | None]:
        """Feeds ``input``, reads both streams to their ends, and waits."""

        async def feed() -> None:
            if self.stdin is not None:
                try:
                    if input:
                        self.stdin.write(input)
                        await self.stdin.drain()
                except (BrokenPipeError, ConnectionResetError):
                    pass
                self.stdin.close()

        async def read(stream: asyncio.StreamReader | None) -> bytes | None:
            return None if stream is None else await stream.read()

        _, out, err = await asyncio.gather(feed(), read(self.stdout), read(self.stderr))
        await self.wait()
        return out, err

    def mount(self, mount: Mount) -> None:
        """Mounts something in the running container, below its root, whatever the program does to the path meanwhile.

        A bind takes a source that the caller can reach. Called by an ordinary user, it has to be recursive if something
        is mounted below the source (``EINVAL``), as at a start.

        :raises zind.StateError: the container has ended.
        :raises zind.SpecError: overlays and files from bytes are put together before the start only.
        :raises zind.UnsupportedError: an idmapped bind, called by an ordinary user.
        """
        self._process.mount(mount)

    def umount(self, target: str | os.PathLike[str]) -> None:
        """Takes away what is mounted at ``target`` in the running container, and what is mounted below it."""
        self._process.umount(target)

    @property
    def root(self) -> Root:
        """As in :class:`zind.Popen`."""
        return Root._of(self._process.root)

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
        """Copies a file or a tree of the host's into the running container: :meth:`zind.Root.copy_in`. The loop waits meanwhile: files
        cannot be watched as descriptors, and there is no helper thread."""
        with self.root as root:
            return root.copy_in(
                source, target, owner=owner, follow_links=follow_links, overwrite=overwrite, strict=strict
            )

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
        """Copies a file or a tree of the running container's to the host: :meth:`zind.Root.copy_out`. The loop
        waits meanwhile."""
        with self.root as root:
            return root.copy_out(
                source, target, owner=owner, follow_links=follow_links, overwrite=overwrite, strict=strict
            )

    def send_signal(self, sig: int) -> None:
        """As in :class:`zind.Popen`."""
        self._process.signal(int(sig))

    def terminate(self) -> None:
        """SIGTERM to the program."""
        self.send_signal(_signal.SIGTERM)

    def kill(self) -> None:
        """Ends the whole container at once."""
        self._process.kill()

    async def __aenter__(self) -> Popen:
        return self

    async def __aexit__(self, kind: object, value: object, traceback: object) -> None:
        if kind is not None:
            self.kill()
        if self.stdin is not None:
            self.stdin.close()
        await self.wait()

    def __repr__(self) -> str:
        state = "running" if self.returncode is None else repr(self._exit)
        return f"<zind.aio.Popen pid={self.pid} {state} args={self.args!r}>"


class Events:
    """The events of a container, awaited: ``async for event in process.events()``. It ends after ``empty``."""

    def __init__(self, events: _Events) -> None:
        self._events = events

    async def get(self) -> Event | None:
        """The next event; ``None`` when there will be no more."""
        while True:
            event = self._events.get(0)
            if event is not None or self._events.over:
                return event
            await _readable(self._events.fileno())

    def close(self) -> None:
        """Lets go of its descriptors; twice is fine."""
        self._events.close()

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> Event:
        event = await self.get()
        if event is None:
            self.close()
            raise StopAsyncIteration
        return event

    async def __aenter__(self) -> Events:
        return self

    async def __aexit__(self, kind: object, value: object, traceback: object) -> None:
        self.close()


async def run(
    argv: Argv,
    *,
    input: bytes | str | None = None,
    capture_output: bool = False,
    text: bool | None = None,
    encoding: str | None = None,
    errors: str | None = None,
    timeout: float | None = None,
    check: bool = False,
    **options: Unpack[Options],
) -> CompletedProcess:
    """As :func:`zind.run`. Cancelled, it kills the container and waits until it is gone."""
    mode = Text(text, encoding, errors)
    given: dict[str, Any] = dict(options)
    out, err = streams(given, input is not None, capture_output)
    data = mode.encode(input)
    process = await Popen.start(argv, **given)
    exchange = asyncio.ensure_future(process.communicate(data))
    timer = None
    if timeout is not None:
        timer = asyncio.get_running_loop().call_later(timeout, process._process.expire)
    try:
        stdout, stderr = await asyncio.shield(exchange)
    except BaseException:
        process.kill()
        await exchange
        raise
    finally:
        if timer is not None:
            timer.cancel()
    exit = process.exit
    assert exit is not None
    stats = process.stats()
    return completed(argv, exit, stats, process.isolation, mode, stdout if out else None, stderr if err else None, timeout, check)
