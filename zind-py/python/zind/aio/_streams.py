"""The streams of a program: asyncio's, and a terminal that is talked to."""

from __future__ import annotations

import asyncio
import os
from subprocess import PIPE

from .._process import _is, only_terminal, streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any


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
