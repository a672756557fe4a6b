"""zind.aio.Container, called off: in the middle of what is done on a thread, before it has one, and too late. So are starts of
zind.aio.Popen, and of programs in one."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import fcntl
import os
import pathlib
import socket
import threading

import pytest

import kit
import zind

PATIENCE = 50


@pytest.fixture
def place(tmp_path) -> pathlib.Path:
    return tmp_path / "containers"


@contextlib.contextmanager
def locked(path: pathlib.Path):
    """As another program that is changing something there."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


async def until(condition) -> None:
    """In the loop, which goes on."""
    end = asyncio.get_running_loop().time() + PATIENCE
    while not condition():
        assert asyncio.get_running_loop().time() < end
        await asyncio.sleep(0.01)


async def called_off(task: asyncio.Task, times: int = 2) -> None:
    """More than once, too, as by a limit of time within a program that ends."""
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task


def files(place: pathlib.Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*")}


def test_create_that_is_called_off_leaves_nothing(place):
    async def main() -> None:
        making = place / "containers/.new"
        zind.Containers(place)
        before = files(place)
        with locked(place / "names"):
            task = asyncio.ensure_future(zind.aio.Container.create(["true"], name="a", containers=place))
            await until(lambda: any(making.iterdir()))
            await called_off(task)
            assert files(place) == before
        assert zind.containers(all=True, containers=place) == []
        async with await zind.aio.Container.create(["true"], name="a", containers=place):
            pass

    asyncio.run(main())


def test_create_that_is_called_off_too_late_is_taken_back(place, monkeypatch):
    """It was made already when the thread heard of it."""
    made = []

    async def main() -> None:
        loop, heard = asyncio.get_running_loop(), threading.Event()
        real = zind.Containers(place)._containers

        class Late:
            @property
            def _containers(self) -> Late:
                return self

            def create(self, argv, plain, given, _cancel):
                made.append(real.create(argv, plain, given, None))
                loop.call_soon_threadsafe(task.cancel)
                loop.call_soon_threadsafe(heard.set)
                assert heard.wait(PATIENCE)
                return made[0]

        monkeypatch.setattr(zind.aio._container, "_opened", lambda _: Late())
        task = asyncio.ensure_future(zind.aio.Container.create(["true"], name="a", containers=place))
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert len(made) == 1
    assert zind.containers(all=True, containers=place) == []


def test_start_that_is_called_off_runs_nothing(place):
    """While a hook holds it up: the hook ends with it."""

    async def main() -> None:
        hooks = {"createRuntime": [zind.Hook("/usr/bin/sleep", ["sleep", "1013"])]}
        async with await zind.aio.Container.create(["sleep", "1014"], containers=place, hooks=hooks) as c:
            task = asyncio.ensure_future(c.start())
            await until(lambda: kit.running("sleep", "1013"))
            await called_off(task)
            assert c.state == "created"
            assert kit.running("sleep", "1013") == kit.running("sleep", "1014") == []

    asyncio.run(main())


def test_start_that_is_called_off_too_late_is_ended(place):
    """Its program runs when the thread hears of it, and does not any more when the task has ended."""
    seen = []

    async def main() -> None:
        loop, heard = asyncio.get_running_loop(), threading.Event()

        def started(state) -> None:
            seen.append(kit.alive(state["pid"]))
            loop.call_soon_threadsafe(task.cancel)
            loop.call_soon_threadsafe(heard.set)
            assert heard.wait(PATIENCE)

        async with await zind.aio.Container.create(["sleep", "1015"], containers=place, hooks={"poststart": [started]}) as c:
            task = asyncio.ensure_future(c.start())
            with pytest.raises(asyncio.CancelledError):
                await task
            assert c.state == "stopped" and c.exit.signal == 9
            assert kit.running("sleep", "1015") == []

    asyncio.run(main())
    assert seen == [True]


def test_delete_that_is_called_off_has_deleted_or_not(place):
    async def main() -> None:
        c = await zind.aio.Container.create(["true"], name="a", containers=place)
        with locked(place / "containers" / c.id / "lock"):
            task = asyncio.ensure_future(c.delete())
            # It is on its thread, where it waits.
            await until(lambda: any(thread.name.startswith("asyncio") for thread in threading.enumerate()))
            await called_off(task)
            assert c.state == "created"
        await c.delete()

    asyncio.run(main())
    assert zind.containers(all=True, containers=place) == []


def test_what_has_no_thread_yet_is_called_off_at_once(place):
    """All threads of the executor are busy: who is called off does not wait for them, and does nothing later."""
    free = threading.Event()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(1))
        busy = loop.run_in_executor(None, free.wait, PATIENCE)
        task = asyncio.ensure_future(zind.aio.Container.create(["true"], name="a", containers=place))
        await asyncio.sleep(0)
        await called_off(task)
        assert not busy.done()
        free.set()
        assert await busy

    asyncio.run(main())
    assert zind.containers(all=True, containers=place) == []


# --- programs in a container -----------------------------------------------------------------------------------------
class Agent:
    """Who gets the listeners of a container's programs, and takes none before he is asked to: a start waits for that."""

    def __init__(self, path: pathlib.Path) -> None:
        self.profile = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_NOTIFY"}],
            "listenerPath": str(path),
        }
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(0)
        self.listener.setblocking(False)
        self.others: list[socket.socket] = []
        with contextlib.suppress(BlockingIOError):
            while True:
                one = socket.socket(socket.AF_UNIX)
                self.others.append(one)
                one.setblocking(False)
                one.connect(str(path))

    async def serve(self, done) -> None:
        """Lets everybody in, in the loop."""
        while not done():
            with contextlib.suppress(BlockingIOError):
                self.others.append(self.listener.accept()[0])
            await asyncio.sleep(0.005)

    def close(self) -> None:
        for one in (self.listener, *self.others):
            one.close()


def test_a_program_that_is_started_in_a_container_leaves_the_loop_alone(place, tmp_path):
    async def main() -> None:
        async with await zind.aio.Container.create(["sleep", "1039"], containers=place) as c:
            await c.start()
            with contextlib.closing(Agent(tmp_path / "agent")) as agent:
                task = asyncio.ensure_future(c.popen(["echo", "here"], seccomp=agent.profile, stdout=zind.PIPE))
                # It waits for what only the loop does.
                await agent.serve(task.done)
                p = await task
                assert (await p.stdout.read(), await p.wait()) == (b"here\n", 0)

    asyncio.run(main())


def test_a_program_whose_start_is_called_off_is_gone(place, tmp_path):
    async def main() -> None:
        async with await zind.aio.Container.create(["sleep", "1040"], containers=place) as c:
            await c.start()
            with contextlib.closing(Agent(tmp_path / "agent")) as agent:
                task = asyncio.ensure_future(c.popen(["sleep", "1041"], seccomp=agent.profile))
                # It executes, and the agent has not heard of it yet.
                await until(lambda: task.done() or kit.running("sleep", "1041"))
                await called_off(task)
            assert not kit.running("sleep", "1041")
            # At whatever point it is called off.
            for turns in range(12):
                task = asyncio.ensure_future(c.popen(["sleep", "1041"], stdin=zind.PIPE, stdout=zind.PIPE, stderr=zind.PIPE))
                for _ in range(turns):
                    await asyncio.sleep(0.002 if turns % 2 else 0)
                task.cancel()
                try:
                    p = await task
                except asyncio.CancelledError:
                    pass
                else:
                    p.kill()
                    await p.communicate()
                assert not kit.running("sleep", "1041")
            assert (await c.exec(["true"])).returncode == 0

    asyncio.run(main())


def test_a_program_that_is_started_in_a_popen_leaves_the_loop_alone(tmp_path):
    async def main() -> None:
        async with await zind.aio.Popen.start(["sleep", "1042"]) as p:
            with contextlib.closing(Agent(tmp_path / "agent")) as agent:
                task = asyncio.ensure_future(p.popen(["echo", "here"], seccomp=agent.profile, stdout=zind.PIPE))
                # It waits for what only the loop does.
                await agent.serve(task.done)
                inner = await task
                assert (await inner.stdout.read(), await inner.wait()) == (b"here\n", 0)
            p.kill()

    asyncio.run(main())


def test_a_program_in_a_popen_whose_start_is_called_off_is_gone(tmp_path):
    async def main() -> None:
        async with await zind.aio.Popen.start(["sleep", "1043"]) as p:
            with contextlib.closing(Agent(tmp_path / "agent")) as agent:
                task = asyncio.ensure_future(p.popen(["sleep", "1044"], seccomp=agent.profile))
                # It executes, and the agent has not heard of it yet.
                await until(lambda: task.done() or kit.running("sleep", "1044"))
                await called_off(task)
            assert not kit.running("sleep", "1044")
            # At whatever point it is called off.
            for turns in range(12):
                task = asyncio.ensure_future(p.popen(["sleep", "1044"], stdin=zind.PIPE, stdout=zind.PIPE, stderr=zind.PIPE))
                for _ in range(turns):
                    await asyncio.sleep(0.002 if turns % 2 else 0)
                task.cancel()
                try:
                    inner = await task
                except asyncio.CancelledError:
                    pass
                else:
                    inner.kill()
                    await inner.communicate()
                assert not kit.running("sleep", "1044")
            assert (await p.exec(["true"])).returncode == 0
            p.kill()

    asyncio.run(main())


def test_a_start_that_waits_for_somebody_leaves_the_loop_alone(tmp_path):
    async def main() -> None:
        with contextlib.closing(Agent(tmp_path / "agent")) as agent:
            task = asyncio.ensure_future(zind.aio.run(["echo", "here"], seccomp=agent.profile, capture_output=True))
            # It waits for what only the loop does.
            await agent.serve(task.done)
            assert (await task).stdout == b"here\n"

    asyncio.run(main())


def test_a_start_that_waits_for_somebody_is_called_off(tmp_path):
    async def main() -> None:
        with contextlib.closing(Agent(tmp_path / "agent")) as agent:
            task = asyncio.ensure_future(zind.aio.Popen.start(["sleep", "1045"], seccomp=agent.profile))
            # It executes, or is about to, and the agent has not heard of it yet.
            await until(lambda: task.done() or kit.running("sleep", "1045"))
            await called_off(task)
            assert not kit.running("sleep", "1045")
        # At whatever point it is called off.
        for turns in range(12):
            task = asyncio.ensure_future(zind.aio.Popen.start(["sleep", "1045"], mounts=[zind.Mount.tmpfs("/mnt")]))
            for _ in range(turns):
                await asyncio.sleep(0.002 if turns % 2 else 0)
            task.cancel()
            try:
                p = await task
            except asyncio.CancelledError:
                pass
            else:
                p.kill()
                await p.wait()
            assert not kit.running("sleep", "1045")

    asyncio.run(main())
