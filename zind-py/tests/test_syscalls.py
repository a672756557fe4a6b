"""The default filter, call by call; what ordinary programs need is not in its way; what is mounted stays as it is."""

from __future__ import annotations

import json

import pytest

import kit
import zind
from kit import probe, sh

CALLS = """
import ctypes, errno
c = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    ctypes.set_errno(0)
    result = c.syscall(ctypes.c_long(number), *map(ctypes.c_long, args))
    return "done" if result >= 0 else errno.errorcode.get(ctypes.get_errno(), ctypes.get_errno())
"""
EVERY = CALLS + "answer({name: call(*args) for name, args in json.loads(sys.argv[1]).items()})"

# Docker's deny list is the yardstick; numbers of x86_64, arguments that do no harm where the call is let through.
DENIED = {
    "unshare(NEWUSER)": (272, 0x10000000),
    "unshare(NEWNS)": (272, 0x00020000),
    "unshare(NEWNET)": (272, 0x40000000),
    "clone(NEWUSER)": (56, 0x10000000 | 17, 0, 0, 0, 0),
    "setns": (308, -1, 0),
    "mount": (165, 0, 0, 0, 0, 0),
    "umount2": (166, 0, 0),
    "pivot_root": (155, 0, 0),
    "fsopen": (430, 0, 0),
    "fsmount": (432, -1, 0, 0),
    "fsconfig": (431, -1, 0, 0, 0, 0),
    "fspick": (433, -1, 0, 0),
    "move_mount": (429, -1, 0, -1, 0, 0),
    "open_tree": (428, -1, 0, 0),
    "mount_setattr": (442, -1, 0, 0, 0, 0),
    "bpf": (321, 0, 0, 0),
    "perf_event_open": (298, 0, 0, -1, -1, 0),
    "keyctl": (250, 0, -3, 0),
    "add_key": (248, 0, 0, 0, 0, -3),
    "request_key": (249, 0, 0, 0, -3),
    "kexec_load": (246, 0, 0, 0, 0),
    "kexec_file_load": (320, -1, -1, 0, 0, 0),
    "init_module": (175, 0, 0, 0),
    "finit_module": (313, -1, 0, 0),
    "delete_module": (176, 0, 0),
    "reboot": (169, 0, 0, 0, 0),
    "swapon": (167, 0, 0),
    "swapoff": (168, 0),
    "settimeofday": (164, 0, 0),
    "clock_settime": (227, 0, 0),
    "sethostname": (170, 0, 0),
    "setdomainname": (171, 0, 0),
    "iopl": (172, 3),
    "ioperm": (173, 0, 1, 1),
    "acct": (163, 0),
    "quotactl": (179, 0, 0, 0, 0),
    "open_by_handle_at": (304, -1, 0, 0),
    "lookup_dcookie": (212, 0, 0, 0),
    "userfaultfd": (323, 0),
    "io_uring_setup": (425, 1, 0),
    "io_uring_enter": (426, -1, 0, 0, 0, 0),
    "io_uring_register": (427, -1, 0, 0, 0),
    "syslog": (103, 3, 0, 0),
    "vhangup": (153,),
    "chroot": (161, 0),
    "nfsservctl": (180, 0, 0, 0),
    "_sysctl": (156, 0),
    "move_pages": (279, 0, 0, 0, 0, 0, 0),
    "mbind": (237, 0, 0, 0, 0, 0, 0),
    "set_mempolicy": (238, 0, 0, 0),
    "get_mempolicy": (239, 0, 0, 0, 0, 0),
    "process_vm_readv(1)": (310, 1, 0, 0, 0, 0, 0),
    "kcmp": (312, 1, 1, 0, 0, 0),
    "ustat": (136, 0, 0),
    "sysfs": (139, 3),
    "uselib": (134, 0),
    "personality(READ_IMPLIES_EXEC)": (135, 0x0400000),
    "socket(AF_ALG)": (41, 38, 5, 0),
    "socket(AF_VSOCK)": (41, 40, 1, 0),
}
REFUSALS = {"EPERM", "ENOSYS", "EAFNOSUPPORT"}


def test_what_is_denied():
    assert {name: result for name, result in probe(EVERY, json.dumps(DENIED)).items() if result not in REFUSALS} == {}


def test_the_denials_are_the_filters_own():
    """Without it many of the same calls are let through, or fail for other reasons: so the test above tests something."""
    harmless = {name: args for name, args in DENIED.items() if name not in ("reboot", "vhangup", "clone(NEWUSER)", "unshare(NEWUSER)")}
    telling = {name for name, result in probe(EVERY, json.dumps(harmless), seccomp=None).items() if result not in REFUSALS}
    assert {"keyctl", "personality(READ_IMPLIES_EXEC)", "setns", "bpf", "get_mempolicy"} <= telling


def test_denials_of_namespaces_stay_whatever_capabilities_there_are():
    chosen = {name: args for name, args in DENIED.items() if name in ("keyctl", "bpf", "kexec_load", "io_uring_setup", "userfaultfd")}
    found = probe(EVERY, json.dumps(chosen), capabilities="docker")
    assert set(found.values()) <= REFUSALS


def test_calls_of_another_abi_do_not_get_past_the_filter():
    """An x32 number of unshare(2): refused, or the program ends."""
    r = zind.run(["python3", "-c", CALLS + "print(call(0x40000000 | 272, 0x10000000))"], capture_output=True, text=True)
    assert r.exit.signal == 31 or r.stdout.strip() in REFUSALS, r


def test_clone3_looks_missing_and_threads_and_processes_work():
    source = CALLS + """
import threading, subprocess
t = threading.Thread(target=lambda: None); t.start(); t.join()
answer([call(435, 0, 0), subprocess.run(["true"]).returncode])
"""
    assert probe(source) == ["ENOSYS", 0]


def test_nobody_is_traced_without_the_capability():
    source = CALLS + """
found = [call(101, 16, 1, 0, 0), call(101, 0x4206, 1, 0, 0)] if "init" in sys.argv else []
pid = os.fork()
if pid == 0:
    import time; time.sleep(10)
found.append(call(101, 16, pid, 0, 0))
os.kill(pid, 9)
answer(found)
"""
    assert probe(source, "init") == ["EPERM", "EPERM", "EPERM"]
    # The init of one's own user namespace could be traced then, and be stopped.
    assert probe(source, capabilities=["SYS_PTRACE"]) == ["done"]


def test_ordinary_programs_find_nothing_missing():
    source = """
import asyncio, ctypes, fcntl, mmap, multiprocessing, os, resource, select, signal, socket, sqlite3, tempfile, time
multiprocessing.set_start_method("fork")
with multiprocessing.Pool(2) as pool: assert pool.map(abs, [-1, -2]) == [1, 2]
with tempfile.TemporaryDirectory() as d:
    db = sqlite3.connect(f"{d}/x.db"); db.execute("create table t (a)"); db.commit(); db.close()
    os.mkfifo(f"{d}/fifo"); os.symlink("x", f"{d}/link"); os.link(f"{d}/x.db", f"{d}/hard"); os.chmod(f"{d}/x.db", 0o600)
    with open(f"{d}/lock", "w") as lock: fcntl.flock(lock, fcntl.LOCK_EX)
    os.setxattr(f"{d}/x.db", "user.a", b"b"); os.copy_file_range
    a = os.open(f"{d}/a", os.O_RDWR | os.O_CREAT); os.posix_fallocate(a, 0, 4096); os.sendfile(a, a, 0, 0); os.close(a)
a, b = socket.socketpair(); socket.send_fds(a, [b"x"], [0]); b.recv(1)
socket.create_server(("", 0)).close(); socket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind(("127.0.0.1", 0))
e = select.epoll(); e.register(a.fileno())
os.eventfd(0); os.memfd_create("x"); os.pidfd_open(os.getpid())
signal.setitimer(signal.ITIMER_REAL, 100); signal.pthread_sigmask(signal.SIG_BLOCK, [])
mmap.mmap(-1, 4096); os.sched_setaffinity(0, os.sched_getaffinity(0)); resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.nice(1)
async def child():
    return await (await asyncio.create_subprocess_exec("true")).wait()
assert asyncio.run(child()) == 0
os.getrandom(8); os.posix_spawn("/bin/true", ["true"], {}); os.setsid if os.getsid(0) == os.getpid() else None
c = ctypes.CDLL(None)
assert c.prctl(15, b"name", 0, 0, 0) == 0 and c.mlock(ctypes.create_string_buffer(10), 10) == 0
answer("fine")
"""
    source = source.replace("; os.copy_file_range\n", "\n").replace("; os.setsid if os.getsid(0) == os.getpid() else None", "")
    assert probe(source) == "fine"


# --- mounts ----------------------------------------------------------------------------------------------------------


def test_what_is_mounted_has_the_strict_flags():
    flags = {line.split()[4]: set(line.split()[5].split(",")) for line in sh("cat /proc/self/mountinfo").splitlines()}
    for path in ("/proc", "/sys", "/dev/shm", "/dev/mqueue"):
        assert {"nosuid", "nodev", "noexec"} <= flags[path], path
    assert {"nosuid", "noexec", "ro"} <= flags["/dev"]
    assert all("nodev" in options for path, options in flags.items() if path == "/" or path.startswith("/usr"))


def test_no_mount_of_the_host_is_left_and_no_event_crosses_the_border():
    mounts = sh("cat /proc/self/mountinfo").splitlines()
    assert len([line for line in mounts if line.split()[4] == "/"]) == 1
    assert [field for line in mounts for field in line.split(" - ")[0].split()[6:]] == []
    assert probe("os.chdir('/'); os.chdir('..'); answer(os.path.samefile('.', '/'))") is True


@pytest.mark.parametrize("options", [{}, {"seccomp": None}, {"seccomp": None, "capabilities": ["DAC_OVERRIDE"]}])
def test_masks_cannot_be_taken_off(options):
    script = "umount /proc/keys; mount -o remount,rw /proc/sys; mount -o remount,bind,rw /sys; mount -t proc proc /mnt; echo x >/proc/sys/kernel/hostname; wc -c </proc/keys; ls /mnt | wc -l; hostname"
    assert sh(f"({script}) 2>/dev/null", **options).split() == ["0", "0", "zind"]


def test_a_masked_file_is_empty_and_a_masked_directory_too():
    isolation = zind.run(["true"]).isolation
    lists = ["/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug"]
    lists += ["/proc/kallsyms", "/proc/kpagecgroup", "/proc/kpagecount", "/proc/kpageflags"]
    lists += ["/proc/pagetypeinfo", "/proc/slabinfo", "/proc/vmallocinfo"]
    lists += ["/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/firmware", "/sys/devices/virtual/powercap"]
    source = """
def content(path):
    # What root's alone is needs no mask where nobody is root.
    if not os.access(path, os.R_OK): return None
    return len(os.listdir(path)) if os.path.isdir(path) else len(open(path, "rb").read(10))
answer({path: content(path) for path in sys.argv[1:]})
"""
    found = probe(source, *lists)
    assert {path for path, size in found.items() if size is not None} == set(isolation.masked_paths)
    assert set(found.values()) <= {0, None}
    assert len(isolation.masked_paths) >= 3


def test_read_only_paths_are():
    isolation = zind.run(["true"]).isolation
    assert "/proc/sys" in isolation.readonly_paths
    source = "answer([p for p in sys.argv[1:] if not os.statvfs(p).f_flag & os.ST_RDONLY])"
    assert probe(source, "/sys", *isolation.readonly_paths) == []


def test_devices_are_those_of_the_report():
    source = """
import stat
found = []
for d, _, names in os.walk("/", topdown=True):
    if d.startswith("/proc"): continue
    for name in names:
        mode = os.lstat(os.path.join(d, name)).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode): found.append(os.path.join(d, name))
answer(found)
"""
    source = source.replace('    if d.startswith("/proc"): continue\n', '    _[:] = [n for n in _ if os.path.join(d, n) not in ("/proc", "/usr")]\n')
    assert set(probe(source)) == {*zind.run(["true"]).isolation.devices, "/dev/pts/ptmx"}


def test_only_what_everybody_may_have_of_pid_1_is_had():
    # It gives its own away when its program has begun, not before.
    wait = """
import time
end = time.monotonic() + 30
while (held := int(status(1)['CapEff'], 16) & ~(1 << 5)) and time.monotonic() < end:
    time.sleep(0.01)
answer(held)
"""
    assert kit.probe(kit.STATUS + wait) == 0
