"""The types of the package hold: mypy --strict, and the stub of the extension against the extension."""

from __future__ import annotations

import importlib.util
import pathlib
import subprocess
import sys

import pytest

import kit
import zind


def mypy(*args: str) -> subprocess.CompletedProcess[str]:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("needs mypy")
    return subprocess.run([sys.executable, "-m", *args], env=kit.child_env(), capture_output=True, text=True, check=False)


@pytest.mark.limit(300)
def test_the_stub_of_the_extension_is_true():
    result = mypy("mypy.stubtest", "zind._zind")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.limit(300)
def test_a_users_program_is_checked(tmp_path):
    good = 'import zind\nr = zind.run(["true"], capture_output=True, user=5, timeout=1.0)\nreveal_type(r)\nk: str = r.exit.kind\n'
    bad = 'import zind\nzind.run(["true"], user=1.5)\nzind.run(["true"], rootsf="x")\n'
    (tmp_path / "good.py").write_text(good)
    (tmp_path / "bad.py").write_text(bad)
    result = mypy("mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(tmp_path / "good.py"))
    assert result.returncode == 0 and "CompletedProcess" in result.stdout, result.stdout
    result = mypy("mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(tmp_path / "bad.py"))
    assert result.returncode == 1 and result.stdout.count("error:") >= 2, result.stdout


def test_everything_named_is_there():
    for name in zind.__all__:
        assert getattr(zind, name) is not None, name
    assert (pathlib.Path(zind.__file__).parent / "py.typed").exists()
