"""Talk to a program while it runs, and stop it."""

import signal
import time

import zind

WORKER = """
import sys
for line in sys.stdin:
    print(int(line) ** 2, flush=True)
"""

# Line by line: it answers while it runs. bufsize=1 is line buffering, as in subprocess.
with zind.Popen(["python3", "-u", "-c", WORKER], stdin=zind.PIPE, stdout=zind.PIPE, text=True, bufsize=1) as worker:
    for number in (2, 3, 1000):
        worker.stdin.write(f"{number}\n")
        answer = int(worker.stdout.readline())
        print(f"{number} squared is {answer}")
        assert answer == number**2
    worker.stdin.close()
    assert worker.wait(timeout=5) == 0

# Much at once, on both streams: nothing blocks, nothing is lost.
noisy = zind.Popen(["sh", "-c", "seq 200000; seq 100000 >&2"], stdout=zind.PIPE, stderr=zind.PIPE)
out, err = noisy.communicate(timeout=30)
print(f"{len(out)} and {len(err)} bytes on two pipes")
assert out.endswith(b"\n200000\n") and err.endswith(b"\n100000\n")

# A signal goes to the program, which may handle it; kill() ends the container with everything in it.
polite = zind.Popen(["sh", "-c", "trap 'echo bye; exit 7' TERM; echo ready; sleep 60 & wait"], stdout=zind.PIPE, text=True)
assert polite.stdout.readline() == "ready\n"
polite.send_signal(signal.SIGTERM)
assert polite.stdout.read() == "bye\n" and polite.wait(timeout=5) == 7
print("SIGTERM was handled:", polite.exit)

stubborn = zind.Popen(["sh", "-c", "trap '' TERM; echo ready; sleep 60 & sleep 60"], stdout=zind.PIPE, text=True)
assert stubborn.stdout.readline() == "ready\n"
stubborn.terminate()
try:
    stubborn.wait(timeout=0.2)
except zind.TimeoutExpired:
    began = time.monotonic()
    stubborn.kill()
    stubborn.wait()
    print(f"SIGTERM was ignored; killed in {(time.monotonic() - began) * 1000:.0f} ms: {stubborn.exit}")
assert stubborn.exit.kind == "signaled" and stubborn.exit.signal == signal.SIGKILL
