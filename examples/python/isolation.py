"""Print what zind says is in force, then look from inside whether it is true."""

import json
import os
import sys

import zind

# Runs in the container, with the container's own python3.
PROBE = r"""
import ctypes, errno, json, os, socket

def refused(call):
    try:
        call()
        return None
    except OSError as error:
        return errno.errorcode[error.errno]

libc = ctypes.CDLL(None, use_errno=True)
def syscall(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")

status = dict(line.split(":\t") for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
print(json.dumps({
    "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")},
    "capabilities": [status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
    "no_new_privs": status["NoNewPrivs"],
    "seccomp": status["Seccomp"],
    "uid_map": open("/proc/self/uid_map").read().split(),
    "pids": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
    "init": open("/proc/1/comm").read().strip(),
    "above_root": sorted(os.listdir("/..")) == sorted(os.listdir("/")) and os.stat("/..").st_ino == os.stat("/").st_ino,
    "home": os.listdir("/home") + os.listdir("/root") + os.listdir("/run/lock") + os.listdir("/tmp"),
    "shadow": os.path.exists("/etc/shadow"),
    "interfaces": [name for _, name in socket.if_nameindex()],
    "descriptors": sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")),
    "environment": sorted(os.environ),
    "devices": sorted(f"/dev/{name}" for name in os.listdir("/dev")
                      if not os.path.islink(f"/dev/{name}") and not os.path.isdir(f"/dev/{name}")),
    "masked": {path: os.listdir(path) if os.path.isdir(path) else open(path).read(1) for path in MASKED},
    "proc_sys": refused(lambda: open("/proc/sys/kernel/core_pattern", "w")),
    "network": refused(lambda: socket.create_connection(("192.0.2.1", 80), 1)),
    "raw_socket": refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)),
    "kernel_crypto": refused(lambda: socket.socket(38, socket.SOCK_SEQPACKET)),
    "mount": refused(lambda: syscall(165, b"none", b"/tmp", b"tmpfs", 0, 0)),
    "unshare": refused(lambda: syscall(272, 0x10000000)),
    "keyctl": refused(lambda: syscall(250, 0, -3, 0)),
    "bpf": refused(lambda: syscall(321, 0, 0, 0)),
    "kill_everybody": refused(lambda: os.kill(1, 0)),
    "write_usr": refused(lambda: open("/usr/zind-probe", "w").close()),
}))
"""


def check(what: str, found: object, expected: object) -> None:
    mark = "ok" if found == expected else "WRONG"
    print(f"{mark:5} {what:34} {found}")
    if found != expected:
        failed.append(what)


failed: list[str] = []
secret = os.open("/etc/passwd", os.O_RDONLY)
os.set_inheritable(secret, True)
os.environ["SECRET"] = "not for the container"

masked = zind.run(["true"]).isolation.masked_paths
source = PROBE.replace("MASKED", repr(masked))
result = zind.run(["python3", "-I", "-S", "-c", source], capture_output=True, text=True, timeout=30)
if result.returncode:
    sys.exit(result.stderr)
report, inside = result.isolation, json.loads(result.stdout)

for key, value in report.items():
    print(f"{key:18} {json.dumps(value)}")
print()

for kind, how in report.namespaces.items():
    differs = inside["namespaces"][kind] != os.readlink(f"/proc/self/ns/{kind}")
    check(f"{kind} namespace is {how}", "new" if differs else "host", how)
check("capability sets", inside["capabilities"], ["0" * 16] * 5)
check("no_new_privs", inside["no_new_privs"], "1" if report.no_new_privileges else "0")
check("seccomp mode (2 is a filter)", inside["seccomp"], "2" if report.seccomp == "default" else "0")
maps = [str(line[key]) for line in report.uid_map for key in ("container", "host", "size")]
if report.namespaces["user"] == "new" and os.geteuid() != 0:
    check("user id map", inside["uid_map"], maps)
check("processes seen", inside["pids"], [1, 2] if report.init else [1])
check("PID 1", inside["init"], "zind-init")
check("nothing above the root", inside["above_root"], True)
check("home, tmp and run are empty", inside["home"], [])
check("/etc/shadow is there", inside["shadow"], False)
check("network interfaces", inside["interfaces"], ["lo"] if report.network == "none" else None)
check("connect to 192.0.2.1", inside["network"], "ENETUNREACH")
check("open descriptors", inside["descriptors"], [0, 1, 2])
check("environment", inside["environment"], ["HOME", "LANG", "PATH"])
check("devices", inside["devices"], sorted(report.devices))
for path, content in inside["masked"].items():
    check(f"masked {path}", len(content), 0)
check("write /proc/sys", inside["proc_sys"] in ("EROFS", "EACCES"), True)
check("raw socket", inside["raw_socket"], "EPERM")
check("AF_ALG socket", inside["kernel_crypto"], "EAFNOSUPPORT")
for call in ("mount", "unshare", "keyctl", "bpf"):
    check(call, inside[call], "EPERM")
check("write into /usr", inside["write_usr"], None)
check("... and it is on the host", os.path.exists("/usr/zind-probe"), False)

# What is asked for and cannot be is an error before anything runs.
try:
    zind.run(["true"], seccomp=None, require={"seccomp"})
    check("require", "passed", "refused")
except zind.UnsupportedError as error:
    check("require={'seccomp'}, seccomp=None", error.feature, "seccomp")

if failed:
    sys.exit(f"not as reported: {', '.join(failed)}")
print("all as reported")
