"""A guided tour: real programs in real containers, and this machine before and after. `make demo` runs it."""

import os
import statistics
import time

import zind

STARTED = time.monotonic()


def machine() -> dict[str, int]:
    """What a container could leave behind in or below this process."""
    with open("/proc/self/mountinfo") as mounts:
        lines = mounts.readlines()
    children = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            children += zind.proc(int(name)).stat["ppid"] == os.getpid()
        except zind.Error:
            pass  # It has ended meanwhile.
    return {"mounts": len(lines), "children": children, "descriptors": len(os.listdir("/proc/self/fd"))}


def say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if os.isatty(1) else f"\n{text}")


def run(script: str) -> zind.CompletedProcess:
    """A shell command in a container of its own."""
    return zind.run(["bash", "-c", script], capture_output=True, text=True, timeout=120)


def show(script: str) -> str:
    result = run(script)
    print(f"  $ {script}")
    for line in (result.stdout + result.stderr).splitlines():
        print(f"    {line[:110]}")
    return result.stdout


zind.run(["true"])  # The first start makes what the others share.
BEFORE = machine()
who = "root" if os.geteuid() == 0 else f"uid {os.geteuid()}, an ordinary user"
print(f"zind {zind.__version__} on Linux {os.uname().release}, called by {who}")

say("1. A command runs in a machine of its own: host name, processes, network, users, an empty home.")
text = show("hostname; ps -e -o pid,comm --no-headers; ls /sys/class/net; id -un; find /home /root /tmp -mindepth 1 | wc -l")
words = text.split()
assert words[:3] == ["zind", "1", "zind-init"] and words[-3:] == ["lo", "root", "0"], text

say("2. It has the programs of this machine, and may change what is its own; the machine stays as it is.")
if os.path.exists("/usr/bin/apt"):
    assert int(show("apt list 2>/dev/null | wc -l")) > 10
before = sorted(os.listdir("/usr/bin"))
text = show("rm -f /usr/bin/* 2>/dev/null; echo mine > /usr/mine; echo $(</usr/mine); type -P ls || echo ls is gone")
assert text.startswith("mine\n"), text
assert os.geteuid() != 0 or "ls is gone" in text
assert sorted(os.listdir("/usr/bin")) == before and not os.path.exists("/usr/mine")
print(f"  ... and outside /usr/bin still holds {len(before)} programs, and there is no /usr/mine")
if os.geteuid() != 0:
    print("  (called by an ordinary user it can add to /usr, but not remove what belongs to root)")

say("3. Nothing of ours is in there, and no way out: no secrets, nothing above /, no privileges, no mounts, no network.")
text = show("ls -d /etc/shadow /etc/ssh /home/* 2>&1 | cut -d: -f2-; ls -A / | cmp - <(ls -A /..) && echo '/.. is /'")
assert "/.. is /" in text and "shadow" not in text.replace("cannot access '/etc/shadow'", "")
text = show("grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status | tr '\\n' ' '; mount -t tmpfs none /mnt 2>&1 | head -1; unshare -U true")
assert "CapBnd:\t0000000000000000" in text and "Seccomp:\t2" in text and "NoNewPrivs:\t1" in text
outside_net = {line.split(":")[0].strip() for line in open("/proc/net/dev").read().splitlines()[2:]}
text = show("tail -n +3 /proc/net/dev | cut -d: -f1; exec 3<>/dev/tcp/192.0.2.1/80")
assert text.split() == ["lo"]

say("4. Untrusted Python: a time limit, what it printed until then, and how it ended.")
try:
    zind.run(["python3", "-uc", "print('thinking...')\nwhile True: pass"], capture_output=True, text=True, timeout=0.5)
    raise AssertionError("no time limit")
except zind.TimeoutExpired as expired:
    print(f"  {expired.stdout!r}, then {expired.exit}; {expired.stats}")
result = zind.run(["python3", "-c", "import os; os.abort()"], stderr=zind.DEVNULL)
print(f"  os.abort(): {result.exit}")
assert result.exit.kind == "signaled"
try:
    zind.run(["no-such-program"])
    raise AssertionError("no error")
except zind.SysError as error:
    print(f"  {type(error).__name__}: {error}"[:120])
    assert error.step == "Exec" and isinstance(error, FileNotFoundError)

say("5. How long a start takes, from the call to the end of `true`.")
times = []
for _ in range(50):
    began = time.perf_counter()
    assert zind.run(["true"], capture_output=True).returncode == 0
    times.append((time.perf_counter() - began) * 1000)
print(f"  50 containers: median {statistics.median(times):.1f} ms, fastest {min(times):.1f} ms; launcher {zind.LAUNCHER_SIZE} bytes")
if os.geteuid() == 0:
    with zind.Popen(["sleep", "60"]) as waiting:
        rollup = open(f"/proc/{waiting.pid}/smaps_rollup").read()
        pss = next(line.split()[1] for line in rollup.splitlines() if line.startswith("Pss:"))
        print(f"  a waiting PID 1 has {pss} KiB of memory of its own (PSS)")
        waiting.kill()
    del waiting  # A handle keeps its descriptors as long as it lives.

say("6. What is in force, as data; `require=` makes a missing part an error.")
print("  " + " ".join(result.isolation.in_force))
try:
    zind.run(["true"], require={"memory"})
    raise AssertionError("memory limits cannot be in force")
except zind.UnsupportedError as error:
    print(f"  require={{'memory'}}: {error}")

after = machine()
print(f"\nNothing is left behind: {after}, as before. {time.monotonic() - STARTED:.1f} s in all.")
assert after == BEFORE, (BEFORE, after)
