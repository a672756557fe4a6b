"""Bars of programs in running containers: beside the bare system calls, nsenter, crun, runc, lxc-attach and podman, by turns."""
import contextlib
import os
import random
import shutil
import statistics
import subprocess
import time
from dataclasses import replace
from pathlib import Path

from contenders import run_floor, write_config
from gates import Gate
from workshop import Unavailable


class Peer:
    """A container of another tool's. None has a group of its own where the tool can do without, as zind's has none."""

    def __init__(self, shop, name, payload, sleep):
        self.shop, self.name, self.payload, self.sleep = shop, name, payload, sleep
        self.directory = shop.directory / f"{name}-exec"
        self.directory.mkdir()
        self.container = f"bench-{os.getpid()}"

    def start(self):
        """The command that runs the payload in it; None: it cannot be started here."""
        return [*self.command("exec"), self.container, *self.payload.inside] if self.ask(*self.making()) else None

    def ask(self, *command):
        # Who is asked has no part of version 2 of a hybrid in sight, which makes crun refuse.
        script = 'exec "$@" >/dev/null 2>&1 </dev/null'
        try:
            self.shop.peers.ask("time_process", argv=["sh", "-c", script, "sh", *command], count=1)
            return True
        except Unavailable:
            return False


class Runtime(Peer):
    def command(self, verb):
        options = ["--cgroup-manager=disabled"] if self.name == "crun" else []
        return [self.name, "--root", str(self.directory / "state"), *options, verb]

    def making(self):
        subprocess.run([self.name, "spec"], cwd=self.directory, check=True)
        write_config(self.directory / "config.json", self.shop.rootfs, replace(self.payload, inside=self.sleep))
        return [*self.command("run"), "-d", "--bundle", str(self.directory), self.container]

    def end(self):
        self.ask(*self.command("delete"), "--force", self.container)


class Lxc(Peer):
    def command(self, verb):
        return [f"lxc-{verb}", "-P", str(self.directory), "-n", self.container]

    def making(self):
        (self.directory / self.container).mkdir()
        config = [f"lxc.rootfs.path = dir:{self.shop.rootfs}", "lxc.net.0.type = empty", "lxc.mount.auto = proc:rw"]
        config.append(f"lxc.init.cmd = {' '.join(self.sleep)}")
        (self.directory / self.container / "config").write_text("\n".join(config) + "\n")
        return [*self.command("start"), "-d"]

    def start(self):
        return [*self.command("attach"), "--", *self.payload.inside] if self.ask(*self.making()) else None

    def end(self):
        self.ask(*self.command("stop"), "-k")
        # It leaves groups, above all where it did not start.
        for name in (f"lxc.*{self.container}", "lxc.pivot"):
            for group in Path("/sys/fs/cgroup").rglob(name):
                with contextlib.suppress(OSError):
                    group.rmdir()


class Podman(Peer):
    def command(self, verb):
        places = {"root": "r", "runroot": "rr", "tmpdir": "t"}
        places = [word for name, place in places.items() for word in (f"--{name}", str(self.directory / place))]
        return ["podman", *places, "--cgroup-manager", "cgroupfs", "--runtime", "crun", verb]

    def making(self):
        # Where root lacks CAP_SYS_RESOURCE, its own limits cannot be had.
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]
        options = ["-d", "--network", "none", "--cgroups=disabled", "--name", self.container, *limits]
        return [*self.command("run"), *options, "--rootfs", str(self.shop.rootfs), *self.sleep]

    def end(self):
        self.ask(*self.command("rm"), "-f", "-t", "0", self.container)
        # It cleans up behind everybody's back, and makes its directories once more for that.
        deadline = time.monotonic() + 10
        while self.is_busy() and time.monotonic() < deadline:
            time.sleep(0.05)
        # What it keeps mounted on itself.
        self.ask("umount", str(self.directory / "r" / "overlay"))


    def is_busy(self):
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if bytes(self.directory) in Path("/proc", name, "cmdline").read_bytes():
                    return True
        return False


PEERS = {"crun": ("crun", Runtime), "runc": ("runc", Runtime), "lxc-attach": ("lxc-attach", Lxc), "podman": ("podman", Podman)}


class ExecGates:
    """zind's containers are this process's own."""

    def __init__(self, shop, options):
        self.shop, self.options = shop, options
        self.medians = None

    def all(self):
        return [
            Gate("x1", "exec from Python / bare joining (C)", "<=", 1.4, "x", lambda: self.ratio("zind", "floor")),
            Gate("x2", "crun exec / exec from Python", ">=", 5, "x", lambda: self.ratio("crun", "zind")),
            Gate("x3", "runc exec / exec from Python", ">=", 5, "x", lambda: self.ratio("runc", "zind")),
            Gate("x4", "nsenter / exec from Python", ">=", 2, "x", lambda: self.ratio("nsenter", "zind")),
            Gate("x5", "exec from Python", "<=", 5, "ms", lambda: self.median("zind")),
            Gate("x6", "lxc-attach / exec from Python", ">=", 5, "x", lambda: self.ratio("lxc-attach", "zind")),
            Gate("x7", "podman exec / exec from Python", ">=", 20, "x", lambda: self.ratio("podman", "zind")),
        ]

    def ratio(self, name, base):
        return self.median(name) / self.median(base)

    def median(self, name):
        if self.medians is None:
            self.medians = self.measure()
        if name not in self.medians:
            raise Unavailable(f"no {name}")
        return self.medians[name]

    def measure(self):
        import zind

        if os.geteuid() != 0:
            raise Unavailable("needs root")
        payload = self.shop.payloads[-1]
        if len(payload.inside) < 2:
            raise Unavailable("needs busybox-static, which sleeps")
        sleep = [payload.inside[0], "sleep", "600"]
        kinds = {name: kind for name, (program, kind) in PEERS.items() if shutil.which(program)}
        peers = [kind(self.shop, name, payload, sleep) for name, kind in kinds.items()]
        with zind.Popen(sleep, rootfs=str(self.shop.rootfs), stdin=zind.DEVNULL) as container:
            try:
                commands = {"nsenter": ["nsenter", "-a", "-t", str(container.pid), *payload.inside]}
                commands.update({peer.name: command for peer in peers if (command := peer.start())})
                batches = {name: lambda n, c=command: self.processes(c, n) for name, command in commands.items()}
                batches["floor"] = lambda n: run_floor(
                    [str(self.shop.floor), "--join", str(container.pid), "exec", str(n), *payload.inside]
                )
                batches["zind"] = lambda n: [self.timed(lambda: container.exec(payload.inside)) for _ in range(n)]
                return self.by_turns(batches)
            finally:
                container.kill()
                for peer in peers:
                    peer.end()

    def by_turns(self, batches):
        times = {name: [] for name in batches}
        for name in list(batches):
            try:
                batches[name](2)
            except (Unavailable, RuntimeError):
                del batches[name]
        for _ in range(self.options.rounds):
            for name in random.sample(list(batches), len(batches)):
                times[name] += batches[name](10 if name in ("floor", "zind") else 4)
        return {name: statistics.median(measured) / 1e6 for name, measured in times.items() if measured}

    @staticmethod
    def timed(action):
        begin = time.perf_counter_ns()
        result = action()
        end = time.perf_counter_ns()
        if result.returncode != 0:
            raise RuntimeError(f"{result.args[0]} ended with {result.returncode}")
        return end - begin

    def processes(self, command, count):
        return self.shop.peers.ask("time_process", argv=command, count=count)
