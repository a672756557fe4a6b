"""Limits, readings, pausing: ``resources=`` and what comes with it, on whatever hierarchies this machine has."""

from __future__ import annotations

import asyncio
import os
import pathlib
import pickle
import select
import signal
import subprocess
import sys
import time

import pytest

import kit
import zind
from kit import ROOT
from zind import IoLimit, Resources

needs_groups = pytest.mark.skipif(not ROOT, reason="root's: an ordinary user has groups only where some were handed over")
HOG = ["python3", "-c", "x = bytearray(100 << 20)"]


def groups(pid: int | None = None) -> set[str]:
    """The control groups of a process of ours, in all hierarchies."""
    mark = f"-{pid or os.getpid()}-"
    found = subprocess.run(
        ["find", "/sys/fs/cgroup", "-type", "d", "-name", "zind-*"], capture_output=True, text=True, check=False
    ).stdout.split()
    return {path for path in found if mark in path.rsplit("/", 1)[1]}


def own_groups() -> str:
    return pathlib.Path("/proc/self/cgroup").read_text()


def test_without_resources_nothing_is_touched():
    before = groups()
    with zind.Popen(["cat", "/proc/self/cgroup"], stdout=zind.PIPE, namespaces={"cgroup": "host"}) as p:
        assert groups() == before
        assert p.stdout.readline().decode() in own_groups()
        assert p.stats().memory_current is None and p.stats().wall > 0
        assert p.isolation.cgroup == [] and p.isolation.limits == []
        for call in (p.pause, p.resume, lambda: p.update(Resources(pids=5)), lambda: p.paused):
            with pytest.raises(zind.StateError):
                call()
    with zind.Popen(["sleep", "60"]) as p:
        assert [info.container_pid for info in p.processes()] == [1, 2]
        p.kill()


@needs_groups
def test_out_of_memory_is_told_apart():
    r = zind.run(HOG, resources=Resources(memory="32m", swap=0), require={"memory"})
    assert (r.exit.kind, r.exit.signal, r.returncode) == ("oom", 9, -9)
    assert r.stats.oom_kills >= 1 and 16 << 20 < r.stats.memory_peak <= 32 << 20
    assert r.isolation.limits == ["memory"] and "memory" in r.isolation.in_force and r.isolation.cgroup
    for _ in range(5):
        # The kernel takes PID 1 as well where the program has not ended yet when its memory is gone.
        if r.stats.oom_kills == 1:
            break
        r = zind.run(HOG, resources=Resources(memory="32m", swap=0), require={"memory"})
    assert "oom_kills=1" in repr(r.stats)
    r = zind.run(HOG, resources=Resources(memory="256m"))
    assert r.exit.kind == "exited" and r.stats.oom_kills == 0 and r.stats.memory_peak > 100 << 20
    # One that dies below it is no end of it.
    r = zind.run(["sh", "-c", "python3 -c 'x = bytearray(100 << 20)'; echo $?"], resources=Resources(memory="32m", swap=0), capture_output=True)
    assert r.exit.kind == "exited" and r.stdout == b"137\n" and r.stats.oom_kills == 1
    with pytest.raises(zind.CalledProcessError) as info:
        zind.run(HOG, resources=Resources(memory="32m", swap=0), check=True)
    assert info.value.exit.kind == "oom" and info.value.stats.oom_kills >= 1


@needs_groups
def test_out_of_memory_is_told_whoever_kills_what_is_left():
    p = zind.Popen(HOG, resources=Resources(memory="32m", swap=0))
    # Nobody waits yet, and the container has ended.
    assert kit.wait_until(lambda: select.select([p.pidfd], [], [], 0)[0], 30)
    p.kill()
    assert p.wait(timeout=30) == -9 and p.exit.kind == "oom"
    # One that dies below the payload says nothing about who killed the payload.
    script = "python3 -c 'x = bytearray(100 << 20)'; echo $?; exec sleep 60"
    with zind.Popen(["sh", "-c", script], resources=Resources(memory="32m", swap=0), stdout=zind.PIPE) as p:
        assert p.stdout.readline() == b"137\n"
        p.kill()
    assert p.exit.kind == "signaled" and p.stats().oom_kills == 1
    with pytest.raises(zind.TimeoutExpired) as info:
        zind.run(["sh", "-c", script], resources=Resources(memory="32m", swap=0), stdout=zind.DEVNULL, timeout=3)
    assert info.value.exit.kind == "timeout"


@needs_groups
def test_a_kill_by_somebody_is_no_want_of_memory_of_one_that_lives_on(tmp_path):
    place = zind.Containers(tmp_path / "place")
    script = "python3 -c 'x = bytearray(100 << 20)'; echo $?; exec sleep 60"
    with zind.Container(["sh", "-c", script], resources=Resources(memory="32m", swap=0), containers=place) as c:
        c.start()
        kit.kill_from_outside(c)
        assert c.wait(30) == zind.Exit("signaled", None, signal.SIGKILL)
        assert c.stats().oom_kills == 1


@needs_groups
def test_readings_of_a_result_are_objects_when_looked_at():
    r = zind.run(["true"], resources=Resources(memory="64m", pids=10))
    copy = pickle.loads(pickle.dumps(r))
    assert isinstance(r.stats, zind.Stats) and r.stats is r.stats
    assert copy.stats == r.stats and r.stats.memory_limit == 64 << 20
    if r.stats.pressure is not None:
        assert isinstance(r.stats.pressure.cpu.some, zind.Stall) and r.stats.pressure.cpu.some.total >= 0
    assert isinstance(zind.run(["true"]).stats, zind.Stats)
    with zind.Popen(["sleep", "60"], resources=Resources(memory=(64 << 20) + 1)) as p:
        assert p.stats().memory_limit == 64 << 20, "whole pages"
        p.update(Resources(memory="65m"))
        p.kill()
    assert p.stats().memory_limit == 65 << 20


@needs_groups
def test_pids_count_the_payloads_own():
    def forks(pids: int) -> zind.CompletedProcess:
        return zind.run(["sh", "-c", "sleep 0 & sleep 0 & wait; echo all"], resources=Resources(pids=pids), capture_output=True)

    assert zind.run(["echo", "x"], resources=Resources(pids=1), capture_output=True).stdout == b"x\n"
    assert forks(3).stdout == b"all\n"
    r = forks(1)
    assert r.returncode and b"ork" in r.stderr and r.stats.pids_limited >= 1


@needs_groups
@pytest.mark.parametrize(
    "options",
    [{"uid_map": "auto", "gid_map": "auto"}, {"init": False}, {"namespaces": {"pid": "host"}, "init": False}, {"namespaces": {"user": "new"}}],
    ids=str,
)
def test_the_payload_is_in_the_group_whatever_the_namespaces(options):
    # CVE-2025-47291: with a user namespace some runtime left its limits off.
    script = "sleep 60 & sleep 60 & sleep 60 & echo forked"
    r = zind.run(["sh", "-c", script], resources=Resources(pids=2, memory="64m"), capture_output=True, **options)
    assert r.returncode and r.stdout == b"" and r.stats.pids_limited >= 1, r
    r = zind.run(HOG, resources=Resources(memory="32m", swap=0), **options)
    assert r.exit.kind == "oom" and r.stats.oom_kills >= 1, (r.exit, r.stats)


@needs_groups
def test_a_tmpfs_that_is_filled_counts_as_memory():
    fill = ["dd", "if=/dev/zero", "of=/tmp/x", "bs=1M", "count=200"]
    r = zind.run(fill, resources=Resources(memory="32m", swap=0), capture_output=True)
    assert r.exit.kind == "oom"


@needs_groups
def test_cpus_are_a_share_of_time():
    # On a busy machine it may get less than its share of the shorter times.
    for patience in (1, 5, 20):
        with pytest.raises(zind.TimeoutExpired) as info:
            zind.run(["sh", "-c", "while :; do :; done"], resources=Resources(cpus=0.2), timeout=patience)
        stats = info.value.stats
        if (stats.cpu_throttled_periods or 0) >= 3:
            break
    assert stats.cpu_throttled > 0 and stats.cpu_throttled_periods >= 3
    # In each period of 0.1 s no more than 0.02 s; the first and the last may be cut.
    assert stats.cpu_user + stats.cpu_system < 0.02 * (stats.wall / 0.1 + 3)


@needs_groups
def test_a_cpuset_is_where_it_runs():
    r = zind.run(["sh", "-c", "taskset -p $$ | sed 's/.* //'"], resources=Resources(cpuset="0"), capture_output=True, text=True)
    assert r.stdout == "1\n"


@pytest.fixture
def disk(tmp_path):
    kit.needs_root("losetup")
    image = tmp_path / "disk"
    with open(image, "wb") as file:
        file.truncate(16 << 20)
    device = subprocess.check_output(["losetup", "--find", "--show", image], text=True).strip()
    yield device
    subprocess.run(["losetup", "-d", device], check=True)


@needs_groups
def test_a_disk_is_written_to_as_fast_as_allowed(disk):
    copy = ["dd", "if=/dev/zero", f"of={disk}", "bs=64k", "count=32", "oflag=direct"]
    limit = IoLimit(disk, wbps="1m")
    r = zind.run(copy, resources=Resources(io=[limit]), devices=[disk], require={"io"}, capture_output=True, check=True)
    # Two megabytes at one a second; the first slice may go through at once.
    assert r.stats.wall > 1.0
    written = [io for io in r.stats.io if io.write_bytes >= 2 << 20]
    numbers = os.stat(disk).st_rdev
    assert [io.device for io in written] == [f"{os.major(numbers)}:{os.minor(numbers)}"], r.stats.io


@needs_groups
def test_limits_change_while_it_runs():
    with zind.Popen(["sleep", "60"], resources=Resources(memory="64m", pids=10)) as p:
        assert p.stats().memory_limit == 64 << 20
        p.update(Resources(memory="128m", pids=20))
        assert p.stats().memory_limit == 128 << 20
        p.update(Resources(memory="max"))
        assert p.stats().memory_limit is None
        with pytest.raises(TypeError):
            p.update({"memory": 5})
        p.kill()
    with pytest.raises(zind.StateError):
        p.update(Resources(pids=5))


@needs_groups
def test_a_change_that_lacks_a_controller_changes_nothing():
    with zind.Popen(["sleep", "60"], resources=Resources(memory="64m")) as p:
        change = Resources(memory="32m", cpus=0.5)
        if any("cpu" in line.split(":")[1].split(",") for line in open("/proc/self/cgroup")):
            # Nobody is put into a hierarchy of version 1 later.
            with pytest.raises(zind.StateError, match="hierarchy of cpu.* at the start"):
                p.update(change)
            assert p.stats().memory_limit == 64 << 20
        else:
            p.update(change)
            assert p.stats().memory_limit == 32 << 20
        p.kill()


@needs_groups
def test_a_limit_below_what_is_in_use_is_refused_with_all_there_is_to_say():
    fill = "dd if=/dev/zero of=/tmp/x bs=1M count=64 2>/dev/null; echo; exec sleep 60"
    with zind.Popen(["sh", "-c", fill], stdout=zind.PIPE, resources=Resources(memory="128m", swap=0)) as p:
        p.stdout.readline()
        with pytest.raises(zind.SysError) as info:
            p.update(Resources(memory="16m"))
        e = info.value
        assert e.errno == 16 and e.step == "WriteCgroup" and e.filename.rsplit("/", 1)[1].startswith("memory.")
        assert '"16777216"' in str(e) and "in use" in e.hint
        assert p.poll() is None
        p.kill()


@needs_groups
def test_pause_resume_and_kill_while_paused():
    with zind.Popen(["sh", "-c", "while :; do :; done"], resources=Resources()) as p:
        p.pause()
        assert p.paused
        used = p.stats().cpu_user
        time.sleep(0.05)
        assert p.stats().cpu_user == used
        p.resume()
        assert not p.paused
        assert kit.wait_until(lambda: p.stats().cpu_user > used)
        p.pause()
        p.kill()
        assert p.wait(timeout=10) == -9 and p.exit.kind == "signaled"
    assert p.processes() == []


@needs_groups
def test_readings_are_typed():
    with zind.Popen(["sh", "-c", "sleep 60 & echo; wait"], stdout=zind.PIPE, resources=Resources()) as p:
        p.stdout.readline()
        assert kit.wait_until(lambda: any(info.name == "sleep" for info in p.processes()))
        stats = p.stats()
        assert stats.memory_current > 0 and stats.memory_peak >= stats.memory_current and stats.pids == 2
        if stats.pressure is not None:
            assert stats.pressure.memory.some.total >= 0 and stats.pressure.cpu.full.avg10 >= 0
        first, *rest = p.processes()
        assert first.pid == p.pid and first.container_pid == 1 and first.name == "zind-init"
        assert {tuple(info.cmdline[:2]) for info in rest} == {("sh", "-c"), ("sleep", "60")}
        assert all(info.threads == 1 and info.uid == 0 for info in rest)
        p.kill()
    total = p.stats()
    assert total.memory_peak >= stats.memory_current and total.memory_current is None and total.pids is None
    assert total == p.stats() == pickle.loads(pickle.dumps(total))


@needs_groups
def test_readings_come_as_a_stream():
    with zind.Popen(["sh", "-c", "read x; exit 3"], stdin=zind.PIPE, resources=Resources()) as p:
        seen = []
        for stats in p.stats_stream(0.01):
            seen.append(stats)
            if len(seen) == 3:
                p.stdin.close()
        assert len(seen) >= 4 and all(stats.pids == 1 for stats in seen[:3])
        assert seen[-1] == p.stats() and seen[-1].pids is None and seen[-1].memory_peak > 0
        assert list(p.stats_stream(60)) == [seen[-1]], "ended: one of its whole life"
        with pytest.raises(ValueError):
            p.stats_stream(0)


@needs_groups
def test_in_asyncio_too():
    async def main():
        r = await zind.aio.run(HOG, resources=Resources(memory="32m", swap=0))
        assert r.exit.kind == "oom" and r.stats.oom_kills >= 1
        p = await zind.aio.Popen.start(["sleep", "60"], resources=Resources(pids=5))
        await p.pause()
        assert p.paused and p.stats().pids == 1 and len(await p.processes()) == 2
        await p.resume()
        await p.update(Resources(pids=6))
        seen = []
        async for stats in p.stats_stream(0.01):
            seen.append(stats)
            if len(seen) == 3:
                p.kill()
        assert [stats.pids for stats in seen[:3]] == [1] * 3 and seen[-1].pids is None and seen[-1].max_rss is None
        assert seen[-1] == p.stats()
        assert await p.wait() == -9

    asyncio.run(main())


CRASH = """
import sys, zind
p = zind.Popen(["sleep", "4949"], resources=zind.Resources(pids=5), die_with_owner=sys.argv[2] == "d")
if sys.argv[1] == "paused":
    p.pause()
print(p.pid, flush=True)
sys.stdin.read()
"""


def crash(owner: subprocess.Popen[bytes], *, alone: bool) -> None:
    """Kills a caller; with ``alone`` before the tasks of zind's that look after its container."""
    names = {pid: name for pid, (_, parent, name) in kit.descendants(owner.pid).items() if parent == owner.pid}
    assert "zind-waiter" in names.values()
    for pid in names if alone else ():
        # They are no children of this process.
        os.kill(pid, signal.SIGKILL)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdin.close()
    owner.stdout.close()


def crashing(state: str, end: str) -> tuple[subprocess.Popen[bytes], int]:
    owner = subprocess.Popen([sys.executable, "-c", CRASH, state, end], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=kit.child_env())
    return owner, int(owner.stdout.readline())


@needs_groups
@pytest.mark.parametrize("state", ["running", "paused"])
def test_a_crash_leaves_nothing(state):
    owner, pid = crashing(state, "d")
    assert groups(owner.pid)
    crash(owner, alone=False)
    # Nobody calls zind any more.
    assert kit.wait_until(lambda: not kit.alive(pid))
    assert kit.wait_until(lambda: groups(owner.pid) == set())


@needs_groups
@pytest.mark.parametrize("state", ["running", "paused"])
def test_what_a_crash_of_all_leaves_is_swept(state):
    owner, pid = crashing(state, "d")
    left = groups(owner.pid)
    assert left
    crash(owner, alone=True)
    swept = zind.sweep_groups()
    assert groups(owner.pid) == set() and left == set(swept)
    assert kit.wait_until(lambda: not kit.alive(pid))


FORK = """
import os, sys, zind
before = zind.Popen(["sleep", "4949"], resources=zind.Resources(pids=5))
pid = os.fork()
if pid == 0:
    with zind.Popen(["sleep", "60"], resources=zind.Resources(pids=5)) as p:
        own = [f"-{os.getpid()}-" in path for path in p.isolation.cgroup]
        p.kill()
    # What the other process started is not this one's to sweep.
    swept = zind.sweep_groups()
    os._exit(0 if own and all(own) and not set(swept) & set(before.isolation.cgroup) else 1)
assert os.waitpid(pid, 0)[1] == 0
assert before.poll() is None and all(map(os.path.exists, before.isolation.cgroup))
before.kill()
before.wait()
print("ok")
"""


@needs_groups
def test_a_fork_of_the_caller_has_groups_of_its_own():
    assert kit.outside(FORK).stdout == "ok\n"


@needs_groups
def test_what_was_to_outlive_its_owner_is_left_alone():
    owner, pid = crashing("running", "k")
    crash(owner, alone=False)
    zind.sweep_groups()
    assert kit.alive(pid) and groups(owner.pid)
    os.kill(pid, signal.SIGKILL)
    assert kit.wait_until(lambda: not kit.alive(pid))
    assert kit.wait_until(lambda: groups(owner.pid) == set())


@needs_groups
def test_errors_name_file_value_and_cure(tmp_path):
    def refused(resources: Resources, **options) -> zind.SysError:
        with pytest.raises(zind.SysError) as info:
            zind.run(["true"], resources=resources, **options)
        assert groups() == set()
        return info.value

    e = refused(Resources(cpuset="4000"))
    assert e.step == "WriteCgroup" and e.filename.endswith("cpuset.cpus") and '"4000"' in str(e) and "list" in e.hint
    e = refused(Resources(io=[IoLimit("4000:4000", rbps=1000)]))
    assert e.errno == 19 and "4000:4000" in str(e) and "disk" in e.hint
    e = refused(Resources(io=[IoLimit("/dev/no-such", rbps=1000)]))
    assert e.errno == 2 and e.filename == "/dev/no-such"
    e = refused(Resources(hugetlb={"3MB": "3m"}))
    sizes = os.listdir("/sys/kernel/mm/hugepages")
    assert e.errno == 2 and ("hugepages-2048kB" not in sizes or "2MB" in e.hint), e
    e = refused(Resources(memory=4096, swap=0))
    assert e.errno == 12 and "too low" in e.hint
    with pytest.raises(zind.SpecError):
        zind.run(["true"], resources=Resources(unified={"magic.max": "1"}))
    with pytest.raises(zind.SpecError):
        zind.run(["true"], resources=Resources(io=[IoLimit("/dev/null", rbps=1000)]))
    with pytest.raises(zind.SpecError):
        zind.run(["true"], cgroup_parent="/x")
    with pytest.raises(zind.SpecError):
        zind.run(["true"], resources=Resources(), cgroup_parent="/../x")


@needs_groups
def test_what_is_required_has_to_be_limited():
    with pytest.raises(zind.UnsupportedError) as info:
        zind.run(["true"], resources=Resources(pids=5), require={"memory", "pids"})
    assert "resources=" in str(info.value)
    zind.run(["true"], resources=Resources(pids=5), require={"pids"}, check=True)


@needs_groups
def test_a_group_can_be_below_a_named_one():
    name = f"zind-named-{os.getpid()}"
    with zind.Popen(["sleep", "60"], resources=Resources(pids=5), cgroup_parent=f"/{name}/a") as p:
        assert all(f"/{name}/a/zind-" in path for path in p.isolation.cgroup), p.isolation.cgroup
        # Whoever is the last in there takes it away, not whoever made it.
        second = zind.Popen(["sleep", "60"], resources=Resources(pids=5), cgroup_parent=f"/{name}/a")
        p.kill()
    assert all(map(os.path.exists, second.isolation.cgroup))
    second.kill()
    second.wait()
    found = subprocess.run(["find", "/sys/fs/cgroup", "-name", name], capture_output=True, text=True, check=False)
    assert found.stdout == ""


@pytest.mark.parametrize(
    "values",
    [
        {"memory": 0}, {"memory": "x"}, {"memory": -5}, {"swap": -2}, {"cpus": 0}, {"cpus": 10**6}, {"cpus": float("nan")},
        {"cpus": 1, "cpu_quota_us": 5000}, {"cpu_weight": 0}, {"cpu_weight": 5, "cpu_shares": 5}, {"cpuset": "x"}, {"pids": 0},
        {"io_weight": 0}, {"io": [IoLimit("")]}, {"io": [IoLimit("8:0", wbps=0)]}, {"unified": {"cgroup.procs": "1"}},
        {"devices": ["nonsense"]}, {"hugetlb": {"../x": 1}}, {"cpu_weight": 10**30},
    ],
    ids=str,
)  # fmt: skip
def test_values_without_sense_are_refused_at_once(values):
    e = kit.refused(zind.SpecError, lambda: Resources(**values), field="resources", hint=False)
    assert str(e)


@pytest.mark.parametrize(
    "values", [{"io": [IoLimit("8:0", weight="x")]}, {"io": ["8:0"]}, {"cpus": "most"}, {"memory": 1.5}, {"pids": "many?" and 1.0}, {"oom_group": "yes"}, {"io": 5}, {"cpuset": 0}, {"rdma": {"x": 5}}, {"unified": {"a.b": 1}}], ids=str
)
def test_values_of_the_wrong_type_are_type_errors(values):
    with pytest.raises(TypeError):
        Resources(**values)


def test_a_bad_member_of_a_limit_is_named():
    for limit, name in ((IoLimit("8:0", wbps="x"), "wbps"), (IoLimit("8:0", riops=-7), "riops"), (IoLimit("8:0", weight=10**30), "weight")):
        assert name in str(kit.refused(zind.SpecError, lambda limit=limit: Resources(io=[IoLimit("8:0"), limit]), hint=False))
    with pytest.raises(TypeError, match="latency_us"):
        Resources(io=[IoLimit("8:0", latency_us="soon")])
    assert "io[1]" in str(kit.refused(zind.SpecError, lambda: Resources(io=[IoLimit("8:0"), IoLimit("8:0", rbps=0)]), hint=False))
    assert '"max"' in str(kit.refused(zind.SpecError, lambda: Resources(cpus=0), hint=False))


def test_resources_are_values():
    r = Resources(
        memory="64m", swap=0, cpus=0.5, cpuset="0", pids=64, io=[IoLimit("8:0", rbps="1m", weight=50)], hugetlb={"2MB": "4m"},
        rdma={"mlx": (1, None)}, misc={"sev": 5}, devices=["c 1:3 rwm", zind.DeviceRule("a", allow=False)], oom_group=True,
        unified={"memory.zswap.max": "0"},
    )  # fmt: skip
    assert (r.memory, r.swap, r.cpus, r.pids, r.memory_high) == (64 << 20, 0, 0.5, 64, None)
    assert r.io == [IoLimit("8:0", rbps=1 << 20, weight=50)] and r.devices[1] == zind.DeviceRule("a *:* rwm", False)
    assert r == pickle.loads(pickle.dumps(r)) and r != Resources() and "67108864" in repr(r)
    assert Resources(pids="max").pids == "max" == Resources(pids=-1).pids == Resources(cpus="max").cpus
    assert Resources(cpus="max").to_oci()["cpu"]["quota"] == -1
    document = r.to_oci()
    assert document["memory"] == {"limit": 64 << 20, "swap": 64 << 20} and document["cpu"]["quota"] == 50000
    back = Resources.from_oci(document)
    assert back.to_oci() == document and back.swap == 0
    with pytest.raises(zind.SpecError):
        Resources.from_oci({"memory": {"limt": 1}})
    with pytest.raises(AttributeError):
        r.no_such_thing


NO_GROUPS = """
import zind
try:
    zind.run(["true"], resources=zind.Resources(memory="64m"), require={"memory"})
except zind.UnsupportedError as e:
    assert "chown" in str(e) or "Delegate=yes" in str(e), e
else:
    raise SystemExit("it was not refused")
r = zind.run(["sh", "-c", "ulimit -n"], resources=zind.Resources(), rlimits={"nofile": 99}, capture_output=True)
assert r.stdout == b"99\\n" and r.isolation.cgroup == [] and r.stats.cpu_user is not None
assert "cgroup" in r.isolation.cgroup_refused and ("chown" in r.isolation.cgroup_refused or "elegate" in r.isolation.cgroup_refused), r.isolation
with zind.Popen(["sleep", "60"], resources=zind.Resources()) as p:
    for call in (p.pause, p.resume, p.events):
        try:
            call()
        except zind.StateError as e:
            assert p.isolation.cgroup_refused in str(e) and "give resources" not in str(e), e
        else:
            raise SystemExit("it was not refused")
    p.kill()
print("ok")
"""


def test_an_ordinary_user_without_groups_is_told_the_cure(user_python):
    assert user_python.snippet(NO_GROUPS) == "ok\n"


WITHOUT_CLONE3 = """
import os, sys, kit, zind
R = zind.Resources
kit.hide_calls("clone3")
for options in ({}, {"init": False}, {"namespaces": {"user": "new"}}):
    r = zind.run(["sh", "-c", "sleep 60 & sleep 60 & sleep 60 & echo forked"], resources=R(pids=2), capture_output=True, **options)
    assert r.returncode and r.stdout == b"" and r.stats.pids_limited >= 1, r
    r = zind.run(["sh", "-c", "cat /proc/self/cgroup"], resources=R(pids=2, memory="64m"), capture_output=True, text=True, **options)
    lines = [line for line in r.stdout.splitlines() if line.split(":")[1] in ("memory", "pids", "")]
    assert lines and all(line.endswith(":/") for line in lines), r.stdout
group = sys.argv[1]
os.mkdir(group)
fd = os.open(group, os.O_PATH)
r = zind.run(["cat", "/proc/self/cgroup"], cgroup_fd=fd, namespaces={"cgroup": "host"}, capture_output=True, text=True)
assert os.path.basename(group) in r.stdout, r.stdout
kit.wait_until(lambda: not open(f"{group}/cgroup.procs").read())
os.rmdir(group)
print("ok")
"""


@needs_groups
def test_where_clone3_is_hidden():
    tops = [path for path in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup") if os.path.exists(f"{path}/cgroup.controllers")]
    assert kit.outside(WITHOUT_CLONE3, f"{tops[0]}/zind-test-{os.getpid()}").stdout == "ok\n"


KEPT_WITHOUT_CLONE3 = """
import sys, kit, zind
kit.hide_calls("clone3")
show = ["sh", "-c", "grep -E '^0:|:pids:' /proc/self/cgroup"]
with zind.Container(["sleep", "1000"], containers=sys.argv[1], resources=zind.Resources(pids=20)) as c:
    c.start()
    paths = c.exec(show, capture_output=True, text=True, stdin=zind.DEVNULL).stdout.splitlines()
    assert paths and all(path.endswith(":/") for path in paths), paths
    outer = open(f"/proc/{c.pid}/cgroup").read().splitlines()
    assert len([path for path in outer if path.split(":")[1] in ("pids", "") and "/zind-" in path]) == len(paths), outer
    c.delete(force=True)
print("ok")
"""


@needs_groups
def test_where_clone3_is_hidden_a_monitor_moves_it(tmp_path):
    assert kit.outside(KEPT_WITHOUT_CLONE3, str(tmp_path / "place")).stdout == "ok\n"


@needs_groups
def test_many_are_killed_at_once():
    running = [zind.Popen(["sh", "-c", "sleep 60 & wait"], resources=Resources(pids=5)) for _ in range(50)]
    for p in running:
        p.kill()
    for p in running:
        assert p.wait(timeout=30) == -9
    assert groups() == set()


@needs_groups
def test_a_container_makes_groups_of_its_own_below():
    # Its root in a user namespace may, if it has the mount; its limits are not its own to change.
    script = """
        cd /sys/fs/cgroup && mkdir inner && echo $$ > inner/cgroup.procs && cat /proc/self/cgroup | grep ^0
        echo max > cgroup.max.depth; echo 1 > cgroup.kill; rmdir x
    """
    mounts = [zind.Mount.cgroup(options=["rw"])]
    options = {"uid_map": "auto", "gid_map": "auto", "mounts": mounts, "capture_output": True, "text": True}
    r = zind.run(["sh", "-c", script], resources=Resources(pids=10), **options)
    assert r.stdout == "0::/inner\n", r
    assert "cgroup.max.depth: Permission denied" in r.stderr and "cgroup.kill: Permission denied" in r.stderr, r
    r = zind.run(["mkdir", "/sys/fs/cgroup/inner"], resources=Resources(), mounts=[zind.Mount.cgroup()])
    assert r.returncode
