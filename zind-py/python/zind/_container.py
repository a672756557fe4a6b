"""``Container``: one that lives on its own, under a name, and can be met again by any program of the user."""

from __future__ import annotations

import time

from . import _images, _layers
from ._containers import ContainerEvent, ContainerEvents, Containers, Pruned, _labels, _opened, containers, prune
from ._events import Events
from ._hooks import Hook, HookWarning, _Functions, _hook, _split, _warn
from ._known import _found, _Known
from ._layers import Snapshot
from ._output import Attachment, Chunk, LogLine, LogOptions, Logs, _seconds, _within
from ._process import _caller_s_size, exec_in, popen_in
from ._resources import ProcessInfo
from ._results import Exit
from ._text import Text
from .errors import NotFoundError, SpecError, SysError, TimeoutExpired

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import TracebackType
    from typing import Any

    from typing_extensions import Self, Unpack

    from ._containers import Labels
    from ._events import PressureTrigger
    from ._hooks import AnyHook, HookPoint
    from ._images import Compression, Image, PackStats, ProgressFunction
    from ._layers import Change
    from ._options import Argv, ExecOptions, Options, Path, Size
    from ._output import Moment
    from ._process import Popen
    from ._resources import Resources
    from ._results import CompletedProcess, Stats

# Pickles name this file for all of these.
__all__ = [
    "Attachment",
    "Chunk",
    "Container",
    "ContainerEvent",
    "ContainerEvents",
    "Containers",
    "Hook",
    "HookWarning",
    "LogLine",
    "LogOptions",
    "Logs",
    "Pruned",
    "_found",
    "containers",
    "prune",
]


def _given(
    options: dict[str, Any],
    name: str | None,
    labels: Labels,
    restart: str,
    log: LogOptions | tuple[Size, int] | bool,
    stdin_open: bool,
    auto_remove: bool,
    stop_signal: int | str | None,
    programs: list[tuple[str, Any]],
) -> dict[str, Any]:
    """What a container is, apart from what runs in it."""
    for stream in ("stdin", "stdout", "stderr"):
        if options.pop(stream, None) is not None:
            raise SpecError(f"{stream}: a container's output goes to its log: use logs(), attach() and stdin_open", stream)
    given: dict[str, Any] = {
        "labels": [(name, value or "") for name, value in _labels(labels)],
        "restart": restart,
        "stdin_open": bool(stdin_open),
        "auto_remove": bool(auto_remove),
    }
    if name is not None:
        given["name"] = name
    if log is not True:
        given["log"] = tuple(log) if log else ("16m", 0)
        _within("log", given["log"][1], 0, 2**32 - 1)
    _caller_s_size(options)
    if stop_signal is not None:
        given["stop_signal"] = stop_signal if isinstance(stop_signal, str) else int(stop_signal)
    if programs:
        given["hooks"] = [_hook(when, hook) for when, hook in programs]
    return given


def _one_of(port: int | None, line: str | None, command: Argv | None) -> None:
    if [port, line, command].count(None) != 2:
        raise TypeError("one of port, line and command says when it is ready")
    _within("port", port, 1, 65535)


class Container(_Known):
    """A container in its place on disk: made by this call, and not started yet. What it writes goes to its log. What it changes
    is kept until it is deleted, unless its root is this machine's (``rootfs="host"``), or ``overlay=`` or ``read_only=`` say
    otherwise. All options of :func:`zind.run` but for the streams, and:

    ``name``: to find it by, beside its id. ``labels``: likewise. ``restart``: ``"no"``, ``"on-failure"``, ``"on-failure:3"``,
    ``"always"`` or ``"unless-stopped"``: its monitor starts it again, whoever is gone. ``log``: a :class:`zind.LogOptions`, or
    False. ``stdin_open``: its standard input waits for who attaches; else it is empty. ``auto_remove``: its
    monitor deletes it when it has ended; :meth:`wait` of the object that started it tells how. ``stop_signal``: what asks it to
    end; else the image's, or SIGTERM. ``hooks``: programs, ``{"poststart": [zind.Hook("/x")]}``, or at ``createRuntime``,
    ``poststart`` and ``poststop`` functions of this program, which are called with the state by who starts it, deletes it, or
    waits for it with this object. What a function at ``createRuntime`` raises ends the start, with it as the cause of the error;
    others are a :class:`zind.HookWarning`.
    ``containers``: where it is kept, a :class:`zind.Containers` or a path.

    As a context manager it is killed and deleted at the end of the block, unless :meth:`detach` was called; so it is, but for
    the deleting, when this program ends. One that was found by :meth:`open` is left as it is.

    :raises zind.ExistsError: another container has the name.
    :raises zind.SpecError: an option breaks a rule, or cannot be kept on disk (descriptors, ``timeout``).
    """

    def __init__(
        self,
        argv: Argv | None = None,
        *,
        name: str | None = None,
        labels: Labels = None,
        restart: str = "no",
        log: LogOptions | tuple[Size, int] | bool = True,
        stdin_open: bool = False,
        auto_remove: bool = False,
        stop_signal: int | str | None = None,
        hooks: Mapping[HookPoint, Iterable[AnyHook]] | None = None,
        containers: Containers | Path | None = None,
        **options: Unpack[Options],
    ) -> None:
        plain: dict[str, Any] = dict(options)
        programs, functions = _split(hooks)
        given = _given(plain, name, labels, restart, log, stdin_open, auto_remove, stop_signal, programs)
        _images.settle(plain)
        self._container = _opened(containers)._containers.create(argv, plain, given, None)
        self._functions = _Functions(self._container, functions)
        self._is_ours = True

    @classmethod
    def open(cls, name: str, *, containers: Containers | Path | None = None) -> Self:
        """By its name, its id, or how its id begins, whoever made it. :raises zind.NotFoundError: there is none."""
        return cls._of(_opened(containers)._containers.find(name))

    def start(self) -> None:
        """Starts it; its program runs when this returns. It can be started again when it has ended.

        :raises zind.StateError: it runs, or somebody else starts it.
        :raises zind.SysError: the container could not be set up, or the program not be executed.
        """
        try:
            self._container.start(None)
        except SysError as error:
            raise self._explained(error)  # noqa: B904
        _warn(self._container)

    def start_attached(self) -> Attachment:
        """:meth:`start`, with an attachment that gets its output from the first byte on."""
        try:
            attachment = Attachment(self._container.start_attached())
        except SysError as error:
            raise self._explained(error)  # noqa: B904
        _warn(self._container)
        return attachment

    def wait_ready(
        self,
        *,
        port: int | None = None,
        line: str | None = None,
        command: Argv | None = None,
        timeout: float = 60.0,
    ) -> None:
        """Waits until something in its network namespace listens on a TCP ``port``, or a ``line`` with this in it was written
        since its start, or a ``command`` run in it exits with 0: one of the three.

        :raises zind.StateError: ``timeout`` is over, or it has ended; with the end of its log.
        """
        _one_of(port, line, command)
        self._container.wait_ready(port, line, command, timeout, None)

    def exec(
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
        """Runs a further program in it while it runs, and waits for its end: :meth:`zind.Popen.exec`.

        :raises zind.StateError: it does not run, or is paused.
        """
        mode = Text(text, encoding, errors)
        return exec_in(self._container, argv, input, capture_output, mode, timeout, check, dict(options))

    def popen(
        self,
        argv: Argv,
        *,
        bufsize: int = -1,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        **options: Unpack[ExecOptions],
    ) -> Popen:
        """Starts a further program in it: :meth:`exec`, without waiting. It ends with the container."""
        return popen_in(self._container, argv, bufsize, Text(text, encoding, errors), dict(options))

    def wait(self, timeout: float | None = None) -> Exit:
        """Waits for its end, through all restarts.

        :raises zind.TimeoutExpired: the time is over; it goes on.
        :raises zind.StateError: it was never started.
        """
        exit = self._container.wait(timeout)
        _warn(self._container)
        if exit is None:
            raise TimeoutExpired(self.id[:12], timeout or 0.0)
        return Exit(*exit)

    def stop(self, timeout: float = 10.0) -> Exit:
        """Asks it to end by its stop signal, and ends it when ``timeout`` seconds are over. It is not started again. One that
        has ended is left alone. :raises zind.StateError: it was never started."""
        exit = Exit(*self._container.stop(timeout, None))
        _warn(self._container)
        return exit

    def restart(self, timeout: float = 10.0) -> None:
        """:meth:`stop`, if it runs, and :meth:`start`."""
        try:
            self._container.restart(timeout, None)
        except SysError as error:
            raise self._explained(error)  # noqa: B904
        _warn(self._container)

    def pause(self) -> None:
        """Stops everything in it until :meth:`resume`. It needs ``resources=``, be it without limits.

        :raises zind.StateError: it does not run, is paused already, or has no control group.
        """
        self._container.pause()

    def resume(self) -> None:
        """Lets everything go on. :raises zind.StateError: it is not paused."""
        self._container.resume()

    def update(self, resources: Resources) -> None:
        """Changes limits, of what runs (:meth:`zind.Popen.update`) and of each start that follows."""
        self._container.update(resources)

    def delete(self, force: bool = False) -> None:
        """Deletes it with all it has: changes, log and name. With ``force`` one that runs is ended first.

        :raises zind.StateError: it runs.
        """
        self._container.delete(force, None)
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
        """What it has written, line by line. ``follow``: go on until it has ended. ``tail``: only the last that many lines of
        what there is. ``since``, ``until``: seconds since 1970, or a :class:`datetime.datetime`. ``timestamps``: :meth:`Logs.read`
        begins each line with its time.

        :raises zind.StateError: it keeps no log.
        """
        _within("tail", tail, 0)
        query = (bool(follow), tail, _seconds(since), _seconds(until), bool(stdout), bool(stderr))
        return Logs(self._container.logs(query), timestamps)

    def attach(self, *, size: tuple[int, int] | None = None) -> Attachment:
        """A connection to its streams, beside whoever else has one. It gets all output from now on; the container waits
        for who reads slowly, and goes on when that one is closed. ``size``: give its terminal so many rows and columns.

        :raises zind.StateError: it does not run.
        """
        return Attachment(self._container.attach(size))

    def stats_stream(self, interval: float = 1.0) -> Iterator[Stats]:
        """:meth:`stats` now and then every ``interval`` seconds, until it has ended; the last one is of its whole life."""
        if not interval > 0:
            raise ValueError("interval is more than 0 seconds")
        return self._readings(interval)

    def _readings(self, interval: float) -> Iterator[Stats]:
        due, has_ended = time.monotonic(), False
        while not has_ended:
            has_ended = self._container.wait(due - time.monotonic()) is not None
            yield self.stats()
            due = max(due + interval, time.monotonic())

    def processes(self) -> list[ProcessInfo]:
        """Everything that runs in it, zind's PID 1 included; nothing once it has ended."""
        return [ProcessInfo(**info) for info in self._container.processes()]

    def events(self, *, pressure: Iterable[PressureTrigger] = ()) -> Events:
        """What happens in it from its start on: :meth:`zind.Popen.events`."""
        return Events(self._container, pressure)

    def diff(self, since: str | None = None) -> list[Change]:
        """What it has changed of its root since it was made, or since a snapshot, sorted by path: :meth:`zind.Layers.diff`.

        :raises zind.StateError: its changes are not on disk: those of one with the root of this machine, or with
            ``auto_remove``, are in memory.
        :raises zind.NotFoundError: there is no such snapshot.
        """
        return _layers.changes(self._container.diff(since))

    def commit(
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
        """Makes an image of what it has changed: one layer over its image; of a container with a root directory it is an image
        of one layer that has everything, in the store of the same place. Arguments as of :meth:`zind.Layers.commit`.

        :param pause: one that runs is stopped meanwhile, so that the image is of one moment. That takes ``resources``.
        :raises zind.StateError: as of :meth:`diff`; it is read-only; it runs and cannot be paused.
        """
        options = _images.commit_options(tag, config, author, message, created, compression)
        return _images.Image(self._container.commit(options, pause, _images.watch(progress)))

    def export(self, path: Path, *, compression: Compression = "none", progress: ProgressFunction = None) -> PackStats:
        """Writes its root, without what is mounted in it, as a tar. ``path`` must not exist."""
        return _images.PackStats(*self._container.export(path, compression, _images.watch(progress)))

    def snapshot(self, name: str) -> None:
        """Gives the present state of its root a name. The cost depends neither on the size of the root nor on that of the changes.

        :raises zind.StateError: it runs; the name is taken; as of :meth:`diff`.
        """
        self._container.snapshot(name)

    def restore(self, name: str) -> None:
        """Throws away what it has changed since: its next start begins as it was at that snapshot.

        :raises zind.StateError: it runs. :raises zind.NotFoundError: there is no such snapshot.
        """
        self._container.restore(name)

    def snapshots(self) -> list[Snapshot]:
        """Its snapshots, oldest first."""
        return [Snapshot(name, parent, time_ns / 1e9) for name, parent, time_ns in self._container.snapshots()]

    def remove_snapshot(self, name: str) -> None:
        """Forgets a snapshot. The present state does not change. :raises zind.StateError: it runs."""
        self._container.remove_snapshot(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._is_ours:
            try:
                self.delete(force=True)
            except NotFoundError:
                self._is_ours = False
