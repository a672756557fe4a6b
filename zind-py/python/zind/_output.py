"""What a container writes: its log, and connections to its streams while it runs."""

from __future__ import annotations

import io
import time
from collections import namedtuple

from . import _zind
from .errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime
    from types import TracebackType
    from typing import IO, Literal, NamedTuple, Union

    from ._options import Size

    Moment = Union[float, datetime, None]

    class _LogOptionsBase(NamedTuple):
        size: Size = "16m"
        files: int = 2

    class _LogLineBase(NamedTuple):
        time: float
        stream: Literal["stdout", "stderr"]
        text: bytes
        whole: bool
        lost: int = 0

    class _ChunkBase(NamedTuple):
        stream: Literal["stdout", "stderr"]
        data: bytes

else:
    _LogOptionsBase = namedtuple("_LogOptionsBase", "size files", defaults=("16m", 2))
    _LogLineBase = namedtuple("_LogLineBase", "time stream text whole lost", defaults=(0,))
    _ChunkBase = namedtuple("_ChunkBase", "stream data")

__all__ = ["Attachment", "Chunk", "LogLine", "LogOptions", "Logs"]


class LogOptions(_LogOptionsBase):
    """How much of a container's output is kept: ``size`` of one file, and how many ``files``; the oldest one goes. With
    ``files=0`` nothing is kept."""

    __slots__ = ()


class LogLine(_LogLineBase):
    """A line that a container has written: ``time`` (seconds since 1970) of its last part, ``stream``, ``text`` without the
    newline. ``whole`` is False for a last line that has no newline, for a part of one longer than a mebibyte, and before a gap.

    ``lost`` is how many bytes of either stream are missing before this line, which may begin in the middle of one then: the disk
    had no room for them, or they were thrown away after :meth:`zind.Container.logs` was called and before they could be read (a
    log of more than ``log=`` allows). If they are the last of all, a line without text tells it."""

    __slots__ = ()

    def __str__(self) -> str:
        return self.text.decode(errors="replace")


class Chunk(_ChunkBase):
    """A piece of output, as it came."""

    __slots__ = ()


def _within(field: str, value: int | None, least: int, most: int = 2**64 - 1) -> None:
    if value is not None and not least <= value <= most:
        raise SpecError(f"{field}: {value} is not within {least} to {most}", field)


def _seconds(moment: Moment) -> float | None:
    if moment is None or isinstance(moment, (int, float)):
        return moment
    return moment.timestamp()


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
        """All lines that are left, as bytes. Whether some are missing :attr:`zind.LogLine.lost` tells."""
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
        """Lets go of its descriptors, and ends the wait of another thread; twice is fine."""
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
        """Lets go of the container, which goes on, and ends the wait of another thread; twice is fine."""
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
