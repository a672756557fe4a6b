"""Each limit is one that a payload really meets: in a hybrid tree, in one of version 2, as root and as an ordinary user."""

from __future__ import annotations

import os
import pathlib
import subprocess
import time

import groups
import kit
import pytest
from groups import MIB, need, on_v2, popen, python, run

import zind

#: Allocates and touches this many MiB.
ALLOCATE = "import sys; data = bytearray(int(sys.argv[1]) << 20); data[::4096] = b'x' * len(data[::4096]); print(len(data) >> 20)"
#: Burns CPU time for this many seconds of wall time; says how much it got.
BURN = """
import sys, time
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end: pass
print(time.process_time())
"""
FORK = """
import os, sys, time
made = 0
try:
    while made < 500:
        if os.fork() == 0:
            time.sleep(600)
        made += 1
except OSError as error:
    print(made, error.errno)
"""


# --- memory ----------------------------------------------------------------------------------------------------------
def test_memory_within_the_limit_is_there():
    need("memory")
    result = python(ALLOCATE, "40", memory="100m")
    assert result.stdout == "40\n"
    assert 40 * MIB <= result.stats.memory_peak <= 100 * MIB
    assert result.stats.oom_kills == 0


def test_memory_beyond_the_limit_ends_the_payload_as_oom():
    need("memory")
    result = python(ALLOCATE, "200", memory="60m", swap=0)
    assert (result.exit.kind, result.exit.signal, result.returncode) == ("oom", 9, -9)
    assert result.stats.oom_kills >= 1
    assert result.stats.memory_peak <= 60 * MIB
    killed = run(["sh", "-c", "kill -9 $$"], memory="60m")
    assert killed.exit.kind == "signaled", "killed, but not for memory"


def test_memory_high_slows_down_and_kills_nobody():
    need("memory")
    if not on_v2("memory"):
        kit.refused(zind.UnsupportedError, lambda: run(["true"], memory_high="64m"))
        return
    # Nothing of this can be taken back, so that it stands almost still until the limit is taken away.
    process = popen(["sh", "-c", "head -c 40m /dev/zero | tail -c 30m | wc -c"], memory_high="16m", memory="200m")
    with process:
        assert kit.wait_until(lambda: process.stats().memory_high_events, 50)
        assert process.poll() is None
        process.update(zind.Resources(memory_high="max"))
        assert process.stdout.read() == b"31457280\n"
        assert process.wait(timeout=60) == 0
    assert process.stats().oom_kills == 0


def test_memory_protection_is_set_for_the_group():
    need("memory")
    limits = {"memory_low": 4 * MIB, "memory": 64 * MIB}
    if on_v2("memory"):
        limits["memory_min"] = 2 * MIB
    else:
        kit.refused(zind.UnsupportedError, lambda: run(["true"], memory_min=MIB))
    with popen(["sleep", "60"], **limits) as process:
        group = next(pathlib.Path(path) for path in process.isolation.cgroup if (pathlib.Path(path) / "cgroup.procs").exists() and list(pathlib.Path(path).glob("memory.*max*")))
        low = "memory.low" if on_v2("memory") else "memory.soft_limit_in_bytes"
        assert int((group / low).read_text()) == 4 * MIB
        process.kill()


#: Reads a file through, says so, and stays.
READ = """
import sys
with open(sys.argv[1], "rb", 0) as file:
    while file.read(1 << 20): pass
print("read", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not groups.OWN_TREE, reason="memory that is short for two takes a group around both, in a tree of version 2 of our own")
@pytest.mark.parametrize("protection", ["memory_low", "memory_min"])
def test_memory_is_taken_from_whom_it_is_not_kept_for(protection):
    disk = pathlib.Path("/scratch") / f"zind-test-{os.getpid()}"
    disk.mkdir()
    try:

        def kept(**limits) -> int:
            """How much of what one has read stays while another one reads more than there is room for."""
            # Holes are page cache as anything else; new files, since what is in it already is somebody else's.
            for name, size in (("mine", 40), ("theirs", 300)):
                (disk / name).unlink(missing_ok=True)
                with open(disk / name, "wb") as file:
                    file.truncate(size * MIB)
            with groups.parent("low", "+memory +cpu +pids", memory_max=str(96 * MIB)) as parent:
                options = {"stdin": zind.PIPE, "cgroup_parent": f"/{parent.name}", "mounts": [zind.Mount.bind(disk, "/data", read_only=True)]}
                reader = ["/usr/bin/python3", "-S", "-c", READ]
                with popen([*reader, "/data/mine"], options=options, **limits) as process:
                    assert process.stdout.readline() == b"read\n"
                    assert process.stats().memory_file >= 36 * MIB
                    with popen([*reader, "/data/theirs"], options=options, memory_high="max") as other:
                        assert other.stdout.readline() == b"read\n"
                        other.kill()
                    left = process.stats().memory_file
                    process.kill()
                assert kit.wait_until(lambda: not list(parent.glob("zind-*")), 20)
            return left

        left = kept(**{protection: 64 * MIB})
        assert left >= 36 * MIB
        assert kept(memory_high="max") < left - 8 * MIB
    finally:
        for name in ("mine", "theirs"):
            (disk / name).unlink(missing_ok=True)
        disk.rmdir()


def test_swap_is_limited_by_itself():
    need("memory")
    if len(pathlib.Path("/proc/swaps").read_text().splitlines()) < 2:
        # Without swap the limit can be met all the same: there is none.
        assert python(ALLOCATE, "80", memory="50m", swap="100m").exit.kind == "oom"
        return
    assert python(ALLOCATE, "80", memory="50m", swap="100m").stdout == "80\n"
    assert python(ALLOCATE, "80", memory="50m", swap=0).exit.kind == "oom"


def test_oom_group_ends_all_of_it():
    need("memory")
    if not on_v2("memory"):
        kit.refused(zind.UnsupportedError, lambda: run(["true"], memory="64m", oom_group=True))
        return
    script = "sleep 300 & tail /dev/zero; echo not reached; wait"
    result = run(["sh", "-c", script], memory="48m", oom_group=True)
    assert result.stdout == "" and result.exit.kind == "oom", result


# --- CPU -------------------------------------------------------------------------------------------------------------
def test_cpu_time_is_a_share_of_the_wall_time():
    need("cpu")
    result = python(BURN, "2", cpus=0.2)
    # Start and end of the interpreter are throttled too, so all of it is a fifth of all of it; a period more at each end.
    used = result.stats.cpu_user + result.stats.cpu_system
    assert used <= 0.2 * result.stats.wall + 0.1, result.stats
    assert result.stats.cpu_throttled_periods > 0
    assert result.stats.cpu_throttled > 0


def test_cpu_quota_in_a_period_of_its_own():
    need("cpu")
    result = python(BURN, "1.5", cpu_quota_us=10_000, cpu_period_us=40_000)
    used = result.stats.cpu_user + result.stats.cpu_system
    assert used <= 0.25 * result.stats.wall + 0.1, result.stats


@pytest.mark.parametrize(
    ("much", "little"),
    [({"cpu_weight": 1000}, {"cpu_weight": 10}), ({"cpu_shares": 8192}, {"cpu_shares": 128}), ({}, {"cpu_idle": True})],
    ids=["weight", "shares", "idle"],
)
def test_cpu_share_of_two_that_want_one_cpu(much, little):
    need("cpu")
    # One CPU for both by affinity, which a process hands down; a cpuset is not everybody's. Both want it until the same moment: who
    # gets none for now does not even read that the other one has begun.
    source = """
import sys, time
print("ready", flush=True)
end, used = float(sys.stdin.readline()), time.process_time()
while time.monotonic() < end: pass
print(time.process_time() - used)
"""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {groups.CPUS[0]})
    pair = []
    try:
        for limits in (much, little):
            options = {"stdin": zind.PIPE, "stdout": zind.PIPE, "text": True, "resources": zind.Resources(**limits)}
            pair.append(zind.Popen(["/usr/bin/python3", "-S", "-c", source], **options))
            assert pair[-1].stdout.readline() == "ready\n"
        end = time.monotonic() + 4
        for process in pair:
            process.stdin.write(f"{end}\n")
            process.stdin.flush()
        got = [float(process.stdout.read()) for process in pair]
    finally:
        os.sched_setaffinity(0, before)
        for process in pair:
            process.kill()
            process.communicate()
    assert got[0] > 2 * got[1], got


def test_cpu_time_that_was_saved_is_a_burst():
    need("cpu")
    # A fifth of a CPU: 20 ms in each period. After a pause 40 ms are used at once.
    source = """
import time
while True:
    time.sleep(0.3)
    end = time.process_time() + 0.04
    while time.process_time() < end: pass
"""

    def bursts(process) -> int:
        # In a hybrid the group of version 2 has a file of this name, too.
        files = [pathlib.Path(group) / "cpu.stat" for group in process.isolation.cgroup]
        lines = [line for file in files if file.exists() for line in file.read_text().splitlines()]
        return sum(int(line.split()[1]) for line in lines if line.startswith("nr_bursts "))

    with popen(["/usr/bin/python3", "-S", "-c", source], cpus=0.2, cpu_burst_us=20_000) as process:
        seen = kit.wait_until(lambda: bursts(process), 50)
        process.kill()
    assert seen


def test_cpuset_is_where_it_runs():
    need("cpuset")
    cpu = groups.CPUS[-1]
    source = "import os; print(sorted(os.sched_getaffinity(0)), open('/proc/self/status').read().split('Mems_allowed_list:')[1].split()[0])"
    assert python(source, cpuset=str(cpu), cpuset_mems="0").stdout == f"[{cpu}] 0\n"


@pytest.mark.skipif(not groups.OWN_TREE, reason="a group above with a part of the CPUs takes a tree of version 2 of our own")
def test_cpus_that_the_group_above_may_not_use_are_refused():
    with groups.parent("cpus", "+cpuset +memory +cpu +pids", cpuset_cpus=str(groups.CPUS[0])) as parent:
        options = {"cgroup_parent": f"/{parent.name}"}
        error = kit.refused(zind.SysError, lambda: run(["true"], cpuset=str(groups.CPUS[-1]), **options))
        assert error.errno == 22 and error.filename.endswith("cpuset.cpus") and f"may use {groups.CPUS[0]} only" in error.hint
        assert run(["true"], cpuset=str(groups.CPUS[0]), **options).returncode == 0
        with popen(["sleep", "60"], options=options, cpuset=str(groups.CPUS[0])) as process:
            kit.refused(zind.SysError, lambda: process.update(zind.Resources(cpuset=str(groups.CPUS[-1]))))
            assert groups.file_of(process, "cpuset.cpus").read_text() == f"{groups.CPUS[0]}\n", "as it was"
            process.kill()


# --- processes -------------------------------------------------------------------------------------------------------
def test_forks_beyond_the_limit_fail():
    need("pids")
    result = python(FORK, pids=12)
    assert result.stdout == "11 11\n", "itself and eleven more, then EAGAIN"
    assert result.stats.pids_peak in (12, None)
    assert result.stats.pids_limited in (1, None)


def test_a_single_process_starts():
    need("pids")
    assert run(["true"], pids=1).returncode == 0
    assert "fork" in run(["sh", "-c", "true & wait; echo reached"], pids=1).stderr.lower()


# --- disks -----------------------------------------------------------------------------------------------------------
class Loop:
    """A disk of 32 MiB, made of a file."""

    def __enter__(self) -> Loop:
        self.file = f"/var/tmp/zind-disk-{os.getpid()}"
        with open(self.file, "wb") as file:
            file.truncate(32 * MIB)
        self.node = subprocess.check_output(["losetup", "--find", "--show", self.file], text=True).strip()
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["losetup", "--detach", self.node], check=True)
        os.unlink(self.file)


DIRECT = """
import mmap, os, sys, time
fd = os.open(sys.argv[1], (os.O_WRONLY if sys.argv[2] == "w" else os.O_RDONLY) | os.O_DIRECT)
block = mmap.mmap(-1, 1 << 18)
began = time.monotonic()
for i in range(16):
    (os.writev if sys.argv[2] == "w" else os.readv)(fd, [block])
print(time.monotonic() - began)
"""


@pytest.mark.parametrize(("letter", "limit"), [("w", "wbps"), ("r", "rbps")])
def test_bytes_of_a_disk_are_limited_per_second(letter, limit):
    need("io")
    kit.needs_root("a loop device")
    with Loop() as disk:
        limits = zind.IoLimit(disk.node, **{limit: MIB})
        result = python(DIRECT, disk.node, letter, io=[limits], devices_=[zind.Device(disk.node)])
        assert float(result.stdout) >= 2.5, "4 MiB at one MiB per second"
        free = python(DIRECT, disk.node, letter, io=[zind.IoLimit(disk.node, **{limit: 200 * MIB})], devices_=[zind.Device(disk.node)])
        assert float(free.stdout) < float(result.stdout), "it is the limit that slows down"


def test_operations_on_a_disk_are_limited_per_second():
    need("io")
    kit.needs_root("a loop device")
    with Loop() as disk:
        result = python(DIRECT, disk.node, "w", io=[zind.IoLimit(disk.node, wiops=8)], devices_=[zind.Device(disk.node)])
        assert float(result.stdout) >= 1, "16 writes at 8 per second"
        if result.stats.io:
            assert sum(one.writes for one in result.stats.io) >= 16


#: Writes blocks for some seconds from a word on; says how many.
WRITES = """
import mmap, os, sys, time
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_DIRECT)
block = mmap.mmap(-1, 1 << 16)
print("ready", flush=True)
sys.stdin.readline()
end, count = time.monotonic() + 4, 0
while time.monotonic() < end:
    os.pwritev(fd, [block], (count % 256) << 16)
    count += 1
print(count)
"""


@pytest.mark.parametrize("per_disk", [False, True], ids=["all-disks", "one-disk"])
def test_disks_are_shared_by_weight(per_disk):
    need("io")
    kit.needs_root("a loop device")
    with Loop() as disk:

        def limits(weight: int) -> dict:
            return {"io": [zind.IoLimit(disk.node, weight=weight)]} if per_disk else {"io_weight": weight}

        if not groups.OWN_TREE:
            # How this machine's disks are shared is not ours to change: what is written can be read back. Weights of one disk
            # take a scheduler of the disk's that has them, so a refusal says which.
            if per_disk:
                assert "sched" in kit.refused(zind.Error, lambda: run(["true"], **limits(200))).hint
                return
            with popen(["sleep", "60"], **limits(910)) as process:
                names = ("io.weight", "io.bfq.weight", "blkio.weight", "blkio.bfq.weight")
                files = [pathlib.Path(group) / name for group in process.isolation.cgroup for name in names]
                texts = {file.name: file.read_text() for file in files if file.exists()}
                assert texts and all(str(910 if name == "io.weight" else 100) in text.split() for name, text in texts.items()), texts
                process.kill()
            return
        # A disk of 4 MiB per second by the kernel's cost model, which is what weights are shares of.
        cost = pathlib.Path("/sys/fs/cgroup")
        number = pathlib.Path(f"/sys/block/{pathlib.Path(disk.node).name}/dev").read_text().strip()
        (cost / "io.cost.model").write_text(f"{number} ctrl=user model=linear rbps=4194304 rseqiops=64 rrandiops=64 wbps=4194304 wseqiops=64 wrandiops=64")
        (cost / "io.cost.qos").write_text(f"{number} enable=1 ctrl=user min=100.00 max=100.00")
        pair = []
        try:
            options = {"stdin": zind.PIPE, "devices": [zind.Device(disk.node)]}
            for weight in (1000, 50):
                pair.append(popen(["/usr/bin/python3", "-S", "-c", WRITES, disk.node], options=options, **limits(weight)))
                assert pair[-1].stdout.readline() == b"ready\n"
            for process in pair:
                process.stdin.write(b"go\n")
                process.stdin.flush()
            got = [int(process.stdout.read()) for process in pair]
        finally:
            for process in pair:
                process.kill()
                process.communicate()
            (cost / "io.cost.qos").write_text(f"{number} enable=0")
        assert got[0] > 2 * got[1], got


def test_latency_of_a_disk_is_set_or_refused():
    need("io")
    kit.needs_root("a loop device")
    with Loop() as disk:
        limits = {"io": [zind.IoLimit(disk.node, latency_us=5000)]}
        if not on_v2("io"):
            assert "version 2" in str(kit.refused(zind.UnsupportedError, lambda: run(["true"], **limits)))
        elif pathlib.Path("/sys/fs/cgroup/init.scope/io.latency").exists():
            with popen(["sleep", "60"], **limits) as process:
                assert "target=5000" in groups.file_of(process, "io.latency").read_text()
                process.kill()
        else:
            error = kit.refused(zind.SysError, lambda: run(["true"], **limits))
            assert error.errno == 2 and error.filename.endswith("io.latency") and "IOLATENCY" in error.hint


def test_a_disk_that_is_not_there_is_an_error_with_its_name():
    need("io")
    error = kit.refused(zind.Error, lambda: run(["true"], io=[zind.IoLimit("/dev/no-such-disk", wbps=MIB)]), hint=False)
    assert "/dev/no-such-disk" in str(error)


# --- huge pages ------------------------------------------------------------------------------------------------------
def test_huge_pages_are_limited():
    kit.needs_root("reserving huge pages")
    if not groups.IN_VM:
        # Pages would be reserved for all of this machine; here it is the limit that can be seen.
        with popen(["sleep", "60"], hugetlb={"2MB": "4m"}) as process:
            limits = [path for group in process.isolation.cgroup for path in pathlib.Path(group).glob("hugetlb.2MB.max")]
            limits += [path for group in process.isolation.cgroup for path in pathlib.Path(group).glob("hugetlb.2MB.limit_in_bytes")]
            assert [int(path.read_text()) for path in limits] == [4 * MIB]
            process.kill()
        return
    pages = pathlib.Path("/proc/sys/vm/nr_hugepages")
    pages.write_text("8")
    source = """
import mmap
made = 0
try:
    held = []
    while made < 6:
        held.append(mmap.mmap(-1, 2 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000))
        made += 1
except OSError as error:
    print(made, error.errno)
"""
    options = {}
    if not groups.OWN_TREE:
        # systemd hands on what it knows only.
        error = kit.refused(zind.UnsupportedError, lambda: run(["true"], hugetlb={"2MB": "4m"}))
        assert error.feature == "hugetlb" and "cgroup_parent" in error.needs
        options["cgroup_parent"] = f"/zind-test-huge-{os.getpid()}"
    try:
        assert int(pages.read_text()) == 8
        assert python(source, hugetlb={"2MB": "4m"}, **options).stdout == "2 12\n", "two pages, then ENOMEM"
    finally:
        pages.write_text("0")


# --- what is counted by name -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(("limits", "file", "there"), [({"rdma": {"mlx5_0": (3, 10)}}, "rdma.max", "/sys/class/infiniband"), ({"misc": {"sev": 5}}, "misc.max", "misc.capacity")], ids=["rdma", "misc"])
def test_what_this_machine_does_not_have_cannot_be_limited(limits, file, there):
    kit.needs_root("these controllers, which are delegated to nobody")
    error = kit.refused(zind.Error, lambda: run(["true"], **limits))
    if groups.OWN_TREE:
        # The controllers are there, the devices are not.
        assert error.errno in (19, 22) and error.filename.endswith(file) and there in error.hint, error
    else:
        assert file.split(".")[0] in str(error)


# --- the network -----------------------------------------------------------------------------------------------------
@pytest.fixture
def v1_network():
    """The hierarchy of version 1 with the controllers of the network, which version 2 does not have."""
    if not groups.OWN_TREE:
        pytest.skip("mounting a hierarchy of version 1 takes a machine of our own")
    where = pathlib.Path("/run/zind-test-net")
    where.mkdir()
    subprocess.run(["mount", "-t", "cgroup", "-o", "net_cls,net_prio", "none", where], check=True)
    yield where
    subprocess.run(["umount", where], check=True)
    where.rmdir()


def test_packets_have_the_class_of_the_group(v1_network):
    source = "import socket, sys; s = socket.create_server(('127.0.0.1', 7777)); print('ready', flush=True); s.accept()"
    with popen(["/usr/bin/python3", "-S", "-c", source], net_classid=0x100001) as process:
        assert process.stdout.readline() == b"ready\n"
        listed = subprocess.check_output(["nsenter", "-t", str(process.pid), "-n", "ss", "--tos", "-tlnH"], text=True)
        assert "class_id:0x100001" in listed, listed
        process.kill()


def test_packets_have_the_priority_of_the_group(v1_network):
    send = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); [s.sendto(b'x' * 100, ('127.0.0.1', 9)) for _ in range(20)]"

    def tc(*words: str) -> str:
        return subprocess.check_output(["tc", *words], text=True)

    def sent() -> int:
        return int(tc("-s", "qdisc", "show", "dev", "lo").split("qdisc pfifo 30:")[1].split("Sent ")[1].split()[0])

    bands = ["0"] * 6 + ["2"] + ["0"] * 9
    tc("qdisc", "add", "dev", "lo", "root", "handle", "1:", "prio", "bands", "3", "priomap", *bands)
    try:
        tc("qdisc", "add", "dev", "lo", "parent", "1:3", "handle", "30:", "pfifo")
        assert python(send, network="host", net_priorities={"lo": 5}).returncode == 0
        assert sent() == 0
        assert python(send, network="host", net_priorities={"lo": 6}).returncode == 0
        assert sent() >= 20 * 100
    finally:
        tc("qdisc", "del", "dev", "lo", "root")


# --- raw files, versions ---------------------------------------------------------------------------------------------
def test_raw_files_of_version_2_are_written():
    need("memory")
    if not on_v2("memory"):
        kit.refused(zind.UnsupportedError, lambda: run(["true"], unified={"memory.high": "64M"}))
        return
    with popen(["sleep", "60"], unified={"memory.high": "64M"}) as process:
        files = [pathlib.Path(group) / "memory.high" for group in process.isolation.cgroup]
        assert [int(file.read_text()) for file in files] == [64 * MIB]
        process.kill()


def test_what_only_version_1_has_is_refused_elsewhere():
    need("memory")
    for limits in ({"net_classid": 1}, {"swappiness": 10}, {"cpu_rt_runtime_us": 1000}):
        if limits.keys() & {"swappiness", "cpu_rt_runtime_us"} and V1_HERE:
            continue
        kit.refused(zind.UnsupportedError, lambda limits=limits: run(["true"], **limits))


V1_HERE = not on_v2("memory")


needs_v1 = pytest.mark.skipif(not V1_HERE or not kit.ROOT, reason="options of version 1: root, where memory and cpu are there")


@needs_v1
def test_out_of_memory_waits_where_nobody_is_to_be_killed():
    with popen(["/usr/bin/python3", "-S", "-c", ALLOCATE, "60"], memory="32m", swap=0, oom_kill_disable=True) as process:
        control = groups.file_of(process, "memory.oom_control")
        assert kit.wait_until(lambda: "under_oom 1" in control.read_text(), 50)
        assert process.poll() is None
        # Memory and swap together go up with it.
        process.update(zind.Resources(memory="256m", swap=0))
        assert process.stdout.read() == b"60\n"
        assert process.wait(timeout=60) == 0
    assert process.stats().oom_kills == 0


@needs_v1
def test_swappiness_is_set():
    with popen(["sleep", "60"], memory="64m", swappiness=10) as process:
        assert groups.file_of(process, "memory.swappiness").read_text() == "10\n"
        process.kill()


@needs_v1
def test_real_time_policies_take_a_budget():
    if not pathlib.Path("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists():
        pytest.skip("the kernel has no budgets of real time (CONFIG_RT_GROUP_SCHED)")
    source = "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)); print(os.sched_getscheduler(0))"
    with_budget = run(["/usr/bin/python3", "-S", "-c", source], cpu_rt_runtime_us=1000, capabilities=["CAP_SYS_NICE"])
    assert with_budget.stdout == "1\n", with_budget
    without = run(["/usr/bin/python3", "-S", "-c", source], cpus=1.0, capabilities=["CAP_SYS_NICE"])
    assert without.returncode and "PermissionError" in without.stderr


# --- while it runs ---------------------------------------------------------------------------------------------------
def test_limits_change_while_it_runs():
    need("pids")
    source = """
import os, time
while True:
    try:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        print("forks", flush=True)
    except OSError as error:
        print("refused", flush=True)
    time.sleep(0.02)
"""
    process = popen(["/usr/bin/python3", "-S", "-c", source], pids=20, memory="64m")
    with process:
        assert process.stdout.readline() == b"forks\n"
        process.update(zind.Resources(pids=1))
        # Behind what it had said before.
        assert any(process.stdout.readline() == b"refused\n" for _ in range(2000))
        process.update(zind.Resources(pids=20, memory="128m"))
        assert any(process.stdout.readline() == b"forks\n" for _ in range(2000))
        assert process.stats().memory_limit == 128 * MIB
        process.kill()


def test_stats_are_those_of_now():
    need("memory")
    with popen(["sleep", "60"], memory="64m") as process:
        stats = process.stats()
        assert 0 < stats.memory_current < 64 * MIB
        assert stats.memory_limit == 64 * MIB
        assert stats.pids == 1
        process.kill()


def test_everything_stands_still_while_it_is_paused():
    need("cpu")
    process = popen(["sh", "-c", "while :; do echo x; done"], cpus=1.0)
    with process:
        process.stdout.readline()
        process.pause()
        assert process.paused
        used = process.stats()
        time.sleep(0.3)
        again = process.stats()
        assert (again.cpu_user, again.cpu_system) == (used.cpu_user, used.cpu_system)
        process.resume()
        assert not process.paused
        process.kill()


# --- a group of its own for the payload ------------------------------------------------------------------------------
def test_the_payload_sees_its_group_as_the_root():
    need("memory")
    seen = run(["cat", "/proc/self/cgroup"], memory="64m").stdout
    for line in seen.splitlines():
        controllers, path = line.split(":")[1:]
        if (controllers in ("memory", "pids")) or (not controllers and not V1_HERE):
            assert path == "/", seen


# --- groups of the payload's own -------------------------------------------------------------------------------------
NESTED = """
cd /sys/fs/cgroup || exit 1
mkdir init inner || exit 2
for pid in $(cat cgroup.procs); do echo $pid > init/cgroup.procs; done 2>/dev/null  # cat has ended by now
echo +pids > cgroup.subtree_control || exit 4
echo 1 > inner/pids.max || exit 5
sh -c 'echo $$ > inner/cgroup.procs; (true) 2>/dev/null; echo met' | grep -q met && exit 6
(echo 30 > pids.max) 2>/dev/null && exit 7
rmdir inner
echo nested
"""


@pytest.mark.parametrize("namespaces", [{}, {"user": "new"}], ids=["root", "user-namespace"])
def test_a_container_has_groups_of_its_own_below_its_limits(namespaces):
    need("pids")
    if not on_v2("pids"):
        pytest.skip("groups of the payload's own need version 2")
    if kit.ROOT or namespaces:
        mount = zind.Mount(type="cgroup2", source="cgroup2", target="/sys/fs/cgroup")
        maps = {"uid_map": [zind.IdMap(0, 200_000, 1000)], "gid_map": [zind.IdMap(0, 200_000, 1000)]} if kit.ROOT and namespaces else {}
        result = zind.run(
            ["sh", "-c", NESTED],
            capture_output=True,
            text=True,
            timeout=90,
            mounts=[mount],
            namespaces=namespaces,
            resources=zind.Resources(pids=20, memory="64m"),
            **maps,
        )
        assert result.stdout == "nested\n", result
        assert not any(os.path.exists(path) for path in result.isolation.cgroup), "with what was made below"
