"""What the default policy costs: a start with and without it, a loop of system calls and a compile below it and below Docker's filter with crun."""
import json
import os
import random
import shutil
import statistics
import subprocess
import time
from pathlib import Path

from gates import Gate
from workshop import HERE, Unavailable, compile_c

#: A profile in Docker's format with its list of calls.
DOCKERS = HERE.parent / "zind-py/tests/profiles/docker-format.json"

LOOP = """
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int main(void)
{
    struct timespec a, b;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
    for (int i = 0; i < 1000000; i++)
        syscall(SYS_getppid);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
    printf("%.0f\\n", (b.tv_sec - a.tv_sec) * 1e9 + (b.tv_nsec - a.tv_nsec));
    return 0;
}
"""

#: Compiles the sources one by one; the processor time of all of it is what `times` tells of the children.
COMPILE = """cd /work/lib && for file in common/*.c compress/*.c; do gcc -O1 -w -c "$file" -o /tmp/out.o || exit 1; done
times >/tmp/times; tail -1 /tmp/times >/work/result"""


def seconds(text):
    """0m1.23s"""
    minutes, _, rest = text.partition("m")
    return int(minutes) * 60 + float(rest.rstrip("s"))


class PolicyGates:
    def __init__(self, shop, options):
        self.shop, self.options = shop, options
        self.results = {}

    def all(self):
        return [
            Gate("w1", "the default policy adds to a start", "<=", 0.15, "ms", self.start),
            Gate("w2", "getppid loop / with Docker's filter (crun)", "<=", 1.03, "x", lambda: self.ratio("loop")),
            Gate("w3", "compile of zstd / with Docker's filter (crun)", "<=", 1.03, "x", lambda: self.ratio("compile")),
        ]

    # ---- a start ----

    def start(self):
        import zind

        payload = self.shop.payloads[0]
        common = {"rootfs": str(self.shop.rootfs), "stdin": zind.DEVNULL}
        kinds = {"on": common, "off": {**common, "seccomp": None}}
        differences = []
        for count in range(self.options.rounds * 10):
            times = {}
            for name in random.sample(list(kinds), 2):
                begin = time.perf_counter_ns()
                zind.run(payload.inside, **kinds[name])
                times[name] = time.perf_counter_ns() - begin
            if count >= 5:
                differences.append(times["on"] - times["off"])
        # Of neighbours, so that what others do meanwhile counts for both.
        return statistics.median(differences) / 1e6

    # ---- work ----

    def ratio(self, what):
        if what not in self.results:
            self.results[what] = self.measure(what)
        medians = {name: statistics.median(found) for name, found in self.results[what].items()}
        return medians["zind"] / medians["crun"]

    def measure(self, what):
        if os.geteuid() != 0 or not shutil.which("crun"):
            raise Unavailable("needs root and crun")
        work = self.shop.directory / what
        work.mkdir()
        root = work / "root"
        for name in ("usr", "etc", "proc", "dev", "sys", "tmp", "work"):
            (root / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            if os.path.islink(f"/{name}"):
                os.symlink(os.readlink(f"/{name}"), root / name)
        inside = work / "work"
        inside.mkdir()
        if what == "loop":
            compile_c(inside / "loop", "-static", "-O2", "-x", "c", "-", text=LOOP)
            command, rounds = ["sh", "-c", "/work/loop >/work/result"], self.options.rounds
        else:
            shutil.copytree(self.sources(), inside / "lib")
            command, rounds = ["sh", "-c", COMPILE], max(3, self.options.rounds // 5)
        starters = {"zind": self.with_zind(root, inside, command), "crun": self.with_crun(work, root, inside, command)}
        found = {name: [] for name in starters}
        for count in range(rounds + 1):
            for name in random.sample(list(starters), len(starters)):
                (inside / "result").unlink(missing_ok=True)
                starters[name]()
                text = (inside / "result").read_text().split()
                if count:
                    found[name].append(sum(map(seconds, text)) if len(text) == 2 else float(text[0]))
        print(f"{what}: " + ", ".join(f"{name} {statistics.median(all):g}" for name, all in found.items()))
        return found

    @staticmethod
    def sources():
        """The compressor of zstd as the crate zstd-sys brings it, which zind itself is built with; cargo has it."""
        command = ["cargo", "metadata", "--format-version", "1", "--locked", "--offline", "--manifest-path", str(HERE.parent / "Cargo.toml")]
        told = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        packages = json.loads(told.stdout)["packages"] if told.returncode == 0 else []
        found = [Path(package["manifest_path"]).parent for package in packages if package["name"] == "zstd-sys"]
        if not found:
            raise Unavailable("no sources of zstd-sys: cargo fetch --locked")
        return found[0] / "zstd/lib"

    def with_zind(self, root, inside, command):
        import zind

        binds = [zind.Mount.bind("/usr", "/usr", read_only=True), zind.Mount.bind("/etc", "/etc", read_only=True), zind.Mount.bind(str(inside), "/work")]
        options = {"rootfs": str(root), "overlay": False, "mounts": [*binds, zind.Mount.tmpfs("/tmp")], "stdin": zind.DEVNULL}

        def start():
            zind.run(command, check=True, **options)

        return start

    def with_crun(self, work, root, inside, command):
        import zind.oci

        subprocess.run(["crun", "spec"], cwd=work, check=True)
        path = work / "config.json"
        config = json.loads(path.read_text())
        config["process"].update(args=command, terminal=False, noNewPrivileges=True)
        config["root"] = {"path": str(root), "readonly": False}
        for source, target, options in (("/usr", "/usr", ["rbind", "ro"]), ("/etc", "/etc", ["rbind", "ro"]), (str(inside), "/work", ["rbind", "rw"])):
            config["mounts"].append({"destination": target, "source": source, "type": "bind", "options": options})
        config["mounts"].append({"destination": "/tmp", "source": "tmpfs", "type": "tmpfs", "options": ["nosuid", "nodev"]})
        config["linux"]["seccomp"] = zind.oci.config(["true"], seccomp=str(DOCKERS), capabilities="docker")["linux"]["seccomp"]
        path.write_text(json.dumps(config))
        argv = ["crun", "--root", str(work / "state"), "--cgroup-manager=disabled", "run", "--bundle", str(work), "{id}"]

        def start():
            self.shop.peers.ask("time_process", argv=argv, count=1)

        return start
