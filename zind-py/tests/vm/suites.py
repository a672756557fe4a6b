"""What needs control groups of version 2 alone, and the attacks there, too, in throw-away virtual machines: ``make test-vm``.

One boot for each suite, two of them at a time. The guest's root is this machine's, so that nothing is installed there; what the
suites need is put into one directory first, which everybody may read, as the sources may lie where an ordinary user cannot go.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import attacks

HERE = pathlib.Path(__file__).resolve().parent
TESTS = HERE.parent
TOP = TESTS.parents[1]

#: What run-in-vm needs of Debian; systemd and its bus for the suites below a manager.
PACKAGES = {
    "busybox": "busybox-static",
    "cpio": "cpio",
    "depmod": "kmod",
    "xz": "xz-utils",
    "newuidmap": "uidmap",
    "dbus-daemon": "dbus",
    "systemd-run": "systemd",
    "mkfs.ext4": "e2fsprogs",
    "gzip": "gzip",
}
PACKAGE_FILES = {
    "/lib/systemd/systemd": "systemd-sysv",
    "/usr/share/dbus-1/session.conf": "dbus-user-session dbus",
    "/lib/x86_64-linux-gnu/security/pam_systemd.so": "libpam-systemd",
}

#: The modules that make sense where there is only version 2, and what of theirs is skipped, with the reason.
LIMITS = "test_limits_met test_bombs test_events test_device_rules".split()
V1_ONLY = "options of version 1: root, where memory and cpu are there"
#: What takes a tree that is ours from its root on, and no manager's.
OWN_TREE = {
    "memory that is short for two takes a group around both, in a tree of version 2 of our own",
    "a group above with a part of the CPUs takes a tree of version 2 of our own",
    "mounting a hierarchy of version 1 takes a machine of our own",
}
SUITES = {
    # Root in the root group: zind writes to the tree itself. The older suites show that nothing else depends on version 1.
    "root": {
        "vm": ["--cpus", "2", "--mem", "2048", "--disk", "2"],
        "rust": ["zind_core cgroup::", "anywhere", "groups"],
        # The kernels of these machines have AppArmor, too.
        "modules": [*LIMITS, "test_apparmor"],
        "attacks": attacks.ROOT,
        "skips": {V1_ONLY},
    },
    # Root where systemd owns the tree: scopes of the system manager.
    "systemd": {
        "vm": ["--systemd", "--cpus", "2", "--mem", "2048"],
        "rust": ["zind_core cgroup::systemd", "anywhere"],
        "modules": [*LIMITS, "test_scopes"],
        "skips": {V1_ONLY, *OWN_TREE},
    },
    # An ordinary user, in the delegated part of their own manager: memory, cpu and pids.
    "user": {
        "vm": ["--systemd", "--user", "zu", "--cpus", "2", "--mem", "2048"],
        "rust": ["zind_core cgroup::", "anywhere"],
        "modules": LIMITS,
        "attacks": attacks.USER,
        "skips": {
            "the cpuset controller is not delegated to this user, and refused",
            "the io controller is not delegated to this user, and refused",
            "needs root: device rules",
            "needs root: reserving huge pages",
            "needs root: these controllers, which are delegated to nobody",
            V1_ONLY,
            *OWN_TREE,
        },
    },
}


def say(text: str) -> None:
    print(f"test-vm: {text}", flush=True)


def why_not() -> str | None:
    """Why this machine cannot run virtual machines at all."""
    if os.environ.get("ZIND_VM") == "0":
        return "ZIND_VM=0"
    if os.geteuid() != 0:
        return "needs root: the guest's root is this machine's, with its owners"
    if os.uname().machine != "x86_64":
        return "needs x86_64: the guest runs this machine's programs"
    if not pathlib.Path("/etc/debian_version").is_file():
        return "needs Debian: kernel and QEMU come from its packages"
    return None


def install_what_is_missing() -> None:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = {package for name, package in PACKAGES.items() if shutil.which(name, path=path) is None}
    missing |= {package for name, packages in PACKAGE_FILES.items() if not os.path.exists(name) for package in packages.split()}
    if missing:
        say(f"installing {' '.join(sorted(missing))}")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *sorted(missing)]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def rust_tests() -> dict[str, pathlib.Path]:
    """The tests of zind-core as programs: those of the sources, and files of its tests/."""
    targets = ["--lib", "--test", "anywhere", "--test", "groups"]
    command = ["cargo", "test", "--locked", "-p", "zind-core", *targets, "--no-run", "--message-format=json"]
    built = subprocess.run(command, cwd=TOP, check=True, stdout=subprocess.PIPE, text=True)
    found = {}
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message.get("profile", {}).get("test"):
            found[message["target"]["name"]] = pathlib.Path(message["executable"])
    return found


def stage(into: pathlib.Path, with_rust: bool) -> None:
    """Tests, package and pytest in one directory that everybody may read."""
    import pytest

    import zind

    ignored = shutil.ignore_patterns("__pycache__", "vm")
    shutil.copytree(TESTS, into / "zind-py/tests", ignore=ignored)
    shutil.copytree(pathlib.Path(zind.__file__).parent, into / "package/zind", ignore=ignored)
    site = pathlib.Path(pytest.__file__).parents[1]
    wanted = ("pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments", "exceptiongroup", "tomli", "typing_extensions")
    for name in wanted:
        # What it says of itself, too: pytest asks for versions.
        for found in (site / name, site / f"{name}.py", *site.glob(f"{name}-*.dist-info")):
            if found.is_dir():
                shutil.copytree(found, into / "package" / found.name, ignore=ignored)
            elif found.is_file():
                shutil.copy(found, into / "package")
    if with_rust:
        for name, program in rust_tests().items():
            shutil.copy(program, into / f"rust-{name}")
    into.chmod(0o755)


def run(name: str, suite: dict, where: pathlib.Path, more: list[str]) -> bool:
    """One boot. True if all of it passed, and nothing was skipped but what is known to be."""
    # No `-x`: one boot is to tell everything.
    python = f"/usr/bin/python3 -m pytest -v -rs -p no:cacheprovider --rootdir {where} --tb=short --durations=5"
    tests = [*(f"{module}.py" for module in suite["modules"]), *suite.get("attacks", ())]
    modules = [shlex.quote(f"{where}/zind-py/tests/{test}") for test in tests]
    script = "ok=0\n"
    is_part = bool(more)
    for program in suite["rust"] if not is_part else ():
        script += f"echo == {program}; {where}/rust-{program} --test-threads=1 || ok=1\n"
    more = more or (["-k", shlex.quote(suite["only"])] if "only" in suite else [])
    script += f"{python} {' '.join(modules)} {' '.join(more)} || ok=1\nexit $ok"
    environment = {"PYTHONPATH": f"{where}/package:{where}/zind-py/tests", "PYTHONDONTWRITEBYTECODE": "1"}
    options = [item for key, value in environment.items() for item in ("--env", f"{key}={value}")]
    command = [str(HERE / "run-in-vm"), *suite["vm"], "--timeout", "1800", *options, str(where), "--", "sh", "-c", script]
    began = time.monotonic()
    log = TOP / "build" / f"test-vm-{name}.log"
    log.parent.mkdir(exist_ok=True)
    what = " ".join([*suite["modules"], *([f"{len(suite['attacks'])} attacks"] if "attacks" in suite else [])])
    say(f"{name}: {' '.join(suite['vm'])}: {what}, into {log.relative_to(TOP)}")
    for boot in 1, 2:
        with open(log, "wb") as file:
            ended = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, check=False)
        output = log.read_text(encoding="utf-8", errors="replace")
        # QEMU itself fails an assertion, now and then: nothing that a guest did, whose own end has another status.
        if boot == 2 or not re.search(r"^qemu-system.*: Assertion .* failed\.$", output, re.MULTILINE):
            break
        say(f"{name}: the emulator crashed, once more: {output.splitlines()[-1]}")
    skips = set(re.findall(r"^SKIPPED \[\d+\] [^:]+:\d+: (.*)$", output, re.MULTILINE))
    passed = ended.returncode == 0 and (is_part or skips == suite["skips"])
    if passed:
        for line in re.findall(r"^(?:test result: ok.*|=.* \d+ passed.*)$", output, re.MULTILINE):
            say(f"{name}: {line}")
        for reason in sorted(skips):
            say(f"{name}: skipped, as expected: {reason}")
    else:
        print(output, flush=True)
        say(f"{name}: FAILED, status {ended.returncode}")
        for reason in sorted(skips - suite["skips"]):
            say(f"{name}: skipped unexpectedly: {reason}")
        for reason in sorted(suite["skips"] - skips):
            say(f"{name}: expected to be skipped, but was not: {reason}")
    say(f"{name}: {time.monotonic() - began:.0f} s")
    return passed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", help=f"of {', '.join(SUITES)}; all if none is named")
    parser.add_argument("-k", help="only these tests, as pytest has it")
    arguments = parser.parse_args()
    if reason := why_not():
        say(f"skipped: {reason}")
        # On the machines of CI everything is there; a skip would go unseen.
        return 1 if os.environ.get("CI") else 0
    if unknown := set(arguments.suites) - set(SUITES):
        parser.error(f"no suite {', '.join(unknown)}")
    install_what_is_missing()
    subprocess.run([str(HERE / "run-in-vm"), "--setup"], check=True)
    more = ["-k", shlex.quote(arguments.k)] if arguments.k else []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="zind-vm-", dir="/var/tmp") as directory:
        where = pathlib.Path(directory)
        stage(where, with_rust=not more)
        names = arguments.suites or list(SUITES)
        with ThreadPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
            results = list(pool.map(lambda name: run(name, SUITES[name], where, more), names))
    say(f"{sum(results)} of {len(results)} suites passed in {time.monotonic() - began:.0f} s")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
