"""Each kind of namespace: new, the host's, joined by path, pid and descriptor, pinned to a file; and the id maps."""

from __future__ import annotations

import os
import subprocess

import pytest

import kit
import zind
from kit import sh

LINK = "readlink /proc/self/ns/{}"


def own(kind: str) -> str:
    return os.readlink(f"/proc/self/ns/{kind}")


@pytest.mark.parametrize("kind", ["mnt", "pid", "net", "uts", "ipc", "cgroup"])
def test_new_by_default(kind):
    assert sh(LINK.format(kind)) != own(kind)


@pytest.mark.parametrize("kind", ["pid", "net", "uts", "ipc", "cgroup", "time"])
def test_the_hosts(kind):
    assert sh(LINK.format(kind), namespaces={kind: "host"}) == own(kind)


@pytest.mark.parametrize("kind", ["net", "uts", "ipc", "cgroup"])
@pytest.mark.parametrize("how", ["path", "pid", "fd"])
def test_joined(kind, how):
    kit.needs_root("joining a namespace of another user namespace")
    with zind.Popen(["sleep", "100"]) as first:
        path = f"/proc/{first.pid}/ns/{kind}"
        wanted = os.readlink(path)
        with open(path) as file:
            source = {"path": path, "pid": first.pid, "fd": file}[how]
            assert sh(LINK.format(kind), namespaces={kind: source}) == wanted
        first.kill()


def test_a_joined_pid_namespace_shows_its_processes():
    kit.needs_root("joining a namespace of another user namespace")
    with zind.Popen(["sleep", "100"]) as first:
        out = sh("cat /proc/1/comm /proc/2/comm", namespaces={"pid": first.pid}, init=False)
        assert out.split() == ["zind-init", "sleep"]
        first.kill()


def test_an_ordinary_user_joins_its_own_containers():
    kit.needs_user("root needs no user namespace for it")
    with zind.Popen(["sleep", "100"]) as first:
        kinds = {"user": first.pid, "net": first.pid, "uts": first.pid}
        wanted = [os.readlink(f"/proc/{first.pid}/ns/{kind}") for kind in kinds]
        script = "; ".join(LINK.format(kind) for kind in kinds)
        assert sh(script, namespaces=kinds).split() == wanted
        first.kill()


@pytest.mark.parametrize("kind", ["net", "uts", "ipc", "pid", "mnt", "user", "cgroup", "time"])
def test_pinned(kind, tmp_path):
    kit.needs_root("binding a namespace to a file")
    # A mount namespace can only be pinned where mounts do not propagate.
    zind.mount("none", tmp_path, "tmpfs")
    zind.mount(None, tmp_path, flags=zind.MS_PRIVATE)
    try:
        file = tmp_path / kind
        namespaces = {kind: "new"} if kind in ("user", "time") else {}
        inside = sh(LINK.format(kind), pin={kind: file}, namespaces=namespaces)
        try:
            assert f"{kind}:[{file.stat().st_ino}]" == inside
            if kind in ("net", "uts", "ipc", "cgroup"):
                assert sh(LINK.format(kind), namespaces={kind: file}) == inside
        finally:
            zind.umount(file)
    finally:
        zind.umount(tmp_path)


def test_names_and_loopback():
    script = "hostname; cat /proc/sys/kernel/domainname; cat /sys/class/net/lo/flags; ls /sys/class/net"
    assert sh(script, hostname="box", domainname="example.org").split() == ["box", "example.org", "0x9", "lo"]
    assert sh("hostname; cat /etc/hostname").split() == ["zind", "zind"]
    assert "box" in sh("cat /etc/hosts", hostname="box")


def test_clocks():
    offsets = zind.TimeOffsets(monotonic=1e6, boottime=2e6)
    source = "import time; answer([time.clock_gettime(time.CLOCK_MONOTONIC), time.clock_gettime(time.CLOCK_BOOTTIME)])"
    import time

    before = time.clock_gettime(time.CLOCK_MONOTONIC), time.clock_gettime(time.CLOCK_BOOTTIME)
    monotonic, boottime = kit.probe(source, namespaces={"time": offsets})
    assert 1e6 <= monotonic - before[0] < 1e6 + 60
    assert 2e6 <= boottime - before[1] < 2e6 + 60


def maps(**options) -> list[list[int]]:
    return [[int(word) for word in line.split()] for line in sh("cat /proc/self/uid_map", **options).splitlines()]


def test_root_has_no_user_namespace_unless_asked():
    kit.needs_root("an ordinary user always has one")
    assert sh(LINK.format("user")) == own("user")
    assert sh(LINK.format("user"), namespaces={"user": "new"}) != own("user")
    assert maps(uid_map="auto")[0][2] == 65536
    assert maps(uid_map="auto")[0][1] >= 2**30


def test_single_and_auto_maps_of_a_user():
    kit.needs_user("root has no range of its own")
    assert maps() == [[0, os.geteuid(), 1]]
    assert maps(user="1000:1000") == [[1000, os.geteuid(), 1]]
    auto = maps(uid_map="auto")
    assert auto[0] == [0, os.geteuid(), 1] and auto[1][0] == 1 and auto[1][2] >= 65536
    assert sh("id -u; id -G", uid_map="auto", user="1000:1000", groups=[5, 100]).split() == ["1000", "1000", "5", "100"]


def test_explicit_maps():
    uid, gid = [zind.IdMap(0, os.geteuid(), 1)], [zind.IdMap(0, os.getegid(), 1)]
    assert maps(uid_map=uid, gid_map=gid) == [[0, os.geteuid(), 1]]


@pytest.mark.parametrize("wanted", ["allow", "deny"])
def test_setgroups(wanted):
    assert sh("cat /proc/self/setgroups", uid_map="auto", setgroups=wanted) == wanted


def test_setgroups_cannot_be_allowed_with_one_id():
    kit.needs_user("root may anyway")
    kit.refused(zind.SpecError, lambda: zind.run(["true"], uid_map="single", setgroups="allow"), field="setgroups")


def test_the_owner_of_a_user_namespace():
    kit.needs_root("becoming somebody else")
    with zind.Popen(
        ["sleep", "100"], namespaces={"user": "new"}, owner=(1234, 1234), uid_map=[(0, 1234, 1)], gid_map=[(0, 1234, 1)]
    ) as process:
        with open(f"/proc/{process.pid}/ns/user") as file:
            import array
            import fcntl

            NS_GET_OWNER_UID = 0xB704
            uid = array.array("I", [0])
            fcntl.ioctl(file, NS_GET_OWNER_UID, uid)
        assert uid[0] == 1234
        process.kill()


def test_a_container_on_the_hosts_network_sees_its_interfaces():
    names = sorted(os.listdir("/sys/class/net"))
    assert sorted(line.split(":")[0].strip() for line in sh("tail -n +3 /proc/net/dev", network="host").splitlines()) == sorted(
        name for name in names if os.path.isdir(f"/sys/class/net/{name}")
    )
    assert subprocess.check_output(["hostname"], text=True).strip() == sh("hostname", namespaces={"uts": "host"})
