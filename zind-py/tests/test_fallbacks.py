"""Where the kernel, or a filter around the caller, does not have what zind would rather use."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

import kit
import zind
from kit import needs_root, outside

HERE = pathlib.Path(__file__).resolve().parent
NEWER_MOUNTS = "fsopen fsconfig fsmount move_mount open_tree mount_setattr".split()
#: What mount(2) cannot do: see docs/kernel-features.md.
ONLY_NEWER = ["test_idmapped_bind", "test_idmaps_of_the_top_or_of_all", "test_an_unknown_option_is_named_by_the_kernel"]
#: An ordinary user's filter takes its strength from newuidmap(1), which these need.
NEED_MAPS = ["test_users_are_those_of_the_root", "test_a_number_is_a_number_though_a_user_has_it_as_name"]

MOUNTINFO = """
import json, sys, kit, zind
kit.hide_calls(*sys.argv[2:])
mounts = [zind.Mount(**each) for each in json.loads(sys.argv[1])]
r = zind.run(["cat", "/proc/self/mountinfo"], capture_output=True, text=True, mounts=mounts, rootfs="/", overlay=False, read_only=True)
rows = [line.split() for line in r.stdout.splitlines()]
fields = lambda row: (row[4], row[5], [f.split(":")[0] for f in row[6:row.index("-")]], row[row.index("-") + 1], row[-1])
print(json.dumps([r.isolation.mount_interface, [fields(row) for row in rows]]))
"""


def under_a_filter(script: str, *hidden: str, args: tuple[str, ...] = ()) -> str:
    return outside(f"import kit, sys, zind\nkit.hide_calls(*{hidden!r})\n" + script, *args).stdout.strip()


@pytest.mark.limit(300)
def test_the_tests_of_mounts_pass_by_the_older_interface(tmp_path):
    script = f"import kit, pytest, sys\nkit.hide_calls(*{NEWER_MOUNTS!r})\nsys.exit(pytest.main(sys.argv[1:]))"
    without = " and ".join(f"not {name}" for name in ONLY_NEWER + ([] if kit.ROOT else NEED_MAPS))
    files = [HERE / "test_mounts.py", HERE / "test_rootfs.py"]
    result = subprocess.run(
        [sys.executable, "-c", script, "-q", "-p", "no:cacheprovider", "--basetemp", tmp_path / "all", "--rootdir", HERE, "-k", without, *files],
        env=kit.child_env(PYTHONPATH=os.pathsep.join(sys.path)),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-10_000:] + result.stderr


@pytest.mark.parametrize("options", [["ro"], ["rro"], ["nosuid", "noexec", "noatime"], ["rnosymfollow", "rslave"], ["bind", "shared"]], ids=str)
def test_both_interfaces_give_the_same_mounts(tmp_path, options):
    # An ordinary user may not change how access times are kept.
    options = [option for option in options if kit.ROOT or option != "noatime"]
    mounts = [
        {"type": "tmpfs", "target": "/mnt", "options": ["size=1m", "mode=711", "nodev", *[o for o in options if o in ("ro", "noexec")]]},
        {"type": "bind", "source": "/dev" if kit.ROOT else "/tmp", "target": "/srv", "options": ["rbind", *options]},
    ]
    answers = [json.loads(outside(MOUNTINFO, json.dumps(mounts), *hidden).stdout) for hidden in ((), NEWER_MOUNTS)]
    assert [answer[0] for answer in answers] == ["fsmount", "mount"]
    # The devices are nodes of the container's own there, and the host's here. What another mount covers cannot be seen.
    told = [{row[0]: row[1:] for row in answer[1] if not row[0].startswith(("/dev", "/proc/", "/sys/"))} for answer in answers]
    assert told[0] == told[1] and {"/", "/mnt", "/srv", "/proc", "/sys"} <= set(told[0])


@pytest.mark.parametrize("hidden", NEWER_MOUNTS)
def test_one_hidden_call_is_enough(hidden):
    assert under_a_filter("r = zind.run(['true'], check=True); print(r.isolation.mount_interface)", hidden) == "mount"


def test_nothing_is_dropped_where_the_older_interface_cannot():
    script = """
import contextlib
for call in (lambda: zind.run(["true"], mounts=[zind.Mount.bind("/usr", "/u", idmap=[zind.IdMap(0, 0, 1)])]),
             lambda: zind.Popen(["cat"], stdin=zind.PIPE).mount(zind.Mount.tmpfs("/t"))):
    try: call()
    except zind.UnsupportedError as error: print(error)
"""
    said = under_a_filter(script, *NEWER_MOUNTS).splitlines()
    assert len(said) == 2 and all("hides" in line or "run as root" in line for line in said), said


# --- the root ---------------------------------------------------------------------------------------------------------
ESCAPE = """
import os, zind, kit, sys
inside = '''
import os
os.mkdir("/tmp/x"); out = os.open("/", os.O_RDONLY)
os.chroot("/tmp/x"); os.fchdir(out)
for _ in range(64): os.chdir("..")
os.chroot(".")
print(sorted(os.listdir("/")) , os.path.exists(%r))
'''
caps = ["CAP_SYS_CHROOT"]
r = zind.run(["/usr/bin/python3", "-c", inside % sys.argv[1]], capture_output=True, text=True, capabilities=caps, seccomp=None)
print(r.isolation.root_change, "pivot_root" in r.isolation.in_force, r.stdout.strip(), r.stderr)
"""


@pytest.mark.parametrize("hidden", [[], ["pivot_root"], ["pivot_root", *NEWER_MOUNTS]], ids=str)
def test_no_chroot_inside_leads_out_however_the_root_was_changed(hidden, tmp_path):
    mark = tmp_path / "host"
    mark.touch()
    how, is_pivot, said = under_a_filter(ESCAPE, *hidden, args=(str(mark),)).split(" ", 2)
    assert (how, is_pivot) == (("chroot", "False") if hidden else ("pivot_root", "True"))
    assert "'usr'" in said and "'proc'" in said and said.endswith("False"), said


def test_pivot_root_can_be_required():
    zind.run(["true"], require={"pivot_root"}, check=True)
    script = """
try: zind.run(["true"], require={"pivot_root"})
except zind.SysError as error: print(error.step, error.syscall)
"""
    assert under_a_filter(script, "pivot_root") in ("PivotRoot pivot_root", "Template pivot_root")


def test_a_caller_in_a_chroot_gets_whole_containers(tmp_path):
    """pivot_root(2) refuses a root that is no mount; the host's root above it must be gone all the same."""
    needs_root("changing the root")
    jail = tmp_path / "jail"
    script = """
import os, sys, zind, kit
jail, path = sys.argv[1], sys.argv[2:]
zind.mount(None, "/", None, zind.MS_REC | zind.MS_PRIVATE)
for name in ["usr", "etc", "proc", "dev", "tmp", "root", "run", "var", "sys", "opt"] + [n for n in ("work",) if os.path.isdir("/" + n)]:
    os.makedirs(f"{jail}/{name}")
    zind.mount("/" + name, f"{jail}/{name}", None, zind.MS_BIND | zind.MS_REC)
for name in ("bin", "lib", "lib64", "sbin"):
    os.symlink("usr/" + name, f"{jail}/{name}")
os.chroot(jail)
os.chdir("/")
zind.run(["true"], check=True, require={"pivot_root"})
""" + ESCAPE
    script = script.replace("sys.argv[1])", "'/jail')")
    result = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", script, jail], env=kit.child_env(PYTHONPATH=os.pathsep.join(sys.path)), capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("pivot_root True ['bin'"), result.stdout
    assert "jail" not in result.stdout


# --- a root without an overlay ----------------------------------------------------------------------------------------
#: An overlay of an overlay of an overlay is one too many for the kernel. Run in a mount namespace of its own.
STACKED = """
import os, sys, zind
place, root, uid, fuse = sys.argv[1:]
zind.mount(None, "/", None, zind.MS_REC | zind.MS_PRIVATE)
# A device that is none, or one that everybody may open, as udev makes it.
if fuse:
    os.mknod(place + "/fuse", 0o20666, os.makedev(10, 229))
    os.chmod(place + "/fuse", 0o666)
zind.mount(place + "/fuse" if fuse else "/dev/null", "/dev/fuse", None, zind.MS_BIND)
lower = root
for level in ("1", "2"):
    parts = [f"{place}/{name}{level}" for name in ("lower", "upper", "work", "merged")]
    for part in parts:
        os.mkdir(part)
    zind.mount(lower, parts[0], None, zind.MS_BIND)
    zind.mount("overlay", parts[3], "overlay", 0, f"lowerdir={parts[0]},upperdir={parts[1]},workdir={parts[2]}")
    lower = parts[3]
own = place + "/own"
os.mkdir(own)
os.chown(own, int(uid), int(uid))
if uid != "0":
    os.setgroups([]), os.setresgid(*3 * [int(uid)]), os.setresuid(*3 * [int(uid)])
def start(script, **options):
    r = zind.run(["sh", "-c", script], rootfs=lower, capture_output=True, text=True, **options)
    print([r.stdout, r.stderr, r.isolation.overlay, r.isolation.copy_on_write, "overlay" in r.isolation.in_force])
def refused(**options):
    try:
        zind.run(["true"], rootfs=lower, **options)
    except zind.Error as error:
        print([type(error).__name__, getattr(error, "step", ""), getattr(error, "errno", 0), str(error)])
"""


@pytest.fixture(params=["0", "61234"], ids=["root", "user"])
def stacked(request, tmp_path, tiny_root):
    """Runs a script with a root that the kernel makes no overlay of; what it prints, line by line."""
    needs_root("mounting in the caller's namespace")
    place = tmp_path / "place"

    def run(script, fuse=False, **env):
        place.mkdir()
        for path in (tmp_path, *tmp_path.parents[:2]):
            path.chmod(0o755)
        subprocess.run(["chmod", "-R", "a+rX", tiny_root], check=True)
        result = subprocess.run(
            ["unshare", "-m", sys.executable, "-c", STACKED + script, place, tiny_root, request.param, "fuse" * fuse],
            env=kit.child_env(PYTHONPATH=os.pathsep.join(sys.path), **env),
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        return [eval(line) for line in result.stdout.splitlines()]

    run.place, run.uid = place, request.param
    return run


def test_a_copy_stands_in_for_an_overlay(stacked, tiny_root):
    script = """
start("cat /marker; echo changed >/marker; cat /marker; rm -r /etc; ls /")
start("cat /marker")
"""
    first, second = stacked(script)
    assert first == ["untouched\nchanged\nbin\ndev\nhome\nmarker\nproc\nroot\nsys\ntmp\n", "", "tmpfs", "copy", False]
    assert second[0] == "untouched\n"
    assert (tiny_root / "marker").read_text().strip() == "untouched"


def test_the_copy_in_an_overlay_directory_stays(stacked):
    script = """
start("cat /marker; echo changed >/marker", overlay=own)
start("cat /marker", overlay=own)
print(sorted(os.listdir(own)))
refused(overlay=own, require={"overlay"})
"""
    first, second, names, error = stacked(script)
    assert first[0] == "untouched\n" and first[2].endswith("/own") and first[3:] == ["copy", False]
    assert second[0] == "changed\n" and "copy" in names and "copy.partial" not in names
    assert error[0] == "UnsupportedError" and "copy of the root" in error[3]


FUSE_SERVERS = """
def servers():
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = open(f"/proc/{pid}/cmdline").read().split("\\0")
            if words[0].endswith("fuse-overlayfs") and int(open(f"/proc/{pid}/stat").read().rsplit(")")[1].split()[1]) > 0:
                if os.stat(f"/proc/{pid}").st_uid == int(uid): found.append(int(pid))
        except (OSError, ValueError):
            pass
    return found
"""


def test_fuse_overlayfs_stands_in_for_an_overlay(stacked, tiny_root):
    kit.needs_program("fuse-overlayfs")
    script = """
start("cat /marker; echo changed >/marker; cat /marker; rm -r /etc; mkdir /etc; ls -a /etc; mv /marker /m; ln /m /n; ls /; stat -c '%u %h' /n")
start("cat /marker; ls /m; id -u")
"""
    first, second = stacked(script, fuse=True)
    assert first[1:] == ["", "tmpfs", "fuse-overlayfs", False], first
    assert first[0].split() == "untouched changed . .. bin dev etc home m n proc root sys tmp 0 2".split()
    assert second[0] == "untouched\n0\n" and "/m" in second[1]
    assert (tiny_root / "marker").read_text().strip() == "untouched" and (tiny_root / "etc/group").exists()


def test_its_server_is_nobody_s_child_and_ends_with_the_container(stacked):
    kit.needs_program("fuse-overlayfs")
    script = FUSE_SERVERS + """
before = servers()
p = zind.Popen(["sh", "-c", "echo; read x; ls /marker"], rootfs=lower, stdin=zind.PIPE, stdout=zind.PIPE)
p.stdout.readline()
new = set(servers()) - set(before)
try: child = os.waitpid(-1, os.WNOHANG)
except ChildProcessError: child = None
out = p.communicate(b"\\n")[0]
print([len(new), child, out, p.returncode, len(set(servers()) & new)])
# Killed from outside: errors inside, and no more.
p = zind.Popen(["sh", "-c", "echo; read x; : </marker; echo $?"], rootfs=lower, stdin=zind.PIPE, stdout=zind.PIPE, stderr=zind.PIPE)
p.stdout.readline()
for pid in set(servers()) - set(before): os.kill(pid, 9)
out, err = p.communicate(b"\\n")
print([out, p.returncode])
# With the owner.
pid = os.fork()
if pid == 0:
    p = zind.Popen(["sleep", "100"], rootfs=lower)
    os.kill(os.getpid(), 9)
os.waitpid(pid, 0)
import time
for _ in range(500):
    left = set(servers()) - set(before)
    if not left: break
    time.sleep(0.01)
print([len(left)])
"""
    ended, killed, owner = stacked(script, fuse=True)
    assert ended == [1, None, b"/marker\n", 0, 0]
    assert killed[0] != b"0\n"
    assert owner == [0]


def test_what_fuse_overlayfs_changed_in_an_overlay_directory_stays(stacked):
    kit.needs_program("fuse-overlayfs")
    script = """
start("echo changed >/marker; rm -r /etc", overlay=own)
start("cat /marker; ls -d /etc", overlay=own)
p = zind.Popen(["cat"], rootfs=lower, overlay=own, stdin=zind.PIPE)
refused(overlay=own)
p.communicate()
refused(overlay=own, require={"overlay"})
print(sorted(os.listdir(own)))
start("cat /marker", overlay=own)
refused(overlay=own, mounts=[zind.Mount.bind("/none", "/x")])
zind.mount("/dev/null", "/dev/fuse", None, zind.MS_BIND) if uid == "0" else None
refused(overlay=own) if uid == "0" else None
"""
    first, second, busy, required, names, third, bad, *gone = stacked(script, fuse=True)
    assert first[2].endswith("/own") and first[3:] == ["fuse-overlayfs", False]
    assert second[0] == "changed\n" and "/etc" in second[1] and third[0] == "changed\n"
    assert busy[1:3] == ["Fuse", 16] and "another container" in busy[3]
    assert required[0] == "UnsupportedError" and "fuse-overlayfs" in required[3]
    assert "fuse" in names and "copy" not in names
    assert bad[2] == 2 and "mounts[0]" in bad[3]
    assert not gone or gone[0][1] == "Fuse", gone


def test_fuse_overlayfs_has_a_limit_of_memory(stacked):
    kit.needs_program("fuse-overlayfs")
    script = """start("dd if=/dev/zero of=/big bs=64k count=100 2>&1; true", tmpfs_size="1m")"""
    assert "No space left" in stacked(script, fuse=True)[0][0]


@pytest.mark.parametrize("program", ["#!/bin/sh\nexit 1\n", "no program"], ids=["ends", "none"])
def test_a_copy_where_fuse_overlayfs_does_not_work(stacked, tmp_path, program):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/fuse-overlayfs").write_text(program)
    (tmp_path / "bin/fuse-overlayfs").chmod(0o755)
    script = """
start("cat /marker")
start("echo changed >/marker", overlay=own)
start("cat /marker", overlay=own)
try: zind.run(["/none"], rootfs=lower)
except FileNotFoundError: print(sorted(os.listdir(own)))
"""
    first, second, third, names = stacked(script, fuse=True, PATH=f"{tmp_path}/bin:{os.environ['PATH']}")
    assert first[0] == "untouched\n" and third[0] == "changed\n"
    assert [each[3] for each in (first, second, third)] == ["copy"] * 3
    assert "copy" in names and "fuse" not in names


@pytest.mark.parametrize("fuse", [False, True], ids=["copy", "fuse"])
def test_a_fresh_volume_begins_with_the_root_s_content_without_an_overlay_too(stacked, fuse):
    if fuse:
        kit.needs_program("fuse-overlayfs")
    script = """
volume = lambda name, **more: zind.Mount.volume(name, "/etc", place=own + "/volumes", **more)
start("cat /etc/group", mounts=[volume("a")])
start("cat /etc/group", mounts=[volume("b")], overlay=own)
start("echo new >/etc/group", overlay=own)
start("ls /etc", mounts=[volume("d", copy_up=False)], overlay=own)
if os.path.isdir(own + "/fuse"):
    refused(mounts=[volume("c")], overlay=own)
else:
    start("cat /etc/group", mounts=[volume("c")], overlay=own)
"""
    first, second, _, empty, changed = stacked(script, fuse=fuse)
    assert "staff" in first[0] and "staff" in second[0] and empty[0] == ""
    assert second[3] == empty[3] == ("fuse-overlayfs" if fuse else "copy")
    assert changed[0] == ("UnsupportedError" if fuse else "new\n")


def test_no_copy_where_an_overlay_is_required(stacked):
    error = stacked("refused(require={'overlay'})")[0]
    assert error[:3] == ["SysError", "Mount", 22] and "read_only=True" in error[3]


def test_a_copy_that_does_not_fit_is_an_error(stacked):
    error = stacked("refused(tmpfs_size='64k')")[0]
    assert error[1:3] == ["CopyIn", 28] and "tmpfs_size" in error[3]


@pytest.mark.limit(240)
def test_a_copy_ends_with_the_time_limit(stacked, tiny_root):
    (tiny_root / "many").mkdir()
    for number in range(30_000):
        (tiny_root / "many" / str(number)).touch()
    script = """
try:
    zind.run(["true"], rootfs=lower, timeout=0.1)
except (TimeoutError, zind.TimeoutExpired) as error:
    print([type(error).__name__])
"""
    assert stacked(script) in ([["StartTimeout"]], [["TimeoutExpired"]])
