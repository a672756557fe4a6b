"""The caller's mounts: each option read back from inside, what is refused and in which words, and what stays outside."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

import kit
import zind
from kit import ROOT, needs_root, probe, sh

Mount = zind.Mount

#: The rows of /proc/self/mountinfo of one mount point: mount options, optional fields, type, source, options of the super block.
ROWS = """
rows = []
for line in open("/proc/self/mountinfo"):
    left, _, right = line.partition(" - ")
    fields = left.split(" ")
    if fields[4] == TARGET or fields[4].startswith(TARGET + "/"):
        rows.append([fields[4], fields[5].split(","), fields[6:], *right.split()[:2], right.split()[2].split(",")])
answer(rows)
"""


def rows(target: str, *mounts: Mount, **options) -> list:
    return probe(f"TARGET = {target!r}\n{ROWS}", mounts=list(mounts), **options)


def row(target: str, *mounts: Mount, **options) -> list:
    found = [one for one in rows(target, *mounts, **options) if one[0] == target]
    assert len(found) == 1, found
    return found[0]


@pytest.fixture
def source(tmp_path) -> pathlib.Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/file").write_text("data\n")
    return tmp_path / "src"


# --- options ---------------------------------------------------------------------------------------------------------
FLAGS = {
    "ro": "ro",
    "nosuid": "nosuid",
    "nodev": "nodev",
    "noexec": "noexec",
    "noatime": "noatime",
    "nodiratime": "nodiratime",
    "nosymfollow": "nosymfollow",
}


@pytest.mark.parametrize("option", FLAGS)
@pytest.mark.parametrize("form", ["", "r"])
def test_attributes_of_a_bind(source, option, form):
    mount = Mount(type="bind", source=source, target="/t", options=["rbind", form + option])
    if option.endswith("atime") and not ROOT:
        with pytest.raises(zind.SysError, match=r"mounts\[0\].*access times"):
            zind.run(["true"], mounts=[mount])
        return
    assert FLAGS[option] in row("/t", mount)[1]


@pytest.mark.parametrize("option", FLAGS)
def test_attributes_of_a_new_file_system(option):
    assert FLAGS[option] in row("/t", Mount(type="tmpfs", target="/t", options=[option]))[1]


def test_binds_and_file_systems_are_protected_unless_told_otherwise(source):
    for mount in (Mount.bind(source, "/t"), Mount.tmpfs("/t"), Mount(type="tmpfs", target="/t")):
        assert {"nosuid", "nodev"} <= set(row("/t", mount)[1])
    needs_root("an ordinary user's mounts are always protected")
    assert not {"nosuid", "nodev"} & set(row("/t", Mount(type="tmpfs", target="/t", options=["suid", "dev"]))[1])
    assert not {"nosuid", "nodev"} & set(row("/t", Mount.bind(source, "/t", options=["suid", "dev"]))[1])


def test_access_times_are_one_of_three():
    for option, word in [("strictatime", None), ("relatime", "relatime"), ("noatime", "noatime")]:
        words = row("/t", Mount(type="tmpfs", target="/t", options=[option]))[1]
        assert {"relatime", "noatime"} & set(words) == ({word} if word else set()), option


#: What a mount below the source says after each of the recursive words, beside those it had, and what it says no more.
BELOW = {
    "rrw": ("rw", "ro"),
    "rsuid": ("", "nosuid"),
    "rdev": ("", "nodev"),
    "rexec": ("", "noexec"),
    "rsymfollow": ("", "nosymfollow"),
    "rdiratime": ("", "nodiratime"),
    "ratime": ("relatime", "noatime"),
    "rrelatime": ("relatime", "noatime"),
    "rnorelatime": ("relatime", "noatime"),
    "rnostrictatime": ("relatime", "noatime"),
    "rstrictatime": ("", "noatime"),
}
HAD = {"ro", "nosuid", "nodev", "noexec", "nosymfollow", "nodiratime", "noatime"}


def test_recursive_words_take_away_what_mounts_below_have(source):
    needs_root("a bind mount in the caller's mount namespace")
    (source / "below").mkdir()
    script = """
import json, os, sys, zind
source, words = sys.argv[1], sys.argv[2:]
flags = zind.MS_RDONLY | zind.MS_NOSUID | zind.MS_NODEV | zind.MS_NOEXEC | zind.MS_NOSYMFOLLOW | zind.MS_NOATIME | zind.MS_NODIRATIME
zind.mount(None, "/", None, zind.MS_REC | zind.MS_PRIVATE)
zind.mount("t", source + "/below", "tmpfs", flags)
found = {}
for word in words:
    m = zind.Mount(type="bind", source=source, target="/t", options=["rbind", word])
    r = zind.run(["cat", "/proc/self/mountinfo"], mounts=[m], capture_output=True, text=True, check=True)
    rows = [line.split() for line in r.stdout.splitlines()]
    found[word] = {row[4]: [row[5].split(","), [field.split(":")[0] for field in row[6:row.index("-")]]] for row in rows if row[4].startswith("/t")}
print(json.dumps(found))
"""
    plain = [word[1:] for word in BELOW]
    words = {"private": [], "slave": [], "shared": ["shared"], "unbindable": ["unbindable"]}
    every = [*BELOW, *plain, *words, *("r" + word for word in words)]
    out = subprocess.run(["unshare", "-m", sys.executable, "-c", script, source, *every], env=kit.child_env(), capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    found = json.loads(out.stdout)
    for word, (more, less) in BELOW.items():
        assert set(found[word]["/t/below"][0]) == (HAD - {less}) | ({more} - {""}), word
        # Without the "r" it is a matter of the top alone.
        assert set(found[word[1:]]["/t/below"][0]) == HAD, word[1:]
    for word, fields in words.items():
        assert found["r" + word]["/t"][1] == found["r" + word]["/t/below"][1] == fields, word
        assert found[word]["/t"][1] == fields and found[word]["/t/below"][1] == [], word


def test_a_remount_changes_what_is_there(source):
    mounts = [Mount.tmpfs("/t", options=["exec"]), Mount(type="none", target="/t", options=["remount", "bind", "ro", "noexec"])]
    assert {"ro", "noexec", "nosuid", "nodev"} <= set(row("/t", *mounts)[1])
    mounts = [Mount.bind(source, "/t"), Mount(type="bind", source=source, target="/t", options=["remount", "ro"])]
    assert "ro" in row("/t", *mounts)[1]


def test_recursive_read_only_reaches_every_mount_below(source):
    needs_root("a bind mount in the caller's mount namespace")
    (source / "below").mkdir()
    script = """
import sys, zind
source, options = sys.argv[1], sys.argv[2].split(",")
zind.mount("t", source + "/below", "tmpfs")
try:
    m = zind.Mount(type="bind", source=source, target="/t", options=options)
    r = zind.run(["sh", "-c", "(: >/t/x) 2>/dev/null && echo top; (: >/t/below/x) 2>/dev/null && echo below; true"], mounts=[m], capture_output=True, text=True)
    print(r.stdout, end="")
finally:
    zind.umount(source + "/below")
"""
    found = {}
    for options in ("rbind", "rbind,ro", "rbind,rro", "bind"):
        found[options] = subprocess.run(
            ["unshare", "-m", sys.executable, "-c", script, source, options], env=kit.child_env(), capture_output=True, text=True, check=True
        ).stdout.split()
    # What "bind" leaves out shows the empty directory beneath.
    assert found == {"rbind": ["top", "below"], "rbind,ro": ["below"], "rbind,rro": [], "bind": ["top", "below"]}


@pytest.mark.parametrize("size,mode", [("1m", 0o700), (65536, 0o1777), (None, 0o755)])
def test_tmpfs(size, mode):
    found = row("/t", Mount.tmpfs("/t", size=size, mode=mode, options=["nr_inodes=100"]))
    assert found[3] == "tmpfs" and "nr_inodes=100" in found[5]
    if size:
        assert f"size={1024 if size == '1m' else 64}k" in found[5]
    assert probe("answer(os.stat('/t').st_mode & 0o7777)", mounts=[Mount.tmpfs("/t", mode=mode)]) == mode


def test_a_full_tmpfs_is_the_payloads_enospc():
    source = """
try:
    open("/t/x", "wb").write(bytes(100_000))
    answer(None)
except OSError as e:
    answer(e.errno)
"""
    assert probe(source, mounts=[Mount.tmpfs("/t", size="64k")]) == 28
    assert probe(source.replace("/t/x", "/var/tmp/x").replace("100_000", "3_000_000"), tmpfs_size="2m") == 28


@pytest.mark.parametrize("flag", ["sync", "dirsync", "lazytime"])
def test_flags_of_the_file_system_itself(flag):
    words = row("/t", Mount(type="tmpfs", target="/t", options=[flag]))
    if flag == "lazytime" and not ROOT:
        return
    assert flag in words[5] + words[1]


@pytest.mark.parametrize("word", "async defaults exec rw symfollow atime diratime loud mand nomand relatime norelatime nostrictatime nolazytime iversion noiversion silent rrw rexec rsymfollow ratime rdiratime rrelatime rnorelatime rnostrictatime".split())
def test_options_that_say_what_is_so_anyway(word):
    assert "rw" in row("/t", Mount(type="tmpfs", target="/t", options=[word]))[1]


# --- kinds -----------------------------------------------------------------------------------------------------------
def test_proc_with_options_takes_the_place_of_ours():
    found = [one for one in rows("/proc", Mount.proc(options=["hidepid=invisible", "subset=pid"])) if one[0] == "/proc"]
    assert len(found) == 1 and {"hidepid=invisible", "subset=pid"} <= set(found[0][5])
    assert probe("answer(os.path.exists('/proc/cpuinfo'))", mounts=[Mount.proc(options=["subset=pid"])]) is False


def test_proc_elsewhere_is_of_the_containers_processes():
    assert probe("answer(len([p for p in os.listdir('/p') if p.isdigit()]))", mounts=[Mount.proc("/p")]) <= 3


def test_devpts_mqueue_and_shm_take_the_place_of_ours():
    found = row("/dev/pts", Mount.devpts(options=["mode=0600", "max=5"]))
    assert {"mode=600", "max=5"} <= set(found[5])
    assert row("/dev/mqueue", Mount.mqueue(options=["ro"]))[1][0] == "ro"
    assert "size=128k" in row("/dev/shm", Mount.tmpfs("/dev/shm", size="128k"))[5]


def test_sysfs_keeps_its_masks():
    found = [one for one in rows("/sys", Mount.sysfs()) if one[0] == "/sys"]
    assert all(one[3] == "sysfs" and "ro" in one[1] for one in found)
    assert probe("answer(os.listdir('/sys/firmware'))", mounts=[Mount.sysfs()]) == []


def test_something_else_at_sys():
    assert rows("/sys", Mount.tmpfs("/sys", size="64k"))[-1][3] == "tmpfs"
    assert probe("answer(os.listdir('/sys'))", mounts=[Mount.tmpfs("/sys")]) == []


def test_cgroup():
    found = row("/sys/fs/cgroup", Mount.cgroup())
    assert found[3] == "cgroup2" and {"nosuid", "nodev", "noexec"} <= set(found[1])


def test_a_cgroup_of_version_1(source):
    """A hierarchy that the host has, by its controllers; a name of one's own would be a new one for the whole machine."""
    lines = [line.split(":") for line in open("/proc/self/cgroup")]
    controllers = next((line[1] for line in lines if line[1] and not line[1].startswith("name=")), None)
    mount = Mount(type="cgroup", target="/t", options=["ro", controllers or "cpu"])
    try:
        found = row("/t", mount)
    except zind.SysError as error:
        # Without privilege the kernel mounts none of it; and a machine may have none.
        assert "mounts[0]" in str(error) and (not ROOT or controllers is None), error
        return
    assert found[3] == "cgroup" and "ro" in found[1] and set(controllers.split(",")) <= set(found[5])


def test_ramfs():
    assert row("/t", Mount(type="ramfs", target="/t"))[3] == "ramfs"


def test_a_file_from_bytes():
    content = bytes(range(256)) * 500
    mounts = [Mount.file("/etc/app/conf", content, mode=0o600), Mount.file("/etc/hostname", b"other\n", read_only=True)]
    found = probe(
        "s = os.stat('/etc/app/conf')\nanswer([s.st_mode & 0o777, open('/etc/app/conf', 'rb').read().hex(), open('/etc/hostname').read()])",
        mounts=mounts,
    )
    assert found == [0o600, content.hex(), "other\n"]
    assert "Read-only" in sh("(echo x >/etc/hostname) 2>&1; true", mounts=mounts)


def test_overlay_of_directories_with_every_character(tmp_path):
    names = ["plain", "co:lon", "com,ma", "back\\slash", "new\nline", "sp ace", "quo'te\"s", "lowerdir=x", "é"]
    lower = []
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "which").write_text(name)
        (tmp_path / name / f"only-{len(lower)}").write_text("")
        lower.append(tmp_path / name)
    listing = probe("answer([sorted(os.listdir('/t')), open('/t/which').read()])", mounts=[Mount.overlay("/t", lower=lower)])
    assert listing == [sorted(["which", *(f"only-{i}" for i in range(len(names)))]), names[0]]
    sh("echo changed >/t/which; rm /t/only-1", mounts=[Mount.overlay("/t", lower=lower)])
    assert (lower[0] / "which").read_text() == names[0] and (lower[1] / "only-1").exists()


def test_overlay_keeps_changes_where_it_is_told_to(tmp_path):
    for name in ("lower", "state"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower/a").write_text("old")
    mount = Mount.overlay("/t", lower=[tmp_path / "lower"], upper=tmp_path / "state/up,per", work=tmp_path / "state/wo:rk")
    sh("echo new >/t/a; echo more >/t/b", mounts=[mount])
    assert sh("cat /t/a /t/b", mounts=[mount]) == "new\nmore"
    assert (tmp_path / "lower/a").read_text() == "old"
    assert sorted(os.listdir(tmp_path / "state/up,per")) == ["a", "b"]
    if not ROOT:  # The work directory's own is of mode 0.
        for inner in (tmp_path / "state/wo:rk").iterdir():
            inner.chmod(0o700)


def test_hundreds_of_lower_directories(tmp_path):
    lower = []
    for number in range(300):
        directory = tmp_path / f"{number}-{'x' * 60}"
        directory.mkdir()
        (directory / f"f{number}").write_text("")
        lower.append(directory)
    assert probe("answer(len(os.listdir('/t')))", mounts=[Mount.overlay("/t", lower=lower)]) == 300


def test_an_overlay_in_the_words_of_mount(tmp_path):
    for name in ("a", "b:c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name)
    text = f"lowerdir={tmp_path}/b\\:c:{tmp_path}/a"
    assert sh("cat /t/f", mounts=[Mount(type="overlay", target="/t", options=[text])]) == "b:c"


def test_tmpcopyup_begins_with_what_is_there(tiny_root):
    mount = Mount.tmpfs("/etc", size="1m", options=["tmpcopyup"])
    text = zind.run(
        ["sh", "-c", "cat /etc/group; echo x >/etc/new; ls /etc"], rootfs=tiny_root, read_only=True, mounts=[mount], capture_output=True, text=True, check=True
    ).stdout
    assert "staff" in text and "new" in text
    assert not (tiny_root / "etc/new").exists()


def test_links_are_copied_mounted_or_covered_themselves(source, tiny_root):
    (source / "link").symlink_to("../../etc/group")
    (tiny_root / "place").symlink_to("/etc/passwd")
    (source / "file").chmod(0o644)

    def look(script, target, *options, overlay="tmpfs", source=source / "link", **more):
        mount = Mount(type="bind", source=source, target=target, options=["bind", *options])
        r = zind.run(["sh", "-c", script], rootfs=tiny_root, overlay=overlay, mounts=[mount], capture_output=True, text=True, check=True, **more)
        return r.stdout.split()

    for option in ("copy-symlink", "src-nofollow"):
        target = "/made/here/t"
        if option == "src-nofollow" and "mount" == zind.run(["true"]).isolation.mount_interface:
            with pytest.raises(zind.SysError, match="newer interface") as caught:
                look("true", target, option)
            assert caught.value.errno == 40
            continue
        found = look(f"readlink {target}; grep -c staff {target}; grep -c ' {target} ' /proc/self/mountinfo; true", target, option)
        assert found == ["../../etc/group", "1", "0" if option == "copy-symlink" else "1"]
        # No link: an ordinary bind.
        assert look("cat /t", "/t", option, source=source / "file") == ["data"]
    # The same link may be there already, another one or a file may not.
    for _ in range(2):
        assert look("readlink /kept", "/kept", "copy-symlink", overlay=False) == ["../../etc/group"]
    for target in ("/place", "/marker"):
        with pytest.raises(zind.SysError, match=r"mounts\[0\]") as caught:
            look("true", target, "copy-symlink")
        assert caught.value.errno == 17
    assert look("cat /place; head -c 4 /etc/passwd", "/place", "dest-nofollow", source=source / "file") == ["data", "root"]
    assert look("cat /place; head -c 4 /etc/passwd", "/place", source=source / "file") == ["data", "data"]
    for option in ("copy-symlink", "src-nofollow"):
        with pytest.raises(zind.SpecError, match="for binds"):
            zind.run(["true"], mounts=[Mount(type="tmpfs", target="/t", options=[option])])


def test_idmapped_bind(source):
    if not ROOT:
        with pytest.raises(zind.UnsupportedError, match="idmapped"):
            zind.run(["true"], mounts=[Mount.bind(source, "/t", idmap=[(0, 0, 1)])])
        return
    os.chown(source / "file", 1234, 1234)
    os.chown(source, 1234, 1234)
    mount = Mount.bind(source, "/t", idmap=[zind.IdMap(1234, 0, 1)])
    found = probe("open('/t/new', 'w').close()\ns = os.stat('/t/file')\nanswer([s.st_uid, s.st_gid])", mounts=[mount])
    assert found == [0, 0]
    assert (source / "new").stat().st_uid == 1234
    assert zind.run(["true"], mounts=[mount]).isolation.mounts[0]["idmap"] is True


def test_a_file_system_in_a_file(tmp_path):
    needs_root("a loop device")
    image = tmp_path / "image"
    with open(image, "wb") as file:
        file.truncate(4 << 20)
    subprocess.run(["/sbin/mkfs.ext4", "-q", "-F", image], check=True)
    before = set(subprocess.check_output(["/sbin/losetup", "-a"], text=True).splitlines())
    disk = lambda *options: Mount(type="ext4", source=image, target="/t", options=options)  # noqa: E731
    sh("echo kept >/t/a; sync", mounts=[disk()])
    assert sh("cat /t/a; (: >/t/b) 2>&1; true", mounts=[disk("ro")]).startswith("kept")
    assert kit.wait_until(lambda: set(subprocess.check_output(["/sbin/losetup", "-a"], text=True).splitlines()) <= before, 3)


#: How to make an image of a directory.
IMAGES = {"squashfs": ["mksquashfs", "{dir}", "{image}", "-quiet", "-no-progress"], "erofs": ["mkfs.erofs", "--quiet", "{image}", "{dir}"]}


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_of_a_read_only_file_system(kind, source, tmp_path):
    needs_root("a loop device")
    kit.needs_program(IMAGES[kind][0])
    image = tmp_path / "image"
    subprocess.run([word.format(dir=source, image=image) for word in IMAGES[kind]], check=True, capture_output=True)
    mount = Mount(type=kind, source=image, target="/t", options=["ro"])
    try:
        found = row("/t", mount)
    except zind.SysError as error:
        # The kernel's modules may not be there; then it is said.
        assert kind not in open("/proc/filesystems").read() and error.errno == 19 and "mounts[0]" in str(error)
        pytest.skip(f"this kernel has no {kind}")
    assert found[3] == kind and {"ro", "nosuid", "nodev"} <= set(found[1])
    assert sh("cat /t/file; (: >/t/x) 2>&1; true", mounts=[mount]).startswith("data\n")
    # What it is mounted from is not changed, and no root is needed to have it below an overlay.
    assert "ro" in row("/t", Mount(type=kind, source=image, target="/t", options=["ro", "rnoexec"]))[1]
    with pytest.raises(zind.SysError, match=r"mounts\[0\]") as caught:
        zind.run(["true"], mounts=[Mount(type=kind, source=source / "file", target="/t", options=["ro"])])
    assert caught.value.errno in (5, 15, 22, 117), caught.value


def test_idmaps_of_the_top_or_of_all(source):
    needs_root("a bind mount in the caller's mount namespace")
    (source / "below").mkdir()
    script = """
import os, sys, zind
source = sys.argv[1]
zind.mount(None, "/", None, zind.MS_REC | zind.MS_PRIVATE)
zind.mount("t", source + "/below", "tmpfs", 0, "mode=755")
for path in (source, source + "/below"): os.chown(path, 1234, 1234)
for word in ("idmap", "ridmap"):
    m = zind.Mount.bind(source, "/t", idmap=[zind.IdMap(1234, 0, 1)], options=[word])
    print(zind.run(["stat", "-c", "%u", "/t", "/t/below"], mounts=[m], capture_output=True, text=True, check=True).stdout.split())
"""
    out = subprocess.run(["unshare", "-m", sys.executable, "-c", script, source], env=kit.child_env(), capture_output=True, text=True)
    if out.returncode and "cannot map ids" in out.stderr and kit.kernel() < (6, 3):
        pytest.skip("tmpfs maps no ids before Linux 6.3")
    assert out.stdout.splitlines() == ["['0', '1234']", "['0', '0']"], out.stderr
    with pytest.raises(zind.SpecError, match="needs the maps"):
        zind.run(["true"], mounts=[Mount(type="bind", source=source, target="/t", options=["rbind", "ridmap"])])


@pytest.mark.parametrize("path", ["/dev/extra", "/dev/deep/er/x"])
def test_mounts_into_dev(source, path):
    assert sh(f"cat {path}", mounts=[Mount.bind(source / "file", path)]) == "data"
    assert "Read-only" in sh("(: >/dev/y) 2>&1; true", mounts=[Mount.bind(source / "file", path)])
    assert sh("echo x >/dev/null; ls /dev/pts/ptmx", mounts=[Mount.bind(source / "file", path)]) == "/dev/pts/ptmx"


@pytest.mark.parametrize("word,fields", [("private", []), ("slave", []), ("unbindable", ["unbindable"]), ("shared", ["shared:"])])
def test_propagation(source, word, fields):
    found = row("/t", Mount.bind(source, "/t", propagation=word))[2]
    assert [field for field in found if field.startswith(tuple(fields))] if fields else not [f for f in found if f.startswith("shared")]


def test_what_the_host_mounts_later_stays_outside_unless_it_is_a_slave(source):
    needs_root("a bind mount in the caller's mount namespace")
    (source / "late").mkdir()
    script = """
import subprocess, sys, zind
source, word = sys.argv[1:]
zind.mount(source, source, None, zind.MS_BIND)
zind.mount(None, source, None, zind.MS_SHARED)
p = zind.Popen(["sh", "-c", "echo; read x; ls /t/late"], mounts=[zind.Mount.bind(source, "/t", propagation=word)], stdin=zind.PIPE, stdout=zind.PIPE)
p.stdout.readline()
zind.mount("t", source + "/late", "tmpfs")
open(source + "/late/seen", "w").close()
print(p.communicate(b"\\n")[0].decode(), end="")
"""
    run = lambda word: subprocess.run(  # noqa: E731
        ["unshare", "-m", sys.executable, "-c", script, source, word], env=kit.child_env(), capture_output=True, text=True, check=True
    ).stdout
    assert run("private") == "" and run("rslave") == "seen\n"


def test_the_report_names_the_mounts(source):
    r = zind.run(["true"], mounts=[Mount.bind(source, "/t", read_only=True), Mount.tmpfs("/u")])
    assert [(m["target"], m["type"], m["read_only"]) for m in r.isolation.mounts] == [("/t", "bind", True), ("/u", "tmpfs", False)]
    bind, tmpfs = r.isolation.mounts
    assert bind["source"] == str(source) and bind["recursive"] and bind["propagation"] == "private"
    assert bind["attributes"] == ["ro", "nosuid", "nodev"] and tmpfs["attributes"] == ["nosuid", "nodev"]


# --- what is refused -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "options", [["ro", "rw"], ["suid", "nosuid"], ["noatime", "strictatime"], ["private", "slave"], ["rro", "rrw"], ["=x"]], ids=str
)
def test_options_that_exclude_each_other(options):
    with pytest.raises(zind.SpecError) as caught:
        Mount(type="tmpfs", target="/t", options=options)
    assert caught.value.field == "mounts" and options[-1] in str(caught.value)


def test_a_bind_has_no_options_of_a_file_system(source):
    with pytest.raises(zind.SpecError, match=r"\[1\].*size"):
        zind.run(["true"], mounts=[Mount.tmpfs("/a"), Mount(type="bind", source=source, target="/t", options=["size=1m"])])


def test_an_unknown_option_is_named_by_the_kernel():
    with pytest.raises(zind.SysError) as caught:
        zind.run(["true"], mounts=[Mount.tmpfs("/a"), Mount(type="tmpfs", target="/t", options=["colour=red"])])
    assert caught.value.errno == 22 and "mounts[1]" in str(caught.value) and "colour" in str(caught.value)
    assert caught.value.filename == "/t"


def test_sizes_that_are_none():
    for make in (lambda: Mount.tmpfs("/t", size=-1), lambda: zind.run(["true"], tmpfs_size=-1), lambda: zind.run(["true"], tmpfs_size=0)):
        with pytest.raises(zind.SpecError, match="size"):
            make()
    with pytest.raises(TypeError):
        Mount.tmpfs("/t", size=1.5)


def test_what_is_put_together_apart_is_told_by_its_target(source):
    overlay = Mount(type="overlay", target="/t/here", options=[f"lowerdir={source}", "colour=red"])
    with pytest.raises(zind.SysError) as caught:
        zind.run(["true"], mounts=[Mount.tmpfs("/a"), overlay])
    assert caught.value.filename == "/t/here" and "mounts[1]" in str(caught.value)


def test_an_unknown_file_system():
    with pytest.raises(zind.SysError) as caught:
        zind.run(["true"], mounts=[Mount(type="nosuchfs", target="/t")])
    assert caught.value.errno == 19 and "nosuchfs" in str(caught.value) and "mounts[0]" in str(caught.value)


def test_a_missing_source_names_the_mount(tmp_path):
    with pytest.raises(zind.SysError) as caught:
        zind.run(["true"], mounts=[Mount.tmpfs("/a"), Mount.bind(tmp_path / "none", "/t")])
    assert caught.value.errno == 2 and "mounts[1]" in str(caught.value)


def test_a_file_over_a_directory(source):
    for mount, number in [(Mount.bind(source / "file", "/tmp"), 21), (Mount.bind(source, "/etc/passwd"), 20)]:
        with pytest.raises(zind.SysError) as caught:
            zind.run(["true"], mounts=[mount])
        assert caught.value.errno == number and "mounts[0]" in str(caught.value)


def test_a_target_that_must_be_there(source):
    assert sh("cat /mnt/file", mounts=[Mount.bind(source, "/mnt", create=False)]) == "data"
    with pytest.raises(zind.SysError) as caught:
        zind.run(["true"], mounts=[Mount.bind(source, "/missing", create=False)])
    assert caught.value.errno == 2


def test_targets_never_lead_out_of_the_root(source, tiny_root, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (tiny_root / "out").symlink_to(victim)
    (tiny_root / "up").symlink_to("../" * 20 + str(victim).lstrip("/"))
    content = Mount.file("/out/a/file", b"x")
    for mount in (Mount.bind(source, "/out/a/b"), Mount.bind(source, "/up/a"), Mount.tmpfs("/../../../up/c"), content):
        try:
            zind.run(["true"], rootfs=tiny_root, overlay=False, mounts=[mount])
        except zind.SysError as error:
            assert error.errno in (2, 17, 40)
        assert os.listdir(victim) == []
    with pytest.raises(zind.SysError):
        zind.run(["true"], rootfs=tiny_root, overlay=False, mounts=[Mount.bind(source, "/out", options=["dest-nofollow"])])


def test_five_hundred_and_one_layers():
    with pytest.raises(zind.SpecError, match="501"):
        zind.run(["true"], mounts=[Mount.overlay("/t", lower=["/tmp"] * 501)])


def test_the_caller_sees_none_of_it(source):
    before = kit.mounts()
    zind.run(["true"], mounts=[Mount.bind(source, "/t"), Mount.tmpfs("/u"), Mount.overlay("/v", lower=[source])])
    assert kit.mounts() == before
