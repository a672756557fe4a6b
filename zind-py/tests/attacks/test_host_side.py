"""What zind itself does on the host while it deals with a container: programs it runs, files it keeps, who may see them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import re
import shutil
import stat
import struct
import subprocess
import sys
import time

import careless
import pytest
from scene import archive, entry, start, tree

import kit
import zind
from kit import needs_root

# --- programs and libraries of the container ------------------------------------------------------------------------------
LIBRARY = """
#include <fcntl.h>
#include <unistd.h>
#include <stdlib.h>
__attribute__((constructor)) static void mark(void) { const char *path = getenv("MARK"); if (path) close(open(path, O_CREAT | O_WRONLY, 0666)); }
"""
#: What runtimes have loaded or run from a container.
LIBRARIES = ["lib/x86_64-linux-gnu/libnss_files.so.2", "lib/x86_64-linux-gnu/libnss_compat.so.2", "lib64/libnss_files.so.2", "usr/lib/libnss_dns.so.2"]
PROGRAMS = "bin/xz bin/unpigz bin/gzip bin/zstd bin/tar bin/ps bin/nsenter bin/newuidmap bin/getent usr/bin/unpigz usr/bin/ps usr/sbin/ldconfig sbin/modprobe".split()

FEATURES = """
import os, sys, zind
root, place, mark = sys.argv[1:]
os.environ["MARK"] = mark
run = {"stdin": zind.DEVNULL, "capture_output": True}
# newuidmap(1) gains no rights below strace(1): an ordinary user has one id here.
is_root = os.getuid() == 0
with zind.Root(root) as inside:
    inside.copy_in("/etc/hostname", "/copied")
    inside.copy_out("/etc/passwd", place + "/passwd")
    inside.copy_out("/lib", place + "/lib")
    inside.read_file("/etc/passwd")
    inside.write_file("/written", b"x")
zind.run(["/bin/busybox", "true"], rootfs=root, user="web", **run)
p = zind.Popen(["/bin/busybox", "sleep", "600"], rootfs=root, overlay=False, stdin=zind.DEVNULL)
p.exec(["/bin/busybox", "true"], user="web" if is_root else "root", **run)
p.exec(["/bin/busybox", "true"], pty=True, capture_output=True)
p.processes(); p.stats()
p.kill(); p.wait()
store = zind.Store(place + "/store")
image = store.import_rootfs(root, tag="local/x:1")
zind.run(["/bin/busybox", "true"], image=image, **run)
layers = zind.Layers.create(place + "/layers", image)
zind.run(["/bin/busybox", "touch", "/new"], rootfs=layers, **run)
layers.diff(); layers.snapshot("s"); layers.restore("s")
layers.commit()
layers.export(place + "/layers.tar")
image.export(place + "/flat.tar"); image.save(place + "/saved.tar"); store.load(place + "/saved.tar")
store.verify(); store.gc()
layers.delete()
with zind.Container(["/bin/busybox", "sleep", "600"], rootfs=root, containers=zind.Containers(place + "/containers")) as c:
    c.start(); c.processes(); c.stats(); c.inspect(); list(c.logs()); c.kill(); c.wait(20)
print("all of it")
"""


@pytest.fixture
def trojans(tiny_root, tmp_path):
    """A root in which everything that a runtime might run or load writes a mark."""
    kit.needs_program("gcc")
    (tmp_path / "mark.c").write_text(LIBRARY)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "mark.so", tmp_path / "mark.c"], check=True)
    for name in LIBRARIES:
        (tiny_root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "mark.so", tiny_root / name)
    for name in PROGRAMS:
        path = tiny_root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text('#!/bin/sh\n: >"${MARK:-/mark}"\n')
        path.chmod(0o755)
    (tiny_root / "etc/nsswitch.conf").write_text("passwd: files compat\nhosts: dns\n")
    (tiny_root / "etc/ld.so.preload").write_text("/" + LIBRARIES[0] + "\n")
    return tiny_root


def test_a_careless_runtime_loads_and_runs_what_the_container_has(trojans, tmp_path, monkeypatch):
    """CVE-2019-14271, CVE-2022-1227, CVE-2026-41567 can be: the library marks the host."""
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    careless.apart("load", trojans, "/" + LIBRARIES[0])
    assert (tmp_path / "mark").exists()
    (tmp_path / "mark").unlink()
    subprocess.run([trojans / "bin/xz"], check=True)
    assert (tmp_path / "mark").exists()


@pytest.mark.limit(180)
def test_nothing_of_the_container_runs_on_the_host(trojans, tmp_path):
    """CVE-2019-14271, CVE-2022-1227, CVE-2026-41567: everything that zind does with a container, watched by strace(1). No process
    executes a file below the root, or maps one, by a path of the host's; and no mark is there."""
    kit.needs_program("strace")
    place, log = tmp_path / "place", tmp_path / "strace"
    place.mkdir()
    traced = ["strace", "-f", "-qq", "-y", "-s", "300", "-e", "trace=execve,execveat,mmap", "-e", "signal=none", "-o", str(log)]
    command = [*traced, sys.executable, "-c", FEATURES, str(trojans), str(place), str(tmp_path / "mark")]
    done = subprocess.run(command, env=kit.child_env(), capture_output=True, text=True, timeout=170, check=False, stdin=subprocess.DEVNULL)
    assert done.stdout == "all of it\n", done.stderr[-3000:]
    assert not (tmp_path / "mark").exists() and not pathlib.Path("/mark").exists()
    assert not (trojans / "mark").exists()
    below = [line for line in log.read_text(errors="replace").splitlines() if str(tmp_path) in line and "ENOENT" not in line]
    executed = [line for line in below if re.search(r"exec(ve|veat)\(", line) and f'"{tmp_path}' in line and sys.executable not in line]
    mapped = [line for line in below if "mmap(" in line and "PROT_EXEC" in line]
    assert (executed, mapped) == ([], [])
    # The log is one of what matters: the container's own program is in it.
    assert "/bin/busybox" in log.read_text(errors="replace")


# --- set-id, temporary files, memory --------------------------------------------------------------------------------------
def with_rights(top: pathlib.Path) -> list[str]:
    """Files that give rights to who executes them."""
    found = []
    for directory, _, files in os.walk(top):
        for name in files:
            path = os.path.join(directory, name)
            if not stat.S_ISREG(os.lstat(path).st_mode):
                continue
            has_capability = "security.capability" in os.listxattr(path, follow_symlinks=False)
            if os.lstat(path).st_mode & 0o6000 or has_capability:
                found.append(path)
    return found


def test_nothing_of_zind_is_set_id(tmp_path):
    """CVE-2017-5985, CVE-2018-6556, CVE-2022-47952, CVE-2026-39402 (a set-uid network helper), CVE-2016-8659, CVE-2019-12439,
    CVE-2020-5291, CVE-2026-41163 (a set-uid runtime): there is none. Rights come from the kernel, or from newuidmap(1)."""
    assert with_rights(pathlib.Path(zind.__file__).parent) == []
    binary = shutil.which("zind", path=os.path.dirname(sys.executable))
    assert binary is None or not os.stat(binary).st_mode & 0o6000
    # The look finds one.
    shutil.copy("/usr/bin/true", tmp_path / "true")
    os.chmod(tmp_path / "true", 0o4755)
    assert with_rights(tmp_path) == [str(tmp_path / "true")]


IN_CREATE, IN_MOVED_TO = 0x100, 0x80


@contextlib.contextmanager
def names_made_in(*directories: str):
    """What comes into being in directories meanwhile, by inotify(7)."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    for directory in directories:
        assert libc.inotify_add_watch(fd, os.fsencode(directory), IN_CREATE | IN_MOVED_TO) >= 0
    found: list[str] = []
    try:
        yield found
        with contextlib.suppress(BlockingIOError):
            while data := os.read(fd, 65536):
                while data:
                    length = struct.unpack_from("iIII", data)[3]
                    found.append(data[16 : 16 + length].rstrip(b"\0").decode())
                    data = data[16 + length :]
    finally:
        os.close(fd)


def test_nothing_is_made_where_others_may_write(tiny_root, tmp_path):
    """CVE-2019-12439, CVE-2015-1331: names in /tmp and /run/lock that others make first. No start, joining or copying makes one."""
    with names_made_in("/tmp", "/var/tmp", "/dev/shm", "/run/lock") as found:
        for options in ({}, {"rootfs": tiny_root}, {"namespaces": {"user": "new"}}, {"rootfs": tiny_root, "overlay": False}):
            start(**options)
        with zind.Popen(["sleep", "600"], stdin=zind.DEVNULL) as p:
            p.exec(["true"], stdin=zind.DEVNULL)
            p.exec(["true"], pty=True, capture_output=True)
            p.kill()
        del p._process
        with zind.Root(tiny_root) as root:
            root.copy_out("/etc/passwd", tmp_path / "passwd")
    # Others work here, too; theirs have other names.
    assert [name for name in found if "zind" in name] == []
    with names_made_in("/tmp") as found:
        path = f"/tmp/attacked-zind-{os.getpid()}"
        open(path, "w").close()
        os.unlink(path)
    assert os.path.basename(path) in found


# --- what is kept ---------------------------------------------------------------------------------------------------------
REACH = """
import os, stat, sys
found = []
for directory, _, names in os.walk(sys.argv[1]):
    for name in names:
        path = os.path.join(directory, name)
        try:
            if os.lstat(path).st_mode & 0o6000: found.append(name)
        except OSError: pass
try: os.listdir(sys.argv[1])
except PermissionError: pass
print(sorted(set(found)))
"""


def test_others_reach_no_set_id_program_of_an_image(tmp_path):
    """CVE-2021-41091, CVE-2021-41103, CVE-2024-25621: another user of the host walks through what is kept of images, layers,
    volumes and containers, and executes a set-uid program in it."""
    needs_root("another user's id")
    os.chmod(tmp_path, 0o755)
    for parent in tmp_path.parents:
        if parent.owner() == "root" and str(parent).startswith("/tmp/pytest"):
            os.chmod(parent, 0o755)
    busybox = pathlib.Path("/usr/bin/busybox").read_bytes()
    tar = archive(tmp_path / "root.tar", [entry("bin/"), entry("bin/busybox", data=busybox, mode=0o755), entry("suid", data=busybox, mode=0o4755)])
    os.chmod(tar, 0o600)
    old = os.umask(0)
    try:
        store = zind.Store(tmp_path / "kept/store")
        image = store.import_rootfs(tar, tag="local/x:1")
        image.unpack()
        layers = zind.Layers.create(tmp_path / "kept/layers", image)
        script = ["/bin/busybox", "cp", "-p", "/suid", "/data/suid"]
        volume = zind.Mount.volume("v", "/data", place=tmp_path / "kept/volumes")
        zind.run(["/bin/busybox", "cp", "-p", "/suid", "/suid2"], rootfs=layers, stdin=zind.DEVNULL, check=True)
        zind.run(script, image=image, mounts=[volume], stdin=zind.DEVNULL, check=True)
        containers = zind.Containers(tmp_path / "kept/containers")
        containers.create(["/bin/busybox", "true"], image=image, store=store)
    finally:
        os.umask(old)
    inside = [path for path in (tmp_path / "kept").rglob("suid*") if path.is_file()]
    assert len(inside) >= 3, "there are some to be found"

    def reach() -> str:
        command = ["/usr/bin/python3", "-c", REACH, str(tmp_path / "kept")]
        return subprocess.run(command, user=4242, group=4242, extra_groups=[], check=True, capture_output=True, text=True).stdout

    assert reach() == "[]\n"
    # The attack: with those directories open it finds them.
    for path in [tmp_path / "kept", *(tmp_path / "kept").rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            os.chmod(path, 0o755)
    assert "suid" in reach()
    for container in containers:
        container.delete(force=True)
    layers.delete()


STATE = ["config.json", "exit", "lock", "log", "monitor", "running", "runtime.json", "state.json"]


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "socket"])
@pytest.mark.parametrize("name", STATE)
def test_files_of_a_container_are_replaced(name, kind, tmp_path, victim):
    """CVE-2026-53489, CVE-2015-1334: a file that a container is kept in was made a link, a FIFO or a directory: by another user, or
    by the archive it was restored from. Nothing outside is read or written, and nothing waits."""
    containers = zind.Containers(tmp_path / "place")
    c = containers.create(["sh", "-c", "echo from the container"])
    c.start()
    c.wait(20)
    path = pathlib.Path(c.path) / name
    assert path.is_file(), os.listdir(c.path)
    path.unlink()
    if kind == "link":
        path.symlink_to(victim / "file")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        import socket

        here = os.getcwd()
        os.chdir(path.parent)
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(name)
        os.chdir(here)
    began, said = time.monotonic(), []
    for call in (
        lambda: containers.list(all=True),
        lambda: [line.text for line in c.logs()],
        lambda: c.inspect(),
        lambda: c.state,
        lambda: c.exit,
        lambda: c.start(),
        lambda: c.wait(20),
        lambda: [line.text for line in c.logs()],
        lambda: containers.prune(),
        lambda: c.delete(force=True),
    ):
        try:
            said.append(repr(call()))
        except (zind.Error, OSError) as error:
            assert str(error)
    assert not any("untouched" in text for text in said), said
    assert time.monotonic() - began < 50
    with contextlib.suppress(zind.Error):
        c.delete(force=True)
    assert sorted(os.listdir(victim)) == ["dir", "file"]


@pytest.mark.parametrize("what", ["store", "containers", "volumes", "layers"])
def test_a_place_of_somebody_else_is_refused(what, tmp_path):
    """CVE-2015-1331, CVE-2015-1334: the directory that is to be used was made by another user before."""
    needs_root("files of root's")
    place = tmp_path / "place"
    place.mkdir(mode=0o777)
    os.chown(place, 4242, 4242)
    base = tmp_path / "base"
    base.mkdir()
    before = sorted(os.listdir(place))
    make = {
        "store": lambda: zind.Store(place),
        "containers": lambda: zind.Containers(place).create(["true"]),
        "volumes": lambda: zind.Volumes(place).create("v"),
        "layers": lambda: zind.Layers.create(place, base),
    }[what]
    with pytest.raises(zind.Error):
        make()
    assert sorted(os.listdir(place)) == before


# --- settings -------------------------------------------------------------------------------------------------------------
def test_settings_in_an_image_are_no_settings(tmp_path, tiny_root, victim):
    """CVE-2026-40226, CVE-2024-23653: a file of the image that looks like the runtime's own settings, and asks for everything."""
    wanted = zind.run(["/bin/busybox", "true"], rootfs=tiny_root).isolation
    document = zind.oci.config(["/bin/busybox", "ls", "/stolen"], rootfs="/", privileged=True, network="host", mounts=[zind.Mount.bind(victim, "/stolen")])
    import json

    text = json.dumps(document)
    for name in """config.json runtime.json zind.json .zind .zind.json zind.toml etc/zind.json etc/zind/config.json etc/zind/zind.toml
        etc/containers/containers.conf etc/containers/registries.conf etc/containers/policy.json etc/docker/daemon.json root/.docker/config.json
        root/.config/containers/auth.json run/containers/0/auth.json .nspawn image.nspawn etc/systemd/nspawn/image.nspawn lib/zind/config.json
        usr/share/zind/config.json var/lib/zind/store var/lib/zind/images/index.json manifest.json index.json oci-layout""".split():
        path = tiny_root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    end = zind.run(["/bin/busybox", "ls", "/stolen"], rootfs=tiny_root, stdin=zind.DEVNULL, capture_output=True)
    assert end.returncode and end.isolation == wanted
    store = zind.Store(tmp_path / "store")
    image = store.import_rootfs(tiny_root, config={"Labels": {"org.zind.privileged": "true", "org.zind.seccomp": "none", "org.zind.mounts": text}})
    of_image = zind.run(["/bin/busybox", "ls", "/stolen"], image=image, stdin=zind.DEVNULL, capture_output=True)
    assert of_image.returncode and of_image.isolation.in_force == wanted.in_force and of_image.isolation.mounts == wanted.mounts
    # The same as the caller's own word counts.
    if kit.ROOT:
        document["root"] = {"path": str(tiny_root)}
        assert zind.run(config=document, capture_output=True, stdin=zind.DEVNULL).stdout.split() == [b"dir", b"file"]


# --- names that are copied out --------------------------------------------------------------------------------------------
def test_names_are_not_patterns(tmp_path, victim, tiny_root):
    """CVE-2019-10152, CVE-2019-18466: names with *, ? and [, and links, copied out of a container."""
    (tiny_root / "d").mkdir()
    for name in ("*", "?", "[a-z]", "{a,b}", "$(id)", "-rf", "a\nb"):
        (tiny_root / "d" / name).write_text("inside")
    (tiny_root / "d/a").write_text("another")
    (tiny_root / "d/link").symlink_to(victim / "file")
    (tiny_root / "out").symlink_to(victim)
    with zind.Root(tiny_root) as root:
        for name in ("*", "?", "[a-z]", "{a,b}", "$(id)", "-rf", "a\nb"):
            root.copy_out(f"/d/{name}", tmp_path / "one")
            assert (tmp_path / "one").read_text() == "inside"
            (tmp_path / "one").unlink()
        root.copy_out("/d", tmp_path / "all")
        assert os.readlink(tmp_path / "all/link") == str(victim / "file")
        for call in (lambda: root.copy_out("/d/link", tmp_path / "x", follow_links=True), lambda: root.copy_out("/out/file", tmp_path / "x")):
            with pytest.raises(zind.Error):
                call()
    assert not (tmp_path / "x").exists() and tree(victim)


def test_a_careless_copy_brings_the_hosts_file(tmp_path, prey, tiny_root):
    """The test above can fail."""
    (tiny_root / "link").symlink_to(prey / "file")
    careless.copy(tiny_root, "/link", tmp_path / "x")
    assert (tmp_path / "x").read_text() == "untouched"
