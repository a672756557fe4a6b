"""A terminal as somebody sees it: a program in a pseudo-terminal of its own, and the screen that its output makes."""

from __future__ import annotations

import fcntl
import os
import pathlib
import re
import select
import struct
import subprocess
import termios
import time

import pytest

#: How long something that must come may take: a busy machine is slow.
PATIENCE = 50


class Screen:
    """What xterm would show, as far as bash, vim, top and less write it. Colours are passed over."""

    _SEQUENCE = re.compile(rb"\x1b(?:\[([0-9;?<=>!]*)[ -/]*([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)|P[^\x1b]*\x1b\\|[()*+#%].|([^\[\]P()*+#%]))", re.S)

    def __init__(self, rows: int, cols: int) -> None:
        self.rows, self.cols = rows, cols
        self.lines = [[" "] * cols for _ in range(rows)]
        self.y = self.x = 0
        self.top, self.bottom = 0, rows - 1
        self._kept: tuple[int, int] = (0, 0)
        self._other: list[list[str]] | None = None
        self._rest = b""

    def resize(self, rows: int, cols: int) -> None:
        """At the top left, as it was."""
        kept = self.lines[max(0, self.y - rows + 1) :][:rows]
        self.y = min(self.y, rows - 1)
        self.x = min(self.x, cols - 1)
        self.lines = [(line + [" "] * cols)[:cols] for line in kept] + [[" "] * cols for _ in range(rows - len(kept))]
        self.rows, self.cols, self.top, self.bottom = rows, cols, 0, rows - 1

    def text(self) -> str:
        return "\n".join("".join(line).rstrip() for line in self.lines).rstrip("\n") + "\n"

    def feed(self, data: bytes) -> None:
        data = self._rest + data
        at = 0
        while at < len(data):
            if data[at] == 0x1B:
                found = self._SEQUENCE.match(data, at)
                if found is None:
                    # The rest of it is still to come.
                    break
                at = found.end()
                if found[2]:
                    self._control(found[1].decode(), found[2].decode())
                elif found[3]:
                    self._escape(found[3])
                continue
            end = at + 1
            if data[at] >= 0x80:
                length = 2 if data[at] < 0xE0 else 3 if data[at] < 0xF0 else 4
                if len(data) - at < length:
                    break
                end = at + length
            self._plain(data[at:end].decode(errors="replace"))
            at = end
        self._rest = data[at:]

    def _plain(self, character: str) -> None:
        if character == "\r":
            self.x = 0
        elif character in "\n\v\f":
            self._down()
        elif character == "\b":
            self.x = max(0, min(self.x, self.cols - 1) - 1)
        elif character == "\t":
            self.x = min(self.cols - 1, (self.x // 8 + 1) * 8)
        elif character >= " " and character != "\x7f":
            if self.x >= self.cols:
                self.x = 0
                self._down()
            self.lines[self.y][self.x] = character[0]
            self.x += 1

    def _down(self) -> None:
        if self.y == self.bottom:
            self._scroll(self.top, 1)
        else:
            self.y = min(self.rows - 1, self.y + 1)

    def _scroll(self, at: int, by: int) -> None:
        """Lines from ``at`` to the end of the region go up, or down if ``by`` is negative."""
        region = self.lines[at : self.bottom + 1]
        blank = [[" "] * self.cols for _ in range(min(abs(by), len(region)))]
        self.lines[at : self.bottom + 1] = region[len(blank) :] + blank if by > 0 else blank + region[: len(region) - len(blank)]

    def _escape(self, what: bytes) -> None:
        if what == b"M":
            if self.y == self.top:
                self._scroll(self.top, -1)
            else:
                self.y = max(0, self.y - 1)
        elif what in b"DE":
            self._down()
            self.x = 0 if what == b"E" else self.x
        elif what == b"7":
            self._kept = (self.y, self.x)
        elif what == b"8":
            self.y, self.x = self._kept

    def _control(self, given: str, what: str) -> None:
        numbers = [int(part) if part.isdigit() else 0 for part in given.lstrip("?<=>!").split(";")]
        one = max(1, numbers[0])
        line = self.lines[self.y]
        self.x = min(self.x, self.cols - 1) if what not in "mhlnc" else self.x
        if what in "Hf":
            self.y = min(self.rows, one) - 1
            self.x = min(self.cols, max(1, numbers[1] if len(numbers) > 1 else 1)) - 1
        elif what == "A":
            self.y = max(0, self.y - one)
        elif what in "Be":
            self.y = min(self.rows - 1, self.y + one)
        elif what in "Ca":
            self.x = min(self.cols - 1, self.x + one)
        elif what == "D":
            self.x = max(0, self.x - one)
        elif what in "G`":
            self.x = min(self.cols, one) - 1
        elif what == "d":
            self.y = min(self.rows, one) - 1
        elif what == "K":
            start, end = [(self.x, self.cols), (0, self.x + 1), (0, self.cols)][numbers[0]]
            line[start:end] = [" "] * (end - start)
        elif what == "J":
            rows = [range(self.y + 1, self.rows), range(self.y), range(self.rows)][min(numbers[0], 2)]
            for row in rows:
                self.lines[row] = [" "] * self.cols
            if numbers[0] < 2:
                start, end = [(self.x, self.cols), (0, self.x + 1)][numbers[0]]
                self.lines[self.y][start:end] = [" "] * (end - start)
        elif what == "L":
            self._scroll(self.y, -one)
        elif what == "M":
            self._scroll(self.y, one)
        elif what == "S":
            self._scroll(self.top, one)
        elif what == "T":
            self._scroll(self.top, -one)
        elif what == "P":
            self.lines[self.y] = (line[: self.x] + line[self.x + one :] + [" "] * one)[: self.cols]
        elif what == "@":
            self.lines[self.y] = (line[: self.x] + [" "] * one + line[self.x :])[: self.cols]
        elif what == "X":
            line[self.x : self.x + one] = [" "] * len(line[self.x : self.x + one])
        elif what == "r":
            self.top, self.bottom = one - 1, (numbers[1] if len(numbers) > 1 and numbers[1] else self.rows) - 1
            self.y = self.x = 0
        elif what in "hl" and given.startswith("?") and {1049, 47, 1047} & set(numbers):
            if what == "h" and self._other is None:
                self._kept, self._other = (self.y, self.x), self.lines
                self.lines = [[" "] * self.cols for _ in range(self.rows)]
            elif what == "l" and self._other is not None:
                self.lines, self._other = self._other, None
                self.lines = ([(row + [" "] * self.cols)[: self.cols] for row in self.lines] + [[" "] * self.cols for _ in range(self.rows)])[: self.rows]
                self.y, self.x = min(self._kept[0], self.rows - 1), min(self._kept[1], self.cols - 1)


class Session:
    """A program in a terminal, its leader; ``slave`` is kept open, so that the terminal's modes can be read when it is gone."""

    def __init__(self, *argv: str, rows: int = 24, cols: int = 80, leads: bool = True, **options: object) -> None:
        self.master, self.slave = os.openpty()
        self.screen = Screen(rows, cols)
        self.shown = b""
        self._resize(rows, cols)
        self.before = termios.tcgetattr(self.slave)
        lead = (lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)) if leads else None
        streams = {"stdin": self.slave, "stdout": self.slave, "stderr": self.slave}
        self.process = subprocess.Popen(argv, **{**streams, "start_new_session": True, "preexec_fn": lead, **options})
        self.pidfd = os.pidfd_open(self.process.pid)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for fd in (self.master, self.slave, self.pidfd):
            if fd >= 0:
                os.close(fd)

    def _resize(self, rows: int, cols: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def resize(self, rows: int, cols: int) -> None:
        """The window; whoever is in the foreground of the terminal is told by SIGWINCH."""
        self.screen.resize(rows, cols)
        self._resize(rows, cols)

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO)

    def is_as_before(self) -> bool:
        return termios.tcgetattr(self.slave) == self.before

    def _read(self, until: float) -> bool:
        """False: nothing came, and nothing will."""
        ready, _, _ = select.select([self.master, self.pidfd], [], [], max(0, until - time.monotonic()))
        if self.master not in ready:
            return False
        piece = os.read(self.master, 65536)
        self.screen.feed(piece)
        self.shown += piece
        return True

    def until(self, word: str, patience: float = PATIENCE) -> str:
        """What is written up to this word, which is taken, too."""
        end, wanted = time.monotonic() + patience, word.encode()
        while wanted not in self.shown:
            if not self._read(end):
                pytest.fail(f"{word!r} was not written: {self.shown!r}; the screen:\n{self.screen.text()}")
        before, self.shown = self.shown.split(wanted, 1)
        return before.decode(errors="replace")

    def shows(self, *words: str, patience: float = PATIENCE) -> None:
        """Waits until all of this is on the screen at once."""
        end = time.monotonic() + patience
        while not all(word in self.screen.text() for word in words):
            if not self._read(end):
                pytest.fail(f"{words!r} are not on the screen:\n{self.screen.text()}")
        self.shown = b""

    def has_lines(self, count: int, patience: float = PATIENCE) -> None:
        """Waits until so many lines of the screen are in use."""
        end = time.monotonic() + patience
        while len(self.screen.text().splitlines()) < count:
            if not self._read(end):
                pytest.fail(f"there are fewer than {count} lines:\n{self.screen.text()}")
        self.shown = b""

    def looks_like(self, text: str, patience: float = PATIENCE) -> None:
        """Waits until the screen is this."""
        end = time.monotonic() + patience
        while self.screen.text() != text:
            if not self._read(end):
                assert self.screen.text() == text
        self.shown = b""

    def settled(self) -> str:
        """The screen when nothing was written for a while. For recording; a test waits for what has to come."""
        while self._read(time.monotonic() + 1):
            pass
        return self.screen.text()

    def end(self, patience: float = PATIENCE) -> int:
        """Its exit code, of a signal the negative number."""
        end = time.monotonic() + patience
        while self.process.poll() is None:
            if not self._read(end) and time.monotonic() >= end:
                pytest.fail(f"it does not end: {self.shown!r}; the screen:\n{self.screen.text()}")
        return self.process.returncode

    def hang_up(self) -> None:
        """The window is closed."""
        os.close(self.master)
        self.master = -1

    def end_without_terminal(self, patience: float = PATIENCE) -> int:
        return self.process.wait(patience)


RECORDS = pathlib.Path(__file__).parent / "sessions"


class Record:
    """A session as it was seen: what was typed, and the screen after it. ``ZIND_UPDATE=1`` writes it anew."""

    def __init__(self, name: str, session: Session) -> None:
        self._path = RECORDS / f"{name}.txt"
        self._session = session
        self._new: list[str] | None = [] if os.environ.get("ZIND_UPDATE") else None
        self._blocks = [] if self._new is not None else self._path.read_text().split("=== ")[1:]

    def type(self, what: str, keys: str) -> None:
        """Types, and waits for the screen that the record has next."""
        self._session.type(keys)
        self.next(what)

    def next(self, what: str) -> None:
        if self._new is not None:
            text = self._session.settled()
        else:
            title, _, text = self._blocks.pop(0).partition("\n")
            assert title == what
            self._session.looks_like(text)
        if self._new is not None:
            self._new.append(f"=== {what}\n{text}")

    def close(self) -> None:
        if self._new is not None:
            RECORDS.mkdir(exist_ok=True)
            self._path.write_text("".join(self._new))
        assert not self._blocks
