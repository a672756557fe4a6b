"""Maturin's build backend, and before each wheel the command ``zind`` for it: so ``pip install .`` brings both.

Maturin makes wheels of a module or of a program, not of both; what lies in ``data/scripts`` goes into the wheel as it is. A
``[project.scripts]`` entry would start Python first, which takes longer than the container.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import maturin
from maturin import (  # noqa: F401  (hooks of PEP 517 and PEP 660)
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

HERE = pathlib.Path(__file__).resolve().parent


def _command(config_settings: Any) -> None:
    """Puts the command where maturin takes it from."""
    target = HERE / "data" / "scripts" / "zind"
    if not (HERE.parent / "zind-cli" / "Cargo.toml").exists():
        print(
            "zind: this source archive has no zind-cli, so the wheel comes without the command `zind`: "
            "build it from the repository, or `cargo install zind-cli`",
            file=sys.stderr,
        )
        return
    given = " ".join(maturin.get_maturin_pep517_args(config_settings)).replace("=", " ")
    profile = given.split("--profile ")[1].split()[0] if "--profile " in given else "release"
    build = ["cargo", "build", "--locked", "--profile", profile, "-p", "zind-cli", "--message-format", "json-render-diagnostics"]
    print(f"Running `{' '.join(build)}`")
    sys.stdout.flush()
    done = subprocess.run(build, cwd=HERE.parent, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"zind: the command was not built: cargo ended with {done.returncode}")
    marker = '"executable":"'
    built = [line.split(marker)[1].split('"')[0] for line in done.stdout.splitlines() if marker in line]
    if not built:
        raise SystemExit("zind: the command was not built: cargo names no executable")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name("zind.part")
    shutil.copy(built[-1], part)
    if profile == "release" and shutil.which("strip"):
        subprocess.run(["strip", part], check=True)
    os.replace(part, target)


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """The wheel, with the command."""
    _command(config_settings)
    return maturin.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """The same for ``pip install -e .``"""
    _command(config_settings)
    return maturin.build_editable(wheel_directory, config_settings, metadata_directory)
