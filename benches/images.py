#!/usr/bin/env python3
"""Images beside umoci, skopeo, podman and tar: the bars of 'How fast', each from one run on one machine, interleaved.

    build/venv/bin/python benches/images.py [--tar ROOT.tar] [--only a,b] [--rounds N]

Needs root, umoci, skopeo, zstd, docker-registry; without --tar also mmdebstrap and the network, for a Debian of 300 MB or more.
What is missing is said and left out.
"""
import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import zind

OUT = subprocess.DEVNULL


def command(*argv, **options):
    return subprocess.run([str(arg) for arg in argv], check=True, stdout=OUT, stderr=subprocess.PIPE, **options)


def has(*programs):
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        print(f"left out: there is no {', '.join(missing)}")
    return not missing


def timed(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def drop(path):
    subprocess.run(["rm", "-rf", str(path)], check=True)


def settle():
    os.sync()


class Bench:
    def __init__(self, options, place):
        self.options, self.place, self.bars, self.told = options, Path(place), [], False

    def bar(self, name, value, limit, unit, smaller=True, note=""):
        met = value <= limit if smaller else value >= limit
        self.bars.append((name, value, limit, unit, met, note))
        sign = "<=" if smaller else ">="
        print(f"{'met   ' if met else 'MISSED'} {name}: {value:.3g} {unit} (wanted {sign} {limit} {unit}) {note}", flush=True)

    def fresh(self, name):
        path = self.place / name
        drop(path)
        return path

    @contextlib.contextmanager
    def disk(self):
        """A fresh ext4 in memory, so that each contender finds the same: on one that has lost many files lately, ext4 takes up
        to twenty times as long for a new one, whoever makes it. Without loop devices, a directory."""
        place = Path(tempfile.mkdtemp(prefix="zind-bench-disk-", dir="/dev/shm"))
        image, point = place / "image", place / "point"
        point.mkdir()
        with open(image, "wb") as file:
            file.truncate(6 << 30)
        command("mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1", image)
        mounted = subprocess.run(["mount", "-o", "loop,noinit_itable", str(image), str(point)], stderr=OUT).returncode == 0
        if not mounted and not self.told:
            self.told = True
            print("no loop devices: the directory for temporary files instead of a fresh ext4 in memory")
        try:
            yield point if mounted else self.fresh_dir("disk")
        finally:
            if mounted:
                # The storage of skopeo and podman leaves a mount of its own there.
                command("umount", "-R", point)
            drop(place)

    def fresh_dir(self, name):
        path = self.fresh(name)
        path.mkdir()
        return path

    # --- the image -----------------------------------------------------------------------------------------------
    def prepare(self):
        tar = self.options.tar
        if tar is None:
            tar = self.place / "root.tar"
            command("mmdebstrap", "--quiet", "--variant=minbase", "--include=postgresql,gcc", "bookworm", tar)
        self.tar = Path(tar)
        print(f"root file system: {self.tar.stat().st_size / 1e6:.0f} MB")
        plain = zind.Store(self.place / "plain")
        self.image = plain.import_rootfs(self.tar, tag="local/bench:1", config={"Cmd": ["/bin/true"]})
        self.image.unpack()
        self.image.save(self.place / "plain-layout", "oci-dir")
        self.layouts = {}
        for method in ("gzip", "zstd"):
            layout = self.place / f"layout-{method}"
            command("skopeo", "--insecure-policy", "copy", "--dest-compress", "--dest-compress-format", method,
                    f"oci:{self.place}/plain-layout:local/bench:1", f"oci:{layout}:bench")
            index = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
            manifest = json.loads((layout / "blobs" / index.replace(":", "/")).read_text())
            self.layouts[method] = (layout, layout / "blobs" / manifest["layers"][0]["digest"].replace(":", "/"))

    # --- a: unpacking ------------------------------------------------------------------------------------------------
    def unpacking(self):
        for method, (layout, blob) in self.layouts.items():
            def ours(disk):
                (image,) = zind.Store(disk / "store").load(layout)
                image.unpack()

            def umoci(disk):
                command("umoci", "unpack", "--image", f"{layout}:bench", disk / "umoci")

            def tar(disk):
                (disk / "tar").mkdir()
                command("tar", "--xattrs", "-xpf", blob, "--use-compress-program", method, "-C", disk / "tar")

            def skopeo(disk):
                store = f"containers-storage:[overlay@{disk}/skopeo+{disk}/skopeo-run]bench:1"
                command("skopeo", "--insecure-policy", "copy", f"oci:{layout}:bench", store)

            def podman(disk):
                command("podman", "--root", disk / "podman", "--runroot", disk / "podman-run", "--storage-driver", "overlay",
                        "load", "--quiet", "--input", self.archive(method))

            contenders = {"zind": ours, "tar": tar}
            # 0.4 of umoci reads no zstd.
            if method == "gzip" and has("umoci"):
                contenders["umoci"] = umoci
            if has("skopeo"):
                contenders["skopeo"] = skopeo
            if has("podman"):
                contenders["podman"] = podman
            times = {name: [] for name in contenders}
            for _ in range(self.options.rounds):
                for name, work in list(contenders.items()):
                    with self.disk() as disk:
                        settle()
                        try:
                            times[name].append(timed(lambda: work(disk)))
                        except subprocess.CalledProcessError as error:
                            print(f"left out: {name}: {error.stderr.decode(errors='replace').strip()[-300:]}")
                            del contenders[name], times[name]
            shown = ", ".join(f"{name} {statistics.median(values):.2f} s" for name, values in times.items())
            for other, limit in (("umoci", 2.5), ("skopeo", 2.5), ("podman", 2.5), ("tar", 1.5 if method == "gzip" else 1.0)):
                if other in times:
                    self.ratio(f"a unpack {method}, {other} / zind", times[other], times["zind"], limit, shown)

    def ratio(self, name, others, ours, limit, shown):
        """The median of the ratios of the rounds, each of which met the same weather; that of the best times is told, too."""
        pairs = [other / own for other, own in zip(others, ours)]
        note = f"best of each: {min(others) / min(ours):.2f} x; medians: {shown}"
        self.bar(name, statistics.median(pairs), limit, "x", False, note)

    def archive(self, method):
        path = self.place / f"archive-{method}.tar"
        if not path.exists():
            command("skopeo", "--insecure-policy", "copy", f"oci:{self.layouts[method][0]}:bench", f"oci-archive:{path}:bench:1")
        return path

    # --- c: a start --------------------------------------------------------------------------------------------------
    def start(self):
        (rootfs,) = [Path(path) for path in zind.Layers.create(self.fresh("look"), self.image).base]
        argv = ["/bin/true"]
        contenders = {
            "image": lambda: zind.run(argv, image=self.image),
            "directory": lambda: zind.run(argv, rootfs=rootfs),
        }
        self.starts("c a start from an image above one from a directory", contenders, 0.5)

    def starts(self, name, contenders, limit):
        times = {name: [] for name in contenders}
        for turn in range(self.options.starts):
            for key, work in contenders.items():
                spent = timed(work)
                if turn >= 5:
                    times[key].append(spent * 1000)
        first, second = (statistics.median(times[key]) for key in contenders)
        low = [statistics.quantiles(times[key], n=10)[0] for key in contenders]
        shown = ", ".join(f"{key} {statistics.median(times[key]):.2f} ms" for key in contenders)
        if isinstance(limit, float) and limit < 1:
            self.bar(name, low[0] - low[1], limit, "ms", True, f"10th percentiles; medians: {shown}")
        else:
            self.bar(name, low[0] / low[1], limit, "x", True, f"10th percentiles; medians: {shown}")
        return first, second

    # --- d: many layers ----------------------------------------------------------------------------------------------
    def layers(self):
        store = self.image.store
        builder = zind.build(self.image)
        source = self.place / "number"
        for number in range(59):
            source.write_text(str(number))
            copy = self.place / f"number{number}"
            shutil.copy(source, copy)
            builder.copy(copy, f"/numbers/{number}")
        many = builder.commit("local/bench:60")
        assert len(many.layers) == 60
        zind.run(["/bin/true"], image=many)
        argv = ["/bin/true"]
        contenders = {"60 layers": lambda: zind.run(argv, image=many), "1 layer": lambda: zind.run(argv, image=self.image)}
        self.starts("d a start from 60 layers / from 1", contenders, 1.2)
        store.remove(many)

    # --- e: ten steps ------------------------------------------------------------------------------------------------
    def steps(self):
        def build(last):
            builder = zind.build(self.image)
            for number in range(9):
                builder.run(["/bin/sh", "-c", f"echo {number} > /n{number}"])
            return builder.run(["/bin/sh", "-c", f"echo {last} > /last"])

        first = timed(lambda: build("a").commit())
        changed = build("b")
        second = timed(changed.commit)
        ran = sum(not step.cached for step in changed.steps)
        self.bar("e steps that run when the last of ten changed", ran, 1, "steps", True, f"{first:.2f} s at first, {second:.2f} s then")

    # --- f: a list ---------------------------------------------------------------------------------------------------
    def listing(self):
        store = zind.Store(self.fresh("many"))
        image = zind.build(store=store).cmd(["x"]).commit("local/many:0")
        for number in range(1, 2000):
            image = zind.build(store=store).label(number=str(number)).commit(f"local/many:{number}")
        assert len(store.images()) == 2000
        first = statistics.median(timed(zind.Store(self.place / "many").images) for _ in range(20)) * 1000
        again = statistics.median(timed(store.images) for _ in range(20)) * 1000
        self.bar("f images() over 2,000 images, the first time", first, 50, "ms", True, f"again {again:.1f} ms")
        drop(self.place / "many")

    # --- g: pulls ----------------------------------------------------------------------------------------------------
    def pulls(self):
        if not has("docker-registry", "skopeo"):
            return
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        config = self.place / "registry.yml"
        config.write_text(f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {self.place}/registry}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n")
        server = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=OUT, stderr=OUT)
        try:
            for _ in range(100):
                try:
                    socket.create_connection(("127.0.0.1", port), 0.2).close()
                    break
                except OSError:
                    time.sleep(0.05)
            name = f"127.0.0.1:{port}/bench:1"
            layout = self.layouts["gzip"][0]
            command("skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", f"oci:{layout}:bench", f"docker://{name}")
            self.one_pull(name)
        finally:
            server.terminate()
            server.wait()

    def one_pull(self, name):
        child = (
            "import resource, sys, time, zind\n"
            "store = zind.Store(sys.argv[1])\n"
            "began = time.perf_counter()\n"
            "image = store.pull(sys.argv[2], unpack=sys.argv[3] != 'fetch')\n"
            "print(time.perf_counter() - began)\n"
            "began = time.perf_counter()\n"
            "image.unpack()\n"
            "print(time.perf_counter() - began)\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)\n"
        )

        def pull(how):
            with self.disk() as disk:
                settle()
                argv = [sys.executable, "-c", child, str(disk / "store"), name, how]
                output = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
                return [float(line) for line in output.split()]

        whole, fetch, unpack, memory = [], [], [], []
        for _ in range(self.options.rounds):
            spent = pull("all")
            whole.append(spent[0])
            memory.append(spent[2])
            spent = pull("fetch")
            fetch.append(spent[0])
            unpack.append(spent[1])
        ratios = [all_of / max(parts) for all_of, *parts in zip(whole, fetch, unpack)]
        medians = [statistics.median(values) for values in (whole, fetch, unpack)]
        best = min(whole) / max(min(fetch), min(unpack))
        note = "whole {:.2f} s, fetching alone {:.2f} s, unpacking alone {:.2f} s".format(*medians) + f"; best of each: {best:.2f} x"
        self.bar("g a pull / the slower of fetching and unpacking", statistics.median(ratios), 1.15, "x", True, note)
        self.bar("h memory of a pull", max(memory) / 1e6, 100, "MB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tar", help="a root file system as a tar")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--starts", type=int, default=200)
    parser.add_argument("--only", default="unpacking,start,layers,steps,listing,pulls")
    parser.add_argument("--check", action="store_true", help="fail when a bar is missed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="zind-bench-images-", dir=os.environ.get("TMPDIR", "/var/tmp")) as place:
        bench = Bench(options, place)
        bench.prepare()
        for name in options.only.split(","):
            getattr(bench, name)()
    return int(options.check and any(not met for *_, met, _ in bench.bars))


if __name__ == "__main__":
    sys.exit(main())
