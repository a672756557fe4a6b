"""What ``pip install .`` builds besides the module, with a cargo and a maturin that only say what they were asked."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

BACKEND = pathlib.Path(__file__).parents[1] / "build_backend.py"

MATURIN = """
import os
def get_maturin_pep517_args(settings=None): return os.environ.get("MATURIN_PEP517_ARGS", "").split()
def build_wheel(*given): return "the wheel"
build_sdist = build_editable = get_requires_for_build_editable = get_requires_for_build_sdist = build_wheel
get_requires_for_build_wheel = prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel = build_wheel
"""
CARGO = """#!/bin/sh
echo "$@" > "$ASKED"
[ -z "$FAILS" ] || exit 101
echo '{"reason":"compiler-artifact","executable":null}'
printf '{"reason":"compiler-artifact","executable":"%s"}\\n' "$BUILT"
"""


def build(tmp_path: pathlib.Path, **env: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "bin").mkdir(exist_ok=True)
    (tmp_path / "zind-py").mkdir(exist_ok=True)
    shutil.copy(BACKEND, tmp_path / "zind-py")
    (tmp_path / "zind-py/maturin.py").write_text(MATURIN)
    cargo = tmp_path / "bin/cargo"
    cargo.write_text(CARGO)
    cargo.chmod(0o755)
    script = "import sys; sys.path.insert(0, sys.argv[1]); import build_backend; print(build_backend.build_wheel('.'))"
    env = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "ASKED": str(tmp_path / "asked"), "BUILT": str(tmp_path / "built"), **env}
    argv = [sys.executable, "-c", script, tmp_path / "zind-py"]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)


def test_the_command_is_built_before_the_wheel(tmp_path):
    (tmp_path / "zind-cli").mkdir()
    (tmp_path / "zind-cli/Cargo.toml").touch()
    shutil.copy("/bin/true", tmp_path / "built")
    done = build(tmp_path)
    assert done.returncode == 0 and done.stdout.endswith("the wheel\n"), done.stderr
    asked = (tmp_path / "asked").read_text()
    assert "build --locked --profile release -p zind-cli" in asked
    command = tmp_path / "zind-py/data/scripts/zind"
    assert os.access(command, os.X_OK) and subprocess.run([command], check=False).returncode == 0
    assert build(tmp_path, MATURIN_PEP517_ARGS="--profile dev").returncode == 0
    assert "--profile dev" in (tmp_path / "asked").read_text()
    failed = build(tmp_path, FAILS="1")
    assert failed.returncode and "the command was not built" in failed.stderr


def test_without_its_sources_it_says_so(tmp_path):
    done = build(tmp_path)
    assert done.returncode == 0 and done.stdout.endswith("the wheel\n")
    assert "without the command" in done.stderr and not (tmp_path / "asked").exists()
