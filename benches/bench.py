#!/usr/bin/env python3
"""zind beside the bare system calls and beside other tools, interleaved in one run. See README.md."""
import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Callable, List, Optional

import report
from load import ForeignLoad

HERE = Path(__file__).resolve().parent
MOST_FOREIGN = 0.30  # of one processor, in a round that counts
BATCH_SECONDS = 0.1  # slow contenders get fewer starts per round
ANSWER_SECONDS = 180
MIB, KIB = 2**20, 2**10


class Unavailable(Exception):
    """A contender or a bar that cannot be measured here; the message is the reason."""


# ---- What is started: programs, roots, processes ----

@dataclass
class Payload:
    """A program that only exits, on the host and below the root directory that the contenders share."""

    name: str
    title: str
    host: List[str]
    inside: List[str]

    @property
    def in_usr(self):
        return self.host[0].startswith("/usr/")


class Worker:
    """A worker.py; `options` are its command line."""

    def __init__(self, *options):
        command = [sys.executable, str(HERE / "worker.py"), *map(str, options)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, question, **arguments):
        watchdog = threading.Timer(ANSWER_SECONDS, self.process.kill)
        watchdog.start()
        try:
            answer = self._exchange({"ask": question, **arguments})
        finally:
            watchdog.cancel()
        if "error" in answer:
            raise Unavailable(answer["error"])
        return answer["value"]

    def _exchange(self, question):
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise Unavailable(f"the measuring process died or gave no answer in {ANSWER_SECONDS} s")
        return json.loads(line)

    def close(self):
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


class Workshop:
    """The built programs, the root directory and the measuring processes of one run; leaves nothing behind."""

    def __enter__(self):
        self.directory = Path(tempfile.mkdtemp(prefix="zind-bench-", dir=fast_directory()))
        self.workers = []
        try:
            self._build()
            self.caller = self.worker()
            self.peers = self.worker("--without-cgroup2") if os.geteuid() == 0 else self.caller
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for worker in self.workers:
            worker.close()
        shutil.rmtree(self.directory)

    def worker(self, *options):
        self.workers.append(Worker(*options))
        return self.workers[-1]

    def pids(self):
        return [os.getpid(), *(worker.process.pid for worker in self.workers)]

    def _build(self):
        self.floor = self.directory / "floor"
        compile_c(self.floor, "-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", HERE / "floor.c")
        z = self.directory / "z"
        compile_c(z, "-nostdlib", "-static", HERE / "true.S")
        self.rootfs = self.directory / "rootfs"
        for name in ("dev", "etc", "proc", "run", "sys", "tmp", "usr"):
            (self.rootfs / name).mkdir(parents=True)
        self.payloads = [self._payload("z", "z: exit(0) without a C library", z), self._real_payload()]

    def _real_payload(self):
        busybox = static_busybox()
        if busybox:
            return self._payload("true", "true: of a static busybox", busybox, "true")
        program = self.directory / "true"
        compile_c(program, "-static", "-O2", "-x", "c", "-", text="int main(void) { return 0; }\n")
        return self._payload("true", "true: static, with a C library", program)

    def _payload(self, name, title, program, *arguments):
        shutil.copy(program, self.rootfs)
        return Payload(name, title, [str(program), *arguments], [f"/{program.name}", *arguments])


def fast_directory():
    """A tmpfs where programs may be executed, or the default: disks make every container tool slower."""
    try:
        flags = os.statvfs("/dev/shm").f_flag
    except OSError:
        return None
    usable = os.path.ismount("/dev/shm") and os.access("/dev/shm", os.W_OK) and not flags & os.ST_NOEXEC
    return "/dev/shm" if usable else None


def compile_c(output, *arguments, text=None):
    command = [os.environ.get("CC", "cc"), "-o", str(output), *map(str, arguments)]
    subprocess.run(command, input=text, text=True, check=True)


def static_busybox():
    found = shutil.which("busybox")
    if not found:
        return None
    path = Path(found).resolve()
    return None if b"/ld-" in path.read_bytes()[:4096] else path  # the interpreter of a dynamic program


# ---- The contenders ----

@dataclass
class Contender:
    name: str
    label: str
    kind: str  # floor, zind or peer
    batch: Callable[[int], List[int]]  # so many starts: the time of each in nanoseconds
    count: int = 1
    reason: Optional[str] = None


@dataclass
class Result:
    name: str
    label: str
    kind: str
    median: Optional[float] = None  # milliseconds
    p10: Optional[float] = None
    count: int = 0
    reason: Optional[str] = None


def all_contenders(shop, payload):
    return [*floor_contenders(shop, payload), *zind_contenders(shop, payload), *peer_contenders(shop, payload)]


def floor_contenders(shop, payload):
    def batch(variant, argv, *options):
        return lambda count: run_floor([str(shop.floor), *options, variant, str(count), *argv])

    rootfs = ("--rootfs", str(shop.rootfs))
    return [
        Contender("exec", "no container (C)", "floor", batch("exec", payload.host)),
        Contender("floor", "floor (C)", "floor", batch("floor", payload.inside, *rootfs)),
        Contender("full", "floor, full (C)", "floor", batch("full", payload.host)),
        Contender("full-dir", "floor, full, own root (C)", "floor", batch("full", payload.inside, *rootfs)),
    ]


def run_floor(command):
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if result.returncode != 0:
        raise Unavailable(result.stderr.strip().replace("\n", "; "))
    return [int(line) for line in result.stdout.split()]


def zind_contenders(shop, payload):
    def batch(argv, options):
        return lambda count: shop.caller.ask("time_zind", argv=argv, options=options, count=count)

    def on_host(name, label, **options):
        argv, bind = host_start(payload)
        return Contender(name, label, "zind", batch(argv, {**bind, **options}))

    def in_root(name, label, **options):
        return Contender(name, label, "zind", batch(payload.inside, {"rootfs": str(shop.rootfs), **options}))

    return [
        on_host("zind", "zind"),
        on_host("zind-noinit", "zind, init=False", init=False),
        on_host("zind-noseccomp", "zind, seccomp=None", seccomp=None),
        in_root("zind-dir", "zind, own root"),
        in_root("zind-readonly", "zind, own root read-only, seccomp=None", read_only=True, overlay=False, seccomp=None),
    ]


def host_start(payload):
    """Arguments and options that start `payload` in the host's system directories."""
    if payload.in_usr:
        return payload.host, {}
    return ["/payload", *payload.host[1:]], {"bind": [payload.host[0], "/payload"]}


def peer_contenders(shop, payload):
    root, inside = str(shop.rootfs), payload.inside
    bwrap = ["bwrap", "--unshare-all", "--ro-bind", root, "/", "--proc", "/proc", "--dev", "/dev", "--", *inside]
    unshare = ["unshare", "-mpinuf", f"--root={root}", "--mount-proc", "--", *inside]
    return [
        peer(shop.caller, "bwrap", "bwrap", bwrap),
        peer(shop.peers, "crun", "crun, no cgroups", oci_command(shop, payload, "crun", "--cgroup-manager=disabled")),
        peer(shop.peers, "runc", "runc", oci_command(shop, payload, "runc")),
        peer(shop.caller, "unshare", "unshare(1), chroot", unshare),
        peer(shop.caller, "subprocess", "no container (Python)", payload.host),
    ]


def peer(worker, name, label, command):
    def batch(count):
        if not shutil.which(command[0]):
            raise Unavailable("not installed")
        return worker.ask("time_process", argv=command, count=count)

    return Contender(name, label, "peer", batch)


def oci_command(shop, payload, runtime, *options):
    """The command that runs `payload` from a bundle with the runtime's own default configuration."""
    bundle = shop.directory / f"{runtime}-{payload.name}"
    bundle.mkdir()
    if shutil.which(runtime):
        subprocess.run([runtime, "spec"], cwd=bundle, check=True)
        write_config(bundle / "config.json", shop.rootfs, payload)
    state = shop.directory / f"{runtime}-state"
    return [runtime, "--root", str(state), *options, "run", "--bundle", str(bundle), "{id}"]


def write_config(path, rootfs, payload):
    config = json.loads(path.read_text())
    config["process"].update(args=payload.inside, terminal=False)
    config["root"]["path"] = str(rootfs)
    path.write_text(json.dumps(config))


# ---- Measuring ----

@dataclass
class Measurement:
    """The rounds of one table."""

    contenders: List[Contender]
    rounds: List[dict] = field(default_factory=list)
    foreign: List[float] = field(default_factory=list)

    def run(self, shop, rounds, most):
        for contender in self.contenders:
            warm_up(contender, most)
        for _ in range(rounds):
            load = ForeignLoad(shop.pids())
            self.rounds.append({c.name: times for c in self.contenders for times in [try_batch(c)] if times})
            self.foreign.append(load.fraction())

    def quiet(self):
        """The rounds that count: all of them when none was quiet."""
        kept = [times for times, foreign in zip(self.rounds, self.foreign) if foreign <= MOST_FOREIGN]
        return kept or self.rounds

    def note(self):
        loud = sum(foreign > MOST_FOREIGN for foreign in self.foreign)
        if loud and loud == len(self.foreign):
            return f"all {loud} rounds had foreign load above {MOST_FOREIGN:.0%}: kept, but don't trust them"
        return f"{loud} of {len(self.foreign)} rounds dropped for foreign load above {MOST_FOREIGN:.0%} of a processor"

    def results(self):
        return [self._result(contender) for contender in self.contenders]

    def _result(self, contender):
        result = Result(contender.name, contender.label, contender.kind, reason=contender.reason)
        times = sorted(time for times in self.quiet() for time in times.get(contender.name, []))
        if times and not contender.reason:
            result.median, result.p10 = statistics.median(times) / 1e6, times[len(times) // 10] / 1e6
            result.count = len(times)
        return result


def warm_up(contender, most):
    if try_batch(contender):
        slowest = max(try_batch(contender) or [1]) / 1e9
        contender.count = max(2, min(most, int(BATCH_SECONDS / slowest)))


def try_batch(contender):
    """The times of a batch; a contender that fails once is out, with its reason."""
    if contender.reason:
        return []
    try:
        return contender.batch(contender.count)
    except Unavailable as reason:
        contender.reason = str(reason)
        return []


# ---- The bars ----

@dataclass
class Bar:
    key: str
    text: str
    value: str
    met: Optional[bool]


@dataclass
class Gate:
    """One bar: `measure` returns the number that `limit` bounds, or raises Unavailable."""

    key: str
    text: str
    limit: float
    unit: str
    measure: Callable[[], float]
    at_least: bool = False

    def result(self):
        try:
            value = self.measure()
        except Unavailable as reason:
            return Bar(self.key, self.text, str(reason), None)
        met = value >= self.limit if self.at_least else value <= self.limit
        return Bar(self.key, self.text, f"{value:.2f} {self.unit}".strip(), met)


@dataclass
class Gates:
    """How each bar is measured."""

    shop: Workshop
    results: List[Result]
    options: argparse.Namespace

    def all(self):
        return [
            Gate("a", "zind <= 1.3 x floor, full", 1.3, "x", lambda: self.median("zind") / self.median("full")),
            Gate("b1", "zind at least 2.5 x faster than bwrap", 2.5, "x", lambda: self.median("bwrap") / self.median("zind"), True),
            Gate("b2", "zind at least 4 x faster than crun without cgroups", 4, "x", lambda: self.median("crun") / self.median("zind"), True),
            Gate("c", "read-only root without seccomp at least 3.5 x faster than bwrap", 3.5, "x", lambda: self.median("bwrap") / self.median("zind-readonly"), True),
            Gate("d", "the seccomp filter adds <= 0.1 ms", 0.1, "ms", lambda: self.median("zind") - self.median("zind-noseccomp")),
            Gate("e", "2,000 mounts on the host add <= 0.2 ms", 0.2, "ms", self.extra_mounts),
            Gate("f", "a caller with 4 GB and 50 threads <= 1.2 x a small one", 1.2, "x", self.big_caller),
            Gate("g", "64 threads start >= 1.7 x as many per second as one", 1.7, "x", self.threads, True),
            Gate("h", "import zind <= 30 ms", 30, "ms", self.import_time),
            Gate("i", "the wheel <= 6 MiB", 6, "MiB", lambda: self.file_size(self.options.wheel, "--wheel") / MIB),
            Gate("j", "the launcher <= 128 KiB", 128, "KiB", self.launcher_size),
            Gate("k", "PSS of a waiting first process <= 150 KiB", 150, "KiB", lambda: self.shop.caller.ask("first_process_pss", argv=["sleep", "100"]) / KIB),
        ]

    def median(self, name):
        for result in self.results:
            if result.name == name and result.median is not None:
                return result.median
            if result.name == name:
                raise Unavailable(f"no {name}")
        raise Unavailable(f"no {name}")

    def start(self, worker, count=10):
        argv, bind = host_start(self.shop.payloads[0])
        return worker.ask("time_zind", argv=argv, options=bind, count=count)

    def compare(self, worker):
        """Medians in milliseconds of the plain caller and of `worker`, batches by turns."""
        self.start(worker, 2)
        plain, other = [], []
        for _ in range(self.options.rounds):
            plain += self.start(self.shop.caller)
            other += self.start(worker)
        return statistics.median(plain) / 1e6, statistics.median(other) / 1e6

    def extra_mounts(self):
        if os.geteuid() != 0:
            raise Unavailable("needs root")
        self.start(self.shop.caller, 1)
        target = self.shop.directory / "mounts"
        target.mkdir()
        plain, crowded = self.compare(self.shop.worker("--mounts", 2000, target))
        return crowded - plain

    def big_caller(self):
        self.start(self.shop.caller, 1)
        if available_memory() < 6 * 2**30:
            raise Unavailable("needs 6 GB of free memory")
        worker = self.shop.worker("--memory", 4 * 2**30, "--threads", 50)
        try:
            plain, big = self.compare(worker)
        finally:
            worker.close()
        return big / plain

    def threads(self):
        argv, bind = host_start(self.shop.payloads[0])
        rates = {1: [], 64: []}
        for _ in range(max(5, self.options.rounds // 2)):
            for count, measured in rates.items():
                measured.append(self.shop.caller.ask("throughput", argv=argv, options=bind, threads=count, count=64))
        return statistics.median(rates[64]) / statistics.median(rates[1])

    def import_time(self):
        self.shop.caller.ask("attribute", name="__name__")
        times = {"pass": [], "import zind": []}
        for _ in range(max(5, self.options.rounds // 2)):
            for code, measured in times.items():
                begin = time.perf_counter()
                subprocess.run([sys.executable, "-c", code], check=True)
                measured.append(time.perf_counter() - begin)
        return (statistics.median(times["import zind"]) - statistics.median(times["pass"])) * 1000

    def launcher_size(self):
        if self.options.launcher:
            return self.file_size(self.options.launcher, "--launcher") / KIB
        return self.shop.caller.ask("attribute", name="LAUNCHER_SIZE") / KIB

    def file_size(self, path, option):
        if not path:
            raise Unavailable(f"no {option}")
        return os.path.getsize(path)


def available_memory():
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))


# ---- The run ----

def machine():
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), platform.machine())
    return f"{model}, {os.cpu_count()} processors, Linux {platform.release()}, Python {platform.python_version()}"


def versions():
    found = []
    for name in ("bwrap", "crun", "runc", "unshare"):
        if shutil.which(name):
            output = subprocess.run([name, "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
            found.append(output.splitlines()[0])
    return ", ".join(found)


def chosen(names, options):
    return [name for name in names if not options.only or name in options.only]


def run(shop, options):
    tables = []
    for payload in shop.payloads:
        contenders = [c for c in all_contenders(shop, payload) if chosen([c.name], options)]
        measurement = Measurement(contenders)
        measurement.run(shop, options.rounds, options.starts)
        tables.append({"title": payload.title, "note": measurement.note(), "results": measurement.results()})
    gates = Gates(shop, tables[0]["results"], options).all()
    bars = [gate.result() for gate in gates if chosen([gate.key, gate.key[0]], options)]
    return tables, bars


def as_text(tables, bars):
    parts = [f"zind benchmark, {time.strftime('%Y-%m-%d')}", machine(), versions(), "start to exit in ms", ""]
    for entry in tables:
        parts += [report.table(entry["title"], entry["results"], ("full", "bwrap", "crun")), f"({entry['note']})", ""]
    return "\n".join([*parts, report.bars(bars), ""])


def as_json(tables, bars):
    plain = [{**entry, "results": [asdict(result) for result in entry["results"]]} for entry in tables]
    document = {"machine": machine(), "versions": versions(), "tables": plain, "bars": [asdict(bar) for bar in bars]}
    return json.dumps(document, indent=2) + "\n"


def write_results(tables, bars, options):
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    (results / "latest.txt").write_text(as_text(tables, bars))
    (results / "latest.svg").write_text(report.svg([(entry["title"], entry["results"]) for entry in tables]))
    if options.json:
        Path(options.json).write_text(as_json(tables, bars))


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, help="rounds of short batches (40)")
    parser.add_argument("--quick", action="store_true", help="few rounds: about 20 seconds, not for publication")
    parser.add_argument("--only", type=lambda text: text.split(","), metavar="NAME,...", help="contenders, and bars by letter")
    parser.add_argument("--wheel", help="the built wheel, for its size")
    parser.add_argument("--launcher", help="the built launcher, for its size (default: zind.LAUNCHER_SIZE)")
    parser.add_argument("--json", metavar="FILE", help="write everything there too")
    parser.add_argument("--check", action="store_true", help="fail when a bar is missed")
    options = parser.parse_args()
    options.rounds = options.rounds or (5 if options.quick else 40)
    options.starts = 5 if options.quick else 10
    return options


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = parse_options()
    with Workshop() as shop:
        tables, bars = run(shop, options)
    print(as_text(tables, bars), end="")
    write_results(tables, bars, options)
    return int(options.check and any(bar.met is False for bar in bars))


if __name__ == "__main__":
    sys.exit(main())
