"""``doctor()`` on machines with something in the way: each obstacle is made, in namespaces that are thrown away."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import zind
from kit import PACKAGE, ROOT, child_env, needs_user
from test_report_lies import LIAR

ASK = """
import json, zind
checks = {check["name"]: check for check in zind.doctor().checks}
try:
    started = str(zind.run(["true"], stdin=zind.DEVNULL).returncode)
except zind.Error as error:
    started = str(error)
print(json.dumps({"started": started, **checks}))
"""


def doctor(setup: str, *flags: str, source: str = ASK, drop: bool = False, inner: bool = False, **env: str) -> dict:
    """What it says after ``setup`` in new mount and user namespaces (root: mount namespace only) with these flags besides."""
    user = [] if ROOT else ["-U", "-r"]
    # Neither owner nor capabilities of the files then.
    less = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if drop else []
    # Who cannot take away what the setup has mounted.
    less += ["unshare", "-U", "-r", "-m"] if inner else []
    # The library may lie below a directory that is covered.
    apart = f"mount -t tmpfs tmpfs /srv\nmkdir /srv/package\nmount --bind {PACKAGE} /srv/package\n"
    python = [os.path.realpath(sys.executable), "-c", source]
    command = ["unshare", *user, "-m", *flags, "sh", "-ec", apart + setup + '\nexec "$@"', "sh", *less, *python]
    env = child_env(PYTHONPATH="/srv/package", **env)
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL, env=env)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    # It has tried what a start does.
    assert found["root of a container"]["ok"] is (found["started"] == "0"), found
    return found


def bad(found: dict, name: str, detail: str, cure: str) -> None:
    check = found[name]
    assert not check["ok"] and detail in check["detail"] and cure in check["cure"], check


NOEXEC = "for dir in /run /dev/shm /tmp /var/tmp; do mount -t tmpfs -o noexec,mode=1777 tmpfs $dir; done\n"


def test_nothing_in_the_way():
    found = doctor("true")
    for name in ("root of a container", "executable files", "memfd executable", "overlay", "namespace calls"):
        assert found[name]["ok"], found[name]
    assert found["started"] == "0"


def test_no_user_namespaces():
    found = doctor("echo 0 > /proc/sys/user/max_user_namespaces", *(["-U", "-r"] if ROOT else []))
    bad(found, "user namespace", "max_user_namespaces", "sysctl -w user.max_user_namespaces=")


def test_no_mount_namespaces():
    found = doctor("echo 0 > /proc/sys/user/max_mnt_namespaces", *(["-U", "-r"] if ROOT else []))
    bad(found, "mnt namespace", "at most 0", "sysctl -w user.max_mnt_namespaces=")
    bad(found, "root of a container", "refused", "zind.run")
    assert "doctor" in found["started"] or "limit of namespaces" in found["started"]


def test_memory_files_may_not_be_executed():
    # It is a setting of the pid namespace.
    found = doctor("echo 2 > /proc/sys/vm/memfd_noexec", "-p", "-f", "--mount-proc")
    bad(found, "memfd executable", "vm.memfd_noexec is 2", "sysctl -w vm.memfd_noexec=1")
    assert found["executable files"]["ok"] and found["root of a container"]["ok"] and found["started"] == "0"


def test_a_file_to_execute_is_found_beside_noexec():
    """The places are tried one after the other."""
    setup = "for dir in /run /dev/shm; do mount -t tmpfs -o noexec tmpfs $dir; done\nmount -t tmpfs tmpfs /var/tmp\necho 2 > /proc/sys/vm/memfd_noexec"
    found = doctor(setup, "-p", "-f", "--mount-proc")
    assert "not /run (noexec)" in found["executable files"]["detail"] and found["executable files"]["ok"]
    assert found["started"] == "0"


def test_nothing_may_be_executed():
    found = doctor(NOEXEC + "echo 2 > /proc/sys/vm/memfd_noexec", "-p", "-f", "--mount-proc")
    bad(found, "executable files", "not /tmp (noexec)", "mount -o remount,exec /tmp")
    bad(found, "root of a container", "not tried", "executable files")
    assert "memory file" in found["started"]


def test_noexec_alone_is_in_nobodys_way():
    found = doctor(NOEXEC)
    assert found["executable files"]["ok"] and "not /tmp (noexec)" in found["executable files"]["detail"] and found["started"] == "0"


def test_no_further_overlay():
    """The kernel stacks two, and the third is refused."""
    setup = "mount -t tmpfs tmpfs /mnt\n" + "".join(
        f"mkdir /mnt/u{n} /mnt/w{n}\nmount -t overlay -o lowerdir=/usr,upperdir=/mnt/u{n},workdir=/mnt/w{n},userxattr overlay /usr\n" for n in (1, 2)
    )
    found = doctor(setup)
    bad(found, "root of a container", "overlay", "overlay=False")
    assert found["overlay"]["ok"] and "mount" in found["started"]


def test_a_covered_proc():
    found = doctor("mount --bind /dev/null /proc/uptime")
    bad(found, "/proc visible", "/proc/uptime", "systempaths=unconfined")


def test_a_covered_sys():
    """As in a container of another engine's, whose network namespace is its own."""
    found = doctor("mount -t tmpfs tmpfs /sys/kernel", inner=True)
    bad(found, "root of a container", "mounts cover parts of /sys (/sys/kernel)", "systempaths=unconfined")
    assert "/sys" in found["started"]


def test_no_network_namespaces():
    found = doctor("echo 0 > /proc/sys/user/max_net_namespaces", *(["-U", "-r"] if ROOT else []))
    bad(found, "net namespace", "at most 0", "sysctl -w user.max_net_namespaces=")
    bad(found, "root of a container", "refused", "zind.run")


@pytest.mark.parametrize("flags", [["-U", "-r"], ["-U", "-r", "-n"], ["-U", "-r", "-p", "-f", "--mount-proc"]], ids=" ".join)
def test_one_in_another(flags):
    """A start without a user namespace of its own, in one that somebody else has made."""
    assert doctor("true", *flags)["started"] == "0"


@pytest.mark.parametrize("number", [170, 317, 126, 436, 434], ids=["sethostname", "seccomp", "capset", "close_range", "pidfd_open"])
def test_what_only_the_way_to_the_program_needs_is_tried(number):
    """A filter around it hides a call."""
    doctor("true", source=LIAR.replace("0x00050000)", "0x00050001)") + f"lie({number}, -1)\n" + ASK)


@pytest.mark.parametrize("file", ["/etc/subuid", "/etc/subgid"])
def test_no_ranges_of_ids(file):
    """A file that nobody may read, and one that names somebody else."""
    user = [] if not ROOT else ["-U", "-r"]
    setup = f"mount -t tmpfs tmpfs /mnt\ntouch /mnt/ids\nchmod 0 /mnt/ids\nmount --bind /mnt/ids {file}"
    bad(doctor(setup, *user, drop=True), file, "not readable", "usermod --add-sub")
    setup = f"mount -t tmpfs tmpfs /mnt\necho nobody-else:1000:10 > /mnt/ids\nmount --bind /mnt/ids {file}"
    bad(doctor(setup, *user, drop=True), file, "no range", "usermod --add-sub")


def test_no_helpers_for_ids():
    needs_user("root needs none")
    found = doctor("true", drop=True, PATH="/nowhere")
    bad(found, "newuidmap", "not found on PATH", "package uidmap")


@pytest.mark.parametrize(("number", "name", "detail"), [(272, "namespace calls", "unshare"), (435, "clone3", ""), (437, "openat2", "")])
def test_a_filter_around_it(number, name, detail):
    source = LIAR.replace("0x00050000)", "0x00050001)") + f"lie({number}, -1)\n" + ASK
    bad(doctor("true", source=source), name, detail, "seccomp filter around this process")


def test_it_leaves_nothing(tmp_path):
    before = zind.doctor().checks
    assert zind.doctor().checks == before
