"""The caller's devices: which node comes where, what may be done with it, and what is refused; the console."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys

import pytest

import zind
from kit import ROOT, needs_root, probe, refused, sh

Device = zind.Device

LOOK = "answer([[oct(s.st_mode), os.major(s.st_rdev), os.minor(s.st_rdev)] for s in [os.stat(p) for p in sys.argv[1:]]])"


def run(*devices, **options):
    return zind.run(["true"], devices=list(devices), **options)


@pytest.mark.parametrize("namespaces", [{}, {"user": "new"}], ids=["plain", "user"])
@pytest.mark.parametrize("given", ["/dev/zero:/dev/given", "/dev/zero:/dev/given:rw", Device("/dev/zero", "/dev/given")], ids=str)
def test_a_device_of_the_host(given, namespaces):
    assert sh("head -c 3 /dev/given | od -An -tx1; echo x >/dev/given", devices=[given], namespaces=namespaces) == "00 00 00"
    assert probe(LOOK, "/dev/given", devices=[given], namespaces=namespaces) == [["0o20666", 1, 5]]


def test_the_path_of_the_host_is_the_default():
    assert probe(LOOK, "/dev/full", devices=["/dev/full"]) == [["0o20666", 1, 7]]
    needs_root("other devices of the host")
    mode = oct(os.stat("/dev/loop-control").st_mode)
    assert probe(LOOK, "/dev/loop-control", devices=["/dev/loop-control"]) == [[mode, 10, 237]]


@pytest.mark.parametrize("place", ["/dev/deep/er/zero", "/run/zero", "/zero", "/usr/zero"])
def test_anywhere_in_the_container(place):
    assert sh(f"head -c 1 {place} | wc -c", devices=[f"/dev/zero:{place}"]) == "1"


def test_in_a_root_directory(tiny_root):
    for overlay in (True, False, False):  # The second time its place is there.
        assert sh("head -c 1 /zero | wc -c", rootfs=tiny_root, overlay=overlay, devices=["/dev/zero:/zero"]) == "1"
    assert (tiny_root / "zero").is_file() and not (tiny_root / "dev/zero").exists()
    (tiny_root / "zero").write_text("content")
    refused(zind.SysError, lambda: run("/dev/zero:/zero", rootfs=tiny_root), step="MountTarget", number=errno.EEXIST)
    assert (tiny_root / "zero").read_text() == "content"


def test_every_device_of_a_directory(tmp_path):
    if ROOT:
        assert sh("ls /dev/given", devices=["/dev/net:/dev/given"]).split() == sorted(os.listdir("/dev/net"))
        os.mkdir(tmp_path / "sub")
        os.mknod(tmp_path / "sub/a", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
        os.mknod(tmp_path / "b", 0o600 | stat.S_IFBLK, os.makedev(7, 200))
        (tmp_path / "file").write_text("")
        (tmp_path / "link").symlink_to("/dev/full")
        found = probe(LOOK, "/dev/given/sub/a", "/dev/given/b", devices=[f"{tmp_path}:/dev/given"])
        assert found == [["0o20600", 1, 5], ["0o60600", 7, 200]]
        assert sh("ls /dev/given", devices=[f"{tmp_path}:/dev/given"]).split() == ["b", "sub"]
    (tmp_path / "none").mkdir()
    refused(zind.SpecError, lambda: run(f"{tmp_path}/none:/dev/given"), field="devices")


# --- by number -------------------------------------------------------------------------------------------------------
def test_a_node_by_its_numbers():
    if not ROOT:
        refused(zind.UnsupportedError, lambda: run(Device.node("c", "/dev/given", 1, 5)))
        refused(zind.UnsupportedError, lambda: run(Device.node("c", "/dev/full", 1, 5)))
    # The very device is there on the host.
    assert sh("head -c 1 /dev/zero | wc -c", devices=[Device.node("c", "/dev/zero", 1, 5)]) == "1"
    needs_root("other devices of the host")
    nodes = [
        Device.node("c", "/dev/c", 1, 5, mode=0o640, uid=5, gid=6),
        Device.node("u", "/dev/u", 1, 5),
        Device.node("b", "/run/b", 259, 0xFFFFF, mode=0o600),
    ]
    assert probe(LOOK, "/dev/c", "/dev/u", "/run/b", devices=nodes) == [["0o20640", 1, 5], ["0o20666", 1, 5], ["0o60600", 259, 0xFFFFF]]
    assert sh("stat -c %u:%g /dev/c", devices=nodes) == "5:6"


def test_a_fifo():
    node = Device.node("p", "/dev/queue", mode=0o600)
    assert sh("(echo through >/dev/queue) & cat /dev/queue; stat -c %a /dev/queue", devices=[node]) == "through\n600"


# --- rights ----------------------------------------------------------------------------------------------------------
ATTEMPTS = """
def attempt(flags):
    try:
        os.close(os.open("/dev/given", flags))
        return 0
    except OSError as e:
        return e.errno
found = [attempt(os.O_RDONLY), attempt(os.O_WRONLY), attempt(os.O_RDWR)]
try:
    os.chmod("/dev/given", 0o666)
    found.append(0)
except OSError as e:
    found.append(e.errno)
found += [attempt(os.O_RDONLY), attempt(os.O_WRONLY)]
answer(found)
"""
NO, RO = errno.EACCES, errno.EROFS


@pytest.mark.parametrize("access,found", [("rw", [0, 0, 0, RO, 0, 0]), ("r", [0, NO, NO, RO, 0, NO]), ("w", [NO, 0, NO, RO, NO, 0]), ("m", [NO, NO, NO, RO, NO, NO])])
def test_rights_hold_for_root_of_the_container(access, found):
    if not ROOT and access != "rw":
        error = refused(zind.UnsupportedError, lambda: run(f"/dev/zero:/dev/given:{access}"))
        assert "devices[0]" in str(error)
        return
    if not ROOT:
        # The owner of the host's node is nobody's inside.
        assert probe(ATTEMPTS, devices=["/dev/zero:/dev/given:rw"])[:3] == [0, 0, 0]
        return
    assert probe(ATTEMPTS, devices=[f"/dev/zero:/dev/given:{access}"]) == found


def test_a_descriptor_for_reading_is_not_opened_anew_for_writing():
    needs_root("other devices of the host")
    source = """
fd = os.open("/dev/given", os.O_RDONLY)
try:
    os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    answer(0)
except OSError as e:
    answer(e.errno)
"""
    assert probe(source, devices=["/dev/null:/dev/given:r"]) == errno.EACCES


@pytest.mark.parametrize(
    "options", [{"privileged": True}, {"capabilities": ["DAC_OVERRIDE"]}, {"capabilities": "docker"}, {"capabilities": ["SYS_ADMIN"]}, {"seccomp": None}, {"namespaces": {"user": "new"}}], ids=str
)
def test_rights_that_nothing_would_enforce_are_refused(options):
    refused(zind.UnsupportedError, lambda: run("/dev/zero:/dev/given:r", **options))
    assert run("/dev/zero:/dev/given:rw", **options).returncode == 0


def test_without_the_filter_a_mode_is_passed_by():
    """Why the rights need the filter: in a user namespace of its own the payload has every capability over its files."""
    needs_root("other devices of the host")
    script = "(: >/dev/given) 2>/dev/null || echo no; unshare -r sh -c ': >/dev/given' 2>/dev/null || echo no"
    # The kernel does not let user 0 map itself without SETFCAP (Linux 5.12); everybody else may.
    node = Device("/dev/zero", "/dev/given", mode=0o444, uid=1000, gid=1000)
    assert sh(script, devices=[node], user="1000:1000", seccomp=None) == "no"
    assert sh(script, devices=[node], user="1000:1000") == "no\nno"


def test_the_hosts_own_nodes_cannot_be_changed_from_inside():
    """User 0 of a container that maps the host's user 0 owns /dev/null, and needs no capability to change its mode."""
    needs_root("other ids")
    everybody = [zind.IdMap(0, 0, 65536)]
    script = "for f in /dev/null /dev/given; do chmod 666 $f 2>&1; chown 0:0 $f 2>&1; done; true"
    found = sh(script, uid_map=everybody, gid_map=everybody, devices=["/dev/zero:/dev/given"])
    assert found.count("Read-only file system") == 4, found


def test_the_report_says_what_the_rights_rest_on():
    told = run("/dev/zero:/dev/given:rw").isolation
    assert "/dev/given" in told.devices
    kind = ("own", "mode") if ROOT else ("host", "permissions of the host's node")
    assert told.extra_devices == [{"path": "/dev/given", "access": "rw", "node": kind[0], "enforced_by": kind[1]}]
    assert zind.run(["true"]).isolation.extra_devices == []


# --- what is refused -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text", ["/dev/zero:/dev/a:x", "/dev/zero:/dev/a:", "/dev/zero:/dev/a:rr", "/a:/b:r:w"])
def test_text_that_means_nothing(text):
    refused(zind.SpecError, lambda: run(text), field="devices")
    refused(zind.SpecError, lambda: Device.parse(text), field="devices")


@pytest.mark.parametrize("text", ["/dev/zero:dev/x", "dev/zero", "/dev/zero:/dev/../x", "/dev/zero:/", ":/dev/x", ""])
def test_paths_that_are_none(text):
    error = refused(zind.SpecError, lambda: run("/dev/full", text), field="devices")
    assert "[1]" in str(error)


def test_what_is_missing_or_no_device(tmp_path):
    error = refused(zind.SysError, lambda: run("/dev/full", f"{tmp_path}/none:/dev/x"), step="OpenSource", number=errno.ENOENT)
    assert "devices[1]" in str(error)
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "fifo")
    for name in ("file", "fifo"):
        error = refused(zind.SpecError, lambda: run("/dev/full", f"{tmp_path}/{name}:/dev/x"), field="devices")
        assert "[1]" in str(error)
    with pytest.raises(TypeError, match="zind.Device"):
        run(5)


def test_two_at_one_place():
    error = refused(zind.SpecError, lambda: run("/dev/zero:/dev/x", "/dev/full:/dev//x/"), field="devices")
    assert "[1]" in str(error) and "devices[0]" in str(error)


def test_a_place_that_is_taken():
    error = refused(zind.SysError, lambda: run("/dev/zero:/dev/null"), step="MountTarget", number=errno.EEXIST)
    assert "devices[0]" in str(error)
    refused(zind.SysError, lambda: run("/dev/zero:/etc/passwd"), step="MountTarget", number=errno.EEXIST)


def test_numbers_that_are_none():
    for kind, major, minor in [("x", 1, 1), ("c", 4096, 1), ("c", 1, 1 << 20)]:
        refused(zind.SpecError, lambda: Device.node(kind, "/dev/x", major, minor), field="devices")
    refused(zind.SpecError, lambda: run(Device("/dev/zero", "/dev/x", mode=0o4777)), field="devices")


def test_a_node_of_the_hosts_keeps_its_mode():
    options = {"namespaces": {"user": "new"}}
    refused(zind.UnsupportedError, lambda: run(Device("/dev/zero", "/dev/x", mode=0o600), **options))
    refused(zind.UnsupportedError, lambda: run(Device("/dev/zero", "/dev/x", uid=5), **options))


def test_links_of_the_root_lead_nowhere(tiny_root, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (tiny_root / "d").symlink_to(victim)
    (tiny_root / "n").symlink_to(victim / "n")
    for place in ("/d/x", "/n", "/d/y/z"):
        refused(zind.SysError, lambda: run(f"/dev/zero:{place}", rootfs=tiny_root, overlay=False), step="MountTarget", number=errno.ELOOP)
    assert os.listdir(victim) == []


@pytest.mark.limit(120)
@pytest.mark.parametrize("namespaces", [{}, {"user": "new"}], ids=["plain", "user"])
def test_a_source_that_changes_meanwhile(tmp_path, namespaces):
    """A link to a device and a file change places all the time: the file is never in the container."""
    (tmp_path / "a").symlink_to("/dev/zero")
    (tmp_path / "b").write_text("a file")
    swap = "import ctypes, os, sys\nlibc = ctypes.CDLL(None)\nos.chdir(sys.argv[1])\nwhile not os.path.exists('stop'): libc.renameat2(-100, b'a', -100, b'b', 2)"
    swapper = subprocess.Popen([sys.executable, "-c", swap, tmp_path])
    try:
        ends = set()
        for _ in range(100):
            try:
                assert sh("stat -c %F:%t:%T /dev/given", devices=[f"{tmp_path}/a:/dev/given"], namespaces=namespaces) == "character special file:1:5"
                ends.add("device")
            except zind.SpecError as error:
                assert "no device" in str(error)
                ends.add("file")
            except zind.SysError as error:
                assert error.errno == errno.ESTALE, error
                ends.add("changed")
        assert {"device", "file"} <= ends, ends
    finally:
        (tmp_path / "stop").touch()
        assert swapper.wait(10) == 0


def test_the_low_level_has_none():
    with pytest.raises((zind.SpecError, TypeError)):
        zind.spawn(["true"], zind.ProcAttr(devices=["/dev/zero"]))  # type: ignore[call-arg]


# --- the console -----------------------------------------------------------------------------------------------------
@pytest.fixture
def terminal():
    master, slave = os.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


SAME = {} if ROOT else {"uid_map": "single"}


def test_a_terminal_as_console(terminal):
    master, slave = terminal
    for console in (master, slave, os.ttyname(slave)):
        sh("echo hello >/dev/console", console=console, **SAME)
        assert os.read(master, 100) == b"hello\r\n"
    assert "/dev/console" in zind.run(["true"], console=slave).isolation.devices
    assert sh("test -e /dev/console || echo none") == "none"


def test_what_is_no_terminal(tmp_path, terminal):
    os.mkfifo(tmp_path / "fifo")
    reader, writer = os.pipe()
    try:
        for console in ("/dev/null", "/etc/passwd", tmp_path / "fifo", "/dev/zero", reader):
            refused(zind.SpecError, lambda: zind.run(["true"], console=console), field="console")
        refused(zind.SysError, lambda: zind.run(["true"], console=tmp_path / "none"), number=errno.ENOENT, hint=False)
    finally:
        os.close(reader)
        os.close(writer)
    os.symlink("/proc/sys/kernel/core_pattern", tmp_path / "link")
    refused(zind.SpecError, lambda: zind.run(["true"], console=tmp_path / "link"), field="console")


def test_a_console_in_a_dev_of_somebody_else(tmp_path, terminal):
    """CVE-2025-52565, CVE-2026-88264: links in a directory that is mounted at /dev."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "victim").write_text("untouched")
    (tmp_path / "dev/console").symlink_to(tmp_path / "victim")
    before = os.stat(tmp_path / "victim")
    mounts = [zind.Mount.bind(tmp_path / "dev", "/dev"), zind.Mount.bind(tmp_path, "/seen")]
    for name in ("pts", "shm", "mqueue"):
        (tmp_path / "dev" / name).mkdir()
    refused(zind.SysError, lambda: zind.run(["true"], mounts=mounts, console=terminal[1]), step="MountTarget", number=errno.ELOOP)
    after = os.stat(tmp_path / "victim")
    assert (before.st_mode, before.st_uid, before.st_mtime_ns) == (after.st_mode, after.st_uid, after.st_mtime_ns)
    (tmp_path / "dev/console").unlink()
    (tmp_path / "dev/console").write_text("something")
    refused(zind.SysError, lambda: zind.run(["true"], mounts=mounts, console=terminal[1]), step="MountTarget", number=errno.EEXIST)
