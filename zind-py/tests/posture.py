"""What a program finds of its cell: prints JSON. Plain Python, so that it runs under any tool: see ``test_posture.py`` and docs/comparison.md."""

import ctypes
import errno
import glob
import json
import os
import resource
import signal
import socket
import sys

libc = ctypes.CDLL(None, use_errno=True)


def status():
    with open("/proc/self/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


#: Calls by their numbers on x86_64 that ordinary programs do without, with arguments that do nothing if they are let through.
CALLS = {
    "acct": (163, 1),
    "add_key": (248, 0, 0, 0, 0, 0),
    "adjtimex": (159, 0),
    "bpf": (321, 99, 0, 0),
    "chroot": (161, 1),
    "clone3": (435, 0, 0),
    "clock_settime": (227, 0, 0),
    "delete_module": (176, 1, 0),
    "fanotify_init": (300, 0x800000, 0),
    "finit_module": (313, -1, 0, 0),
    "fsopen": (430, 1, 0),
    "io_uring_setup": (425, 0, 0),
    "ioctl TIOCSTI": (16, -1, 0x5412, 0),
    "iopl": (172, 4),
    "kcmp": (312, 1 << 30, 1 << 30, 0, 0, 0),
    "kexec_load": (246, 0, 99, 0, 0),
    "keyctl": (250, 99, 0, 0, 0, 0),
    "lookup_dcookie": (212, 0, 0, 0),
    "mbind": (237, 1, 0, 99, 0, 0, 0),
    "memfd_secret": (447, 99),
    "migrate_pages": (256, 1 << 30, 0, 0, 0),
    "mount": (165, 0, 1, 0, 0, 0),
    "mount_setattr": (442, -1, 0, 0, 0, 0),
    "move_pages": (279, 1 << 30, 0, 0, 0, 0, 0),
    "name_to_handle_at": (303, -1, 1, 0, 0, 0),
    "open_by_handle_at": (304, -1, 0, 0),
    "open_tree": (428, -1, 1, 0),
    "perf_event_open": (298, 0, 0, -1, -1, 0),
    "personality READ_IMPLIES_EXEC": (135, 0x0400000),
    "pidfd_getfd": (438, -1, 0, 0),
    "pivot_root": (155, 1, 1),
    "process_vm_readv": (310, 1 << 30, 0, 0, 0, 0, 0),
    "ptrace": (101, 16896, 1 << 30, 0, 0),
    "quotactl": (179, 99, 0, 0, 0),
    "reboot": (169, 0, 0, 0, 0),
    "request_key": (249, 0, 0, 0, 0),
    "setns": (308, -1, 0),
    "sethostname": (170, 0, 1 << 20),
    "settimeofday": (164, 1, 0),
    "swapon": (167, 1, 0),
    "syslog": (103, 99, 0, 0),
    "umount2": (166, 1, 0),
    "unshare NEWUSER": (272, 0x10000000),
    "userfaultfd": (323, 0x10000),
    "vhangup": (153,),
    "vmsplice": (278, -1, 0, 0, 0),
}


def call(number, *args):
    """The name of the errno, or "ok"."""
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_ulong(arg & (1 << 64) - 1) for arg in args))
    return "ok" if result >= 0 else errno.errorcode.get(ctypes.get_errno(), "?")


def is_reached(number, *args):
    """A call that gets as far as the kernel's own checks differs from one that the filter answers only by its errno; with no
    capabilities EPERM may be either. Each in a process of its own: it may be killed, or change what the next one sees."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, call(number, *args).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        said = file.read()
    _, end = os.waitpid(pid, 0)
    return said or f"signal {os.WTERMSIG(end)}"


def sockets():
    opened = []
    kinds = {"STREAM": 1, "DGRAM": 2, "RAW": 3, "SEQPACKET": 5}
    for name in sorted(name for name in dir(socket) if name.startswith("AF_") and name not in ("AF_UNSPEC",)):
        for kind, number in kinds.items():
            try:
                socket.socket(getattr(socket, name), number, 0).close()
                opened.append(f"{name[3:]} {kind}")
            except (OSError, OverflowError):
                pass
    for protocol in range(1, 24):
        try:
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol).close()
            opened.append(f"NETLINK protocol {protocol}")
        except OSError:
            pass
    return opened


#: What the kernel tells of the machine, or lets it be changed by.
TELLING = """/proc/acpi /proc/asound /proc/buddyinfo /proc/config.gz /proc/interrupts /proc/iomem /proc/ioports /proc/kallsyms /proc/kcore
/proc/key-users /proc/keys /proc/kmsg /proc/kpagecount /proc/kpagecgroup /proc/kpageflags /proc/latency_stats /proc/modules /proc/mtrr
/proc/pagetypeinfo /proc/partitions /proc/sched_debug /proc/schedstat /proc/scsi /proc/slabinfo /proc/softirqs /proc/sysrq-trigger
/proc/timer_list /proc/timer_stats /proc/vmallocinfo /proc/zoneinfo /sys/firmware /sys/kernel/debug /sys/kernel/security
/sys/kernel/tracing /sys/fs/bpf /sys/fs/cgroup /sys/devices/virtual/powercap /sys/class/thermal /sys/kernel/notes /sys/kernel/vmcoreinfo""".split()


def readable(path):
    """Whether there is anything to be read of it."""
    try:
        if os.path.isdir(path):
            return bool(os.listdir(path))
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return bool(os.read(fd, 4096))
    except OSError:
        return False
    finally:
        os.close(fd)


def writable():
    """Files of the kernel that can be opened for writing; nothing is written."""
    found = []
    for pattern in ("/proc/sys/kernel/*", "/proc/sys/vm/*", "/proc/sys/fs/*", "/proc/sysrq-trigger", "/proc/irq/*/smp_affinity", "/sys/kernel/*",
                    "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/*/cgroup.procs"):
        for path in glob.glob(pattern):
            if os.path.isfile(path):
                try:
                    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                    found.append(path)
                except OSError:
                    pass
    return sorted(found)


def mounts():
    with open("/proc/self/mountinfo") as file:
        for line in file:
            fields = line.split()
            end = fields.index("-")
            yield fields[4], fields[end + 1], set(fields[5].split(",")) | set(fields[end + 3].split(","))


def find():
    about = status()
    seen = list(mounts())
    names = {
        "CapEff": "effective", "CapPrm": "permitted", "CapInh": "inheritable", "CapBnd": "bounding", "CapAmb": "ambient",
    }
    limits = {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in ("CORE", "NOFILE", "MEMLOCK", "MSGQUEUE")}
    serial = libc.syscall(ctypes.c_long(250), ctypes.c_ulong(0), ctypes.c_ulong((1 << 64) - 3), 0)
    return {
        "capabilities": {meaning: bin(int(about[name], 16)).count("1") for name, meaning in names.items()},
        "no_new_privileges": about["NoNewPrivs"] == "1",
        "filter": about["Seccomp"] == "2",
        "uid": os.getuid(), "groups": sorted(os.getgroups()),
        "session": "own" if os.getsid(0) in (os.getpid(), os.getppid(), 1) else "inherited",
        "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2 and os.path.exists(f"/proc/self/fd/{name}")),
        "environment": sorted(os.environ),
        "umask": os.umask(0),
        "processes": len([name for name in os.listdir("/proc") if name.isdigit()]),
        "interfaces": sorted(name for _, name in socket.if_nameindex()) if hasattr(socket, "if_nameindex") else None,
        "devices": sorted(name for name in os.listdir("/dev") if not os.path.islink(f"/dev/{name}")),
        "suid mounts": sorted(where for where, _, options in seen if "nosuid" not in options),
        "device mounts": sorted(where for where, _, options in seen if "nodev" not in options),
        "writable": writable(),
        "readable": sorted(path for path in TELLING if readable(path)),
        "sockets": sockets(),
        "calls": {name: is_reached(*args) for name, args in CALLS.items()},
        "keyring": "reached" if serial > 0 else "closed",
        "core": limits["CORE"][0],
        "limits": limits,
        "oom_score_adj": int(open("/proc/self/oom_score_adj").read()),
    }


if __name__ == "__main__":
    signal.signal(signal.SIGSYS, signal.SIG_DFL)
    json.dump(find(), sys.stdout)
