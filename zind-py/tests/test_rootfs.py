"""A directory as root: below a copy-on-write layer, written to directly, or read-only."""

import errno
import os
import pathlib

import pytest

import kit
import zind
from kit import needs_root, refused, sh

pytestmark = pytest.mark.limit(180)  # the first use of debian_root makes it

RANGES = {} if kit.ROOT else {"uid_map": "auto"}


def tree(path: pathlib.Path) -> dict[str, tuple]:
    found = {}
    for directory, dirs, files in os.walk(path):
        for name in dirs + files:
            meta = os.lstat(os.path.join(directory, name))
            found[os.path.join(directory, name)] = (meta.st_ino, meta.st_mode, meta.st_size, meta.st_mtime_ns)
    return found


# --- tiny ------------------------------------------------------------------------------------------------------------


def test_the_root_is_the_directory(tiny_root):
    assert sh("cat /marker; ls / | tr '\\n' ' '", rootfs=tiny_root).split("\n") == ["untouched", "bin dev etc home marker proc root sys tmp"]
    assert sh("cat /marker", rootfs=str(tiny_root)) == "untouched"


def test_a_relative_path(tiny_root, monkeypatch):
    monkeypatch.chdir(tiny_root.parent)
    assert sh("cat /marker", rootfs="tiny") == "untouched"


def test_the_layer_leaves_the_directory_untouched(tiny_root):
    before = tree(tiny_root)
    assert sh("echo new >/new; echo changed >/marker; rm -rf /etc /home; mkdir /etc; cat /marker /new; ls /etc", rootfs=tiny_root).split() == ["changed", "new"]
    assert tree(tiny_root) == before
    assert sh("cat /marker", rootfs=tiny_root) == "untouched"


def test_without_a_layer_it_is_written_to(tiny_root):
    sh("echo new >/new; echo changed >/marker; rm /etc/group", rootfs=tiny_root, overlay=False)
    assert (tiny_root / "new").read_text() == "new\n"
    assert (tiny_root / "marker").read_text() == "changed\n"
    assert not (tiny_root / "etc/group").exists()
    meta = (tiny_root / "new").stat()
    assert (meta.st_uid, meta.st_gid) == (kit.UID, kit.GID)


def test_read_only(tiny_root):
    before = tree(tiny_root)
    assert "Read-only" in sh("(: >/new) 2>&1; true", rootfs=tiny_root, read_only=True)
    assert "Read-only" in sh("rm /marker 2>&1; true", rootfs=tiny_root, read_only=True)
    assert tree(tiny_root) == before


def test_a_layer_in_a_directory_stays(tiny_root, tmp_path):
    before = tree(tiny_root)
    layer = tmp_path / "layer"
    layer.mkdir()
    sh("echo new >/new; rm /marker", rootfs=tiny_root, overlay=layer)
    assert (layer / "upper/new").read_text() == "new\n"
    assert tree(tiny_root) == before
    assert sh("cat /new; ls /marker 2>&1; true", rootfs=tiny_root, overlay=layer).startswith("new\nls: /marker: No such file")
    assert sh("cat /marker", rootfs=tiny_root) == "untouched"


def test_the_directory_of_a_layer_is_made_or_the_error_names_it(tiny_root, tmp_path):
    (tmp_path / "file").write_text("")
    error = refused(zind.SysError, lambda: zind.run(["true"], rootfs=tiny_root, overlay=tmp_path / "file"), step="Mkdir", number=errno.ENOTDIR)
    assert error.filename == str(tmp_path / "file/upper")
    sh("touch /x", rootfs=tiny_root, overlay=tmp_path / "not/there")
    assert (tmp_path / "not/there/upper/x").exists()


def test_a_layer_in_memory_is_limited(tiny_root):
    r = zind.run(["sh", "-c", "head -c 3000000 /dev/zero >/big"], rootfs=tiny_root, tmpfs_size="1m", stderr=zind.DEVNULL)
    assert r.returncode != 0


def test_the_system_directories_are_zinds(tiny_root):
    (tiny_root / "dev/evil").write_text("x")
    (tiny_root / "proc/evil").write_text("x")
    assert "evil" not in sh("ls /dev /proc", rootfs=tiny_root)
    assert sh("cat /proc/1/comm", rootfs=tiny_root) == "zind-init"
    assert sh("mount | grep -c ' /sys '", rootfs=tiny_root) == "1"


def test_missing_mount_points_are_made_in_the_layer_only(tiny_root):
    for name in ("proc", "sys", "dev"):
        (tiny_root / name).rmdir()
    assert sh("cat /proc/1/comm", rootfs=tiny_root) == "zind-init"
    assert not (tiny_root / "proc").exists()


def test_missing_mount_points_of_a_read_only_root_are_an_error(tiny_root):
    (tiny_root / "proc").rmdir()
    e = refused(zind.SysError, lambda: zind.run(["true"], rootfs=tiny_root, read_only=True), step="MountTarget", number=errno.EROFS)
    assert "/proc" in str(e)


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
@pytest.mark.parametrize("to", ["/tmp", "../../../../../../tmp", "etc"])
@pytest.mark.parametrize("options", [{}, {"overlay": False}, {"read_only": True}])
def test_a_symbolic_link_as_mount_point_is_refused(tiny_root, name, to, options):
    (tiny_root / name).rmdir()
    (tiny_root / name).symlink_to(to)
    e = refused(zind.SysError, lambda: zind.run(["true"], rootfs=tiny_root, **options), step="MountTarget", number=errno.ELOOP)
    assert f"/{name}" in str(e)


def test_the_filename_of_an_error_is_a_path(tiny_root):
    (tiny_root / "proc").rmdir()
    (tiny_root / "proc").symlink_to("/tmp")
    e = refused(zind.SysError, lambda: zind.run(["true"], rootfs=tiny_root), step="MountTarget")
    assert e.filename == "/proc"


def test_users_are_those_of_the_root(tiny_root):
    assert sh("id -u; id -g", rootfs=tiny_root, user="web", **RANGES).split() == ["33", "34"]
    assert sh("id -u; id -g", rootfs=tiny_root, user="web:staff", **RANGES).split() == ["33", "50"]


def test_a_number_is_a_number_though_a_user_has_it_as_name(tiny_root):
    """CVE-2016-3697: a line "1000:x:0:0" makes nobody root."""
    assert sh("id -u", rootfs=tiny_root, user="1000", **RANGES) == "1000"
    assert sh("id -u", rootfs=tiny_root, user=1000, **RANGES) == "1000"


def test_a_passwd_that_is_no_file_is_refused(tiny_root):
    (tiny_root / "etc/passwd").unlink()
    os.mkfifo(tiny_root / "etc/passwd")
    refused(zind.SpecError, lambda: zind.run(["true"], rootfs=tiny_root, user="web"), field="user")
    (tiny_root / "etc/passwd").unlink()
    (tiny_root / "etc/passwd").symlink_to("/proc/self/environ")
    refused(zind.SpecError, lambda: zind.run(["true"], rootfs=tiny_root, user="web"), field="user")


def test_a_missing_root_is_an_error(tmp_path):
    e = refused(zind.SysError, lambda: zind.run(["true"], rootfs=tmp_path / "none"), step="OpenSource", number=errno.ENOENT)
    assert isinstance(e, FileNotFoundError) and e.filename == str(tmp_path / "none")


def test_a_file_as_root_is_an_error(tmp_path):
    (tmp_path / "file").write_text("x")
    e = refused(zind.SysError, lambda: zind.run(["true"], rootfs=tmp_path / "file"), step="OpenSource", number=errno.ENOTDIR)
    assert isinstance(e, NotADirectoryError)


def test_an_empty_root_has_no_program(tmp_path):
    refused(zind.SysError, lambda: zind.run(["true"], rootfs=tmp_path), step="Exec", number=errno.ENOENT)
    assert list(tmp_path.iterdir()) == []


def test_the_report_names_the_root(tiny_root):
    isolation = zind.run(["true"], rootfs=tiny_root, overlay=False).isolation
    assert (isolation.rootfs, isolation.overlay, isolation.root_change) == (str(tiny_root), "none", "pivot_root")
    assert zind.run(["true"], rootfs=tiny_root).isolation.overlay == "tmpfs"


def test_the_way_out_of_the_root_is_closed(tiny_root, tmp_path):
    (tmp_path / "secret").write_text("secret")
    path = os.path.relpath(tmp_path / "secret", tiny_root)
    assert "secret" not in sh(f"cat /{path} {tmp_path}/secret /proc/1/root{tmp_path}/secret 2>/dev/null; true", rootfs=tiny_root)


def test_names_that_are_not_utf8(tmp_path, tiny_root):
    odd = tmp_path / os.fsdecode(b"od\xffd")
    tiny_root.rename(odd)
    assert sh("cat /marker", rootfs=odd) == "untouched"


def test_a_root_on_a_mount_below_which_others_are(tiny_root):
    """With a layer the mounts below the root are not in it; without, they are."""
    needs_root("mounting in the caller's namespace")
    (tiny_root / "sub").mkdir()
    zind.mount("none", tiny_root / "sub", "tmpfs", 0, "size=1m")
    try:
        (tiny_root / "sub/file").write_text("below")
        assert sh("cat /sub/file", rootfs=tiny_root, overlay=False) == "below"
        assert sh("ls /sub", rootfs=tiny_root) == ""
        assert "Read-only" in sh("(: >/sub/new) 2>&1; true", rootfs=tiny_root, read_only=True)
    finally:
        zind.umount(tiny_root / "sub")


# --- Debian ----------------------------------------------------------------------------------------------------------
def test_debian_runs(debian_root):
    assert sh("cat /etc/debian_version; dpkg -l | grep -c ^ii; apt-get --version | head -1", rootfs=debian_root).split()[0].startswith("12")
    assert int(sh("apt list --installed 2>/dev/null | grep -c /", rootfs=debian_root)) > 50
    assert sh("bash -c 'echo $BASH'", rootfs=debian_root) == "/usr/bin/bash"


def test_debian_below_a_layer_is_untouched(debian_root):
    before = tree(debian_root)
    script = "rm -rf /usr /etc /var /bin /sbin /lib* 2>/dev/null; echo /usr/bin/*"
    r = zind.run(["sh", "-c", script], rootfs=debian_root, capture_output=True, text=True)
    if kit.ROOT:
        assert r.stdout == "/usr/bin/*\n"
    assert tree(debian_root) == before
    assert len(before) > 5000


def test_debian_read_only(debian_root):
    assert "Read-only" in sh("(: >/tmp/x) 2>&1; true", rootfs=debian_root, read_only=True)


def test_debian_written_to_directly(debian_root):
    needs_root("files of root's are written")
    try:
        sh("echo direct >/root/direct", rootfs=debian_root, overlay=False)
        assert (debian_root / "root/direct").read_text() == "direct\n"
    finally:
        (debian_root / "root/direct").unlink(missing_ok=True)


def test_debian_users(debian_root):
    assert sh("id -un; id -gn", rootfs=debian_root, user="daemon", **RANGES).split() == ["daemon", "daemon"]
    assert sh("id -u", rootfs=debian_root, user="www-data:games", **RANGES) == "33"
    assert set(sh("id -G", rootfs=debian_root, user="nobody", groups=["audio", "4"], **RANGES).split()) == {"65534", "29", "4"}


def test_debian_installs_a_package(debian_root):
    """A package is unpacked by dpkg inside: the layer takes file modes, links, replaced directories."""
    script = "mkdir -p /tmp/p/DEBIAN /tmp/p/usr/share/p; echo data >/tmp/p/usr/share/p/f; printf 'Package: p\\nVersion: 1\\nArchitecture: all\\nMaintainer: a <a@b>\\nDescription: d\\n' >/tmp/p/DEBIAN/control; dpkg-deb -b /tmp/p /tmp/p.deb >/dev/null && dpkg --force-not-root -i /tmp/p.deb >/dev/null 2>/tmp/err || cat /tmp/err; cat /usr/share/p/f; dpkg -s p | grep ^Status"
    needs_root("the list of packages belongs to root")
    assert sh(script, rootfs=debian_root, capabilities="docker").split("\n") == ["data", "Status: install ok installed"]


def test_the_hosts_root_as_a_root_directory():
    """An ordinary user's staging area lies over it, and must not come along."""
    names = set(sh("ls /", rootfs="/", overlay=False, read_only=True).split())
    assert {"usr", "etc", "tmp"} <= names
    assert "passwd" in sh("ls /mnt/etc", mounts=[zind.Mount.bind("/", "/mnt")])
