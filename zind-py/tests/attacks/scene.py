"""What the attacks have in common: a victim, and how to look at it."""

from __future__ import annotations

import io
import os
import pathlib
import tarfile

import zind

CORE_PATTERN = pathlib.Path("/proc/sys/kernel/core_pattern")


def tree(path: pathlib.Path) -> dict[str, tuple]:
    """Everything below a path, with what a container could have changed of it."""
    found = {}
    for directory, dirs, files in os.walk(path):
        for name in [".", *dirs, *files]:
            meta = os.lstat(os.path.join(directory, name))
            found[os.path.join(directory, name)] = (meta.st_mode, meta.st_uid, meta.st_gid, meta.st_size, meta.st_mtime_ns, meta.st_nlink)
    return found


def start(argv=("true",), **options) -> zind.CompletedProcess | zind.Error:
    """The end of a container that does nothing, or why there is none: an error of zind's, which says what it is about."""
    if not options.get("pty"):
        options.setdefault("stdin", zind.DEVNULL)
    try:
        return zind.run(list(argv), **options)
    except zind.Error as error:
        assert str(error) and not isinstance(error, zind.CalledProcessError)
        return error


def entry(name: str, *, link: str | None = None, hard: str | None = None, data: bytes = b"made by the attack", mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    """One of an archive: a file, or a directory if its name ends in a slash, or a link."""
    info = tarfile.TarInfo(name)
    info.mode = mode
    if link is not None or hard is not None:
        info.type, info.linkname, data = (tarfile.SYMTYPE if link is not None else tarfile.LNKTYPE), link if link is not None else hard, b""
    elif name.endswith("/"):
        info.type, info.mode, data = tarfile.DIRTYPE, 0o755, b""
    info.size = len(data)
    return info, data


def archive(path: pathlib.Path, entries) -> pathlib.Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return path
