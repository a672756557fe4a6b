"""What the kernel offers to an attacker: sockets, namespaces, mounts, other ways to call it, terminals, what tells of others.

Each attack is tried without the one thing that stands against it, too, and gets further there.
"""

from __future__ import annotations

import os
import pathlib
import pty
import shutil
import subprocess
import sys

import pytest

import kit
import zind
from kit import needs_root, probe

# --- sockets -------------------------------------------------------------------------------------------------------------
SOCKETS = """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
def opened(family, kind, protocol):
    fd = libc.socket(family, kind, protocol)
    if fd < 0: return errno.errorcode[ctypes.get_errno()]
    os.close(fd)
    return "opened"
"""
EVERY_SOCKET = SOCKETS + """
found = {f"{family}/{kind}": opened(family, kind, 0) for family in range(46) for kind in (1, 2, 3, 5)}
found |= {f"netlink {protocol}": opened(16, 3, protocol) for protocol in range(32)}
found |= {"alg": opened(38, 5, 0), "packet": opened(17, 3, 0x0300), "packet dgram": opened(17, 2, 0x0300), "icmp": opened(2, 3, 1),
          "esp": opened(2, 3, 50), "rxrpc": opened(33, 2, 2), "vsock": opened(40, 1, 0), "key": opened(15, 3, 2), "xdp": opened(44, 3, 0)}
answer(found)
"""
#: AF_UNIX of all kinds, AF_INET, AF_INET6, and netlink for routes.
HARMLESS = {*(f"1/{kind}" for kind in (1, 2, 3, 5)), "2/1", "2/2", "10/1", "10/2", "16/2", "16/3", "netlink 0"}
REFUSALS = {"EAFNOSUPPORT", "EPERM", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT"}


@pytest.mark.parametrize("options", [{}, {"namespaces": {"user": "new"}}, {"network": "host"}], ids=["plain", "user", "host network"])
def test_only_harmless_sockets_are_opened(options):
    """CVE-2026-31431, CVE-2026-43284, CVE-2026-43500, CVE-2026-46300, CVE-2026-53362 (AF_ALG, xfrm, RxRPC), CVE-2020-14386
    (AF_PACKET), CVE-2024-1086, CVE-2023-32233 (nfnetlink): every family and every netlink protocol."""
    found = probe(EVERY_SOCKET, **options)
    assert {name for name, how in found.items() if how == "opened"} <= HARMLESS
    assert found["1/1"] == found["2/1"] == found["netlink 0"] == "opened"
    assert {how for how in found.values() if how != "opened"} <= REFUSALS


@pytest.mark.parametrize("capabilities", [["NET_RAW"], ["NET_ADMIN"], ["SYS_ADMIN"]], ids=str)
def test_capabilities_open_what_is_theirs(capabilities):
    """Raw and packet sockets, and netlink: no family besides."""
    needs_root("another user with capabilities")
    found = probe(EVERY_SOCKET, capabilities=capabilities)
    netlink = {name for name in found if name.startswith("netlink")}
    theirs = {"2/3", "10/3", "icmp", "esp", "packet", "packet dgram", "17/2", "17/3"} if "NET_RAW" in capabilities else netlink
    assert {name for name, how in found.items() if how == "opened"} <= HARMLESS | theirs


def test_without_the_filter_there_are_others():
    """The tests above can fail. Few are asked for: the kernel would load modules for them."""
    source = SOCKETS + "answer([opened(16, 3, 15), opened(16, 3, 4)])"
    assert "opened" in probe(source, seccomp=None)
    assert "opened" not in probe(source)


# --- namespaces, and what is behind them ---------------------------------------------------------------------------------
BEHIND = SOCKETS + """
def call(name, *args):
    return "done" if getattr(libc, name)(*args) >= 0 else errno.errorcode[ctypes.get_errno()]
def syscall(number, *args):
    return "done" if libc.syscall(number, *args) >= 0 else errno.errorcode[ctypes.get_errno()]
uid, gid = os.getuid(), os.getgid()
found = {"unshare": call("unshare", 0x10000000)}
if found["unshare"] == "done":
    for name, text in ("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1"):
        with open(f"/proc/self/{name}", "w") as file: file.write(text)
found["others"] = call("unshare", 0x40000000 | 0x00020000)
found["fsopen"] = syscall(430, b"tmpfs", 0)
found["mount"] = call("mount", b"none", b"/mnt", b"tmpfs", 0, None)
found["overlay"] = call("mount", b"none", b"/mnt", b"overlay", 0, b"lowerdir=/usr:/etc,userxattr")
open("/tmp/file", "w").close()
# VFS_CAP_REVISION_2, effective, CAP_SYS_ADMIN
capability = bytes.fromhex("0100000200002000000000000000000000000000")
found["capability"] = call("setxattr", b"/tmp/file", b"security.capability", capability, 20, 0)
found["overlay mark"] = call("setxattr", b"/tmp/file", b"trusted.overlay.opaque", b"y", 1, 0)
found["netfilter"] = opened(16, 3, 12)
found["packet"] = opened(17, 3, 0x0300)
found["clone3"] = syscall(435, 0, 0)
answer(found)
"""


@pytest.mark.parametrize("options", [{}, {"namespaces": {"user": "new"}}, {"user": "1000:1000", "uid_map": "single"}], ids=str)
def test_nothing_of_the_kernel_behind_namespaces_is_reached(options):
    """CVE-2022-0185 (fsconfig), CVE-2021-22555, CVE-2024-1086, CVE-2023-32233 (netfilter), CVE-2020-14386 (AF_PACKET), and overlays
    of a user's own: CVE-2021-3493, CVE-2023-0386, CVE-2023-2640, CVE-2015-8660."""
    found = probe(BEHIND, **options)
    assert set(found.values()) <= {"EPERM", "ENOSYS", "EAFNOSUPPORT"}, found


def test_without_the_filter_all_of_that_is_reached():
    """The test above can fail."""
    # Another user than root, who could not be mapped: the capability that this takes is not there.
    found = probe(BEHIND, seccomp=None, user="1000:1000", uid_map="single")
    reached = {name for name, how in found.items() if how == "done" or how == "opened"}
    assert {"unshare", "others", "fsopen", "mount", "capability"} <= reached, found
    assert found["overlay mark"] == "EPERM"


RELEASE = """
import ctypes
libc = ctypes.CDLL(None)
libc.unshare(0x10000000 | 0x02000000)
libc.unshare(0x00020000)
found = []
os.makedirs("/tmp/c", exist_ok=True)
for options in sys.argv[1:]:
    if libc.mount(b"none", b"/tmp/c", b"cgroup", 0, options.encode()) == 0:
        found.append("mounted")
        try:
            os.close(os.open("/tmp/c/release_agent", os.O_WRONLY))
            found.append("opened")
        except OSError: pass
        libc.umount2(b"/tmp/c", 2)
answer(found)
"""


def hierarchies() -> list[str]:
    """Options for mount(8) that give each hierarchy of version 1; one of our own where there is none."""
    lines = [line.split(":")[1] for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines()]
    found = [name if not name.startswith("name=") else f"none,{name}" for name in lines if name]
    return found or [f"none,name=zind-attack-{os.getpid()}"]


def test_no_release_agent_is_written():
    """CVE-2022-0492: a hierarchy of version 1, mounted from a user namespace, runs a program of the attacker's as the host's root."""
    for options in ({}, {"capabilities": ["SYS_ADMIN", "DAC_OVERRIDE"], "namespaces": {"user": "new"}}):
        assert probe(RELEASE, *hierarchies(), **options) in ([], ["mounted"] * len(hierarchies())), options
    assert probe(RELEASE, *hierarchies()) == []


def test_with_all_rights_a_release_agent_could_be_written():
    """The test above can fail: root's capabilities and no filter; it is opened, and left as it is."""
    needs_root("mounting in the caller's namespace")
    source = RELEASE.replace("libc.unshare(0x10000000 | 0x02000000)\nlibc.unshare(0x00020000)\n", "libc.unshare(0x00020000)\n")
    found = probe(source, *hierarchies(), privileged=True)
    assert "opened" in found or kit.kernel() >= (6, 12) and not any(name for name in hierarchies() if "zind-attack" not in name), found


@pytest.mark.parametrize("owner", [4242, 100_007])
def test_a_set_uid_program_of_somebody_outside(owner, tmp_path):
    """CVE-2023-0386: a set-uid file of an owner who is not in the user namespace has no effect; of one who is, it has."""
    needs_root("other ids")
    root = tmp_path / "root"
    for name in ("usr", "proc", "sys", "dev", "etc"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    shutil.copy("/usr/bin/id", root / "id")
    os.chown(root / "id", owner, owner)
    os.chmod(root / "id", 0o6755)
    maps = [(0, 100_000, 65536)]
    options = {"rootfs": root, "mounts": [zind.Mount.bind("/usr", "/usr", read_only=True)], "uid_map": maps, "gid_map": maps, "user": "1000:1000"}

    def become(**more) -> bytes:
        return zind.run(["/id", "-u"], stdin=zind.DEVNULL, check=True, capture_output=True, **options, **more).stdout.strip()

    assert become() == b"1000"
    assert become(no_new_privileges=False) == (b"7" if owner > 100_000 else b"1000")


# --- other ways to call the kernel ---------------------------------------------------------------------------------------
CODE = """
import ctypes, mmap
def ran(code):
    page = mmap.mmap(-1, 4096, prot=7)
    page.write(bytes.fromhex(code))
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    pid = os.fork()
    if pid == 0:
        os._exit(0 if function() == os.getpid() else 1)
    status = os.waitpid(pid, 0)[1]
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "pid" if os.WEXITSTATUS(status) == 0 else "something else"
answer([ran("b814000000" "cd80" "c3"),                                # int 0x80: getpid of i386
        ran("53" "b866000000" "bb01000000" "31c9" "cd80" "5b" "c3"),  # int 0x80: socketcall
        ran("b827000040" "0f05" "c3"),                                # syscall: getpid of x32
        ran("b827000000" "0f05" "c3")])                               # syscall: getpid
"""


def test_calls_of_i386_and_x32_end_the_program():
    """CVE-2026-31431 by another way: socketcall(2) of i386 has its arguments in memory, where no filter sees them."""
    assert probe(CODE) == ["signal 31", "signal 31", "signal 31", "pid"]
    # Whatever the kernel makes of them otherwise, it is not the filter's end.
    assert "signal 31" not in probe(CODE, seccomp=None)


# --- terminals -----------------------------------------------------------------------------------------------------------
TERMINAL = """
import errno, fcntl, json, os, select, sys, termios, zind
fd, options = int(sys.argv[1]), json.loads(sys.argv[2])
fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
source = "import fcntl, termios\\ntry:\\n fcntl.ioctl(0, termios.TIOCSTI, b'#')\\n print('typed')\\nexcept OSError as error: print(error.errno)"
if "seccomp" in options: options["seccomp"] = None
r = zind.run(["/usr/bin/python3", "-c", source], stdin=fd, stdout=zind.PIPE, text=True, timeout=30, **options)
typed = os.read(fd, 10).decode() if select.select([fd], [], [], 0)[0] else ""
print(json.dumps([r.stdout.strip(), typed]))
"""


@pytest.mark.parametrize(
    ("options", "works"),
    [({}, False), ({"setsid": False}, False), ({"seccomp": 0}, False), ({"setsid": False, "seccomp": 0}, True)],
    ids=["default", "the caller's session", "no filter", "neither"],
)
def test_typing_into_the_callers_terminal(options, works):
    """CVE-2017-5226, CVE-2016-10124: TIOCSTI, which the filter and the session of its own each keep from the caller's terminal."""
    import json
    import tty

    # Before Linux 6.2 there is no way to turn it off.
    switch = pathlib.Path("/proc/sys/dev/tty/legacy_tiocsti")
    works = works and not (switch.exists() and switch.read_text() == "0\n")
    master, slave = pty.openpty()
    try:
        tty.setraw(slave)
        said = kit.outside(TERMINAL, str(slave), json.dumps(options), pass_fds=[slave], start_new_session=True).stdout
    finally:
        os.close(master)
        os.close(slave)
    assert json.loads(said) == (["typed", "#"] if works else [json.loads(said)[0], ""]), said
    if not works:
        assert json.loads(said)[0] in ("1", "5", "25"), said


# --- what tells of others ------------------------------------------------------------------------------------------------
TELLING = """
import glob
names = ["/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/sys/firmware", "/sys/devices/virtual/powercap"]
names += glob.glob("/sys/devices/system/cpu/cpu*/thermal_throttle")
def size(path):
    try:
        return len(os.listdir(path)) if os.path.isdir(path) else len(open(path, "rb").read(64))
    except OSError:
        return 0
answer({name: size(name) for name in names})
"""


def test_what_tells_of_others_is_empty():
    """GHSA-6fw5-f8r9-fgfm, GHSA-jq35-85cj-fj4p: counters that tell what other containers and the host do."""
    assert set(probe(TELLING).values()) == {0}
    assert probe(TELLING, privileged=True)["/proc/interrupts"] > 0


def test_the_session_keyring_of_the_caller_is_reached_only_if_it_is_given():
    """A runtime that keeps the caller's keyring lets its containers read and change what others keep in there."""
    source = """
import ctypes, zind
libc = ctypes.CDLL(None)
# A session keyring of this process's own, as pam_keyinit(8) makes one: keyctl(KEYCTL_JOIN_SESSION_KEYRING) and its number.
libc.syscall(250, 1, 0)
number = "import ctypes; print(ctypes.CDLL(None).syscall(250, 0, -3, 0) & 0xffffffff)"
inside = [int(zind.run(["/usr/bin/python3", "-c", number], capture_output=True, check=True, seccomp=None, keyring=own).stdout) for own in (True, False)]
print(inside[0] == libc.syscall(250, 0, -3, 0), inside[1] == libc.syscall(250, 0, -3, 0))
"""
    assert kit.outside(source).stdout == "False True\n"


def test_abstract_sockets_of_the_host_take_the_hosts_network():
    """CVE-2020-15257: a runtime listens on abstract sockets, which whoever has the host's network reaches. zind opens none."""
    before = pathlib.Path("/proc/net/unix").read_text().splitlines()
    with zind.Popen(["sleep", "600"], stdin=zind.DEVNULL) as p:
        names = {line.split()[7] for line in pathlib.Path("/proc/net/unix").read_text().splitlines()[1:] if len(line.split()) > 7}
        assert not any(name.startswith("@") and "zind" in name for name in names), names
        p.kill()
    source = """
import ctypes
lines = open("/proc/net/unix").read().splitlines()[1:]
answer(sorted(line.split()[7] for line in lines if len(line.split()) > 7 and line.split()[7].startswith("@")))
"""
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0attacked-{os.getpid()}")
        server.listen()
        assert probe(source) == []
        assert f"@attacked-{os.getpid()}" in probe(source, network="host"), "seen; test_landlock.py has who connects"
    assert before


def test_nothing_of_the_tools_is_missing():
    """What the attacks of these files need is there, so that none of them fails for want of it."""
    for name in ("unshare", "mount", "strace", "nsenter"):
        assert shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin"), name
    assert subprocess.run([sys.executable, "-c", "import tarfile"], check=True).returncode == 0
