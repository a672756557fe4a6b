"""Containers that live: their states, streams, names and events, from this program and from others."""

from __future__ import annotations

import asyncio
import os
import pathlib
import pickle
import random
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import kit
import zind
import zind.aio

FOREVER = ["sleep", "1000"]


@pytest.fixture
def place(tmp_path):
    """A place of the test's own; what a failed test left in it is ended."""
    containers = zind.Containers(tmp_path / "place")
    yield containers
    for container in containers:
        container.delete(force=True)
    assert os.listdir(tmp_path / "place/names") == []


def until(true, seconds: float = 20):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def elsewhere(script: str, *args: object, wait: bool = True):
    """Another program of the same user."""
    argv = [sys.executable, "-c", "import os, sys, time, zind\n" + script, *map(str, args)]
    process = subprocess.Popen(argv, env=kit.child_env(), stdout=subprocess.PIPE, text=True)
    if not wait:
        return process
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return out


# --- states -----------------------------------------------------------------------------------------------------------
def test_a_life_with_all_its_states(place):
    with zind.Container(["sh", "-c", "echo up; exec sleep 1000"], name="web", labels={"tier": "front"}, containers=place) as c:
        assert (c.state, c.pid, c.exit, c.started, c.isolation) == ("created", None, None, None, None)
        assert (c.name, c.labels, len(c.id)) == ("web", {"tier": "front"}, 64)
        c.start()
        assert c.state == "running" and os.path.exists(f"/proc/{c.pid}") and "seccomp" in c.isolation.in_force
        assert c.logs(follow=True).get().text == b"up"
        until(lambda: "sleep" in {process.name for process in c.processes()})
        c.kill("TERM")
        assert c.wait(20) == zind.Exit("signaled", None, signal.SIGTERM) == c.exit
        assert c.state == "stopped" and c.pid is None and c.started < c.finished
        c.start()
        assert c.state == "running" and c.exit is None
        assert c.stop(20).signal == signal.SIGTERM
        assert c.stop() == c.exit, "twice is fine"
    with pytest.raises(zind.NotFoundError):
        c.state
    assert "deleted" in repr(c)


def test_each_wrong_state_is_said(place):
    with zind.Container(FOREVER, name="x", containers=place) as c:
        for call in (c.kill, c.stop, c.wait, c.pause, c.resume, c.attach, c.stats, lambda: c.pidfd, lambda: c.root):
            with pytest.raises(zind.StateError):
                call()
        c.start()
        for call in (c.start, c.delete, c.resume):
            with pytest.raises(zind.StateError):
                call()
        with pytest.raises(zind.TimeoutExpired):
            c.wait(0.01)
        for name in ("a/b", "..", "", "-x", "x" * 129, "a\0b"):
            with pytest.raises(zind.SpecError):
                c.rename(name)
            with pytest.raises((zind.NotFoundError, zind.SpecError)):
                place.find(name)
        with zind.Container(FOREVER, name="y", containers=place) as other:
            for call in (lambda: other.rename("x"), lambda: zind.Container(FOREVER, name="x", containers=place)):
                with pytest.raises(zind.ExistsError):
                    call()
            other.rename("z")
            assert place.find("z") == other and other.name == "z"
            with pytest.raises(zind.NotFoundError):
                place.find("y")


@pytest.mark.parametrize(
    "options",
    [{"stdin": zind.PIPE}, {"restart": "sometimes"}, {"name": "a/b"}, {"stop_signal": 99}, {"log": (1, 1)},
     {"auto_remove": True, "restart": "always"}, {"hooks": {"later": ["/bin/true"]}}, {"pass_fds": [0]}],
    ids=lambda options: next(iter(options)),
)  # fmt: skip
def test_what_cannot_be_is_refused_and_nothing_is_made(place, options):
    with pytest.raises((zind.SpecError, zind.SysError)):
        zind.Container(["true"], containers=place, **options)
    assert place.list(all=True) == []


def test_found_by_name_id_and_prefix_from_any_program(place):
    with zind.Container(FOREVER, name="web", containers=place) as c:
        for name in ("web", c.id, c.id[:12]):
            assert zind.Container.open(name, containers=place.path) == c
        assert pickle.loads(pickle.dumps(c)) == c and hash(pickle.loads(pickle.dumps(c))) == hash(c)
        script = "c = zind.Container.open('web', containers=sys.argv[1])\nc.start()\nc.detach()\nprint(c.pid)"
        assert int(elsewhere(script, place.path)) == c.pid, "it goes on when who has started it is gone"
        with zind.Container.open("web", containers=place) as opened:
            assert opened.state == "running"
        assert c.state == "running", "it was not made by that block"
        with pytest.raises(zind.NotFoundError):
            zind.Container.open("bew", containers=place)


def test_it_ends_with_the_program_that_started_it(place):
    script = "c = zind.Container(['sleep', '1000'], name='x', containers=sys.argv[1])\nc.start()\nos._exit(0)"
    elsewhere(script, place.path)
    c = place.find("x")
    assert c.wait(20).signal == signal.SIGKILL
    assert "ended" in c.inspect()["fault"]


def test_two_programs_start_the_same_one_and_one_of_them_does(place):
    with zind.Container(FOREVER, name="x", containers=place) as c:
        script = """
c = zind.Container.open('x', containers=sys.argv[1])
c.detach()
sys.stdin.read()
try:
    c.start()
    print('started')
except zind.StateError:
    print('refused')
"""
        argv = [sys.executable, "-c", "import sys, zind\n" + script, place.path]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        programs = [subprocess.Popen(argv, env=kit.child_env(), **pipes) for _ in range(4)]
        said = sorted(program.communicate("", timeout=60)[0].strip() for program in programs)
        assert said == ["refused"] * 3 + ["started"] and c.state == "running"


def test_the_block_deletes_it_unless_it_is_detached(place):
    with zind.Container(FOREVER, containers=place) as gone:
        gone.start()
    with zind.Container(FOREVER, containers=place) as kept:
        kept.start()
        kept.detach()
    assert place.list() == [kept] and kept.state == "running"
    kept.delete(force=True)
    with pytest.raises(zind.NotFoundError):
        kept.delete()
    with zind.Container(FOREVER, containers=place) as c:
        c.delete()


def test_changes_stay_from_start_to_start(place, tiny_root):
    script = "echo x >> /count; wc -l < /count"
    with zind.Container(["sh", "-c", script], rootfs=tiny_root, containers=place) as c:
        for _ in range(3):
            c.start()
            assert c.wait(20).code == 0
        assert c.logs().read() == b"1\n2\n3\n"


def test_restarts_belong_to_the_monitor(place):
    with zind.Container(["sh", "-c", "echo again; exit 3"], restart="on-failure:2", containers=place) as c:
        c.start()
        assert c.wait(30).code == 3 and c.restarts == 2
        assert c.logs().read() == b"again\n" * 3
        assert c.inspect()["restart"] == "on-failure:2"
    with zind.Container(["true"], restart="always", containers=place) as c:
        c.start()
        until(lambda: c.restarts >= 1)
        c.stop(10)
        assert c.state == "stopped"


def test_between_two_runs_it_says_that_it_waits(place):
    with zind.Container(["sh", "-c", "exit 3"], restart="always", containers=place) as c:
        c.start()
        # The pauses become longer: sooner or later all of it is within one.
        while True:
            before = c.inspect()["restarting"]
            said = []
            for call in (lambda: c.exec(["true"]), c.pause, c.resume, lambda: c.pidfd, lambda: c.kill("TERM"), c.start):
                try:
                    said.append(call())
                except zind.Error as error:
                    said.append(error)
            found = c.pid, c.state, c.exit, c.processes()
            if before and c.inspect()["restarting"] == before:
                break
        assert all(isinstance(each, zind.StateError) and "started again" in str(each) for each in said), said
        assert found == (None, "running", None, [])
        assert before["exit"]["code"] == 3 and before["finished"] < before["at"]
        c.stop(20)
        assert c.state == "stopped" and c.inspect()["restarting"] is None


def test_one_that_is_removed_by_itself(place):
    c = zind.Container(["true"], auto_remove=True, name="once", containers=place)
    c.start()
    assert c.wait(20).code == 0
    assert place.list(all=True) == []


# --- lists and events ------------------------------------------------------------------------------------------------
def test_lists_filters_and_prune(place):
    with zind.Container(FOREVER, name="a-1", labels={"x": "1", "y": ""}, containers=place) as a:
        b = zind.Container(["true"], name="b-1", labels=["x=2"], containers=place)
        assert place.list() == [] and set(place.list(all=True)) == {a, b} == set(place)
        a.start()
        assert zind.containers(containers=place) == [a] == place.list(labels={"x": "1"})
        assert place.list(all=True, labels={"x": None}) == [b, a]
        assert place.list(all=True, labels=["x=2"]) == [b] == place.list(states=["created"])
        assert place.list(all=True, labels=["x", "y=1"]) == [] == place.list(states=["paused"])
        assert place.list(all=True, name="b") == [b]
        with pytest.raises(zind.SpecError):
            place.list(states=["asleep"])
        assert zind.prune(containers=place).containers == [b.id]
        assert place.list(all=True) == [a]


def test_events_of_all_containers(place):
    with place.events() as events:
        assert events.get(0) is None
        with zind.Container(["sh", "-c", "exit 4"], name="e", containers=place) as c:
            seen = [events.get(20)]
            c.start()
            seen.append(events.get(20))
            assert c.wait(20).code == 4
            seen.append(events.get(20))
        assert [event.what for event in seen] == ["created", "started", "died"]
        assert {(event.id, event.name) for event in seen} == {(c.id, "e")}
        assert [event.exit for event in seen] == [None, None, zind.Exit("exited", 4, None)]
        assert events.get(20).what == "deleted"
    assert events.over and events.get() is None


# --- streams ----------------------------------------------------------------------------------------------------------
def test_logs_apart_with_times_and_tails(place):
    began = time.time()
    script = "echo one; echo two >&2; printf three"
    with zind.Container(["sh", "-c", script], containers=place) as c:
        c.start()
        c.wait(20)
        lines = list(c.logs())
        assert {(line.stream, line.text, line.whole) for line in lines} == {
            ("stdout", b"one", True), ("stderr", b"two", True), ("stdout", b"three", False)
        }  # fmt: skip
        assert all(began - 1 < line.time < time.time() + 1 for line in lines)
        assert c.logs(stderr=False).read() == b"one\nthree" and c.logs(stdout=False).read() == b"two\n"
        assert c.logs(tail=0).read() == b"" and len(list(c.logs(tail=2))) == 2
        assert c.logs(since=time.time() + 60).read() == b"" == c.logs(until=began - 60).read()
        assert c.logs(timestamps=True, stdout=False).read().endswith(b"Z two\n")
        # A new start goes on in the same log.
        c.start()
        c.wait(20)
        assert len(list(c.logs(stdout=False))) == 2
    with zind.Container(["echo", "x"], log=False, containers=place) as c:
        c.start()
        c.wait(20)
        with pytest.raises(zind.StateError):
            c.logs()


def test_a_log_is_followed_from_another_program_and_rotated(place):
    script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done"
    with zind.Container(["sh", "-c", script], name="f", log=("64k", 2), containers=place) as c:
        code = "print(sum(1 for _ in zind.Container.open('f', containers=sys.argv[1]).logs(follow=True)))"
        reader = elsewhere(code, place.path, wait=False)
        with c.logs(follow=True) as logs:
            assert logs.get(0) is None and not logs.over
            c.start()
            mine = [line.text for line in logs]
        assert mine == [b"line %d" % i for i in range(3000)] and logs.over
        assert reader.communicate(timeout=60)[0] == "3000\n"
    with zind.Container(["sh", "-c", script], log=zind.LogOptions(4096, 2), containers=place) as c:
        c.start()
        c.wait(30)
        kept = c.logs().read()
        assert len(kept) < 3 * 4096 and kept.endswith(b"line 2999\n")


def test_what_a_slow_reader_of_a_log_misses_is_told_to_the_byte(place):
    script = "echo first; read go; i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"
    total = len("first\n") + sum(len(f"line {i}\n") for i in range(20000))
    with zind.Container(["sh", "-c", script], log=("64k", 2), stdin_open=True, containers=place) as c:
        c.start()
        with c.logs(follow=True) as logs:
            first = logs.get()
            assert (first.text, first.lost) == (b"first", 0)
            with c.attach() as attached:
                attached.stdin.write(b"go\n")
            c.wait(60)
            lines = [first, *logs]
        lost = sum(line.lost for line in lines)
        assert lost > 0 and len([line for line in lines if line.lost]) == 1
        assert sum(len(line.text) + line.whole for line in lines) + lost == total
        kept = list(c.logs())
        assert not any(line.lost for line in kept)
        told = c.inspect()["log"]
        assert told["rotated_bytes"] == total - sum(len(line.text) + line.whole for line in kept) and told["lost_bytes"] == 0


@pytest.mark.parametrize("what", ["events", "logs", "attachment"])
def test_another_thread_closes_what_one_waits_in(place, what):
    with zind.Container(["sh", "-c", "echo up; read x; exec sleep 60"], stdin_open=True, containers=place) as c:
        c.start()
        until(lambda: c.logs().read() == b"up\n")
        if what == "events":
            waited = place.events()
        elif what == "logs":
            waited = c.logs(follow=True)
            assert waited.get().text == b"up"
        else:
            waited = c.attach()
        told, begins = [], threading.Event()

        def wait():
            begins.set()
            told.extend(waited)

        waiting = threading.Thread(target=wait)
        waiting.start()
        begins.wait()
        assert not waited.over
        if what == "attachment":
            # Whoever waits for output is in nobody's way.
            waited.close_stdin()
            assert waited.fileno() >= 0
        waited.close()
        waiting.join(20)
        assert not waiting.is_alive() and told == []
        assert waited.over and waited.fileno() == -1 and waited.get() is None
        waited.close()


def test_attached_programs_feed_it_and_hear_all_of_it(place):
    script = "while read line; do echo out $line; echo err $line >&2; done; echo end"
    with zind.Container(["sh", "-c", script], stdin_open=True, containers=place) as c:
        c.start()
        with c.attach() as one, c.attach() as two:
            assert one.get(0) is None and not one.over
            one.stdin.write(b"a\n")
            assert {one.get(20), one.get(20)} == {zind.Chunk("stdout", b"out a\n"), zind.Chunk("stderr", b"err a\n")}
            # One that hangs up leaves the container and the others alone.
            one.close()
            two.stdin.write(b"b\n")
            two.close_stdin()
            assert two.read().replace(b"err a\n", b"").replace(b"err b\n", b"") == b"out a\nout b\nend\n"
            assert two.over and two.get() is None
        assert c.wait(20).code == 0
        with pytest.raises(zind.StateError):
            c.attach()


def test_a_terminal_with_a_size(place):
    script = "stty size; while read x; do stty size; done"
    with zind.Container(["sh", "-c", script], pty=(30, 100), stdin_open=True, containers=place) as c:
        c.start()
        until(lambda: b"30 100" in c.logs().read())
        with c.attach() as attached:
            assert attached.pty
            c.resize(40, 120)
            attached.stdin.write(b"\n")
            until(lambda: b"40 120" in c.logs().read())
            attached.resize(50, 150)
            attached.stdin.write(b"\n")
            until(lambda: b"50 150" in c.logs().read())
        c.kill()
        assert c.wait(20).signal == signal.SIGKILL
    with zind.Container(FOREVER, containers=place) as c:
        c.start()
        with pytest.raises(zind.StateError):
            c.resize(1, 1)


# --- what is in it ----------------------------------------------------------------------------------------------------
def test_files_go_in_and_out_and_mounts_come_and_go(place, tmp_path):
    (tmp_path / "in.txt").write_text("carried")
    with zind.Container(FOREVER, containers=place) as c:
        c.start()
        c.copy_in(tmp_path / "in.txt", "/root/in.txt")
        c.copy_out("/root/in.txt", tmp_path / "out.txt")
        assert (tmp_path / "out.txt").read_text() == "carried"
        c.mount(zind.Mount.tmpfs("/mnt"))
        with c.root as root:
            root.write_file("/mnt/x", b"y")
        c.umount("/mnt")
        with c.root as root, pytest.raises(zind.SysError):
            root.read_file("/mnt/x")
        pidfd = c.pidfd
        assert pidfd == c.pidfd and not select.select([pidfd], [], [], 0)[0]
        c.kill(9)
        assert select.select([pidfd], [], [], 20)[0]
        assert c.wait(20).signal == 9 and c.processes() == []
        assert c.stats().wall > 0


def test_what_it_looks_like(place):
    with zind.Container(["true"], name="look", labels={"a": "<b>"}, containers=place) as c:
        assert repr(c) == f"<zind.Container look {c.id[:12]} created>" and "\n" not in repr(c)
        html = c._repr_html_()
        assert "&lt;b&gt;" in html and "look" in html and "<b>" not in html
        c.start()
        c.wait(20)
        assert repr(c).endswith("stopped exited 0>")
        assert repr(place) == f"<zind.Containers {place.path}>"
        found = c.inspect()
        assert (found["id"], found["name"], found["state"], found["exit"]["code"]) == (c.id, "look", "stopped", 0)
        assert c.spec == found["config"] and c.spec


def test_numbers_out_of_range_are_named(place):
    with zind.Container(["true"], containers=place) as c:
        calls = {
            "port": lambda: c.wait_ready(port=70000),
            "tail": lambda: c.logs(tail=-1),
            "since": lambda: place.events(since=-1),
            "log": lambda: zind.Container(["true"], containers=place, log=("1m", -1)),
        }
        for field, call in calls.items():
            with pytest.raises(zind.SpecError, match="is not within") as info:
                call()
            assert info.value.field == field


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: making a control group")
def test_limits_that_change_hold_for_the_next_start(place):
    with zind.Container(["sleep", "60"], resources=zind.Resources(memory="64m", cpus=0.5), containers=place) as c:
        c.update(zind.Resources(memory="48m"))  # before it was ever started
        c.start()
        assert c.stats().memory_limit == 48 << 20
        zind.Container.open(c.id, containers=place).update(zind.Resources(memory="32m"))
        assert c.stats().memory_limit == 32 << 20
        with pytest.raises(zind.SpecError):
            c.update(zind.Resources(memory=1))
        c.restart(timeout=0)
        assert c.stats().memory_limit == 32 << 20
        found = c.inspect()["config"]["linux"]["resources"]
        assert found["memory"]["limit"] == 32 << 20 and found["cpu"]["quota"] == 50_000
        c.kill()
        c.wait(20)
        c.update(zind.Resources(memory="max"))  # between two starts
        c.start()
        assert c.stats().memory_limit is None
        c.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: making a control group")
def test_paused_and_limited(place):
    options = {"resources": zind.Resources(), "containers": place}
    with zind.Container(["sh", "-c", "while :; do echo x; sleep 0.01; done"], **options) as c:
        c.start()
        c.pause()
        assert c.state == "paused" and "paused" in repr(c)
        with pytest.raises(zind.StateError):
            c.pause()
        assert c.stop(20).signal == signal.SIGTERM, "a paused one is stopped, too"
        c.start()
        c.pause()
        c.resume()
        assert c.state == "running"
        with pytest.raises(zind.StateError):
            c.resume()
        c.pause()
        c.delete(force=True)


@pytest.mark.parametrize("end", ["c.delete(force=True)", "c.kill(); assert c.wait().signal == 9; c.delete()", "c.stop(0)"])
def test_programs_that_were_run_in_it_leave_no_zombie(place, end):
    """What has run them waits for the next one, and ends with the container, whose object is still there."""
    script = """
        def children():
            text = open(f"/proc/self/task/{os.getpid()}/children").read()
            return {int(pid): open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] for pid in text.split()}

        def nobody_is_waited_for():
            try:
                os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True

        assert children() == {}
        c = zind.Container(["sleep", "1000"], containers=sys.argv[1])
        c.start()
        for _ in range(20):
            assert c.exec(["true"]).returncode == 0
            # It waits, unless this took seconds.
            if children():
                break
        assert nobody_is_waited_for()
        END
        assert nobody_is_waited_for()
        # What does not end within a second is seen to by the next call.
        until = time.monotonic() + 60
        while children():
            assert time.monotonic() < until, children()
            zind.Container(["true"], containers=sys.argv[1]).delete()
    """
    elsewhere(textwrap.dedent(script).replace("END", end), place.path)


def test_further_programs_run_in_it_and_it_is_waited_for(place):
    script = "sleep 0.1; echo ready now; exec sleep 1000"
    with zind.Container(["sh", "-c", script], containers=place) as c:
        with pytest.raises(zind.StateError):
            c.exec(["true"])
        with c.start_attached() as attached:
            c.wait_ready(line="ready", timeout=20)
            assert attached.get(20).data == b"ready now\n"
        c.wait_ready(command=["true"], timeout=20)
        with pytest.raises(zind.StateError):
            c.wait_ready(port=1, timeout=0.05)
        with pytest.raises(TypeError):
            c.wait_ready(port=1, line="x")
        done = c.exec(["sh", "-c", "cat; exit 3"], input="x", capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (3, "x")
        with c.popen(["sleep", "1000"]) as process:
            process.kill()
            assert process.wait() == -9

        async def more() -> bytes:
            same = await zind.aio.Container.open(c.id, containers=place)
            return (await same.exec(["echo", "there"], capture_output=True)).stdout

        assert asyncio.run(more()) == b"there\n"
        assert c.state == "running"


# --- asyncio ----------------------------------------------------------------------------------------------------------
def test_asyncio(place):
    async def life():
        made = zind.aio.Container.create(["sh", "-c", "read x; echo $x; exec sleep 1000"], stdin_open=True, name="a", containers=place)
        async with await made as c, zind.aio.ContainerEvents(place) as events:
            await c.start()
            async with c.attach() as attached, c.logs(follow=True) as logs:
                waiter = asyncio.ensure_future(c.wait())
                attached.stdin.write(b"hello\n")
                assert (await attached.get()).data == b"hello\n"
                assert (await logs.get()).text == b"hello"
                assert not waiter.done()
                assert (await c.stop(20)).signal == signal.SIGTERM == (await waiter).signal
                assert await logs.get() is None and await attached.get() is None
            assert {(await events.get()).what, (await events.get()).what} == {"started", "died"}
            again = await zind.aio.Container.open("a", containers=place)
            assert again == c and again.state == "stopped" and repr(again).startswith("<zind.Container a")
            with pytest.raises(zind.StateError):
                c.attach()
        with pytest.raises(zind.NotFoundError):
            c.state

    async def many():
        async def one(number: int) -> int:
            async with await zind.aio.Container.create(["sh", "-c", f"exit {number}"], containers=place) as c:
                await c.start()
                return (await c.wait()).code

        assert await asyncio.gather(*map(one, range(8))) == list(range(8))

    asyncio.run(life())
    asyncio.run(many())
    assert place.list(all=True) == []


# --- crashes ----------------------------------------------------------------------------------------------------------
def test_a_monitor_that_was_killed(place):
    with zind.Container(FOREVER, name="m", containers=place) as c:
        c.start()
        monitor = int(pathlib.Path(f"/proc/{c.pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(monitor, signal.SIGKILL)
        assert c.wait(20).signal == signal.SIGKILL
        assert c.state == "stopped" and "monitor was killed" in c.inspect()["fault"]
        c.start()
        assert c.state == "running"


def test_a_state_of_a_later_zind_is_refused_and_can_be_deleted(place):
    c = zind.Container(["true"], containers=place)
    path = pathlib.Path(c.path) / "state.json"
    path.write_text('{"version": 99}')
    with pytest.raises(zind.StateError):
        c.state
    assert "unreadable" in repr(c)
    with pytest.raises(zind.StateError):
        c.delete()
    c.delete(force=True)
    assert place.list(all=True) == []


# --- a machine of states ------------------------------------------------------------------------------------------------
WORKER = """
containers = zind.Containers(sys.argv[1])
ended = {}
for line in sys.stdin:
    verb, name, *rest = line.split()
    try:
        if verb == "create":
            c = zind.Container(["sleep", "1000"], name=name, labels={"kind": rest[0]}, die_with_owner=False, containers=containers)
            said = "ok"
        else:
            c = containers.find(name)
            said = {
                "start": c.start, "kill": c.kill, "stop": lambda: c.stop(20), "wait": lambda: c.wait(20),
                "delete": c.delete, "force": lambda: c.delete(force=True), "rename": lambda: c.rename(*rest),
                "restart": lambda: c.restart(20), "state": lambda: c.state, "attach": lambda: c.attach().close(),
                "expire": lambda: c.wait(0), "stats": c.stats, "exit": lambda: c.exit,
            }[verb]()
            said = said if isinstance(said, str) else "ended" if isinstance(said, zind.Exit) else "ok"
    except zind.Error as error:
        said = type(error).__name__
        if isinstance(error, zind.SysError):
            print(f"{verb} {name}: {error}", file=sys.stderr)
        if verb in ("start", "restart") and getattr(error, "errno", 0) == 10:
            # Another one has killed it before its program ran.
            said = "killed"
    print(said, flush=True)
"""

VERBS = "create start kill stop wait delete force rename restart state attach expire stats exit".split()


class Model:
    """What a container has to do, in the words of docs/containers.md."""

    def __init__(self):
        self.states: dict[str, str] = {}

    def ask(self, verb: str, name: str, *rest: str) -> str:
        state = self.states.get(name)
        if verb == "create":
            if state:
                return "ExistsError"
            self.states[name] = "created"
            return "ok"
        if state is None:
            return "NotFoundError"
        if verb == "state":
            return state
        if verb == "rename":
            (other,) = rest
            if other != name and other in self.states:
                return "ExistsError"
            self.states[other] = self.states.pop(name)
            return "ok"
        if verb == "exit":
            return "ended" if state == "stopped" else "ok"
        if verb == "force" or verb == "delete":
            if verb == "delete" and state == "running":
                return "StateError"
            del self.states[name]
            return "ok"
        if verb == "restart" or verb == "start":
            if verb == "start" and state == "running":
                return "StateError"
            self.states[name] = "running"
            return "ok"
        if state == "created":
            return "StateError"
        if verb == "stats":
            return "ok"
        if verb == "stop":
            self.states[name] = "stopped"
            return "ended"
        if verb in ("wait", "expire"):
            return "ended" if state == "stopped" else "TimeoutExpired"
        if state == "stopped":
            return "StateError"
        if verb == "kill":
            self.states[name] = "ending"
        return "ok"


@pytest.mark.limit(120)
def test_random_operations_of_three_programs_agree_with_a_model(place):
    seed = int(os.environ.get("ZIND_TEST_SEED") or random.randrange(2**32))
    print(f"ZIND_TEST_SEED={seed}")
    choose = random.Random(seed)
    argv = [sys.executable, "-c", "import sys, zind\n" + WORKER, place.path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    workers = [subprocess.Popen(argv, env=kit.child_env(), **pipes) for _ in range(3)]
    model, history = Model(), []

    def ask(*words: str) -> None:
        number = choose.randrange(3)
        history.append(f"{number}: {' '.join(words)}")
        workers[number].stdin.write(" ".join(words) + "\n")
        said = workers[number].stdout.readline().strip()
        expected = model.ask(*words)
        assert said == expected, f"seed {seed}: expected {expected} and not {said} at the end of {history}"

    try:
        for _ in range(250):
            verb = choose.choice(VERBS)
            running = [name for name, state in model.states.items() if state == "running"]
            if verb == "wait" and set(running):
                # It would take its time; what runs is ended by kill and stop.
                verb = "expire"
            name, other = choose.choice("wxyz"), choose.choice("wxyz")
            ask(verb, name, *([other] if verb in ("rename", "create") else []))
            for name in [name for name, state in model.states.items() if state == "ending"]:
                model.states[name] = "stopped"
                ask("wait", name)
            if choose.random() < 0.1:
                found = {container.name: container.state for container in place.list(all=True)}
                assert found == model.states, f"seed {seed}: {history}"
    finally:
        for worker in workers:
            worker.communicate(timeout=60)


@pytest.mark.limit(120)
def test_three_programs_at_once_break_nothing(place):
    """The same without an order: whatever each of them is told, in the end all is well."""
    seed = int(os.environ.get("ZIND_TEST_SEED") or random.randrange(2**32))
    print(f"ZIND_TEST_SEED={seed}")
    choose = random.Random(seed)
    argv = [sys.executable, "-c", "import sys, zind\n" + WORKER, place.path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen(argv, env=kit.child_env(), **pipes) for _ in range(3)]
    verbs = [verb for verb in VERBS if verb != "wait"]
    said = set()
    for worker in workers:
        lines = (" ".join((choose.choice(verbs), choose.choice("xy"), choose.choice("xy"))) for _ in range(80))
        worker.stdin.write("".join(f"{line}\n" for line in lines))
        worker.stdin.flush()
    for worker in workers:
        out, _ = worker.communicate(timeout=100)
        assert worker.returncode == 0 and len(out.split()) == 80, f"seed {seed}"
        said.update(out.split())
    allowed = {"created", "creating", "running", "stopped", "ok", "ended", "killed"}
    assert said <= allowed | {"StateError", "NotFoundError", "ExistsError", "TimeoutExpired"}, f"seed {seed}"
    for container in place:
        container.delete(force=True)
    assert place.list(all=True) == []
