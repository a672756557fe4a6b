"""A runtime that makes every mistake of the list: what it is asked for it does by paths, as strings, in the host's eyes.

Attacks are shown to work on it, so that what fails on zind is known to be an attack. ``python3 careless.py VERB ARG...`` does one thing in
a mount namespace of its own (`apart`); what makes no mounts is called as a function.
"""

from __future__ import annotations

import fcntl
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import threading

NOBODY_SEES = ["unshare", "--mount", "--propagation=private"]


def apart(verb: str, *args: object) -> str:
    """Does it in a mount namespace of its own, as root there; what was printed."""
    head = NOBODY_SEES if os.geteuid() == 0 else [*NOBODY_SEES, "--user", "--map-root-user"]
    command = [*head, sys.executable, __file__, verb, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout


def mount(*args: object) -> None:
    subprocess.run(["mount", *map(str, args)], check=True)


# --- with mounts ---------------------------------------------------------------------------------------------------------
def bind(root: str, target: str, source: str) -> None:
    """A bind mount at a target that is made if it is missing. Prints where it came to be."""
    path = root + target
    if os.path.isdir(source):
        os.makedirs(path, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        open(path, "a").close()
    mount("--bind", source, path)
    print(open("/proc/self/mountinfo").read().splitlines()[-1].split()[4])


def mask(root: str, path: str) -> None:
    """Hides a file by the container's /dev/null; then the payload writes to it."""
    mount("--bind", root + "/dev/null", root + path)
    with open(root + path, "w") as file:
        file.write("written by the payload")


def adjust(root: str) -> None:
    """Mounts /proc and writes there, as for oom_score_adj and labels."""
    os.makedirs(root + "/proc", exist_ok=True)
    if not os.path.exists(root + "/proc/self"):
        mount("--rbind", "/proc", root + "/proc")
    with open(root + "/proc/self/oom_score_adj", "w") as file:
        file.write("500")


def enter(root: str, cwd: str, name: str) -> None:
    """Enters a root with all descriptors that are open, and a directory there."""
    os.makedirs(root + "/proc", exist_ok=True)
    mount("--rbind", "/proc", root + "/proc")
    os.chroot(root)
    os.chdir(cwd)
    print(open(name).read())


def load(root: str, library: str) -> None:
    """Looks something up in the container, by its own library: in the host's namespaces."""
    import ctypes

    ctypes.CDLL(root + library)


# --- without -------------------------------------------------------------------------------------------------------------
def write(root: object, path: str, text: str) -> None:
    os.makedirs(os.path.dirname(f"{root}{path}"), exist_ok=True)
    with open(f"{root}{path}", "w") as file:
        file.write(text)


def own(root: object, path: str) -> None:
    """The terminal is to be its user's."""
    os.chmod(f"{root}{path}", 0o620)


def copy(root: object, path: str, to: object) -> None:
    """`cp root/path to`, and a volume's first content."""
    source = f"{root}{path}"
    shutil.copytree(source, str(to)) if os.path.isdir(source) else shutil.copyfile(source, str(to))


def teardown(root: object, stub: str) -> None:
    """Removes what was made as a place for a mount."""
    path = f"{root}{stub}"
    os.rmdir(path) if os.path.isdir(path) else os.unlink(path)


def user(root: object, text: str) -> int:
    """A user's number: by name if there is one, else as a C int."""
    for line in open(f"{root}/etc/passwd"):
        name, _, uid, *_ = line.split(":")
        if name == text:
            return int(uid)
    return int(text) & 0xFFFFFFFF


def extract(layers: list[pathlib.Path], root: pathlib.Path) -> None:
    """Unpacks one tar after the other: paths are joined, links followed, hard links made from the working directory."""
    root.mkdir(exist_ok=True)
    for layer in layers:
        with tarfile.open(layer) as tar:
            for info in tar:
                path = os.path.join(root, info.name)
                directory, name = os.path.split(path)
                if info.name.strip("./") == "":
                    if info.issym():
                        os.rmdir(root)
                        os.symlink(info.linkname, root)
                elif name.startswith(".wh."):
                    os.unlink(os.path.join(directory, name[4:]))
                elif info.isdir():
                    os.makedirs(path, exist_ok=True)
                elif info.issym():
                    os.symlink(info.linkname, path)
                elif info.islnk():
                    os.link(info.linkname, path, follow_symlinks=True)
                    os.chmod(path, info.mode)
                else:
                    with open(path, "wb") as file:
                        file.write(tar.extractfile(info).read())
                    os.chmod(path, info.mode)


def unpack_locked(lock: object, pipe: object) -> threading.Thread:
    """Holds a lock while a decoder, which has died, is waited for."""
    held = threading.Event()

    def work() -> None:
        with open(str(lock), "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            held.set()
            open(str(pipe), "rb").close()

    thread = threading.Thread(target=work)
    thread.start()
    held.wait()
    return thread


if __name__ == "__main__":
    {"bind": bind, "mask": mask, "adjust": adjust, "enter": enter, "load": load}[sys.argv[1]](*sys.argv[2:])
