"""What a run needs: the built programs, a root directory, the measuring processes. Leaves nothing behind."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import List

HERE = Path(__file__).resolve().parent
ANSWER_SECONDS = 180


class Unavailable(Exception):
    """A contender or a bar that cannot be measured here; the message is the reason."""


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
        # In a session of its own, so that Ctrl-C reaches only us and the clean-up is in order.
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

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

    def dismiss(self, worker):
        self.workers.remove(worker)
        worker.close()

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
