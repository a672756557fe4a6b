"""System call filters while they work: ``Notifier``, ``Violations``, ``learn``."""

from __future__ import annotations

import _thread
import errno as _errno
import os
import sys
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, NamedTuple, Union

    from . import _zind
    from ._options import HasFileno

    class _ViolationBase(NamedTuple):
        syscall: str | None
        number: int
        args: tuple[int, ...]
        pid: int
        errno: int
        arch: str | None

    NotifyFunction = Callable[["Call"], Union[int, None]]
    ViolationFunction = Callable[["Violation"], object]
else:
    # Not typing.NamedTuple: importing typing would be a third of zind's import time.
    _ViolationBase = namedtuple("_ViolationBase", "syscall number args pid errno arch")

__all__ = ["Call", "Notifier", "Violation", "Violations"]


class Violation(_ViolationBase):
    """A call that the filter refused: its name (``None`` where the kernel has none) and number, its six arguments, who called
    (a thread, as this program sees it), what it failed with, and the convention it was of (``"SCMP_ARCH_X86_64"``)."""

    __slots__ = ()

    def __str__(self) -> str:
        args = ", ".join(f"{arg:#x}" if arg > 9 else str(arg) for arg in self.args)
        error = _errno.errorcode.get(self.errno, str(self.errno))
        return f"{self.syscall or self.number}({args}) of {self.pid}: {error}"


class Violations:
    """What a container's filter refuses, from its start on: :meth:`zind.Popen.violations`. An iterator, which blocks and ends
    with the container; :meth:`fileno` is readable when there is something to be told."""

    def __init__(self, violations: _zind.Violations) -> None:
        self._violations = violations

    def fileno(self) -> int:
        """A descriptor for an event loop, readable when :meth:`get` has something; it belongs to this object."""
        return self._violations.fileno()

    def get(self, timeout: float | None = None) -> Violation | None:
        """The next one; ``None`` when the time (seconds) is over first, or when there will be no more."""
        found = self._violations.next(timeout)
        if found is None:
            return None
        return Violation(
            found["syscall"], found["number"], tuple(found["args"]), found["pid"], found["errno"], found["arch"]
        )

    @property
    def over(self) -> bool:
        """True when all were told and there will be no more."""
        return self._violations.is_over

    @property
    def lost(self) -> int:
        """How many were not kept, since nobody read them: 4096 are."""
        return self._violations.lost

    def __iter__(self) -> Violations:
        return self

    def __next__(self) -> Violation:
        found = self.get()
        if found is None:
            raise StopIteration
        return found


class Call:
    """A system call that waits for an answer: exactly one of :meth:`answer`, :meth:`refuse`, :meth:`proceed` and
    :meth:`answer_fd`.

    What its arguments point to can be changed at any time by other threads of the program. So never let it
    :meth:`proceed` because of what was found there: do what it asks for in its place, or refuse it.
    """

    __slots__ = ("_notifier", "arch", "args", "id", "ip", "number", "pid", "syscall")

    #: Its name; ``None`` where the kernel has none.
    syscall: str | None
    #: Its six arguments.
    args: tuple[int, ...]
    #: The thread that called, as this program sees it.
    pid: int

    def __init__(self, notifier: _zind.Notifier, found: tuple[Any, ...]) -> None:
        self._notifier = notifier
        self.id, self.pid, self.number, self.syscall, self.arch, args, self.ip = found
        self.args = tuple(args)

    def __repr__(self) -> str:
        return f"<zind.Call {self.syscall or self.number}{self.args} of {self.pid}>"

    @property
    def waiting(self) -> bool:
        """True until it is answered, or a signal ends it."""
        return self._notifier.is_waiting(self.id)

    def answer(self, value: int = 0) -> None:
        """It returns this, without having been run. :raises zind.StateError: nobody waits for it any more."""
        self._notifier.answer(self.id, value)

    def refuse(self, errno: int = _errno.EPERM) -> None:
        """It fails with this, without having been run. :raises zind.StateError: as for :meth:`answer`."""
        self._notifier.refuse(self.id, errno)

    def proceed(self) -> None:
        """The kernel runs it, whatever its arguments point to by then. :raises zind.StateError: as for :meth:`answer`."""
        self._notifier.proceed(self.id)

    def answer_fd(self, fd: int | HasFileno, *, close_on_exec: bool = False) -> int:
        """It returns a copy of a descriptor: its number there. :raises zind.StateError: as for :meth:`answer`."""
        return self._notifier.answer_fd(self.id, _number(fd), close_on_exec)

    def add_fd(self, fd: int | HasFileno, target: int | None = None, *, close_on_exec: bool = False) -> int:
        """Gives the program a copy of a descriptor, in place of ``target`` if that is given; the call goes on waiting."""
        return self._notifier.add_fd(self.id, _number(fd), target, close_on_exec)

    def read(self, address: int, size: int) -> bytes:
        """The program's memory; less than ``size`` where it ends. :raises zind.SysError: ``EFAULT``, ``EPERM``."""
        return self._notifier.read(self.id, address, size)

    def read_text(self, address: int, most: int = 4096) -> str:
        """A text of the program's memory that ends with a NUL: a path. :raises zind.SysError: as for :meth:`read`;
        ``ENAMETOOLONG``."""
        return os.fsdecode(self._notifier.read_text(self.id, address, most))

    def write(self, address: int, data: bytes) -> int:
        """Changes the program's memory. :raises zind.SysError: as for :meth:`read`."""
        return self._notifier.write(self.id, address, data)


def _number(fd: int | HasFileno) -> int:
    return fd if isinstance(fd, int) else fd.fileno()


class Notifier:
    """Decides about the calls for which a container's profile says ``SCMP_ACT_NOTIFY``: :attr:`zind.Popen.notifier`. An
    iterator, which blocks and ends with the container; :meth:`fileno` is readable when a call waits. Closed, calls fail with
    ``ENOSYS``."""

    def __init__(self, notifier: _zind.Notifier) -> None:
        self._notifier = notifier

    def fileno(self) -> int:
        """The listener: seccomp_unotify(2); it belongs to this object."""
        return self._notifier.fileno()

    def get(self, timeout: float | None = None) -> Call | None:
        """The next call; ``None`` when the time (seconds) is over first, or when there will be no more."""
        found = self._notifier.receive(timeout)
        return None if found is None else Call(self._notifier, found)

    @property
    def over(self) -> bool:
        """True when nobody is left who could call, and once it is closed."""
        return self._notifier.is_over

    def detach(self) -> int:
        """The listener's descriptor, which belongs to the caller from now on; this object is closed."""
        return self._notifier.detach()

    def close(self) -> None:
        """Calls that wait, and all later ones, fail; twice is fine."""
        self._notifier.close()

    def __iter__(self) -> Notifier:
        return self

    def __next__(self) -> Call:
        call = self.get()
        if call is None:
            raise StopIteration
        return call

    def __enter__(self) -> Notifier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def take(given: dict[str, Any]) -> tuple[NotifyFunction | None, ViolationFunction | None]:
    """Takes the functions out of the options."""
    notify = given.pop("notify", None)
    violations = given.get("violations")
    if not callable(violations):
        violations = None
    else:
        given["violations"] = True
    if notify is not None and not callable(notify):
        raise TypeError("notify is a function that gets a zind.Call")
    return notify, violations


def settle(call: Call, value: Any) -> None:
    """What a function that was asked has returned: a number is the answer, else a call that still waits is refused."""
    from .errors import StateError

    try:
        if isinstance(value, int):
            call.answer(value)
        elif call.waiting:
            call.refuse()
    except StateError:
        pass


def serving(
    process: _zind.Process, notify: NotifyFunction | None, violations: ViolationFunction | None
) -> Serving | None:
    """Threads for the functions; ``None`` where there are none to call."""
    return None if notify is None and violations is None else Serving(process, notify, violations)


class Serving:
    """Threads that call the functions of a process: the first exception of theirs is kept."""

    def __init__(
        self, process: _zind.Process, notify: NotifyFunction | None, violations: ViolationFunction | None
    ) -> None:
        self.error: BaseException | None = None
        self.notifier: Notifier | None = None
        found = process.take_notifier()
        if found is not None:
            self.notifier = Notifier(found)
        self._threads: list[threading.Thread] = []
        if notify is not None and self.notifier is not None:
            self._begin(self._answer, self.notifier, notify)
        if violations is not None:
            self._begin(self._tell, Violations(process.violations()), violations)

    def _begin(self, work: Any, *args: Any) -> None:
        # Needed by few: it is no part of what importing zind costs.
        import threading

        # Daemons: they end with the container, which may be left running on purpose.
        thread = threading.Thread(target=work, args=args, name="zind-seccomp", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _keep(self, error: BaseException) -> None:
        if self.error is None:
            self.error = error

    def _answer(self, notifier: Notifier, function: NotifyFunction) -> None:
        for call in notifier:
            value = None
            try:
                value = function(call)
            except BaseException as error:
                # A question without an answer is a refusal.
                self._keep(error)
            settle(call, value)

    def _tell(self, violations: Violations, function: ViolationFunction) -> None:
        for violation in violations:
            try:
                function(violation)
            except BaseException as error:
                self._keep(error)

    def join(self) -> None:
        """After the end of the container: everything was told. Raises what the functions raised first."""
        for thread in self._threads:
            # It may be the function itself that waits.
            if thread.ident != _thread.get_ident():
                thread.join()
        error, self.error = self.error, None
        if error is not None and sys.exc_info()[0] is None:
            raise error


def learned(process: _zind.Process) -> dict[str, Any]:
    """The profile that was learned."""
    import json

    profile: dict[str, Any] = json.loads(process.learned())
    return profile
