"""Secure without options: what a probe finds from inside, and that the report says just that."""

from __future__ import annotations

import os

import pytest

import kit
import zind

PROBE = kit.STATUS + """
import ctypes, errno, socket, subprocess
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *args):
    ctypes.set_errno(0)
    result = getattr(libc, name)(*args)
    return 0 if result >= 0 else ctypes.get_errno()
def syscall(*args):
    ctypes.set_errno(0)
    return 0 if libc.syscall(*args) >= 0 else ctypes.get_errno()
def family(number, kind=1, protocol=0):
    try:
        socket.socket(number, kind, protocol).close()
        return 0
    except OSError as error:
        return error.errno
def empty(path):
    try:
        return not (os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(1))
    except OSError:
        return True
def writable(path):
    try:
        os.close(os.open(path, os.O_WRONLY))
        return True
    except OSError as error:
        return errno.errorcode[error.errno]
self = status()
answer({
    "status": {key: self[key] for key in ("NoNewPrivs", "Seccomp", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "Groups")},
    "fds": sorted(int(n) for n in os.listdir("/proc/self/fd")),
    "unshare": call("unshare", 0x10000000), "mount": call("mount", b"none", b"/mnt", b"tmpfs", 0, None),
    "setns": call("setns", 0, 0), "ptrace": syscall(101, 16, 1, 0, 0), "clone3": syscall(435, 0, 0),
    "keyctl": syscall(250, 0, -3, 0), "bpf": syscall(321, 0, 0, 0), "io_uring": syscall(425, 1, 0), "unknown": syscall(999),
    "alg": family(38, 5), "packet": family(17, 3), "vsock": family(40), "raw": family(2, 3, 1), "inet": family(2),
    "unix": family(1), "route": family(16, 3, 0), "audit": family(16, 3, 9),
    "masked": [path for path in sys.argv[1].split(",") if not empty(path)],
    "writable": [path for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger")
                 if writable(path) is True],
    "dev": sorted(os.listdir("/dev")), "ids": [os.getuid(), os.getgid()], "env": sorted(os.environ),
    "interfaces": sorted(os.listdir("/sys/class/net")) if os.path.isdir("/sys/class/net") else ["lo"],
    "session": os.getsid(0) == os.getpid(), "umask": os.umask(0),
})
"""


@pytest.fixture(scope="module")
def isolation():
    return zind.run(["true"]).isolation


def test_what_a_probe_finds(isolation):
    found = kit.probe(PROBE, ",".join(isolation.masked_paths))
    status = found["status"]
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert found["fds"][:3] == [0, 1, 2] and len(found["fds"]) == 4
    EPERM, ENOSYS, EAFNOSUPPORT = 1, 38, 97
    for call in ("unshare", "mount", "setns", "ptrace", "keyctl", "bpf", "io_uring"):
        assert found[call] == EPERM, call
    assert found["clone3"] == found["unknown"] == ENOSYS
    assert found["alg"] == found["packet"] == found["vsock"] == EAFNOSUPPORT
    assert found["raw"] == EPERM and found["audit"] != 0
    assert found["inet"] == found["unix"] == found["route"] == 0
    assert found["masked"] == [] and found["writable"] == []
    assert found["interfaces"] == ["lo"] and found["session"] and found["umask"] == 0o022
    assert set(found["env"]) <= {"PATH", "HOME", "LANG", "LC_CTYPE"}
    wanted = {"fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"}
    assert set(found["dev"]) == wanted
    assert found["ids"] == [0, 0]


def test_the_report_says_just_that(isolation):
    wanted = {"mnt", "pid", "net", "uts", "ipc", "cgroup"} | (set() if kit.ROOT else {"user"})
    assert {kind for kind, how in isolation.namespaces.items() if how == "new"} == wanted
    assert isolation.seccomp == "default" and isolation.capabilities == [] and isolation.no_new_privileges
    assert isolation.network == "none" and isolation.rootfs == "host" and isolation.overlay == "tmpfs" and not isolation.read_only
    assert isolation.init and isolation.die_with_owner and isolation.keyring and isolation.pass_fds == []
    assert set(isolation.readonly_paths) <= {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
    for part in isolation.in_force:
        assert zind.run(["true"], require={part}).returncode == 0, part


def test_what_is_loosened_is_told():
    cases = {
        "seccomp": {"seccomp": None},
        "network": {"network": "host"},
        "no_new_privileges": {"no_new_privileges": False},
        "init": {"init": False},
        "pid": {"namespaces": {"pid": "host"}},
        "die_with_owner": {"die_with_owner": False},
        "keyring": {"keyring": False},
        "masked_paths": {"privileged": True},
    }
    for part, options in cases.items():
        if part == "no_new_privileges" and not kit.ROOT:
            continue
        assert part not in zind.run(["true"], **options).isolation.in_force, part


def test_a_keyring_of_its_own():
    source = "import ctypes; libc = ctypes.CDLL(None); answer(libc.syscall(250, 0, -3, 0) & 0xffffffff)"
    inside = kit.probe(source, seccomp=None)
    out = kit.outside("import ctypes; print(ctypes.CDLL(None).syscall(250, 0, -3, 0) & 0xffffffff)").stdout
    assert inside != int(out)


def test_pid_1_cannot_be_looked_into():
    script = "cat /proc/1/environ /proc/1/maps 2>&1; ls /proc/1/fd 2>&1; kill -9 1; sleep 0.1; echo still here"
    out = kit.sh(script)
    assert out.count("ermission denied") >= 2 and out.endswith("still here")


def test_chosen_capabilities_are_the_ones():
    kit.needs_root("another user with capabilities")
    mask = kit.sh("grep CapEff /proc/self/status", capabilities=["NET_BIND_SERVICE", "CHOWN"]).split()[1]
    assert int(mask, 16) == 1 << 10 | 1
    mask = kit.sh("grep CapEff /proc/self/status", capabilities=["NET_BIND_SERVICE"], user="1000:1000").split()[1]
    assert int(mask, 16) == 1 << 10


def test_a_set_uid_program_gives_nothing():
    kit.needs_root("making a set-uid file")
    script = "cp /usr/bin/id /tmp/id; chmod 4755 /tmp/id; exec setpriv --reuid 1000 --clear-groups /tmp/id -u"
    assert kit.sh(script, capabilities=["SETUID", "SETGID", "CHOWN"]) == "1000"


def test_a_directory_of_the_host_is_no_way_out():
    """CVE-2024-21626: the working directory through a descriptor of the host's."""
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        for path in (f"/proc/self/fd/{fd}", f"/proc/1/fd/{fd}", "/proc/self/root/.."):
            with pytest.raises(zind.Error):
                zind.run(["ls"], cwd=path, pass_fds=[fd])
    finally:
        os.close(fd)
