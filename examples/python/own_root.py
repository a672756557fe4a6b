"""A root file system of your own: copy-on-write, read-only, or written to directly.

    own_root.py [DIRECTORY]

DIRECTORY holds a root file system, made by mmdebstrap, debootstrap, `docker export` or the like. Without one a tiny
root is made from a static busybox, if this machine has one.
"""

import os
import shutil
import sys
import tempfile
from typing import Any

import zind


def tiny_root(directory: str) -> str:
    busybox = shutil.which("busybox")
    if busybox is None:
        sys.exit("no DIRECTORY given, and no busybox on this machine: install the package busybox-static")
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp"):
        os.mkdir(os.path.join(directory, name))
    shutil.copy(busybox, os.path.join(directory, "bin/busybox"))
    for name in ("sh", "cat", "echo", "id", "ls", "rm", "touch"):
        os.symlink("busybox", os.path.join(directory, "bin", name))
    with open(os.path.join(directory, "etc/passwd"), "w") as passwd:
        passwd.write("root:x:0:0:root:/:/bin/sh\nguest:x:1000:1000:guest:/:/bin/sh\n")
    with open(os.path.join(directory, "etc/group"), "w") as group:
        group.write("root:x:0:\nguest:x:1000:\n")
    return directory


def sh(script: str, **options: Any) -> zind.CompletedProcess:
    return zind.run(["sh", "-c", script], capture_output=True, text=True, timeout=60, **options)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        given = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else None
        root = given or tiny_root(tempfile.mkdtemp(prefix="root-", dir=scratch))
        print("root:", root, " ".join(sorted(os.listdir(root))))

        # The default: changes go to memory and are gone with the container.
        result = sh("touch /tmp/new && rm -f /bin/ls && echo changed", rootfs=root)
        print("copy-on-write:", result.stdout.strip() or result.stderr.strip())
        assert not os.path.lexists(os.path.join(root, "tmp/new"))
        assert os.path.lexists(os.path.join(root, "bin/ls"))

        # Changes into a directory of yours: the next container goes on from there.
        layer = os.path.join(scratch, "layer")
        os.mkdir(layer)
        assert sh("echo 1 > /tmp/kept", rootfs=root, overlay=layer).returncode == 0
        result = sh("cat /tmp/kept", rootfs=root, overlay=layer)
        print("kept in a layer:", result.stdout.strip(), os.listdir(os.path.join(layer, "upper")))
        assert result.stdout == "1\n"
        assert not os.path.lexists(os.path.join(root, "tmp/kept"))

        # Nothing can be changed.
        result = sh("touch /tmp/new", rootfs=root, read_only=True)
        print("read-only:", result.stderr.strip())
        assert result.returncode != 0 and "Read-only" in result.stderr

        # Written to directly. Only for a root of our own making, not for one that was given.
        if given is None:
            assert sh("echo direct > /tmp/new", rootfs=root, overlay=False).returncode == 0
            with open(os.path.join(root, "tmp/new")) as file:
                print("direct:", file.read().strip())

        # Users are those of the root's own /etc/passwd, or any numbers.
        result = sh("id", rootfs=root, user="1000:1000")
        print("user:", result.stdout.strip())
        assert result.stdout.startswith("uid=1000")


main()
