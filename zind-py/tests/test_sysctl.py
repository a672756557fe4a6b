"""Kernel parameters of the container's own namespaces."""

from __future__ import annotations

import errno
import os
import pathlib

import pytest

import kit
import zind

NET = {"net.core.somaxconn": 77, "net/ipv4/ip_forward": "1", "net.ipv4.ping_group_range": "0 0", "net.ipv4.conf.lo.forwarding": 1}
IPC = {"kernel.shmmax": 12345, "kernel.sem": "10 20 30 40", "kernel.msgmnb": "999", "fs.mqueue.msg_max": "7"}
OURS = ["net/core/somaxconn", "net/ipv4/ip_forward", "kernel/shmmax", "kernel/sem", "kernel/domainname", "fs/mqueue/msg_max"]


def read(*names: str, **options) -> list[str]:
    """What a container finds below /proc/sys."""
    script = "".join(f"cat /proc/sys/{name}; " for name in names)
    result = zind.run(["sh", "-c", script], capture_output=True, text=True, check=True, **options)
    return [line.replace("\t", " ") for line in result.stdout.splitlines()]


@pytest.fixture(autouse=True)
def ours_stay_as_they_are():
    before = {name: pathlib.Path("/proc/sys", name).read_text() for name in OURS}
    yield
    assert {name: pathlib.Path("/proc/sys", name).read_text() for name in OURS} == before


@pytest.mark.parametrize("options", [{}, {"namespaces": {"user": "new"}}, {"init": False}, {"namespaces": {"pid": "host"}, "init": False}])
def test_parameters_are_set_before_the_program_is_there(options):
    names = ["net/core/somaxconn", "net/ipv4/ip_forward", "net/ipv4/conf/lo/forwarding", "kernel/shmmax", "kernel/sem", "kernel/msgmnb"]
    assert read(*names, "fs/mqueue/msg_max", sysctl={**NET, **IPC}, **options) == ["77", "1", "1", "12345", "10 20 30 40", "999", "7"]


def test_the_name_of_the_domain_and_limits_of_user_namespaces():
    assert read("kernel/domainname", sysctl={"kernel.domainname": "example.org"}) == ["example.org"]
    limits = {"user.max_user_namespaces": 0, "user.max_net_namespaces": 3}
    found = read("user/max_user_namespaces", "user/max_net_namespaces", sysctl=limits, namespaces={"user": "new"})
    assert found == ["0", "3"]


def test_they_are_reported():
    with zind.Popen(["true"], sysctl=NET) as process:
        assert process.isolation["sysctl"] == {name: str(value) for name, value in NET.items()}
    assert zind.run(["true"]).isolation["sysctl"] == {}


def test_a_joined_namespace_is_changed_and_ours_is_not():
    kit.needs_root("joining a namespace of another user namespace")
    with zind.Popen(["cat"], stdin=zind.PIPE) as other:
        inner = {"net": f"/proc/{other.pid}/ns/net"}
        assert read("net/core/somaxconn", namespaces=inner, sysctl={"net.core.somaxconn": 79}) == ["79"]
        assert read("net/core/somaxconn", namespaces=inner) == ["79"]


def test_ours_by_any_name_is_not():
    for namespaces in ({"net": "host"}, {"net": "/proc/self/ns/net"}, {"net": f"/proc/{os.getpid()}/ns/net"}):
        call = lambda namespaces=namespaces: zind.run(["true"], namespaces=namespaces, sysctl=NET)  # noqa: E731
        assert "caller's" in str(kit.refused(zind.SpecError, call, field="sysctl"))


@pytest.mark.parametrize(
    "parameters, said",
    [
        ({"kernel.core_pattern": "|/x"}, "whole machine"),
        ({"vm.swappiness": 1}, "whole machine"),
        ({"kernel.hostname": "x"}, "hostname"),
        ({"user.max_user_namespaces": 0}, "user namespace"),
        ({"net.ipv4/../../kernel/core_pattern": "x"}, "empty part"),
        ({"net/../kernel/core_pattern": "x"}, '".."'),
        ({"net.core.somaxconn": "1\n2"}, "one line"),
        ({"net.core.somaxconn": ""}, "one line"),
        ({"net.core.somaxconn": 1, "net/core/somaxconn": 2}, "twice"),
        ({"somaxconn": 1}, "no parts"),
    ],
)
def test_what_is_no_parameter_of_a_namespace_is_refused(parameters, said):
    if said == "user namespace":
        kit.needs_root("an ordinary user always has one")
    error = kit.refused(zind.SpecError, lambda: zind.run(["true"], sysctl=parameters), field="sysctl")
    assert said in str(error) and (said == "twice" or next(iter(parameters)) in str(error)), error


def test_what_the_kernel_refuses_is_told_with_name_and_cure():
    for parameters, number in [({"net.core.no_such_thing": 1}, errno.ENOENT), ({"net.core.somaxconn": "many"}, errno.EINVAL)]:
        call = lambda parameters=parameters: zind.run(["true"], sysctl=parameters)  # noqa: E731
        error = kit.refused(zind.SysError, call, step="Sysctl", number=number)
        assert str(error.filename).endswith(next(iter(parameters)).replace(".", "/")), error
    for wrong in ("a=b", 5, {"net.core.somaxconn": 1.5}, {"net.core.somaxconn": True}, {1: "x"}):
        with pytest.raises(TypeError):
            zind.run(["true"], sysctl=wrong)


def test_a_root_whose_proc_is_a_trap_changes_nothing(tiny_root):
    # CVE-2025-52881, CVE-2019-19921: the parameters go to the kernel, whatever the container's root has at /proc.
    trap = tiny_root / "trap"
    (trap / "sys/net/core").mkdir(parents=True)
    (trap / "sys/net/core/somaxconn").write_text("trap")
    mounts = [zind.Mount.bind(trap / "sys", "/proc/sys")]
    script = ["sh", "-c", "cat /proc/sys/net/core/somaxconn"]
    result = zind.run(script, rootfs=tiny_root, mounts=mounts, capture_output=True, sysctl={"net.core.somaxconn": 80})
    assert result.stdout.strip() == b"trap", result
    assert (trap / "sys/net/core/somaxconn").read_text() == "trap"
