"""The checks of ``make lint`` over sources and dependencies find what they are there for."""

from __future__ import annotations

import importlib.util
import pathlib

import pytest

CHECKS = pathlib.Path(__file__).resolve().parents[2] / ".ci"


def _load(name: str):
    spec = importlib.util.spec_from_file_location(name, CHECKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("licence", "is_allowed"),
    [
        ("MIT", True),
        ("MIT/Apache-2.0", True),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only AND MIT", False),
        ("(MIT OR Apache-2.0) AND NCSA", False),
        ("Apache-2.0 WITH LLVM-exception OR GPL-2.0", True),
        ("Apache-2.0 WITH another", False),
        ("MIT OR", False),
        ("(MIT", False),
        ("", False),
        (None, False),
    ],
)
def test_a_licence_is_read_as_spdx_has_it(licence, is_allowed):
    check = _load("dependencies")
    assert check.allowed(licence, check.SHIPPED) == is_allowed


def _crate(name: str, licence: str | None, dependencies=()) -> dict:
    return {"id": name, "name": name, "version": "1.0.0", "license": licence, "targets": [{"kind": ["lib"]}], "dependencies": [{"name": dep} for dep in dependencies]}


def _data(licence: str | None = "MIT") -> dict:
    kinds = [{"kind": None}]
    nodes = [{"id": "zind-core", "deps": [{"pkg": "good", "dep_kinds": kinds}]}, {"id": "good", "deps": []}]
    return {"packages": [_crate("zind-core", "MIT", ["good"]), _crate("good", licence)], "workspace_members": ["zind-core"], "resolve": {"nodes": nodes}}


def test_what_is_wrong_with_a_crate_is_told_by_its_name():
    check = _load("dependencies")
    entry = '[[package]]\nname = "good"\nsource = "{}"\n{}\n'
    lock = entry.format(check.CRATES_IO, 'checksum = "x"')
    document = "| `good` 1 | zind-core | it |\n" + check.table(check.crates(_data()))
    assert check.problems(_data(), document, lock, {}) == []
    other = "git+https://example.org/good"
    for found, words in (
        (check.problems(_data(), document, entry.format(other, ""), {}), [other]),
        (check.problems(_data(), document, entry.format(check.CRATES_IO, ""), {}), ["checksum"]),
        (check.problems(_data(), document, '[[package]]\nname = "good"\n', {}), ["from a path"]),
        (check.problems(_data("GPL-3.0-only"), document, lock, {}), ["GPL-3.0-only", "--write"]),
        (check.problems(_data(), document.replace("| `good` 1 |", "| |"), lock, {}), ["no line"]),
        (check.problems(_data(), document, lock, {"other": None}), ["no line", "licence None"]),
    ):
        assert len(found) == len(words) and all(word in line for word, line in zip(words, found, strict=True)), found


def test_an_unsafe_block_needs_its_room_and_its_reason():
    check = _load("unsafe_code")
    bare = "fn f() {\n    unsafe { g() }\n}\n"
    good = "fn f() {\n    // SAFETY: g demands nothing.\n    unsafe { g() }\n}\n"
    longer = "fn f() {\n    // SAFETY: g demands nothing,\n    // and never did.\n    let x = h(\n        unsafe { g() },\n    );\n}\n"
    other = "fn f() {\n    // SAFETY: for the first.\n    unsafe { g() };\n    let a = 1;\n    unsafe { g() }\n}\n"
    quoted = '// unsafe { }\nconst A: &str = "unsafe { }";\n'
    assert [check.undocumented(text) for text in (bare, good, longer, other, quoted)] == [[2], [], [], [5], []]
    room = {"zind-core/src/sys/a.rs": good}
    assert check.problems(room, check.table(room)) == []
    elsewhere = {"zind-core/src/spec/a.rs": good}
    assert ["none of the rooms" in line for line in check.problems(elsewhere, check.table(elsewhere))] == [True]
    assert ["is not that of the sources" in line for line in check.problems(room, "")] == [True]
    assert ["SAFETY" in line for line in check.problems({"zind-ffi/src/a.rs": bare}, check.table({"zind-ffi/src/a.rs": bare}))] == [True]


def test_this_very_source_passes():
    check = _load("unsafe_code")
    assert check.problems(check.sources(), check.DOCUMENT.read_text()) == []
