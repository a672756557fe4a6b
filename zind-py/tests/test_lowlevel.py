"""The low level: unshare(1), nsenter(1), SysProcAttr, mount(2), /proc and lsns."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

import pytest

import kit
import zind
from kit import outside
from zind import ProcAttr

NEW = zind.CLONE_NEWUSER


def spawned(script: str, attr: ProcAttr | None = None, **options) -> str:
    with zind.spawn(["sh", "-c", script], attr, stdout=zind.PIPE, stdin=zind.DEVNULL, text=True, **options) as process:
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0, process
    return out.strip()


def mapped(flags: int = 0, **more) -> ProcAttr:
    """As ``unshare -r``: works for everybody."""
    return ProcAttr(cloneflags=flags | NEW, map_root_user=True, **more)


def test_nothing_changes_by_default():
    script = "for k in mnt pid net uts ipc user cgroup time; do readlink /proc/self/ns/$k; done; pwd; id -u; echo $MINE"
    wanted = [os.readlink(f"/proc/self/ns/{kind}") for kind in "mnt pid net uts ipc user cgroup time".split()]
    out = spawned(script, env={"MINE": "x"}).split()
    assert out == [*wanted, os.getcwd(), str(os.geteuid()), "x"]


@pytest.mark.parametrize("flag, kind", [("NEWNS", "mnt"), ("NEWUTS", "uts"), ("NEWIPC", "ipc"), ("NEWPID", "pid"),
                                        ("NEWNET", "net"), ("NEWCGROUP", "cgroup"), ("NEWTIME", "time"), ("NEWUSER", "user")])
def test_each_clone_flag(flag, kind):
    assert spawned(f"readlink /proc/self/ns/{kind}", mapped(getattr(zind, f"CLONE_{flag}"))) != os.readlink(f"/proc/self/ns/{kind}")


def test_unshare_pid_with_mount_proc_is_a_world_of_its_own():
    out = spawned("echo $$; ps -e -o pid= | wc -l", mapped(zind.CLONE_NEWPID | zind.CLONE_NEWNS, mount_proc=True)).split()
    assert out[0] == "1" and int(out[1]) <= 4


def test_maps_root_and_current_user():
    assert spawned("id -u", mapped()) == "0"
    assert spawned("cat /proc/self/setgroups", mapped()) == "deny"
    assert spawned("id -u", ProcAttr(cloneflags=NEW, map_current_user=True)) == str(os.geteuid())
    assert spawned("id -u", ProcAttr(cloneflags=NEW)) == "65534", "no map at all"


def test_hostname_needs_and_gets_its_namespace():
    assert spawned("hostname inner; hostname", mapped(zind.CLONE_NEWUTS)) == "inner"
    assert os.uname().nodename != "inner"


def test_clocks_directory_root_and_environment(tiny_root):
    assert float(spawned("cat /proc/uptime", mapped(boottime=5e6)).split()[0]) > 5e6
    assert spawned("pwd", ProcAttr(wd="/usr")) == "/usr"
    assert spawned("ls /marker", mapped(zind.CLONE_NEWNS, root=tiny_root)) == "/marker"
    os.environ["ZIND_SECRET"] = "1"
    try:
        assert spawned("echo $ZIND_SECRET$PATH", ProcAttr(clear_env=True, keep_env=["ZIND_SECRET"])).startswith("1")
        assert "1" not in spawned("echo -$ZIND_SECRET-", ProcAttr(clear_env=True))
    finally:
        del os.environ["ZIND_SECRET"]


def test_session_group_and_kept_capabilities():
    stat = "cut -d' ' -f1,5,6 /proc/self/stat"
    pid, group, session = spawned("exec " + stat, ProcAttr(setsid=True)).split()
    assert pid == group == session
    pid, group, session = spawned("exec " + stat, ProcAttr(setpgid=True)).split()
    assert pid == group and int(session) == os.getsid(0)
    caps = "grep -E 'CapAmb' /proc/self/status"
    assert int(spawned(caps, ProcAttr(cloneflags=NEW, map_current_user=True, keep_caps=True)).split()[1], 16) != 0


def test_credentials_and_ambient_capabilities():
    kit.needs_root("other ids")
    attr = ProcAttr(setuid=1234, setgid=1235, groups=[1236])
    assert spawned("id -u; id -g; id -G", attr).split() == ["1234", "1235", "1235", "1236"]
    amb = spawned("grep CapAmb /proc/self/status", ProcAttr(ambient_caps=["NET_BIND_SERVICE"])).split()[1]
    assert int(amb, 16) == 1 << 10


def test_kill_child_and_die_with_the_owner():
    out = outside("import zind, os; zind.spawn(['sleep', '6161'], zind.ProcAttr(kill_child=True), stdout=zind.DEVNULL, stderr=zind.DEVNULL)")
    assert out.returncode == 0
    assert kit.wait_until(lambda: not kit.running("sleep", "6161"))


def test_ptrace_stops_before_the_first_instruction():
    process = zind.spawn(["true"], ProcAttr(ptrace=True))
    state = lambda: kit.processes().get(process.pid, ("?",))[0]  # noqa: E731
    assert kit.wait_until(lambda: state() in "Tt")
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(timeout=10) == 0


def test_a_cgroup_to_be_born_in():
    kit.needs_root("making a control group")
    tops = [path for path in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup") if os.path.exists(f"{path}/cgroup.procs")]
    if not tops or not os.path.exists(f"{tops[0]}/cgroup.controllers"):
        pytest.skip("needs a cgroup v2 hierarchy")
    group = f"{tops[0]}/zind-test-{os.getpid()}"
    os.mkdir(group)
    try:
        fd = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
        try:
            out = zind.run(["cat", "/proc/self/cgroup"], cgroup_fd=fd, namespaces={"cgroup": "host"}, capture_output=True, text=True)
        finally:
            os.close(fd)
        assert os.path.basename(group) in out.stdout, out
    finally:
        kit.wait_until(lambda: not open(f"{group}/cgroup.procs").read())
        os.rmdir(group)


def test_nsenter_joins_all_of_a_process():
    with zind.Popen(["sleep", "100"]) as first:
        kinds = "mnt net uts ipc pid".split() + ([] if kit.ROOT else ["user"])
        wanted = [os.readlink(f"/proc/{first.pid}/ns/{kind}") for kind in kinds]
        script = "; ".join(f"readlink /proc/self/ns/{kind}" for kind in kinds)
        assert spawned(script, ProcAttr(target=first.pid)).split() == wanted
        first.kill()


IN_A_CHILD = """
import os, threading, zind
{}
"""


def test_unshare_mount_umount_pivot_root_and_names(tmp_path):
    kit.needs_root("the caller's own namespaces")
    os.makedirs(tmp_path / "new/old")
    outside(IN_A_CHILD.format(f"""
zind.unshare(zind.CLONE_NEWNS | zind.CLONE_NEWUTS)
zind.sethostname("child"); zind.setdomainname("example.org")
assert os.uname().nodename == "child"
zind.mount(None, "/", flags=zind.MS_REC | zind.MS_PRIVATE)
new = {str(tmp_path / "new")!r}
zind.mount("none", new, "tmpfs", zind.MS_NOSUID | zind.MS_NODEV, "size=1m")
line = [l for l in open("/proc/self/mountinfo") if f" {{new}} " in l][0]
assert "nosuid" in line and "nodev" in line and "size=1024k" in line, line
zind.mount(None, new, flags=zind.MS_REMOUNT | zind.MS_BIND | zind.MS_RDONLY)
try:
    open(new + "/x", "w")
    raise SystemExit("written")
except OSError as error:
    assert error.errno == 30
zind.mount(None, new, flags=zind.MS_REMOUNT | zind.MS_BIND)
os.mkdir(new + "/old")
zind.pivot_root(new, new + "/old")
assert os.listdir("/") == ["old"]
zind.umount("/old", zind.MNT_DETACH)
assert os.listdir("/old") == []
"""))
    assert os.uname().nodename != "child"


def test_setns_by_pid_path_and_descriptor():
    kit.needs_root("joining a namespace of another user namespace")
    with zind.Popen(["sleep", "100"], hostname="there") as first:
        path = f"/proc/{first.pid}/ns/uts"
        for call in (f"zind.setns(pid={first.pid}, flags=zind.CLONE_NEWUTS)", f"zind.setns({path!r})", f"zind.setns(open({path!r}))"):
            assert outside(f"import os, zind; {call}; print(os.uname().nodename)").stdout == "there\n"
        first.kill()


def test_what_the_kernel_refuses_to_threads_says_what_to_call_instead():
    out = outside("""
import threading, zind
stop = threading.Event()
threading.Thread(target=stop.wait).start()
try:
    zind.unshare(zind.CLONE_NEWUSER)
except zind.SysError as error:
    print(error.errno, error.syscall, error.hint)
finally:
    stop.set()
""").stdout
    assert out.startswith("22 unshare ") and "thread" in out and "spawn" in out


def test_refusals_have_a_hint(tmp_path):
    for call in [lambda: zind.mount("none", "/no/such", "tmpfs"), lambda: zind.umount("/no/such"),
                 lambda: zind.setns("/etc/passwd"), lambda: zind.pivot_root("/no/such", "/no/such")]:
        error = kit.refused(zind.SysError, call, step="Call")
        assert error.syscall
    kit.refused(zind.SpecError, lambda: zind.mount("none", tmp_path, "tmp\0fs"))


def test_proc():
    process = subprocess.Popen(["sleep", "100"], env={"A": "b"}, cwd="/usr", stdin=subprocess.DEVNULL)
    try:
        assert kit.wait_until(lambda: kit.cmdline(process.pid) == ["sleep", "100"])
        proc = zind.proc(process.pid)
        assert proc.cmdline == ["sleep", "100"] and proc.environ == {"A": "b"}
        assert proc.cwd == "/usr" and proc.root == "/" and proc.exe == os.path.realpath(shutil.which("sleep", path="/usr/bin:/bin"))
        assert proc.fds[0] == "/dev/null"
        assert proc.stat["comm"] == "sleep" and proc.stat["ppid"] == os.getpid() and len(proc.stat) == 52
        assert proc.statm["size"] * os.sysconf("SC_PAGE_SIZE") > 100_000
        assert proc.status["Name"] == "sleep"
        assert proc.ns["net"] == os.stat("/proc/self/ns/net").st_ino
        start = proc.maps[0][0]
        assert proc.mem(start, 4) == b"\x7fELF"
        assert proc.idmaps[0] and isinstance(proc.cgroup, list)
    finally:
        process.kill()
        process.wait()
    with pytest.raises(zind.NotFoundError):
        _ = proc.cmdline
    with pytest.raises(zind.NotFoundError):
        zind.proc(2**22 - 1)


def test_namespaces_are_listed():
    with zind.Popen(["sleep", "100"]) as process:
        inode = os.stat(f"/proc/{process.pid}/ns/uts").st_ino
        found = [entry for entry in zind.namespaces() if entry.kind == "uts" and entry.id == inode]
        assert len(found) == 1 and process.pid in found[0].pids
        assert found[0].owner == os.stat(f"/proc/{process.pid}/ns/user").st_ino and found[0].parent is None
        process.kill()


def test_the_seed_sleep_in_an_unshared_pid_namespace():
    process = zind.spawn(["sleep", "1000"], mapped(zind.CLONE_NEWPID))
    try:
        theirs, ours = zind.proc(process.pid).ns, zind.proc().ns
        assert theirs["pid"] != ours["pid"] and theirs["net"] == ours["net"]
        assert zind.proc(process.pid).status["NSpid"].split()[-1] == "1"
    finally:
        process.kill()
        process.wait()


def test_the_seed_a_message_queue_outside_is_unseen_inside():
    queue = subprocess.check_output(["ipcmk", "-Q"], text=True).split()[-1]
    try:
        assert queue in subprocess.check_output(["ipcs", "-q"], text=True)
        for out in (kit.sh("ipcs -q"), spawned("ipcs -q", mapped(zind.CLONE_NEWIPC))):
            assert queue not in out and "Message Queues" in out
    finally:
        subprocess.check_call(["ipcrm", "-q", queue])


def test_the_seed_ps_and_top_on_a_fresh_proc():
    assert "zind-init" in kit.sh("ps -e") and "sshd" not in kit.sh("ps -e")
    assert "PID" in kit.sh("TERM=dumb top -b -n 1")


def test_doctor_tells_the_truth():
    report = zind.doctor()
    names = {check["name"]: check for check in report.checks}
    assert len(names) > 20 and str(report)
    assert all(check["detail"] for check in report.checks)
    assert outside("import zind; print(zind.doctor())", timeout=20).stdout.count("\n") > 20


def test_numbers_of_network_namespaces():
    kit.needs_root("numbers of network namespaces")
    name = f"zind-{os.getpid()}"

    def number() -> int | None:
        (found,) = [one for one in zind.namespaces() if one.kind == "net" and p.pid in one.pids]
        return found.netnsid

    with zind.Popen(["sleep", "707"], stdin=zind.DEVNULL) as p:
        try:
            assert number() is None
            # In mounts of its own: ip makes some of /run/netns.
            script = f"ip netns attach {name} {p.pid}; ip netns set {name} 4711; ip netns delete {name}"
            subprocess.run(["unshare", "-m", "sh", "-ec", script], check=True)
            assert number() == 4711
        finally:
            p.kill()
    assert all(one.netnsid is None for one in zind.namespaces() if one.kind != "net")
