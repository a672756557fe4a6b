"""``isolation`` compared with what a probe finds from inside, for fifty sets of options that chance has chosen."""

from __future__ import annotations

import json
import os
import pathlib
import random
import socket

import pytest

import kit
import zind
from kit import STATUS

SETS = 50
SEED = 7

PROBE = (
    "import json, os, sys\n"
    + STATUS
    + """
import resource, socket, stat
s, init = status(), status(1)
rows = [line.split() for line in open("/proc/self/mountinfo")]
flags, types, shared = {}, {}, {}
for row in rows:
    dash = row.index("-")
    flags[row[4]], types[row[4]], shared[row[4]] = row[5].split(","), row[dash + 1], row[6:dash]
def closed(path):
    try:
        return not (os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(1))
    except OSError:
        return True
def refused(path):
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        os.unlink(path)
        return False
    except OSError:
        return True
asked = json.loads(sys.argv[1])
print(json.dumps(dict(
    namespaces={k: os.stat(f"/proc/self/ns/{k}").st_ino for k in asked["kinds"]},
    caps={name: int(s[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")},
    no_new_privileges=s["NoNewPrivs"], seccomp=s["Seccomp"], filters=s.get("Seccomp_filters"),
    uid=s["Uid"].split(), gid=s["Gid"].split(), groups=[int(n) for n in s["Groups"].split()],
    root=types["/"], read_only=bool(os.statvfs("/").f_flag & os.ST_RDONLY), root_refused=refused("/probe-was-here"),
    interfaces=sorted(n for _, n in socket.if_nameindex()), init=init["Name"].strip(), session=os.getsid(0) == os.getpid(),
    fds=sorted(int(f) for f in os.listdir("/proc/self/fd")), umask=os.umask(0), nice=os.nice(0), hostname=socket.gethostname(),
    limits={name: resource.getrlimit(getattr(resource, "RLIMIT_" + name.upper())) for name in asked["rlimits"]},
    maps={name: [[int(n) for n in line.split()] for line in open(f"/proc/self/{name}")] for name in ("uid_map", "gid_map")},
    masked=sorted(p for p in flags if p.startswith(("/proc/", "/sys/")) and types[p] == "tmpfs" and "ro" in flags[p]),
    told_masked={path: closed(path) for path in asked["masked"]},
    protected=sorted(p for p in flags if p.startswith("/proc/") and types[p] == "proc" and "ro" in flags[p]),
    devices=sorted(f"/dev/{f}" for f in os.listdir("/dev") if stat.S_ISCHR(os.lstat(f"/dev/{f}").st_mode)),
    mounts={path: [flags[path], types[path], shared[path]] for path in flags}, cgroup=open("/proc/self/cgroup").read().splitlines(),
    oom=int(open("/proc/self/oom_score_adj").read()), session_of=os.getsid(0),
)))
"""
)

CAPABILITIES = "CHOWN DAC_OVERRIDE FOWNER KILL SETGID SETUID NET_BIND_SERVICE NET_RAW SYS_CHROOT SYS_NICE SYS_PTRACE AUDIT_WRITE".split()
BITS = dict(zip(CAPABILITIES, (0, 1, 3, 5, 6, 7, 10, 13, 18, 23, 19, 29)))


#: Parts that are read back from inside, here or by the tests of what they name.
KNOWN = """capabilities devices die_with_owner init keyring masked_paths readonly_paths network no_new_privileges overlay pids pivot_root
rootfs seccomp rlimits read_only cgroup landlock""".split()


def some(chance: random.Random, of: list) -> list:
    return chance.sample(of, chance.randint(0, min(3, len(of))))


def options_of(number: int, source: pathlib.Path, root: pathlib.Path) -> dict:
    """A set of options that belong together. Every refusal of one of them is a failure: what cannot be is not chosen."""
    chance = random.Random(SEED * 1000 + number)
    maybe = lambda part, name, value: options.__setitem__(name, value) if chance.random() < part else None
    options: dict = {}
    namespaces = {kind: "host" for kind in some(chance, ["uts", "ipc", "cgroup", "pid"])}
    if chance.random() < 0.3:
        namespaces["time"] = "new"
    maps = chance.choice([None, None, "single", "auto", "user"])
    if maps == "user":
        namespaces["user"] = "new"
    elif maps:
        options["uid_map"] = options["gid_map"] = maps
    if namespaces:
        options["namespaces"] = namespaces
    # An ordinary user has one id, unless it has the ranges.
    many = maps == "auto" or (kit.ROOT and maps is None)
    if many and chance.random() < 0.5:
        options["user"] = chance.choice(["0", "7", "1000:1001", "12:0"])
        if chance.random() < 0.5:
            options["groups"] = sorted(chance.sample(range(1, 200), 3))
    if chance.random() < 0.15:
        options["privileged"] = True
    elif chance.random() < 0.5:
        options["capabilities"] = sorted(some(chance, CAPABILITIES))
        if options["capabilities"] and chance.random() < 0.3:
            options["ambient_caps"] = options["capabilities"][:1]
    maybe(0.25, "seccomp", None)
    maybe(0.25, "no_new_privileges", False)
    maybe(0.25, "network", "host")
    maybe(0.25, "init", False)
    maybe(0.2, "read_only", True)
    maybe(0.2, "keyring", False)
    maybe(0.2, "die_with_owner", False)
    maybe(0.3, "umask", chance.choice([0, 0o27, 0o77]))
    maybe(0.3, "nice", chance.randint(0, 5))
    maybe(0.2, "oom_score_adj", chance.choice([100, 500]))
    if "uts" not in namespaces:
        maybe(0.3, "hostname", "chosen")
    maybe(0.3, "rlimits", {name: chance.randint(50, 99) for name in chance.sample(["nofile", "core", "stack"][:2], chance.randint(1, 2))})
    maybe(0.3, "devices", ["/dev/zero:/dev/z"])
    mounts = []
    if chance.random() < 0.4:
        mounts.append(zind.Mount.tmpfs("/extra", size="1m"))
    if chance.random() < 0.4:
        mounts.append(zind.Mount.bind(source, "/data", read_only=chance.random() < 0.5))
    if chance.random() < 0.2:
        mounts.append(zind.Mount.file("/one", b"x", read_only=True))
    if chance.random() < 0.3:
        options["rootfs"] = root
        options["overlay"] = chance.random() < 0.5 or not kit.ROOT
        if not options["overlay"]:
            options.pop("read_only", None)
        mounts.insert(0, zind.Mount.bind("/usr", "/usr", read_only=True))
    if mounts:
        options["mounts"] = mounts
    if kit.ROOT and chance.random() < 0.3:
        options["resources"] = zind.Resources(pids=chance.randint(20, 60))
    return options


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    source, root = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("host") / "root"
    for name in ("usr", "proc", "sys", "dev", "etc", "data", "extra"):
        (root / name).mkdir(parents=True)
    (root / "one").touch()
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    return source, root


@pytest.mark.parametrize("number", range(SETS))
def test_the_report_is_what_is_found(number, places):
    options = options_of(number, *places)
    asked = {"kinds": kit.KINDS, "rlimits": list(options.get("rlimits", {})), "masked": zind.run(["true"]).isolation.masked_paths}
    read_end, write_end = os.pipe()
    passed = [write_end] if number % 2 else []
    try:
        r = zind.run(
            ["/usr/bin/python3", "-S", "-c", PROBE, json.dumps(asked)],
            capture_output=True, text=True, pass_fds=passed, stdin=zind.DEVNULL, **options,
        )
    finally:
        os.close(read_end)
        os.close(write_end)
    assert r.returncode == 0, (options, r.stderr)
    found, told, ours = json.loads(r.stdout), r.isolation, kit.ns_of()
    new_pids = told.namespaces["pid"] == "new"

    for kind, how in told.namespaces.items():
        assert (found["namespaces"][kind] == ours[kind]) is (how == "host"), kind
        assert (kind in told.in_force) is (how != "host"), kind
        given = options.get("namespaces", {}).get(kind)
        assert given is None or how == given, kind
    # Capabilities, of all five sets.
    if told.capabilities is not None:
        wanted = sum(1 << BITS[name.removeprefix("CAP_")] for name in told.capabilities) if set(told.capabilities) <= {*BITS, *("CAP_" + name for name in BITS)} else None
        if wanted is not None:
            assert found["caps"]["CapBnd"] == wanted
            assert found["caps"]["CapPrm"] == found["caps"]["CapEff"] or found["uid"][1] != "0"
            assert found["caps"]["CapPrm"] & ~wanted == found["caps"]["CapInh"] & ~wanted == found["caps"]["CapAmb"] & ~found["caps"]["CapPrm"] == 0
            assert wanted or not any(found["caps"].values())
        else:
            assert found["caps"]["CapBnd"].bit_count() == len(told.capabilities)
    assert found["no_new_privileges"] == str(int(told.no_new_privileges))
    assert ("no_new_privileges" in told.in_force) is told.no_new_privileges
    assert found["seccomp"] == {"default": "2", "none": "0"}[told.seccomp]
    assert ("seccomp" in told.in_force) is (told.seccomp == "default")
    assert told.seccomp == ("none" if options.get("privileged") or ("seccomp" in options and options["seccomp"] is None) else "default")
    # Who it is.
    assert found["uid"] == [str(told.user["uid"])] * 4 and found["gid"] == [str(told.user["gid"])] * 4
    if told.keeps_groups:
        # Those of the caller, as the map shows them.
        lines = told.gid_map or [{"container": 0, "host": 0, "size": 1 << 32}]
        seen = {gid - line["host"] + line["container"] for gid in os.getgroups() for line in lines if 0 <= gid - line["host"] < line["size"]}
        assert set(found["groups"]) <= {*seen, 65534}
    else:
        assert found["groups"] == options.get("groups", [])
    for name in ("uid_map", "gid_map"):
        lines = [[line["container"], line["host"], line["size"]] for line in told[name]]
        assert lines == (found["maps"][name] if told.namespaces["user"] == "new" else [])
    # The root and what is mounted.
    assert found["read_only"] is told.read_only and (found["root_refused"] or not told.read_only)
    assert ("read_only" in told.in_force) is told.read_only
    assert (told.overlay != "none") is (found["root"] == "overlay") or told.rootfs == "host"
    assert told.rootfs == str(options.get("rootfs", "host"))
    assert found["masked"] == sorted(told.masked_paths) and all(found["told_masked"][path] for path in told.masked_paths)
    assert ("masked_paths" in told.in_force) is bool(told.masked_paths)
    if new_pids:
        assert found["protected"] == sorted(told.readonly_paths)
    assert set(told.readonly_paths) <= set(found["protected"])
    assert found["devices"] == sorted(told.devices)
    for mount in told.mounts:
        flags, kind, shared = found["mounts"][mount["target"]]
        assert mount["type"] in ("bind", "file", kind), (mount, kind)
        assert ("ro" in flags) is mount["read_only"] is ("ro" in mount["attributes"]), mount
        for name in ("nosuid", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow"):
            assert (name in flags) is (name in mount["attributes"]), (mount, flags)
        assert (mount["propagation"], shared) == ("private", []), (mount, shared)
    assert [mount["target"] for mount in told.mounts] == [str(mount.target) for mount in options.get("mounts", [])]
    # The rest.
    host_interfaces = sorted(name for _, name in socket.if_nameindex())
    assert found["interfaces"] == (host_interfaces if told.network == "host" else ["lo"])
    assert told.network == options.get("network", "none")
    assert told.init is (found["init"] == "zind-init" and new_pids)
    assert told.init is (options.get("init", True) and new_pids)
    assert told.pass_fds == passed
    listing = min(set(range(3, 100)) - set(passed))
    assert found["fds"] == sorted({0, 1, 2, listing, *passed})
    assert sorted(told.rlimits) == sorted(options.get("rlimits", {}))
    assert all(found["limits"][name] == [value, value] for name, value in options.get("rlimits", {}).items())
    assert ("keyring" in told.in_force) is told.keyring is options.get("keyring", True)
    assert ("die_with_owner" in told.in_force) is told.die_with_owner is options.get("die_with_owner", True)
    assert found["umask"] == options.get("umask", 0o022) and found["session"]
    for name, key in (("oom_score_adj", "oom"), ("hostname", "hostname")):
        assert name not in options or found[key] == options[name], name
    assert bool(told.cgroup) is ("resources" in options) and (told.limits == ["pids"]) is ("resources" in options)
    if "resources" in options and told.namespaces["cgroup"] == "new":
        # The group is gone by now; from inside it was the top.
        assert any(line.endswith(":/") for line in found["cgroup"]), found["cgroup"]
    elif "resources" in options:
        # Of every hierarchy that the report has a directory in.
        names = {os.path.basename(path) for path in told.cgroup}
        assert sum(os.path.basename(line) in names for line in found["cgroup"]) == len(told.cgroup), (told.cgroup, found["cgroup"])
    assert [one["path"] for one in told.extra_devices] == [device.partition(":")[2] for device in options.get("devices", [])]
    assert "nobody" not in told.in_force and told.root_change == "pivot_root" and told.cgroup_refused == ""
    assert set(told.in_force) <= {*KNOWN, *told.namespaces}, told.in_force
    for part in told.in_force:
        assert part not in ("user", "mnt") or told.namespaces[part] == "new"


def test_the_sets_are_not_all_alike(places):
    """Chance has chosen each option, and its absence."""
    chosen = [options_of(number, *places) for number in range(SETS)]
    names = {name for options in chosen for name in options}
    wanted = """namespaces uid_map user groups privileged capabilities ambient_caps seccomp no_new_privileges network init read_only keyring
        die_with_owner umask nice oom_score_adj hostname rlimits mounts rootfs overlay devices""".split()
    assert set(wanted) - ({"groups"} if not kit.ROOT else set()) <= names | {"overlay"}
    for name in wanted:
        assert sum(name in options for options in chosen) < SETS, name
    assert len({repr(sorted(options.items(), key=str)) for options in chosen}) > SETS * 0.9
