"""Each protection of the default is set by a call that answers "done" and does nothing: the start has to notice, and to fail.

The liar is a seccomp filter around the caller, which the launcher inherits: ``SECCOMP_RET_ERRNO`` with errno 0.
"""

from __future__ import annotations

import json

import pytest

import zind
from kit import ROOT, outside

NUMBERS = dict(
    close_range=436, setsid=112, setgroups=116, setresuid=117, setresgid=119, capset=126, mount=165, prctl=157, sethostname=170,
    setdomainname=171, keyctl=250, unshare=272, setns=308, prlimit64=302, seccomp=317, mount_setattr=442, move_mount=429, pivot_root=155,
    chroot=161, clone=56, fsmount=432, umount2=166,
)

#: Makes the calling process believe that the call ``sys.argv[1]`` (with the first argument ``sys.argv[2]``, unless that is -1) is done.
LIAR = """
import ctypes, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def lie(number, first):
    ret = lambda value: struct.pack("HBBI", 0x06, 0, 0, value)
    load = lambda offset: struct.pack("HBBI", 0x20, 0, 0, offset)
    equal = lambda value, skip: struct.pack("HBBI", 0x15, 0, skip, value)
    code = load(0) + equal(number, 1 if first < 0 else 3)
    code += b"" if first < 0 else load(16) + equal(first, 1)
    code += ret(0x00050000) + ret(0x7fff0000)
    buffer = ctypes.create_string_buffer(code)
    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
    program = Program(len(code) // 8, ctypes.addressof(buffer))
    if libc.prctl(22, 2, ctypes.byref(program), 0, 0):
        libc.prctl(38, 1, 0, 0, 0)
        assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0, ctypes.get_errno()
"""

START = (
    LIAR
    + """
import json, os, zind
options, before = json.loads(sys.argv[3]), json.loads(sys.argv[4])
if before:
    # What all containers share is prepared without a lie.
    zind.run(["true"])
if os.geteuid() == 0:
    # One to drop.
    os.setgroups([0])
lie(int(sys.argv[1]), int(sys.argv[2]))
here = os.open("/", os.O_RDONLY)
os.set_inheritable(here, True)
try:
    result = zind.run(["echo", "the payload ran"], stdin=zind.DEVNULL, **options)
    print("started", result.returncode)
except zind.SysError as error:
    print("refused", error.step, error.filename or "", error)
except Exception as error:
    print("raised", type(error).__name__, error)
"""
)


def told(call: str, first: int = -1, before: bool = True, **options: object) -> str:
    """What comes of a start with a lie; ``before``: not only this start is lied to."""
    result = outside(START, str(NUMBERS[call]), str(first), json.dumps(options), json.dumps(before), check=False)
    assert "the payload ran" not in result.stdout, result.stdout
    return result.stdout.strip() + result.stderr


ANY, SET_DUMPABLE, SET_PDEATHSIG, CAPBSET_DROP, SET_NO_NEW_PRIVS = -1, 4, 1, 24, 38

#: call, first argument, options, the words of the error.
LIES = [
    ("close_range", ANY, {}, ["ReadBack pass_fds", "to be closed, found it open"]),
    ("sethostname", ANY, {}, ["ReadBack hostname"]),
    ("setdomainname", ANY, {"domainname": "there"}, ["ReadBack domainname"]),
    ("setsid", ANY, {}, ["ReadBack setsid"]),
    ("keyctl", ANY, {}, ["ReadBack keyring"]),
    ("prlimit64", 0, {"rlimits": {"nofile": 77}}, ["ReadBack rlimits", "expected 77, found"]),
    ("prlimit64", 0, {"rlimits": {"core": 0}}, ["ReadBack rlimits", "expected 0, found"]),
    ("prctl", CAPBSET_DROP, {}, ["ReadBack capabilities", "bounding: expected none, found CAP_CHOWN"]),
    # An ordinary user's launcher does not come as far without its capabilities.
    ("capset", ANY, {}, ["ReadBack capabilities", "expected none, found"] if ROOT else [""]),
    ("prctl", SET_DUMPABLE, {}, ["ReadBack dumpable", "expected 0, found 1"]),
    ("prctl", SET_PDEATHSIG, {"init": False}, ["ReadBack die_with_owner", "expected 9, found 0"]),
    ("seccomp", ANY, {}, ["ReadBack seccomp", "expected the filter to answer, found none"]),
    ("seccomp", ANY, {"violations": True}, ["ReadBack seccomp"]),
    # The old root is still the root: it is what cannot be unmounted.
    ("pivot_root", ANY, {}, ["Umount /"]),
    ("umount2", ANY, {}, ["PivotRoot"]),
    # Everything behind a mount goes wrong without it, and says so first.
    ("mount_setattr", ANY, {"read_only": True}, ["ReadMount"]),
    ("mount", ANY, {}, [""]),
    ("move_mount", ANY, {}, [""]),
    ("fsmount", ANY, {}, [""]),
]

#: What only root's start does, or what an ordinary user has been given already.
OF_ROOT = [
    ("prctl", SET_NO_NEW_PRIVS, {}, ["ReadBack no_new_privileges"]),
    ("unshare", ANY, {}, ["ReadBack mnt", "expected a new one"]),
    ("setns", ANY, {}, [""]),
    ("setgroups", ANY, {}, ["ReadBack groups", "expected 0, found 1"]),
    ("setresuid", ANY, {"user": "7:8"}, ["ReadBack user", "expected 7, found 0"]),
    ("setresgid", ANY, {"user": "7:8"}, ["ReadBack user", "group: expected 8, found 0"]),
]

@pytest.mark.parametrize(("call", "first", "options", "words"), LIES + (OF_ROOT if ROOT else []), ids=str)
def test_a_call_that_does_nothing_is_noticed(call, first, options, words):
    text = told(call, first, **options)
    assert text.startswith("refused") and all(word in text for word in words), text


@pytest.mark.parametrize("call", ["mount", "move_mount", "mount_setattr", "pivot_root", "seccomp"])
def test_nothing_is_prepared_by_lies(call):
    """Also what the containers of a process share."""
    text = told(call, before=False)
    assert text.startswith("refused"), text


def test_without_a_lie_it_starts():
    """The liar lies of nothing but what it is told to."""
    result = outside(START, str(NUMBERS["chroot"]), "-1", "{}", "true")
    assert result.stdout == "the payload ran\nstarted 0\n", result


def test_with_few_descriptors():
    """Fewer than are looked at."""
    source = "import resource, zind\nresource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))\nprint(zind.run(['true'], stdin=zind.DEVNULL).returncode)"
    assert outside(source).stdout == "0\n"


@pytest.mark.parametrize("name", ["mnt", "seccomp", "capabilities", "masked_paths", "net"])
def test_what_is_required_is_read_from_outside(name):
    options = {"stdin": zind.DEVNULL, "mounts": [zind.Mount.tmpfs("/extra", size="1m"), zind.Mount.bind("/usr", "/data", read_only=True), zind.Mount.tmpfs("/a b\t\\c", size="1m")]}
    assert zind.run(["true"], require={name}, **options).isolation.measured == "outside"
    assert zind.run(["true"], **options).isolation.measured == "inside"


@pytest.mark.parametrize(("call", "first"), [("prctl", CAPBSET_DROP), ("seccomp", ANY)])
def test_what_is_required_and_not_so_is_refused(call, first):
    assert told(call, first, require=["capabilities", "seccomp"]).startswith("refused")
