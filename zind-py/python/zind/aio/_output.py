"""What a container writes, awaited."""

from __future__ import annotations

from .._output import Attachment as _Attachment
from .._output import Chunk, LogLine
from .._output import Logs as _Logs
from ._loop import _readable, _soon

__all__ = ["Attachment", "Logs"]


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
