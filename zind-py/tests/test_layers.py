"""A root that stays: layers on disk, snapshots, restores, clones, differences."""

import errno
import json
import os
import pathlib
import pickle
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest

import kit
import zind
from kit import needs_root, needs_user, refused, sh

ODD = os.fsdecode(b"a:b,c\\d\n\xff \"'=")


def tree(path) -> dict[bytes, tuple]:
    """Everything below a directory, with content."""
    found = {}
    for directory, dirs, files in os.walk(os.fsencode(path)):
        for name in dirs + files:
            full = os.path.join(directory, name)
            meta = os.lstat(full)
            content = os.readlink(full) if stat.S_ISLNK(meta.st_mode) else None
            if stat.S_ISREG(meta.st_mode):
                content = pathlib.Path(os.fsdecode(full)).read_bytes()
            key = os.path.relpath(full, os.fsencode(path))
            found[key] = (meta.st_mode, meta.st_uid, meta.st_gid, meta.st_size, meta.st_mtime_ns, content)
    return found


#: What the container sees of itself, without what zind mounts.
LOOK = """cd /; find . -path ./proc -prune -o -path ./sys -prune -o -path ./dev -prune -o -print | sort | while read -r f; do
stat -c '%n %F %a %u %g %h %N' "$f"; [ -d "$f" ] || { stat -c '%s %Y' "$f"; [ -L "$f" ] || md5sum <"$f"; }; done"""


def look(layers, **options) -> str:
    return sh(LOOK, rootfs=layers, **options)


def short(found) -> list[str]:
    return [f"{change.kind[0]} {change.path}" for change in found]


def changes(layers, since=None) -> list[str]:
    return short(layers.diff(since))


@pytest.fixture
def base(tiny_root):
    (tiny_root / "d/sub").mkdir(parents=True)
    for name in ("keep", "change", "gone", "sub/deep", "mode", "swap"):
        (tiny_root / "d" / name).write_text(f"old {name}\n")
    (tiny_root / "d/link").symlink_to("keep")
    os.link(tiny_root / "d/keep", tiny_root / "d/hard")
    return tiny_root


@pytest.fixture
def layers(base, tmp_path):
    before = tree(base)
    layers = zind.Layers.create(tmp_path / "layers", base)
    yield layers
    assert tree(base) == before, "the base was written to"
    if os.path.isdir(layers.dir):
        layers.delete()
    assert not os.path.exists(layers.dir)


# --- writing ---------------------------------------------------------------------------------------------------------
def test_what_is_changed_stays(layers):
    assert changes(layers) == []
    sh("echo new >/new; rm /d/gone; echo more >>/d/change", rootfs=layers)
    assert sh("cat /new /d/change; ls /d/gone 2>/dev/null; true", rootfs=layers) == "new\nold change\nmore"
    again = zind.Layers.open(layers.dir)
    assert sh("cat /new", rootfs=again) == "new"
    assert again == layers and hash(again) == hash(layers)


def test_the_differences_are_exact(layers):
    sh("true", rootfs=layers)
    assert changes(layers) == []
    script = """
    echo new >/new; mkdir -p /made/deep; ln -s /nowhere /made/link; ln /new /made/hard; mkfifo /made/fifo
    echo more >>/d/change; rm /d/gone; chmod 600 /d/mode
    rm /d/swap; mkdir /d/swap; echo in >/d/swap/in
    rm -r /d/sub; echo file >/d/sub
    rm /d/link; ln -s change /d/link
    touch /d/keep2; rm /d/keep2
    chmod 700 /home
    """
    sh(script, rootfs=layers)
    found = {change.path: change for change in layers.diff()}
    assert short(found.values()) == [
        "m /d/change",
        "d /d/gone",
        "m /d/link",
        "m /d/mode",
        "m /d/sub",
        "m /d/swap",
        "a /d/swap/in",
        "m /home",
        "a /made",
        "a /made/deep",
        "a /made/fifo",
        "a /made/hard",
        "a /made/link",
        "a /new",
    ]
    assert (found["/d/change"].old.size, found["/d/change"].new.size) == (11, 16)
    assert (found["/d/gone"].old.type, found["/d/gone"].new) == ("file", None)
    assert (found["/d/link"].old.target, found["/d/link"].new.target) == ("keep", "change")
    assert (found["/d/mode"].old.mode, found["/d/mode"].new.mode) == (0o644, 0o600)
    assert (found["/d/sub"].old.type, found["/d/sub"].new.type) == ("directory", "file")
    assert (found["/d/swap"].old.type, found["/d/swap"].new.type) == ("file", "directory")
    assert (found["/home"].old.mode, found["/home"].new.mode) == (0o755, 0o700)
    assert (found["/new"].old, found["/new"].new.uid, found["/new"].new.gid) == (None, 0, 0)
    assert abs(found["/new"].new.mtime_ns / 1e9 - time.time()) < 60
    fifo = found["/made/fifo"].new
    assert (fifo.type, fifo.size, fifo.device) == ("fifo", 0, None)
    assert repr(found["/new"]) == "<zind.Change added '/new'>"


def test_what_was_only_copied_up_is_no_change(layers):
    sh("chmod 600 /d/keep; chmod 644 /d/keep; : >>/d/change; chmod 755 /d", rootfs=layers)
    assert os.path.exists(layers.upper + "/d/keep")
    assert changes(layers) == []


def test_a_change_of_the_content_alone_is_seen(layers):
    write = "printf 'OLD' | dd of=/d/change conv=notrunc 2>/dev/null"
    sh(f"touch -r /d/change /tmp/t; {write}; touch -r /tmp/t /d/change; rm /tmp/t", rootfs=layers)
    (change,) = layers.diff()
    assert (change.kind, change.path, change.old.size) == ("modified", "/d/change", change.new.size)


def test_a_device_and_an_attribute(layers):
    needs_root("making a device node")
    sh("mknod /dev0 c 1 3; mknod /zero c 0 1", rootfs=layers, capabilities="docker")
    os.setxattr(layers.upper + "/dev0", "trusted.note", b"x")
    layers.snapshot("s")
    assert [change.new.device for change in layers.diff()] == [(1, 3), (0, 1)]
    sh("chmod 600 /d/keep; chmod 644 /d/keep", rootfs=layers)
    assert layers.diff("s") == []
    os.setxattr(layers.upper + "/d/keep", "user.note", b"x")
    assert changes(layers, "s") == ["m /d/keep"]


def test_a_directory_made_anew_hides_the_old_one(layers):
    sh("rm -r /d; mkdir /d; echo x >/d/keep; echo y >/d/fresh", rootfs=layers)
    assert sh("ls -a /d | tr '\\n' ' '", rootfs=layers) == ". .. fresh keep"
    assert changes(layers) == [
        "d /d/change",
        "a /d/fresh",
        "d /d/gone",
        "d /d/hard",
        "m /d/keep",
        "d /d/link",
        "d /d/mode",
        "d /d/sub",
        "d /d/swap",
    ]
    layers.snapshot("opaque")
    assert sh("ls -a /d | tr '\\n' ' '", rootfs=layers) == ". .. fresh keep"
    sh("rm -r /d", rootfs=layers)
    assert changes(layers) == ["d /d"]
    assert changes(layers, "opaque") == ["d /d"]


def test_whiteouts_of_the_other_form(layers):
    """An attribute on an empty file instead of a device: what unprivileged tools write."""
    space = "trusted" if kit.ROOT else "user"
    sh("mkdir /d/x; rmdir /d/x", rootfs=layers)
    upper = pathlib.Path(layers.upper)
    (upper / "d/gone").touch()
    os.setxattr(upper / "d/gone", f"{space}.overlay.whiteout", b"y")
    os.setxattr(upper / "d", f"{space}.overlay.opaque", b"x")
    assert changes(layers) == ["d /d/gone"]
    layers.snapshot("s")
    if kit.kernel() >= (6, 7):  # An older kernel shows the empty file.
        assert "gone" not in sh("ls /d", rootfs=layers).split()


def test_a_directory_can_be_moved(layers):
    sh("mv /d /moved", rootfs=layers)
    assert sh("cat /moved/sub/deep", rootfs=layers) == "old sub/deep"
    assert changes(layers)[:2] == ["d /d", "a /moved"]
    assert "a /moved/sub/deep" in changes(layers)


def test_names_of_any_bytes(base, tmp_path):
    odd = tmp_path / ODD
    base.rename(odd)
    (odd / ODD).write_text("x")
    layers = zind.Layers.create(tmp_path / f"layers {ODD}", odd)
    zind.run(["sh", "-c", 'echo y >"/d/$1"; rm "/$1"', "-", ODD], rootfs=layers, check=True)
    found = layers.diff()
    assert [(change.kind, change.path) for change in found] == [("deleted", f"/{ODD}"), ("added", f"/d/{ODD}")]
    layers.snapshot("s \u00e9,:")
    clone = zind.Layers.open(layers.dir).clone(tmp_path / f"clone {ODD}")
    assert clone.base == [str(odd)]
    assert short(clone.diff()) == short(found)
    zind.run(["cat", f"/d/{ODD}"], rootfs=clone, check=True, stdout=zind.DEVNULL)
    clone.delete()
    layers.delete()


def test_several_bases(base, tmp_path):
    (tmp_path / "over/d").mkdir(parents=True)
    (tmp_path / "over/d/keep").write_text("over\n")
    layers = zind.Layers.create(tmp_path / "layers", [tmp_path / "over", base])
    assert sh("cat /d/keep /d/change", rootfs=layers) == "over\nold change"
    sh("rm /d/keep", rootfs=layers)
    assert changes(layers) == ["d /d/keep"]


def test_read_only(layers):
    sh("echo new >/new", rootfs=layers)
    assert "Read-only" in sh("(: >/x) 2>&1; cat /new", rootfs=layers, read_only=True)
    assert changes(layers) == ["a /new"]


def test_users_are_those_of_the_layers(layers):
    ranges = {} if kit.ROOT else {"uid_map": "auto"}
    sh("echo new:x:71:72::/:/bin/sh >>/etc/passwd", rootfs=layers, **ranges)
    layers.snapshot("s")
    assert sh("id -u; id -g", rootfs=layers, user="new", **ranges).split() == ["71", "72"]
    assert sh("id -u", rootfs=layers, user="web", **ranges) == "33"
    sh("rm /etc/passwd", rootfs=layers, **ranges)
    refused(zind.SpecError, lambda: zind.run(["true"], rootfs=layers, user="web", **ranges), field="user")


def test_the_report_names_the_layers(layers):
    isolation = zind.run(["true"], rootfs=layers).isolation
    assert (isolation.rootfs, isolation.overlay) == (layers.dir, layers.upper)
    assert os.path.dirname(layers.upper) == layers.dir


def test_overlay_is_no_option(layers):
    refused(zind.SpecError, lambda: zind.run(["true"], rootfs=layers, overlay=False), field="overlay")


def test_volatile(layers):
    layers.volatile = True
    for _ in range(3):
        sh("echo x >>/new; grep -q volatile /proc/self/mountinfo", rootfs=layers)
    assert sh("cat /new", rootfs=layers) == "x\nx\nx"
    layers.volatile = False
    assert sh("grep -c volatile /proc/self/mountinfo; true", rootfs=layers) == "0"


# --- snapshots -------------------------------------------------------------------------------------------------------
@pytest.mark.limit(240)
def test_a_restored_state_is_exactly_the_old_one(layers):
    steps = {
        "empty": "true",
        "files": "echo 1 >/new; ln /new /d/hard2; ln -s /new /d/link2; rm /d/gone; chmod 711 /; mkdir /x",
        "opaque": "rm -r /d; mkdir /d; echo 2 >/d/other; rm /new",
        "replaced": "rm -r /d; echo 3 >/d; rmdir /x; echo f >/x; chmod 755 /",
        "back": "rm /d /x; mkdir -p /d/sub; echo 4 >/d/gone",
    }
    seen, differences = {}, {}
    for name, script in steps.items():
        sh(script, rootfs=layers)
        layers.snapshot(name)
        seen[name], differences[name] = look(layers), layers.diff()
        assert layers.diff(name) == []
    for name in random.Random(1).sample([*steps] * 3, 15):
        sh("rm -rf /d /new; echo rubbish >/rubbish; mkdir -p /a/b/c; chmod 700 /", rootfs=layers)
        layers.restore(name)
        assert look(layers) == seen[name], name
        assert layers.diff(name) == []
        assert layers.diff() == differences[name]
    # From one branch to another, forth and back.
    layers.restore("files")
    forth = {change.path: change for change in layers.diff("back")}
    layers.restore("back")
    back = {change.path: change for change in layers.diff("files")}
    assert forth.keys() and all(back[path].old == forth[path].new for path in forth.keys() & back.keys())


def test_snapshots_have_parents_and_times(layers):
    begin = time.time() - 1
    layers.snapshot("a")
    layers.snapshot("b")
    layers.restore("a")
    layers.snapshot("c")
    assert [(s.name, s.parent) for s in layers.snapshots()] == [("a", None), ("b", "a"), ("c", "a")]
    assert all(begin < s.time < time.time() + 1 for s in layers.snapshots())
    assert repr(layers) == f"<zind.Layers {layers.dir!r} snapshots: a, b, c>"
    layers.remove("a")
    assert [(s.name, s.parent) for s in layers.snapshots()] == [("b", None), ("c", None)]


@pytest.mark.limit(240)
def test_a_hundred_and_twenty_snapshots(layers):
    for number in range(120):
        sh(f"echo {number} >/d/n; echo {number} >/d/n{number}; rm -f /d/n{number - 1}", rootfs=layers)
        layers.snapshot(f"s{number}")
    assert sh("cat /d/n; ls /d/n*", rootfs=layers).split() == ["119", "/d/n", "/d/n119"]
    assert changes(layers) == ["a /d/n", "a /d/n119"]
    layers.restore("s60")
    assert sh("cat /d/n; ls /d/n*", rootfs=layers).split() == ["60", "/d/n", "/d/n60"]
    sh("echo branch >/branch", rootfs=layers)
    layers.snapshot("branch")
    assert changes(layers, "s119") == ["a /branch", "m /d/n", "d /d/n119", "a /d/n60"]
    layers.restore("s119")
    assert sh("cat /d/n; ls /branch 2>/dev/null; true", rootfs=layers) == "119"
    layers.restore("branch")
    assert sh("cat /branch /d/n", rootfs=layers) == "branch\n60"


def test_as_many_layers_as_an_overlay_takes(layers):
    number = 0
    with pytest.raises(zind.StateError, match="500 layers"):
        for number in range(600):
            layers.snapshot(str(number))
    assert number == 498
    sh("echo x >/x", rootfs=layers)
    assert changes(layers, "10") == ["a /x"]
    sh("cat /x", rootfs=layers, read_only=True)
    layers.restore("3")
    layers.snapshot("again")


def test_a_snapshot_does_not_touch_the_files(layers):
    """Neither the root's nor those that were changed: its cost cannot depend on them."""
    sh("for i in $(seq 50); do echo $i >/d/f$i; done", rootfs=layers)
    upper = layers.upper

    def seen():
        paths = [path for path in pathlib.Path(upper).rglob("*") if not path.is_dir()]
        return {path: (path.lstat().st_ino, path.lstat().st_ctime_ns, path.lstat().st_atime_ns) for path in paths}

    before = seen()
    layers.snapshot("s")
    assert len(before) == 50 and seen() == before
    assert os.listdir(layers.upper) == [] and layers.upper != upper


def numbers(layers) -> list[int]:
    return sorted(int(name) for name in os.listdir(layers.dir) if name.isdigit())


def test_what_nothing_needs_is_removed(layers):
    for name in "abc":
        sh(f"echo {name} >/{name}", rootfs=layers)
        layers.snapshot(name)
    assert numbers(layers) == [1, 2, 3, 4]
    layers.restore("a")
    assert numbers(layers) == [1, 2, 3, 5]
    layers.remove("b")
    assert numbers(layers) == [1, 2, 3, 5]
    layers.remove("c")
    assert numbers(layers) == [1, 5]


# --- clones ----------------------------------------------------------------------------------------------------------
def test_clones_are_independent(layers, tmp_path):
    sh("echo common >/common; rm /d/gone", rootfs=layers)
    layers.snapshot("s")
    sh("echo later >/later", rootfs=layers)
    clone = layers.clone(tmp_path / "clone")
    assert clone.snapshots() == []
    assert clone.diff() == layers.diff()
    assert look(clone) == look(layers)
    sh("echo mine >/mine; rm /common", rootfs=layers)
    sh("echo yours >/yours; echo more >>/common", rootfs=clone)
    assert changes(layers) == ["d /d/gone", "a /later", "a /mine"]
    assert changes(clone) == ["a /common", "d /d/gone", "a /later", "a /yours"]
    assert sh("cat /common", rootfs=clone) == "common\nmore"
    layers.restore("s")
    layers.remove("s")
    assert sh("cat /common /later", rootfs=clone) == "common\nmore\nlater"
    second = clone.clone(tmp_path / "second")
    clone.snapshot("x")
    assert sh("cat /yours", rootfs=second) == "yours"
    for used in (layers, clone):
        with pytest.raises(zind.StateError, match="clones"):
            used.delete()
    second.delete()
    clone.delete()


def test_a_clone_that_was_removed_by_hand_is_forgotten(layers, tmp_path):
    clone = layers.clone(tmp_path / "clone")
    shutil.rmtree(clone.dir)
    layers.delete()


class Writer:
    """A shell on layers that does a script and then waits for lines."""

    def __init__(self, layers, script: str) -> None:
        self.p = zind.Popen(["sh"], rootfs=layers, stdin=zind.PIPE, stdout=zind.PIPE, text=True, bufsize=1)
        self.do(script)

    def do(self, script: str) -> None:
        self.p.stdin.write(f"{script}\necho done\n")
        assert self.p.stdout.readline() == "done\n"

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.p.stdin.close()
        with self.p:
            pass


#: One of each kind of change there is.
CHANGES = """rm /d/gone /d/sub/deep; rm -rf /d/sub; mkdir /d/sub; echo new >/d/sub/other; mkdir -m 751 /new
echo changed >>/d/change; chmod 4750 /d/mode; ln /d/change /new/hard; ln -s /nowhere /new/link; mkfifo /new/fifo
dd if=/dev/zero of=/new/holes bs=1 count=1 seek=4194303 2>/dev/null; touch -d @1234567 /new/holes; rm -rf /etc; ln -s d /etc"""


def marks(path) -> dict[str, dict[str, bytes]]:
    found = {}
    for directory, dirs, files in os.walk(path):
        for full in (os.path.join(directory, name) for name in [".", *dirs, *files]):
            names = os.listxattr(full, follow_symlinks=False)
            found[os.path.relpath(full, path)] = {n: os.getxattr(full, n, follow_symlinks=False) for n in names}
    return found


@pytest.mark.parametrize("named", [False, True])
def test_a_clone_of_a_paused_container(layers, tmp_path, named):
    if named:
        sh("echo below >/below; rm /d/keep", rootfs=layers)
        layers.snapshot("first")
    with Writer(layers, CHANGES) as writer:
        writer.p.send_signal(signal.SIGSTOP)
        clone = layers.clone(tmp_path / "clone")
        assert clone.diff() == layers.diff()
        assert tree(clone.upper) == tree(layers.upper)
        assert marks(clone.upper) == marks(layers.upper)
        assert any("overlay.opaque" in name for names in marks(clone.upper).values() for name in names)
        upper = pathlib.Path(clone.upper)
        assert os.path.samefile(upper / "d/change", upper / "new/hard")
        assert (upper / "new/holes").stat().st_blocks < 100
        assert sorted(os.listdir(clone.dir)) == ["1", "lock", "state"]
        # It is what it was, and both go on.
        sh("echo yours >/yours; rm /new/fifo; echo more >>/d/change", rootfs=clone)
        writer.p.send_signal(signal.SIGCONT)
        writer.do("echo mine >/mine; rm /new/link")
    assert sh("cat /d/change; ls /yours 2>/dev/null; ls /new", rootfs=layers) == "old change\nchanged\nfifo\nhard\nholes"
    assert sh("cat /d/change; ls /mine 2>/dev/null; ls /new", rootfs=clone) == "old change\nchanged\nmore\nhard\nholes\nlink"
    assert sh("cat /d/sub/*; ls /d/gone /d/sub/deep 2>/dev/null; ls -d /below 2>/dev/null; true", rootfs=clone) == (
        "new\n/below" if named else "new"
    )
    with pytest.raises(zind.StateError, match="clones"):
        layers.delete()
    clone.delete()


def test_only_what_is_new_is_copied(layers, tmp_path):
    sh("dd if=/dev/zero of=/large bs=1M count=8 2>/dev/null", rootfs=layers)
    layers.snapshot("large")
    with Writer(layers, "echo x >/small"):
        clone = layers.clone(tmp_path / "clone")
        again = clone.clone(tmp_path / "again")
        assert os.listdir(clone.upper) == []
        assert sum(entry.stat().st_size for entry in pathlib.Path(clone.dir).rglob("*") if entry.is_file()) < 65536
    assert sh("stat -c %s /large; cat /small", rootfs=again) == "8388608\nx"
    again.delete()
    clone.delete()


def test_clones_at_once(layers, tmp_path):
    """Each is made or refused, and the state has exactly those that were made."""
    results = []

    def clone(number: int) -> None:
        try:
            results.append(layers.clone(tmp_path / f"clone{number}"))
        except zind.StateError as error:
            assert "in use" in str(error)

    with Writer(layers, "i=0; while [ $i -lt 100 ]; do echo $i >/f$i; i=$((i+1)); done"):
        for turn in range(5):
            threads = [threading.Thread(target=clone, args=(10 * turn + number,)) for number in range(4)]
            [thread.start() for thread in threads]
            [thread.join() for thread in threads]
            assert len(results) > turn
    state = json.loads(pathlib.Path(layers.dir, "state").read_text())
    assert {one["dir"] for one in state["clones"]} == {clone.dir for clone in results}
    assert {path.name for path in tmp_path.glob("clone*")} == {os.path.basename(clone.dir) for clone in results}
    for clone in results:
        assert clone.diff() == layers.diff()
        clone.delete()


@pytest.mark.limit(120)
def test_a_clone_killed_at_any_moment(layers, tmp_path):
    source = "import sys, zind; layers = zind.Layers.open(sys.argv[1]); print(flush=True); layers.clone(sys.argv[2])"
    chance = random.Random(3)
    half = 0
    with Writer(layers, "i=0; while [ $i -lt 400 ]; do echo $i >/f$i; i=$((i+1)); done"):
        for turn in range(80):
            if turn >= 12 and half:
                break
            target = tmp_path / "clone"
            command = [sys.executable, "-c", source, layers.dir, target]
            p = subprocess.Popen(command, env=kit.child_env(), stdout=subprocess.PIPE)
            p.stdout.readline()
            time.sleep(chance.random() * 0.03)
            p.send_signal(signal.SIGKILL)
            p.wait()
            p.stdout.close()
            if os.path.exists(target / "state"):
                done = zind.Layers.open(target)
                assert done.diff() == layers.diff()
                done.delete()
            else:
                half += os.path.exists(target / "1")
                # The next change of the source removes it, also while the container runs.
                layers.clone(tmp_path / "other").delete()
                assert not os.path.exists(target) or os.listdir(target) == []
    assert half
    zind.Layers.open(layers.dir)
    assert json.loads(pathlib.Path(layers.dir, "state").read_text())["clones"] == []


def test_a_clone_that_cannot_be_made_leaves_nothing(layers, tmp_path):
    needs_user("root reads everything")
    with Writer(layers, "echo x >/locked; chmod 0 /locked"):
        with pytest.raises(PermissionError) as caught:
            layers.clone(tmp_path / "clone")
        assert caught.value.filename.endswith("/locked")
        assert not (tmp_path / "clone").exists()
    assert json.loads(pathlib.Path(layers.dir, "state").read_text())["clones"] == []


# --- in use ----------------------------------------------------------------------------------------------------------
def test_one_container_at_a_time(layers):
    layers.snapshot("s")
    with zind.Popen(["cat"], rootfs=layers, stdin=zind.PIPE, stdout=zind.PIPE) as p:
        p.stdin.write(b"x")
        p.stdin.flush()
        assert p.stdout.read(1) == b"x"
        for call in (
            lambda: zind.run(["true"], rootfs=layers),
            lambda: layers.snapshot("t"),
            lambda: layers.restore("s"),
            lambda: layers.remove("s"),
            lambda: setattr(layers, "volatile", True),
            layers.delete,
        ):
            with pytest.raises(zind.StateError, match="in use"):
                call()
        assert zind.Layers.open(layers.dir).snapshots()[0].name == "s"
        assert changes(layers) == []
        p.stdin.close()
    layers.snapshot("t")
    sh("true", rootfs=layers)


@pytest.mark.parametrize("options", [{}, {"init": False}, {"namespaces": {"pid": "host"}}])
def test_a_container_that_nobody_watches_keeps_them(layers, tmp_path, options):
    """The lock lives in the container too: it ends with that, not with who started it."""
    source = """
import json, sys, zind
p = zind.Popen(["sh", "-c", "echo; while [ ! -e /sync/go ]; do sleep 0.05; done; echo late >/late"], die_with_owner=False,
    rootfs=zind.Layers.open(sys.argv[1]), mounts=[zind.Mount.bind(sys.argv[2], "/sync")], stdout=zind.PIPE, stderr=zind.DEVNULL,
    **json.loads(sys.argv[3]))
p.stdout.readline()
print(p.pid)
"""
    pid = int(kit.outside(source, layers.dir, str(tmp_path), json.dumps(options)).stdout)
    try:
        with pytest.raises(zind.StateError, match="in use"):
            layers.snapshot("s")
    finally:
        (tmp_path / "go").touch()
    assert kit.wait_until(lambda: not kit.alive(pid))

    def snapshot():
        try:
            layers.snapshot("s")
            return True
        except zind.StateError:
            return False

    assert kit.wait_until(snapshot)
    assert sh("cat /late", rootfs=layers) == "late"


def test_a_failed_start_leaves_them_free(layers):
    refused(zind.SysError, lambda: zind.run(["nothing"], rootfs=layers), step="Exec", number=errno.ENOENT)
    refused(zind.UnsupportedError, lambda: zind.run(["true"], rootfs=layers, require={"memory"}))
    layers.snapshot("s")


@pytest.mark.limit(120)
def test_they_are_free_while_others_start(layers):
    """Somebody else's child may have copies of all descriptors for a moment."""
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            subprocess.run(["true"], check=True, close_fds=False)
            zind.run(["true"])

    threads = [threading.Thread(target=busy) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(40):
            zind.run(["true"], rootfs=layers)
            layers.snapshot(str(number))
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_pickle(layers):
    layers.snapshot("s")
    assert pickle.loads(pickle.dumps(layers)).snapshots() == layers.snapshots()
    assert pickle.loads(pickle.dumps(layers.diff())) == []


# --- user namespaces -------------------------------------------------------------------------------------------------
def test_a_user_namespace_later_is_refused(layers):
    needs_root("an ordinary user always has one")
    sh("rm /d/gone", rootfs=layers)
    with pytest.raises(zind.StateError, match="user namespace"):
        zind.run(["true"], rootfs=layers, uid_map="auto")
    layers.snapshot("s")


def test_ids_are_those_of_the_container(base, tmp_path):
    ranges = {"uid_map": "auto"}
    if kit.ROOT:
        first = int(sh("cat /proc/self/uid_map", **ranges).split()[1])
        for path in (base, *base.rglob("*")):
            os.lchown(path, first, first)
    layers = zind.Layers.create(tmp_path / "layers", base)
    script = "echo x >/new; chown 33:34 /new; rm /d/gone; rm -r /d/sub; mkdir /d/sub"
    sh(script, rootfs=layers, capabilities="docker", **ranges)
    found = {change.path: change for change in layers.diff()}
    assert short(found.values()) == ["d /d/gone", "d /d/sub/deep", "a /new"]
    assert (found["/new"].new.uid, found["/new"].new.gid) == (33, 34)
    assert (found["/d/gone"].old.uid, found["/d/gone"].old.gid) == (0, 0)
    layers.snapshot("s")
    assert sh("stat -c '%u %g' /new; ls /d/sub", rootfs=layers, **ranges) == "33 34"
    layers.delete()


def test_what_the_container_closed_is_seen_and_removed(layers):
    sh("mkdir /closed; echo x >/closed/in; mkdir /closed/deeper; chmod 0 /closed/deeper /closed", rootfs=layers)
    layers.snapshot("s")
    assert short(layers.diff()) == ["a /closed", "a /closed/deeper", "a /closed/in"]
    layers.delete()
    assert not os.path.exists(layers.dir)


def test_what_belongs_to_the_ids_of_the_range_is_seen_and_removed(base, tmp_path):
    needs_user("root sees and removes everything")
    layers = zind.Layers.create(tmp_path / "layers", base)
    script = "mkdir /theirs; echo x >/theirs/x; setfattr -n user.a -v b /theirs/x; chown -R 33:33 /theirs; chmod 700 /theirs; chmod 600 /theirs/x"
    sh(script, rootfs=layers, uid_map="auto", capabilities="docker")
    found = {change.path: change.new for change in layers.diff()}
    assert list(found) == ["/theirs", "/theirs/x"]
    assert (found["/theirs/x"].uid, found["/theirs/x"].mode & 0o7777, found["/theirs/x"].size) == (33, 0o600, 2)
    with pytest.raises(PermissionError):
        os.listdir(f"{layers.upper}/theirs")
    layers.delete()
    assert not os.path.exists(layers.dir)


# --- crashes ---------------------------------------------------------------------------------------------------------
@pytest.mark.limit(180)
def test_killed_at_any_moment(layers):
    """A process that makes snapshots in a loop is killed: the state is the one before or the one after."""
    source = """
import sys, zind
layers = zind.Layers.open(sys.argv[1])
number = len(layers.snapshots())
print(flush=True)
while True:
    open(layers.upper + "/n", "w").write(str(number))
    layers.snapshot(f"s{number}")
    number += 1
    if number % 7 == 0:
        layers.restore(f"s{number - 2}")
        layers.remove(f"s{number - 1}")
        number -= 1
        layers.clone(f"{sys.argv[1]}-clone").delete()
"""
    chance = random.Random(7)
    seen = set()
    for turn in range(100):
        if turn >= 30 and len(seen) > 1:
            break
        p = subprocess.Popen([sys.executable, "-c", source, layers.dir], env=kit.child_env(), stdout=subprocess.PIPE)
        p.stdout.readline()
        time.sleep(chance.random() * 0.06)
        p.send_signal(signal.SIGKILL)
        p.wait()
        p.stdout.close()
        shutil.rmtree(f"{layers.dir}-clone", ignore_errors=True)
        opened = zind.Layers.open(layers.dir)
        names = [snapshot.name for snapshot in opened.snapshots()]
        count = len(names)
        seen.add(count)
        assert names == [f"s{number}" for number in range(count)]
        assert set(os.listdir(layers.dir)) - {"state", "lock", "work"} == {str(number) for number in numbers(opened)}
        # The file says in which turn it was written; the last snapshot may be one that was about to be removed.
        content = sh("cat /n 2>/dev/null; true", rootfs=opened)
        assert content == "" or count - 2 <= int(content) <= count
        if names:
            name = chance.choice(names)
            opened.restore(name)
            assert sh("cat /n", rootfs=opened) == name[1:]
            for later in names[names.index(name) + 1 :]:
                opened.remove(later)
    assert len(seen) > 1


@pytest.mark.parametrize("content", [b"", b"{}", b"\0" * 100, b'{"zind-layers": 7}', b"[1, 2", bytes(range(128, 192))])
def test_a_damaged_state_is_refused_by_name(layers, content):
    state = pathlib.Path(layers.dir) / "state"
    good = state.read_bytes()
    state.write_bytes(content)
    for call in (
        lambda: zind.Layers.open(layers.dir),
        lambda: zind.run(["true"], rootfs=layers),
        lambda: layers.snapshot("s"),
        layers.delete,
    ):
        with pytest.raises(zind.StateError, match="layers/state"):
            call()
    assert "state" in repr(layers)
    state.write_bytes(good)
    layers.snapshot("s")


# --- mistakes --------------------------------------------------------------------------------------------------------
def test_mistakes(base, layers, tmp_path):
    with pytest.raises(zind.NotFoundError):
        zind.Layers.open(tmp_path / "none")
    with pytest.raises(zind.NotFoundError):
        zind.Layers.open(base)
    with pytest.raises(zind.NotFoundError):
        layers.restore("none")
    with pytest.raises(zind.NotFoundError):
        layers.diff("none")
    with pytest.raises(zind.StateError, match="not empty"):
        zind.Layers.create(layers.dir, base)
    with pytest.raises(zind.StateError, match="not empty"):
        layers.clone(base)
    missing = tmp_path / "x"
    refused(zind.SpecError, lambda: zind.Layers.create(missing, []), field="base")
    refused(zind.SpecError, lambda: zind.Layers.create(base / "x", base), field="base")
    none = tmp_path / "none"
    refused(zind.SysError, lambda: zind.Layers.create(missing, none), step="ReadLayers", number=errno.ENOENT)
    refused(zind.SysError, lambda: zind.Layers.create(missing / "y", base), step="Layers", number=errno.ENOENT)
    refused(zind.SpecError, lambda: layers.snapshot(""), field="name")
    with pytest.raises(TypeError):
        zind.Layers(layers.dir)
    assert not missing.exists() and not (base / "x").exists()


def test_the_directory_is_its_owners(layers):
    """There may be set-uid programs in it."""
    assert stat.S_IMODE(os.stat(layers.dir).st_mode) == 0o700


# --- hostile content -------------------------------------------------------------------------------------------------
def test_links_are_not_followed(layers, tmp_path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/file").write_text("x")
    sh(f"rm -r /d; ln -s {tmp_path}/secret /d; ln -s / /up; mkdir /e; ln -s ../.. /e/x", rootfs=layers)
    assert changes(layers) == ["m /d", "a /e", "a /e/x", "a /up"]
    layers.snapshot("s")
    sh("rm /d; mkdir /d; echo >/d/file", rootfs=layers)
    assert changes(layers, "s") == ["m /d", "a /d/file"]
    layers.restore("s")
    assert (tmp_path / "secret/file").read_text() == "x"


def test_marks_of_the_payloads_mean_nothing(layers):
    """As root deletions are trusted.*, which a payload cannot write; user.* is its own affair."""
    needs_root("an ordinary user's marks are user.*")
    sh("mkdir /d/new", rootfs=layers)
    os.setxattr(layers.upper + "/d", "user.overlay.opaque", b"y")
    assert changes(layers) == ["a /d/new"]


def test_a_deep_tree(layers):
    """Deeper than a path may be long, with a directory that nobody may read."""
    name, part = "n" * 120, "/".join(["n" * 120] * 32)
    layers.snapshot("before")
    sh(f"mkdir -p /{part} /m/{part}; echo x >/m/{part}/end; mv /m/{name} /{part}; rmdir /m", rootfs=layers)
    deepest = max(layers.diff(), key=lambda change: len(change.path))
    assert deepest.path.endswith("/end") and len(deepest.path) == 121 * 64 + 4
    sh("mkdir -p /locked/in; echo x >/locked/in/x; chmod 0 /locked", rootfs=layers)
    layers.snapshot("s")
    layers.restore("before")
    layers.remove("s")
    assert layers.diff() == []
    assert numbers(layers) == [1, 4]
