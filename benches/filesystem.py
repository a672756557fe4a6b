"""Bars of the file system: layers on disk, copy-on-write roots, mounts.

The first half runs in the measuring process, the second asks it.
"""
import os
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path

#: Files and bytes of a root: the cost of a start must not depend on either.
SIZES = [(1, 2**20), (1000, 2**28), (200_000, 5 * 2**30)]
DISK = "/var/tmp"  # /tmp may be memory, where syncing costs nothing


# ---- Measured here ----

class Ground:
    """A directory on disk with roots of several sizes."""

    def __enter__(self):
        self.path = Path(tempfile.mkdtemp(prefix="zind-bench-", dir=DISK))
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path)

    def root(self, program, files, size):
        """A root with a program and `files` files of `size` bytes together, which take no room on disk."""
        root = self.path / f"root-{files}"
        for name in ("dev", "etc", "proc", "sys", "tmp"):
            (root / name).mkdir(parents=True)
        shutil.copy(program, root / "program")
        for number in range(files):
            directory = root / "data" / str(number // 100)
            directory.mkdir(parents=True, exist_ok=True)
            with open(directory / str(number), "wb") as file:
                file.truncate(size // files)
        return root


def milliseconds(action, count):
    times = []
    for _ in range(count):
        begin = time.perf_counter_ns()
        action()
        times.append((time.perf_counter_ns() - begin) / 1e6)
    return statistics.median(times)


def change(layers, count):
    for number in range(count):
        Path(layers.upper, f"new-{number}").write_text("x" * 100)


def layers_of(program, rounds):
    """For each size of the root: medians of a snapshot, of one over many changes, and of a difference of few changes."""
    import zind

    found = []
    with Ground() as ground:
        for files, size in SIZES:
            layers = zind.Layers.create(ground.path / f"layers-{files}", ground.root(program, files, size))
            names = iter(range(10_000))
            snapshot = milliseconds(lambda: layers.snapshot(str(next(names))), rounds)
            change(layers, min(files, 20_000))
            crowded = milliseconds(lambda: layers.snapshot(str(next(names))), 1)
            change(layers, 10)
            since = str(next(names) - 1)
            diff = milliseconds(lambda: layers.diff(since), rounds)
            found.append({"snapshot": snapshot, "crowded": crowded, "diff": diff})
            layers.delete()
    return found


def differences(program, rounds):
    """Milliseconds of the difference of 100 and of 1,000 new files."""
    import zind

    with Ground() as ground:
        layers = zind.Layers.create(ground.path / "layers", ground.root(program, 10, 0))
        found = []
        for count in (100, 1000):
            change(layers, count)
            found.append(milliseconds(layers.diff, rounds))
        layers.delete()
    return found


def interleaved(contenders, rounds, batch=5):
    """Medians in milliseconds of several ways to start, in random order."""
    import zind

    times = {name: [] for name in contenders}
    for options in contenders.values():
        zind.run(["/program"], check=True, **options)
    for _ in range(rounds):
        for name in random.sample(list(contenders), len(contenders)):
            times[name].append(milliseconds(lambda: zind.run(["/program"], **contenders[name]), batch))
    return {name: statistics.median(measured) for name, measured in times.items()}


def copy_on_write(program, rounds):
    """For each size: what a copy-on-write root, in memory and of layers, costs more than the root bound read-only."""
    import zind

    found = []
    with Ground() as ground:
        for files, size in SIZES:
            root = ground.root(program, files, size)
            layers = zind.Layers.create(ground.path / f"layers-{files}", root, volatile=True)
            kinds = {"bind": {"rootfs": root, "read_only": True}, "memory": {"rootfs": root}, "layers": {"rootfs": layers}}
            os.sync()  # else a start would wait for the writing of the root itself
            times = interleaved(kinds, rounds)
            found.append({name: times[name] - times["bind"] for name in ("memory", "layers")})
            layers.delete()
    return found


def mounts(program, rounds, count=100):
    """Microseconds of one further bind."""
    import zind

    with Ground() as ground:
        root = ground.root(program, 1, 0)
        binds = []
        for number in range(count):
            (root / str(number)).mkdir()
            binds.append(zind.Mount.bind(ground.path, f"/{number}", recursive=False))
        times = interleaved({"none": {"rootfs": root}, "binds": {"rootfs": root, "mounts": binds}}, rounds)
    return (times["binds"] - times["none"]) * 1000 / count


QUESTIONS = {"layers": layers_of, "differences": differences, "copy_on_write": copy_on_write, "mounts": mounts}


# ---- Asked from there ----

class FileSystemGates:
    """The bars l to o."""

    def __init__(self, shop, options):
        self.shop, self.options, self.answers = shop, options, {}

    def all(self):
        from gates import Gate

        return [
            Gate("l1", "a snapshot on disk", "<=", 2, "ms", lambda: max(self.layers("snapshot"))),
            Gate("l2", "the same, root of 200,000 files / of 1", "<=", 1.5, "x", lambda: self.growth("snapshot")),
            Gate("m1", "diff of 10 files, root of 200,000 files / of 1", "<=", 1.5, "x", lambda: self.growth("diff")),
            Gate("m2", "diff of 1,000 files / of 100", "<=", 15, "x", self.proportion),
            Gate("n1", "copy-on-write in memory - read-only bind", "<=", 0.6, "ms", lambda: self.overlay("memory")),
            Gate("n2", "layers on disk - read-only bind", "<=", 2.5, "ms", lambda: self.overlay("layers")),
            Gate("o", "each of 100 more binds", "<=", 40, "us", lambda: self.ask("mounts")),
        ]

    def ask(self, what):
        if what not in self.answers:
            program = self.shop.directory / "z"
            question = {"what": what, "program": str(program), "rounds": 10 if self.options.quick else 30}
            self.answers[what] = self.shop.caller.ask("filesystem", **question)
        return self.answers[what]

    def layers(self, part):
        return [row[part] for row in self.ask("layers")]

    def growth(self, part):
        first, *_, last = self.layers(part)
        return last / first

    def proportion(self):
        few, many = self.ask("differences")
        return many / few

    def overlay(self, kind):
        return max(row[kind] for row in self.ask("copy_on_write"))
