"""Text modes, as subprocess has them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Text:
    """Whether and how bytes become text: ``text=``, ``universal_newlines=``, ``encoding=``, ``errors=``."""

    __slots__ = ("encoding", "errors", "on")

    def __init__(self, text: bool | None, encoding: str | None, errors: str | None) -> None:
        self.on = bool(text or encoding or errors)
        self.encoding = encoding
        self.errors = errors or "strict"

    def _codec(self) -> str:
        if self.encoding:
            return self.encoding
        import locale

        return locale.getpreferredencoding(False)

    def encode(self, data: Any, name: str = "input") -> bytes:
        """What goes to the payload."""
        if data is None:
            return b""
        if isinstance(data, str):
            if not self.on:
                raise TypeError(f"{name} is text: give bytes, or text=True")
            return data.encode(self._codec(), self.errors)
        if self.on:
            raise TypeError(f"{name} is bytes: give text, or leave text=True out")
        return bytes(data)

    def decode(self, data: bytes) -> Any:
        """What came from the payload."""
        if not self.on:
            return data
        return data.decode(self._codec(), self.errors).replace("\r\n", "\n").replace("\r", "\n")
