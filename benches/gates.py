"""The bars that zind has to clear, and how each is measured."""
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Callable, Optional

from contenders import host_start
from workshop import Unavailable

MIB, KIB = 2**20, 2**10


@dataclass
class Bar:
    """The outcome for one bar; `met` is None where it was not measured, for `reason`."""

    key: str
    text: str
    bound: str
    value: str = ""
    met: Optional[bool] = None
    reason: str = ""


@dataclass
class Gate:
    """One bar: the number that `measure` returns is at most (or at least) `limit`, in `unit`."""

    key: str
    text: str
    relation: str  # "<=" or ">="
    limit: float
    unit: str
    measure: Callable[[], float]

    def result(self):
        bound = f"{self.relation} {self.limit:g} {self.unit}"
        try:
            value = self.measure()
        except Unavailable as reason:
            return Bar(self.key, self.text, bound, reason=str(reason))
        met = value >= self.limit if self.relation == ">=" else value <= self.limit
        return Bar(self.key, self.text, bound, f"{value:.2f} {self.unit}", met)


class Gates:
    """The bars over `results`, the first table's; `options` are the command line."""

    def __init__(self, shop, results, options):
        self.shop, self.options = shop, options
        self.medians = {result.name: result.median for result in results if result.median is not None}

    def all(self):
        """In the order of the letters; b is two."""
        return [
            Gate("a", "zind / full", "<=", 1.3, "x", lambda: self.ratio("zind", "full")),
            Gate("b1", "bwrap / zind", ">=", 2.5, "x", lambda: self.ratio("bwrap", "zind")),
            Gate("b2", "crun / zind", ">=", 4, "x", lambda: self.ratio("crun", "zind")),
            Gate("c", "bwrap / zind-readonly", ">=", 3.5, "x", lambda: self.ratio("bwrap", "zind-readonly")),
            Gate("d", "zind - zind-noseccomp", "<=", 0.1, "ms", self.filter_cost),
            Gate("e", "2,000 more mounts on the host", "<=", 0.2, "ms", self.extra_mounts),
            Gate("f", "caller with 4 GB and 50 threads / small caller", "<=", 1.2, "x", self.big_caller),
            Gate("g", "starts per second of 64 threads / of one", ">=", 1.7, "x", self.threads),
            Gate("h", "import zind", "<=", 30, "ms", self.import_time),
            Gate("i", "wheel", "<=", 6, "MiB", self.wheel_size),
            Gate("j", "launcher", "<=", 128, "KiB", self.launcher_size),
            Gate("k", "PSS of a waiting first process", "<=", 150, "KiB", self.first_process),
        ]

    # From the table.

    def median(self, name):
        if name not in self.medians:
            raise Unavailable(f"no {name}")
        return self.medians[name]

    def ratio(self, name, base):
        return self.median(name) / self.median(base)

    def filter_cost(self):
        return self.median("zind") - self.median("zind-noseccomp")

    # Two callers by turns.

    def start(self, worker, count=10):
        argv, bind = host_start(self.shop.payloads[0])
        return worker.ask("time_zind", argv=argv, options=bind, count=count)

    def compare(self, *options):
        """Medians in milliseconds of the plain caller and of one prepared with `options`, batches by turns."""
        self.start(self.shop.caller, 2)
        other = self.shop.worker(*options)
        self.start(other, 2)
        times = {self.shop.caller: [], other: []}
        for _ in range(self.options.rounds):
            for worker, measured in times.items():
                measured += self.start(worker)
        self.shop.dismiss(other)
        return [statistics.median(measured) / 1e6 for measured in times.values()]

    def extra_mounts(self):
        if os.geteuid() != 0:
            raise Unavailable("needs root")
        target = self.shop.directory / "mounts"
        target.mkdir(exist_ok=True)
        plain, crowded = self.compare("--mounts", 2000, target)
        return crowded - plain

    def big_caller(self):
        if available_memory() < 6 * 2**30:
            raise Unavailable("needs 6 GB of free memory")
        plain, big = self.compare("--memory", 4 * 2**30, "--threads", 50)
        return big / plain

    # On their own.

    def threads(self):
        argv, bind = host_start(self.shop.payloads[0])
        rates = {1: [], 64: []}
        for _ in range(self.few_rounds()):
            for threads, measured in rates.items():
                question = {"argv": argv, "options": bind, "threads": threads, "count": 64}
                measured.append(self.shop.caller.ask("throughput", **question))
        return statistics.median(rates[64]) / statistics.median(rates[1])

    def import_time(self):
        self.shop.caller.ask("attribute", name="__name__")
        times = {"pass": [], "import zind": []}
        for _ in range(self.few_rounds()):
            for code, measured in times.items():
                begin = time.perf_counter()
                subprocess.run([sys.executable, "-c", code], check=True)
                measured.append(time.perf_counter() - begin)
        return (statistics.median(times["import zind"]) - statistics.median(times["pass"])) * 1000

    def wheel_size(self):
        if not self.options.wheel:
            raise Unavailable("no --wheel")
        return os.path.getsize(self.options.wheel) / MIB

    def launcher_size(self):
        if self.options.launcher:
            return os.path.getsize(self.options.launcher) / KIB
        return self.shop.caller.ask("attribute", name="LAUNCHER_SIZE") / KIB

    def first_process(self):
        return self.shop.caller.ask("first_process_pss", argv=["sleep", "100"]) / KIB

    def few_rounds(self):
        return max(5, self.options.rounds // 2)


def available_memory():
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))
