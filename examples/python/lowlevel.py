"""The low level: what unshare(1), nsenter(1) and `ls -l /proc/<pid>/ns` show, from Python.

As an ordinary user each demonstration gets a user namespace too, in which that user is root: `unshare -r`.
"""

import os
import signal
import subprocess
from typing import Any

import zind

ROOT = os.geteuid() == 0
KINDS = ("user", "mnt", "pid", "net", "uts", "ipc", "cgroup", "time")


def new(flags: int, **attributes: Any) -> zind.ProcAttr:
    """unshare(1) with these namespaces."""
    return zind.ProcAttr(cloneflags=flags, map_root_user=not ROOT, **attributes)


def output(argv: list[str], attr: zind.ProcAttr) -> str:
    process = zind.spawn(argv, attr, stdout=zind.PIPE, text=True)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0, process
    return out


def pid_namespace() -> None:
    print("## unshare -pf sleep 1000, and the two /proc/<pid>/ns")
    sleep = zind.spawn(["sleep", "1000"], new(zind.CLONE_NEWPID))
    try:
        ours, theirs = zind.proc().ns, zind.proc(sleep.pid).ns
        for kind in KINDS:
            mark = "" if ours[kind] == theirs[kind] else "  <- differs"
            print(f"  {kind:7} {ours[kind]}  {theirs[kind]}{mark}")
        differ = {kind for kind in KINDS if ours[kind] != theirs[kind]}
        assert differ == ({"pid"} if ROOT else {"pid", "user"}), differ
        pids = zind.proc(sleep.pid).status["NSpid"].split()
        print(f"  pid {pids[0]} here is pid {pids[-1]} in there")
        assert pids == [str(sleep.pid), "1"]
        # lsns(8): who is in that namespace?
        found = [n for n in zind.namespaces() if n.kind == "pid" and n.id == theirs["pid"]]
        print("  " + repr(found[0]))
        assert sleep.pid in found[0].pids
        # nsenter(1): a second process in the same namespaces. It is no child of pid 1, so pid 1 does not see its name.
        joined = output(["sh", "-c", "readlink /proc/self/ns/pid"], zind.ProcAttr(target=sleep.pid))
        print(f"  nsenter -t {sleep.pid} -a: {joined.strip()}")
        assert joined.strip() == f"pid:[{theirs['pid']}]"
    finally:
        sleep.kill()
    assert sleep.wait(timeout=10) == -signal.SIGKILL


def fresh_proc() -> None:
    print("## unshare -pf --mount-proc ps; top")
    attr = new(zind.CLONE_NEWPID | zind.CLONE_NEWNS, mount_proc=True)
    table = output(["ps", "-e", "-o", "pid,comm"], attr)
    print("  " + table.strip().replace("\n", "\n  "))
    assert table.split() == ["PID", "COMMAND", "1", "ps"]
    summary = output(["top", "-b", "-n", "1"], attr).splitlines()
    print("  " + summary[1])
    assert summary[1].split()[1] == "1"


def message_queue() -> None:
    print("## ipcmk -Q outside, ipcs -q inside")
    made = subprocess.run(["ipcmk", "-Q"], capture_output=True, text=True, check=True).stdout
    number = made.split()[-1]
    try:
        outside = subprocess.run(["ipcs", "-q"], capture_output=True, text=True, check=True).stdout
        inside = output(["ipcs", "-q"], new(zind.CLONE_NEWIPC))
    finally:
        subprocess.run(["ipcrm", "-q", number], check=True)

    def queues(text: str) -> list[str]:
        return [line.split()[1] for line in text.splitlines() if line.startswith("0x")]

    print(f"  queue {number}: outside {queues(outside)}, inside {queues(inside)}")
    assert number in queues(outside) and queues(inside) == []


def host_name() -> None:
    print("## a host name and mounts of its own")
    before = os.uname().nodename
    script = "hostname inner && mount -t tmpfs none /mnt && touch /mnt/x && hostname && ls /mnt"
    text = output(["sh", "-c", script], new(zind.CLONE_NEWUTS | zind.CLONE_NEWNS))
    print(f"  inside: {text.split()}, outside: {before!r}, x in /mnt: {os.path.exists('/mnt/x')}")
    assert text.split() == ["inner", "x"]
    assert os.uname().nodename == before and not os.path.exists("/mnt/x")


pid_namespace()
fresh_proc()
message_queue()
host_name()
