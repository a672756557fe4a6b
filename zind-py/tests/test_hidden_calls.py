"""A filter around the caller hides one system call, or two: a start does without, or says what is missing. It never waits for good.

A container's filter of another engine's is such a one: older engines answer EPERM to calls that they do not know, newer ones ENOSYS.
"""

from __future__ import annotations

import errno
import json

import pytest

from kit import ROOT, outside
from test_report_lies import LIAR

NUMBERS = dict(
    rt_sigprocmask=14, clone=56, wait4=61, kill=62, exit_group=231, openat2=437, statx=332, open_tree=428, move_mount=429, fsopen=430,
    fsconfig=431, fsmount=432, pidfd_send_signal=424, pidfd_open=434, clone3=435, close_range=436, mount_setattr=442,
)

#: Something is used in their place, and the container is the same.
REPLACED = [
    "close_range", "pidfd_send_signal", "kill", "clone3", "exit_group", "mount_setattr", "open_tree", "fsconfig",
    "close_range pidfd_send_signal", "close_range kill", "close_range clone3", "fsopen", "fsmount", "move_mount",
]
#: Without them all mounts are made by mount(2).
BY_MOUNT = {"fsopen", "fsmount", "move_mount", "fsconfig", "open_tree", "mount_setattr"}
#: There is nothing like them: the call, the steps that say so.
MISSED = {
    "pidfd_open": ["Socket"],
    "openat2": ["MountTarget"],
    "statx": ["OldRoot", "ReadBack"],
    "rt_sigprocmask": ["Signals"],
    "wait4": ["Wait"],
    "clone": ["Fork"],
}

LIFE = LIAR + """
import json, os, signal, time, zind
numbers, mistake = json.loads(sys.argv[1]), int(sys.argv[2])
for number in numbers:
    lie(number, -1)
told = {}
def attempt(name, call):
    began = time.monotonic()
    try:
        told[name] = call()
    except zind.SysError as error:
        told[name] = [error.step, error.errno, str(error), error.hint]
    except zind.TimeoutExpired as error:
        told[name] = "timeout"
def kill(how):
    with zind.Popen(["sleep", "1007"], stdin=zind.DEVNULL) as process:
        how(process)
        return process.wait()
def inside():
    with zind.Popen(["cat"], stdin=zind.PIPE, stdout=zind.DEVNULL) as process:
        text = process.exec(["echo", "in"], capture_output=True, text=True, stdin=zind.DEVNULL).stdout
        process.communicate(b"")
        return text
def limited():
    for seconds in (0.2, 2, 20):
        try:
            return zind.run(["sleep", "1007"], stdin=zind.DEVNULL, timeout=seconds)
        except zind.errors.StartTimeout:
            pass  # A busy machine takes longer for the start alone.
attempt("run", lambda: zind.run(["sh", "-c", "echo $$; ls /proc/self/fd"], capture_output=True, text=True, stdin=zind.DEVNULL).stdout.split())
if len(sys.argv) > 3:
    print(json.dumps(told))
    sys.exit()
attempt("timeout", limited)
attempt("kill", lambda: kill(lambda process: process.kill()))
attempt("terminate", lambda: kill(lambda process: process.terminate()))
attempt("exec", inside)
attempt("interface", lambda: zind.run(["true"], stdin=zind.DEVNULL).isolation.mount_interface)
print(json.dumps(told))
"""


def told(hidden: str, number: int, *short: str) -> dict:
    source = LIFE.replace("0x00050000)", f"0x{0x50000 | number:08x})")
    found = json.loads(outside(source, json.dumps([NUMBERS[name] for name in hidden.split()]), str(number), *short).stdout)
    assert isinstance(found, dict)
    return found


ERRNOS = [errno.ENOSYS, errno.EPERM]


@pytest.mark.parametrize("number", ERRNOS, ids=errno.errorcode.get)
@pytest.mark.parametrize("hidden", REPLACED)
def test_it_does_without(hidden, number):
    found = told(hidden, number)
    # The fourth is that of the list itself.
    assert found["run"] == ["2" if "clone3" not in hidden or not ROOT else found["run"][0], "0", "1", "2", "3"], found
    assert [found[name] for name in ("timeout", "kill", "terminate")] == ["timeout", -9, -15], found
    assert found["exec"] == "in\n", found
    assert found["interface"] == ("mount" if hidden in BY_MOUNT else "fsmount"), found


BEFORE_OR_WITHOUT = """
def echo(container):
    return container.exec(["echo", "in"], capture_output=True, text=True, stdin=zind.DEVNULL).stdout.strip()
def inside(before, **options):
    if before:
        lie(435, -1)
    with zind.Popen(["cat"], stdin=zind.PIPE, stdout=zind.DEVNULL, **options) as process:
        if not before:
            lie(435, -1)
        said = echo(process)
        process.communicate(b"")
        return said
def kept():
    # Its monitor starts it, at first and again.
    with zind.Container(["sleep", "1007"], containers=os.path.join(sys.argv[1], "place")) as container:
        container.start()
        first = echo(container)
        container.stop(30)
        container.start()
        said = [first, echo(container)]
        container.delete(force=True)
        return said
import os, zind
print(inside(False), inside(True, init=False), inside(True, init=False, namespaces={"pid": "host"}), *kept())
"""


@pytest.mark.parametrize("number", ERRNOS, ids=errno.errorcode.get)
def test_a_program_joins_a_container_without_clone3(number, tmp_path):
    """Whoever starts the container has the call still, or has an init of zind's, or a monitor, start it."""
    source = LIAR.replace("0x00050000)", f"0x{0x50000 | number:08x})") + BEFORE_OR_WITHOUT
    assert outside(source, str(tmp_path)).stdout == "in in in in in\n"


@pytest.mark.parametrize("number", ERRNOS, ids=errno.errorcode.get)
@pytest.mark.parametrize("hidden", MISSED)
def test_it_says_what_is_missing(hidden, number):
    found = told(hidden, number, "short")
    step, code, text, hint = found["run"]
    assert step in [*MISSED[hidden], "Template"] and code == number, text
    assert "filter around this process" in hint or "while zind was preparing" in hint, text
    assert hidden in text, text


def test_without_a_list_of_descriptors_either():
    """No procfs, and no close_range(2): the start says so, and nothing waits."""
    source = LIAR.replace("0x00050000)", f"0x{0x50000 | errno.ENOSYS:08x})") + """
import os, zind
flags = zind.CLONE_NEWNS | (zind.CLONE_NEWUSER if os.geteuid() else 0)
zind.unshare(flags)
zind.mount("tmpfs", "/proc", "tmpfs")
lie(436, -1)
try:
    zind.run(["true"], stdin=zind.DEVNULL)
except zind.Error as error:
    print(type(error).__name__, error)
"""
    text = outside(source).stdout
    assert text and "/proc" in text, text
