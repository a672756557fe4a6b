"""Where `unsafe` is: in the files that docs/security.md lists and in no other, and each block says why it holds.

The compiler sees to the second in the workspace (`clippy::undocumented_unsafe_blocks`), but not in the launcher, which a build script
compiles. ``--write`` makes the list in the document anew.
"""

from __future__ import annotations

import pathlib
import re
import sys

TOP = pathlib.Path(__file__).resolve().parents[1]
DOCUMENT = TOP / "docs/security.md"
#: The rooms of CONTRIBUTING.md: what touches the kernel, the launcher, and the borders to C and Python.
ROOMS = ("zind-core/src/sys/", "zind-init/launcher/", "zind-ffi/", "zind-py/src/")
#: Beside them, each with its reason.
BESIDE = {
    "zind-core/src/process/planfile.rs": "structures of integers are written as they stand in memory",
}
BEGIN, END = "<!-- unsafe code: .ci/unsafe_code.py --write -->", "<!-- end -->"
#: A block, or an implementation of an unsafe trait; what a function demands is in its documentation.
BLOCK = re.compile(r"\bunsafe\s*(\{|impl\b)")


def code(text: str) -> list[str]:
    """The lines without comments, and without what is between quotes."""
    text = re.sub(r'"(?:[^"\\\n]|\\.)*"', '""', text)
    return [re.sub(r"//.*", "", line) for line in text.split("\n")]


def blocks(text: str) -> list[int]:
    """The lines, from 1 on, with an unsafe block or implementation."""
    return [number for number, line in enumerate(code(text), 1) if BLOCK.search(line)]


def undocumented(text: str) -> list[int]:
    """Those without `SAFETY:` in the comment above the statement."""
    lines, found = text.split("\n"), []
    for number in blocks(text):
        at = number - 1
        said = "SAFETY:" in lines[at]
        # Up to the comment, over the beginning of a statement of several lines, but not over another one's end.
        while not said and at > 0:
            at -= 1
            line = lines[at].strip()
            if line.startswith("//"):
                said = "SAFETY:" in line or any("SAFETY:" in other for other in comment_above(lines, at))
                break
            if not line or (line.endswith((";", "}")) and at < number - 1):
                break
        if not said:
            found.append(number)
    return found


def comment_above(lines: list[str], at: int) -> list[str]:
    above = []
    while at > 0 and lines[at - 1].strip().startswith("//"):
        at -= 1
        above.append(lines[at])
    return above


def sources() -> dict[str, str]:
    """What is compiled into the library, the launcher, the module and the command, by path."""
    rooms = ["zind-core/src", "zind-init", "zind-ffi/src", "zind-py/src", "zind-cli"]
    files = [file for room in rooms for file in sorted((TOP / room).rglob("*.rs"))]
    # Unit tests stand in files of their own or at the end.
    shipped = [file for file in files if not re.search(r"/tests/|[/_]tests\.rs$", str(file.relative_to(TOP)))]
    return {str(file.relative_to(TOP)): file.read_text().partition("\n#[cfg(test)]\nmod tests {")[0] for file in shipped}


def counted(files: dict[str, str]) -> dict[str, int]:
    return {path: count for path, text in files.items() if "unsafe" in text and (count := len(blocks(text)))}


def table(files: dict[str, str]) -> str:
    rooms: dict[str, list[str]] = {}
    for path in counted(files):
        room, _, name = path.rpartition("/")
        rooms.setdefault(room, []).append(f"`{name}`")
    return "\n".join([BEGIN, *(f"- `{room}`: {', '.join(names)}" for room, names in rooms.items()), END])


def problems(files: dict[str, str], document: str) -> list[str]:
    found, has_some = [], counted(files)
    for path, text in files.items():
        if path in has_some and not path.startswith(ROOMS) and path not in BESIDE:
            found.append(f"{path} is in none of the rooms of unsafe code: {', '.join(ROOMS)}")
        if path in has_some:
            found += [f"{path}:{number}: an unsafe block without a SAFETY comment" for number in undocumented(text)]
    if table(files) not in document:
        found.append("the list in docs/security.md is not that of the sources: .ci/unsafe_code.py --write")
    return found


def main() -> int:
    files, document = sources(), DOCUMENT.read_text()
    if "--write" in sys.argv[1:]:
        before, rest = document.split(BEGIN)
        document = before + table(files) + rest.partition(END)[2]
        DOCUMENT.write_text(document)
    found = problems(files, document)
    for line in found:
        print(f"unsafe code: {line}")
    print(f"unsafe code: {sum(counted(files).values())} blocks in {len(counted(files))} files, {len(found) or 'none'} with something wrong")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
