"""``isolation`` says what a probe finds from inside, whatever the options."""

from __future__ import annotations

import json
import os
import socket

import pytest

import kit
import zind
from kit import STATUS

PROBE = (
    "import json, os, sys\n"
    + STATUS
    + """
import resource, socket, stat
s, init = status(), status(1)
rows = [line.split() for line in open("/proc/self/mountinfo")]
flags = {row[4]: row[5].split(",") for row in rows}
types = {row[4]: row[row.index("-") + 1] for row in rows}
writable = {path: os.access(path, os.W_OK) for path in ("/", "/usr")}
frozen = [path for path in ("/", "/usr") if os.statvfs(path).f_flag & os.ST_RDONLY]
print(json.dumps(dict(
    namespaces={k: os.stat(f"/proc/self/ns/{k}").st_ino for k in sys.argv[1].split(",")},
    capabilities=int(s["CapEff"], 16) | int(s["CapPrm"], 16) | int(s["CapBnd"], 16),
    no_new_privileges=s["NoNewPrivs"], seccomp=s["Seccomp"], root=types["/"], frozen=frozen,
    interfaces=[n for _, n in socket.if_nameindex()], user=[os.getuid(), os.getgid()], groups=os.getgroups(),
    init=init["Name"], pid=os.getpid(), fds=sorted(int(f) for f in os.listdir("/proc/self/fd")),
    limits=resource.getrlimit(resource.RLIMIT_NOFILE),
    uid_map=[[int(n) for n in line.split()] for line in open("/proc/self/uid_map")],
    gid_map=[[int(n) for n in line.split()] for line in open("/proc/self/gid_map")],
    masked=[p for p in flags if p.startswith(("/proc/", "/sys/")) and types[p] == "tmpfs" and "ro" in flags[p]],
    protected=[p for p in flags if p.startswith("/proc/") and types[p] == "proc" and "ro" in flags[p]],
    devices=sorted(f"/dev/{f}" for f in os.listdir("/dev") if stat.S_ISCHR(os.lstat(f"/dev/{f}").st_mode)),
    mounts=list(flags),
)))
"""
)


@pytest.fixture
def host_root(tmp_path):
    """A root directory with this machine's programs in it, so that Python is there."""
    root = tmp_path / "root"
    for name in ("usr", "proc", "sys", "dev", "etc"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    return root


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"network": "host"},
        {"read_only": True},
        {"init": False},
        {"seccomp": None},
        {"no_new_privileges": False},
        {"privileged": True},
        {"capabilities": ["CHOWN", "KILL"]},
        {"capabilities": ["CHOWN"], "user": "0:0", "ambient_caps": ["CHOWN"]},
        {"namespaces": {"uts": "host", "ipc": "host", "cgroup": "host"}},
        {"namespaces": {"user": "new", "time": "new"}},
        {"namespaces": {"pid": "host"}},
        {"uid_map": "single"},
        {"uid_map": "single", "user": "1000:1000"},
        {"uid_map": "auto", "user": "7:8", "groups": [9]},
        {"rlimits": {"nofile": 99}},
        {"mounts": [zind.Mount.tmpfs("/extra")]},
        {"rootfs": "path"},
        {"rootfs": "path", "overlay": False},
        {"rootfs": "path", "read_only": True},
    ],
    ids=str,
)
def test_the_report_is_true(options, host_root):
    options = dict(options)
    if "rootfs" in options:
        options |= {"rootfs": host_root, "mounts": [zind.Mount.bind("/usr", "/usr", read_only=True)]}
    read_end, write_end = os.pipe()
    try:
        r = zind.run(
            ["/usr/bin/python3", "-c", PROBE, ",".join(kit.KINDS)],
            capture_output=True, text=True, pass_fds=[write_end], stdin=zind.DEVNULL, **options,
        )
    finally:
        os.close(read_end)
        os.close(write_end)
    assert r.returncode == 0, r.stderr
    found, told, ours = json.loads(r.stdout), r.isolation, kit.ns_of()

    for kind, how in told.namespaces.items():
        assert (found["namespaces"][kind] == ours[kind]) is (how == "host"), kind
        assert (kind in told.in_force) is (how != "host"), kind
    if told.capabilities is not None:
        assert found["capabilities"].bit_count() == len(told.capabilities)
    assert found["no_new_privileges"] == str(int(told.no_new_privileges))
    assert found["seccomp"] == {"default": "2", "none": "0"}[told.seccomp]
    assert ("/" in found["frozen"]) is told.read_only
    host_interfaces = sorted(name for _, name in socket.if_nameindex())
    assert sorted(found["interfaces"]) == (host_interfaces if told.network == "host" else ["lo"])
    assert told.network == options.get("network", "none")
    assert found["user"] == [told.user["uid"], told.user["gid"]]
    assert told.keeps_groups is (not kit.ROOT and options.get("uid_map") != "auto") or options.get("uid_map") == "single"
    if not told.keeps_groups:
        assert found["groups"] == options.get("groups", [])
    assert told.init is (found["init"] == "zind-init" and told.namespaces["pid"] == "new")
    assert told.pass_fds == [write_end]
    listing = min(set(range(3, 100)) - {write_end})
    assert found["fds"] == sorted({0, 1, 2, write_end, listing})
    assert (found["limits"] == [99, 99]) is ("nofile" in told.rlimits)
    for name in ("uid_map", "gid_map"):
        lines = [[line["container"], line["host"], line["size"]] for line in told[name]]
        assert lines == (found[name] if told.namespaces["user"] == "new" else [])
    assert sorted(found["masked"]) == sorted(told.masked_paths)
    # The host's /proc, where it is bound for want of a pid namespace, may be protected further.
    assert set(told.readonly_paths) <= set(found["protected"])
    if told.namespaces["pid"] == "new":
        assert set(found["protected"]) == set(told.readonly_paths)
    assert found["devices"] == sorted(told.devices)
    assert {mount["target"] for mount in told.mounts} <= set(found["mounts"])
    assert told.root_change == "pivot_root" and told.die_with_owner is True
    assert told.rootfs == ("host" if "rootfs" not in options else str(host_root))
    assert (told.overlay != "none") is (found["root"] == "overlay") or told.rootfs == "host"
    assert zind.run(["true"], require=told.in_force, **options).isolation.in_force == told.in_force


def test_a_running_container_reports_the_same():
    with zind.Popen(["sleep", "100"]) as p:
        assert p.isolation == zind.run(["true"]).isolation
        assert p.isolation.seccomp == p.isolation["seccomp"] == "default"
        with pytest.raises(AttributeError):
            _ = p.isolation.nonsense
        p.kill()


@pytest.mark.parametrize(
    ("part", "options"),
    [
        ("seccomp", {"seccomp": None}),
        ("net", {"network": "host"}),
        ("pid", {"namespaces": {"pid": "host"}}),
        ("keyring", {"keyring": False}),
        ("rlimits", {}),
        ("time", {}),
        ("die_with_owner", {"die_with_owner": False}),
        ("landlock", {}),
        ("masked_paths", {"privileged": True}),
    ],
)
def test_without_a_required_part_nothing_runs(part, options, tmp_path):
    with pytest.raises(zind.UnsupportedError) as info:
        zind.run(["sh", "-c", ": >/data/ran"], mounts=[zind.Mount.bind(tmp_path, "/data")], require={part}, **options)
    assert info.value.feature == part and info.value.needs and part in str(info.value)
    assert not (tmp_path / "ran").exists(), "the program ran"


def test_an_ordinary_user_cannot_go_without_a_user_namespace():
    if kit.ROOT:
        assert zind.run(["true"], namespaces={"user": "host"}).isolation.namespaces["user"] == "host"
    else:
        with pytest.raises(zind.UnsupportedError):
            zind.run(["true"], namespaces={"user": "host"})


LIMITS = """
import resource
names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
answer({name[7:].lower(): resource.getrlimit(getattr(resource, name)) for name in names})
"""


@pytest.mark.parametrize(
    "options",
    [{}, {"require": {"rootfs"}}, {"rlimits": {"nofile": (64, 128), "core": 0}}, {"uid_map": "single"}, {"uid_map": "single", "rlimits": {"nproc": 99}}],
    ids=str,
)
def test_limits_that_nobody_asked_for_are_told_too(options):
    found = kit.probe(LIMITS, **options)
    told = zind.run(["true"], stdin=zind.DEVNULL, **options).isolation
    values = {name: [limit["soft"], limit["hard"]] for name, limit in told.rlimit_values.items()}
    unlimited = {name: [None if value == -1 else value for value in pair] for name, pair in found.items()}
    assert values == {name: unlimited[name] for name in values}
    asked = set(options.get("rlimits", {}))
    assert {name for name, limit in told.rlimit_values.items() if not limit["usual"]} == asked == set(told.rlimits)
    in_user_namespace = told.namespaces["user"] == "new"
    assert set(values) == asked | {"core"} | ({"nproc"} if in_user_namespace else set())
    assert "core" in asked or values["core"] == [1, 1]
    assert ("rlimits" in told.in_force) is bool(asked)


def test_a_container_without_limits_of_zind_s_tells_none():
    assert zind.run(["true"], stdin=zind.DEVNULL, privileged=True).isolation.rlimit_values == {}


def test_a_further_program_has_its_own_limits_told():
    with zind.Popen(["cat"], stdin=zind.PIPE, stdout=zind.DEVNULL) as process:
        source = LIMITS.replace("answer(", "print(").replace("})", "}['nofile'])").replace("print({", "print({", 1)
        result = process.exec(["/usr/bin/python3", "-c", source], rlimits={"nofile": 77}, capture_output=True, text=True, stdin=zind.DEVNULL)
        process.communicate(b"")
    assert result.stdout == "(77, 77)\n", result.stderr
    told = result.isolation.rlimit_values
    assert told["nofile"] == {"soft": 77, "hard": 77, "usual": False} and told["core"] == {"soft": 1, "hard": 1, "usual": True}
