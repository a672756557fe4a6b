"""Judge programs nobody has read: a time limit, limits on memory and files, and the ways in which they can end."""

import zind

# Name, program, and how it has to end.
SUBMISSIONS = [
    ("good", "print(sum(map(int, input().split())))", "exited"),
    ("wrong", "print(41)", "exited"),
    ("crash", "import os; os.abort()", "signaled"),
    ("error", "1 / 0", "exited"),
    ("endless", "print('thinking', flush=True)\nwhile True: pass", "timeout"),
    ("greedy", "x = bytearray(4 << 30)", "exited"),
    ("nosy", "import os; print(os.listdir('/home'), os.path.exists('/etc/shadow'))", "exited"),
    ("caller", "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)", "exited"),
    ("vandal", "import shutil; shutil.rmtree('/usr/bin', ignore_errors=True); print('done')", "exited"),
]


def judge(source: str) -> tuple[str, zind.Exit, str]:
    """A verdict, how the program ended, and the last line it wrote."""
    try:
        result = zind.run(
            ["python3", "-I", "-c", source],
            input="40 2\n",
            capture_output=True,
            text=True,
            timeout=3,
            user="1000:1000",
            rlimits={"as": 1 << 30, "fsize": 10 << 20, "core": 0},
            tmpfs_size="64m",
            require={"seccomp", "network", "no_new_privileges", "capabilities"},
        )
    except zind.TimeoutExpired as expired:
        # What it had written until then is kept, as bytes: subprocess does the same.
        return "too slow", expired.exit, (expired.stdout or b"").decode().strip()
    last = (result.stdout + result.stderr).strip().rpartition("\n")[2]
    if result.returncode:
        return "failed", result.exit, last
    return ("right" if result.stdout == "42\n" else "wrong"), result.exit, last


verdicts = {}
for name, source, ending in SUBMISSIONS:
    verdicts[name], exit, last = judge(source)
    print(f"{name:8} {verdicts[name]:9} {exit!r:36} {last[:60]}")
    assert exit.kind == ending, (name, exit)

assert verdicts["good"] == "right" and verdicts["wrong"] == "wrong" and verdicts["endless"] == "too slow"
assert all(verdicts[name] == "failed" for name in ("crash", "error", "greedy", "caller")), verdicts
