"""Terminals of payloads: shells with job control, windows that are resized, and the caller's own terminal beside them."""

from __future__ import annotations

import errno
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
import tty

import pytest

import kit
import zind


#: Sequences that move the cursor or change colours.
CONTROL = re.compile(r"\x1b[\[(][?0-9;]*[a-zA-Z]|\r(?!\n)")


class Screen:
    """Types at a terminal and waits for what it shows."""

    def __init__(self, fd: int) -> None:
        self.fd, self.shown = fd, ""

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def expect(self, text: str, timeout: float = 30) -> str:
        """What was shown up to and with ``text``; it is not looked at again."""
        deadline = time.monotonic() + timeout
        while text not in self.shown:
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                pytest.fail(f"{text!r} was not shown, but {self.shown!r}")
        before, _, self.shown = self.shown.partition(text)
        return before + text

    def _read(self, timeout: float) -> bool:
        if not select.select([self.fd], [], [], timeout)[0]:
            return False
        try:
            piece = os.read(self.fd, 65536)
        except OSError as error:
            assert error.errno == errno.EIO
            return False
        self.shown += CONTROL.sub("", piece.decode(errors="replace"))
        return bool(piece)


@pytest.fixture
def shell():
    """An interactive bash in a container, and its screen."""
    p = zind.Popen(["bash", "--norc", "--noprofile", "-i"], pty=zind.Pty(24, 80), env={"PS1": "READY> ", "HISTFILE": ""})
    screen = Screen(p.terminal.fileno())
    screen.expect("READY> ")
    yield p, screen
    p.kill()
    with p:
        pass
    # An ended container keeps its pidfd until it is forgotten.
    del p._process


def test_a_shell_has_job_control(shell):
    p, screen = shell
    screen.type("tty; echo $TERM\r")
    screen.expect("/dev/pts/0\r\nxterm\r\n")
    screen.type("sleep 700\r")
    screen.expect("sleep 700\r\n")
    kit.wait_until(lambda: any(one.cmdline == ["sleep", "700"] for one in p.processes()))
    screen.type("\x1a")  # Ctrl-Z
    screen.expect("Stopped")
    screen.expect("READY> ")
    screen.type("bg\r")
    screen.expect("sleep 700 &")
    screen.type("fg\r")
    screen.expect("sleep 700\r\n")
    screen.type("\x03")  # Ctrl-C
    screen.expect("READY> ")
    screen.type("echo $?; jobs; echo over\r")
    screen.expect("130\r\nover\r\n")
    screen.type("exit 5\r")
    assert p.wait(30) == 5


def test_a_window_that_is_resized(shell):
    p, screen = shell
    screen.type("stty size; trap 'echo changed: $(stty size)' WINCH\r")
    screen.expect("24 80\r\n")
    screen.expect("READY> ")
    p.resize(50, 132)
    screen.type("\r")
    screen.expect("changed: 50 132")
    screen.type("stty size; echo $LINES $COLUMNS\r")
    screen.expect("\r\n50 132\r\n")


@pytest.mark.parametrize(("argv", "shown", "leave"), [(["vi", "-u", "NONE", "/tmp/x"], "/tmp/x", "\x1b:q!\r"), (["top", "-d", "60"], "%Cpu", "q")])
def test_full_screen_programs(argv, shown, leave):
    kit.needs_program(argv[0])
    with zind.Popen(["sleep", "701"], stdin=zind.DEVNULL) as p:
        with p.popen(argv, pty=zind.Pty(20, 70)) as q:
            screen = Screen(q.terminal.fileno())
            screen.expect(shown)
            screen.type(leave)
            assert q.wait(30) == 0
        p.kill()


def test_a_terminal_that_is_closed_hangs_up(shell):
    p, screen = shell
    p.terminal.close()
    assert p.wait(30) in (0, 129, -1)
    kit.refused(zind.StateError, lambda: p.resize(1, 1), hint=False)


def test_captured():
    r = zind.run(["sh", "-c", "stty size; test -t 1 && echo terminal; cat"], pty=zind.Pty(9, 44), capture_output=True, text=True, input="typed\n")
    # What was typed is echoed as soon as it is.
    assert sorted(r.stdout.split("\n")) == sorted(["9 44", "terminal", "typed", "typed", ""])
    assert zind.run(["sh", "-c", "exit 3"], pty=True, capture_output=True).returncode == 3
    with pytest.raises(zind.TimeoutExpired):
        zind.run(["sleep", "702"], pty=True, capture_output=True, timeout=0.5)
    with pytest.raises(ValueError):
        zind.run(["true"], pty=True, stdout=zind.DEVNULL)
    kit.refused(zind.SpecError, lambda: zind.run(["true"], pty=(0, 5)), field="terminal")
    with pytest.raises(TypeError):
        zind.run(["true"], pty="yes")


def test_the_console_is_the_terminal():
    r = zind.run(["sh", "-c", "echo one >/dev/console; ls /dev/pts"], pty=True, capture_output=True, text=True)
    assert r.stdout.split() == ["one", "0", "ptmx"]


def test_of_another_user_and_of_a_user_namespace():
    kit.needs_root("users")
    look = ["sh", "-c", "stat -c %u:%G $(tty) 2>&1; echo x >$(tty)"]
    assert zind.run(look, pty=True, capture_output=True, text=True, user="12:13").stdout.split() == ["12:tty", "x"]
    maps = [(0, 100000, 65536)]
    with zind.Popen(["sleep", "703"], stdin=zind.DEVNULL, uid_map=maps, gid_map=maps) as p:
        for user in (0, 12):
            r = p.exec(look, pty=True, capture_output=True, text=True, user=f"{user}:0")
            assert r.stdout.split() == [f"{user}:tty", "x"]
        p.kill()


def test_nothing_can_be_typed_into_the_callers_terminal():
    """CVE-2017-5226: TIOCSTI is refused on the container's own terminal as on any other."""
    source = "import fcntl, termios\ntry:\n fcntl.ioctl(0, termios.TIOCSTI, b'#')\n print('typed')\nexcept OSError as error: print(error.errno)"
    r = zind.run(["python3", "-c", source], pty=True, capture_output=True, text=True)
    assert r.stdout.strip() == str(errno.EPERM)


INTERACTIVE = """
import sys, zind
if sys.argv[1] == "exec":
    with zind.Popen(["sleep", "704"], stdin=zind.DEVNULL) as p:
        r = p.exec(["bash", "--norc", "--noprofile", "-i"], env={"PS1": "READY> ", "HISTFILE": ""}, pty=True)
        p.kill()
else:
    r = zind.run(["bash", "--norc", "--noprofile", "-i"], env={"PS1": "READY> ", "HISTFILE": ""}, pty=True)
print("left with", r.returncode)
"""


@pytest.mark.parametrize("how", ["run", "exec"])
def test_this_programs_own_terminal(how):
    """``run(pty=True)`` feels like a local shell, and the terminal is as before afterwards."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (31, 99)) if hasattr(termios, "tcsetwinsize") else zind._zind.resize(slave, 31, 99)
    before = termios.tcgetattr(slave)
    child = subprocess.Popen([sys.executable, "-c", INTERACTIVE, how], stdin=slave, stdout=slave, stderr=slave, env=kit.child_env(), start_new_session=True)
    try:
        screen = Screen(master)
        screen.expect("READY> ")
        assert termios.tcgetattr(slave)[tty.LFLAG] & (termios.ICANON | termios.ECHO) == 0
        screen.type("stty size\r")
        screen.expect("31 99\r\n")
        zind._zind.resize(slave, 40, 101)
        screen.expect("READY> ")
        time.sleep(0.5)
        screen.type("stty size; sleep 705\r")
        screen.expect("40 101\r\n")
        time.sleep(0.3)
        screen.type("\x03")
        screen.expect("READY> ")
        screen.type("exit 6\r")
        screen.expect("left with 6\r\n")
        assert child.wait(30) == 0
        assert termios.tcgetattr(slave) == before
    finally:
        child.kill()
        child.wait()
        os.close(master)
        os.close(slave)


def test_a_caller_whose_terminal_vanishes():
    master, slave = pty.openpty()
    child = subprocess.Popen([sys.executable, "-c", INTERACTIVE, "run"], stdin=slave, stdout=slave, stderr=subprocess.DEVNULL, env=kit.child_env(), start_new_session=True)
    os.close(slave)
    Screen(master).expect("READY> ")
    os.close(master)
    child.wait(30)
