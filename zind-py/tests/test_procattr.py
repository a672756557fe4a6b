"""Every attribute of :class:`zind.ProcAttr`: unshare(1), nsenter(1) and Go's SysProcAttr by their own words."""

from __future__ import annotations

import inspect
import os
import pathlib
import signal

import pytest

import kit
import zind
from kit import GID, ROOT, UID, needs_root, ns_of, outside, wait_until
from zind import ProcAttr

USER = zind.CLONE_NEWUSER


def out(script: str, attr: ProcAttr | None = None, **options) -> str:
    process = zind.spawn(["sh", "-c", script], attr, stdout=zind.PIPE, stderr=zind.PIPE, stdin=zind.DEVNULL, text=True, **options)
    found, err = process.communicate(timeout=30)
    assert process.returncode == 0, (process.exit, err)
    return found.strip()


def root(flags: int = 0, **more) -> ProcAttr:
    return ProcAttr(cloneflags=USER | flags, map_root_user=True, **more)


def test_all_words_of_go_and_util_linux_are_there():
    go = "chroot setuid setgid groups ptrace setsid setpgid pgid setctty noctty ctty foreground pdeathsig cloneflags unshareflags"
    go += " uid_mappings gid_mappings gid_mappings_enable_setgroups ambient_caps cgroup_fd"
    unshare = "map_root_user map_current_user setgroups owner propagation mount_proc mount_binfmt load_interp root wd keep_caps kill_child"
    unshare += " forward_signals monotonic boottime clear_env keep_env pin"
    nsenter = "target namespaces"
    words = set(f"{go} {unshare} {nsenter}".split())
    assert words <= set(inspect.signature(ProcAttr).parameters)


def test_repr_shows_what_was_set():
    assert repr(ProcAttr(setsid=True, wd="/tmp")) in ("zind.ProcAttr(wd='/tmp', setsid=True)", "zind.ProcAttr(setsid=True, wd='/tmp')")


def test_unshareflags_are_clone_flags_too():
    inside = out("readlink /proc/self/ns/uts", ProcAttr(unshareflags=zind.CLONE_NEWUTS | USER, map_root_user=True))
    assert inside != os.readlink("/proc/self/ns/uts")


def test_flags_that_are_no_namespaces_are_refused():
    kit.refused(zind.SpecError, lambda: zind.spawn(["true"], ProcAttr(cloneflags=zind.CLONE_VM)), field="cloneflags")


def test_several_namespaces_at_once():
    flags = USER | zind.CLONE_NEWNS | zind.CLONE_NEWPID | zind.CLONE_NEWUTS | zind.CLONE_NEWIPC | zind.CLONE_NEWNET | zind.CLONE_NEWCGROUP | zind.CLONE_NEWTIME
    process = zind.spawn(["sleep", "100"], ProcAttr(cloneflags=flags, map_root_user=True))
    theirs, ours = ns_of(process.pid), ns_of()
    process.kill()
    process.wait()
    assert all(theirs[kind] != ours[kind] for kind in kit.KINDS)


# --- maps ------------------------------------------------------------------------------------------------------------
MAPS = "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' ' | sed 's/^ //'; cat /proc/self/setgroups"


def test_mappings():
    attr = ProcAttr(cloneflags=USER, uid_mappings=[(5, UID, 1)], gid_mappings=[zind.IdMap(6, GID, 1)])
    assert out(MAPS, attr).splitlines()[:2] == [f"5 {UID} 1", f"6 {GID} 1"]


def test_auto_mapping():
    lines = out(MAPS, ProcAttr(cloneflags=USER, uid_mappings="auto", gid_mappings="auto")).splitlines()
    assert [line.split()[0] for line in lines[:-1]] == (["0", "0"] if ROOT else ["0", "1", "0", "1"])
    assert lines[-1] == "allow"


def test_the_maps_imply_a_user_namespace():
    assert out("readlink /proc/self/ns/user", ProcAttr(map_root_user=True)) != os.readlink("/proc/self/ns/user")


def test_map_root_and_current_exclude_each_other():
    attr = ProcAttr(map_root_user=True, map_current_user=True)
    kit.refused(zind.SpecError, lambda: zind.spawn(["true"], attr), field="map_root_user")


@pytest.mark.parametrize(("given", "expected"), [({"setgroups": "deny"}, "deny"), ({"setgroups": "allow"}, "allow"), ({"gid_mappings_enable_setgroups": False}, "deny"), ({"gid_mappings_enable_setgroups": True}, "allow")])
def test_setgroups(given, expected):
    attr = ProcAttr(cloneflags=USER, uid_mappings="auto", gid_mappings="auto", **given)
    assert out("cat /proc/self/setgroups", attr) == expected


def test_owner():
    needs_root("another user's id")
    attr = ProcAttr(cloneflags=USER, owner=(1234, 1235), uid_mappings=[(0, 1234, 1)], gid_mappings=[(0, 1235, 1)])
    assert out("id -u; id -g", attr).split() == ["0", "0"]


# --- mounts and roots ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "expected"), [(None, ""), ("private", ""), ("slave", "master"), ("shared", "shared"), ("unchanged", "")])
def test_propagation(given, expected):
    field = out("awk '$5 == \"/\" {print $7}' /proc/self/mountinfo", root(zind.CLONE_NEWNS, propagation=given))
    if given == "slave":  # of a private mount nothing comes of it
        assert field == "-"
    else:
        assert field.partition(":")[0] in (expected, "-" if not expected else expected)


def test_mounts_made_inside_stay_inside(tmp_path):
    assert "tmpfs" in out(f"mount -t tmpfs none {tmp_path} && grep ' {tmp_path} ' /proc/self/mountinfo", root(zind.CLONE_NEWNS))
    assert not os.path.ismount(tmp_path)


def test_mount_proc_elsewhere(tmp_path):
    place = tmp_path / "proc"
    place.mkdir()
    flags = zind.CLONE_NEWNS | zind.CLONE_NEWPID
    assert out(f"cat {place}/1/comm; ls {place} | grep -c '^[0-9]'", root(flags, mount_proc=place)).split()[0] == "sh"
    assert os.listdir(place) == []


def test_mount_proc_hides_the_processes_of_the_host():
    found = out("ls /proc | grep '^[0-9]'", root(zind.CLONE_NEWNS | zind.CLONE_NEWPID, mount_proc=True)).split()
    assert "1" in found and len(found) <= 3


def test_binfmt_misc_of_its_own():
    place = "/proc/sys/fs/binfmt_misc"
    if not os.path.isdir(place):
        pytest.skip("needs binfmt_misc in the kernel")
    line = r":zindtest:M::zindmagic::/bin/echo:"
    attr = root(zind.CLONE_NEWNS, mount_binfmt=True, load_interp=line)
    assert "interpreter /bin/echo" in out(f"cat {place}/zindtest", attr)
    assert not os.path.exists(f"{place}/zindtest")


@pytest.mark.parametrize("word", ["root", "chroot"])
def test_root_and_directory(tiny_root, word):
    assert out("cat /marker; pwd", root(zind.CLONE_NEWNS, **{word: tiny_root}, wd="/etc")).split() == ["untouched", "/etc"]
    if ROOT:
        assert out("cat /marker", ProcAttr(**{word: tiny_root}, wd="/")) == "untouched"


def test_a_relative_directory(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    assert out("pwd", ProcAttr(wd="sub")) == str(tmp_path / "sub")
    assert out("pwd") == str(tmp_path)


def test_pin(tmp_path):
    needs_root("a bind mount in the caller's mount namespace")
    place = tmp_path / "uts"
    place.touch()
    try:
        inside = out("hostname pinned; readlink /proc/self/ns/uts", ProcAttr(cloneflags=zind.CLONE_NEWUTS, pin={"uts": place}))
        assert inside == f"uts:[{place.stat().st_ino}]"
        assert out("hostname", ProcAttr(namespaces={"uts": place})) == "pinned"
    finally:
        zind.umount(place)


# --- joining ---------------------------------------------------------------------------------------------------------


def test_target_joins_what_differs_and_single_kinds():
    holder = zind.Popen(["sleep", "100"], hostname="holder")
    theirs = ns_of(holder.pid)
    try:
        kinds = ("uts",) if ROOT else ("user", "uts")
        assert out("hostname", ProcAttr(namespaces=dict.fromkeys(kinds, holder.pid))) == "holder"
        script = "cat /proc/1/comm; hostname; stat -Lc %i /proc/self/ns/net"
        assert out(script, ProcAttr(target=holder.pid)).split() == ["zind-init", "holder", str(theirs["net"])]
    finally:
        holder.kill()
        holder.wait()


def test_join_and_make_at_once():
    holder = zind.Popen(["sleep", "100"], hostname="holder")
    try:
        kinds = ("uts",) if ROOT else ("user", "uts")
        attr = ProcAttr(namespaces=dict.fromkeys(kinds, holder.pid), cloneflags=zind.CLONE_NEWIPC)
        name, ipc = out("hostname; readlink /proc/self/ns/ipc", attr).split()
        assert name == "holder" and ipc not in (os.readlink("/proc/self/ns/ipc"), os.readlink(f"/proc/{holder.pid}/ns/ipc"))
    finally:
        holder.kill()
        holder.wait()


# --- the process -----------------------------------------------------------------------------------------------------


def test_setuid_needs_setgid():
    kit.refused(zind.SpecError, lambda: zind.spawn(["true"], ProcAttr(setuid=5)), field="setuid")


def test_credentials():
    needs_root("other ids")
    assert out("id -u; id -g; id -G", ProcAttr(setuid=33, setgid=34, groups=[35, 36])).split() == ["33", "34", "34", "35", "36"]
    assert out("id -G", ProcAttr(groups=[])) == "0"


def test_in_a_user_namespace_one_may_become_whoever_is_mapped():
    attr = ProcAttr(uid_mappings="auto", gid_mappings="auto", setuid=7, setgid=8, groups=[9])
    assert out("id -u; id -g; id -G", attr).split() == ["7", "8", "8", "9"]


def test_ambient_and_kept_capabilities():
    amb = "grep CapAmb /proc/self/status | cut -f2"
    assert int(out(amb, ProcAttr(cloneflags=USER, map_current_user=True, ambient_caps=["NET_ADMIN"])), 16) == 1 << 12
    assert int(out(amb, ProcAttr(cloneflags=USER, map_current_user=True, keep_caps=True)), 16).bit_count() > 30
    assert int(out(amb, ProcAttr(cloneflags=USER, map_current_user=True)), 16) == 0


@pytest.mark.parametrize(("given", "expected"), [({"kill_child": True}, 9), ({"kill_child": "TERM"}, 15), ({"pdeathsig": signal.SIGINT}, 2), ({}, 9)])
def test_parent_death_signal(given, expected):
    source = "import ctypes; n = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(n)); print(n.value)"
    with zind.spawn(["python3", "-c", source], ProcAttr(**given), stdout=zind.PIPE) as process:
        assert int(process.communicate()[0]) == expected
    if not given:  # the process ends with the caller's, unless told otherwise
        with zind.spawn(["python3", "-c", source], stdout=zind.PIPE, die_with_owner=False) as process:
            assert int(process.communicate()[0]) == 0


def test_forward_signals_to_the_group():
    script = "sh -c 'trap \"echo child; exit 0\" USR1; echo ready; while :; do sleep 0.01; done' & trap 'wait; exit 6' USR1; wait; wait"
    process = zind.spawn(["sh", "-c", script], ProcAttr(setsid=True, forward_signals=True), stdout=zind.PIPE)
    assert process.stdout.readline() == b"ready\n"
    watcher = kit.processes()[process.pid][1]
    os.kill(watcher, signal.SIGUSR1)
    assert process.communicate(timeout=10)[0] == b"child\n"
    assert process.returncode == 6


def test_pgid():
    leader = zind.spawn(["sleep", "100"], ProcAttr(setpgid=True))
    try:
        assert os.getpgid(leader.pid) == leader.pid
        second = zind.spawn(["sleep", "100"], ProcAttr(pgid=leader.pid))
        assert os.getpgid(second.pid) == leader.pid
        second.kill()
        second.wait()
    finally:
        leader.kill()
        leader.wait()


def test_terminal_of_a_spawned_process():
    main, other = os.openpty()
    source = "import os; fd = os.open('/dev/tty', os.O_RDWR); os.write(fd, str([os.tcgetpgrp(fd) == os.getpgrp(), os.getsid(0) == os.getpid()]).encode())"
    for ctty, streams in ((0, {"stdin": other}), (other, {"pass_fds": [other]})):
        process = zind.spawn(["python3", "-c", source], ProcAttr(setsid=True, setctty=True, ctty=ctty, foreground=True), **streams)
        assert process.wait(timeout=20) == 0
        assert os.read(main, 100) == b"[True, True]"
    os.close(main)
    os.close(other)


def test_noctty():
    source = """
import fcntl, os, termios, zind
os.setsid()
main, other = os.openpty()
fcntl.ioctl(other, termios.TIOCSCTTY, 0)
for attr in (None, zind.ProcAttr(noctty=True, ctty=0)):
    r = zind.spawn(["sh", "-c", "( : </dev/tty ) 2>/dev/null && echo has || echo none"], attr, stdin=other, stdout=zind.PIPE)
    print(r.communicate()[0].decode().strip())
"""
    assert outside(source).stdout.split() == ["has", "none"]


def test_clocks():
    script = "cut -d' ' -f2- /proc/self/timens_offsets | tr -s ' ' '\\n'"
    assert out(script, root(monotonic=5, boottime=-2.5)).split() == ["5", "0", "-3", "500000000"]


def test_environment(monkeypatch):
    monkeypatch.setenv("KEPT", "1")
    monkeypatch.setenv("DROPPED", "2")
    assert "DROPPED=2" in out("/usr/bin/env").splitlines()
    names = {line.partition("=")[0] for line in out("/usr/bin/env", ProcAttr(clear_env=True, keep_env=["KEPT"]), env={"ADDED": "3"}).splitlines()}
    assert names - {"PWD", "SHLVL", "_"} == {"KEPT", "ADDED"}


def test_ptrace_stops_before_the_first_instruction(tmp_path):
    mark = tmp_path / "mark"
    process = zind.spawn(["touch", str(mark)], ProcAttr(ptrace=True))
    assert wait_until(lambda: kit.processes()[process.pid][0] in "Tt")
    assert not mark.exists()
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(timeout=10) == 0 and mark.exists()


def test_cgroup_fd():
    needs_root("making a control group")
    tops = [path for path in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup") if os.path.exists(f"{path}/cgroup.controllers")]
    if not tops:
        pytest.skip("needs a cgroup v2 hierarchy")
    group = pathlib.Path(tops[0], f"zind-procattr-{os.getpid()}")
    group.mkdir()
    try:
        with open(group / "cgroup.procs") as procs:
            fd = os.open(group, os.O_RDONLY)
            found = out("cat /proc/self/cgroup", ProcAttr(cgroup_fd=fd))
            os.close(fd)
            assert f"0::/{group.name}" in found.splitlines()
            assert procs.read() == ""
    finally:
        group.rmdir()


def test_the_hosts_pid_namespace_and_the_callers_death():
    source = "import sys, zind; p = zind.spawn(['sleep', '6262.5']); print(p.pid, flush=True); sys.stdin.read()"
    import subprocess
    import sys

    with subprocess.Popen([sys.executable, "-c", source], env=kit.child_env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        pid = int(owner.stdout.readline())
        assert kit.alive(pid)
        owner.kill()
        assert wait_until(lambda: not kit.alive(pid))
