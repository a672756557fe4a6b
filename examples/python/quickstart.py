"""Run a program in a container, and look at what came of it."""

import zind

script = "echo hello from $(hostname), I am $(id -un); touch /usr/bin/mine; ls /home"
result = zind.run(["sh", "-c", script], capture_output=True, text=True, timeout=10, check=True)
print(result.stdout, end="")
print(result.exit, result.stats)
print(result.isolation)

assert result.stdout == "hello from zind, I am root\n", result.stdout
assert result.exit.kind == "exited" and result.returncode == 0
