"""Joining what is there already, by every way of naming it, as root and as an ordinary user; and what stays apart."""

from __future__ import annotations

import errno
import os
import pathlib
import pwd
import socket

import pytest

import kit
import zind
from kit import GID, KINDS, NS, ROOT, UID, needs_root, needs_user, ns_of, probe, sh


@pytest.fixture
def holder():
    """The first process of a container whose namespaces others join."""
    namespaces = {"time": zind.TimeOffsets(1000.0, 2000.0)}
    p = zind.Popen(["sh", "-c", "echo ready; exec sleep 1000"], namespaces=namespaces, hostname="holder", stdout=zind.PIPE)
    assert p.stdout.readline() == b"ready\n"
    yield p.pid
    p.kill()
    p.wait()
    p.stdout.close()


def along(*kinds: str) -> list[str]:
    """What belongs to another user namespace is joined along with it."""
    return [*kinds] if ROOT else ["user", *kinds]


@pytest.mark.parametrize("kind", ["net", "uts", "ipc", "cgroup", "time", "pid"])
@pytest.mark.parametrize("by", ["pid", "path", "fd"])
def test_each_kind_by_each_name(holder, kind, by):
    files = []

    def source(name: str):
        path = f"/proc/{holder}/ns/{name}"
        if by == "fd":
            files.append(open(path))
            return files[-1]
        return holder if by == "pid" else path

    try:
        namespaces = {name: source(name) for name in along(kind)}
        inside = probe(NS, namespaces=namespaces, init=kind != "pid")
    finally:
        for file in files:
            file.close()
    theirs, ours = ns_of(holder), ns_of()
    shared = {name for name in KINDS if inside[name] == theirs[name] != ours[name]}
    assert shared == set(along(kind))


def test_all_at_once(holder):
    kinds = along("pid", "net", "uts", "ipc", "cgroup", "time")
    namespaces = dict.fromkeys(kinds, holder)
    inside, theirs = probe(NS, namespaces=namespaces, init=False), ns_of(holder)
    assert {kind: inside[kind] for kind in kinds} == {kind: theirs[kind] for kind in kinds}
    isolation = zind.run(["true"], namespaces=namespaces, init=False).isolation
    assert all(isolation.namespaces[kind] == "joined" for kind in kinds) and isolation.network == "joined"


def test_the_processes_of_a_joined_pid_namespace_are_seen_and_no_others(holder):
    source = "answer(sorted(open(f'/proc/{p}/comm').read().strip() for p in os.listdir('/proc') if p.isdigit()))"
    assert probe(source, namespaces=dict.fromkeys(along("pid"), holder), init=False) == ["python3", "sleep", "zind-init"]


def test_the_host_goes_on_when_the_guest_ends(holder):
    r = zind.run(["sh", "-c", "exit 3"], namespaces=dict.fromkeys(along("net", "pid"), holder), init=False)
    assert r.returncode == 3 and kit.alive(holder)


def test_a_guest_with_a_name_of_a_file_object_leaves_it_open(holder):
    files = {kind: open(f"/proc/{holder}/ns/{kind}") for kind in along("uts")}
    assert sh("hostname", namespaces=files) == "holder"
    for file in files.values():
        os.fstat(file.fileno())
        file.close()


# --- apart -----------------------------------------------------------------------------------------------------------


def test_two_containers_share_none():
    wanted = {"mnt", "pid", "net", "uts", "ipc", "cgroup"} | (set() if ROOT else {"user"})
    p, q = zind.Popen(["sleep", "100"]), zind.Popen(["sleep", "100"])
    a, b = ns_of(p.pid), ns_of(q.pid)
    for one in (p, q):
        one.kill()
        one.wait()
    assert {kind for kind in KINDS if a[kind] != b[kind]} == wanted


def reach(connect: str) -> str:
    return f"import socket\ntry: {connect}; answer('reached')\nexcept OSError as error: answer(error.errno)"


def test_ports_of_the_host_are_out_of_reach():
    with socket.create_server(("127.0.0.1", 0)) as server:
        source = reach(f"socket.create_connection({server.getsockname()}, timeout=5)")
        assert probe(source) == errno.ECONNREFUSED
        assert probe(source, network="host") == "reached"


def test_abstract_sockets_of_the_host_are_out_of_reach():
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0zind-abstract-{os.getpid()}")
        server.listen()
        source = reach(f"socket.socket(socket.AF_UNIX).connect({server.getsockname().decode()!r})")
        assert probe(source) == errno.ECONNREFUSED
        # With the host's network too, where the kernel can keep them apart.
        scoped = kit.landlock_abi() >= 6
        assert probe(source, network="host") == (errno.EPERM if scoped else "reached")
        assert probe(source, network="host", landlock=None) == "reached"


def test_loopback_takes_connections_and_nothing_else_is_reached():
    source = """
import socket
for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    server = socket.create_server((host, 0), family=family)
    socket.create_connection(server.getsockname()[:2], timeout=5)
try: socket.create_connection(("192.0.2.1", 80), timeout=5); answer("reached")
except OSError as error: answer(error.errno)
"""
    assert probe(source) == errno.ENETUNREACH


def test_system_v_ipc_is_apart():
    source = "import ctypes; c = ctypes.CDLL(None); answer([c.shmget(4242, 100, 0), c.shmget(4242, 100, 0o1600)])"
    for _ in range(2):
        missing, made = probe(source)
        assert missing == -1 and made >= 0


def test_the_cgroup_namespace_hides_the_path():
    assert {line.split(":", 2)[2] for line in sh("cat /proc/self/cgroup").splitlines()} == {"/"}


def test_negative_and_fractional_clock_offsets():
    script = "cut -d' ' -f2- /proc/self/timens_offsets | tr -s ' ' '\\n'"
    assert sh(script, namespaces={"time": zind.TimeOffsets(-1.5, 3)}).split() == ["-2", "500000000", "3", "0"]


# --- ranges of an ordinary user --------------------------------------------------------------------------------------


def subordinate(path: str) -> tuple[int, int]:
    names = (pwd.getpwuid(UID).pw_name, str(UID))
    lines = (line.split(":") for line in pathlib.Path(path).read_text().split())
    return next((int(first), int(size)) for who, first, size in lines if who in names)


MAPS = "answer([[[int(n) for n in line.split()] for line in open(f'/proc/self/{name}')] for name in ('uid_map', 'gid_map')])"


def test_auto_is_the_range_set_aside():
    needs_user("/etc/subuid has no line for root")
    uid, gid = probe(MAPS, uid_map="auto")
    assert uid == [[0, UID, 1], [1, *subordinate("/etc/subuid")]]
    assert gid == [[0, GID, 1], [1, *subordinate("/etc/subgid")]]
    isolation = zind.run(["true"], uid_map="auto").isolation
    assert isolation.keeps_groups is False
    assert [list(line.values()) for line in isolation.uid_map] == uid


def test_explicit_maps_of_several_lines():
    first, gfirst = (200_000, 200_000) if ROOT else (subordinate("/etc/subuid")[0], subordinate("/etc/subgid")[0])
    uid_map, gid_map = [zind.IdMap(0, UID, 1), zind.IdMap(100, first, 50)], [(0, GID, 1), (100, gfirst, 50)]
    assert probe(MAPS, uid_map=uid_map, gid_map=gid_map) == [[list(line) for line in uid_map], [list(line) for line in gid_map]]
    assert sh("id -u; id -g", uid_map=uid_map, gid_map=gid_map, user="120:121").split() == ["120", "121"]


def test_a_map_without_root():
    assert sh("id -u; id -g", uid_map=[(1000, UID, 1)], gid_map=[(1001, GID, 1)], user="1000:1001").split() == ["1000", "1001"]


def test_a_range_beyond_the_users_is_refused():
    needs_user("root may map everything")
    first, size = subordinate("/etc/subuid")
    foreign = [(0, UID, 1), (1, first + size, 10)]
    e = kit.refused(PermissionError, lambda: zind.run(["true"], uid_map=foreign, gid_map=[(0, GID, 1)]), step="MapHelper")
    assert "newuidmap" in str(e)


def test_root_in_a_user_namespace_has_no_power_over_roots_files(tmp_path):
    needs_root("files of root's")
    (tmp_path / "f").write_text("x")
    (tmp_path / "f").chmod(0o600)
    tmp_path.chmod(0o755)
    mount = zind.Mount.bind(tmp_path, "/data")
    out = sh("cat /data/f 2>&1; stat -c %u /data/f", mounts=[mount], namespaces={"user": "new"}, capabilities=["DAC_OVERRIDE"])
    assert "Permission denied" in out and out.endswith("65534")


def test_files_belong_to_the_range(tmp_path):
    tmp_path.chmod(0o777)
    options, owner = ({}, 33) if ROOT else ({"uid_map": "auto"}, subordinate("/etc/subuid")[0] + 32)
    sh("touch /data/f", mounts=[zind.Mount.bind(tmp_path, "/data")], user="33:33", **options)
    assert (tmp_path / "f").stat().st_uid == owner


def test_a_single_id_needs_no_helper(tmp_path):
    """newuidmap is not even looked for."""
    options = {"uid_map": "single"}
    source = f"import os, zind; os.environ['PATH'] = {str(tmp_path)!r}; print(zind.run(['id', '-u'], stdout=-1, **{options!r}).stdout.decode())"
    assert kit.outside(source).stdout.split() == ["0"]
