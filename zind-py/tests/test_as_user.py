"""The same promises without privilege: the suite once more, as an ordinary user."""

from __future__ import annotations

import pathlib
import re
import shutil

import pytest

import kit

MODULES = """test_run test_host_root test_rootfs test_layers test_process test_namespaces test_joining test_init test_lowlevel test_procattr
test_security test_seccomp test_mounts test_hot_mounts test_fallbacks test_copy test_volumes test_syscalls test_report test_errors
test_devices test_properties test_crash
test_report_random attacks/test_paths attacks/test_identities attacks/test_joining_attacks attacks/test_kernel_surface
attacks/test_hostile_images attacks/test_host_side attacks/test_memory_attacks
test_owner test_containers test_container_changes test_threads test_aio test_examples test_images test_oci test_sysctl test_landlock test_labels
test_posture test_programs test_report_lies test_hidden_calls""".split()

#: Why a test is skipped there: the powers of root's that each is about. Any other reason fails, and so does one that is gone.
EXPECTED = {
    "needs root: " + what
    for what in (
        "CAP_SYS_NICE",
        "a container without a user namespace",
        "a loop device",
        "an ordinary user's mounts are always protected",
        "a bind mount in the caller's mount namespace",
        "a compiler in root's home",
        "an ordinary user always has one",
        "an ordinary user's marks are user.*",
        "another user with capabilities",
        "another user's id",
        "becoming somebody else",
        "binding a namespace to a file",
        "changing the root",
        "files of root's",
        "files of root's are written",
        "files of the host's root belong to nobody in a user namespace",
        "joining a namespace of another user namespace",
        "making a control group",
        "making a device node",
        "making a set-uid file",
        "mounting in the caller's namespace",
        "numbers of network namespaces",
        "other devices of the host",
        "other ids",
        "the caller's own namespaces",
        "the list of packages belongs to root",
    )
}

#: What a machine may lack.
MISSING = {"needs the program node", "needs the program initdb"}


@pytest.mark.limit(1800)
def test_everything_as_an_ordinary_user(user_python, debian_root):
    home = pathlib.Path(user_python.home) / "suite"
    shutil.copytree(kit.TESTS, home / "zind-py/tests", ignore=shutil.ignore_patterns("__pycache__"))
    examples = kit.TESTS.parents[1] / "examples"
    if examples.is_dir():
        shutil.copytree(examples, home / "examples")
    shutil.copytree(kit.TESTS.parents[1] / "zind-core/tests/oci", home / "zind-core/tests/oci")
    shutil.copytree(kit.PACKAGE / "zind", home / "package/zind", ignore=shutil.ignore_patterns("__pycache__"))
    try:
        files = [home / "zind-py/tests" / f"{name}.py" for name in MODULES]
        path = f"{home}/package:{home}/zind-py/tests:{pathlib.Path(pytest.__file__).parents[1]}"
        result = user_python(
            *("-m", "pytest", "-q", "-rsfE", "-p", "no:cacheprovider", "--rootdir", home, *files),
            timeout=1780,
            PYTHONPATH=path,
            ZIND_TEST_CACHE=str(debian_root.parent),
        )
    finally:
        shutil.rmtree(home)
    out = result.stdout + result.stderr
    assert result.returncode == 0, out[-20_000:]
    assert set(re.findall(r"^SKIPPED \[\d+\] [^:]+:\d+: (.*)$", out, re.MULTILINE)) - MISSING == EXPECTED
