"""Somebody who must not be harmed, and somebody who may be."""

from __future__ import annotations

import pytest
from scene import CORE_PATTERN, tree

import kit


def _somebody(path):
    (path / "dir").mkdir(parents=True)
    (path / "file").write_text("untouched")
    return path


@pytest.fixture
def victim(tmp_path):
    """A directory of the host that stays as it is, and no mount comes or goes."""
    path = _somebody(tmp_path / "victim")
    before, mounts, pattern = tree(path), kit.mounts(), CORE_PATTERN.read_bytes()
    yield path
    assert tree(path) == before and (path / "file").read_text() == "untouched"
    assert kit.mounts() == mounts
    assert CORE_PATTERN.read_bytes() == pattern


@pytest.fixture
def prey(tmp_path):
    """The same, for what shows that an attack can succeed."""
    return _somebody(tmp_path / "prey")


@pytest.fixture
def source(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_text("data")
    return tmp_path / "source"
