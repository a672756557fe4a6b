"""What the tests have in common: looking at processes from outside, and asking questions from inside."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import pathlib
import shutil
import struct
import subprocess
import sys
import time

import pytest

import zind

TESTS = pathlib.Path(__file__).resolve().parent
PACKAGE = pathlib.Path(zind.__file__).resolve().parent.parent
ROOT = os.geteuid() == 0
UID, GID = os.geteuid(), os.getegid()
KINDS = ["user", "mnt", "pid", "net", "uts", "ipc", "cgroup", "time"]

# --- skips -----------------------------------------------------------------------------------------------------------
# Every reason for which a test may be skipped, by whom. test_as_user.py compares; any other skip fails there.
NEEDS_ROOT = "needs root: "
NEEDS_USER = "needs an ordinary user: "


def needs_root(what: str) -> None:
    """Skips unless root runs the tests. ``what`` says which power of root's the test is about."""
    if not ROOT:
        pytest.skip(NEEDS_ROOT + what)


def needs_user(what: str) -> None:
    if ROOT:
        pytest.skip(NEEDS_USER + what)


def landlock_abi() -> int:
    """What this kernel has of Landlock, asked without zind; 0 without it."""
    create, version = 444, 1
    return max(ctypes.CDLL(None, use_errno=True).syscall(create, None, ctypes.c_size_t(0), version), 0)


def has_apparmor() -> bool:
    try:
        return pathlib.Path("/sys/module/apparmor/parameters/enabled").read_text().startswith("Y")
    except FileNotFoundError:
        return False


def needs_program(*names: str) -> None:
    for name in names:
        if shutil.which(name, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin") is None:
            pytest.skip(f"needs the program {name}")


def bootstrap(target: pathlib.Path, *options: str) -> None:
    """Makes a minimal Debian at ``target``, a directory or a tar. It or a failure appears, with what was said and the room there was."""
    needs_root("mmdebstrap makes files of all users")
    needs_program("mmdebstrap")
    part = target.with_name(f"part-{target.name}")
    shutil.rmtree(part, ignore_errors=True)
    # Not quiet: then it would not tell why a step failed.
    argv = ["mmdebstrap", "--variant=minbase", "--aptopt=Acquire::Retries 3", *options, "bookworm", str(part)]
    made = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
    if made.returncode:
        room = {place: f"{shutil.disk_usage(place).free >> 20} MiB free" for place in ("/tmp", str(target.parent))}
        shutil.rmtree(part, ignore_errors=True)
        part.unlink(missing_ok=True)
        pytest.fail(f"{argv} failed with {made.returncode}, {room}:\n{made.stdout[-4000:]}")
    part.rename(target)


# --- from inside -----------------------------------------------------------------------------------------------------
def probe(source: str, *args: str, **options):
    """Runs Python in a container; ``answer(x)`` there is what comes back."""
    head = "import json, os, sys\ndef answer(x): print('\\n=answer=' + json.dumps(x))\n"
    options.setdefault("stdin", zind.DEVNULL)
    result = zind.run(["/usr/bin/python3", "-c", head + source, *args], capture_output=True, text=True, timeout=60, **options)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.rpartition("=answer=")[2])
    return found


def sh(script: str, **options) -> str:
    """Runs a shell script in a container; its output, stripped."""
    options.setdefault("stdin", zind.DEVNULL)
    result = zind.run(["sh", "-c", script], capture_output=True, text=True, timeout=60, **options)
    assert result.returncode == 0, (result, result.stderr)
    return result.stdout.strip()


STATUS = """
def status(pid="self"):
    return dict(line.rstrip("\\n").split(":\\t", 1) for line in open(f"/proc/{pid}/status") if ":\\t" in line)
"""

NS = "answer({k: os.stat(f'/proc/self/ns/{k}').st_ino for k in os.listdir('/proc/self/ns')})"


# --- from outside ----------------------------------------------------------------------------------------------------
def child_env(**more: str) -> dict[str, str]:
    env = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": f"{PACKAGE}:{TESTS}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LANG": "C.UTF-8",
        "HOME": os.environ.get("HOME", "/"),
    }
    return {**env, **more}


def outside(source: str, *args: str, timeout: float = 60, check: bool = True, **options) -> subprocess.CompletedProcess[str]:
    """Runs Python in a process of its own on the host, with zind."""
    options.setdefault("stdin", subprocess.DEVNULL)
    options.setdefault("env", child_env())
    result = subprocess.run(
        [sys.executable, "-c", source, *args], capture_output=True, text=True, timeout=timeout, check=False, **options
    )
    if check:
        assert result.returncode == 0, f"exit {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result


def ns_of(pid: int | str = "self") -> dict[str, int]:
    return {kind: os.stat(f"/proc/{pid}/ns/{kind}").st_ino for kind in KINDS}


def alive(pid: int) -> bool:
    """A process with this number exists and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def processes() -> dict[int, tuple[str, int, str]]:
    """pid -> state, parent, name."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    head, _, tail = file.read().decode("utf-8", "replace").rpartition(")")
            except (FileNotFoundError, ProcessLookupError):
                continue
            fields = tail.split()
            found[int(name)] = (fields[0], int(fields[1]), head.partition("(")[2])
    return found


def descendants(of: int | None = None) -> dict[int, tuple[str, int, str]]:
    everybody = processes()
    wanted = {of or os.getpid()}
    while True:
        more = {pid for pid, (_, parent, _) in everybody.items() if parent in wanted} - wanted
        if not more:
            break
        wanted |= more
    wanted.discard(of or os.getpid())
    return {pid: everybody[pid] for pid in wanted}


def cmdline(pid: int) -> list[str]:
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


def running(*argv: str) -> list[int]:
    """Processes with exactly this command line."""
    return [pid for pid, (state, _, _) in processes().items() if state not in "ZX" and cmdline(pid) == list(argv)]


def wait_until(condition, timeout: float = 30.0, pause: float = 0.01):
    """The first true answer of ``condition``; the last one when the time is over."""
    end = time.monotonic() + timeout
    while True:
        found = condition()
        if found or time.monotonic() >= end:
            return found
        time.sleep(pause)


def times_out(call, has_begun, patience=(0.3, 4, 30)) -> zind.TimeoutExpired:
    """The error of ``call(timeout)``, for the first of some timeouts in which the program has come so far: on a busy machine it may
    not even have begun in the shorter ones."""
    for timeout in patience:
        with pytest.raises(zind.TimeoutExpired) as info:
            call(timeout)
        if has_begun(info.value):
            break
    return info.value


def kill_from_outside(running) -> None:
    """Ends a payload that sleeps, by a SIGKILL that is not zind's; whoever watches over it has nothing to look into any more."""
    found = wait_until(lambda: [info for info in running.processes() if info.name == "sleep"], 30)
    time.sleep(1)
    os.kill(found[0].pid, signal.SIGKILL)


def open_fds() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass
    return found


def mounts() -> list[str]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return file.read().splitlines()


_libc = ctypes.CDLL(None, use_errno=True)


def prctl(*args: int) -> None:
    args = tuple(ctypes.c_ulong(arg) for arg in args)  # pointers need more than an int
    if _libc.prctl(*args, *[0] * (5 - len(args))) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


#: Numbers of the system calls that tests hide: arch/x86/entry/syscalls/syscall_64.tbl.
CALLS = {
    "pivot_root": 155,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "clone3": 435,
    "fsconfig": 431,
    "fsmount": 432,
    "mount_setattr": 442,
    "pidfd_open": 434,
}


def hide_calls(*names: str) -> None:
    """From here on these system calls fail with ENOSYS, in this process and all it starts: seccomp(2)."""
    load, equal, answer, allow, refuse = 0x20, 0x15, 0x06, 0x7FFF0000, 0x50000 | errno.ENOSYS
    jumps = [(equal, len(names) - at, 0, CALLS[name]) for at, name in enumerate(names)]
    program = [(load, 0, 0, 0), *jumps, (answer, 0, 0, allow), (answer, 0, 0, refuse)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    no_new_privileges, seccomp, by_filter = 38, 22, 2
    prctl(no_new_privileges, 1)
    prctl(seccomp, by_filter, ctypes.addressof(header))


# --- errors ----------------------------------------------------------------------------------------------------------
def refused(kind: type[BaseException], call, *, step=None, number=None, field=None, hint=True) -> BaseException:
    """``call`` raises ``kind``, with everything a caller needs to act on it."""
    with pytest.raises(zind.Error) as info:
        call()
    error = info.value
    assert isinstance(error, kind), f"{type(error).__mro__}: {error}"
    if step is not None:
        assert error.step == step, error
    if number is not None:
        assert error.errno == number, f"{errno.errorcode.get(error.errno)}: {error}"
        assert errno.errorcode[number] in str(error)
        assert isinstance(error, OSError)
    if field is not None:
        assert error.field == field, error
        assert str(error).startswith(field), error
        assert isinstance(error, ValueError)
    if isinstance(error, zind.SysError) and hint:
        assert error.hint, f"no hint: {error}"
        assert error.hint in str(error)
    return error


def kernel() -> tuple[int, int]:
    """The version of the kernel that runs."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int(minor)
