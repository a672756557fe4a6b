"""Fixtures. ``nothing_is_left`` is on for every test: mounts, processes, descriptors, threads, files."""

from __future__ import annotations

import fcntl
import gc
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest

import kit
import zind

PR_SET_CHILD_SUBREAPER = 36
WALL = 0x40000000  # __WALL
USER = "zindtest"


@pytest.fixture(scope="session", autouse=True)
def _warm(tmp_path_factory):
    """Whatever is orphaned below this process comes to it, where it is seen; what zind keeps for good is made now."""
    kit.prctl(PR_SET_CHILD_SUBREAPER, 1)
    zind.run(["true"])
    # Of control groups, too, as far as there are any for this user.
    zind.run(["true"], resources=zind.Resources())
    global BASE
    BASE = str(tmp_path_factory.getbasetemp())
    yield


#: Where this session's temporary files are, set as it begins.
BASE = "/"


def _survivors() -> set[tuple[int, str, str]]:
    """Processes below this one that still run, and zombies that are zind's to reap."""
    found = set()
    for pid, (state, parent, name) in kit.descendants().items():
        if state == "Z" and parent == os.getpid():
            try:
                # Adopted orphans can be reaped by anybody; a waiter of zind's only with __WALL.
                if os.waitpid(pid, os.WNOHANG)[0] == pid:
                    continue
            except ChildProcessError:
                pass
        found.add((pid, state, name))
    return found


def _state() -> dict[str, set]:
    netns = "/run/netns"
    backing = {path.read_text().strip() for path in pathlib.Path("/sys/block").glob("loop*/loop/backing_file")}
    return {
        # Those of suites that run at the same time are of other files.
        "loop devices": {path for path in backing if path.startswith(BASE)},
        # mmdebstrap of another suite that runs at the same time mounts for a while.
        "mounts": {line for line in kit.mounts() if "/debian-root-" not in line},
        "processes": _survivors(),
        "descriptors": set(kit.open_fds().items()),
        "threads": set(os.listdir("/proc/self/task")),
        # Those of other suites that run at the same time are not ours.
        "control groups": {
            path
            for path, _, _ in os.walk("/sys/fs/cgroup")
            if os.path.basename(path).startswith("zind-") and f"-{os.getpid()}-" in os.path.basename(path)
        },
        "network namespaces": set(os.listdir(netns)) if os.path.isdir(netns) else set(),
        # Those of the Rust and C tests, which may run at the same time, are not ours.
        "files in /tmp": {name for name in os.listdir("/tmp") if name.startswith("zind-") and not name.startswith(("zind-ffi-", "zind-test-"))},
    }


def _left(before: dict[str, set]) -> dict[str, set]:
    after = _state()
    left = {what: after[what] - before[what] for what in after}
    # The listing itself is open while it is made.
    left["descriptors"] = {(fd, to) for fd, to in left["descriptors"] if not to.startswith(f"/proc/{os.getpid()}/fd")}
    # The prepared mount namespace is made anew when /etc has changed, as useradd(8) does; there is one at a time.
    templates = [{row for row in state["descriptors"] if row[1].startswith("mnt:[")} for state in (before, after)]
    if len(templates[1]) <= max(1, len(templates[0])):
        left["descriptors"] -= templates[1]
    left["processes"] = {row for row in left["processes"] if row[0] not in {old[0] for old in before["processes"]}}
    return {what: items for what, items in left.items() if items}


@pytest.fixture(autouse=True)
def nothing_is_left(_warm):
    gc.collect()
    before = _state()
    yield
    gc.collect()
    deadline = time.monotonic() + 20
    while (left := _left(before)) and time.monotonic() < deadline:
        time.sleep(0.02)
    if left:
        for pid, state, _ in left.get("processes", ()):
            if state != "Z":
                os.kill(pid, 9)
        pytest.fail(f"left behind: {left}")


# --- roots -----------------------------------------------------------------------------------------------------------
def make_tiny_root(path: pathlib.Path) -> pathlib.Path:
    """A root directory with busybox and nothing else."""
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "root", "home"):
        (path / name).mkdir(parents=True)
    (path / "tmp").chmod(0o1777)
    shutil.copy("/usr/bin/busybox", path / "bin/busybox")
    for applet in subprocess.check_output(["/usr/bin/busybox", "--list"], text=True).split():
        if applet != "busybox":
            (path / "bin" / applet).symlink_to("busybox")
    (path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nweb:x:33:34::/:/bin/sh\n1000:x:0:0::/:/bin/sh\n")
    (path / "etc/group").write_text("root:x:0:\nstaff:x:50:\n")
    (path / "marker").write_text("untouched\n")
    return path


@pytest.fixture(scope="session")
def tiny_template(tmp_path_factory) -> pathlib.Path:
    kit.needs_program("busybox")
    return make_tiny_root(tmp_path_factory.mktemp("tiny") / "root")


@pytest.fixture
def tiny_root(tiny_template, tmp_path) -> pathlib.Path:
    """A fresh copy, to be written to."""
    root = tmp_path / "tiny"
    # Hundreds of links: many times as fast as shutil.
    subprocess.run(["cp", "-a", tiny_template, root], check=True)
    return root


@pytest.fixture(scope="session")
def debian_root() -> pathlib.Path:
    """A real Debian, made by mmdebstrap; kept in $ZIND_TEST_CACHE if that is set."""
    cache = os.environ.get("ZIND_TEST_CACHE")
    if cache and (root := pathlib.Path(cache) / "debian").is_dir():
        yield root
        return
    base = pathlib.Path(cache or tempfile.mkdtemp(prefix="debian-root-", dir="/var/tmp"))
    base.mkdir(parents=True, exist_ok=True)
    base.chmod(0o755)
    try:
        kit.bootstrap(base / "debian")
        (base / "debian").chmod(0o755)
        yield base / "debian"
    finally:
        if not cache:
            shutil.rmtree(base)


# --- an ordinary user ------------------------------------------------------------------------------------------------
class OrdinaryUser:
    """Runs Python as somebody without privileges, who has ranges in /etc/subuid and /etc/subgid."""

    def __init__(self) -> None:
        entry = pwd.getpwnam(USER)
        self.uid, self.gid, self.home = entry.pw_uid, entry.pw_gid, entry.pw_dir
        self.tmp = os.path.join(self.home, "tmp")
        os.makedirs(self.tmp, exist_ok=True)
        os.chown(self.tmp, self.uid, self.gid)

    def __call__(self, *args, timeout: float = 60, **env: str) -> subprocess.CompletedProcess[str]:
        command = ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--init-groups", "--", sys.executable, *map(str, args)]
        return subprocess.run(
            command,
            # Their files in /tmp would be somebody else's when the account is made again.
            env=kit.child_env(HOME=self.home, USER=USER, TMPDIR=self.tmp, **env),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def snippet(self, source: str, *args: str, **options) -> str:
        result = self("-c", source, *args, **options)
        assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
        return result.stdout


@pytest.fixture(scope="session")
def user_python():
    """An :class:`OrdinaryUser`; the account goes away with the last suite that uses it."""
    kit.needs_root("useradd")
    kit.needs_program("useradd", "setpriv", "newuidmap")
    with open("/run/lock/zindtest.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            pwd.getpwnam(USER)
        except KeyError:
            subprocess.run(["useradd", "--create-home", "--comment", "zind test suite", USER], check=True)
        for path in ("/etc/subuid", "/etc/subgid"):
            assert f"{USER}:" in pathlib.Path(path).read_text(), f"no range in {path}"
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield OrdinaryUser()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another suite still uses the account
        removed = subprocess.run(["userdel", "--remove", USER], capture_output=True, text=True, check=False)
        assert removed.returncode == 0, removed.stderr
        pathlib.Path("/run/lock/zindtest.lock").unlink(missing_ok=True)


# --- time ------------------------------------------------------------------------------------------------------------
@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """A test that hangs fails. ``@pytest.mark.limit(seconds)`` gives it more than a minute."""
    mark = item.get_closest_marker("limit")
    seconds = mark.args[0] if mark else 60

    def over(*_):
        pytest.fail(f"still running after {seconds} s")

    old = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def pytest_configure(config):
    config.addinivalue_line("markers", "limit(seconds): how long a test may take")
