"""Random operations of three programs on the same containers, against a model of what docs/containers.md says."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

import kit

WORKER = """
import os, signal, sys, zind
containers = zind.Containers(sys.argv[1])
NONE = {"stdin": zind.DEVNULL, "stdout": zind.DEVNULL, "stderr": zind.DEVNULL}
def create(name, label, restart):
    zind.Container(["sleep", "1005"], name=name, labels={"kind": label}, restart=restart, die_with_owner=False, containers=containers)
def monitor(c):
    pid = c.pid
    if pid is None:
        raise zind.StateError("it does not run")
    while open(f"/proc/{pid}/comm").read() != "zind-monitor\\n":
        pid = int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
    os.kill(pid, 9)
    c.wait(30)
VERBS = {
    "start": lambda c: c.start(),
    "kill": lambda c: (c.kill(9), c.wait(30)) and None,
    "stop": lambda c: c.stop(20),
    "restart": lambda c: c.restart(20),
    "delete": lambda c: c.delete(),
    "force": lambda c: c.delete(force=True),
    "rename": lambda c, name: c.rename(name),
    "attach": lambda c: c.attach().close(),
    "expire": lambda c: c.wait(0),
    "exec": lambda c: "exit 3" if c.exec(["sh", "-c", "exit 3"], **NONE).returncode == 3 else "wrong",
    "pause": lambda c: c.pause(),
    "resume": lambda c: c.resume(),
    "stats": lambda c: c.stats() and None,
    "logs": lambda c: c.logs().read() and None,
    "inspect": lambda c: c.inspect()["state"],
    "state": lambda c: c.state,
    "exit": lambda c: c.exit,
    "fault": lambda c: str(c.inspect()["fault"]).replace(" ", "_"),
    "monitor": monitor,
    "prune": lambda: "removed %d" % len(containers.prune().containers),
    "list": lambda: ",".join(sorted(f"{c.name}={c.state}" for c in containers.list(all=True))) or "none",
    "running": lambda: ",".join(sorted(c.name for c in containers.list())) or "none",
    "labelled": lambda label: ",".join(sorted(c.name for c in containers.list(all=True, labels={"kind": label}))) or "none",
}
for line in sys.stdin:
    verb, *words = line.split()
    try:
        if verb == "create":
            said = create(*words)
        elif verb in ("prune", "list", "running", "labelled"):
            said = VERBS[verb](*words)
        else:
            said = VERBS[verb](containers.find(words[0]), *words[1:])
        said = "ok" if said is None else f"exit {said.kind} {said.code} {said.signal}" if isinstance(said, zind.Exit) else said
    except (zind.Error, zind.TimeoutExpired) as error:
        said = type(error).__name__
    print(said, flush=True)
"""

NAMES = st.sampled_from("wxyz")
WHO = st.integers(0, 2)
KILLED = "exit signaled None 9"
TERMINATED = "exit signaled None 15"
#: What is asked of one container and changes nothing: in each state the answer. None: that of the state itself.
ASKED = {
    "attach": {"created": "StateError", "running": "ok", "stopped": "StateError"},
    "expire": {"created": "StateError", "running": "TimeoutExpired", "stopped": None},
    "exec": {"created": "StateError", "running": "exit 3", "stopped": "StateError"},
    # It has no control group.
    "pause": {"created": "StateError", "running": "StateError", "stopped": "StateError"},
    "resume": {"created": "StateError", "running": "StateError", "stopped": "StateError"},
    "stats": {"created": "StateError", "running": "ok", "stopped": "ok"},
    "logs": {"created": "ok", "running": "ok", "stopped": "ok"},
    "exit": {"created": "ok", "running": "ok", "stopped": None},
}


class Machine(RuleBasedStateMachine):
    """Each step is done by one of three programs, and has to say what the model says."""

    #: They go on from one run of the machine to the next.
    place = ""
    workers: list = []

    def __init__(self) -> None:
        super().__init__()
        #: Name -> state, label, how it ended, what was out of the ordinary.
        self.model: dict[str, list] = {}

    @classmethod
    def worker(cls) -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", WORKER, cls.place]
        return subprocess.Popen(argv, env=kit.child_env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def ask(self, who: int, *words: str) -> str:
        worker = self.workers[who]
        worker.stdin.write(" ".join(words) + "\n")
        return worker.stdout.readline().strip()

    def expect(self, who: int, expected: str, *words: str) -> None:
        said = self.ask(who, *words)
        assert said == expected, f"{who}: {' '.join(words)}: {said}, and not {expected}"

    def teardown(self) -> None:
        for name in self.model:
            self.expect(1, "ok", "force", name)
        left = [os.path.join(dir, name) for dir, _, names in os.walk(self.place) for name in names]
        # What has happened is told to whoever asks later.
        assert left in ([], [f"{self.place}/events/journal"])

    @rule(who=WHO, name=NAMES, label=st.sampled_from("ab"), restart=st.sampled_from(["no", "always", "on-failure:3"]))
    def create(self, who, name, label, restart):
        self.expect(who, "ExistsError" if name in self.model else "ok", "create", name, label, restart)
        self.model.setdefault(name, ["created", label, None, "None"])

    @rule(who=WHO, name=NAMES)
    def start(self, who, name):
        state = self.model.get(name)
        self.expect(who, "NotFoundError" if not state else "StateError" if state[0] == "running" else "ok", "start", name)
        if state:
            state[0], state[2], state[3] = "running", None, "None"

    @rule(who=WHO, name=NAMES, verb=st.sampled_from(["kill", "monitor"]))
    def kill(self, who, name, verb):
        state = self.model.get(name)
        if not state or state[0] != "running":
            return self.expect(who, "StateError" if state else "NotFoundError", verb, name)
        self.expect(who, "ok", verb, name)
        state[0], state[2], state[3] = "stopped", KILLED, "its_monitor_was_killed" if verb == "monitor" else "None"

    @rule(who=WHO, name=NAMES)
    def stop(self, who, name):
        state = self.model.get(name)
        if not state or state[0] == "created":
            return self.expect(who, "StateError" if state else "NotFoundError", "stop", name)
        # Twice is fine.
        end = state[2] or TERMINATED
        self.expect(who, end, "stop", name)
        state[0], state[2] = "stopped", end

    @rule(who=WHO, name=NAMES)
    def restart(self, who, name):
        state = self.model.get(name)
        self.expect(who, "ok" if state else "NotFoundError", "restart", name)
        if state:
            state[0], state[2], state[3] = "running", None, "None"

    @rule(who=WHO, name=NAMES, verb=st.sampled_from(["delete", "force"]))
    def delete(self, who, name, verb):
        state = self.model.get(name)
        if verb == "delete" and state and state[0] == "running":
            return self.expect(who, "StateError", verb, name)
        self.expect(who, "ok" if state else "NotFoundError", verb, name)
        self.model.pop(name, None)

    @rule(who=WHO, name=NAMES, other=NAMES)
    def rename(self, who, name, other):
        state = self.model.get(name)
        is_taken = state and other != name and other in self.model
        self.expect(who, "NotFoundError" if not state else "ExistsError" if is_taken else "ok", "rename", name, other)
        if state and not is_taken:
            self.model[other] = self.model.pop(name)

    @rule(who=WHO, name=NAMES, verb=st.sampled_from(sorted(ASKED)))
    def look(self, who, name, verb):
        state = self.model.get(name)
        self.expect(who, (ASKED[verb][state[0]] or state[2]) if state else "NotFoundError", verb, name)

    @rule(who=WHO, name=NAMES)
    def inspect(self, who, name):
        state = self.model.get(name)
        for verb, expected in (("state", 0), ("inspect", 0), ("fault", 3)):
            self.expect(who, state[expected] if state else "NotFoundError", verb, name)

    @rule(who=WHO)
    def prune(self, who):
        gone = [name for name, state in self.model.items() if state[0] != "running"]
        self.expect(who, f"removed {len(gone)}", "prune")
        for name in gone:
            del self.model[name]

    @rule(who=WHO, label=st.sampled_from("ab"))
    def labelled(self, who, label):
        self.expect(who, ",".join(sorted(name for name, state in self.model.items() if state[1] == label)) or "none", "labelled", label)

    @precondition(lambda self: self.model)
    @rule(who=WHO)
    def lose(self, who):
        """One of the programs is killed, and another one takes its place: it was nobody's owner."""
        self.workers[who].kill()
        self.workers[who].communicate()
        self.workers[who] = self.worker()

    @invariant()
    def all_say_the_same(self):
        expected = ",".join(sorted(f"{name}={state[0]}" for name, state in self.model.items())) or "none"
        running = ",".join(sorted(name for name, state in self.model.items() if state[0] == "running")) or "none"
        who = len(self.model) % 3
        self.expect(who, expected, "list")
        self.expect((who + 1) % 3, running, "running")


@pytest.mark.limit(300)
def test_three_programs_agree_with_the_model(tmp_path):
    """The same operations each time; ``ZIND_TEST_EXAMPLES=1000`` tries as many others."""
    examples = os.environ.get("ZIND_TEST_EXAMPLES")
    profile = settings(
        max_examples=int(examples or 6),
        stateful_step_count=40,
        derandomize=not examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    Machine.place = str(tmp_path / "place")
    Machine.workers = [Machine.worker() for _ in range(3)]
    try:
        run_state_machine_as_test(Machine, settings=profile)
    finally:
        for worker in Machine.workers:
            worker.communicate(timeout=60)
