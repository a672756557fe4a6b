"""The same promises without privilege: the suite once more, as an ordinary user."""

from __future__ import annotations

import pathlib
import re
import shutil

import pytest

import kit

MODULES = """test_run test_host_root test_rootfs test_process test_namespaces test_init test_lowlevel test_security test_errors
test_aio test_examples""".split()

#: Why a test may be skipped there, and nothing else.
EXPECTED = ("needs root: ",)


@pytest.mark.limit(900)
def test_everything_as_an_ordinary_user(user_python, tmp_path_factory):
    home = pathlib.Path(user_python.home) / "suite"
    shutil.copytree(kit.TESTS, home / "zind-py/tests", ignore=shutil.ignore_patterns("__pycache__"))
    examples = kit.TESTS.parents[1] / "examples"
    if examples.is_dir():
        shutil.copytree(examples, home / "examples")
    shutil.copytree(kit.PACKAGE / "zind", home / "package/zind", ignore=shutil.ignore_patterns("__pycache__"))
    try:
        files = [home / "zind-py/tests" / f"{name}.py" for name in MODULES]
        path = f"{home}/package:{home}/zind-py/tests:{pathlib.Path(pytest.__file__).parents[1]}"
        result = user_python(
            "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "--rootdir", home, *files, timeout=880, PYTHONPATH=path
        )
    finally:
        shutil.rmtree(home)
    out = result.stdout + result.stderr
    assert result.returncode == 0, out[-20_000:]
    skips = re.findall(r"^SKIPPED \[\d+\] [^:]+:\d+: (.*)$", out, re.MULTILINE)
    assert all(reason.startswith(EXPECTED) for reason in skips), skips
