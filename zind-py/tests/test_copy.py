"""Files and trees into and out of a root, whatever is in it."""

from __future__ import annotations

import asyncio
import errno
import os
import pathlib
import signal
import socket
import stat
import subprocess
import threading

import pytest

import kit
import zind
from kit import ROOT, needs_root, refused


@pytest.fixture
def inside(tmp_path):
    """A directory that is a root, in a directory where nothing else may ever be."""
    path = tmp_path / "outer" / "root"
    path.mkdir(parents=True)
    with zind.Root(path) as root:
        yield path, root
    assert os.listdir(tmp_path / "outer") == ["root"]


def looks(path) -> tuple:
    meta = os.lstat(path)
    return meta.st_mode, meta.st_uid, meta.st_gid, meta.st_size, meta.st_mtime_ns


def leftovers(path) -> list[str]:
    return [name for _, dirs, files in os.walk(path) for name in dirs + files if name.startswith(".zind-")]


class Meanwhile:
    """Does something again and again in a thread."""

    def __init__(self, what) -> None:
        self.what, self.over = what, threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while not self.over.is_set():
            self.what()

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_) -> None:
        self.over.set()
        self.thread.join()


# --- what is kept ----------------------------------------------------------------------------------------------------
@pytest.fixture
def tree(tmp_path):
    top = tmp_path / "tree"
    (top / "sub").mkdir(parents=True)
    (top / "file").write_bytes(b"data" * 1000)
    os.setxattr(top / "file", "user.note", b"n" * 3000)
    os.link(top / "file", top / "sub/other-name")
    (top / "link").symlink_to("/etc/passwd")
    os.mkfifo(top / "fifo", 0o604)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(top / "socket"))
    with open(top / "sparse", "wb") as file:
        file.seek((1 << 40) - 5)
        file.write(b"end\n\n")
    (top / os.fsdecode(b"\xff\n*")).write_bytes(b"")
    os.chmod(top / "file", 0o640)
    os.chmod(top / "sub", 0o2750)
    for number, path in enumerate(sorted(top.rglob("*"), reverse=True)):
        os.utime(path, ns=(10**18 + number, 10**18 + 7 * number), follow_symlinks=False)
    return top


def test_a_tree_in_and_out_again_is_the_same(tree, inside, tmp_path):
    path, root = inside
    stats = root.copy_in(tree, "/made/on/the/way")
    assert stats[:5] == (3, 2, 1, 1, 1) and stats.skipped == 1 and stats.not_kept == 0, stats
    # The end of the sparse file, not its holes.
    assert 4000 < stats.bytes < 200_000
    assert root.copy_out("/made/on/the/way", tmp_path / "back", strict=True) == stats._replace(skipped=0)
    copies = (path / "made/on/the/way", tmp_path / "back")
    for copy in copies:
        names = {str(found.relative_to(tree)) for found in tree.rglob("*")} - {"socket"}
        assert {str(found.relative_to(copy)) for found in copy.rglob("*")} == names
        for name in names | {"."}:
            assert name == "." or looks(copy / name) == looks(tree / name), name
        assert (copy / "file").read_bytes() == b"data" * 1000
        assert os.getxattr(copy / "file", "user.note") == b"n" * 3000
        assert os.path.samefile(copy / "file", copy / "sub/other-name")
        assert os.readlink(copy / "link") == "/etc/passwd"
        assert os.stat(copy / "sparse").st_blocks < 1000
        assert stat.S_ISFIFO(os.lstat(copy / "fifo").st_mode)
        assert leftovers(copy) == []


def test_owner_is_given(tree, inside):
    needs_root("other ids")
    path, root = inside
    os.chmod(tree / "file", 0o4755)
    root.copy_in(tree, "/new/t", owner=(1234, 5678))
    for made in [path / "new", *(path / "new").rglob("*")]:
        assert (os.lstat(made).st_uid, os.lstat(made).st_gid) == (1234, 5678)
    # Somebody else's program does not run as its new owner.
    assert os.stat(path / "new/t/file").st_mode & 0o7777 == 0o755
    root.copy_in(tree / "file", "/same")
    assert os.stat(path / "same").st_mode & 0o7777 == 0o4755


def test_labels_of_the_system_are_counted(inside, tmp_path):
    needs_root("files of root's")
    path, root = inside
    (tmp_path / "file").write_text("x")
    os.setxattr(tmp_path / "file", "security.zind", b"label")
    os.setxattr(tmp_path / "file", "trusted.zind", b"kept")
    assert root.copy_in(tmp_path / "file", "/a").not_kept == 1
    assert os.listxattr(path / "a") == ["trusted.zind"]
    error = refused(zind.SysError, lambda: root.copy_in(tmp_path / "file", "/b", strict=True), number=errno.EPERM)
    assert not (path / "b").exists() and error.filename == "/b"


def test_what_a_user_may_not_keep_is_counted(inside, tmp_path):
    if ROOT:
        pytest.skip(kit.NEEDS_USER + "root may keep everything")
    path, root = inside
    assert root.copy_in("/etc/passwd", "/a").not_kept == 1
    assert os.stat(path / "a").st_uid == kit.UID
    refused(zind.SysError, lambda: root.copy_in("/etc/passwd", "/b", strict=True), number=errno.EPERM)
    assert os.listdir(path) == ["a"]


# --- cp(1)'s rules ---------------------------------------------------------------------------------------------------
def test_targets_are_read_as_cp_reads_them(inside, tmp_path):
    path, root = inside
    (tmp_path / "f").write_text("1")
    (tmp_path / "d/e").mkdir(parents=True)
    (path / "usr/bin").mkdir(parents=True)
    (path / "bin").symlink_to("usr/bin")
    (path / "broken").symlink_to("/nowhere")
    (path / "round").symlink_to("round")
    root.copy_in(tmp_path / "f", "/bin")
    assert (path / "usr/bin/f").read_text() == "1" and (path / "bin").is_symlink()
    for name in ("broken", "round"):
        root.copy_in(tmp_path / "f", name)
        assert (path / name).read_text() == "1" and not (path / name).is_symlink()
    root.copy_in(tmp_path / "d", "/x")
    root.copy_in(tmp_path / "d", "/x")
    root.copy_in(f"{tmp_path}/d/.", "/y")
    assert (path / "x/e").is_dir() and (path / "x/d/e").is_dir() and (path / "y/e").is_dir()
    refused(zind.SysError, lambda: root.copy_in(tmp_path / "f", "/z/"), number=errno.ENOENT)
    refused(zind.SysError, lambda: root.copy_in(tmp_path / "d", "/x/../broken"), number=errno.ENOTDIR)
    refused(zind.SysError, lambda: root.copy_in(path, "/x"), number=errno.EINVAL)
    with pytest.raises(FileExistsError):
        root.copy_in(tmp_path / "f", "/bin/f", overwrite=False)
    with pytest.raises(FileNotFoundError):
        root.copy_out("/bin/f", tmp_path / "no/such")
    for call in (lambda: root.copy_in("", "/x"), lambda: root.copy_out("/x", "a\0b"), lambda: root.copy_in("/", "x", owner=(2**32 - 1, 0))):
        refused(zind.SpecError, call)


def test_a_closed_root_says_so(tmp_path):
    root = zind.Root(tmp_path)
    assert os.fstat(root.fileno()).st_ino == os.stat(tmp_path).st_ino
    assert str(tmp_path) in repr(root)
    root.close()
    root.close()
    with pytest.raises(ValueError, match="closed"):
        root.copy_in("/etc/passwd", "/x")
    assert "closed" in repr(root)


def test_files_from_bytes(inside):
    path, root = inside
    old = os.umask(0o077)
    try:
        root.write_file("/a/b", b"x" * 100_000, mode=0o604)
    finally:
        os.umask(old)
    assert root.read_file("a/b") == b"x" * 100_000
    assert os.stat(path / "a/b").st_mode & 0o7777 == 0o604
    refused(zind.SysError, lambda: root.read_file("/a/b", limit=99_999), number=errno.EFBIG)
    refused(zind.SysError, lambda: root.read_file("/a"), number=errno.EISDIR)
    refused(zind.SysError, lambda: root.write_file("/a", b""), number=errno.EISDIR)
    os.mkfifo(path / "fifo")
    refused(zind.SysError, lambda: root.read_file("/fifo"), number=errno.EINVAL)


# --- hostile roots ---------------------------------------------------------------------------------------------------
def test_links_lead_nowhere_but_inside(inside, tmp_path):
    path, root = inside
    victim = tmp_path / "victim"
    victim.mkdir()
    (tmp_path / "secret").write_text("secret")
    (path / "absolute").symlink_to(victim)
    (path / "upward").symlink_to("../../../../../../../.." + str(victim))
    (path / str(victim)[1:]).mkdir(parents=True)
    (path / "dangling").symlink_to("not/there")
    (path / "out").symlink_to(tmp_path / "secret")
    (path / "magic").symlink_to("/proc/self/root")
    for target in ("/absolute/x", "/upward/x", "/../../x", "/absolute/../../../y"):
        root.write_file(target, b"inside")
        assert root.read_file(target) == b"inside"
    # Nothing is made through a link.
    refused(zind.SysError, lambda: root.write_file("/dangling/x", b""), number=errno.ELOOP)
    assert os.listdir(victim) == [] and not (tmp_path / "x").exists()
    assert (path / str(victim)[1:] / "x").read_bytes() == b"inside"
    for call in (lambda: root.read_file("/out"), lambda: root.copy_out("/out", tmp_path / "o", follow_links=True)):
        refused(zind.SysError, call, number=errno.ENOENT, hint=False)
    root.copy_out("/out", tmp_path / "o")
    assert os.readlink(tmp_path / "o") == str(tmp_path / "secret")


def test_a_part_that_moves_away_never_leads_out(inside, tmp_path):
    """`..` of what is gone at that moment must not be looked up in the parent of the root."""
    path, root = inside
    (tmp_path / "file").write_text("x")
    (path / "a").mkdir()

    def swap() -> None:
        os.rename(path / "a", path / "b")
        os.rename(path / "b", path / "a")

    with Meanwhile(swap):
        for number in range(3000):
            try:
                root.copy_in(tmp_path / "file", f"a/../../new{number}/x")
            except FileNotFoundError:
                pass
            assert os.listdir(path.parent) == ["root"]
    assert sorted(os.listdir(tmp_path)) == ["file", "outer"]


def test_what_is_swapped_while_it_is_copied(inside, tmp_path):
    path, root = inside
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "name").write_text("secret")
    (path / "t/d").mkdir(parents=True)
    (path / "t/d/name").write_text("public")
    (path / "link").symlink_to(secret)
    os.mkfifo(path / "fifo")

    def swap() -> None:
        for one, other in (("t/d", "link"), ("t/d/name", "fifo")):
            try:
                os.rename(path / one, path / "aside")
                os.rename(path / other, path / one)
                os.rename(path / one, path / other)
                os.rename(path / "aside", path / one)
            except OSError as error:
                raise AssertionError from error

    with Meanwhile(swap):
        for number in range(300):
            target = tmp_path / f"copy{number}"
            try:
                root.copy_out("/t", target)
            except zind.SysError as error:
                assert error.errno in (errno.ENOENT, errno.ESTALE, errno.ENOTDIR), error
            for found in target.rglob("*"):
                assert found.is_symlink() or not found.is_file() or found.read_text() != "secret"


@pytest.mark.limit(300)
def test_trees_of_any_depth_end(inside, tmp_path):
    path, root = inside

    def deepen(top: pathlib.Path, levels: int) -> None:
        fd = os.open(top, os.O_RDONLY)
        for _ in range(levels):
            os.mkdir("d", dir_fd=fd)
            below = os.open("d", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        os.close(fd)

    (path / "deep").mkdir()
    (path / "deeper").mkdir()
    deepen(path / "deep", 1500)
    deepen(path / "deeper", 10_000)
    try:
        assert root.copy_out("/deep", tmp_path / "copy")[:2] == (1, 1501)
        refused(zind.SysError, lambda: root.copy_out("/deeper", tmp_path / "copy2"), number=errno.ENAMETOOLONG)
    finally:
        subprocess.run(["rm", "-rf", path / "deep", path / "deeper", tmp_path / "copy", tmp_path / "copy2"], check=True)


def test_files_without_a_size(tmp_path):
    with zind.Root("/") as root:
        root.copy_out("/proc/version", tmp_path / "version")
        assert (tmp_path / "version").read_bytes() == pathlib.Path("/proc/version").read_bytes()
        # Says that it is empty, and goes on for gigabytes.
        refused(zind.SysError, lambda: root.copy_out("/proc/self/pagemap", tmp_path / "map"), number=errno.EFBIG)
    assert sorted(os.listdir(tmp_path)) == ["version"]


# --- running containers ----------------------------------------------------------------------------------------------
class Running:
    """A container that does nothing. It is forgotten at the end: an ended one keeps its pidfd."""

    def __init__(self, root) -> None:
        self.p = zind.Popen(["sleep", "1000"], rootfs=root, mounts=[zind.Mount.tmpfs("/small", size="1m")])

    def __getattr__(self, name):
        return getattr(self.p, name)

    def end(self) -> None:
        self.p.kill()
        self.p.wait()
        del self.p


@pytest.fixture
def running(tiny_root):
    running = Running(tiny_root)
    yield running
    running.end()


def test_a_running_container(running, tree, tmp_path):
    stats = running.copy_in(tree, "/root/t")
    assert stats.files == 3 and stats.not_kept == 0
    assert running.copy_out("/root/t/.", tmp_path / "out").files == 3
    assert (tmp_path / "out/file").read_bytes() == b"data" * 1000
    (tmp_path / "one").write_text("one")
    running.copy_in(tmp_path / "one", "/small/deep/er")
    with running.root as root:
        assert root.read_file("/small/deep/er") == b"one"
        if ROOT:
            # The inside of /proc is the kernel's.
            assert root.copy_out("/", tmp_path / "all").skipped > 0
            assert os.listdir(tmp_path / "all/proc") == []
        else:
            refused(zind.SysError, lambda: root.copy_out("/dev", tmp_path / "all"), number=errno.EPERM)
    running.kill()
    running.wait()
    with pytest.raises(zind.StateError):
        running.copy_in(tmp_path / "one", "/x")


def test_no_space_leaves_no_half_file(running, tmp_path):
    (tmp_path / "big").write_bytes(os.urandom(3 << 20))
    (tmp_path / "old").write_text("old")
    running.copy_in(tmp_path / "old", "/small/big")
    refused(zind.SysError, lambda: running.copy_in(tmp_path / "big", "/small/big"), number=errno.ENOSPC, hint=False)
    with running.root as root:
        assert root.read_file("/small/big") == b"old"
    running.copy_out("/small", tmp_path)
    assert os.listdir(tmp_path / "small") == ["big"]


def test_from_a_loop(tmp_path):
    async def main() -> bytes:
        async with await zind.aio.Popen.start(["sleep", "1000"]) as p:
            (tmp_path / "f").write_text("loop")
            p.copy_in(tmp_path / "f", "/root/f")
            p.copy_out("/root/f", tmp_path / "g")
            with p.root as root:
                data = root.read_file("/root/f")
            p.kill()
        return data

    assert asyncio.run(main()) == b"loop" == (tmp_path / "g").read_bytes()


def test_a_signal_ends_a_copy(inside):
    path, root = inside

    class Enough(Exception):
        pass

    def handler(*_) -> None:
        raise Enough

    old = signal.signal(signal.SIGUSR1, handler)
    main = threading.get_ident()
    timer = threading.Timer(0.15, lambda: signal.pthread_kill(main, signal.SIGUSR1))
    timer.start()
    try:
        with pytest.raises(Enough):
            for _ in range(100):
                root.copy_in("/usr/share", "/share")
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, old)
    assert leftovers(path) == []
