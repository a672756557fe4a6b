"""Whole sessions at a terminal with the command: shells, an editor, full screens, and every way in and out of them."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess

import pytest

import kit
from screen import PATIENCE, Record, Session
from test_cli import COMMAND, store  # noqa: F401

BASH = ("bash", "--norc", "--noprofile")
PROMPT = "box$ "
SETTINGS = ("-e", f"PS1={PROMPT}", "-e", "HISTFILE=", "-e", "LC_ALL=C")
WAYS = ["run", "run --name", "exec", "attach"]


def zind(*words: str, check: bool = True) -> str:
    done = subprocess.run([COMMAND, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout


def eventually(condition) -> bool:
    return kit.wait_until(condition, PATIENCE)


def listed() -> list[str]:
    """All that is there, running or not."""
    return zind("ps", "-aq").split()


@contextlib.contextmanager
def session(way: str, *program: str, rows: int = 24, cols: int = 80, **options):
    """A program in a terminal within a terminal. Whatever was started for it is gone afterwards."""
    program = program or BASH
    if way == "exec":
        zind("run", "-d", "--name", "box", "host", "sleep", "1000")
        words = ["exec", "-it", *SETTINGS, "box", *program]
    elif way == "attach":
        zind("run", "-dit", "--name", "box", *SETTINGS, "host", *program)
        words = ["attach", "box"]
    else:
        words = [*way.split(), *(["box"] if "--name" in way else []), "--rm", "-it", *SETTINGS, "host", *program]
    try:
        with Session(COMMAND, *words, rows=rows, cols=cols, **options) as terminal:
            yield terminal
    finally:
        for name in listed():
            zind("rm", "-f", name, check=False)
    assert eventually(lambda: listed() == [])


@contextlib.contextmanager
def shell(way: str, **options):
    with session(way, **options) as terminal:
        if way == "attach":
            # The first one was written before anybody was there, and comes once more for the size of this terminal: what is read from
            # here on is to be the answer to what is typed.
            terminal.type("echo he''re\r")
            terminal.until("here\r\n")
        terminal.until(PROMPT)
        assert terminal.is_raw()
        yield terminal


@pytest.mark.parametrize("way", WAYS)
def test_a_shell_with_job_control(way):
    with shell(way) as terminal:
        terminal.type("sh -c 'echo u''p; exec cat'\r")
        terminal.until("up\r\n")
        # Once by the terminal, once by cat.
        terminal.type("first\r")
        terminal.until("first\r\nfirst\r\n")
        terminal.type("\x1a")
        terminal.until("Stopped")
        terminal.until(PROMPT)
        terminal.type("jobs\r")
        terminal.until("Stopped")
        terminal.until(PROMPT)
        terminal.type("fg\r")
        # It says what goes on when the terminal is as that one needs it.
        terminal.until("exec cat'\r\n")
        terminal.type("second\r")
        terminal.until("second\r\nsecond\r\n")
        terminal.type("\x03")
        terminal.until("^C")
        terminal.until(PROMPT)
        terminal.type("echo co''de $?\r")
        terminal.until("code 130\r\n")
        # Stopped in the foreground, and on in the background.
        terminal.type("sh -c 'echo u''p; exec sleep 1000'\r")
        terminal.until("up\r\n")
        terminal.type("\x1a")
        terminal.until("Stopped")
        terminal.type("bg; jobs -r\r")
        terminal.until("Running")
        terminal.type("kill %%; wait; jobs; echo no''body\r")
        terminal.until("nobody\r\n")
        # A shell with a child: both are interrupted, and the outer one is not. The child says when it is there: what comes
        # between dash's deciding to have one and its having it, is lost to any of them.
        terminal.type("sh -c 'sh -c \"echo u\\p; exec sleep 1001\"; echo not reached'\r")
        terminal.until("up\r\n")
        terminal.type("\x03")
        terminal.until(PROMPT)
        terminal.type("echo co''de $?\r")
        assert "not reached" not in terminal.until("code 130\r\n")
        assert kit.running("sleep", "1001") == []
        terminal.type("exit 7\r")
        assert terminal.end() == 7
        assert terminal.is_as_before()


@pytest.mark.parametrize("way", WAYS)
def test_a_window_that_is_resized(way):
    with shell(way, rows=31, cols=99) as terminal:
        terminal.type("stty size\r")
        terminal.until("31 99\r\n")
        for rows, cols in [(50, 132), (5, 20), (24, 80)]:
            terminal.resize(rows, cols)
            terminal.until(PROMPT)
            terminal.type("until [ \"$(stty size)\" = '%d %d' ]; do sleep 0.05; done; echo re''sized\r" % (rows, cols))
            terminal.until("resized\r\n")
        terminal.type("exit\r")
        assert terminal.end() == 0


@pytest.mark.parametrize("way", ["run", "exec"])
def test_an_editor(way):
    kit.needs_program("vim.tiny")
    with shell(way, rows=14, cols=50) as terminal:
        record = Record("editor", terminal)
        # As a bare line, so that nothing of the shell's editing is in the record.
        record.type("the editor", "vim.tiny -u NONE -N -i NONE /tmp/edited\r")
        record.type("some words", "isome words")
        terminal.type("\x1b")
        terminal.resize(10, 60)
        record.next("a wider window while it is open")
        record.type("its size as the editor sees it", ":set lines? columns?\r")
        record.type("back in the text", "\r")
        record.type("written, and back in the shell", ":wq\r")
        record.type("what was written", "clear; tr a-z A-Z </tmp/edited; stty size\r")
        record.close()
        terminal.type("exit 4\r")
        assert terminal.end() == 4
        assert terminal.is_as_before()


@pytest.mark.parametrize("way", ["run --name", "exec"])
def test_full_screens(way):
    kit.needs_program("top", "less")
    with shell(way) as terminal:
        terminal.type("top -d 100\r")
        terminal.shows("%Cpu", "COMMAND", "bash")
        terminal.resize(30, 120)
        terminal.type("h")
        terminal.shows("Help for Interactive Commands")
        terminal.type("\x1b")
        terminal.shows("%Cpu", "COMMAND", "bash")
        terminal.type("q")
        terminal.until(PROMPT)
        terminal.type("seq 1000 | less\r")
        terminal.shows("\n28\n29\n:")
        terminal.resize(12, 40)
        # One that comes just before less reads keys is looked at after the next.
        terminal.type("r")
        terminal.shows("\n10\n11\n:")
        terminal.type("G")
        terminal.shows("\n1000\n(END)")
        terminal.type("?^77$\r")
        terminal.shows("77\n78\n")
        terminal.type("q")
        terminal.until(PROMPT)
        terminal.type("stty size; exit\r")
        terminal.until("12 40\r\n")
        assert terminal.end() == 0


def test_who_comes_back_sees_the_whole_screen():
    """Detached from an editor, and attached again: by a window of the same size, and by another one."""
    kit.needs_program("vim.tiny")
    with shell("run --name") as terminal:
        terminal.type("kept=here; vim.tiny -u NONE -N -i NONE /tmp/edited\r")
        terminal.until("[New]")
        terminal.type("ione\rtwo\x1b")
        terminal.shows("one\ntwo\n~")
        terminal.type("\x10\x11")
        terminal.until("zind: box goes on")
        assert terminal.end() == 0
        assert terminal.is_as_before()
        for rows, cols in [(24, 80), (24, 80), (33, 90)]:
            with Session(COMMAND, "attach", "box", rows=rows, cols=cols) as again:
                again.shows("one\ntwo\n~")
                again.has_lines(rows - 1)
                again.type("\x10\x11")
                assert again.end() == 0
                assert again.is_as_before()
        with Session(COMMAND, "attach", "--detach-keys", "ctrl-x,x", "box") as again:
            again.shows("one\ntwo\n~")
            # What are no keys here is typed.
            again.type(":q!\r")
            again.until(PROMPT)
            again.type("stty size; echo $kept\r")
            again.until("24 80\r\nhere\r\n")
            again.type("\x18x")
            assert again.end() == 0
        zind("kill", "box")


def test_to_attach_to_what_has_no_terminal_from_one():
    zind("run", "-d", "--name", "box", "-i", "host", "cat")
    with Session(COMMAND, "attach", "box") as terminal:
        terminal.type("typed\n")
        terminal.until("typed\r\ntyped\r\n")
        assert terminal.is_as_before()
        # The window is closed, and the container is not.
        terminal.hang_up()
        assert terminal.end_without_terminal() == 129
    assert zind("ps", "--format", "json").count('"running"') == 1
    zind("rm", "-f", "box")


@pytest.mark.parametrize("way", WAYS)
def test_a_terminal_that_vanishes(way):
    with shell(way) as terminal:
        terminal.type("kept=here; echo ke''pt\r")
        terminal.until("kept\r\n")
        terminal.hang_up()
        # Of bash that it is hung up, or of zind that it was.
        assert terminal.end_without_terminal() == 129
        if way.startswith("run"):
            # It was the command's own.
            assert eventually(lambda: listed() == [])
        elif way == "exec":
            # The shell is gone, and the container goes on.
            assert eventually(lambda: "bash" not in zind("top", "box"))
            assert "sleep" in zind("top", "box")
        else:
            with Session(COMMAND, "attach", "box") as again:
                again.type("echo $kept; exit 3\r")
                again.until("here\r\n")
                assert again.end() == 3


@pytest.mark.parametrize("way", ["run", "exec"])
def test_what_ignores_that_its_terminal_vanishes(way):
    """As below a local shell it goes on; the command waits for it, and passes on what it is told."""
    with session(way, "sh", "-c", "trap '' HUP; trap 'exit 6' TERM; echo up; while :; do sleep 0.1; done") as terminal:
        terminal.until("up\r\n")
        terminal.hang_up()
        pid = terminal.process.pid
        # It sleeps in a ppoll(2) of two descriptors, without a time after which it would look about.
        assert eventually(lambda: pathlib.Path(f"/proc/{pid}/syscall").read_text().split()[2:4] == ["0x2", "0x0"])
        os.kill(pid, signal.SIGTERM)
        assert terminal.end_without_terminal() == 6


def test_what_lets_go_of_its_terminal():
    """It has none any more, but is there, and what the caller types makes signals again."""
    with session("run", "sh", "-c", "trap 'exit 6' INT; echo up; exec <&- >&- 2>&-; while :; do sleep 0.1; done") as terminal:
        terminal.until("up\r\n")
        assert eventually(terminal.is_as_before)
        terminal.type("\x03")
        assert terminal.end() == 6


def by_keys(terminal: Session) -> None:
    terminal.type("\x10\x11")


def by_the_end(terminal: Session) -> None:
    terminal.type("exit 9\r")


def by_sigkill_inside(terminal: Session) -> None:
    terminal.type("kill -9 $$\r")


def by_sigterm(terminal: Session) -> None:
    # Which an interactive bash ignores, unlike what it becomes.
    terminal.type("exec sh -c 'echo u''p; exec sleep 1000'\r")
    terminal.until("up\r\n")
    os.kill(terminal.process.pid, signal.SIGTERM)


def by_another_program(terminal: Session) -> None:
    zind("kill", "box")


ENDS = [
    *[(way, by_the_end, 9) for way in WAYS],
    *[(way, by_sigkill_inside, 137) for way in WAYS],
    *[(way, by_sigterm, 143) for way in WAYS],
    *[(way, by_another_program, 137) for way in WAYS[1:]],
    *[(way, by_keys, 0) for way in ("run --name", "attach")],
]


@pytest.mark.parametrize(("way", "end", "code"), ENDS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_the_terminal_is_as_before_on_every_way_out(way, end, code):
    with shell(way) as terminal:
        end(terminal)
        assert terminal.end() == code
        assert terminal.is_as_before()


@pytest.mark.parametrize("way", ["run", "run --name", "exec"])
@pytest.mark.parametrize(("program", "code"), [("nosuchprogram", 127), ("/etc/passwd", 126)])
def test_the_terminal_is_as_before_when_nothing_could_be_started(way, program, code):
    with session(way, program) as terminal:
        terminal.until("zind:")
        assert terminal.end() == code
        assert terminal.is_as_before()


def test_sigkill_of_the_command_is_what_nobody_can_undo():
    """What it leaves is a terminal for reset(1), and no container."""
    with shell("run --name") as terminal:
        terminal.process.kill()
        assert terminal.end() == -signal.SIGKILL
        assert terminal.is_raw()
        assert eventually(lambda: listed() == [])
