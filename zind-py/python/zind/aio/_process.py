"""``run`` and ``Popen``, awaited."""

from __future__ import annotations

import asyncio
import io
import os
import signal as _signal

from .. import _images, _seccomp, _zind
from .._copy import CopyStats, Root
from .._events import Events as _Events
from .._process import _caller_s_size, completed, only_terminal
from .._resources import ProcessInfo
from .._results import CompletedProcess, Exit, Isolation, Stats
from .._text import Text
from ..errors import StateError, UnsupportedError
from ._events import Events
from ._loop import _in_thread, _readable, _undone
from ._seccomp import Notifier, Violations, _answer, _tell
from ._streams import _converse, _reader, _streams, _writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
    from typing import IO, Any

    from typing_extensions import Unpack

    from .._events import PressureTrigger
    from .._images import Image
    from .._options import Argv, ExecOptions, Options, Path
    from .._resources import Resources
    from .._seccomp import NotifyFunction, ViolationFunction
    from .._zind import Mount

__all__ = ["Popen", "learn", "run"]


async def _settle(given: dict[str, Any]) -> None:
    if given.get("image") is None:
        _images.settle(given)
        return

    def work(cancel: _zind.Cancel) -> None:
        _images.settle(given, cancel)
        # A start would do it, and the loop wait meanwhile.
        given["image"]._image.unpack((None, cancel))

    await _in_thread(work)


def _may_wait(given: dict[str, Any]) -> bool:
    """A start that may wait for somebody else, or copy: for systemd and the groups it makes, whoever fills the same volume, the
    agent of a profile. Files of a root may have to be copied where the kernel refuses an overlay."""
    if given.get("mounts") is not None:
        given["mounts"] = list(given["mounts"])
    return (
        any(given.get(name) is not None for name in ("resources", "config", "image"))
        or any(getattr(mount, "type", None) == "volume" for mount in given.get("mounts") or ())
        or given.get("rootfs") not in (None, "host")
        or given.get("seccomp") not in (None, "default", "learn")
    )


async def _finished(start: _zind.Start) -> _zind.Process:
    """What has begun is waited for in the loop."""
    try:
        await _readable(start.fileno())
    except BaseException:
        start.cancel()
        raise
    return start.finish()


async def _started(work: Callable[[_zind.Cancel], _zind.Process]) -> _zind.Process:
    """Starts something on a thread. Cancelled at whatever point, nothing of it is left."""
    started: list[_zind.Process] = []
    try:
        await _in_thread(lambda cancel: started.append(work(cancel)))
    except BaseException:
        for one in started:
            await _undone(lambda: _killed(one))
        raise
    return started[0]


async def _start(argv: Any, given: dict[str, Any]) -> _zind.Process:
    await _settle(given)
    if _may_wait(given):
        return await _started(lambda cancel: _zind.spawn(argv, given, False, cancel))
    return await _finished(_zind.begin(argv, given))


def _killed(process: _zind.Process) -> None:
    """Kills it and waits until it is gone."""
    process.kill()
    process.wait()


async def _popen_in(
    kind: type[Popen], inside: _zind.Process | _zind.Container, argv: Argv, given: dict[str, Any]
) -> Popen:
    """A further program in a container."""
    if given.get("pty"):
        _caller_s_size(given)
        only_terminal(given, False)
    notify, _ = _seccomp.take(given)
    if isinstance(inside, _zind.Process) and not _may_wait(given):
        process = await _finished(inside.begin_exec(argv, given))
    else:
        # What there is to know of a container is read from disk, and it may be somebody else's group that is to be entered.
        process = await _started(lambda cancel: inside.exec(argv, given, cancel))
    return await kind._of(process, argv, notify)


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
        """As :meth:`zind.Popen.popen`. Cancelled, it is called off, and nothing of it runs: a program that has been started
        before it could be is killed."""
        return await _popen_in(type(self), self._process, argv, dict(options))

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
