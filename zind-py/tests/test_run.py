"""``run`` and ``Popen`` keep the promises of :mod:`subprocess`, and add how it ended."""

import io
import os
import pickle
import signal
import subprocess
import sys
import time

import pytest

import kit
import zind
from kit import outside, running, sh, wait_until

# --- results ---------------------------------------------------------------------------------------------------------


def test_streams_are_captured_apart():
    r = zind.run(["sh", "-c", "echo out; echo err >&2"], capture_output=True)
    assert (r.stdout, r.stderr, r.returncode) == (b"out\n", b"err\n", 0)


def test_the_result_is_one_of_subprocess():
    argv = ["sh", "-c", "exit 3"]
    r = zind.run(argv)
    assert isinstance(r, subprocess.CompletedProcess) and isinstance(r, zind.CompletedProcess)
    assert (r.args, r.returncode, r.stdout, r.stderr) == (argv, 3, None, None)
    with pytest.raises(subprocess.CalledProcessError) as info:
        r.check_returncode()
    assert isinstance(info.value, zind.CalledProcessError) and info.value.exit.code == 3


@pytest.mark.parametrize("code", [0, 1, 77, 125, 126, 127, 128, 137, 255])
def test_exit_codes(code):
    r = zind.run(["sh", "-c", f"exit {code}"])
    assert (r.returncode, r.exit.kind, r.exit.code, r.exit.signal) == (code, "exited", code, None)


@pytest.mark.parametrize("name", ["HUP", "INT", "KILL", "SEGV", "TERM", "USR1", "ABRT", "PIPE"])
@pytest.mark.parametrize("init", [True, False])
def test_death_by_signal(name, init):
    number = getattr(signal, f"SIG{name}")
    # PID 1 is spared from signals without a handler unless the kernel sends them, so with init=False a child dies of it.
    if init:
        r = zind.run(["sh", "-c", f"kill -{name} $$"])
        assert (r.returncode, r.exit.kind, r.exit.code, r.exit.signal) == (-number, "signaled", None, number)
    else:
        r = zind.run(["sh", "-c", f"sh -c 'kill -{name} $$'; exit $(($? - 128))"], init=False, stderr=zind.DEVNULL)
        assert (r.returncode, r.exit.kind) == (number, "exited")


def test_a_crash_of_pid_1_is_a_signal():
    r = zind.run(["python3", "-c", "import ctypes; ctypes.string_at(0)"], init=False)
    assert (r.exit.kind, r.exit.signal) == ("signaled", signal.SIGSEGV)


def test_the_status_128_plus_n_is_no_signal():
    r = zind.run(["sh", "-c", "exit 143"])
    assert (r.exit.kind, r.returncode) == ("exited", 143)


def test_check():
    with pytest.raises(zind.CalledProcessError) as info:
        zind.run(["sh", "-c", "echo out; echo err >&2; exit 5"], check=True, capture_output=True, text=True)
    e = info.value
    assert isinstance(e, subprocess.CalledProcessError) and isinstance(e, zind.Error)
    assert (e.returncode, e.output, e.stdout, e.stderr) == (5, "out\n", "out\n", "err\n")
    assert e.cmd[0] == "sh" and e.exit.code == 5 and e.stats.wall > 0
    assert zind.run(["true"], check=True).returncode == 0


def test_check_of_a_signal():
    with pytest.raises(zind.CalledProcessError) as info:
        zind.run(["sh", "-c", "kill -9 $$"], check=True)
    assert info.value.returncode == -9 and info.value.exit.kind == "signaled"


def test_stats_are_of_the_whole_container():
    # The work is done in a grandchild.
    r = zind.run(["sh", "-c", "python3 -c 'x = bytearray(80 << 20); s = sum(range(10 ** 7))'; true"], check=True)
    assert r.stats.cpu_user > 0.05
    assert r.stats.cpu_system is not None
    assert r.stats.wall >= r.stats.cpu_user * 0.5
    assert r.stats.max_rss > 80 << 20


def test_stats_have_the_names_of_the_contract():
    r = zind.run(["true"])
    for name in ("cpu_user", "cpu_system", "memory_peak", "pids_peak", "wall", "io"):
        assert hasattr(r.stats, name), name


def test_reprs_say_the_useful_thing():
    r = zind.run(["sh", "-c", "exit 3"])
    assert "3" in repr(r.exit) and "exited" in repr(r.exit)
    assert "seccomp" in repr(r.isolation)
    assert "wall" in repr(r.stats) and "<td>" in r.stats._repr_html_()
    with zind.Popen(["true"]) as p:
        assert str(p.pid) in repr(p) and "true" in repr(p)
    for text in (repr(r.exit), repr(r.isolation), repr(r.stats), repr(p)):
        assert "\n" not in text


# --- input -----------------------------------------------------------------------------------------------------------


def test_input_reaches_the_program():
    data = bytes(range(256)) * 100
    assert zind.run(["cat"], input=data, capture_output=True).stdout == data


def test_empty_input_is_an_end():
    assert zind.run(["cat"], input=b"", capture_output=True).stdout == b""


def test_input_nobody_reads_is_no_error():
    r = zind.run(["true"], input=b"x" * (8 << 20))
    assert r.returncode == 0


def test_input_that_is_half_read():
    r = zind.run(["head", "-c", "10"], input=b"0123456789" * 500_000, capture_output=True)
    assert (r.returncode, r.stdout) == (0, b"0123456789")


def test_a_large_input_comes_back():
    data = os.urandom(5 << 20)
    assert zind.run(["cat"], input=data, capture_output=True).stdout == data


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_input_of_other_bytes_types(kind):
    assert zind.run(["cat"], input=kind(b"abc"), capture_output=True).stdout == b"abc"


# --- text ------------------------------------------------------------------------------------------------------------


def test_text():
    r = zind.run(["cat"], input="gr\u00fc\u00dfe\n", capture_output=True, text=True, encoding="utf-8")
    assert r.stdout == "gr\u00fc\u00dfe\n" and r.stderr == ""


def test_text_translates_line_ends():
    r = zind.run(["printf", r"a\r\nb\rc\n"], capture_output=True, text=True)
    assert r.stdout == "a\nb\nc\n"


def test_encoding_alone_is_text():
    r = zind.run(["cat"], input="\u00fc", capture_output=True, encoding="latin-1")
    assert r.stdout == "\u00fc"
    assert zind.run(["cat"], input="\u00fc", stdout=zind.PIPE, encoding="utf-16").stdout == "\u00fc"


def test_errors_decides_about_bad_bytes():
    argv = ["printf", r"a\377b"]
    assert zind.run(argv, capture_output=True, encoding="utf-8", errors="replace").stdout == "a\ufffdb"
    with pytest.raises(UnicodeDecodeError):
        zind.run(argv, capture_output=True, encoding="utf-8")


@pytest.mark.parametrize("given", [{"input": "text"}, {"input": b"bytes", "text": True}])
def test_text_and_bytes_are_not_mixed(given):
    with pytest.raises(TypeError):
        zind.run(["cat"], **given)


# --- where streams go ------------------------------------------------------------------------------------------------


def test_stderr_to_stdout():
    r = zind.run(["sh", "-c", "echo a; echo b >&2; echo c"], stdout=zind.PIPE, stderr=zind.STDOUT)
    assert (r.stdout, r.stderr) == (b"a\nb\nc\n", None)


def test_devnull():
    r = zind.run(["sh", "-c", "cat; echo x; echo y >&2"], stdin=zind.DEVNULL, stdout=zind.DEVNULL, stderr=zind.DEVNULL)
    assert (r.returncode, r.stdout, r.stderr) == (0, None, None)


def test_only_one_stream_is_captured(tmp_path):
    r = zind.run(["sh", "-c", "echo a; echo b >&2"], stdout=zind.PIPE, stderr=tmp_path / "err")
    assert (r.stdout, r.stderr) == (b"a\n", None)
    assert (tmp_path / "err").read_bytes() == b"b\n"


@pytest.mark.parametrize("kind", ["path", "str", "file", "fd"])
def test_files(tmp_path, kind):
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"hello")
    target.write_bytes(b"old content that is longer")
    if kind in ("path", "str"):
        convert = (lambda path: path) if kind == "path" else str
        zind.run(["cat"], stdin=convert(source), stdout=convert(target), check=True)
    else:
        with open(source, "rb") as i, open(target, "wb") as o:
            given = (i, o) if kind == "file" else (i.fileno(), o.fileno())
            zind.run(["cat"], stdin=given[0], stdout=given[1], check=True)
    assert target.read_bytes() == b"hello"


def test_streams_are_inherited():
    r = subprocess.run(
        [sys.executable, "-c", "import zind; zind.run(['sh', '-c', 'cat; echo err >&2'], check=True)"],
        input=b"through\n",
        capture_output=True,
        env=kit.child_env(),
        timeout=30,
        check=True,
    )
    assert (r.stdout, r.stderr) == (b"through\n", b"err\n")


def test_closed_streams_of_the_caller_are_null_for_the_program():
    source = """
import os, zind
os.close(0)
os.close(2)
zind.run(["sh", "-c", "readlink /proc/self/fd/0 /proc/self/fd/2; cat; echo x >&2 && echo end"], check=True)
"""
    assert outside(source).stdout.split() == ["/dev/null", "/dev/null", "end"]


def test_descriptors_of_zind_never_stand_in_for_closed_streams():
    """With 0, 1 and 2 free, the pipes zind makes get these numbers; the program must not."""
    source = """
import os, zind
saved = os.dup(1)
for fd in (0, 1, 2): os.close(fd)
r = zind.run(["sh", "-c", "ls -l /proc/self/fd"], stdout=zind.PIPE, text=True)
os.write(saved, repr({line.split()[-3]: line.split()[-1].split(":")[0] for line in r.stdout.splitlines()[1:]}).encode())
"""
    found = eval(outside(source).stdout)
    assert found == {"0": "/dev/null", "1": "pipe", "2": "/dev/null", "3": found["3"]}
    assert found["3"].startswith("/proc/")


@pytest.mark.parametrize(
    "given",
    [
        {"input": b"x", "stdin": zind.PIPE},
        {"capture_output": True, "stdout": zind.PIPE},
        {"capture_output": True, "stderr": zind.DEVNULL},
    ],
)
def test_stream_options_exclude_each_other_as_in_subprocess(given):
    with pytest.raises(ValueError):
        zind.run(["true"], **given)
    with pytest.raises(ValueError):
        subprocess.run(["true"], **given)


# --- timeout ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("init", [True, False])
def test_timeout_keeps_what_was_written_and_kills_everything(init):
    script = "echo out; echo err >&2; setsid sleep 4321.5 & nohup sleep 4321.5 >/dev/null 2>&1 & sleep 4321.5"
    took = []

    def call(timeout: float) -> None:
        began = time.monotonic()
        try:
            zind.run(["sh", "-c", script], capture_output=True, timeout=timeout, init=init)
        finally:
            took[:] = [timeout, time.monotonic() - began]

    e = kit.times_out(call, lambda e: e.stderr)
    assert isinstance(e, subprocess.TimeoutExpired) and isinstance(e, zind.Error)
    assert (e.stdout, e.output, e.stderr) == (b"out\n", b"out\n", b"err\n")
    assert e.timeout == took[0] and e.cmd[0] == "sh"
    assert (e.exit.kind, e.exit.signal) == ("timeout", signal.SIGKILL)
    assert took[0] <= took[1] < took[0] + 2.5
    assert running("sleep", "4321.5") == []


def test_timeout_without_capture():
    with pytest.raises(zind.TimeoutExpired) as info:
        zind.run(["sleep", "100"], timeout=0.2)
    assert (info.value.stdout, info.value.stderr) == (None, None)


def test_timeout_before_the_program_runs_is_one_too():
    with pytest.raises(zind.TimeoutExpired) as info:
        zind.run(["sleep", "4321.7"], timeout=1e-9)
    for e in (info.value, pickle.loads(pickle.dumps(info.value))):
        assert isinstance(e, zind.errors.StartTimeout) and isinstance(e, TimeoutError) and str(e) == str(info.value)
        assert (e.cmd, e.timeout, e.exit, e.stats, e.stdout, e.stderr) == (["sleep", "4321.7"], 1e-9, None, None, None, None)
    assert running("sleep", "4321.7") == []


def test_timeout_of_a_program_that_ignores_signals():
    with pytest.raises(zind.TimeoutExpired):
        zind.run(["sh", "-c", "trap '' TERM INT HUP; sleep 100; sleep 100"], timeout=0.2)


def test_timeout_of_a_program_that_floods():
    call = lambda timeout: zind.run(["sh", "-c", "yes & yes >&2"], capture_output=True, timeout=timeout)  # noqa: E731
    e = kit.times_out(call, lambda e: e.stdout and e.stderr, (0.3, 2, 8))
    assert e.stdout.startswith(b"y\ny\n") and e.stderr.startswith(b"y\ny\n")


def test_timeout_of_a_program_that_does_not_read_its_input():
    began = time.monotonic()
    with pytest.raises(zind.TimeoutExpired):
        zind.run(["sleep", "1000"], input=b"x" * (4 << 20), timeout=0.3)
    assert time.monotonic() - began < 3


def test_a_generous_timeout_does_nothing():
    r = zind.run(["sh", "-c", "echo x"], capture_output=True, timeout=30)
    assert (r.stdout, r.exit.kind) == (b"x\n", "exited")


def test_a_program_that_kills_itself_in_time_did_not_time_out():
    r = zind.run(["sh", "-c", "kill -9 $$"], timeout=30)
    assert (r.exit.kind, r.exit.signal) == ("signaled", 9)


def test_the_exceptions_survive_pickling():
    call = lambda timeout: zind.run(["sh", "-c", "echo x; sleep 100"], capture_output=True, timeout=timeout)  # noqa: E731
    e = kit.times_out(call, lambda e: e.stdout)
    again = pickle.loads(pickle.dumps(e))
    assert (again.stdout, again.exit.kind, again.timeout, again.stats) == (b"x\n", "timeout", e.timeout, e.stats)


# --- much ------------------------------------------------------------------------------------------------------------

FLOOD = r"""
import os
piece = bytes(range(256)) * 4096
for _ in range(150):
    for fd in (1, 2):
        view = memoryview(piece)
        while view:
            view = view[os.write(fd, view):]
"""


def test_300_megabytes_through_both_pipes_are_held_once():
    source = """
import sys, zind
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM:")).split()[1])
flood = sys.argv[1]
zind.run(["true"])
before = peak()
r = zind.run(["python3", "-c", flood], capture_output=True, timeout=120)
after = peak()
piece = bytes(range(256)) * 4096
for text in (r.stdout, r.stderr):
    assert len(text) == 150 << 20, len(text)
    assert all(text[at : at + len(piece)] == piece for at in range(0, len(text), len(piece)))
print((after - before) / 1024)
"""
    megabytes = float(outside(source, FLOOD, timeout=150).stdout)
    assert 295 < megabytes < 300 * 1.3


def test_much_output_while_much_input():
    data = b"0123456789abcdef" * (1 << 20)
    r = zind.run(["sh", "-c", "cat | tee /dev/stderr"], input=data, capture_output=True, timeout=60)
    assert r.stdout == data and r.stderr == data


# --- Popen -----------------------------------------------------------------------------------------------------------


def test_popen_streams_line_by_line():
    script = "while read line; do echo got $line; done; echo end >&2"
    with zind.Popen(["sh", "-c", script], stdin=zind.PIPE, stdout=zind.PIPE, stderr=zind.PIPE) as p:
        for word in (b"one", b"two"):
            p.stdin.write(word + b"\n")
            p.stdin.flush()
            assert p.stdout.readline() == b"got " + word + b"\n"
        assert p.poll() is None and p.returncode is None and p.exit is None and p.stats().max_rss is None
        p.stdin.close()
        assert p.stderr.read() == b"end\n"
        assert p.wait() == 0
    assert p.returncode == 0 and p.exit.kind == "exited" and p.stats().wall > 0
    assert p.stdout.closed and p.stderr.closed


def test_popen_in_text_mode():
    with zind.Popen(["cat"], stdin=zind.PIPE, stdout=zind.PIPE, text=True, bufsize=1) as p:
        assert isinstance(p.stdout, io.TextIOWrapper)
        p.stdin.write("line\n")
        assert p.stdout.readline() == "line\n"
        p.stdin.close()


def test_popen_unbuffered():
    with zind.Popen(["cat"], stdin=zind.PIPE, stdout=zind.PIPE, bufsize=0) as p:
        p.stdin.write(b"x")
        assert p.stdout.read(1) == b"x"
        p.stdin.close()


def test_popen_without_pipes_has_no_streams():
    with zind.Popen(["true"]) as p:
        assert (p.stdin, p.stdout, p.stderr) == (None, None, None)
    assert p.args == ["true"]


def test_poll_sees_the_end():
    p = zind.Popen(["sh", "-c", "exit 4"])
    assert wait_until(lambda: p.poll() is not None)
    assert p.poll() == 4 == p.returncode == p.wait()


def test_wait_with_a_timeout_does_not_kill():
    p = zind.Popen(["sh", "-c", "read x; exit 6"], stdin=zind.PIPE)
    began = time.monotonic()
    with pytest.raises(zind.TimeoutExpired):
        p.wait(timeout=0.2)
    assert 0.2 <= time.monotonic() - began < 2
    assert p.poll() is None
    p.stdin.close()
    assert p.wait(timeout=10) == 6


def test_the_time_limit_of_popen_kills():
    with zind.Popen(["sleep", "100"], timeout=0.3) as p:
        assert p.wait() == -9
    assert p.exit.kind == "timeout"


def test_communicate():
    with zind.Popen(["sh", "-c", "cat; echo err >&2"], stdin=zind.PIPE, stdout=zind.PIPE, stderr=zind.PIPE) as p:
        assert p.communicate(b"in") == (b"in", b"err\n")
    assert p.returncode == 0


def test_communicate_in_text_mode():
    with zind.Popen(["cat"], stdin=zind.PIPE, stdout=zind.PIPE, encoding="utf-8") as p:
        assert p.communicate("\u00e4") == ("\u00e4", None)


def test_communicate_after_a_timeout_loses_nothing():
    script = "echo a; until [ -e /tmp/go ]; do sleep 0.02; done; echo b; cat"
    p = zind.Popen(["sh", "-c", script], stdin=zind.PIPE, stdout=zind.PIPE)
    given = [b"input"]
    e = kit.times_out(lambda timeout: p.communicate(given.pop() if given else None, timeout=timeout), lambda e: e.stdout)
    assert e.stdout == b"a\n"
    assert p.poll() is None
    assert p.exec(["touch", "/tmp/go"]).returncode == 0
    out, err = p.communicate(timeout=10)
    assert (out, err) == (b"a\nb\ninput", None)
    assert p.returncode == 0


def test_communicate_twice():
    with zind.Popen(["echo", "x"], stdout=zind.PIPE) as p:
        assert p.communicate() == (b"x\n", None)
        assert p.returncode == 0


def test_a_broken_pipe_does_not_break_communicate():
    p = zind.Popen(["true"], stdin=zind.PIPE, stdout=zind.PIPE)
    p.wait()
    p.stdin.write(b"x")
    assert p.communicate() == (b"", None)


def test_signals():
    script = "trap 'echo usr1; exit 9' USR1; echo ready; while :; do sleep 0.02; done"
    with zind.Popen(["sh", "-c", script], stdout=zind.PIPE) as p:
        assert p.stdout.readline() == b"ready\n"
        p.send_signal(signal.SIGUSR1)
        assert p.stdout.readline() == b"usr1\n"
        assert p.wait() == 9


def test_terminate_and_kill():
    with zind.Popen(["sleep", "100"]) as p:
        p.terminate()
        assert p.wait(timeout=10) == -signal.SIGTERM
        assert p.exit.kind == "signaled"
    with zind.Popen(["sleep", "100"]) as p:
        p.kill()
        assert p.wait(timeout=10) == -signal.SIGKILL
        assert p.exit.kind == "signaled"


def test_signals_after_the_end_do_nothing():
    with zind.Popen(["true"]) as p:
        p.wait()
        p.send_signal(signal.SIGTERM)
        p.terminate()
        p.kill()
    assert p.returncode == 0


def test_the_context_manager_waits():
    with zind.Popen(["sleep", "0.3"]) as p:
        assert p.returncode is None
    assert p.returncode == 0


def test_pid_and_pidfd():
    with zind.Popen(["sleep", "100"]) as p:
        assert os.stat(f"/proc/{p.pid}/ns/pid").st_ino != os.stat("/proc/self/ns/pid").st_ino
        signal.pidfd_send_signal(p.pidfd, 0)
        os.kill(p.pid, signal.SIGKILL)
        assert p.wait(timeout=10) == -9


def test_many_at_once_in_one_thread():
    with_pipes = [zind.Popen(["sh", "-c", f"read x; echo {i}-$x"], stdin=zind.PIPE, stdout=zind.PIPE) for i in range(30)]
    for i, p in enumerate(with_pipes):
        assert p.communicate(b"y\n")[0] == f"{i}-y\n".encode()
        assert p.returncode == 0


def test_a_dropped_popen_is_reaped_later():
    p = zind.Popen(["sleep", "0.1"])
    (waiter,) = [pid for pid, (_, parent, name) in kit.descendants().items() if name == "zind-waiter" and parent == os.getpid()]
    del p
    assert wait_until(lambda: kit.descendants()[waiter][0] == "Z")
    zind.run(["true"])  # looks after it
    assert waiter not in kit.descendants()


def test_arguments_arrive_as_they_are():
    odd = ["a b", "", "*", "$HOME", "'", '"', "\\", "\n", "-n", "\udcff"]
    r = zind.run(["python3", "-c", "import sys; sys.stdout.buffer.write(b'|'.join(map(__import__('os').fsencode, sys.argv[1:])))", *odd], capture_output=True)
    assert r.stdout == b"|".join(os.fsencode(word) for word in odd)


def test_arguments_may_be_bytes_and_paths(tmp_path):
    from pathlib import Path

    assert zind.run([Path("/bin/echo"), b"\xff", Path("x")], capture_output=True).stdout == b"\xff x\n"


def test_a_program_without_a_slash_is_looked_up_in_the_path_of_the_container():
    assert sh("mkdir /tmp/d; printf '#!/bin/sh\\necho mine' >/tmp/d/ls; chmod +x /tmp/d/ls; PATH=/tmp/d:$PATH; ls") == "mine"
    r = zind.run(["ls", "-d", "/usr"], env={"PATH": "/nowhere:/bin"}, capture_output=True)
    assert r.stdout == b"/usr\n"


def test_a_time_that_no_clock_comes_to_is_no_limit():
    assert zind.run(["true"], timeout=1e19, capture_output=True).returncode == 0
    with zind.Popen(["true"], timeout=1e19) as process:
        assert process.wait(timeout=1e19) == 0
