"""Memory that is nobody's: shared memory, files in memory, System V segments."""

from __future__ import annotations

import pytest

import kit
import zind
from kit import needs_root

FILL = {
    "/dev/shm": "f = open('/dev/shm/x', 'wb')\nfor _ in range(48): f.write(b'x' * (1 << 20)); f.flush()",
    "memfd": "import mmap\nfd = os.memfd_create('x'); os.truncate(fd, 48 << 20); m = mmap.mmap(fd, 48 << 20)\nfor at in range(0, 48 << 20, 4096): m[at] = 1",
    "shmget": "import ctypes\nc = ctypes.CDLL(None); c.shmat.restype = ctypes.c_void_p\n"
    "at = c.shmat(c.shmget(0, 48 << 20, 0o1600), None, 0)\nctypes.memset(at, 1, 48 << 20)",
    "a shared mapping": "import mmap\nm = mmap.mmap(-1, 48 << 20)\nfor at in range(0, 48 << 20, 4096): m[at] = 1",
}


@pytest.mark.parametrize("how", FILL)
def test_shared_memory_is_the_containers(how):
    """CVE-2024-3056: memory that is shared counts for nobody, and stays. Without a limit all of it can be had."""
    needs_root("making a control group")
    source = "import os, sys\n" + FILL[how] + "\nprint('all of it')"
    argv = ["/usr/bin/python3", "-S", "-c", source]
    free = zind.run(argv, capture_output=True, stdin=zind.DEVNULL)
    assert free.stdout == b"all of it\n", free
    limited = zind.run(argv, capture_output=True, stdin=zind.DEVNULL, resources=zind.Resources(memory="32m", swap=0))
    assert limited.exit.kind == "oom" and limited.stdout == b"", limited
    # What is left of it goes with the container.
    assert kit.sh("cat /proc/sysvipc/shm | wc -l; ls /dev/shm | wc -l").split() == ["1", "0"]
