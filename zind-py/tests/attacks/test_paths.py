"""Escapes from runtimes of our kind, carried out: links and fakes where a runtime mounts, masks and writes.

Each test ends with the victim unchanged, a directory or file of the host that the container has no business with. Where the
attack is a race or a matter of paths, the test shows first that it works against the simple way of doing it.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import time

import careless
import pytest
from scene import CORE_PATTERN, start, tree

import kit
import zind
from kit import needs_root, probe

Mount = zind.Mount


# --- masks -----------------------------------------------------------------------------------------------------------
HIDDEN = """
def look(path):
    found = []
    for flags in (os.O_WRONLY, os.O_RDWR):
        try:
            os.close(os.open(path, flags))
            found.append("opened")
        except OSError:
            found.append("refused")
    try:
        found.append(len(os.listdir(path)) if os.path.isdir(path) else len(open(path, "rb").read(64)))
    except OSError:
        found.append(0)
    return found
answer({path: look(path) for path in sys.argv[1:]})
"""


@pytest.mark.parametrize("null", ["link", "file", "missing", "directory"])
@pytest.mark.parametrize("namespaces", [{}, {"user": "new"}], ids=["plain", "user"])
def test_masks_do_not_come_from_the_containers_dev_null(null, namespaces, tmp_path, victim):
    """CVE-2025-31133, CVE-2025-62161: /dev is the attacker's, and its ``null`` leads to what shall be written."""
    dev = tmp_path / "dev"
    for name in ("pts", "shm", "mqueue"):
        (dev / name).mkdir(parents=True)
    if null == "link":
        (dev / "null").symlink_to(CORE_PATTERN)
    elif null == "file":
        (dev / "null").write_text("content of the attacker's")
    elif null == "directory":
        (dev / "null").mkdir()
    before = tree(dev)
    options = {"mounts": [Mount.bind(dev, "/dev")], "namespaces": namespaces}
    masked = [path for path in zind.run(["true"]).isolation.masked_paths if path.startswith("/proc")]
    found = probe(HIDDEN, *masked, **options)
    assert found and all(one == ["refused", "refused", 0] for one in found.values()), found
    assert probe(HIDDEN, str(CORE_PATTERN), **options)[str(CORE_PATTERN)][:2] == ["refused", "refused"]
    assert tree(dev) == before


def test_a_careless_mask_is_the_payloads_to_write_to(tiny_root, prey):
    """The same with a runtime that takes the container's /dev/null."""
    (tiny_root / "masked").touch()
    (tiny_root / "dev/null").symlink_to(prey / "file")
    careless.apart("mask", tiny_root, "/masked")
    assert (prey / "file").read_text() == "written by the payload"


def test_masks_hide_something():
    """The test above can fail: without masks there is something to read."""
    masked = zind.run(["true"]).isolation.masked_paths
    found = probe(HIDDEN, *masked, privileged=True)
    assert any(one[2] for one in found.values()), found


# --- /proc and /sys of the root --------------------------------------------------------------------------------------
FAKES = ["/evil", "evil", "../../../../evil", "/proc/self/root/evil", "VICTIM"]


@pytest.mark.parametrize("name", ["proc", "sys"])
@pytest.mark.parametrize("fake", FAKES)
@pytest.mark.parametrize("options", [{}, {"overlay": False}, {"read_only": True}], ids=["layer", "direct", "read-only"])
def test_proc_and_sys_of_a_root_are_links(name, fake, options, tiny_root, victim):
    """CVE-2019-19921, CVE-2023-27561, CVE-2023-28642 (/proc), CVE-2025-54867 (/sys)."""
    (tiny_root / "evil/self/attr").mkdir(parents=True)
    (tiny_root / "evil/self/oom_score_adj").write_text("0\n")
    (tiny_root / name).rmdir()
    (tiny_root / name).symlink_to(victim if fake == "VICTIM" else fake)
    before = tree(tiny_root)
    error = start(rootfs=tiny_root, oom_score_adj=500, **options)
    assert isinstance(error, zind.SysError) and error.step == "MountTarget" and error.filename == f"/{name}"
    assert tree(tiny_root) == before


@pytest.mark.parametrize("fake", ["file", "link"])
def test_a_careless_write_to_proc_goes_astray(fake, tiny_root, prey):
    """CVE-2019-16884, CVE-2019-19921, CVE-2025-52881 with a runtime that takes the /proc of the root as it is."""
    (tiny_root / "evil/self").mkdir(parents=True)
    if fake == "link":
        (tiny_root / "evil/self/oom_score_adj").symlink_to(prey / "file")
    (tiny_root / "proc").rmdir()
    (tiny_root / "proc").symlink_to("evil")
    careless.apart("adjust", tiny_root)
    written = prey / "file" if fake == "link" else tiny_root / "evil/self/oom_score_adj"
    assert written.read_text() == "500"


def test_the_place_of_proc_is_what_matters(tiny_root, victim):
    """The test above can fail: without the link it starts."""
    assert start(rootfs=tiny_root, oom_score_adj=500).returncode == 0


@pytest.mark.parametrize("kind", ["tmpfs", "links", "bind"])
@pytest.mark.parametrize("namespaces", [{}, {"user": "new"}, {"time": "new"}], ids=["plain", "user", "time"])
def test_writes_to_proc_land_in_the_real_one(kind, namespaces, tmp_path, victim):
    """CVE-2019-16884, CVE-2025-52881, CVE-2025-62596: what a runtime writes below /proc is led to another file."""
    fake = tmp_path / "fake"
    for directory in ("self/attr", "self/ns", "thread-self/attr", "1/attr", "sys/kernel"):
        (fake / directory).mkdir(parents=True)
    for name in ("oom_score_adj", "uid_map", "timens_offsets", "setgroups", "attr/exec"):
        for directory in ("self", "thread-self", "1"):
            path = fake / directory / name
            path.symlink_to(victim / "file") if kind == "links" else path.write_text("")
    mounts = {
        "tmpfs": [Mount.tmpfs("/proc/self/attr"), Mount.tmpfs("/proc/1/ns"), Mount.tmpfs("/proc/sys")],
        "links": [Mount.bind(fake, "/proc")],
        "bind": [Mount.bind(fake, "/proc")],
    }[kind]
    before = tree(fake)
    argv = ["sleep", "4747"]
    try:
        with zind.Popen(argv, mounts=mounts, namespaces=namespaces, oom_score_adj=500) as p:
            payload = kit.wait_until(lambda: kit.running(*argv))
            assert payload, p.poll()
            assert pathlib.Path(f"/proc/{payload[0]}/oom_score_adj").read_text() == "500\n"
            p.kill()
    except zind.SysError as error:
        assert error.filename.startswith("/proc"), error
    assert tree(fake) == before


def test_masks_in_a_proc_of_somebody_else(tmp_path, victim):
    """Every name that is masked or made read-only is a link to the victim."""
    fake = tmp_path / "fake"
    fake.mkdir()
    told = zind.run(["true"]).isolation
    for path in told.masked_paths + told.readonly_paths:
        if path.startswith("/proc/"):
            (fake / pathlib.Path(path).name).symlink_to(victim)
    before = tree(fake)
    end = start(mounts=[Mount.bind(fake, "/proc")])
    assert isinstance(end, zind.SysError) and end.step == "Mask" and end.errno == 40, end
    assert tree(fake) == before


# --- targets of mounts -----------------------------------------------------------------------------------------------
def all_kinds(source: pathlib.Path, target: str) -> list[dict]:
    mounts = [
        Mount.bind(source, target),
        Mount.bind(source / "file", target),
        Mount.tmpfs(target),
        Mount.tmpfs(target, options=["tmpcopyup"]),
        Mount.file(target, b"content"),
        Mount.overlay(target, lower=[source]),
        Mount.proc(target),
    ]
    return [{"mounts": [mount]} for mount in mounts] + [{"devices": [f"/dev/zero:{target}"]}]


@pytest.mark.parametrize("part", [0, 1, 2, 3])
@pytest.mark.parametrize("form", ["absolute", "relative", "file", "loop", "chain"])
def test_every_part_of_a_target_is_a_link(part, form, tiny_root, victim, source):
    """CVE-2019-18837, CVE-2015-1335, CVE-2024-45310 (its simple form)."""
    parts = ["one", "two", "three", "four"]
    place = tiny_root.joinpath(*parts[:part])
    place.mkdir(parents=True, exist_ok=True)
    to = {
        "absolute": str(victim),
        "relative": "../" * 30 + str(victim).lstrip("/"),
        "file": str(victim / "file"),
        "loop": parts[part],
        "chain": "chain",
    }[form]
    (place / parts[part]).symlink_to(to)
    if form == "chain":
        (place / "chain").symlink_to("/proc/1/root" + str(victim))
    target = "/" + "/".join(parts)
    # The attack works on who takes the path for one of the host's.
    if form in ("absolute", "relative") and part < 3:
        assert os.path.realpath(f"{tiny_root}{target}").startswith(str(victim)) or form == "relative"
    for options in all_kinds(source, target):
        start(rootfs=tiny_root, overlay=False, **options)
        start(rootfs=tiny_root, **options)
    assert sorted(os.listdir(victim)) == ["dir", "file"]
    assert os.listdir(source) == ["file"]


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("form", ["absolute", "relative"])
def test_careless_mounts_lead_out(part, form, tiny_root, prey, source):
    """The same with a runtime that puts root and target together."""
    parts = ["one", "two", "three"]
    place = tiny_root.joinpath(*parts[:part])
    place.mkdir(parents=True, exist_ok=True)
    (place / parts[part]).symlink_to(prey if form == "absolute" else os.path.relpath(prey, place))
    mounted = careless.apart("bind", tiny_root, "/one/two/three", source)
    assert mounted.startswith(f"{prey}/") and sorted(os.listdir(prey)) == ["dir", "file", parts[part + 1]]


SWAP = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
os.chdir("/vol")
while True:
    for _ in range(1000):
        libc.renameat2(-100, b"d", -100, b"l", 2)
    if os.path.exists("stop"):
        break
"""


@pytest.mark.limit(240)
@pytest.mark.parametrize("namespaces", [{}, {"user": "new"}], ids=["plain", "user"])
def test_a_target_swapped_in_a_shared_volume(namespaces, tmp_path, victim, source):
    """CVE-2021-30465 (a mount out of the root), CVE-2024-45310 (directories and files made outside)."""
    volume = tmp_path / "vol"
    (volume / "d").mkdir(parents=True)
    (volume / "l").symlink_to(victim)
    bind = Mount.bind(volume, "/vol")
    targets = ["/vol/d/in/side", "/vol/d/file", "/vol/d"]
    ends = {"started": 0, "refused": 0}
    with zind.Popen(["/usr/bin/python3", "-c", SWAP], mounts=[bind], stdin=zind.DEVNULL) as swapper:
        assert kit.wait_until(lambda: (volume / "d").is_symlink(), 20), swapper.poll()
        for number in range(100):
            target = targets[number % 3]
            last = Mount.file(target, b"x") if target.endswith("file") else Mount.bind(source, target)
            end = start(mounts=[bind, last], namespaces=namespaces)
            assert isinstance(end, zind.SysError) or end.returncode == 0
            ends["refused" if isinstance(end, zind.SysError) else "started"] += 1
            assert sorted(os.listdir(victim)) == ["dir", "file"], number
        assert os.listdir(source) == ["file"]
        (volume / "stop").touch()
        assert swapper.wait(timeout=30) == 0
    assert ends["started"] > 0, ends


def test_the_swap_is_live(tmp_path):
    """The test above can fail: who looks at a path and then uses it makes directories outside."""
    volume, outside = tmp_path / "vol", tmp_path / "outside"
    (volume / "d").mkdir(parents=True)
    outside.mkdir()
    (volume / "l").symlink_to(outside)
    script = SWAP.replace("/vol", str(volume))
    swapper = subprocess.Popen([sys.executable, "-c", script], env=kit.child_env())
    try:
        end = time.monotonic() + 30
        while not os.listdir(outside) and time.monotonic() < end:
            try:
                if not (volume / "d").is_symlink():
                    os.makedirs(volume / "d/in/side", exist_ok=True)
            except OSError:
                pass
        assert os.listdir(outside) == ["in"]
    finally:
        (volume / "stop").touch()
        assert swapper.wait(30) == 0


# --- control groups --------------------------------------------------------------------------------------------------
WRITE_CGROUPS = """
import errno
found = set()
for directory, dirs, files in os.walk("/sys/fs/cgroup"):
    try:
        os.mkdir(os.path.join(directory, "zind-evil"))
        found.add("made " + directory)
    except OSError as e:
        found.add(errno.errorcode[e.errno])
    for name in files:
        try:
            os.close(os.open(os.path.join(directory, name), os.O_WRONLY))
            found.add("opened " + os.path.join(directory, name))
        except OSError as e:
            found.add(errno.errorcode[e.errno])
answer(sorted(found))
"""


def test_writable_control_groups_are_written_to():
    """The test below can fail: it can be had, for the container's own groups."""
    needs_root("making a control group")
    options = {"resources": zind.Resources(pids=50), "namespaces": {"cgroup": "new"}}
    found = probe(WRITE_CGROUPS, mounts=[Mount.cgroup(options=["rw"])], **options)
    assert any(one.startswith(("made", "opened")) for one in found), found


@pytest.mark.parametrize("cgroup", ["host", "new"])
@pytest.mark.parametrize("user", [{}, {"user": "new"}], ids=["plain", "user"])
@pytest.mark.parametrize("mounted", [False, True], ids=["as it is", "cgroup mounted"])
def test_control_groups_are_read_only(cgroup, user, mounted):
    """CVE-2023-25809: without a control group namespace /sys/fs/cgroup was the host's, and writable. Whoever mounts version 2 there sets the
    options of the whole machine's: where it is alone with nsdelegate, the look for what is left behind would see that it is gone."""
    options = {"namespaces": {"cgroup": cgroup, **user}, "mounts": [Mount.cgroup()] if mounted else []}
    try:
        found = set(probe(WRITE_CGROUPS, **options))
    except zind.SysError as error:
        # A hierarchy belongs to its namespace; the host's is not for a user namespace to mount.
        assert mounted and cgroup == "host" and error.filename == "/sys/fs/cgroup", error
        return
    # Nothing mounted: an empty directory of sysfs, in which nothing can be made.
    assert found <= ({"EROFS", "EACCES", "EPERM"} if mounted else {"EROFS", "ENOENT"}), found
    assert not mounted or "EROFS" in found


# --- files of a root that a runtime touches --------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["console", "null", "ptmx", "pts", "fd", "shm", "stdin"])
@pytest.mark.parametrize("options", [{}, {"overlay": False}, {"read_only": True}], ids=["layer", "direct", "read-only"])
def test_links_in_the_dev_of_a_root(name, options, tiny_root, victim):
    """CVE-2026-88264, CVE-2026-88265: a link below /dev of the root, and who changes the owner of what it leads to."""
    (tiny_root / "dev" / name).symlink_to(victim / "file")
    master, slave = os.openpty()
    before = tree(tiny_root)
    try:
        for more in ({}, {"console": slave}, {"devices": ["/dev/zero:/dev/z"]}, {"user": "0:0", "stdout": slave}):
            assert start(rootfs=tiny_root, **options, **more).returncode == 0
    finally:
        os.close(master)
        os.close(slave)
    assert tree(tiny_root) == before


def test_a_careless_console_changes_the_mode_of_another_file(tiny_root, prey):
    """The same with a runtime that gives the terminal to its user by name."""
    (tiny_root / "dev/console").symlink_to(prey / "file")
    careless.own(tiny_root, "/dev/console")
    assert os.stat(prey / "file").st_mode & 0o777 == 0o620


EXCHANGE = """
import ctypes, os, sys
libc, (one, other, stop) = ctypes.CDLL(None), [os.fsencode(arg) for arg in sys.argv[1:]]
print("ready", flush=True)
while not os.path.exists(stop):
    for _ in range(500):
        libc.renameat2(-100, one, -100, other, 2)
"""


@contextlib.contextmanager
def exchanged(one: pathlib.Path, other: pathlib.Path, stop: pathlib.Path):
    """Somebody exchanges two files, all the time."""
    command = [sys.executable, "-c", EXCHANGE, *map(str, (one, other, stop))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as peer:
        try:
            assert peer.stdout.readline() == b"ready\n"
            yield
        finally:
            stop.touch()
            assert peer.wait(30) == 0


@pytest.mark.limit(240)
@pytest.mark.parametrize("name", ["console", "null"])
def test_a_console_that_is_swapped_for_a_link(name, tmp_path, victim):
    """CVE-2025-52565 as a race: whoever shares the directory at /dev exchanges the file with a link all the time."""
    dev = tmp_path / "dev"
    for directory in ("pts", "shm", "mqueue"):
        (dev / directory).mkdir(parents=True)
    (dev / name).touch()
    (dev / "link").symlink_to(victim / "file")
    ends = set()
    master, slave = os.openpty()
    try:
        with exchanged(dev / name, dev / "link", tmp_path / "stop"):
            for _ in range(30):
                end = start(mounts=[Mount.bind(dev, "/dev")], console=slave)
                ends.add(getattr(end, "step", "started"))
                assert os.stat(victim / "file").st_mode & 0o777 != 0o620
    finally:
        os.close(master)
        os.close(slave)
    assert ends <= {"started", "MountTarget"}, ends


def test_a_careless_console_loses_the_race(tmp_path, prey):
    dev = tmp_path / "dev"
    dev.mkdir()
    (dev / "console").touch()
    (dev / "link").symlink_to(prey / "file")
    os.chmod(prey / "file", 0o600)
    with exchanged(dev / "console", dev / "link", tmp_path / "stop"):

        def lost() -> bool:
            if not (dev / "console").is_symlink():
                careless.own(dev, "/console")
            return os.stat(prey / "file").st_mode & 0o777 == 0o620

        assert kit.wait_until(lost, 30, 0)


# --- files that a runtime makes in a root --------------------------------------------------------------------------------
OWN_FILES = """etc/resolv.conf etc/hosts etc/hostname etc/passwd etc/group etc/shadow etc/nsswitch.conf etc/mtab etc/localtime etc/machine-id
run/.containerenv run/secrets run/systemd .dockerenv .containerenv dev/console dev/null dev/ptmx dev/shm dev/mqueue dev/pts root/.bashrc .keep tmp
var/tmp""".split()


@pytest.mark.parametrize("where", ["itself", "parent"])
@pytest.mark.parametrize("to", ["file", "directory"])
@pytest.mark.parametrize("options", [{}, {"overlay": False}, {"read_only": True}], ids=["layer", "direct", "read-only"])
def test_files_that_a_runtime_writes_are_links(where, to, options, tiny_root, victim):
    """CVE-2025-24965, CVE-2024-9341, CVE-2025-9566, CVE-2025-52565: whatever a runtime might make by itself leads to the victim."""
    for name in OWN_FILES:
        path = tiny_root / (name if where == "itself" else name.partition("/")[0])
        if where == "parent" and ("/" not in name or name.startswith("dev")):
            continue
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(victim / ("file" if to == "file" else "dir"))
    before = tree(tiny_root)
    user = {"user": "0:0"}
    master, slave = os.openpty()
    try:
        for more in ({}, {"network": "host", "hostname": "new"}, {"console": slave}, {"pty": True, "capture_output": True}, user):
            end = start(("/bin/busybox", "true"), rootfs=tiny_root, **options, **more)
            # Whatever links there are below: it starts. Where a whole directory is one, it may be refused.
            assert end.returncode == 0 if where == "itself" else isinstance(end, zind.Error) or end.returncode == 0, end
            assert tree(tiny_root) == before
    finally:
        os.close(master)
        os.close(slave)
    assert sorted(os.listdir(victim / "dir")) == []


def test_a_careless_resolv_conf_is_written_outside(tiny_root, prey):
    """The test above can fail."""
    (tiny_root / "etc/resolv.conf").symlink_to(prey / "file")
    careless.write(tiny_root, "/etc/resolv.conf", "nameserver ::1")
    assert (prey / "file").read_text() == "nameserver ::1"


def test_dev_of_a_root_is_a_link(tiny_root, victim):
    (tiny_root / "dev").rmdir()
    (tiny_root / "dev").symlink_to(victim / "dir")
    for options in ({}, {"overlay": False}, {"devices": ["/dev/zero:/dev/z"]}):
        error = start(rootfs=tiny_root, **options)
        assert isinstance(error, zind.SysError) and error.filename == "/dev", error


def test_a_stub_replaced_by_a_link_before_the_end(tiny_root, victim, source):
    """CVE-2024-23652: what a runtime made as a place for a mount is removed at the end, through a link."""
    needs_root("a bind mount in the caller's mount namespace")
    script = "mv /place /away 2>/dev/null; rm -rf /parent 2>/dev/null; mv /parent /gone; ln -s %s /parent; true" % victim
    mounts = [Mount.bind(source, "/place"), Mount.bind(source, "/parent/dir"), Mount.file("/parent/file", b"x")]
    zind.run(["sh", "-c", script], rootfs=tiny_root, overlay=False, mounts=mounts, check=True, stderr=zind.DEVNULL)
    assert sorted(os.listdir(victim)) == ["dir", "file"]


def test_a_careless_end_removes_through_a_link(tiny_root, prey):
    """The test above can fail."""
    (tiny_root / "parent").symlink_to(prey)
    careless.teardown(tiny_root, "/parent/dir")
    careless.teardown(tiny_root, "/parent/file")
    assert os.listdir(prey) == []


# --- what options are made of --------------------------------------------------------------------------------------------
def test_a_path_is_no_list_of_options(tmp_path, victim):
    """CVE-2024-1753, CVE-2024-11218: names with the separators of mount(8) are names, and a propagation is one word."""
    for number, name in enumerate((f"a,upperdir={victim},workdir=b", f"a:{victim}", "a,rshared", "a\\,b=c", "=a,")):
        # With slashes it is a path of several names, and the victim's is among them.
        lower = tmp_path.joinpath(str(number), *name.split("/"))
        lower.mkdir(parents=True)
        (lower / "file").write_text("inside")
        script = "cat /x/file; echo; touch /x/made 2>/dev/null; ls /x"
        for mount, files in (Mount.overlay("/x", lower=[lower]), ["file", "made"]), (Mount.bind(lower, "/x", read_only=True), ["file"]):
            assert kit.sh(script, mounts=[mount]).split() == ["inside", *files]
        assert os.listdir(lower) == ["file"]
    for word in ("rshared,dev", "private,rw,bind", "", "shared\0"):
        with pytest.raises((zind.SpecError, ValueError)):
            zind.run(["true"], mounts=[Mount.bind(victim, "/x", propagation=word)])
    for options in (["ro,rw"], ["size=1m,mode=777"], [f"lowerdir={victim}"]):
        with pytest.raises(zind.Error):
            zind.run(["true"], mounts=[Mount.tmpfs("/x", options=options)])


def test_a_careless_list_of_options_is_longer_than_meant(tmp_path, prey):
    """The test above can fail: what mount(8) is given as one directory are three options."""
    for name in ("lower", "work", "at"):
        (tmp_path / name).mkdir()
    lower = f"{tmp_path}/lower,upperdir={prey},workdir={tmp_path}/work"
    script = f"mount -t overlay overlay -o lowerdir={lower} {tmp_path}/at && touch {tmp_path}/at/made"
    head = [*careless.NOBODY_SEES, *([] if kit.ROOT else ["--user", "--map-root-user"])]
    subprocess.run([*head, "sh", "-c", script], check=True)
    assert "made" in os.listdir(prey)
    shutil.rmtree(tmp_path / "work", ignore_errors=True)
