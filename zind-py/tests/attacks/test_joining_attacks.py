"""Attacks on whoever joins a container: its descriptors, its memory, its program, the directory it goes to."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import shutil
import subprocess

import careless
import pytest
from scene import archive, entry, start

import kit
import zind
from kit import needs_root


@contextlib.contextmanager
def box(argv=("sleep", "600"), **options):
    process = zind.Popen(list(argv), stdin=zind.DEVNULL, **options)
    try:
        yield process
    finally:
        process.kill()
        with process:
            pass
        del process._process


# --- descriptors that come along -----------------------------------------------------------------------------------------
TAKE = "for n in /proc/self/fd/*; do cat $n/file 2>/dev/null; cat $n/../victim/file 2>/dev/null; done; true"


def test_no_descriptor_comes_along(victim):
    """CVE-2016-8649, CVE-2024-21626: a directory of the host's that the caller has open, and does not close on exec."""
    fd = os.open(victim, os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(fd, True)
    try:
        assert kit.sh(TAKE) == ""
        # The attack: with the descriptor it reads the victim.
        assert "untouched" in kit.sh(TAKE, pass_fds=[fd])
        with box() as p:
            found = p.exec(["sh", "-c", TAKE], capture_output=True, stdin=zind.DEVNULL)
            assert (found.returncode, found.stdout) == (0, b"")
            given = p.exec(["sh", "-c", TAKE], capture_output=True, stdin=zind.DEVNULL, pass_fds=[fd])
            assert b"untouched" in given.stdout
    finally:
        os.close(fd)


def test_a_careless_directory_is_outside_of_the_root(tiny_root, prey):
    """CVE-2024-21626 on who enters the root with what is open, and then the directory that the image asks for."""
    fd = os.open(prey, os.O_RDONLY | os.O_DIRECTORY)
    try:
        head = careless.NOBODY_SEES if kit.ROOT else [*careless.NOBODY_SEES, "--user", "--map-root-user"]
        command = [*head, "python3", careless.__file__, "enter", str(tiny_root), f"/proc/self/fd/{fd}", "file"]
        found = subprocess.run(command, pass_fds=[fd], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    finally:
        os.close(fd)
    assert found.stdout == "untouched\n"


@pytest.mark.parametrize("form", ["itself", "link", "program"])
def test_no_directory_of_an_image_is_a_descriptor(form, tmp_path, victim):
    """CVE-2024-21626: the image's directory is /proc/self/fd/N, for every N that could be."""
    busybox = open("/usr/bin/busybox", "rb").read()
    script = b"#!/bin/busybox sh\ncat ../../../../../../..%s/file file\n" % os.fsencode(victim)
    files = [entry("bin/"), entry("bin/busybox", data=busybox, mode=0o755), entry("proc/"), entry("show", data=script, mode=0o755)]
    files += [entry(f"to{number}", link=f"/proc/self/fd/{number}") for number in range(3, 32)]
    tar = archive(tmp_path / "root.tar", files)
    # What it would lead to, were it left open.
    fd = os.open(victim, os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(fd, True)
    try:
        if form == "program":
            root = tmp_path / "root"
            root.mkdir()
            subprocess.run(["tar", "-C", root, "-xf", tar, "--no-same-owner"], check=True)
            with box(["/bin/busybox", "sleep", "600"], rootfs=root) as p:
                for number in range(3, 32):
                    for cwd in (f"/proc/self/fd/{number}", f"/to{number}"):
                        kit.refused(zind.SysError, lambda cwd=cwd: p.exec(["/bin/busybox", "pwd"], cwd=cwd), step="Chdir")
            return
        store = zind.Store(tmp_path / "store")
        for number in range(3, 32):
            cwd = f"/proc/self/fd/{number}" if form == "itself" else f"/to{number}"
            image = store.import_rootfs(tar, config={"WorkingDir": cwd, "Cmd": ["/show"]})
            end = start((), image=image, capture_output=True)
            # Made inside, if the name is free there; else refused.
            assert isinstance(end, zind.Error) or (b"untouched" not in end.stdout and end.returncode), (cwd, end)
    finally:
        os.close(fd)


# --- who waits inside for somebody to join -------------------------------------------------------------------------------
WAIT = """
import os, time
own = os.getpid()
print("ready", flush=True)
end = time.monotonic() + 20
while time.monotonic() < end:
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in (1, own): continue
        try:
            for fd in os.listdir(f"/proc/{name}/fd"):
                if int(fd) > 2:
                    print("found", open(f"/proc/{name}/fd/{fd}/file").read(), flush=True)
                    raise SystemExit
        except OSError: pass
"""


def test_a_careless_joiner_is_robbed(prey):
    """CVE-2016-9962 and CVE-2016-8649 on nsenter(1), which can be traced and keeps its descriptors: the program that waits inside
    takes the directory that it has open."""
    needs_root("a container without a user namespace")
    fd = os.open(prey, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with box(["/usr/bin/python3", "-c", WAIT], stdout=zind.PIPE, text=True, capabilities=["SYS_PTRACE"]) as p:
            assert p.stdout.readline() == "ready\n"
            with subprocess.Popen(["nsenter", "-t", str(p.pid), "-m", "-p", "sleep", "30"], pass_fds=[fd], stdin=subprocess.DEVNULL) as joined:
                try:
                    assert p.stdout.readline() == "found untouched\n"
                finally:
                    with contextlib.suppress(ProcessLookupError):
                        for pid, (_, parent, _) in kit.processes().items():
                            if parent == joined.pid:
                                os.kill(pid, 9)
    finally:
        os.close(fd)


REPLACE = """
import os, time
own, kept = os.getpid(), {}
print("ready", flush=True)
while not os.path.exists("/tmp/stop"):
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in (1, own):
            try:
                path = os.readlink(f"/proc/{name}/exe")
                if path not in kept: kept[path] = os.open(f"/proc/{name}/exe", os.O_RDONLY)
            except OSError: pass
for path, fd in kept.items():
    for _ in range(100):
        try:
            handle = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
            os.write(handle, b"#!/bin/sh\\n")
            print("written", path, flush=True)
            break
        except OSError:
            time.sleep(0.01)
print("end", flush=True)
"""


def ours() -> dict[str, str]:
    """What is installed of zind, by its bytes."""
    files = [path for path in pathlib.Path(zind.__file__).parent.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("joiner", ["careless", "zind"])
def test_the_program_that_joins_is_overwritten(joiner, tmp_path):
    """CVE-2019-5736: the container keeps /proc/PID/exe of who joined, and writes to it afterwards. It works on a copy of nsenter(1)."""
    needs_root("a container without a user namespace")
    tool, before = tmp_path / "nsenter-copy", ours()
    shutil.copy("/usr/bin/nsenter", tool)
    stop = f"/proc/{{}}/root/tmp/stop"
    with box(["/usr/bin/python3", "-c", REPLACE], stdout=zind.PIPE, text=True, capabilities=["SYS_PTRACE", "DAC_OVERRIDE"]) as p:
        assert p.stdout.readline() == "ready\n"
        for _ in range(6):
            if joiner == "zind":
                p.exec(["true"])
                # A program of the image's that is the launcher's own.
                p.exec(["/proc/self/exe"])
            else:
                # In there it executes itself once more, and waits for what it has started, where the container sees it.
                command = [tool, "-t", str(p.pid), "-m", "-p", "--", "/proc/self/exe", "-t", "1", "-p", "sleep", "0.3"]
                subprocess.run(command, check=True, capture_output=True)
        pathlib.Path(stop.format(p.pid)).touch()
        said = []
        while not said or said[-1] != "end\n":
            said.append(p.stdout.readline())
            assert said[-1], said
    assert ours() == before
    written = [line.split()[1] for line in said if line.startswith("written")]
    if joiner == "zind":
        assert not any("zind" in path for path in written), said
        assert start().returncode == 0
    else:
        assert tool.read_bytes().startswith(b"#!/bin/sh"), said


def test_a_program_of_the_image_that_is_the_runtime(tiny_root):
    """CVE-2019-5736: the entrypoint is /proc/self/exe. It is the launcher then, which does nothing for who has no plan of its own, and
    cannot be written to."""
    before = ours()
    end = start(("/proc/self/exe",), rootfs=tiny_root)
    assert isinstance(end, zind.Error) or end.returncode != 0
    assert ours() == before
