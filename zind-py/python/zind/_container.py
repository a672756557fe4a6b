"""``Container``: one that lives on its own, under a name, and can be met again by any program of the user."""

from __future__ import annotations

import io
import os
import time
import warnings
from collections import namedtuple

from . import _images, _layers, _zind
from ._copy import CopyStats, Root
from ._events import Events
from ._layers import Snapshot
from ._process import _caller_s_size, exec_in, popen_in
from ._resources import ProcessInfo
from ._results import Exit, Isolation, Stats
from ._text import Text
from .errors import NotFoundError, SpecError, StateError, SysError, TimeoutExpired

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime
    from types import TracebackType
    from typing import IO, Any, Literal, NamedTuple, Union

    from typing_extensions import Self, Unpack

    from ._events import PressureTrigger
    from ._images import Compression, Image, PackStats, ProgressFunction
    from ._layers import Change
    from ._options import Argv, ExecOptions, Options, Path, Size
    from ._process import Popen
    from ._results import CompletedProcess
    from ._resources import Resources
    from ._zind import Mount

    State = Literal["creating", "created", "running", "paused", "stopped"]
    HookPoint = Literal["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
    AnyHook = Union["Hook", Path, Mapping[str, Any], Callable[[dict[str, Any]], object]]
    Labels = Union[Mapping[str, "str | None"], Iterable[str], None]
    Moment = Union[float, datetime, None]

    class _HookBase(NamedTuple):
        path: Path
        args: Iterable[str] = ()
        env: Mapping[str, str] | Iterable[str] = ()
        timeout: float | None = None

    class _LogOptionsBase(NamedTuple):
        size: Size = "16m"
        files: int = 2

    class _LogLineBase(NamedTuple):
        time: float
        stream: Literal["stdout", "stderr"]
        text: bytes
        whole: bool

    class _ChunkBase(NamedTuple):
        stream: Literal["stdout", "stderr"]
        data: bytes

    class _ContainerEventBase(NamedTuple):
        time: float
        what: Literal["created", "started", "oom", "paused", "resumed", "died", "deleted", "renamed"]
        id: str
        name: str | None
        exit: Exit | None
        number: int

    class _PrunedBase(NamedTuple):
        containers: list[str]
        groups: list[str]

else:
    _HookBase = namedtuple("_HookBase", "path args env timeout", defaults=((), (), None))
    _LogOptionsBase = namedtuple("_LogOptionsBase", "size files", defaults=("16m", 2))
    _LogLineBase = namedtuple("_LogLineBase", "time stream text whole")
    _ChunkBase = namedtuple("_ChunkBase", "stream data")
    _ContainerEventBase = namedtuple("_ContainerEventBase", "time what id name exit number")
    _PrunedBase = namedtuple("_PrunedBase", "containers groups")

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
    "containers",
    "prune",
]


class HookWarning(UserWarning):
    """A hook failed whose failure changes nothing: one of ``poststart`` or ``poststop``."""


class Hook(_HookBase):
    """A program that is run at a point of a container's life, as OCI has it, the container's own at ``startContainer`` and else
    one of the host's: ``args`` with ``argv[0]`` (without
    any: the path alone), ``env`` as a mapping or ``NAME=value``, ``timeout`` in seconds. It gets the container's state as
    JSON on its standard input."""

    __slots__ = ()


class LogOptions(_LogOptionsBase):
    """How much of a container's output is kept: ``size`` of one file, and how many ``files``; the oldest one goes. With
    ``files=0`` nothing is kept."""

    __slots__ = ()


class LogLine(_LogLineBase):
    """A line that a container has written: ``time`` (seconds since 1970) of its last part, ``stream``, ``text`` without the
    newline. ``whole`` is False for a last line that has no newline, and for a part of one longer than a mebibyte."""

    __slots__ = ()

    def __str__(self) -> str:
        return self.text.decode(errors="replace")


class Chunk(_ChunkBase):
    """A piece of output, as it came."""

    __slots__ = ()


class ContainerEvent(_ContainerEventBase):
    """What happened to which container; ``exit`` is there when it ``died``. ``number`` counts all of a place, without a gap: for
    ``events(since=)``."""

    __slots__ = ()


class Pruned(_PrunedBase):
    """What :func:`zind.prune` has removed: the ids of containers, and control groups that nobody was in any more."""

    __slots__ = ()


def _labels(labels: Labels) -> list[tuple[str, str | None]]:
    """``{"a": "1", "b": None}``, or ``["a=1", "b"]``."""
    if labels is None:
        return []
    if isinstance(labels, str):
        raise TypeError("labels is a mapping or a sequence of texts")
    if hasattr(labels, "items"):
        return [(str(name), None if value is None else str(value)) for name, value in labels.items()]
    pairs = [str(label).partition("=") for label in labels]
    return [(name, value if equals else None) for name, equals, value in pairs]


def _hook(when: str, hook: Any) -> tuple[str, Any, list[str], list[str], float | None]:
    one = Hook(**hook) if isinstance(hook, dict) else Hook(*hook) if isinstance(hook, tuple) else Hook(hook)
    env: Any = one.env or ()
    texts = [f"{name}={value}" for name, value in env.items()] if hasattr(env, "items") else list(env)
    return when, one.path, list(one.args or ()), texts, one.timeout


class _Functions:
    """Functions of this program that are called at points of a container's life, and what they have raised."""

    def __init__(self, container: _zind.Container, functions: list[tuple[str, Any]]) -> None:
        self.raised: list[BaseException] = []
        for when, function in functions:
            container.on(when, self._called(function))

    def _called(self, function: Any) -> Any:
        raised = self.raised

        def call(state: dict[str, Any]) -> None:
            try:
                function(state)
            except BaseException as error:
                raised.append(error)
                raise

        return call

    def explain(self, error: BaseException) -> BaseException:
        """The error of a start, with what a function has raised as its cause."""
        if not self.raised or getattr(error, "step", None) != "Hook":
            return error
        cause = self.raised[-1]
        if not isinstance(cause, Exception):
            return cause
        error.__cause__ = cause
        return error


def _split(hooks: Mapping[HookPoint, Iterable[AnyHook]] | None) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
    """Programs, and functions of this program."""
    pairs = [(when, hook) for when, all in (hooks or {}).items() for hook in all]
    functions: list[tuple[str, Any]] = [(when, hook) for when, hook in pairs if callable(hook)]
    for when, hook in functions:
        if when not in ("createRuntime", "poststart", "poststop"):
            text = f"hooks: {when}: a function of this program is called at createRuntime, poststart and poststop"
            raise SpecError(text, "hooks")
    return [(when, hook) for when, hook in pairs if not callable(hook)], functions


def _warn(container: _zind.Container, level: int = 3) -> None:
    for text in container.take_warnings():
        warnings.warn(text, HookWarning, stacklevel=level)


def _seconds(moment: Moment) -> float | None:
    if moment is None or isinstance(moment, (int, float)):
        return moment
    return moment.timestamp()


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
    _caller_s_size(options)
    if stop_signal is not None:
        given["stop_signal"] = stop_signal if isinstance(stop_signal, str) else int(stop_signal)
    if programs:
        given["hooks"] = [_hook(when, hook) for when, hook in programs]
    return given


def _one_of(port: int | None, line: str | None, command: Argv | None) -> None:
    if [port, line, command].count(None) != 2:
        raise TypeError("one of port, line and command says when it is ready")


def _opened(place: Containers | Path | None) -> Containers:
    return place if isinstance(place, Containers) else Containers(place)


class Containers:
    """The containers of one place: ``None`` is the user's own (root's is ``/var/lib/zind``, others'
    ``$XDG_DATA_HOME/zind``), where they lie beside the images."""

    def __init__(self, path: Path | None = None) -> None:
        self._containers = _zind.Containers(None if path is None else os.fspath(path))

    @classmethod
    def _of(cls, found: _zind.Containers) -> Containers:
        self = cls.__new__(cls)
        self._containers = found
        return self

    @property
    def path(self) -> str:
        """The directory they are in."""
        return os.fspath(self._containers.place)

    def create(self, argv: Argv | None = None, **options: Any) -> Container:
        """A new container here: arguments as of :class:`zind.Container`."""
        return Container(argv, containers=self, **options)

    def find(self, name: str) -> Container:
        """By its name, its id, or how its id begins. :raises zind.NotFoundError: there is none."""
        return Container._of(self._containers.find(name))

    def list(
        self,
        *,
        all: bool = False,
        labels: Labels = None,
        name: str | None = None,
        states: Iterable[State] = (),
    ) -> list[Container]:
        """Those that run, the latest first; with ``all`` those, too, that do not. ``labels``: those that have all of them, as
        ``{"a": "1", "b": None}`` or ``["a=1", "b"]``; ``name``: those with this in their names; ``states``: those in one of
        these, whatever ``all`` says."""
        return [Container._of(one) for one in self._containers.list(all, _labels(labels), name, [*states])]

    def prune(self) -> Pruned:
        """Deletes every container that does not run, and what crashed programs have left."""
        found, groups = self._containers.prune()
        return Pruned(found, [os.fspath(path) for path in groups])

    def events(self, *, since: int | None = None) -> ContainerEvents:
        """What happens to the containers here from now on, each thing once and in order; with ``since``, before that what has
        happened since the event with this number, itself included: the last four thousand and more are kept."""
        return ContainerEvents(self._containers.events(since))

    def __iter__(self) -> Iterator[Container]:
        return iter(self.list(all=True))

    def __reduce__(self) -> tuple[Any, ...]:
        return Containers, (self.path,)

    def __repr__(self) -> str:
        return f"<zind.Containers {self.path}>"


class _Known:
    """What can be asked and said without waiting, here and in :mod:`zind.aio`."""

    _container: _zind.Container
    #: Made here, and not detached: the end of a block deletes it.
    _is_ours: bool
    #: None of one that was found.
    _functions: _Functions | None

    @classmethod
    def _of(cls, found: _zind.Container, is_ours: bool = False) -> Self:
        self = cls.__new__(cls)
        self._container, self._is_ours, self._functions = found, is_ours, None
        return self

    def _explained(self, error: BaseException) -> BaseException:
        return error if self._functions is None else self._functions.explain(error)

    # --- what it is
    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self._container.id

    @property
    def name(self) -> str | None:
        """Its name, if it has one."""
        return self._container.name

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return self._container.labels

    @property
    def containers(self) -> Containers:
        """Those it is one of."""
        return Containers._of(self._container.containers)

    @property
    def path(self) -> str:
        """The directory it is kept in."""
        return os.fspath(self._container.place)

    @property
    def state(self) -> State:
        """``"creating"``, ``"created"``, ``"running"``, ``"paused"`` or ``"stopped"``, as of now.

        :raises zind.NotFoundError: it was deleted; so all do but :attr:`id` and :attr:`path`.
        """
        return self._container.state

    @property
    def pid(self) -> int | None:
        """Its first process in this pid namespace, while it runs."""
        return self._container.pid

    @property
    def pidfd(self) -> int:
        """A pidfd of :attr:`pid`; it belongs to this object, and is another one after another start.

        :raises zind.StateError: it does not run.
        """
        return self._container.pidfd

    @property
    def exit(self) -> Exit | None:
        """How it ended, if it has. One whose monitor was killed, or that a restart of the machine ended, was killed."""
        exit = self._container.exit
        return None if exit is None else Exit(*exit)

    @property
    def created(self) -> float:
        """When it was made, in seconds since 1970."""
        return self._container.created

    @property
    def started(self) -> float | None:
        """When it was started last."""
        return self._container.started

    @property
    def finished(self) -> float | None:
        """When it ended."""
        return self._container.finished

    @property
    def restarts(self) -> int:
        """How often its monitor has started it again."""
        return self._container.restarts

    @property
    def image(self) -> str | None:
        """The name of its image."""
        return self._container.image

    @property
    def spec(self) -> dict[str, Any]:
        """What it is made from, as an OCI ``config.json``."""
        config: dict[str, Any] = self.inspect()["config"]
        return config

    @property
    def isolation(self) -> Isolation | None:
        """What is in force since its last start; ``None`` before the first one."""
        isolation = self._container.isolation
        return None if isolation is None else Isolation(isolation)

    def inspect(self) -> dict[str, Any]:
        """All that is known of it."""
        return self._container.inspect()

    def kill(self, signal: int | str = "KILL") -> None:
        """Sends a signal to its program, by number or name. SIGKILL ends the whole container, and it is not started again.

        :raises zind.StateError: it does not run.
        """
        self._container.kill(signal if isinstance(signal, str) else int(signal))

    def detach(self) -> None:
        """Lets it go on when this program ends, or the block of ``with``."""
        self._container.detach()
        self._is_ours = False

    def rename(self, name: str) -> None:
        """Gives it another name. :raises zind.ExistsError: another container has it."""
        self._container.rename(name)

    def resize(self, rows: int, cols: int) -> None:
        """Gives its terminal another size. :raises zind.StateError: it has none, or does not run."""
        self._container.resize(rows, cols)

    def stats(self) -> Stats:
        """What it uses now; once it has ended, what it used over its whole last run."""
        return Stats._of(self._container.stats())

    @property
    def root(self) -> Root:
        """The inside of its root while it runs: :attr:`zind.Popen.root`."""
        return Root._of(self._container.root)

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
        """Copies a file or a tree of the host's into it while it runs: :meth:`zind.Root.copy_in`."""
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
        """Copies a file or a tree of its own to the host while it runs: :meth:`zind.Root.copy_out`."""
        with self.root as root:
            return root.copy_out(
                source, target, owner=owner, follow_links=follow_links, overwrite=overwrite, strict=strict
            )

    def mount(self, mount: Mount) -> None:
        """Mounts something in it while it runs: :meth:`zind.Popen.mount`. The next start is without it."""
        self._container.mount(mount)

    def umount(self, target: Path) -> None:
        """Takes away what is mounted at ``target`` in it, and what is mounted below that."""
        self._container.umount(target)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Known) and other.path == self.path

    def __hash__(self) -> int:
        return hash(self.path)

    def __reduce__(self) -> tuple[Any, ...]:
        return _found, (type(self), self.id, self.containers.path)

    def _facts(self) -> dict[str, Any]:
        """For showing, which does not raise."""
        try:
            return self.inspect()
        except NotFoundError:
            return {"id": self.id, "name": None, "state": "deleted"}
        except StateError as error:
            return {"id": self.id, "name": None, "state": f"unreadable: {error}"}

    def __repr__(self) -> str:
        facts = self._facts()
        words = [facts["name"], self.id[:12], facts["state"]]
        if facts.get("pid"):
            words.append(f"pid={facts['pid']}")
        if facts.get("exit"):
            words.append(repr(Exit(**facts["exit"]))[11:-1])
        if facts.get("image"):
            words.append(f"image={facts['image']}")
        return f"<zind.{type(self).__name__} {' '.join(filter(None, words))}>"

    def _repr_html_(self) -> str:
        names = "name id state pid image restart exit fault labels path".split()
        shown = {**self._facts(), "path": self.path}
        if shown.get("exit"):
            shown["exit"] = repr(Exit(**shown["exit"]))[11:-1]
        import html

        rows = ((name, html.escape(str(shown[name]))) for name in names if shown.get(name))
        return f"<table>{''.join(f'<tr><th>{name}</th><td>{value}</td></tr>' for name, value in rows)}</table>"


def _found(kind: type[_Known], id: str, path: str) -> _Known:
    return kind._of(_zind.Containers(path).find(id))


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
        """Changes limits while it runs: :meth:`zind.Popen.update`. The next start begins with those it was made with."""
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


class Logs:
    """Lines of a container's log: an iterator of :class:`zind.LogLine`, which blocks when it follows."""

    def __init__(self, logs: _zind.Logs, timestamps: bool = False) -> None:
        self._logs = logs
        self._timestamps = timestamps

    def get(self, timeout: float | None = None) -> LogLine | None:
        """The next line; ``None`` when the time (seconds) is over first, or when there will be no more."""
        line = self._logs.next(timeout)
        return None if line is None else LogLine(*line)

    @property
    def over(self) -> bool:
        """True once the last line was told, and once it is closed."""
        return self._logs.is_over

    def read(self) -> bytes:
        """All lines that are left, as bytes."""
        return b"".join(map(self._format, self))

    def _format(self, line: LogLine) -> bytes:
        begin = b""
        if self._timestamps:
            whole, nanoseconds = divmod(int(line.time * 1e9), 10**9)
            begin = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{nanoseconds:09}Z ".encode()
        return begin + line.text + (b"\n" if line.whole else b"")

    def fileno(self) -> int:
        """A descriptor for an event loop, readable when there may be more; -1 before the first :meth:`get` that found
        nothing. It belongs to this object."""
        return self._logs.fileno()

    def close(self) -> None:
        """Lets go of its descriptors; twice is fine."""
        self._logs.close()

    def __iter__(self) -> Logs:
        return self

    def __next__(self) -> LogLine:
        line = self.get()
        if line is None:
            self.close()
            raise StopIteration
        return line

    def __enter__(self) -> Logs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Attachment:
    """A connection to a container's streams: an iterator of :class:`zind.Chunk`, which ends with the container.

    :attr:`stdin` is where input goes, unbuffered: the container's standard input, or its terminal; ``None`` if it has neither.
    """

    def __init__(self, attachment: _zind.Attachment) -> None:
        self._attachment = attachment
        #: True if the container has a terminal.
        self.pty = attachment.has_terminal
        self._is_over = False
        fd = attachment.take_input()
        self.stdin: IO[bytes] | None = None if fd < 0 else io.FileIO(fd, "wb")

    def get(self, timeout: float | None = None) -> Chunk | None:
        """The next output; ``None`` when the time (seconds) is over first, or when there will be no more."""
        if self._is_over:
            return None
        found = self._attachment.next(timeout)
        if found is None:
            return None
        chunk = Chunk(*found)
        self._is_over = not chunk.data
        return None if self._is_over else chunk

    @property
    def over(self) -> bool:
        """True once the end of the container was met."""
        return self._is_over

    def read(self) -> bytes:
        """All output that is left, of both streams as it came."""
        return b"".join(chunk.data for chunk in self)

    def close_stdin(self) -> None:
        """Ends the container's standard input, for everybody who is attached."""
        if self.stdin is not None:
            self.stdin.close()
        self._attachment.close_input()

    def resize(self, rows: int, cols: int) -> None:
        """Gives the terminal another size. :raises zind.StateError: there is none."""
        self._attachment.resize(rows, cols)

    def fileno(self) -> int:
        """A descriptor for an event loop, readable when there is output, or at the end. It belongs to this object."""
        return self._attachment.fileno()

    def close(self) -> None:
        """Lets go of the container, which goes on; twice is fine."""
        self._is_over = True
        if self.stdin is not None:
            self.stdin.close()
        self._attachment.close()

    def __iter__(self) -> Attachment:
        return self

    def __next__(self) -> Chunk:
        chunk = self.get()
        if chunk is None:
            raise StopIteration
        return chunk

    def __enter__(self) -> Attachment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class ContainerEvents:
    """What happens to the containers of one place: an iterator of :class:`zind.ContainerEvent`, which blocks and has no end."""

    def __init__(self, events: _zind.ContainerEvents) -> None:
        self._events = events
        self._is_over = False

    def get(self, timeout: float | None = None) -> ContainerEvent | None:
        """The next event; ``None`` when the time (seconds) is over first, or once it is closed."""
        found = self._events.next(timeout)
        if found is None:
            return None
        time, what, id, name, exit, number = found
        return ContainerEvent(time, what, id, name, None if exit is None else Exit(*exit), number)

    @property
    def over(self) -> bool:
        """True once it is closed."""
        return self._is_over

    def fileno(self) -> int:
        """A descriptor for an event loop, readable when something may have happened; that a monitor was killed is not told
        by it, so look every second, too. It belongs to this object."""
        return -1 if self._is_over else self._events.fileno()

    def close(self) -> None:
        """Lets go of its descriptors; twice is fine."""
        self._is_over = True
        self._events.close()

    def __iter__(self) -> ContainerEvents:
        return self

    def __next__(self) -> ContainerEvent:
        event = self.get()
        if event is None:
            raise StopIteration
        return event

    def __enter__(self) -> ContainerEvents:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def containers(
    all: bool = False,
    labels: Labels = None,
    *,
    name: str | None = None,
    states: Iterable[State] = (),
    containers: Containers | Path | None = None,
) -> list[Container]:
    """The user's containers that run, the latest first: :meth:`zind.Containers.list`."""
    return _opened(containers).list(all=all, labels=labels, name=name, states=states)


def prune(*, containers: Containers | Path | None = None) -> Pruned:
    """Deletes every container that does not run, and what crashed programs have left: :meth:`zind.Containers.prune`."""
    return _opened(containers).prune()
