"""What the tests of limits have in common: which tree this is, and who may do what in it."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib

import kit
import pytest

import zind

#: Where the controllers are: on machines with version 1 each has a hierarchy of its own.
V1 = {
    name
    for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines()
    for name in line.split(":")[1].split(",")
    if name and "=" not in name
}
IN_VM = "IN_ZIND_VM" in os.environ
CPUS = sorted(os.sched_getaffinity(0))
MIB = 1 << 20
#: The tree is zind's to write to: a virtual machine without a manager, with the controllers in version 2.
OWN_TREE = IN_VM and kit.ROOT and not os.path.isdir("/run/systemd/system")


def on_v2(controller: str) -> bool:
    return {"io": "blkio"}.get(controller, controller) not in V1


@functools.lru_cache(maxsize=None)
def may(controller: str) -> bool:
    """Whether this user can be given limits of a controller. Root can; an ordinary user what was delegated to them, which is
    found by asking for it: the refusal has to say what it takes."""
    example = {
        "memory": {"memory": "512m"},
        "cpu": {"cpus": 1.0},
        "pids": {"pids": 200},
        "cpuset": {"cpuset": str(CPUS[0])},
        "io": {"io_weight": 100},
    }[controller]
    if kit.ROOT:
        return True
    try:
        zind.run(["true"], resources=zind.Resources(**example))
    except zind.UnsupportedError as error:
        assert controller in error.feature or "control group" in error.feature, error
        assert "elegate" in error.needs or "chown" in error.needs, error
        return False
    return True


def need(controller: str) -> None:
    """The rest of the test is for who may limit this. Where nothing is delegated at all, the module is skipped as a whole;
    a single controller that is missing was tested to be refused, and that is all there is to see."""
    if not may("memory"):
        pytest.skip("needs a delegated subtree: an ordinary user outside of systemd's")
    if not may(controller):
        pytest.skip(f"the {controller} controller is not delegated to this user, and refused")


def run(argv, *, timeout=90, text=True, **resources):
    """A container with these limits."""
    options = {key: resources.pop(key) for key in list(resources) if key in ("devices_", "mounts", "rootfs", "input", "namespaces", "require", "stdin", "overlay", "tmpfs_size", "capabilities", "user", "network", "cgroup_parent")}
    if "devices_" in options:
        options["devices"] = options.pop("devices_")
    options.setdefault("stdin", None if "input" in options else zind.DEVNULL)
    return zind.run(argv, capture_output=True, text=text, timeout=timeout, resources=zind.Resources(**resources), **options)


def python(source: str, *args: str, **resources):
    return run(["/usr/bin/python3", "-S", "-c", source, *args], **resources)


def popen(argv, *, options=None, **resources):
    options = {"stdin": zind.DEVNULL, "stdout": zind.PIPE, "stderr": zind.DEVNULL, **(options or {})}
    return zind.Popen(argv, resources=zind.Resources(**resources), **options)


def file_of(process: zind.Popen[bytes], name: str) -> pathlib.Path:
    """A file of a container's group, in whatever hierarchy it is; of systemd's scope too, it is the group's below it."""
    found = [pathlib.Path(group) / name for group in process.isolation.cgroup if (pathlib.Path(group) / name).exists()]
    assert found, f"no {name} in {process.isolation.cgroup}"
    return found[0]


@contextlib.contextmanager
def parent(name: str, controllers: str, **files: str):
    """A group to make groups in, in a tree of our own."""
    top = pathlib.Path("/sys/fs/cgroup")
    (top / "cgroup.subtree_control").write_text(controllers)
    group = top / f"zind-test-{name}-{os.getpid()}"
    group.mkdir()
    try:
        (group / "cgroup.subtree_control").write_text(controllers)
        for file, text in files.items():
            (group / file.replace("_", ".", 1)).write_text(text)
        yield group
    finally:
        group.rmdir()
