"""zind for :mod:`asyncio`: the same names, awaited.

Starts, ends and streams are watched as descriptors in the running loop; there is no helper thread. But what works on
images (:class:`Store`, and a start whose image has to be pulled or unpacked first) cannot be watched that way, since files
have no readiness and decompression is work: it goes to a thread of the loop's default executor, one per call, and is
stopped when the call is cancelled. So does what asks the kernel or systemd about a control group and may have to wait for the
answer: a start with ``resources=``, and :meth:`Popen.update`, :meth:`Popen.pause`, :meth:`Popen.resume` and
:meth:`Popen.processes`. These cannot be stopped half way; cancelled, the call waits until it is through. Of a
:class:`Container`, what changes its files and may wait for others who do is done there too: making, starting and deleting it.
Its end, its log, its streams and its events are watched in the loop.
"""

from __future__ import annotations

import asyncio
import io
import os
import signal as _signal
from inspect import isawaitable
from subprocess import PIPE

from . import _images, _layers, _seccomp, _zind
from ._container import Attachment as _Attachment
from ._container import Chunk, ContainerEvent, Containers, LogLine
from ._container import ContainerEvents as _ContainerEvents
from ._container import Logs as _Logs
from ._container import _Functions, _given, _Known, _one_of, _opened, _seconds, _split, _warn
from ._copy import CopyStats, Root
from ._events import Event
from ._events import Events as _Events
from ._layers import Snapshot
from ._process import _caller_s_size, _is, completed, only_terminal, streams
from ._resources import ProcessInfo
from ._results import CompletedProcess, Exit, Isolation, Stats
from ._text import Text
from .errors import NotFoundError, StateError, SysError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
    from typing import Any, TypeVar

    from typing_extensions import Unpack

    from ._container import AnyHook, HookPoint, Labels, LogOptions, Moment
    from ._events import PressureTrigger
    from typing import IO

    from ._images import (
        Auth,
        Collected,
        Compression,
        Fault,
        Format,
        Image,
        Mirrors,
        PackStats,
        Policy,
        ProgressFunction,
        Usage,
    )
    from ._layers import Change

    from ._options import Argv, ExecOptions, IdMaps, Options, Path
    from ._resources import Resources
    from ._seccomp import Call, NotifyFunction, Violation, ViolationFunction
    from ._zind import Mount

    T = TypeVar("T")

__all__ = [
    "PIPE",
    "Attachment",
    "Builder",
    "Container",
    "ContainerEvents",
    "Events",
    "Logs",
    "Notifier",
    "Popen",
    "Store",
    "Violations",
    "build",
    "learn",
    "run",
]


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


async def _in_thread(work: Callable[[_zind.Cancel], T]) -> T:
    """Runs long work on a thread; cancelled, it is stopped, and this waits until it has."""
    cancel = _zind.Cancel()
    begun: list[None] = []
    called_off: list[None] = []

    def begin() -> T:
        begun.append(None)
        if called_off:
            raise InterruptedError
        return work(cancel)

    future = asyncio.get_running_loop().run_in_executor(None, begin)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        called_off.append(None)
        cancel.set()
        if not begun:
            # All threads are busy. If it gets one before this takes it away, it does nothing there.
            future.cancel()
        await _through(future)
        if not future.cancelled():
            future.exception()
        raise


async def _through(future: asyncio.Future[Any]) -> None:
    """Waits until it is done, however often this is cancelled meanwhile: what nobody waits for, nobody would clean up."""
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            pass


def _on_loop(progress: ProgressFunction) -> ProgressFunction:
    """The function is called by the loop. What it raises then is the loop's to report."""
    if progress is None:
        return None
    loop = asyncio.get_running_loop()
    hear = progress
    return lambda event: loop.call_soon_threadsafe(hear, event)


async def _settle(given: dict[str, Any]) -> None:
    if given.get("image") is None:
        _images.settle(given)
        return

    def work(cancel: _zind.Cancel) -> None:
        _images.settle(given, cancel)
        # A start would do it, and the loop wait meanwhile.
        given["image"]._image.unpack((None, cancel))

    await _in_thread(work)


async def _begin(argv: Any, given: dict[str, Any]) -> _zind.Start:
    if given.get("resources") is None:
        return _zind.begin(argv, given)
    # systemd may be asked for a scope, and the kernel has to make groups.
    begun: list[_zind.Start] = []
    try:
        await _in_thread(lambda _: begun.append(_zind.begin(argv, given)))
    except BaseException:
        for start in begun:
            start.cancel()
        raise
    return begun[0]


async def _start(argv: Any, given: dict[str, Any]) -> _zind.Process:
    await _settle(given)
    start = await _begin(argv, given)
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
    async def start(cls, argv: Argv | None = None, **options: Unpack[Options]) -> Popen:
        """Starts a container; the program runs when this returns. Options as in :class:`zind.Popen`."""
        given: dict[str, Any] = dict(options)
        if given.get("pty"):
            _caller_s_size(given)
            only_terminal(given, False)
        notify, violations = _seccomp.take(given)
        return await cls._of(await _start(argv, given), argv, notify, violations)

    _notifier: Notifier | None = None
    #: They call the functions of ``notify=`` and ``violations=``.
    _tasks: tuple[asyncio.Task[None], ...] = ()

    def _serve(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks += (asyncio.get_running_loop().create_task(work),)

    @property
    def notifier(self) -> Notifier | None:
        """As :attr:`zind.Popen.notifier`, for ``async for``."""
        return self._notifier

    def violations(self) -> Violations:
        """As :meth:`zind.Popen.violations`, for ``async for``."""
        return Violations(_seccomp.Violations(self._process.violations()))

    def learned(self) -> dict[str, Any]:
        """As :meth:`zind.Popen.learned`."""
        return _seccomp.learned(self._process)

    @classmethod
    async def _of(
        cls,
        process: _zind.Process,
        argv: Any,
        notify: NotifyFunction | None,
        violations: ViolationFunction | None = None,
    ) -> Popen:
        self = cls.__new__(cls)
        self.args = argv
        self._process = process
        self._exit = None
        stdin, stdout, stderr = process.take_streams()
        left = [stdin, stdout, stderr]
        try:
            self.stdin = await _writer(left.pop(0))
            self.stdout = await _reader(left.pop(0))
            self.stderr = await _reader(left.pop(0))
        except BaseException:
            # Nobody will have this object. Who was given a stream closes it at its end.
            for fd in left:
                if fd >= 0:
                    os.close(fd)
            await _undone(lambda: _killed(process))
            raise
        terminal = process.take_terminal()
        self.terminal = None if terminal < 0 else io.FileIO(terminal, "r+")
        found = process.take_notifier()
        self._notifier = None if found is None else Notifier(_seccomp.Notifier(found))
        if notify is not None and self._notifier is not None:
            self._serve(_answer(self._notifier, notify))
        if violations is not None:
            self._serve(_tell(self.violations(), violations))
        return self

    #: As in :class:`zind.Popen`: for ``loop.add_reader``, or :meth:`communicate`.
    terminal: IO[bytes] | None

    def resize(self, rows: int, cols: int) -> None:
        """As :meth:`zind.Popen.resize`."""
        if self.terminal is None or self.terminal.closed:
            raise StateError("the program was started without a terminal (pty=), or it is closed")
        _zind.resize(self.terminal.fileno(), rows, cols)

    async def popen(self, argv: Argv, **options: Unpack[ExecOptions]) -> Popen:
        """As :meth:`zind.Popen.popen`."""
        given: dict[str, Any] = dict(options)
        if given.get("pty"):
            _caller_s_size(given)
            only_terminal(given, False)
        notify, _ = _seccomp.take(given)
        start = self._process.begin_exec(argv, given)
        try:
            await _readable(start.fileno())
        except BaseException:
            start.cancel()
            raise
        return await type(self)._of(start.finish(), argv, notify)

    async def exec(
        self,
        argv: Argv,
        *,
        input: bytes | str | None = None,
        capture_output: bool = False,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        timeout: float | None = None,
        check: bool = False,
        **options: Unpack[ExecOptions],
    ) -> CompletedProcess:
        """As :meth:`zind.Popen.exec`. Cancelled, it kills the program and waits until it is gone."""
        mode = Text(text, encoding, errors)
        given: dict[str, Any] = dict(options)
        out, err = _streams(given, input is not None, capture_output)
        process = await self.popen(argv, **given)
        result = await _to_end(process, argv, mode, mode.encode(input), out, err, timeout, check)
        if given.get("seccomp") == "learn":
            result.profile = process.learned()
        return result

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

    async def stats_stream(self, interval: float = 1.0) -> AsyncIterator[Stats]:
        """As :meth:`zind.Popen.stats_stream`, for ``async for``."""
        if not interval > 0:
            raise ValueError("interval is more than 0 seconds")
        loop = asyncio.get_running_loop()
        due, has_ended = loop.time(), False
        while not has_ended:
            left = due - loop.time()
            if left > 0 and self._process.poll() is None:
                try:
                    await asyncio.wait_for(_readable(self._process.end_fd), left)
                except asyncio.TimeoutError:
                    pass
            has_ended = self._process.poll() is not None
            yield self.stats()
            due = max(due + interval, loop.time())

    async def update(self, resources: Resources) -> None:
        """Changes limits while it runs; what is not given stays as it is, ``-1`` or ``"max"`` takes a limit away.

        :raises zind.StateError: it has ended, or was started without ``resources=``, or without that controller.
        :raises zind.SysError: ``EBUSY`` for less memory than is in use and cannot be taken back.
        """
        await _in_thread(lambda _: self._process.update(resources))

    async def pause(self) -> None:
        """Stops everything in the container until :meth:`resume`. It needs ``resources=``, be it without limits."""
        await _in_thread(lambda _: self._process.pause())

    async def resume(self) -> None:
        """Lets everything go on."""
        await _in_thread(lambda _: self._process.resume())

    @property
    def paused(self) -> bool:
        """Between :meth:`pause` and :meth:`resume`."""
        return self._process.is_paused()

    def events(self, *, pressure: Iterable[PressureTrigger] = ()) -> Events:
        """As :meth:`zind.Popen.events`, for ``async for``."""
        return Events(_Events(self._process, pressure))

    async def processes(self) -> list[ProcessInfo]:
        """Everything that runs in the container, zind's PID 1 included; nothing once it has ended."""
        return [ProcessInfo(**info) for info in await _in_thread(lambda _: self._process.processes())]

    async def wait(self) -> int:
        """Waits for the end; the return code."""
        while self._exit is None:
            exit = self._process.poll()
            if exit is not None:
                self._exit = Exit(*exit)
                break
            await _readable(self._process.end_fd)
        # Everything was told; what the functions raised is raised here.
        tasks, self._tasks = self._tasks, ()
        for task in tasks:
            await task
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

        if self.terminal is not None:
            data = input or b""
            data += b"\x04" if not data or data.endswith(b"\n") else b"\x04\x04"
            shown = await _converse(self.terminal, data)
            await self.wait()
            return shown, None

        async def read(stream: asyncio.StreamReader | None) -> bytes | None:
            return None if stream is None else await stream.read()

        _, out, err = await asyncio.gather(feed(), read(self.stdout), read(self.stderr))
        await self.wait()
        return out, err

    @property
    def image(self) -> Image | None:
        """The image it was started from."""
        image = self._process.image
        return None if image is None else _images.Image(image)

    async def stop(self, timeout: float = 10.0) -> int:
        """Asks the program to end, by the image's stop signal or SIGTERM, and ends the whole container when ``timeout`` seconds
        are over. The return code."""
        self.send_signal(self._process.stop_signal)
        try:
            return await asyncio.wait_for(self.wait(), timeout)
        except asyncio.TimeoutError:
            self.kill()
            return await self.wait()

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
        if self.terminal is not None:
            self.terminal.close()
        await self.wait()

    def __repr__(self) -> str:
        state = "running" if self.returncode is None else repr(self._exit)
        return f"<zind.aio.Popen pid={self.pid} {state} args={self.args!r}>"


class Container(_Known):
    """:class:`zind.Container`, awaited: ``await Container.create(argv, ...)`` makes one, ``await Container.open("web")`` finds
    one. ``async with`` kills and deletes one that was made here, unless :meth:`detach` was called."""

    def __init__(self) -> None:
        raise TypeError("use: c = await zind.aio.Container.create(argv, ...)")

    @classmethod
    async def create(
        cls,
        argv: Argv | None = None,
        *,
        name: str | None = None,
        labels: Labels = None,
        restart: str = "no",
        log: LogOptions | tuple[int | str, int] | bool = True,
        stdin_open: bool = False,
        auto_remove: bool = False,
        stop_signal: int | str | None = None,
        hooks: Mapping[HookPoint, Iterable[AnyHook]] | None = None,
        containers: Containers | Path | None = None,
        **options: Unpack[Options],
    ) -> Container:
        """Makes one; options as of :class:`zind.Container`. Functions among ``hooks`` are called in the thread that waits."""
        plain: dict[str, Any] = dict(options)
        programs, functions = _split(hooks)
        given = _given(plain, name, labels, restart, log, stdin_open, auto_remove, stop_signal, programs)

        made: list[_zind.Container] = []

        def work(cancel: _zind.Cancel) -> None:
            _images.settle(plain, cancel)
            made.append(_opened(containers)._containers.create(argv, plain, given, cancel))

        try:
            await _in_thread(work)
        except BaseException:
            # It was made before it could be called off.
            for one in made:
                await _undone(lambda: one.delete(True, None))
            raise
        self = cls._of(made[0], True)
        self._functions = _Functions(made[0], functions)
        return self

    @classmethod
    async def open(cls, name: str, *, containers: Containers | Path | None = None) -> Container:
        """As :meth:`zind.Container.open`."""
        return cls._of(_opened(containers)._containers.find(name))

    async def start(self) -> None:
        """As :meth:`zind.Container.start`. Cancelled, it is called off, and nothing of it runs: if its program has been started
        before it could be, it is killed."""
        started: list[None] = []

        def work(cancel: _zind.Cancel) -> None:
            self._container.start(cancel)
            started.append(None)

        try:
            await _in_thread(work)
        except SysError as error:
            raise self._explained(error)  # noqa: B904
        except BaseException:
            if started:
                await _undone(self._end)
            raise
        _warn(self._container)

    def _end(self) -> None:
        """Kills it and waits until it is gone."""
        self._container.kill(_signal.SIGKILL)
        self._container.wait(None)

    async def wait_ready(
        self,
        *,
        port: int | None = None,
        line: str | None = None,
        command: Argv | None = None,
        timeout: float = 60.0,
    ) -> None:
        """As :meth:`zind.Container.wait_ready`; a thread looks now and then."""
        _one_of(port, line, command)
        await _in_thread(lambda cancel: self._container.wait_ready(port, line, command, timeout, cancel))

    async def popen(self, argv: Argv, **options: Unpack[ExecOptions]) -> Popen:
        """As :meth:`zind.Container.popen`. Cancelled, it is called off, and nothing of it runs: a program that has been started
        before it could be is killed."""
        given: dict[str, Any] = dict(options)
        if given.get("pty"):
            _caller_s_size(given)
            only_terminal(given, False)
        notify, _ = _seccomp.take(given)
        started: list[_zind.Process] = []
        try:
            # What there is to know of it is read from disk, and it may be somebody else's group that is to be entered.
            await _in_thread(lambda cancel: started.append(self._container.exec(argv, given, cancel)))
        except BaseException:
            for one in started:
                await _undone(lambda: _killed(one))
            raise
        return await Popen._of(started[0], argv, notify)

    async def exec(
        self,
        argv: Argv,
        *,
        input: bytes | str | None = None,
        capture_output: bool = False,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        timeout: float | None = None,
        check: bool = False,
        **options: Unpack[ExecOptions],
    ) -> CompletedProcess:
        """As :meth:`zind.Container.exec`. Cancelled, it kills the program and waits until it is gone."""
        mode = Text(text, encoding, errors)
        given: dict[str, Any] = dict(options)
        out, err = _streams(given, input is not None, capture_output)
        process = await self.popen(argv, **given)
        result = await _to_end(process, argv, mode, mode.encode(input), out, err, timeout, check)
        if given.get("seccomp") == "learn":
            result.profile = process.learned()
        return result

    async def wait(self) -> Exit:
        """Waits for its end, through all restarts. :raises zind.StateError: it was never started."""
        return await self._ended(self._container.ending())

    async def _ended(self, ending: _zind.Ending | None) -> Exit:
        while True:
            if ending is None:
                exit = self._container.wait(0)
            else:
                await _readable(ending.fileno())
                exit = ending.exit()
            if exit is not None:
                _warn(self._container)
                return Exit(*exit)
            # It is being started or ended just now, or too many wait for it.
            await asyncio.sleep(0.005)
            ending = self._container.ending()

    async def stop(self, timeout: float = 10.0) -> Exit:
        """As :meth:`zind.Container.stop`. Cancelled after it was asked to end, it may still do so."""
        # One that is deleted at its end cannot be asked for that later.
        first, second = self._container.ending(), self._container.ending()
        self._container.begin_stop()
        try:
            return await asyncio.wait_for(self._ended(first), timeout)
        except asyncio.TimeoutError:
            try:
                self.kill()
            except (NotFoundError, StateError):
                pass
            return await self._ended(second)

    async def restart(self, timeout: float = 10.0) -> None:
        """:meth:`stop`, if it runs, and :meth:`start`."""
        if self.state in ("running", "paused"):
            await self.stop(timeout)
        await self.start()

    async def pause(self) -> None:
        """As :meth:`zind.Container.pause`."""
        await _in_thread(lambda _: self._container.pause())

    async def resume(self) -> None:
        """As :meth:`zind.Container.resume`."""
        await _in_thread(lambda _: self._container.resume())

    async def update(self, resources: Resources) -> None:
        """As :meth:`zind.Container.update`."""
        await _in_thread(lambda _: self._container.update(resources))

    async def diff(self, since: str | None = None) -> list[Change]:
        """As :meth:`zind.Container.diff`."""
        return _layers.changes(await _in_thread(lambda _: self._container.diff(since)))

    async def commit(
        self,
        tag: str | Iterable[str] | None = None,
        *,
        pause: bool = True,
        config: Mapping[str, Any] | None = None,
        author: str | None = None,
        message: str | None = None,
        created: str | None = None,
        compression: Compression = "gzip",
        progress: ProgressFunction = None,
    ) -> Image:
        """As :meth:`zind.Container.commit`."""
        options = _images.commit_options(tag, config, author, message, created, compression)
        hear = _on_loop(progress)
        made = await _in_thread(lambda cancel: self._container.commit(options, pause, _images.watch(hear, cancel)))
        return _images.Image(made)

    async def export(
        self, path: Path, *, compression: Compression = "none", progress: ProgressFunction = None
    ) -> PackStats:
        """As :meth:`zind.Container.export`."""
        hear = _on_loop(progress)
        stats = await _in_thread(lambda cancel: self._container.export(path, compression, _images.watch(hear, cancel)))
        return _images.PackStats(*stats)

    async def snapshot(self, name: str) -> None:
        """As :meth:`zind.Container.snapshot`."""
        await _in_thread(lambda _: self._container.snapshot(name))

    async def restore(self, name: str) -> None:
        """As :meth:`zind.Container.restore`."""
        await _in_thread(lambda _: self._container.restore(name))

    async def snapshots(self) -> list[Snapshot]:
        """As :meth:`zind.Container.snapshots`."""
        found = await _in_thread(lambda _: self._container.snapshots())
        return [Snapshot(name, parent, time_ns / 1e9) for name, parent, time_ns in found]

    async def remove_snapshot(self, name: str) -> None:
        """As :meth:`zind.Container.remove_snapshot`."""
        await _in_thread(lambda _: self._container.remove_snapshot(name))

    async def delete(self, force: bool = False) -> None:
        """As :meth:`zind.Container.delete`."""
        await _in_thread(lambda cancel: self._container.delete(force, cancel))
        self._is_ours = False
        _warn(self._container)

    def logs(
        self,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: Moment = None,
        until: Moment = None,
        stdout: bool = True,
        stderr: bool = True,
        timestamps: bool = False,
    ) -> Logs:
        """As :meth:`zind.Container.logs`, for ``async for``."""
        query = (bool(follow), tail, _seconds(since), _seconds(until), bool(stdout), bool(stderr))
        return Logs(_Logs(self._container.logs(query), timestamps))

    def attach(self, *, size: tuple[int, int] | None = None) -> Attachment:
        """As :meth:`zind.Container.attach`, for ``async for``."""
        return Attachment(_Attachment(self._container.attach(size)))

    def events(self, *, pressure: Iterable[PressureTrigger] = ()) -> Events:
        """What happens in it, for ``async for``."""
        return Events(_Events(self._container, pressure))

    async def processes(self) -> list[ProcessInfo]:
        """Everything that runs in it, zind's PID 1 included; nothing once it has ended."""
        return [ProcessInfo(**info) for info in await _in_thread(lambda _: self._container.processes())]

    async def __aenter__(self) -> Container:
        return self

    async def __aexit__(self, kind: object, value: object, traceback: object) -> None:
        if self._is_ours:
            try:
                await self.delete(force=True)
            except NotFoundError:
                self._is_ours = False


def _killed(process: _zind.Process) -> None:
    """Kills it and waits until it is gone."""
    process.kill()
    process.wait()


async def _undone(work: Callable[[], object]) -> None:
    """Takes back what was done, on a thread, and waits for that, cancelled or not."""

    def quietly() -> None:
        try:
            work()
        except (NotFoundError, StateError):
            # It is gone, or has ended, by itself.
            pass

    await _through(asyncio.get_running_loop().run_in_executor(None, quietly))


async def _soon(fd: int, most: float) -> None:
    """Waits until a descriptor can be read, or the time is over."""
    try:
        await asyncio.wait_for(_readable(fd), most)
    except asyncio.TimeoutError:
        pass


class Logs:
    """Lines of a container's log, awaited: ``async for line in container.logs(follow=True)``."""

    def __init__(self, logs: _Logs) -> None:
        self._logs = logs

    async def get(self) -> LogLine | None:
        """The next line; ``None`` when there will be no more."""
        while True:
            line = self._logs.get(0)
            if line is not None or self._logs.over:
                return line
            # A monitor that was killed writes nothing.
            await _soon(self._logs.fileno(), 1)

    async def read(self) -> bytes:
        """All lines that are left, as bytes."""
        return b"".join([self._logs._format(line) async for line in self])

    def close(self) -> None:
        """Lets go of its descriptors; twice is fine."""
        self._logs.close()

    def __aiter__(self) -> Logs:
        return self

    async def __anext__(self) -> LogLine:
        line = await self.get()
        if line is None:
            self.close()
            raise StopAsyncIteration
        return line

    async def __aenter__(self) -> Logs:
        return self

    async def __aexit__(self, kind: object, value: object, traceback: object) -> None:
        self.close()


class Attachment:
    """A connection to a container's streams, awaited: ``async for chunk in container.attach()``."""

    def __init__(self, attachment: _Attachment) -> None:
        self._attachment = attachment
        #: As in :class:`zind.Attachment`: a file, to which little can be written at once.
        self.stdin = attachment.stdin
        #: True if the container has a terminal.
        self.pty = attachment.pty

    async def get(self) -> Chunk | None:
        """The next output; ``None`` when there will be no more."""
        while not self._attachment.over:
            await _readable(self._attachment.fileno())
            chunk = self._attachment.get(0)
            if chunk is not None:
                return chunk
        return None

    async def read(self) -> bytes:
        """All output that is left, of both streams as it came."""
        return b"".join([chunk.data async for chunk in self])

    def close_stdin(self) -> None:
        """Ends the container's standard input, for everybody who is attached."""
        self._attachment.close_stdin()

    def resize(self, rows: int, cols: int) -> None:
        """Gives the terminal another size."""
        self._attachment.resize(rows, cols)

    def close(self) -> None:
        """Lets go of the container, which goes on; twice is fine."""
        self._attachment.close()

    def __aiter__(self) -> Attachment:
        return self

    async def __anext__(self) -> Chunk:
        chunk = await self.get()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def __aenter__(self) -> Attachment:
        return self

    async def __aexit__(self, kind: object, value: object, traceback: object) -> None:
        self.close()


class ContainerEvents:
    """What happens to the containers of a place, awaited: ``async for event in ContainerEvents(zind.Containers())``."""

    def __init__(self, containers: Containers | Path | None = None, *, since: int | None = None) -> None:
        self._events: _ContainerEvents = _opened(containers).events(since=since)

    async def get(self) -> ContainerEvent | None:
        """The next event; ``None`` once it is closed."""
        while not self._events.over:
            event = self._events.get(0)
            if event is not None:
                return event
            await _soon(self._events.fileno(), 1)
        return None

    def close(self) -> None:
        """Lets go of its descriptors; twice is fine."""
        self._events.close()

    def __aiter__(self) -> ContainerEvents:
        return self

    async def __anext__(self) -> ContainerEvent:
        event = await self.get()
        if event is None:
            raise StopAsyncIteration
        return event

    async def __aenter__(self) -> ContainerEvents:
        return self

    async def __aexit__(self, kind: object, value: object, traceback: object) -> None:
        self.close()


class Notifier:
    """Decides about calls, awaited: ``async for call in process.notifier``. As :class:`zind.Notifier`."""

    def __init__(self, notifier: _seccomp.Notifier) -> None:
        self._notifier = notifier

    def fileno(self) -> int:
        """The listener; it belongs to this object."""
        return self._notifier.fileno()

    async def get(self) -> Call | None:
        """The next call; ``None`` when there will be no more."""
        while True:
            call = self._notifier.get(0)
            if call is not None or self._notifier.over:
                return call
            await _readable(self._notifier.fileno())

    def detach(self) -> int:
        """The listener's descriptor, which belongs to the caller from now on; this object is closed."""
        return self._notifier.detach()

    def close(self) -> None:
        """Calls that wait, and all later ones, fail; twice is fine."""
        self._notifier.close()

    def __aiter__(self) -> Notifier:
        return self

    async def __anext__(self) -> Call:
        call = await self.get()
        if call is None:
            raise StopAsyncIteration
        return call


class Violations:
    """What a container's filter refuses, awaited: ``async for violation in process.violations()``."""

    def __init__(self, violations: _seccomp.Violations) -> None:
        self._violations = violations

    async def get(self) -> Violation | None:
        """The next one; ``None`` when there will be no more."""
        while True:
            found = self._violations.get(0)
            if found is not None or self._violations.over:
                return found
            await _readable(self._violations.fileno())

    @property
    def lost(self) -> int:
        """As of :class:`zind.Violations`."""
        return self._violations.lost

    def __aiter__(self) -> Violations:
        return self

    async def __anext__(self) -> Violation:
        found = await self.get()
        if found is None:
            raise StopAsyncIteration
        return found


async def _called(function: Any, argument: Any) -> Any:
    """A function of the caller's, which may be a coroutine."""
    value = function(argument)
    return await value if isawaitable(value) else value


async def _answer(notifier: Notifier, function: Any) -> None:
    """Asks the function about each call, several at a time if it awaits something."""
    answering: set[asyncio.Task[None]] = set()
    errors: list[BaseException] = []

    async def one(call: Call) -> None:
        value = None
        try:
            value = await _called(function, call)
        except BaseException as error:
            errors.append(error)
        _seccomp.settle(call, value)

    async for call in notifier:
        task = asyncio.get_running_loop().create_task(one(call))
        answering.add(task)
        task.add_done_callback(answering.discard)
    for task in list(answering):
        await task
    if errors:
        raise errors[0]


async def _tell(violations: Violations, function: Any) -> None:
    """Tells the function of each violation, one after the other."""
    first: BaseException | None = None
    async for violation in violations:
        try:
            await _called(function, violation)
        except BaseException as error:
            first = first or error
    if first is not None:
        raise first


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
    argv: Argv | None = None,
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
    out, err = _streams(given, input is not None, capture_output)
    process = await Popen.start(argv, **given)
    result = await _to_end(process, argv, mode, mode.encode(input), out, err, timeout, check)
    if given.get("seccomp") == "learn":
        result.profile = process.learned()
    return result


async def learn(
    argv: Argv | None = None,
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
    """As :func:`zind.learn`."""
    given: Any = {**options, "seccomp": "learn"}
    return await run(
        argv, input=input, capture_output=capture_output, text=text, encoding=encoding, errors=errors, timeout=timeout,
        check=check, **given,
    )


def _streams(given: dict[str, Any], has_input: bool, capture_output: bool) -> tuple[bool, bool]:
    if not given.get("pty"):
        return streams(given, has_input, capture_output)
    # What a terminal shows is read in any case: nobody else could.
    out = capture_output or _is(given.get("stdout"), PIPE)
    only_terminal(given, capture_output)
    return out, False


async def _converse(terminal: IO[bytes], data: bytes) -> bytes:
    """Types ``data`` and reads until nobody has the terminal open any more."""
    loop, fd, pieces = asyncio.get_running_loop(), terminal.fileno(), []
    os.set_blocking(fd, False)
    future: asyncio.Future[None] = loop.create_future()

    def write() -> None:
        nonlocal data
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            loop.remove_writer(fd)

    def read() -> None:
        try:
            piece = os.read(fd, 65536)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        pieces.append(piece)
        if not piece and not future.done():
            future.set_result(None)

    loop.add_reader(fd, read)
    loop.add_writer(fd, write)
    try:
        await future
    finally:
        loop.remove_reader(fd)
        loop.remove_writer(fd)
        terminal.close()
    return b"".join(pieces)


async def _to_end(
    process: Popen,
    argv: Any,
    mode: Text,
    data: bytes,
    out: bool,
    err: bool,
    timeout: float | None,
    check: bool,
) -> CompletedProcess:
    if process._notifier is not None and not process._tasks:
        process.kill()
        await process.wait()
        needs = "SCMP_ACT_NOTIFY takes somebody who answers: give notify=, or a profile with listenerPath"
        raise UnsupportedError(f"a seccomp listener is not available here: {needs}", "a seccomp listener", needs)
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
