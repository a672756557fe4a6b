"""Bad input: each one is an error of the right class that names the step, the field or path, the errno and what to do."""

from __future__ import annotations

import errno
import os
import pickle

import pytest

import kit
import zind
from kit import refused


def run(*argv, **options):
    return lambda: zind.run(list(argv) or ["true"], capture_output=True, timeout=20, **options)


def test_a_missing_program():
    error = refused(FileNotFoundError, run("no-such-program"), step="Exec", number=errno.ENOENT)
    assert error.filename == "no-such-program" and "/usr/bin" in error.hint
    error = refused(FileNotFoundError, run("/no/such"), step="Exec", number=errno.ENOENT)
    assert error.filename == "/no/such"


def test_a_program_that_is_not_executable():
    refused(PermissionError, run("/etc/passwd"), step="Exec", number=errno.EACCES)
    refused(PermissionError, run("/etc"), step="Exec", number=errno.EACCES)


def test_a_bad_interpreter_line(tiny_root):
    (tiny_root / "script").write_text("#!/no/such/interpreter\n")
    (tiny_root / "script").chmod(0o755)
    refused(FileNotFoundError, run("/script", rootfs=tiny_root), step="Interpreter", number=errno.ENOENT)
    (tiny_root / "text").write_text("echo no first line\n")
    (tiny_root / "text").chmod(0o755)
    refused(zind.SysError, run("/text", rootfs=tiny_root), step="Exec", number=errno.ENOEXEC)


def test_a_directory_that_is_not_there():
    error = refused(FileNotFoundError, run(cwd="/no/such"), step="Chdir", number=errno.ENOENT)
    assert error.filename == "/no/such"
    refused(NotADirectoryError, run(cwd="/etc/passwd"), step="Chdir", number=errno.ENOTDIR)
    refused(zind.SpecError, run(cwd="tmp"), field="cwd")


def test_unknown_users_and_groups():
    for user in ["mallory", "4294967295", "4294967296", "99999999999999999999", "", "root:", 2**32 - 1, 2**32, -1]:
        refused(zind.SpecError, run(user=user), field="user")
    refused(zind.SpecError, run(groups=["nogroup-of-mine"]), field="groups")


@pytest.mark.parametrize(
    ("field", "argv", "options"),
    [
        ("argv", ["a\0b"], {}),
        ("argv", ["true", "a\0b"], {}),
        ("env", ["true"], {"env": {"A": "b\0c"}}),
        ("env", ["true"], {"env": {"A=B": "c"}}),
        ("env", ["true"], {"env": {"": "c"}}),
        ("cwd", ["true"], {"cwd": "/a\0b"}),
        ("hostname", ["true"], {"hostname": "a\0b"}),
        ("hostname", ["true"], {"hostname": "x" * 65}),
        ("argv", [], {}),
        ("argv", [""], {}),
    ],
)
def test_strings_the_kernel_cannot_take(field, argv, options):
    refused(zind.SpecError, lambda: zind.run(argv, **options), field=field)


def test_a_string_is_no_argument_list():
    refused(zind.SpecError, lambda: zind.run("ls -l"), field="argv")


def test_maps():
    overlap = [(0, 1000, 10), (9, 5000, 1)]
    one = [(0, os.geteuid(), 1)]
    refused(zind.SpecError, run(uid_map=overlap, gid_map=one), field="uid_map")
    refused(zind.SpecError, run(uid_map=one, gid_map=[]), field="gid_map")
    refused(zind.SpecError, run(uid_map=one), field="uid_map")
    refused(zind.SpecError, run(uid_map=[(1, 0, 2**32 - 1)], gid_map=one), field="uid_map")
    refused(zind.SpecError, run(uid_map=[(i, i, 1) for i in range(6000)], gid_map=one), field="uid_map")
    refused(zind.SpecError, run(uid_map="single", namespaces={"user": "/proc/self/ns/user"}), field="uid_map")


def test_a_map_the_kernel_refuses():
    kit.needs_user("root may map everything")
    refused(PermissionError, run(uid_map=[(0, 0, 10)], gid_map=[(0, 0, 10)]), step="MapHelper", number=errno.EPERM)


def test_a_path_that_is_no_namespace():
    refused(zind.SysError, run(namespaces={"net": "/etc/passwd"}), step="OpenNamespace", number=errno.ENOTTY)
    refused(FileNotFoundError, run(namespaces={"net": "/no/such"}), step="OpenNamespace", number=errno.ENOENT)
    refused(zind.SpecError, run(namespaces={"net": "/proc/self/ns/uts"}), field="namespaces")
    refused(zind.SpecError, run(namespaces={"nets": "new"}), field="namespaces")
    refused(LookupError, run(namespaces={"net": 2**22 - 1}))


def test_a_fifo_as_namespace_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    refused(zind.SysError, run(namespaces={"net": tmp_path / "fifo"}), step="OpenNamespace", number=errno.ENOTTY)


def test_an_rlimit_above_the_hard_limit():
    error = refused(PermissionError, run(rlimits={"nofile": 2**40}), step="Rlimit", number=errno.EPERM)
    assert error.filename == "nofile"
    refused(zind.SpecError, run(rlimits={"nofile": (10, 5)}), field="rlimits")
    refused(zind.SpecError, run(rlimits={"files": 5}), field="rlimits")


def test_arguments_without_measure():
    refused(zind.SysError, run("true", "x" * (1 << 20)), step="Exec", number=errno.E2BIG)
    refused(zind.SysError, run("true", *["x" * 1000] * 20_000), step="Exec", number=errno.E2BIG)


def test_descriptors_that_are_closed():
    free = os.dup(0)
    os.close(free)
    refused(zind.SysError, run(pass_fds=[free]), step="ArrangeFds", number=errno.EBADF)
    refused(zind.SysError, lambda: zind.run(["true"], stdout=free), step="OpenStdio", number=errno.EBADF)
    refused(zind.SpecError, run(pass_fds=[1]), field="pass_fds")


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("capabilities", {"privileged": True, "capabilities": ["CHOWN"]}),
        ("read_only", {"read_only": True, "overlay": "/tmp/zind-no-such"}),
        ("overlay", {"overlay": False}),
        ("namespaces", {"namespaces": {"mnt": "host"}}),
        ("hostname", {"hostname": "a", "namespaces": {"uts": "host"}}),
        ("init", {"namespaces": {"pid": "/proc/self/ns/pid"}}),
        ("setctty", {"setctty": True, "setsid": False}),
        ("pgid", {"pgid": 5}),
        ("chroot", {"chroot": "/tmp"}),
        ("capabilities", {"capabilities": ["NO_SUCH"]}),
        ("oom_score_adj", {"oom_score_adj": 2000}),
        ("umask", {"umask": 0o1777}),
        ("require", {"require": {"magic"}}),
        ("tmpfs_size", {"tmpfs_size": "large"}),
        ("rootfs", {"rootfs": ""}),
        ("rootfs", {"rootfs": None}),
    ],
)
def test_options_that_exclude_each_other_or_make_no_sense(field, options):
    refused(zind.SpecError, run(**options), field=field)


def test_unknown_options_are_typing_errors_and_later_ones_are_told_apart():
    with pytest.raises(TypeError, match="rootsf"):
        zind.run(["true"], rootsf="/")
    with pytest.raises(zind.UnsupportedError) as info:
        zind.run(["true"], publish=["80:80"])
    assert info.value.feature == "publish" and info.value.needs


def test_a_root_that_is_none(tmp_path):
    refused(FileNotFoundError, run(rootfs="/no/such"), step="OpenSource", number=errno.ENOENT)
    (tmp_path / "file").write_text("")
    refused(NotADirectoryError, run(rootfs=tmp_path / "file"), step="OpenSource", number=errno.ENOTDIR)
    refused(FileNotFoundError, run("/bin/sh", rootfs=tmp_path), step="Exec", number=errno.ENOENT)


def test_what_is_not_in_force_cannot_be_required():
    for options, part in [
        ({"seccomp": None}, "seccomp"),
        ({"network": "host"}, "network"),
        ({"init": False}, "init"),
        ({}, "read_only"),
        ({}, "memory"),
        ({"privileged": True}, "capabilities"),
        ({"no_new_privileges": False}, "no_new_privileges"),
    ]:
        with pytest.raises(zind.UnsupportedError) as info:
            zind.run(["true"], require={part}, **options)
        assert info.value.feature == part


def test_errors_cross_a_process_pool():
    errors = []
    for call in [run("no-such-program"), run(user="mallory"), run(publish="80"), lambda: zind.run(["false"], check=True)]:
        with pytest.raises(zind.Error) as info:
            call()
        errors.append(info.value)
    with pytest.raises(zind.TimeoutExpired) as info:
        zind.run(["sleep", "100"], timeout=0.1)
    errors.append(info.value)
    for error in errors:
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error) and str(copy) == str(error)
        assert copy.__dict__ == error.__dict__
