"""Bars of many containers that are kept, and of the command: lists, sleepers, and `zind run` beside bubblewrap, by turns."""
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from cgroups import used
from gates import Gate
from workshop import Unavailable

SLEEPERS = 500
LISTED = 1000
MIB = 2**20


# ---- In the measuring process ----

def descendants():
    """Everything below this process. It is the reaper of what its children leave: monitors are its children."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            text = Path("/proc", name, "stat").read_text()
        except OSError:
            continue
        parents[int(name)] = int(text.rpartition(")")[2].split()[1])
    found, new = set(), {os.getpid()}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new and pid not in found}
        found |= new
    return found


def reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def run_time(pid):
    """Seconds on a processor: proc_pid_schedstat, since the ticks of `stat` are longer than most of these processes' lives."""
    return int(Path("/proc", str(pid), "schedstat").read_text().split()[0]) / 1e9


def total(measure, pids):
    """What is gone meanwhile counts no more."""
    sum = 0
    for pid in pids:
        try:
            sum += measure(pid)
        except OSError:
            pass
    return sum


def sleepers(argv, rootfs, directory, count, listed):
    """In a place below `directory`: so many detached containers come up, are listed among `listed`, and go: seconds of processor time of all that takes part, bytes of
    PSS, milliseconds of a list, and what is left of them."""
    import zind
    from worker import pss

    place = Path(tempfile.mkdtemp(prefix="containers-", dir=directory))
    containers = zind.Containers(place)
    try:
        before, begin = descendants(), used()
        up = []
        for _ in range(count):
            up.append(zind.Container(argv, rootfs=rootfs, containers=containers))
            up[-1].start()
            up[-1].detach()
        ours = descendants() - before
        cpu_up = used() - begin + total(run_time, ours)
        memory = total(pss, ours)
        idle = [zind.Container(argv, rootfs=rootfs, containers=containers) for _ in range(listed - count)]
        [one.detach() for one in idle]
        times = []
        for _ in range(15):
            start = time.perf_counter()
            found = containers.list(all=True)
            times.append((time.perf_counter() - start) * 1000)
        if len(found) != listed:
            raise RuntimeError(f"{len(found)} containers are listed instead of {listed}")
        at_rest, begin = total(run_time, ours), used()
        for one in up:
            one.kill()
        for one in up:
            one.wait()
        for one in up + idle:
            one.delete()
        deadline = time.monotonic() + 30
        while (left := descendants() - before) and time.monotonic() < deadline:
            reap()
            time.sleep(0.01)
        # Those that ended are in the time of our children by now.
        cpu_down = used() - begin - at_rest
        # What has happened stays written down.
        files = [str(path) for path in place.rglob("*") if (path.is_symlink() or path.is_file()) and path.parent.name != "events"]
        return {
            "up": cpu_up, "down": cpu_down, "pss": memory, "processes": len(ours), "list": statistics.median(times),
            "left": len(left) + len(files) + len(containers.list(all=True)),
        }
    finally:
        for one in containers.list(all=True):
            one.delete(force=True)
        shutil.rmtree(place)


QUESTIONS = {"sleepers": sleepers}


# ---- In the benchmark ----

class ManyGates:
    def __init__(self, shop, options):
        self.shop, self.options = shop, options
        self.sleeping = self.commands = None

    def all(self):
        many = f"{SLEEPERS} sleeping detached containers"
        return [
            Gate("t", f"a list of {LISTED:,} containers, half of them running", "<=", 100, "ms", lambda: self.of("list")),
            Gate("u1", f"{many}: processor time until they run", "<=", 3, "s", lambda: self.of("up")),
            Gate("u2", f"{many}: PSS of all, payloads included", "<=", 200, "MiB", lambda: self.of("pss") / MIB),
            Gate("u3", f"{many}: processor time until they are gone", "<=", 3, "s", lambda: self.of("down")),
            Gate("u4", f"{many}: processes, files and containers left", "<=", 0, "", lambda: self.of("left")),
            Gate("v1", "zind run --rootfs DIR / bwrap on it", "<=", 1, "x", lambda: self.ratio("zind-dir", "bwrap-dir")),
            Gate("v2", "zind run host / bwrap on the host's root", "<=", 1, "x", lambda: self.ratio("zind-host", "bwrap-host")),
        ]

    def of(self, what):
        if self.sleeping is None:
            if os.geteuid() != 0:
                raise Unavailable("needs root")
            payload = self.shop.payloads[-1]
            if len(payload.inside) < 2:
                raise Unavailable("needs busybox-static, which sleeps")
            worker = self.shop.worker()
            argv = [payload.inside[0], "sleep", "3600"]
            question = {"argv": argv, "rootfs": str(self.shop.rootfs), "directory": str(self.shop.directory), "count": SLEEPERS, "listed": LISTED}
            self.sleeping = worker.ask("many", what="sleepers", **question)
            self.shop.dismiss(worker)
        return self.sleeping[what]

    def ratio(self, name, base):
        if self.commands is None:
            self.commands = self.measure()
        if isinstance(self.commands, str):
            raise Unavailable(self.commands)
        return self.commands[name] / self.commands[base]

    def measure(self):
        """Medians in nanoseconds of the commands, by turns."""
        zind = shutil.which("zind", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")]))
        bwrap = shutil.which("bwrap")
        if not zind or not bwrap:
            return f"no {'bwrap' if zind else 'command zind'}"
        root, inside = str(self.shop.rootfs), self.shop.payloads[-1].inside
        basics = ["--proc", "/proc", "--dev", "/dev"]
        commands = {
            "zind-dir": [zind, "run", "--rootfs", root, *inside],
            "bwrap-dir": [bwrap, "--unshare-all", "--ro-bind", root, "/", *basics, "--", *inside],
            "zind-host": [zind, "run", "host", "/bin/true"],
            "bwrap-host": [bwrap, "--unshare-all", "--ro-bind", "/", "/", *basics, "--", "/bin/true"],
        }
        times = {name: [] for name in commands}
        for _ in range(self.options.rounds + 1):
            for name in random.sample(list(commands), len(commands)):
                times[name].append(self.shop.caller.ask("time_process", argv=commands[name], count=5))
        # The first round warms up.
        return {name: statistics.median(sum(rounds[1:], [])) for name, rounds in times.items()}
