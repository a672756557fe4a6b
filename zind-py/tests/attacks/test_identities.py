"""Who a program becomes: numbers that are names, numbers that wrap, databases that are no files."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import careless
import pytest
from scene import archive, entry, start

import kit
import zind
from kit import needs_root, sh

RANGES = {} if kit.ROOT else {"uid_map": "auto", "gid_map": "auto"}
NUMBERS = ["1000", "2147483648", "4294967294", "4294967295", "4294967296", "8589934592", "00", "-1", "+1000", "1e3", "0x0"]


@pytest.fixture
def hostile_root(tiny_root):
    """Each number is the name of a root."""
    with open(tiny_root / "etc/passwd", "a") as file:
        file.writelines(f"{number}:x:0:0::/:/bin/sh\n" for number in NUMBERS)
    with open(tiny_root / "etc/group", "a") as file:
        file.writelines(f"{number}:x:0:\n" for number in NUMBERS)
    return tiny_root


def test_a_careless_lookup_makes_root_of_a_number(hostile_root):
    """CVE-2016-3697 and CVE-2024-40635, CVE-2026-46680 on who asks for the name first, or counts in 32 bits."""
    assert careless.user(hostile_root, "1000") == careless.user(hostile_root, "4294967296") == 0
    (hostile_root / "etc/passwd").write_text("")
    assert careless.user(hostile_root, "4294967296") == 0


def become(number: str, root, **options):
    """The number that a user of this name has inside; None if it was refused."""
    try:
        return int(zind.run(["/bin/id", "-u"], rootfs=root, user=number, stdin=zind.DEVNULL, capture_output=True, check=True, **RANGES, **options).stdout)
    except zind.Error as error:
        assert isinstance(error, zind.SpecError) and error.field == "user" or isinstance(error, zind.SysError) and error.step in ("Setuid", "Setgroups", "Setgid"), error
        assert number.partition(":")[2] in str(error) or isinstance(error, zind.SysError)
        return None


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("how", ["user", "user and group"])
def test_no_number_becomes_root(number, how, hostile_root):
    """CVE-2016-3697, CVE-2024-40635, CVE-2026-46680: it is that number, or it is refused."""
    wanted = int(number) if number.isdigit() and int(number) < 2**32 - 1 else None
    found = become(number if how == "user" else f"7:{number}", hostile_root)
    if number in ("-1", "+1000", "1e3", "0x0"):
        # Names, which the database has: what they are is the image's to say.
        assert found in (0, 7, None)
    elif how == "user":
        # An ordinary user's range ends somewhere.
        assert found == wanted or (not kit.ROOT and found is None)
    elif wanted is None:
        assert found is None


@pytest.mark.parametrize("number", ["4294967295", "4294967296", "8589934592"])
def test_no_number_of_a_program_in_a_container_becomes_root(number, hostile_root):
    """CVE-2024-40635 for exec, where runtimes forgot it."""
    with zind.Popen(["/bin/sleep", "600"], rootfs=hostile_root, stdin=zind.DEVNULL) as p:
        try:
            for user in (number, f"0:{number}", int(number)):
                with pytest.raises((zind.SpecError, OverflowError)):
                    p.exec(["/bin/true"], user=user)
        finally:
            p.kill()
    del p._process


@pytest.mark.parametrize("number", ["1000", "4294967295", "4294967296"])
def test_no_number_of_an_image_becomes_root(number, tmp_path):
    """CVE-2026-46680: the user is the image's to choose, and so is its database."""
    busybox = open("/usr/bin/busybox", "rb").read()
    files = [entry("etc/"), entry("etc/passwd", data=f"{number}:x:0:0::/:/bin/sh\n".encode()), entry("busybox", data=busybox, mode=0o755)]
    store = zind.Store(tmp_path / "store")
    image = store.import_rootfs(archive(tmp_path / "root.tar", files), config={"User": number, "Cmd": ["/busybox", "id", "-u"]})
    if number == "1000":
        assert zind.run(image=image, capture_output=True, check=True, **RANGES).stdout == b"1000\n"
    else:
        kit.refused(zind.SpecError, lambda: zind.run(image=image, **RANGES), field="user")


# --- groups ------------------------------------------------------------------------------------------------------------
GROUPS = "grep ^Groups: /proc/self/status"


def test_groups_are_exactly_those_of_the_image(tmp_path):
    """CVE-2023-25173: groups of the caller stay, or those of the user are missing."""
    needs_root("other ids")
    busybox = open("/usr/bin/busybox", "rb").read()
    passwd = b"root:x:0:0::/:/\nweb:x:33:34::/:/bin/sh\n"
    group = b"www:x:34:\nstaff:x:50:web\nother:x:51:root\naudio:x:63:a,web\n"
    files = [entry("etc/"), entry("etc/passwd", data=passwd), entry("etc/group", data=group), entry("bin/"), entry("bin/busybox", data=busybox, mode=0o755)]
    files += [entry("bin/sh", link="busybox"), entry("bin/grep", link="busybox")]
    image = zind.Store(tmp_path / "store").import_rootfs(archive(tmp_path / "root.tar", files), config={"Env": ["PATH=/bin"]})
    wanted = {"web": "50 63", "33": "50 63", "web:www": "", "33:0": "", "0": "", "4:50": ""}
    source = """
import json, os, sys, zind
os.setgroups([4, 24, 27])
wanted = json.loads(sys.argv[2])
for user in wanted:
    r = zind.run(["sh", "-c", sys.argv[3]], image=zind.Store(sys.argv[1]).images()[0], user=user, capture_output=True, text=True, check=True)
    found = " ".join(r.stdout.split()[1:])
    assert found == wanted[user], (user, found)
# The attack: who does nothing about groups has the caller's.
p = zind.spawn(["sh", "-c", sys.argv[3]], stdout=zind.PIPE)
found = p.stdout.read().split()[1:]
p.wait()
assert found == [b"4", b"24", b"27"], found
"""
    import json

    kit.outside(source, str(tmp_path / "store"), json.dumps(wanted), GROUPS)
    assert image.id


# --- databases that are no files ------------------------------------------------------------------------------------------
TRAPS = ["fifo", "zeros", "link", "relative link", "device", "large", "directory", "loop", "socket"]


def set_trap(path, trap, to) -> None:
    path.unlink()
    if trap == "fifo":
        os.mkfifo(path)
    elif trap == "zeros":
        path.symlink_to("/dev/zero")
    elif trap == "device":
        os.mknod(path, 0o20666, os.makedev(1, 5))
    elif trap in ("link", "relative link"):
        path.symlink_to(to if trap == "link" else os.path.relpath(to, path.parent))
    elif trap == "large":
        with open(path, "w") as file:
            file.write("web:x:0:0::/:/bin/sh\n")
            file.truncate(1 << 30)
    elif trap == "directory":
        path.mkdir()
    elif trap == "loop":
        path.symlink_to(path.name)
    else:
        here = os.getcwd()
        os.chdir(path.parent)
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
        os.chdir(here)


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("name", ["passwd", "group"])
def test_databases_that_are_traps(name, trap, tiny_root, victim):
    """CVE-2024-9676: the host reads them, and hangs, runs out of memory or tells what it has read."""
    if trap == "device":
        needs_root("making a device node")
    secret = victim.parent / "secret"
    secret.write_text("web:x:0:0::/:/bin/sh\nwheel:x:0:\n")
    set_trap(tiny_root / "etc" / name, trap, secret)
    user = "web" if name == "passwd" else "33:wheel"
    source = """
import resource, sys, time, zind
zind.run(["true"])
before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
try:
    zind.run(["/bin/true"], rootfs=sys.argv[1], user=sys.argv[2], stdin=zind.DEVNULL)
    print("started")
except zind.Error as error:
    print(type(error).__name__, getattr(error, "field", ""), str(error).replace("\\n", " "))
took, grown = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
assert grown < 32 << 10, grown
"""
    said = kit.outside(source, str(tiny_root), user, timeout=30).stdout
    assert said.startswith("SysError" if trap == "loop" else "SpecError") and "secret" not in said.replace(str(secret), ""), said


def test_a_careless_reader_hangs_and_tells(tiny_root, tmp_path):
    """The test above can fail: the same traps for who opens the file of the root."""
    (tmp_path / "secret").write_text("web:x:0:0::/:/bin/sh\n")
    set_trap(tiny_root / "etc/passwd", "link", tmp_path / "secret")
    assert careless.user(tiny_root, "web") == 0
    set_trap(tiny_root / "etc/passwd", "fifo", None)
    command = [sys.executable, "-c", "import careless, sys; careless.user(sys.argv[1], 'web')", str(tiny_root)]
    environment = kit.child_env(PYTHONPATH=os.path.dirname(careless.__file__))
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(command, env=environment, timeout=1, check=False)


# --- maps ----------------------------------------------------------------------------------------------------------------
def test_a_long_map_is_refused_as_a_whole():
    """CVE-2021-43784: lengths of 16 bits, past which the rest of a map is read as something else."""
    needs_root("other ids")
    maps = [(number, 100_000 + number, 1) for number in range(6000)]
    began = time.monotonic()
    error = start(uid_map=maps, gid_map=maps)
    assert isinstance(error, zind.Error) and time.monotonic() - began < 20, error
    for name in ("x" * 70_000, "x" * 65):
        assert isinstance(start(hostname=name), zind.SpecError)
    # Those that the kernel takes are all there, in order.
    maps = [(2 * number, 100_000 + number, 1) for number in range(250)]
    shown = sh("cat /proc/self/uid_map", uid_map=maps, gid_map=maps)
    assert [tuple(map(int, line.split())) for line in shown.splitlines()] == maps


def test_a_careless_length_of_16_bits_hides_a_map():
    """The test above can fail: a message with such a length, read again."""
    import struct

    filler = b"x" * (0x10000 - 4)
    hidden = struct.pack("<HH", 12, 7) + b"0 0 9999"
    message = struct.pack("<HH", (4 + len(filler) + len(hidden)) & 0xFFFF, 1) + filler + hidden
    # The reader takes the first attribute for a short one, and goes on in what its bytes say.
    (length, _), = struct.iter_unpack("<HH", message[:4])
    assert length == 12 and len(message) > 0xFFFF
