"""A container that lives on its own: made, started, asked, met again by its name, and deleted."""

import tempfile

import zind

with tempfile.TemporaryDirectory(prefix="living-") as place:
    containers = zind.Containers(place)  # without an argument: the user's own place
    script = "echo serving; while read line; do echo you said $line; done"
    with zind.Container(["sh", "-c", script], name="web", labels={"tier": "front"}, stdin_open=True, containers=containers) as c:
        c.start()
        c.wait_ready(line="serving", timeout=30)
        print(c)

        # Any program of the same user finds it by its name.
        same = zind.Container.open("web", containers=containers)
        with same.attach() as attached:
            attached.stdin.write(b"hello\n")
            print(attached.get().data.decode(), end="")
            attached.close_stdin()

        print(c.wait(timeout=30))
        for line in c.logs():
            print(line.stream, line)
        print(containers.list(all=True, labels={"tier": "front"}))
    print(containers.list(all=True))
