"""The examples run, as whoever runs the tests."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

import kit

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples" / "python"
FOUND = sorted(EXAMPLES.glob("*.py")) if EXAMPLES.is_dir() else []


@pytest.mark.limit(120)
@pytest.mark.parametrize("example", FOUND, ids=lambda path: path.stem)
def test_example(example):
    result = subprocess.run(
        [sys.executable, str(example)], env=kit.child_env(), capture_output=True, text=True, timeout=110, check=False,
        stdin=subprocess.DEVNULL,
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    assert result.stdout.strip()
