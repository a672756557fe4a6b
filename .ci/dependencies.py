"""Every crate that zind is built on, and what Python needs to build and test it: where it comes from, its licence, its line in the documents.

``.ci/dependencies.py`` tells what is wrong, ``--write`` makes the table of all crates in docs/dependencies.md anew. It asks cargo for
what is in Cargo.lock, and what is installed for Python beside it.
"""

from __future__ import annotations

import importlib.metadata
import json
import pathlib
import re
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[1]
DOCUMENT = TOP / "docs/dependencies.md"
CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"
#: What may be part of the library and the command.
SHIPPED = {
    "MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Unicode-3.0", "Unlicense", "Zlib",
}  # fmt: skip
#: What may also be used to build and test them: it leaves nothing in them.
TOOLS = SHIPPED | {"MPL-2.0", "NCSA", "PSF-2.0"}
#: Roots of what is shipped.
OURS = {"zind-init", "zind-core", "zind-ffi", "zind-py", "zind-cli"}
BEGIN, END = "<!-- every crate: .ci/dependencies.py --write -->", "<!-- end -->"


def allowed(expression: str | None, licences: set[str]) -> bool:
    """Whether an SPDX expression leaves a choice that is allowed."""
    words = re.findall(r"\(|\)|[^\s()]+", (expression or "").replace("/", " OR "))

    def either() -> bool:
        result = both()
        while words[:1] == ["OR"]:
            words.pop(0)
            result = both() or result
        return result

    def both() -> bool:
        result = one()
        while words[:1] == ["AND"]:
            words.pop(0)
            result = one() and result
        return result

    def one() -> bool:
        word = words.pop(0)
        if word == "(":
            result = either()
            return words.pop(0) == ")" and result
        if words[:1] == ["WITH"]:
            word = " ".join([word, words.pop(0), words.pop(0)])
        return word in licences

    try:
        return either() and not words
    except IndexError:
        # It ends where something should follow.
        return False


def metadata() -> dict:
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--all-features", "--filter-platform", "x86_64-unknown-linux-gnu"]
    return json.loads(subprocess.run(command, cwd=TOP, check=True, stdout=subprocess.PIPE).stdout)


def below(data: dict, kinds: set[str | None], roots: set[str]) -> set[str]:
    """The packages below some of ours by dependencies of these kinds; of others' crates those of tests are not there."""
    nodes = {node["id"]: node for node in data["resolve"]["nodes"]}
    names = {package["id"]: package["name"] for package in data["packages"]}
    macros = {package["id"] for package in data["packages"] if any("proc-macro" in target["kind"] for target in package["targets"])}
    # Procedural macros run in the compiler, however they are named.
    passed_over = set() if "build" in kinds else macros
    left, found = [id for id in data["workspace_members"] if names[id] in roots], set()
    while left:
        for dep in nodes[left.pop()]["deps"]:
            if dep["pkg"] not in found | passed_over and any(kind["kind"] in kinds for kind in dep["dep_kinds"]):
                found.add(dep["pkg"])
                left.append(dep["pkg"])
    return found


def crates(data: dict) -> list[tuple[str, str, str, str]]:
    """Name, version, licence and purpose of each that is not ours."""
    linked, shipped = below(data, {None}, OURS), below(data, {None, "build"}, OURS)
    rows = []
    for package in data["packages"]:
        if package["id"] in data["workspace_members"]:
            continue
        purpose = "shipped" if package["id"] in linked else "to build" if package["id"] in shipped else "tests"
        rows.append((package["name"], package["version"], package["license"] or "none", purpose))
    return sorted(rows)


def table(rows: list[tuple[str, str, str, str]]) -> str:
    lines = [f"| `{name}` {version} | {licence} | {purpose} |" for name, version, licence, purpose in rows]
    return "\n".join([BEGIN, "| crate | licence | for |", "| --- | --- | --- |", *lines, END])


def python_requirements() -> set[str]:
    """What pyproject.toml and the Makefile ask pip for."""
    project = (TOP / "pyproject.toml").read_text()
    wanted = re.findall(r'"([^"]+)"', re.search(r"^requires = \[(.*)\]", project, re.MULTILINE)[1])
    for line in re.findall(r"pip install -q (.*)$", (TOP / "Makefile").read_text(), re.MULTILINE):
        wanted += [word for word in re.sub(r"['\"]", "", line).split() if not word.startswith("-") and "/" not in word]
    return {re.match(r"[A-Za-z0-9_.-]+", word)[0] for word in wanted}


def problems(data: dict, document: str, lock: str, python: dict[str, str | None]) -> list[str]:
    """What is wrong, a line each. `python`: the licence of each requirement, as it says itself."""
    found = []
    for entry in lock.split("[[package]]")[1:]:
        name, source = re.search(r'name = "(.*)"', entry)[1], re.search(r'source = "(.*)"', entry)
        if source is None and name not in OURS | {"zind-fuzz"}:
            found.append(f"{name} comes from a path")
        elif source is not None and source[1] != CRATES_IO:
            found.append(f"{name} comes from {source[1]}")
        elif source is not None and "checksum = " not in entry:
            found.append(f"{name} has no checksum in Cargo.lock")
    rows = crates(data)
    for name, _, licence, purpose in rows:
        if not allowed(licence, SHIPPED if purpose == "shipped" else TOOLS):
            found.append(f"{name} ({purpose}) has the licence {licence}, which is not on the list")
    named = set(re.findall(r"`([A-Za-z0-9_-]+)`", " ".join(re.findall(r"^\| (`[^|]*)\|", document.split(BEGIN)[0], re.MULTILINE))))
    direct = {dep["name"] for package in data["packages"] if package["id"] in data["workspace_members"] for dep in package["dependencies"]}
    found += [f"{name} has no line in docs/dependencies.md" for name in sorted((direct | set(python)) - OURS - named)]
    found += [f"{name}, which Python's side needs, has the licence {licence}" for name, licence in python.items() if not allowed(licence, TOOLS)]
    if table(rows) not in document:
        found.append("the table of all crates in docs/dependencies.md is not that of Cargo.lock: .ci/dependencies.py --write")
    return found


def python_licence(name: str) -> str | None:
    """As the package says; the old way, too. None: it does not, or is not installed."""
    try:
        known = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    old = [text.rpartition(" :: ")[2] for text in known.get_all("Classifier") or [] if text.startswith("License :: ")]
    names = {"MIT License": "MIT", "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0", "Apache Software License": "Apache-2.0"}
    return known.get("License-Expression") or known.get("License") or (names.get(old[0]) if old else None)


def main() -> int:
    data, document = metadata(), DOCUMENT.read_text()
    if "--write" in sys.argv[1:]:
        before, rest = document.split(BEGIN)
        document = before + table(crates(data)) + rest.partition(END)[2]
        DOCUMENT.write_text(document)
    python = {name: python_licence(name) for name in python_requirements()}
    found = problems(data, document, (TOP / "Cargo.lock").read_text(), python)
    for line in found:
        print(f"dependencies: {line}")
    print(f"dependencies: {len(crates(data))} crates and {len(python)} packages of Python, {len(found) or 'none'} with something wrong")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
