"""The exceptions of zind. Every one of them is a :class:`zind.Error`."""

from __future__ import annotations

import subprocess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._results import Exit, Stats

__all__ = [
    "CalledProcessError",
    "Error",
    "ExistsError",
    "ImageError",
    "NotFoundError",
    "RegistryError",
    "SpecError",
    "StateError",
    "StepFailed",
    "SysError",
    "TimeoutExpired",
    "UnsupportedError",
]


class Error(Exception):
    """The base of all of zind's exceptions."""


class SysError(Error, OSError):
    """The kernel refused. ``errno`` and ``filename`` are as in :class:`OSError`; ``step`` says what zind was doing,
    ``syscall`` by which call, ``hint`` what to do. Nothing of the container is left."""

    step: str
    syscall: str
    hint: str

    def __init__(
        self, errno: int, strerror: str, filename: object, step: str, syscall: str, hint: str, message: str
    ) -> None:
        super().__init__(errno, strerror, filename)
        self.step = step
        self.syscall = syscall
        self.hint = hint
        self._message = message

    # OSError fills its fields in __new__, from no more than these three.
    def __new__(cls, errno: int, strerror: str, filename: object, *_: object) -> SysError:
        return super().__new__(cls, errno, strerror, filename)

    def __str__(self) -> str:
        return self._message

    def __reduce__(self) -> tuple[Any, ...]:
        fields = (self.errno, self.strerror, self.filename, self.step, self.syscall, self.hint, self._message)
        return type(self), fields


class NotFoundSysError(SysError, FileNotFoundError):
    """A :class:`SysError` with ``ENOENT``: also a :class:`FileNotFoundError`."""


class PermissionSysError(SysError, PermissionError):
    """A :class:`SysError` with ``EACCES`` or ``EPERM``: also a :class:`PermissionError`."""


class NotADirectorySysError(SysError, NotADirectoryError):
    """A :class:`SysError` with ``ENOTDIR``: also a :class:`NotADirectoryError`."""


class ExistsSysError(SysError, FileExistsError):
    """A :class:`SysError` with ``EEXIST``: also a :class:`FileExistsError`."""


class ProcessLookupSysError(SysError, ProcessLookupError):
    """A :class:`SysError` with ``ESRCH``: also a :class:`ProcessLookupError`."""


class SpecError(Error, ValueError):
    """An option breaks a rule; nothing was touched. ``field`` is the option's name."""

    field: str

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message, field)
        self.field = field

    def __str__(self) -> str:
        return str(self.args[0])


class UnsupportedError(Error):
    """This machine, this user or this version cannot do it. ``feature`` says what, ``needs`` what it would take."""

    feature: str
    needs: str

    def __init__(self, message: str, feature: str, needs: str) -> None:
        super().__init__(message, feature, needs)
        self.feature = feature
        self.needs = needs

    def __str__(self) -> str:
        return str(self.args[0])


class ImageError(Error):
    """An image, a layer or an archive is broken or hostile; nothing of it is used. ``what`` names the blob and the entry."""

    what: str

    def __init__(self, message: str, what: str) -> None:
        super().__init__(message, what)
        self.what = what

    def __str__(self) -> str:
        return str(self.args[0])


class RegistryError(Error):
    """A registry refused, or could not be reached. ``registry`` is its host and port; ``status`` the HTTP status, None if
    there was no answer; ``code`` one of the distribution-spec's (``"MANIFEST_UNKNOWN"``, ``"UNAUTHORIZED"``) or, in small
    letters, zind's own (``"dns"``, ``"connect"``, ``"tls"``, ``"timeout"``, ``"proxy"``, ``"redirect"``, ``"protocol"``,
    ``"content"``); ``hint`` what to do."""

    registry: str
    status: int | None
    code: str
    hint: str

    def __init__(self, message: str, registry: str, status: int | None, code: str, hint: str) -> None:
        super().__init__(message, registry, status, code, hint)
        self.registry = registry
        self.status = status
        self.code = code
        self.hint = hint

    def __str__(self) -> str:
        return str(self.args[0])


class StateError(Error):
    """The object is in a state that does not allow the call."""


class NotFoundError(Error, LookupError):
    """There is no such thing: a process, say."""


class ExistsError(Error):
    """A thing of that name is there already."""


class TimeoutExpired(Error, subprocess.TimeoutExpired):
    """The time was over. ``stdout`` and ``stderr`` are what was written until then."""

    exit: Exit | None = None
    stats: Stats | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), (self.cmd, self.timeout, self.output, self.stderr), self.exit, self.stats)


class StartTimeout(TimeoutExpired, TimeoutError):
    """The time was over before the program ran: there is no ``exit``, and nothing was written. ``after`` so many seconds that
    was seen."""

    after: float

    def __init__(self, message: str, after: float, cmd: Any = None) -> None:
        super().__init__(cmd, after)
        self.args = (message,)
        self.after = after

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return _late, (type(self), self.args[0], self.after, self.cmd, self.timeout)


class CalledProcessError(Error, subprocess.CalledProcessError):
    """``check=True``, and the program did not exit with 0."""

    exit: Exit | None = None
    stats: Stats | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), (self.returncode, self.cmd, self.output, self.stderr), self.exit, self.stats)


class StepFailed(CalledProcessError):
    """A step of a build did not exit with 0. ``step`` says which; the rest is as in :class:`zind.CalledProcessError`."""

    step: str

    def __init__(self, step: str, argv: list[str], exit: tuple[Any, ...]) -> None:
        from ._results import Exit

        ended = Exit(*exit)
        super().__init__(ended.returncode, argv)
        self.step = step
        self.exit = ended

    def __str__(self) -> str:
        return f"{self.step}: {super().__str__()}"

    def __reduce__(self) -> tuple[Any, ...]:
        assert self.exit is not None
        return type(self), (self.step, self.cmd, (self.exit.kind, self.exit.code, self.exit.signal))


def _late(kind: type[Any], message: str, after: float, cmd: Any, timeout: float) -> Any:
    error = kind(message, after, cmd)
    error.timeout = timeout
    return error


def _rebuild(kind: type[Any], args: tuple[Any, ...], exit: Exit | None, stats: Stats | None) -> Any:
    error = kind(*args)
    error.exit = exit
    error.stats = stats
    return error
