"""What a program finds of its cell under the default policy: a loosening shows here, and docs/comparison.md has it beside others."""

from __future__ import annotations

import json
import os
import pathlib

import kit
import zind

SOURCE = (kit.TESTS / "posture.py").read_text()

SOCKETS = """INET STREAM,INET DGRAM,INET6 STREAM,INET6 DGRAM,NETLINK DGRAM,NETLINK RAW,ROUTE DGRAM,ROUTE RAW,UNIX STREAM,UNIX DGRAM,UNIX RAW,
UNIX SEQPACKET""".replace("\n", "").split(",")

#: Of what tells of the machine: without addresses or owners to who has no capabilities, or as /proc/meminfo tells it anyway.
TOLD = """/proc/buddyinfo /proc/config.gz /proc/modules /proc/zoneinfo /proc/iomem /proc/ioports /proc/key-users /proc/mtrr /proc/partitions /proc/schedstat /proc/softirqs /sys/kernel/notes
/sys/kernel/vmcoreinfo /sys/class/thermal""".split()


def posture(**options):
    result = zind.run(["/usr/bin/python3", "-c", SOURCE], capture_output=True, text=True, stdin=zind.DEVNULL, timeout=60, **options)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_the_default_is_as_it_is_documented():
    found = posture()
    calls = found.pop("calls")
    assert {name: said for name, said in calls.items() if said != "EPERM"} == {"clone3": "ENOSYS"}
    assert set(found.pop("readable")) <= set(TOLD)
    if kit.ROOT:
        assert found.pop("groups") == []
    else:
        # A map of one id forbids to drop them.
        found.pop("groups")
    limits = found.pop("limits")
    # One byte: no file is that short, and no program of the host's is started for it either.
    assert found.pop("core") <= 1 and limits["CORE"][1] in (0, 1)
    assert found.pop("suid mounts") is not None
    assert found == {
        "capabilities": dict.fromkeys(["effective", "permitted", "inheritable", "bounding", "ambient"], 0),
        "no_new_privileges": True,
        "filter": True,
        "uid": 0,
        "session": "own",
        "descriptors": [],
        "environment": ["HOME", "LANG", "PATH"],
        "umask": 0o022,
        "processes": 2,
        "interfaces": ["lo"],
        "devices": ["full", "mqueue", "null", "pts", "random", "shm", "tty", "urandom", "zero"],
        "device mounts": found["device mounts"],
        "writable": [],
        "sockets": SOCKETS,
        "keyring": "closed",
        "oom_score_adj": int(pathlib.Path("/proc/self/oom_score_adj").read_text()),
    }
    # Where devices may be opened, each is one of those: nobody makes others.
    assert {path for path in found["device mounts"] if not path.startswith("/dev")} == set()


def test_it_finds_what_is_loosened():
    found = posture(seccomp=None, network="host", no_new_privileges=False, env={"TOKEN": "x"}, rlimits={"core": 4096})
    assert found["calls"]["add_key"] != "EPERM" and found["calls"]["unshare NEWUSER"] == "ok"
    assert not found["filter"] and not found["no_new_privileges"] and "TOKEN" in found["environment"] and found["core"] == 4096
    assert set(found["sockets"]) > set(SOCKETS)


def test_no_program_of_the_hosts_takes_a_core():
    source = "import os, resource, sys\nprint(*resource.getrlimit(resource.RLIMIT_CORE))\nsys.stdout.flush()\nos.abort()"
    result = zind.run(["/usr/bin/python3", "-c", source], capture_output=True, text=True, cwd="/tmp", timeout=60)
    assert (result.signal if hasattr(result, "signal") else -result.returncode) == 6
    soft, hard = map(int, result.stdout.split())
    assert soft == hard <= 1


def test_a_fork_bomb_in_a_user_namespace_ends_at_a_limit():
    """RLIMIT_NPROC, which counts there what is in it, without a control group."""
    source = """
import os, resource, signal
print(resource.getrlimit(resource.RLIMIT_NPROC)[1], flush=True)
children = []
try:
    while len(children) < 3000:
        children.append(os.fork())
        if children[-1] == 0:
            signal.pause()
except BlockingIOError:
    print(len(children))
for child in children:
    os.kill(child, 9)
"""
    own = {} if os.geteuid() else {"uid_map": [(0, 200000, 1000)], "gid_map": [(0, 200000, 1000)]}
    result = zind.run(["/usr/bin/python3", "-c", source], capture_output=True, text=True, timeout=120, **own)
    limit, forked = map(int, result.stdout.split())
    assert limit <= 2048 and 0 < forked < limit, result


def test_another_limit_of_processes_is_taken():
    source = "import resource; print(*resource.getrlimit(resource.RLIMIT_NPROC))"
    own = {} if os.geteuid() else {"uid_map": [(0, 200000, 1000)], "gid_map": [(0, 200000, 1000)]}
    result = zind.run(["/usr/bin/python3", "-c", source], capture_output=True, text=True, timeout=60, rlimits={"nproc": 100}, **own)
    assert result.stdout == "100 100\n"
