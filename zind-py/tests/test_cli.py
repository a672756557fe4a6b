"""The command in a terminal: what somebody who sits there sees. (Everything else about it is in zind-cli/tests/sessions.)"""

from __future__ import annotations

import fcntl
import os
import pathlib
import pty
import select
import struct
import subprocess
import sys
import termios
import time

import pytest

import zind

#: That of the wheel, unless another one is to be tested.
COMMAND = os.environ.get("ZIND_COMMAND") or str(pathlib.Path(sys.executable).parent / "zind")


@pytest.fixture(autouse=True)
def store(monkeypatch, tmp_path):
    monkeypatch.setenv("ZIND_STORE", str(tmp_path / "store"))


class Terminal:
    """A command in a terminal of its own, and what it shows."""

    def __init__(self, *words: str, rows: int = 30, cols: int = 100) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
            os.execv(COMMAND, [COMMAND, *words])
        self.shown = b""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def type(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def until(self, word: bytes, patience: float = 60) -> bytes:
        """All that is shown until `word` is, which is taken."""
        end = time.monotonic() + patience
        while word not in self.shown:
            ready, _, _ = select.select([self.fd], [], [], max(0, end - time.monotonic()))
            try:
                more = os.read(self.fd, 65536) if ready else b""
            except OSError:
                more = b""
            assert more, f"{word!r} was not shown: {self.shown!r}"
            self.shown += more
        before, self.shown = self.shown.split(word, 1)
        return before

    def resize(self, rows: int, cols: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.fd)[3] & termios.ICANON

    def end(self) -> int:
        try:
            while os.read(self.fd, 65536):
                pass
        except OSError:
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def shell(*options: str) -> list[str]:
    return ["run", *options, "-it", "-e", "PS1=$ ", "host", "bash", "--norc", "--noediting"]


def test_it_is_the_same_version():
    shown = subprocess.run([COMMAND, "version"], check=True, capture_output=True, text=True).stdout
    assert shown == f"zind {zind.__version__}\n"


@pytest.mark.parametrize("options", [["--rm"], ["--rm", "--name", "box"]])
def test_a_shell_feels_like_a_local_one(options):
    with Terminal(*shell(*options)) as terminal:
        terminal.until(b"$ ")
        assert terminal.is_raw()
        terminal.type(b"stty size\n")
        terminal.until(b"30 100")
        terminal.resize(40, 120)
        terminal.type(b"while [ \"$(stty size)\" != '40 120' ]; do sleep 0.1; done; echo re''sized\n")
        terminal.until(b"resized")
        terminal.type(b"echo rea''dy; cat\n")
        terminal.until(b"ready")
        # It has the terminal when it answers.
        terminal.type(b"first\n")
        terminal.until(b"first\r\nfirst")
        terminal.type(b"\x1a")
        terminal.until(b"Stopped")
        terminal.type(b"fg\n")
        terminal.type(b"to the cat\n")
        # Once by the terminal, once by cat.
        terminal.until(b"to the cat")
        terminal.until(b"to the cat")
        terminal.type(b"\x03")
        # What is typed before it has ended goes with it.
        terminal.until(b"^C")
        terminal.until(b"$ ")
        terminal.type(b"echo code $?\n")
        terminal.until(b"code 130")
        terminal.type(b"exit 7\n")
        assert terminal.end() == 7


def test_detach_keys_leave_it_running_and_attach_comes_back():
    with Terminal(*shell("--rm", "--name", "box")) as terminal:
        terminal.until(b"$ ")
        terminal.type(b"kept=here\n")
        terminal.until(b"$ ")
        terminal.type(b"\x10\x11")
        terminal.until(b"goes on")
        assert terminal.end() == 0
    with Terminal("exec", "-it", "box", "sh", "-c", "tty; stty size; exit 5") as terminal:
        terminal.until(b"/dev/pts/")
        terminal.until(b"30 100")
        assert terminal.end() == 5
    with Terminal("attach", "box") as terminal:
        terminal.type(b"echo $kept\n")
        terminal.until(b"\nhere")
        terminal.type(b"exit\n")
        assert terminal.end() == 0


def test_tables_fit_the_terminal_and_colours_are_for_terminals():
    with Terminal("lsns", cols=60) as terminal:
        text = terminal.until(b"4026")
        assert terminal.end() == 0
    assert all(len(line) <= 60 for line in text.decode(errors="replace").splitlines())
    made = subprocess.run([COMMAND, "create", "host", "true", "x" * 80], capture_output=True, text=True, check=True)
    for words, whole in ((["ps", "-a"], False), (["ps", "-a", "--no-trunc"], True)):
        with Terminal(*words, cols=60) as terminal:
            terminal.until(b"NAMES")
            shown = terminal.until(b"Created")
            assert terminal.end() == 0
        assert (made.stdout.strip().encode() in shown and b"x" * 80 in shown) is whole, shown
    with Terminal("run", "host", "nosuchprogram") as terminal:
        terminal.until(b"nosuchprogram")
        assert terminal.end() == 127
