"""``Container``, awaited."""

from __future__ import annotations

import asyncio
import signal as _signal

from .. import _images, _layers, _zind
from .._container import _given, _one_of
from .._containers import Containers, _opened
from .._events import Events as _Events
from .._hooks import _Functions, _split, _warn
from .._known import _Known
from .._layers import Snapshot
from .._output import Attachment as _Attachment
from .._output import Logs as _Logs
from .._output import _seconds, _within
from .._resources import ProcessInfo
from .._results import CompletedProcess, Exit
from .._text import Text
from ..errors import NotFoundError, StateError, SysError
from ._events import Events
from ._loop import _in_thread, _on_loop, _readable, _undone
from ._output import Attachment, Logs
from ._process import Popen, _popen_in, _to_end
from ._streams import _streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from typing_extensions import Unpack

    from .._containers import Labels
    from .._events import PressureTrigger
    from .._hooks import AnyHook, HookPoint
    from .._images import Compression, Image, PackStats, ProgressFunction
    from .._layers import Change
    from .._options import Argv, ExecOptions, Options, Path
    from .._output import LogOptions, Moment
    from .._resources import Resources

__all__ = ["Container"]


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
        return await _popen_in(Popen, self._container, argv, dict(options))

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
        while True:
            # One that is deleted at its end cannot be asked for that later.
            first, second = self._container.ending(), self._container.ending()
            if self._container.begin_stop() or not self._is_being_started():
                break
            await asyncio.sleep(0.005)
        try:
            return await asyncio.wait_for(self._ended(first), timeout)
        except asyncio.TimeoutError:
            try:
                self.kill()
            except (NotFoundError, StateError):
                pass
            return await self._ended(second)

    def _is_being_started(self) -> bool:
        try:
            return self.state == "creating"
        except NotFoundError:
            return False

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
        _within("tail", tail, 0)
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
