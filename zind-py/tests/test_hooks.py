"""Hooks, what a monitor does alone, and the journal, from Python."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
import warnings

import pytest

import kit
import zind
import zind.aio

LISTS = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
CALLED = ["createRuntime", "poststart", "poststop"]


@pytest.fixture
def place(tmp_path):
    containers = zind.Containers(tmp_path / "place")
    yield containers
    for container in containers:
        container.delete(force=True)
    assert os.listdir(tmp_path / "place/names") == []


@pytest.fixture
def told(tmp_path):
    """A file of this machine's that the container has, too."""
    path = tmp_path / "told"
    path.write_text("")
    path.chmod(0o666)
    return path


def shell(text, **more):
    return zind.Hook("/bin/sh", ["sh", "-c", text], {"PATH": "/usr/bin:/bin", "VAR": "value"}, **more)


def made(place, told, argv=("true",), **options):
    return zind.Container([*argv], containers=place, mounts=[zind.Mount.bind(told, told)], **options)


def until(true, seconds: float = 20):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_who_waits_for_a_hook_of_somebody_else_is_interrupted(place, told):
    """A start keeps others from changing the container while its hooks run; a signal ends their wait."""
    container = made(place, told, hooks={"createContainer": [shell(f"echo begun >> {told}; exec sleep 1000", timeout=40)]})
    failed = []

    def start():
        try:
            container.start()
        except zind.Error as error:
            failed.append(error)

    class Interrupted(Exception):
        pass

    def raising(*_):
        raise Interrupted

    other = place.find(container.id)
    calls = [other.pause, other.detach, lambda: other.update(zind.Resources())]
    calls += [lambda call=call: call("another") for call in (other.rename, other.snapshot, other.restore, other.remove_snapshot)]
    starter = threading.Thread(target=start)
    before = signal.signal(signal.SIGUSR1, raising)
    starter.start()
    try:
        until(lambda: told.read_text())
        for call in calls:
            timer = threading.Timer(0.2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGUSR1))
            with pytest.raises(Interrupted):
                timer.start()
                call()
            timer.join()
            # The hook runs still, so that nobody else could have ended the wait.
            assert starter.is_alive()
    finally:
        signal.signal(signal.SIGUSR1, before)
        for pid in [pid for pid, (_, _, name) in kit.descendants().items() if name == "sleep"]:
            os.kill(pid, signal.SIGKILL)
        starter.join()
    assert [error.step for error in failed] == ["Hook"]
    assert container.name is None


def test_what_is_being_started_is_stopped_when_it_runs(place, told):
    hook = shell(f"echo begun >> {told}; until grep -q go {told}; do sleep 0.02; done", timeout=60)
    container = made(place, told, ["sleep", "1000"], hooks={"createRuntime": [hook]})

    async def stop():
        other = await zind.aio.Container.open(container.id, containers=place)
        stopping = asyncio.ensure_future(other.stop(60))
        # Asked for the first time, while nobody is there who could be told.
        await asyncio.sleep(0)
        with told.open("a") as file:
            file.write("go\n")
        return await stopping

    starter = threading.Thread(target=container.start)
    starter.start()
    until(lambda: told.read_text())
    assert container.state == "creating"
    exit = asyncio.run(stop())
    starter.join()
    assert (exit.kind, exit.signal) == ("signaled", signal.SIGTERM)


def test_programs_and_functions_in_their_order_with_the_state(place, told):
    line = f'echo "$(cat)|NAME|$VAR|$(readlink /proc/self/ns/uts)" >> {told}'
    hooks = {name: [shell(line.replace("NAME", name))] for name in LISTS}
    states = []
    for name in CALLED:
        hooks[name].append(lambda state, name=name: states.append((name, state, len(told.read_text().splitlines()))))
    with made(place, told, hooks=hooks, labels={"a": "b"}) as c:
        assert told.read_text() == "" and states == []
        c.start()
        c.wait(20)
    lines = [line.split("|") for line in told.read_text().splitlines()]
    assert [name for _, name, _, _ in lines] == LISTS
    assert {variable for _, _, variable, _ in lines} == {"value"}
    uts = os.readlink("/proc/self/ns/uts")
    assert [there == uts for *_, there in lines] == [True, True, False, False, True, True]
    documents = [json.loads(text) for text, *_ in lines]
    assert [one["status"] for one in documents] == ["creating", "creating", "creating", "created", "running", "stopped"]
    assert {(one["id"], one["bundle"], one["annotations"]["a"]) for one in documents} == {(c.id, c.path, "b")}
    assert documents[2]["pid"] == documents[3]["pid"] == 1 and "pid" not in documents[5]
    assert [(name, count) for name, _, count in states] == [("createRuntime", 2), ("poststart", 5), ("poststop", 6)]
    assert states[0][1] == documents[1]


@pytest.mark.parametrize("when", LISTS)
def test_one_that_fails_ends_the_start_or_warns(place, told, when):
    c = made(place, told, ["sh", "-c", f"echo ran > {told}"], hooks={when: [shell("echo the reason >&2; exit 4")]})
    if when in ("poststart", "poststop"):
        with pytest.warns(zind.HookWarning, match=f"the {when} hook exited with 4: the reason"):
            c.start()
            c.wait(20)
            c.delete()
        assert told.read_text() == "ran\n"
        return
    with pytest.raises(zind.SysError, match=f"the {when} hook exited with 4: the reason") as caught:
        c.start()
    assert (caught.value.step, caught.value.filename) == ("Hook", "/bin/sh")
    assert (c.state, told.read_text()) == ("created", "")
    c.delete()


def test_what_a_function_raises_is_the_cause_or_a_warning(place, told):
    def fails(state):
        raise LookupError("not here")

    with made(place, told, hooks={"createRuntime": [fails]}) as c:
        with pytest.raises(zind.SysError, match="LookupError: not here") as caught:
            c.start()
        assert isinstance(caught.value.__cause__, LookupError)
        assert c.state == "created"
        # Another object has no functions.
        zind.Container.open(c.id, containers=place).start()
        c.wait(20)
    c = made(place, told, hooks={"poststop": [fails]})
    with pytest.warns(zind.HookWarning, match="LookupError: not here"):
        c.delete()

    def interrupts(state):
        raise KeyboardInterrupt

    with made(place, told, hooks={"createRuntime": [interrupts]}) as c:
        with pytest.raises(KeyboardInterrupt):
            c.start()
    for when in ("prestart", "createContainer", "startContainer"):
        with pytest.raises(zind.SpecError, match="function"):
            made(place, told, hooks={when: [fails]})


def test_awaited_functions_run_in_the_thread_that_waits(place, told):
    threads = []

    def note(state):
        threads.append(threading.current_thread())
        if len(threads) == 3:
            raise ValueError("late")

    async def main():
        container = await zind.aio.Container.create(
            ["true"], containers=place, hooks={name: [note] for name in CALLED}
        )
        await container.start()
        assert (await container.wait()).code == 0
        with pytest.warns(zind.HookWarning, match="late"):
            await container.delete()

    asyncio.run(main())
    assert len(threads) == 3 and threading.main_thread() not in threads


def test_a_hook_that_takes_too_long(place, told):
    begun = time.monotonic()
    hook = {"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}
    with made(place, told, hooks={"createContainer": [hook]}) as c:
        with pytest.raises(zind.SysError, match="had not ended within 1 s"):
            c.start()
    assert time.monotonic() - begun < 500


def test_what_is_a_container_s_is_refused_by_run_with_the_word_where():
    kit.refused(zind.UnsupportedError, lambda: zind.run(["true"], hooks={"poststop": [shell("true")]}))
    for name, value in {"name": "x", "labels": {}, "restart": "no", "auto_remove": True, "stdin_open": True}.items():
        for call in (zind.run, zind.Popen):
            with pytest.raises(zind.UnsupportedError, match=rf"zind.Container\(argv, {name}=\.\.\.\)"):
                call(["true"], **{name: value})


def test_its_monitor_removes_it_with_nobody_looking(place, told):
    c = made(place, told, ["sh", "-c", "exit 6"], auto_remove=True, name="brief", hooks={"poststop": [shell(f"echo x >> {told}")]})
    c.start()
    root = place.path
    until(lambda: os.listdir(f"{root}/names") == [] and told.read_text() == "x\n")
    assert sorted(os.listdir(f"{root}/containers")) == [".auto", ".new", ".trash"]
    assert os.listdir(f"{root}/containers/.auto") == os.listdir(f"{root}/containers/.trash") == []
    assert c.wait(20) == c.stop() == zind.Exit("exited", 6, None)
    with pytest.raises(zind.NotFoundError):
        c.state

    async def main():
        for _ in range(5):
            one = await zind.aio.Container.create(["sh", "-c", "exit 7"], containers=place, auto_remove=True)
            await one.start()
            assert (await one.wait()).code == 7
            one = await zind.aio.Container.create(["sleep", "1000"], containers=place, auto_remove=True)
            await one.start()
            assert (await one.stop()).signal == 15

    asyncio.run(main())


def test_every_change_is_told_once_and_in_order(place, told):
    with place.events() as events:
        for number in range(8):
            with made(place, told, name=f"n{number}", auto_remove=number % 2 == 0) as c:
                c.start()
                c.wait(20)
        seen = []
        while [event.what for event in seen].count("deleted") < 8:
            seen.append(events.get(20))
        assert events.get(0) is None
    assert [event.number for event in seen] == list(range(seen[0].number, seen[0].number + len(seen)))
    for number in range(8):
        assert [event.what for event in seen if event.name == f"n{number}"] == ["created", "started", "died", "deleted"]
    assert {event.exit for event in seen if event.what == "died"} == {zind.Exit("exited", 0, None)}
    with place.events(since=seen[3].number) as again:
        assert [again.get(0) for _ in seen[3:]] == seen[3:]


def test_who_kills_it_as_it_starts_is_told_so(place, told):
    def kills(state):
        zind.Container.open(state["id"], containers=place).kill()

    with made(place, told, hooks={"createRuntime": [kills]}) as c:
        with pytest.raises(zind.StateError, match="killed while it was being started"):
            c.start()
        assert c.state == "created"


def test_no_warning_without_a_failure(place, told):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with made(place, told, hooks={name: [shell("cat > /dev/null")] for name in LISTS}) as c:
            c.start()
            c.wait(20)
