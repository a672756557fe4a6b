"""The contenders of a table, and the rounds in which they take turns."""
import json
import random
import shutil
import statistics
import subprocess
from dataclasses import dataclass, field
from typing import Callable, List, Optional

from load import ForeignLoad
from workshop import Unavailable

MOST_FOREIGN = 0.30  # of one processor, in a round that counts
BATCH_SECONDS = 0.1  # slow contenders get fewer starts per round


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


#: Rules that let pass what a payload takes: what is measured is to make and to enter the domain.
LANDLOCK = "rox=/,rox=/usr,rox=/usr/bin,rox=/usr/lib,ro=/usr/share,ro=/etc,ro=/proc,rw=/dev,rw=/tmp,rw=/run,connect=443,bind=8080"


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
        on_host("zind-landlock", "zind, Landlock with ten paths", landlock=LANDLOCK),
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
    """The rounds of one table, apart: quiet ones count, loud ones only when there is nothing else."""

    contenders: List[Contender]
    quiet: List[dict] = field(default_factory=list)
    loud: List[dict] = field(default_factory=list)

    def run(self, shop, rounds, most):
        """Until there are `rounds` quiet rounds, or twice as many in all."""
        for contender in self.contenders:
            warm_up(contender, most)
        if all(contender.reason for contender in self.contenders):
            return
        while len(self.quiet) < rounds and len(self.quiet) + len(self.loud) < 2 * rounds:
            load = ForeignLoad(shop.pids())
            times = self._round()
            (self.quiet if load.fraction() <= MOST_FOREIGN else self.loud).append(times)

    def _round(self):
        """In another order each time: a batch also pays for the network namespaces that the one before it left."""
        order = random.sample(self.contenders, len(self.contenders))
        return {contender.name: try_batch(contender) for contender in order}

    def note(self):
        if not self.quiet and not self.loud:
            return "nothing to measure"
        if not self.quiet:
            return f"all {len(self.loud)} rounds had foreign load above {MOST_FOREIGN:.0%}: kept, but don't trust them"
        dropped = f"{len(self.loud)} dropped for foreign load above {MOST_FOREIGN:.0%} of a processor"
        return f"{len(self.quiet)} rounds; {dropped}"

    def results(self):
        return [self._result(contender) for contender in self.contenders]

    def _result(self, contender):
        result = Result(contender.name, contender.label, contender.kind, reason=contender.reason)
        times = sorted(time for times in self.quiet or self.loud for time in times[contender.name])
        if times and not contender.reason:
            result.median, result.p10 = statistics.median(times) / 1e6, times[len(times) // 10] / 1e6
            result.count = len(times)
        return result


def warm_up(contender, most):
    if try_batch(contender):
        contender.count = 3
        usual = min(try_batch(contender) or [1]) / 1e9
        contender.count = max(2, min(most, int(BATCH_SECONDS / usual)))


def try_batch(contender):
    """The times of a batch; a contender that fails once is out, with its reason."""
    if contender.reason:
        return []
    try:
        return contender.batch(contender.count)
    except Unavailable as reason:
        contender.reason = str(reason)
        return []
