"""Mounts that come and go while a container runs."""

from __future__ import annotations

import os
import pathlib

import pytest

import kit
import zind
from kit import ROOT

Mount = zind.Mount


class Shell:
    """A shell in a container, which answers line by line."""

    def __init__(self, **options) -> None:
        self.p = zind.Popen(["sh"], stdin=zind.PIPE, stdout=zind.PIPE, stderr=zind.STDOUT, text=True, bufsize=1, **options)

    def __call__(self, script: str) -> str:
        self.p.stdin.write(f"{script}\necho =end=\n")
        lines = []
        while (line := self.p.stdout.readline()) not in ("=end=\n", ""):
            lines.append(line)
        return "".join(lines).rstrip("\n")

    def end(self) -> None:
        self.p.kill()
        with self.p:
            pass
        # An ended container keeps its pidfd until it is forgotten.
        del self.p


@pytest.fixture
def shell():
    shell = Shell()
    yield shell
    shell.end()


def test_a_tmpfs_comes_and_goes(shell):
    shell.p.mount(Mount.tmpfs("/new/place", size="1m"))
    assert shell("stat -fc %T /new/place; echo x >/new/place/file; ls /new/place") == "tmpfs\nfile"
    shell.p.umount("/new/place")
    assert shell("ls -A /new/place; grep -c /new/place /proc/self/mountinfo") == "0"


def test_a_bind_of_the_host(shell, tmp_path):
    (tmp_path / "file").write_text("data\n")
    shell.p.mount(Mount.bind(tmp_path, "/late", read_only=True))
    assert shell("cat /late/file; (: >/late/x) 2>&1") .startswith("data")
    assert not (tmp_path / "x").exists()
    shell.p.mount(Mount.bind(tmp_path / "file", "/etc/one-file"))
    assert shell("cat /etc/one-file") == "data"
    shell.p.umount("/etc/one-file")
    assert shell("cat /etc/one-file") == ""


def test_in_a_user_namespace_too(tmp_path):
    (tmp_path / "file").write_text("data\n")
    tmp_path.chmod(0o755)
    shell = Shell(namespaces={"user": "new"})
    try:
        shell.p.mount(Mount.tmpfs("/t"))
        assert shell("grep -c ' /t ' /proc/self/mountinfo; stat -c %u /t") == "1\n0"
        shell.p.umount("/t")
        assert shell("grep -c ' /t ' /proc/self/mountinfo; stat -c %u /t") == "0\n0"
        shell.p.mount(Mount.bind(tmp_path, "/made/late"))
        assert shell("cat /made/late/file; stat -c %u /made") == "data\n0"
        # What was bound cannot be unbound, nor opened up again, by the payload.
        shell.p.mount(Mount.bind(tmp_path, "/made/late", read_only=True))
        assert "x" not in shell("mount -o remount,bind,rw /made/late 2>&1; touch /made/late/x 2>/dev/null; ls /made/late")
    finally:
        shell.end()


def test_a_bind_is_a_copy_and_no_window(shell, tmp_path):
    """Neither side sees what the other mounts later, and attributes are in force from the first moment."""
    shell.p.mount(Mount.bind(tmp_path, "/late", options=["nosuid", "nodev", "noexec"]))
    (line,) = shell("grep ' /late ' /proc/self/mountinfo").splitlines()
    options, rest = line.split()[5], line.split()[6:]
    assert {"nosuid", "nodev", "noexec"} <= set(options.split(",")), line
    assert rest[0] == "-", f"no propagation: {line}"
    shell.p.mount(Mount.tmpfs("/late/inner"))
    assert shell("touch /late/inner/x; ls /late/inner") == "x"
    assert os.listdir(tmp_path / "inner") == []
    shell.p.umount("/late/inner")


def test_a_bind_shows_nothing_that_the_caller_cannot_reach(shell, tmp_path):
    with pytest.raises(FileNotFoundError):
        shell.p.mount(Mount.bind(tmp_path / "none", "/late"))
    if ROOT:
        return
    for path in ("/root/x", "/proc/1/cwd"):
        with pytest.raises(PermissionError) as caught:
            shell.p.mount(Mount.bind(path, "/late"))
        assert caught.value.filename == path
    assert shell("ls -d /late 2>&1 | grep -c 'No such file'") == "1"


def test_mounts_below_a_source_are_not_left_out_without_privilege(shell):
    if ROOT:
        shell.p.mount(Mount.bind("/", "/late", recursive=False))
        assert shell("ls /late/proc") == ""
        return
    with pytest.raises(zind.SysError, match="recursive") as caught:
        shell.p.mount(Mount.bind("/", "/late", recursive=False))
    assert caught.value.errno == 22
    shell.p.mount(Mount.bind("/", "/late", read_only=True, recursive=True))
    assert shell("ls -d /late/proc/1") == "/late/proc/1"
    before = kit.mounts()
    shell.p.umount("/late")
    assert kit.mounts() == before


def test_what_cannot_be_done_is_told(shell):
    with pytest.raises(zind.SysError) as caught:
        shell.p.umount("/usr/bin")
    assert caught.value.errno == 22
    for target in ("relative", "/a/../b", "/"):
        with pytest.raises(zind.SpecError):
            shell.p.umount(target)
    with pytest.raises(zind.SpecError, match="before the start"):
        shell.p.mount(Mount.file("/x", b"y"))
    with pytest.raises(zind.SysError, match="colour"):
        shell.p.mount(Mount.tmpfs("/t", options=["colour=red"]))
    shell.p.kill()
    shell.p.wait()
    with pytest.raises(zind.StateError):
        shell.p.mount(Mount.tmpfs("/t"))


def test_a_target_swapped_for_a_link_never_leads_out(tmp_path, tiny_root):
    """The payload exchanges a directory and a link out of the root as fast as it can."""
    victim = tmp_path / "victim"
    victim.mkdir()
    source = tmp_path / "source"
    source.mkdir()
    swap = f"mkdir /d; ln -s {victim} /l; while :; do mv /d /e; mv /l /d; mv /e /l; mv /l /e; mv /d /l; mv /e /d; done"
    before = kit.mounts()
    with zind.Popen(["sh", "-c", swap], rootfs=tiny_root, overlay=False, stderr=zind.DEVNULL) as p:
        for _ in range(100):
            try:
                p.mount(Mount.bind(source, "/d/in/side"))
                p.umount("/d/in/side")
            except zind.SysError as error:
                assert error.errno in (2, 17, 20, 22, 40, 116), error
            assert os.listdir(victim) == []
        p.kill()
    assert kit.mounts() == before
    assert pathlib.Path(source).is_dir()
