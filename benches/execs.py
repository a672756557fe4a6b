"""Bars of programs in running containers: beside the bare system calls, nsenter, crun and runc, by turns."""
import os
import random
import shutil
import statistics
import subprocess
import time
from dataclasses import replace

from contenders import run_floor, write_config
from gates import Gate
from workshop import Unavailable


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
        peers = [peer for peer in ("crun", "runc") if shutil.which(peer)]
        with zind.Popen(sleep, rootfs=str(self.shop.rootfs), stdin=zind.DEVNULL) as container:
            try:
                commands = {"nsenter": ["nsenter", "-a", "-t", str(container.pid), *payload.inside]}
                commands.update({name: command for name in peers if (command := self.peer(name, payload, sleep))})
                batches = {name: lambda n, c=command: self.processes(c, n) for name, command in commands.items()}
                batches["floor"] = lambda n: run_floor(
                    [str(self.shop.floor), "--join", str(container.pid), "exec", str(n), *payload.inside]
                )
                batches["zind"] = lambda n: [self.timed(lambda: container.exec(payload.inside)) for _ in range(n)]
                return self.by_turns(batches)
            finally:
                container.kill()
                for name in peers:
                    self.runtime(name, "delete", "--force", f"bench-{os.getpid()}")

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

    def runtime(self, name, *arguments):
        state = ["--root", str(self.shop.directory / f"{name}-state")]
        # The hybrid's part of version 2 is hidden from whom it makes refuse.
        script = 'exec "$@" >/dev/null 2>&1 </dev/null'
        command = ["sh", "-c", script, "sh", name, *state, *arguments]
        try:
            self.shop.peers.ask("time_process", argv=command, count=1)
            return True
        except Unavailable:
            return False

    def peer(self, name, payload, sleep):
        """A container of a runtime's own, and the command that runs a program in it."""
        bundle = self.shop.directory / f"{name}-exec"
        bundle.mkdir()
        subprocess.run([name, "spec"], cwd=bundle, check=True)
        write_config(bundle / "config.json", self.shop.rootfs, replace(payload, inside=sleep))
        if not self.runtime(name, "run", "-d", "--bundle", str(bundle), f"bench-{os.getpid()}"):
            return None
        return [name, "--root", str(self.shop.directory / f"{name}-state"), "exec", f"bench-{os.getpid()}", *payload.inside]
