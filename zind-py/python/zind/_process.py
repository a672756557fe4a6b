"""``run`` and ``Popen``: containers in the shape of :mod:`subprocess`."""

from __future__ import annotations

import io
import os
import signal as _signal
import time
import sys
from collections import namedtuple
from subprocess import DEVNULL, PIPE, STDOUT

from . import _images, _seccomp, _zind
from ._copy import CopyStats, Root
from ._events import Events
from ._resources import ProcessInfo
from ._results import CompletedProcess, Exit, Isolation, Stats
from ._text import Text
from .errors import CalledProcessError, StartTimeout, StateError, TimeoutExpired

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import IO, Any, NamedTuple

    from typing_extensions import Unpack

    from collections.abc import Iterable, Iterator, Mapping

    from ._events import PressureTrigger
    from ._images import Compression, Image, ProgressFunction
    from ._options import Argv, ExecOptions, Options, Path
    from ._resources import Resources
    from ._seccomp import NotifyFunction, ViolationFunction
    from ._zind import Mount

    class _PtyBase(NamedTuple):
        rows: int = 24
        cols: int = 80
else:
    _PtyBase = namedtuple("_PtyBase", "rows cols", defaults=(24, 80))

__all__ = ["DEVNULL", "PIPE", "STDOUT", "Popen", "Pty", "learn", "run"]


class Pty(_PtyBase):
    """A terminal for the program, by the size of its window."""

    __slots__ = ()


def _caller_s_size(given: dict[str, Any]) -> None:
    """A terminal without a size is as large as the one of this program, if that has one."""
    if given.get("pty") is True:
        try:
            size = os.get_terminal_size(sys.__stdout__.fileno() if sys.__stdout__ else 1)
            given["pty"] = (size.lines or Pty().rows, size.columns or Pty().cols)
        except (OSError, ValueError):
            given["pty"] = Pty()


def run(
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
    """Run a command in a container of its own and wait for its end.

    The arguments are those of :func:`subprocess.run`, and zind's options: see :class:`zind.Options` for all of them.
    ``argv`` may be left out for an image, or a ``config``, that says what it runs.

    With ``pty`` the program gets a terminal in place of the three streams. Captured, its output is in ``stdout``, ``input`` is
    typed and the key for the end of input after it; else this program's own terminal is connected to it until it ends.

    :raises zind.TimeoutExpired: the time was over; the container is gone, and what it wrote is in the exception. It has no
        ``exit`` if the program did not run yet (:class:`zind.errors.StartTimeout`).
    :raises zind.CalledProcessError: with ``check``, when the program did not exit with 0.
    :raises zind.SysError: the container could not be made, or the program not be executed; nothing is left.
    :raises zind.SpecError: an option breaks a rule; nothing was touched.
    :raises zind.UnsupportedError: this machine or user cannot do it.
    """
    try:
        return _run(argv, dict(options), input, capture_output, Text(text, encoding, errors), timeout, check)
    except StartTimeout as late:
        late.cmd, late.timeout = argv, timeout or 0.0
        raise


def _run(
    argv: Any,
    given: dict[str, Any],
    input: bytes | str | None,
    capture_output: bool,
    mode: Text,
    timeout: float | None,
    check: bool,
) -> CompletedProcess:
    _images.settle(given)
    if given.get("pty"):
        _caller_s_size(given)
        captured = capture_output or _is(given.get("stdout"), PIPE)
        only_terminal(given, capture_output)
        given["timeout"] = timeout
        if not captured and input is None:
            notify, violations = _seccomp.take(given)
            return _interact(_zind.spawn(argv, given, False), argv, mode, timeout, check, notify, violations)
        out, err = captured, False
    else:
        out, err = streams(given, input is not None, capture_output)
    given["timeout"] = timeout
    if _is_served(given):
        process = Popen._with(argv, -1, Text(None, None, None), given)
        return _served(process, argv, given, mode, input, out, err, timeout, check)
    exit_, stats, isolation, stdout, stderr = _zind.run(argv, given, mode.encode(input))
    return completed(
        argv, Exit(*exit_), stats, isolation, mode, stdout if out else None, stderr if err else None, timeout, check
    )


def _is_served(given: dict[str, Any]) -> bool:
    """There are functions to call meanwhile, or something to be read at the end."""
    if given.get("notify") is None:
        given.pop("notify", None)
    return bool("notify" in given or given.get("violations") or given.get("seccomp") == "learn")


def _served(
    process: Popen,
    argv: Any,
    given: dict[str, Any],
    mode: Text,
    input: bytes | str | None,
    out: bool,
    err: bool,
    timeout: float | None,
    check: bool,
) -> CompletedProcess:
    """A command whose filter asks or tells, or learns, to its end."""
    try:
        stdout, stderr = process.communicate(None if input is None else mode.encode(input))
    except BaseException:
        process.kill()
        process.wait()
        raise
    exit = process.exit
    assert exit is not None
    stdout, stderr = stdout if out else None, stderr if err else None
    result = completed(argv, exit, process.stats(), process.isolation, mode, stdout, stderr, timeout, check)
    if given.get("seccomp") == "learn":
        result.profile = process.learned()
    return result


def learn(
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
    """Runs a command as :func:`run` does, without a filter, and notes which system calls it makes: ``result.profile`` is the
    smallest OCI profile under which the same run passes, for ``seccomp=`` or a file of JSON.

    Calls that tell harmless from dangerous ones by an argument have it in the profile (``clone`` without new namespaces,
    families of sockets, personalities). It takes several times as long; give it only programs that need no filter.
    A signal at the wrong moment can make a call EINTR that otherwise never is: look at the result before you keep the profile.
    """
    given: Any = {**options, "seccomp": "learn"}
    return run(
        argv, input=input, capture_output=capture_output, text=text, encoding=encoding, errors=errors, timeout=timeout,
        check=check, **given,
    )


def only_terminal(given: dict[str, Any], capture_output: bool) -> None:
    """With a terminal there are no other streams."""
    if any(given.pop(name, None) not in (None, PIPE) for name in ("stdin", "stdout", "stderr")):
        raise ValueError("pty is all three streams: stdin, stdout and stderr may not be used with it, except for PIPE")


def _interact(
    process: _zind.Process,
    argv: Any,
    mode: Text,
    timeout: float | None,
    check: bool,
    notify: NotifyFunction | None,
    violations: ViolationFunction | None,
) -> CompletedProcess:
    """Between this program's own terminal and the container's, to the end."""
    serving = _seccomp.serving(process, notify, violations)
    try:
        if serving is None:
            process.expect_no_questions()
        process.interact(0, 1)
        exit = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    assert exit is not None
    if serving is not None:
        serving.join()
    return completed(
        argv, Exit(*exit), process.stats(), Isolation(process.isolation), mode, None, None, timeout, check
    )


def streams(given: dict[str, Any], has_input: bool, capture_output: bool) -> tuple[bool, bool]:
    """Settles stdin, stdout and stderr as subprocess.run does; tells which of the last two are captured."""
    if has_input:
        if given.get("stdin") is not None:
            raise ValueError("stdin and input arguments may not both be used.")
        given["stdin"] = PIPE
    if capture_output:
        if given.get("stdout") is not None or given.get("stderr") is not None:
            raise ValueError("stdout and stderr arguments may not be used with capture_output.")
        given["stdout"] = given["stderr"] = PIPE
        return True, True
    return _is(given.get("stdout"), PIPE), _is(given.get("stderr"), PIPE)


def _is(value: Any, constant: int) -> bool:
    return type(value) is int and value == constant


def completed(
    argv: Any,
    exit: Exit,
    stats: Stats | _zind.Stats,
    isolation: Isolation | _zind.Isolation,
    mode: Text,
    stdout: bytes | None,
    stderr: bytes | None,
    timeout: float | None,
    check: bool,
) -> CompletedProcess:
    """The result of a container's end, or the exception for it."""
    if exit.kind == "timeout":
        expired = TimeoutExpired(argv, timeout or 0.0, output=stdout, stderr=stderr)
        expired.exit, expired.stats = exit, _looked_at(stats)
        raise expired
    out = mode.decode(stdout) if stdout is not None else None
    err = mode.decode(stderr) if stderr is not None else None
    if check and exit.returncode:
        failed = CalledProcessError(exit.returncode, argv, output=out, stderr=err)
        failed.exit, failed.stats = exit, _looked_at(stats)
        raise failed
    return CompletedProcess(argv, exit.returncode, out, err, exit, stats, isolation)


def _looked_at(stats: Stats | _zind.Stats) -> Stats:
    return stats if isinstance(stats, Stats) else Stats._of(stats)


def exec_in(
    inside: _zind.Process | _zind.Container,
    argv: Argv,
    input: bytes | str | None,
    capture_output: bool,
    mode: Text,
    timeout: float | None,
    check: bool,
    given: dict[str, Any],
) -> CompletedProcess:
    """A further program in a container, to its end."""
    given["timeout"] = timeout
    if given.get("pty"):
        _caller_s_size(given)
        captured = capture_output or _is(given.get("stdout"), PIPE)
        only_terminal(given, capture_output)
        if not captured and input is None:
            notify, violations = _seccomp.take(given)
            return _interact(inside.exec(argv, given), argv, mode, timeout, check, notify, violations)
        out, err = captured, False
    else:
        out, err = streams(given, input is not None, capture_output)
    if _is_served(given):
        process = popen_in(inside, argv, -1, Text(None, None, None), given)
        return _served(process, argv, given, mode, input, out, err, timeout, check)
    exit_, stats, isolation, stdout, stderr = inside.exec_to_end(argv, given, mode.encode(input))
    return completed(
        argv, Exit(*exit_), stats, isolation, mode, stdout if out else None, stderr if err else None, timeout, check
    )


def popen_in(
    inside: _zind.Process | _zind.Container, argv: Argv, bufsize: int, mode: Text, given: dict[str, Any]
) -> Popen:
    """A further program in a container."""
    if given.get("pty"):
        _caller_s_size(given)
        only_terminal(given, False)
    notify, violations = _seccomp.take(given)
    other = Popen.__new__(Popen)
    other._start(inside.exec(argv, given), argv, bufsize, mode)
    other._serving = _seccomp.serving(other._process, notify, violations)
    return other


class Popen:
    """A container that runs: the shape of :class:`subprocess.Popen`.

    As a context manager it closes its streams and waits, as :class:`subprocess.Popen` does. The container ends with this
    process at the latest, unless ``die_with_owner=False``.
    """

    args: Any
    stdin: IO[Any] | None
    stdout: IO[Any] | None
    stderr: IO[Any] | None

    def __init__(
        self,
        argv: Argv | None = None,
        *,
        bufsize: int = -1,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        given: dict[str, Any] = dict(options)
        _images.settle(given)
        if given.get("pty"):
            _caller_s_size(given)
            only_terminal(given, False)
        self._begin(argv, bufsize, Text(text, encoding, errors), given)

    @classmethod
    def _with(cls, argv: Any, bufsize: int, mode: Text, given: dict[str, Any]) -> Popen:
        self = cls.__new__(cls)
        self._begin(argv, bufsize, mode, given)
        return self

    def _begin(self, argv: Any, bufsize: int, mode: Text, given: dict[str, Any]) -> None:
        notify, violations = _seccomp.take(given)
        self._start(_zind.spawn(argv, given, False), argv, bufsize, mode)
        self._serving = _seccomp.serving(self._process, notify, violations)

    #: Calls the functions of ``notify=`` and ``violations=``.
    _serving: _seccomp.Serving | None = None
    _notifier: _seccomp.Notifier | None = None

    @property
    def notifier(self) -> _seccomp.Notifier | None:
        """Decides about the calls for which the profile says ``SCMP_ACT_NOTIFY``; ``None`` where it says so of none, or names an
        agent by ``listenerPath``. Until somebody answers, the program waits; with ``notify=`` that function does."""
        if self._serving is not None:
            return self._serving.notifier
        if self._notifier is None:
            found = self._process.take_notifier()
            self._notifier = None if found is None else _seccomp.Notifier(found)
        return self._notifier

    def violations(self) -> _seccomp.Violations:
        """What the filter refuses, as it happens, from the start on.

        :raises zind.StateError: it was started without ``violations=True``.
        """
        return _seccomp.Violations(self._process.violations())

    def learned(self) -> dict[str, Any]:
        """The smallest OCI profile under which the calls pass that there were so far.

        :raises zind.StateError: it was started without ``seccomp="learn"``.
        """
        return _seccomp.learned(self._process)

    def _start(self, process: _zind.Process, argv: Any, bufsize: int, mode: Text) -> None:
        self.args = argv
        self._process = process
        self._text = mode
        self._exchange: _zind.Exchange | None = None
        self._exit: Exit | None = None
        stdin, stdout, stderr = process.take_streams()
        self.stdin = self._file(stdin, "wb", bufsize)
        self.stdout = self._file(stdout, "rb", bufsize)
        self.stderr = self._file(stderr, "rb", bufsize)
        terminal = process.take_terminal()
        #: The other end of the program's terminal, unbuffered; closing it hangs up. Reading raises ``EIO`` at the end.
        self.terminal: IO[bytes] | None = None if terminal < 0 else io.FileIO(terminal, "r+")

    def _file(self, fd: int, mode: str, bufsize: int) -> IO[Any] | None:
        if fd < 0:
            return None
        file: Any = io.open(fd, mode, 0 if bufsize == 0 else -1 if bufsize == 1 else bufsize)
        if self._text.on:
            file = io.TextIOWrapper(
                file,
                encoding=self._text.encoding,
                errors=self._text.errors,
                line_buffering=bufsize == 1,
                write_through=bufsize == 0,
            )
        return file  # type: ignore[no-any-return]

    def resize(self, rows: int, cols: int) -> None:
        """Sets the size of the terminal's window; the program gets SIGWINCH.

        :raises zind.StateError: it was started without ``pty=``, or the terminal is closed.
        """
        if self.terminal is None or self.terminal.closed:
            raise StateError("the program was started without a terminal (pty=), or it is closed")
        _zind.resize(self.terminal.fileno(), rows, cols)

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
        """Runs a further program in the running container and waits for its end, as :func:`zind.run` does.

        It is under the container's rules as far as the options do not say otherwise: in all of its namespaces and control
        groups, with its user, variables, directory, capabilities and filter. What it leaves running stays in the container.

        :raises zind.StateError: the container has ended, or is paused.
        """
        return exec_in(self._process, argv, input, capture_output, Text(text, encoding, errors), timeout, check, dict(options))

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
        """Starts a further program in the running container: :meth:`exec`, without waiting. Killed, it takes what it has
        started along and leaves the container alone; it ends with the container."""
        return popen_in(self._process, argv, bufsize, Text(text, encoding, errors), dict(options))

    @property
    def pid(self) -> int:
        """The container's first process in this pid namespace: with ``init`` zind's PID 1, which passes signals on."""
        return self._process.pid

    @property
    def pidfd(self) -> int:
        """A pidfd of :attr:`pid`; it belongs to this object."""
        return self._process.pidfd

    @property
    def root(self) -> Root:
        """The inside of the container's root, with all its mounts, for copying files in and out while it runs. Each use
        opens it anew. :raises zind.StateError: the container has ended."""
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
        """Copies a file or a tree of the host's into the running container: :meth:`zind.Root.copy_in`."""
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
        """Copies a file or a tree of the running container's to the host: :meth:`zind.Root.copy_out`."""
        with self.root as root:
            return root.copy_out(
                source, target, owner=owner, follow_links=follow_links, overwrite=overwrite, strict=strict
            )

    @property
    def image(self) -> Image | None:
        """The image it was started from."""
        image = self._process.image
        return None if image is None else _images.Image(image)

    def commit(
        self,
        tag: str | Iterable[str] | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        author: str | None = None,
        message: str | None = None,
        created: str | None = None,
        compression: Compression = "gzip",
        progress: ProgressFunction = None,
    ) -> Image:
        """Makes an image of what the container changed: one layer over the one it was started from, whether it still runs
        or has ended. Its changes must go to a directory (``overlay=path``). Pause one that runs meanwhile. Arguments as in
        :meth:`zind.Layers.commit`.

        :raises zind.StateError: it has no such directory, or was not started from an image.
        """
        options = _images.commit_options(tag, config, author, message, created, compression)
        return _images.Image(self._process.commit(options, _images.watch(progress)))

    def stop(self, timeout: float = 10.0) -> int:
        """Asks the program to end, by the image's stop signal or SIGTERM, and ends the whole container when ``timeout`` seconds
        are over. The return code."""
        if self._exit is None:
            self._exit = Exit(*self._process.stop(timeout))
        return self._exit.returncode

    @property
    def isolation(self) -> Isolation:
        """What is in force."""
        return Isolation(self._process.isolation)

    @property
    def exit(self) -> Exit | None:
        """How it ended; ``None`` while it runs or nobody has waited."""
        return self._exit

    @property
    def returncode(self) -> int | None:
        """As in :class:`subprocess.Popen`."""
        return None if self._exit is None else self._exit.returncode

    def stats(self) -> Stats:
        """What it uses now; once it has ended, what it used over its whole life."""
        return Stats._of(self._process.stats())

    def stats_stream(self, interval: float = 1.0) -> Iterator[Stats]:
        """:meth:`stats` now and then every ``interval`` seconds, until the container has ended; the last one is of its whole
        life. It blocks between them. A reading that comes too late is left out."""
        if not interval > 0:
            raise ValueError("interval is more than 0 seconds")
        return self._readings(interval)

    def _readings(self, interval: float) -> Iterator[Stats]:
        due = time.monotonic()
        has_ended = False
        while not has_ended:
            has_ended = self._process.wait(due - time.monotonic()) is not None
            yield self.stats()
            due = max(due + interval, time.monotonic())

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
        """What happens in the container from its start on, as it happens: an iterator of :class:`zind.Event`, which ends
        with the container. It needs ``resources=``, be it without limits.

        :raises zind.StateError: it was started without ``resources=``.
        :raises zind.UnsupportedError: ``pressure`` without a group of v2, or a kernel that does not measure it.
        """
        return Events(self._process, pressure)

    def processes(self) -> list[ProcessInfo]:
        """Everything that runs in the container, zind's PID 1 included; nothing once it has ended."""
        return [ProcessInfo(**info) for info in self._process.processes()]

    def poll(self) -> int | None:
        """The return code if it has ended, else ``None``."""
        if self._exit is None:
            exit = self._process.poll()
            self._exit = None if exit is None else Exit(*exit)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end; the return code. :raises zind.TimeoutExpired: it still runs."""
        if self._exit is None:
            exit = self._process.wait(timeout)
            if exit is None:
                raise TimeoutExpired(self.args, timeout or 0.0)
            self._exit = Exit(*exit)
        if self._serving is not None:
            self._serving.join()
        return self._exit.returncode

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        """Feeds ``input``, reads to the end and waits. After a :class:`zind.TimeoutExpired` it can be called again; no
        output is lost."""
        had_out, had_err = self.stdout is not None or self.terminal is not None, self.stderr is not None
        if self._exchange is None and self.terminal is not None:
            data = self._text.encode(input)
            # The key for the end of input; in the middle of a line the first one only sends what there is of it.
            data += b"\x04" if not data or data.endswith(b"\n") else b"\x04\x04"
            keys = -1 if self.terminal.closed else os.dup(self.terminal.fileno())
            self._exchange = _zind.Exchange(keys, self._detach(self.terminal), -1, data)
        if self._exchange is None:
            if input is not None and self.stdin is None:
                raise ValueError("stdin was not a pipe: give stdin=zind.PIPE")
            data = self._text.encode(input)
            self._exchange = _zind.Exchange(
                self._detach(self.stdin), self._detach(self.stdout), self._detach(self.stderr), data
            )
        if not self._exchange.serve(self._process, timeout):
            out, err = self._exchange.so_far()
            raise TimeoutExpired(self.args, timeout or 0.0, output=out or None, stderr=err or None)
        self.poll()
        if self._serving is not None:
            self._serving.join()
        out, err = self._exchange.take()
        return self._text.decode(out) if had_out else None, self._text.decode(err) if had_err else None

    @staticmethod
    def _detach(file: IO[Any] | None) -> int:
        """A descriptor of our own for what is behind a file, which is closed."""
        if file is None or file.closed:
            return -1
        if file.writable():
            try:
                file.flush()
            except BrokenPipeError:
                pass
        fd = os.dup(file.fileno())
        try:
            file.close()
        except BrokenPipeError:
            pass
        return fd

    def send_signal(self, sig: int) -> None:
        """Sends a signal to the program; SIGKILL ends the whole container. Nothing happens once it has ended."""
        if self.poll() is None:
            self._process.signal(int(sig))

    def terminate(self) -> None:
        """SIGTERM to the program."""
        self.send_signal(_signal.SIGTERM)

    def kill(self) -> None:
        """Ends the whole container at once."""
        self._process.kill()

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

    def __enter__(self) -> Popen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for file in (self.stdout, self.stderr, self.terminal):
            if file:
                file.close()
        try:
            if self.stdin:
                self.stdin.close()
        finally:
            if kind is KeyboardInterrupt:
                self.kill()
            self.wait()

    def __repr__(self) -> str:
        state = "running" if self.returncode is None else repr(self._exit)
        return f"<zind.Popen pid={self.pid} {state} args={self.args!r}>"
