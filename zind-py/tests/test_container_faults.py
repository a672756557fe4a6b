"""What living containers survive: their owner, monitor and payload killed in any order, full disks, no descriptors, no
processes, somebody who is stopped, spoiled files, and programs that ignore signals.

Kills at each system call are in zind-core/tests/faults.rs. docs/containers.md has the table of faults."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

import groups
import kit
import zind

#: Of this program alone.
FOREVER = ["sleep", f"1000.{os.getpid()}"]
#: With this set what is tried is all there is, else a sample.
ALL = "ZIND_TEST_ALL_POINTS" in os.environ


@pytest.fixture
def place(tmp_path):
    containers = zind.Containers(tmp_path / "place")
    yield containers
    empty(containers)


def empty(containers: zind.Containers) -> None:
    """All of it goes, and nothing of it is left."""
    for container in containers:
        container.delete(force=True)
    containers.prune()
    assert files(containers) == []


def files(containers: zind.Containers) -> list[str]:
    """What there is in a place, but for its directories and the journal, which stays."""
    root = containers.path
    found = [os.path.relpath(os.path.join(dir, name), root) for dir, dirs, names in os.walk(root) for name in [*dirs, *names]]
    stays = {"containers", "names", "containers/.new", "containers/.trash", "containers/.auto", "events", "events/journal", "events/journal.1"}
    return sorted(set(found) - stays)


def until(true, seconds: float = 30):
    assert kit.wait_until(true, seconds)


def monitor_of(container: zind.Container) -> int:
    """The monitor is above the first process, maybe with one between them."""
    pid = container.pid
    for _ in range(3):
        pid = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        if pathlib.Path(f"/proc/{pid}/comm").read_text() == "zind-monitor\n":
            return pid
    raise AssertionError("no monitor")


@contextlib.contextmanager
def forked(work):
    """A child of this program that does something, says so, and waits to be killed. Yields its pid."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(ours)
            work()
            os.write(theirs, b"x")
            while True:
                signal.pause()
        finally:
            os._exit(1)
    os.close(theirs)
    try:
        assert os.read(ours, 1) == b"x"
        yield pid
    finally:
        os.close(ours)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def in_a_fork(work) -> object:
    """What a child of this program that does something comes to: whatever JSON can say."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(ours)
            said = work()
        except BaseException as error:  # noqa: BLE001
            said = f"{type(error).__name__}: {error}"
        finally:
            os.write(theirs, json.dumps(said).encode())
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as file:
        said = file.read()
    os.waitpid(pid, 0)
    return json.loads(said)


# --- kills in all orders ------------------------------------------------------------------------------------------------
ORDERS = ["".join(order) for count in (1, 2, 3) for order in itertools.permutations("OMP", count)]


@pytest.mark.limit(240)
@pytest.mark.parametrize("situation", ["running", "detached", "paused", "exec", "terminal", "restart"])
def test_owner_monitor_and_payload_are_killed_in_any_order(place, situation):
    """O, M and P are killed one right after the other, in each order of one, two or all three of them."""
    if situation == "paused":
        kit.needs_root("a control group")
    options = {
        "running": {},
        "detached": {"die_with_owner": False},
        "paused": {"resources": zind.Resources(pids=30)},
        "exec": {},
        "terminal": {"pty": (10, 40)},
        "restart": {"restart": "always", "die_with_owner": False},
    }[situation]
    for order in ORDERS:
        c = zind.Container(["sh", "-c", "sleep 1001 & exec sleep 1001"], name="it", containers=place, **options)

        def own() -> None:
            c.start()
            if situation == "exec":
                guests.append(c.popen(["sleep", "1002"], stdin=zind.DEVNULL, stdout=zind.DEVNULL, stderr=zind.DEVNULL))

        guests: list = []
        with forked(own) as owner:
            pids = {"O": owner, "M": monitor_of(c), "P": c.pid}
            if situation == "paused":
                c.pause()
            for who in order:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pids[who], signal.SIGKILL)
            is_owned = situation not in ("detached", "restart")
            if "M" not in order and not ("O" in order and is_owned) and (situation == "restart" or "P" not in order):
                until(lambda: c.state == "running" and (situation != "restart" or "P" not in order or c.pid not in (None, pids["P"])))
                if situation == "restart" and "P" in order:
                    assert c.restarts == 1, order
                assert c.exit is None, order
            else:
                assert c.wait(30) == zind.Exit("signaled", None, signal.SIGKILL), order
                assert c.state == "stopped" and c.pid is None and c.exit.signal == signal.SIGKILL, order
                fault = c.inspect()["fault"]
                assert fault in (None, "its monitor was killed", "the program that it belonged to ended"), (order, fault)
                if order == "M":
                    assert fault == "its monitor was killed"
                if order == "O":
                    assert fault == "the program that it belonged to ended"
                with pytest.raises(zind.StateError):
                    c.exec(["true"])
                # It is as good as before.
                c.start()
                assert c.state == "running"
            c.delete(force=True)
        place.prune()
        until(lambda: not kit.running("sleep", "1001") and not kit.running("sleep", "1002"))
        assert files(place) == [], order


@pytest.mark.limit(300)
def test_a_storm_of_kills_of_two_hundred_containers(place):
    """All at once, and none of their own accord: monitors, first processes, and both."""
    all_of_them = [zind.Container(["sh", "-c", "sleep 1003 & exec sleep 1003"], die_with_owner=False, containers=place) for _ in range(200)]
    for container in all_of_them:
        container.start()
    victims = []
    for number, container in enumerate(all_of_them):
        victims += [monitor_of(container)] * (number % 3 != 1) + [container.pid] * (number % 3 != 0)
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for container in all_of_them:
        assert container.wait(60) == zind.Exit("signaled", None, signal.SIGKILL)
    assert place.list() == [] and len(place.list(all=True)) == 200
    assert len(place.prune().containers) == 200
    until(lambda: not kit.running("sleep", "1003"))
    assert files(place) == []


@pytest.mark.limit(300)
def test_an_exit_is_never_lost_and_never_wrong(place):
    """Programs that end between the start and the wait, waited for by two at once."""
    for number in range(1000 if ALL else 40):
        code = number % 256
        c = zind.Container(["sh", "-c", f"exit {code}"], containers=place, die_with_owner=False)
        c.start()
        other = place.find(c.id)
        waits = [c, other] if number % 2 else [other, c]
        assert [each.wait(60) for each in waits] == [zind.Exit("exited", code, None)] * 2
        assert c.exit.code == code and c.state == "stopped"
        c.delete()


# --- what there is too little of ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", ["size=320k", "size=8m,nr_inodes=40"])
def test_a_full_disk(tmp_path, options):
    """What runs lives on; what is begun is an error that leaves nothing; stop and delete work."""
    kit.needs_root("mounting a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", disk], check=True)
    try:
        place = zind.Containers(disk / "place")
        script = "trap 'exit 7' TERM; while :; do echo some more of it; sleep 0.05; done"
        c = zind.Container(["sh", "-c", script], name="one", containers=place)
        d = zind.Container(["true"], name="two", containers=place)
        c.start()
        until(lambda: b"some" in c.logs().read())
        fill = [disk / f"fill{number}" for number in range(200)]
        with contextlib.suppress(OSError):
            if "inodes" in options:
                for path in fill:
                    path.touch()
            with open(fill[0], "wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        before = files(place)
        for what in (lambda: zind.Container(["true"], name="three", containers=place), d.start):
            with pytest.raises(zind.SysError) as caught:
                what()
            assert caught.value.errno == errno.ENOSPC, caught.value
        assert d.state == "created" and {each.name for each in place} == {"one", "two"}
        with contextlib.suppress(zind.SysError):
            c.rename("four")
        assert place.find(c.name) == c
        with contextlib.suppress(zind.SysError):
            c.rename("one")
        # What a start has begun may be filled again by the next one.
        assert [path for path in files(place) if path not in before and "four" not in path and not path.startswith(f"containers/{d.id}")] == []
        assert c.state == "running" and c.exec(["true"]).returncode == 0
        time.sleep(0.2)
        assert c.stop(30).code == 7
        assert c.exit == zind.Exit("exited", 7, None)
        d.delete()
        assert place.prune().containers == [c.id]
        assert files(place) == []
        for path in fill:
            path.unlink(missing_ok=True)
        with zind.Container(["true"], containers=place) as e:
            e.start()
            assert e.wait(30).code == 0
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


FEW = """
import collections, os, resource, sys, zind
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
def live():
    there = zind.Containers(sys.argv[1])
    with zind.Container(["sleep", "1000"], name="few", containers=there) as c:
        c.start()
        none = {"stdin": zind.DEVNULL, "stdout": zind.DEVNULL, "stderr": zind.DEVNULL}
        assert c.exec(["true"], **none).returncode == 0
        c.logs().read()
        assert c.stop(30).signal == 15
descriptors = lambda: len(os.listdir("/proc/self/fd"))
live()
before, said = descriptors(), []
for limit in range(before, 64):
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        live()
        said.append("done")
    except zind.SysError as error:
        said.append(error.errno)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for container in zind.Containers(sys.argv[1]):
        assert container.state in ("created", "stopped", "running")
        container.delete(force=True)
    assert descriptors() == before, limit
print(*said)
"""


@pytest.mark.limit(120)
def test_few_descriptors(place):
    """With any number of descriptors a life goes well, or fails with an error that says so, and nothing is left."""
    said = kit.outside(FEW, place.path, timeout=110).stdout.split()
    assert set(said) == {"done", str(errno.EMFILE)}, said
    assert (said[0], said[-1]) == (str(errno.EMFILE), "done"), said
    # Once there are enough, there are.
    assert said.index("done") == said.count(str(errno.EMFILE)), said


def test_no_processes_left(place):
    """Stop and delete need none; what needs one says that there is none."""
    kit.needs_root("a control group")
    if "pids" not in groups.V1:
        pytest.skip("needs a hierarchy of version 1 for pids: elsewhere a group with processes cannot have one below it")
    group = pathlib.Path(f"/sys/fs/cgroup/pids/zind-test-{os.getpid()}")
    stopped, killed, deleted = (zind.Container(FOREVER, name=name, containers=place) for name in ("s", "k", "d"))
    created = zind.Container(FOREVER, name="c", containers=place)
    for container in (stopped, killed, deleted):
        container.start()
    path = place.path

    def work() -> list:
        (group / "cgroup.procs").write_text("0")
        (group / "pids.max").write_text("1")
        there = zind.Containers(path)
        said = []
        for call in (
            lambda: there.find("c").start(),
            lambda: there.find("s").exec(["true"]),
        ):
            try:
                call()
                said.append("done")
            except zind.SysError as error:
                said.append(error.errno)
        said.append(there.find("s").stop(30).signal)
        there.find("k").kill(9)
        said.append(there.find("k").wait(30).signal)
        there.find("d").delete(force=True)
        there.find("s").delete()
        said.append(sorted(c.name for c in there.list(all=True)))
        return said

    group.mkdir()
    try:
        assert in_a_fork(work) == [errno.EAGAIN, errno.EAGAIN, signal.SIGTERM, signal.SIGKILL, ["c", "k"]]
    finally:
        until(lambda: (group / "cgroup.procs").read_text() == "")
        group.rmdir()
    assert created.state == "created"


# --- who does not answer --------------------------------------------------------------------------------------------------
@pytest.mark.limit(120)
def test_a_monitor_that_is_stopped(place):
    """Each call ends in bounded time, and says what is stuck; when it goes on, so does everything."""
    c = zind.Container(FOREVER, name="m", containers=place)
    c.start()
    monitor = monitor_of(c)
    os.kill(monitor, signal.SIGSTOP)
    try:
        assert c.state == "running" and c.exec(["true"]).returncode == 0
        with pytest.raises(zind.TimeoutExpired):
            c.wait(0.2)
        for call in (lambda: c.kill("TERM"), c.attach):
            with pytest.raises(zind.SysError) as caught:
                call()
            assert caught.value.errno == errno.ETIMEDOUT and "monitor" in str(caught.value)
        # By force it ends all the same, as far as it can.
        with pytest.raises(zind.SysError) as caught:
            c.delete(force=True)
        assert caught.value.errno == errno.ETIMEDOUT and "monitor" in str(caught.value)
        assert not kit.running(*FOREVER)
    finally:
        os.kill(monitor, signal.SIGCONT)
    assert c.wait(30).signal == signal.SIGKILL
    c.delete()


def test_a_payload_that_is_stopped(place):
    """Whoever is stopped in it: stop waits as long as it was told, and then it is killed."""
    for who in ("first", "program"):
        c = zind.Container(FOREVER, containers=place)
        c.start()
        pids = {process.name: process.pid for process in c.processes()}
        os.kill(c.pid if who == "first" else pids["sleep"], signal.SIGSTOP)
        assert c.state == "running"
        assert c.stop(0.3).signal in (signal.SIGKILL, signal.SIGTERM)
        c.delete()


def test_a_frozen_container(place):
    """Whoever froze it: it can be killed, stopped and deleted."""
    kit.needs_root("a control group")
    for end in (lambda c: c.kill(9), lambda c: c.stop(20), lambda c: c.delete(force=True)):
        c = zind.Container(FOREVER, resources=zind.Resources(pids=20), containers=place)
        c.start()
        for group in c.inspect()["cgroup"]:
            for name, word in (("freezer.state", "FROZEN"), ("cgroup.freeze", "1")):
                with contextlib.suppress(OSError):
                    pathlib.Path(group, name).write_text(word)
        until(lambda c=c: c.state == "paused")
        with pytest.raises(zind.StateError):
            c.exec(["true"])
        end(c)
        with contextlib.suppress(zind.NotFoundError):
            assert c.wait(30).signal in (signal.SIGKILL, signal.SIGTERM)
            c.delete()


def test_somebody_who_holds_the_lock_and_is_stopped(place):
    """A wait for the lock of a container can be interrupted, and what needs none goes on."""
    c = zind.Container(FOREVER, containers=place)
    lock = pathlib.Path(c.path, "lock")

    def hold() -> None:
        import fcntl

        fcntl.flock(os.open(lock, os.O_RDWR), fcntl.LOCK_EX)

    with forked(hold) as holder:
        os.kill(holder, signal.SIGSTOP)
        assert c.state == "created" and c.inspect()["state"] == "created" and [x.id for x in place.list(all=True)] == [c.id]
        script = "import signal, sys, zind\nsignal.alarm(1)\nsignal.signal(signal.SIGALRM, lambda *_: sys.exit(9))\nsignal.alarm(1)\nzind.Container.open(sys.argv[1], containers=sys.argv[2]).start()"
        assert kit.outside(script, c.id, place.path, check=False).returncode == 9
    c.start()
    c.delete(force=True)


# --- the program that uses it ---------------------------------------------------------------------------------------------
def test_signals_that_are_ignored_or_blocked(place):
    """Whatever the caller does with its signals: a life goes its way, and the payload has none of it."""
    path = place.path

    def live() -> str:
        c = zind.Container(["sh", "-c", "grep -E '^Sig(Blk|Ign)' /proc/self/status; exec sleep 1000"], containers=zind.Containers(path))
        c.start()
        until(lambda: c.logs().read().count(b"\n") == 2)
        assert c.exec(["sh", "-c", "exit 5"]).returncode == 5
        assert c.stop(20).signal == signal.SIGTERM
        said = c.logs().read().decode()
        c.delete()
        return said

    def ignored() -> str:
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        return live()

    def blocked() -> str:
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
        return live()

    def stormy() -> str:
        caught = []
        signal.signal(signal.SIGALRM, lambda *_: caught.append(1))
        signal.signal(signal.SIGCHLD, lambda *_: caught.append(2))
        signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
        said = live()
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert caught
        return said

    for how in (ignored, blocked, stormy):
        assert in_a_fork(how) == "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n", how


def test_names_that_somebody_else_has_made(tmp_path):
    """A place, or a part of it, that belongs to another user is not used."""
    kit.needs_root("files of other users")
    for part in ("", "containers", "names", "containers/.new", "containers/.trash", "containers/.auto"):
        place = tmp_path / f"place{part.replace('/', '-')}"
        if part and part != "containers":
            zind.Containers(place)
        (place / part).mkdir(parents=True, exist_ok=True)
        os.chown(place / part, 65534, 65534)
        with pytest.raises(zind.StateError) as caught:
            zind.Containers(place)
        assert "65534" in str(caught.value), part
        shutil.rmtree(place)
    # A link to what is another one's is no better.
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 65534, 65534)
    place = zind.Containers(tmp_path / "place").path
    shutil.rmtree(f"{place}/containers")
    os.symlink(tmp_path / "theirs", f"{place}/containers")
    with pytest.raises(zind.StateError):
        zind.Containers(place)


# --- spoiled files ------------------------------------------------------------------------------------------------------
def spoilt(text: bytes, choose: random.Random) -> list[bytes]:
    """A file in many ways that nobody has written."""
    some = 60 if ALL else 3
    flipped = []
    for _ in range(some):
        piece = bytearray(text or b"\0")
        piece[choose.randrange(len(piece))] ^= 1 << choose.randrange(8)
        flipped.append(bytes(piece))
    cut = [text[: choose.randrange(len(text) + 1)] for _ in range(some)]
    return [b"", *flipped, *cut, text + b"more", bytes(len(text)), b'{"zind-container": 99}', b"[]" * 3]


@pytest.mark.limit(300)
@pytest.mark.parametrize("state", ["created", "running", "stopped"])
@pytest.mark.parametrize("name", ["state.json", "config.json", "runtime.json", "running", "exit", "log"])
def test_spoiled_files(place, state, name):
    """Whatever a file says, each call ends with an answer or an error of zind's, and by force it can be deleted."""
    choose = random.Random(f"{state}{name}")

    def fresh() -> zind.Container:
        c = zind.Container(["sh", "-c", "echo said; exec sleep 1004"], name="it", containers=place)
        if state != "created":
            c.start()
            until(lambda: c.logs().read() == b"said\n")
        if state == "stopped":
            c.stop(30)
        return c

    c = fresh()
    path = pathlib.Path(c.path, name)
    if not path.exists():
        # Before a start, or before the end, there is none: whatever comes there is nobody's.
        path.touch(0o600)
    original = path.read_bytes()
    id, keep = c.id, state != "running"
    for text in spoilt(original, choose):
        path.write_bytes(text)
        found = place.find(id)
        for call in (
            lambda: found.state, lambda: found.exit, lambda: found.pid, found.inspect, lambda: found.logs().read(), lambda: found.stats(),
            lambda: place.list(all=True), lambda: place.summaries(all=True) if hasattr(place, "summaries") else None, lambda: found.config,
            lambda: found.exec(["true"], stdin=zind.DEVNULL), lambda: found.name, lambda: found.processes(), lambda: place.find("it"),
        ):  # fmt: skip
            try:
                call()
            except (zind.Error, AttributeError) as error:
                assert isinstance(error, zind.Error) or "has no attribute" in str(error), error
        if keep:
            path.write_bytes(original)
    if state == "running" and name == "running":
        # Nobody knows its first process any more; its monitor does.
        path.write_bytes(original)
    if keep:
        path.write_bytes(b"garbage")
    try:
        place.find(id).delete(force=True)
    except zind.SysError as error:
        # What cannot be asked for in OCI's words any more.
        assert error.errno != errno.ETIMEDOUT, error
        raise
    until(lambda: not kit.running("sleep", "1004"))
    assert files(place) == []


def test_another_boot(place):
    """What ran when the machine went down has ended with it, whatever its numbers mean now."""
    c = zind.Container(FOREVER, containers=place)
    c.start()
    os.kill(monitor_of(c), signal.SIGKILL)
    c.wait(30)
    record = json.loads(pathlib.Path(c.path, "state.json").read_text())
    record["run"]["boot_id"] = "00000000-0000-4000-8000-000000000000"
    # The numbers of a process that is there: nobody is to be killed for them.
    with forked(lambda: None) as somebody:
        running = bytearray(pathlib.Path(c.path, "running").read_bytes())
        stat = pathlib.Path(f"/proc/{somebody}/stat").read_bytes()
        running[24:28] = somebody.to_bytes(4, "little")
        running[32:40] = len(stat).to_bytes(8, "little")
        pathlib.Path(c.path, "running").write_bytes(bytes(running[:40]) + stat)
        pathlib.Path(c.path, "state.json").write_text(json.dumps(record))
        assert c.state == "stopped" and c.exit.signal == signal.SIGKILL
        assert c.inspect()["fault"] == "the machine was started anew"
        c.start()
        assert c.state == "running" and kit.alive(somebody)
        c.delete(force=True)
        assert kit.alive(somebody)


def test_a_number_that_came_to_mean_somebody_else(place):
    """Its monitor was killed, and its first process's number belongs to another one now, who has nothing to do with it."""
    c = zind.Container(FOREVER, containers=place)
    c.start()
    os.kill(monitor_of(c), signal.SIGKILL)
    c.wait(30)
    # When it began, in ticks of the clock, is what tells it from another one with its number; no number comes back within a tick.
    time.sleep(2 / os.sysconf("SC_CLK_TCK"))
    with forked(lambda: None) as somebody:
        running = bytearray(pathlib.Path(c.path, "running").read_bytes())
        running[24:28] = somebody.to_bytes(4, "little")
        pathlib.Path(c.path, "running").write_bytes(running)
        assert c.state == "stopped" and c.exit.signal == signal.SIGKILL
        kit.refused(zind.StateError, c.kill, hint=False)
        c.start()
        assert c.state == "running" and kit.alive(somebody)
        # The same while it runs: its monitor is asked, who has a descriptor of it.
        running = pathlib.Path(c.path, "running")
        text = bytearray(running.read_bytes())
        text[24:28] = somebody.to_bytes(4, "little")
        running.write_bytes(text)
        c.delete(force=True)
        assert kit.alive(somebody)


OTHER_CLOCK = """
import sys, time, zind
c = zind.Containers(sys.argv[1]).find("it")
assert time.monotonic() > 900_000, time.monotonic()
assert c.state == "running", c.state
assert c.exec(["echo", "in"], capture_output=True, stdin=zind.DEVNULL).stdout == b"in\\n"
try:
    c.wait(0.2)
    raise AssertionError("it ended")
except zind.TimeoutExpired:
    pass
assert [one.cmdline[0] for one in c.processes()]
c.stop(30)
assert c.state == "stopped" and c.exit.signal in (9, 15), c.exit
c.start()
c.detach()
"""


def test_another_clock(place):
    """A program whose clocks are a million seconds ahead, in a time namespace, finds the same container, and others find what it starts."""
    c = zind.Container(FOREVER, name="it", containers=place)
    c.start()
    c.detach()
    users = [] if kit.ROOT else ["--user", "--map-root-user"]
    command = ["unshare", *users, "--time", "--fork", "--boottime", "1000000", "--monotonic", "1000000", sys.executable, "-c", OTHER_CLOCK, place.path]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert c.state == "running"
    assert c.exec(["true"], stdin=zind.DEVNULL).returncode == 0
    # Without its monitor it is found by what was written down: by a clock that is not ours.
    first = c.pid
    os.kill(monitor_of(c), signal.SIGKILL)
    c.wait(30)
    until(lambda: not kit.alive(first))
    assert c.state == "stopped"
    c.delete()


@pytest.mark.parametrize("what", ["the container", "the place"])
def test_files_that_are_swept_away(place, what):
    """Somebody who cleans up takes the directory of one that runs: that is said, and it ends with its program, with nothing left."""
    c = zind.Container(["sh", "-c", "echo said; exec sleep 1005"], name="it", containers=place)
    c.start()
    until(lambda: c.logs().read() == b"said\n")
    first, monitor = c.pid, monitor_of(c)
    shutil.rmtree(c.path if what == "the container" else place.path)
    for call in (lambda: c.state, lambda: c.exec(["true"]), lambda: zind.Containers(place.path).find("it"), c.delete):
        with pytest.raises(zind.NotFoundError):
            call()
    assert kit.alive(first) and kit.alive(monitor)
    os.kill(first, signal.SIGKILL)
    until(lambda: not kit.alive(first) and not kit.alive(monitor))
    zind.Containers(place.path).prune()
    again = zind.Container(["true"], name="it", containers=zind.Containers(place.path))
    again.start()
    assert again.wait(30).code == 0
    again.delete()


LIFE = """
import sys, zind
c = zind.Container(["sleep", "1006"], name="it", containers=sys.argv[1])
try:
    c.start()
    assert c.exec(["echo", "in"], capture_output=True, stdin=zind.DEVNULL).stdout == b"in\\n"
    c.stop(30)
    c.start()
    c.kill()
    assert c.wait(30).signal == 9
    print("lived")
except zind.Error as error:
    print("refused:", error)
c.delete(force=True)
"""


@pytest.mark.parametrize("hidden", ["clone3", "fsopen", "mount_setattr", "pidfd_open"])
def test_a_call_that_is_missing(place, hidden):
    """A life without it, or a word about what is missing."""
    source = f"import kit\nkit.hide_calls({hidden!r})\n{LIFE}"
    done = kit.outside(source, place.path)
    said = done.stdout.strip()
    assert said == "lived" or (said.startswith("refused:") and hidden in said), (said, done.stderr)


@pytest.mark.limit(200)
def test_a_long_run_leaves_everything_flat(place):
    """Descriptors and threads of this process, and what is at the place, after many lives as after a few."""

    def lives(count: int) -> tuple[int, int]:
        for _ in range(count):
            c = zind.Container(["true"], containers=place)
            c.start()
            assert c.wait(30).code == 0
            c.delete()
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    few = lives(5)
    assert lives(1000 if ALL else 60) == few
    assert files(place) == []


def test_names_that_lead_nowhere(place):
    """Links in names/ that are broken, lead out, or are no links."""
    c = zind.Container(FOREVER, name="mine", containers=place)
    names = pathlib.Path(place.path, "names")
    (names / "gone").symlink_to("0" * 64)
    (names / "out").symlink_to("/etc")
    (names / "up").symlink_to("../../..")
    (names / "stolen").symlink_to(c.id)
    (names / "file").write_text("x")
    for name in ("gone", "out", "up", "stolen"):
        with pytest.raises(zind.NotFoundError):
            place.find(name)
        with zind.Container(["true"], name=name, containers=place) as other:
            assert place.find(name) == other
    with pytest.raises(zind.Error):
        place.find("file")
    (names / "file").unlink()
    assert place.find("mine") == c
    c.delete()
