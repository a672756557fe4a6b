"""SIGKILL of a process with fifty containers that mount and unmount: nothing of them is left."""

from __future__ import annotations

import os
import pathlib
import random
import subprocess
import sys
import time

import pytest

import kit
from kit import ROOT

#: Says "x" before the first start. Each of four threads has its share of the containers, mounts and unmounts in them, and
#: ends and begins some anew.
BUSY = """
import itertools, os, sys, threading, traceback, zind
M = zind.Mount
source, image, mark = sys.argv[1:]
def options(number):
    mounts = [
        M.bind(source, "/data"), M.tmpfs("/scratch", size="1m"), M.file("/etc/given", b"x" * 1000),
        M.overlay("/both", lower=[source, source + "-other"][number % 2:]), M.proc("/p"),
    ]
    if number % 3 == 0:
        mounts.append(M.overlay("/kept", lower=[source], upper=f"{source}/../up{number}/u", work=f"{source}/../up{number}/w"))
    if image and number % 25 == 0:
        mounts.append(M(type="ext4", source=image, target="/disk", options=["ro"]))
    return {"mounts": mounts, "devices": ["/dev/zero:/dev/z"], "namespaces": {"user": "new"} if number % 4 == 1 else {}}
def start(number):
    return zind.Popen(["sleep", mark], stdout=zind.PIPE, **options(number))
def work(share):
    try:
        busy(share)
    except BaseException:
        traceback.print_exc()
        os._exit(3)
def busy(share):
    running = [start(number) for number in share]
    for turn in itertools.count():
        for index, p in enumerate(running):
            p.mount(M.tmpfs("/late", size="1m"))
            if os.geteuid() == 0:
                p.mount(M.bind(source, "/late/again"))
            p.umount("/late")
            if (turn + index) % 5 == 0:
                p.kill()
                p.wait()
                running[index] = start(share[index])
os.write(1, b"x")
threads = [threading.Thread(target=work, args=[range(first, 50, 4)]) for first in range(4)]
[thread.start() for thread in threads]
"""
MARK = "4848"


def loops() -> set[str]:
    """The files behind loop devices."""
    return {path.read_text() for path in pathlib.Path("/sys/block").glob("loop*/loop/backing_file")}


def traces() -> set[str]:
    """Whatever has the name of zind's in a place for temporary things."""
    places = ["/tmp", "/var/tmp", "/run", "/dev/shm", "/run/lock"]
    return {f"{place}/{name}" for place in places for name in os.listdir(place) if name.startswith((".zind", "zind-init", "zind-mount"))}


@pytest.mark.limit(300)
def test_sigkill_of_the_owner_of_fifty_containers(tmp_path):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    moments = random.Random(seed)
    source, image = tmp_path / "source", ""
    source.mkdir()
    (tmp_path / "source-other").mkdir()
    (source / "file").write_text("data")
    if ROOT:
        image = str(tmp_path / "image")
        with open(image, "wb") as file:
            file.truncate(4 << 20)
        subprocess.run(["/sbin/mkfs.ext4", "-q", "-F", image], check=True)
    mounts, files = kit.mounts(), traces()
    seen = []
    for round in range(8):
        owner = subprocess.Popen([sys.executable, "-c", BUSY, source, image, MARK], env=kit.child_env(), stdout=subprocess.PIPE)
        assert owner.stdout.read(1) == b"x"
        # Half of them while the containers are being made, half when they all run.
        if round % 2:
            assert kit.wait_until(lambda: len(kit.running("sleep", MARK)) >= 45 or owner.poll() is not None, 60)
        time.sleep(moments.uniform(0, 0.5))
        seen.append(len(kit.running("sleep", MARK)))
        assert owner.poll() is None
        owner.kill()
        owner.wait()
        owner.stdout.close()
        assert kit.wait_until(lambda: not kit.running("sleep", MARK), 20), f"round {round}: payloads outlive their owner"
        left = lambda: [row for row in kit.descendants().values() if row[0] not in "ZX"]  # noqa: E731
        assert kit.wait_until(lambda: not left(), 20), f"round {round}: {left()}"
        assert kit.mounts() == mounts and traces() == files, f"round {round}"
        assert kit.wait_until(lambda: str(tmp_path) not in " ".join(loops()), 10), f"round {round}: {loops()}"
    assert max(seen) >= 40, seen
    assert (source / "file").read_text() == "data" and os.listdir(source) == ["file"]
    if not ROOT:  # The work directory's own is of mode 0.
        for inner in tmp_path.glob("up*/w/*"):
            inner.chmod(0o700)
