"""A root that branches: try several ways on from one state, look at what each changed, go back.

Needs busybox (the package busybox-static) for a root of a few files; any directory with a root file system will do.
"""

import pathlib
import shutil
import tempfile

import zind

SHELL = shutil.which("busybox") or "/bin/busybox"

with tempfile.TemporaryDirectory() as place:
    base = pathlib.Path(place, "base")
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp", "srv"):
        (base / name).mkdir(parents=True)
    shutil.copy(SHELL, base / "bin/busybox")
    (base / "bin/sh").symlink_to("busybox")
    (base / "etc/config").write_text("colour = red\n")

    work = zind.Layers.create(f"{place}/work", base)  # `base` is never written to

    def sh(script, root=work, **options):
        return zind.run(["sh", "-c", script], rootfs=root, check=True, capture_output=True, text=True, **options).stdout

    sh("echo 'prepared, at some cost' > /srv/data")
    work.snapshot("prepared")  # as cheap for 5 GB as for this

    for attempt in ("echo blue > /etc/config", "rm -r /srv", "mkdir /new; echo x > /new/file"):
        sh(attempt)
        print(f"{attempt!r}:")
        for change in work.diff("prepared"):
            print(f"    {change.kind:8} {change.path}")
        work.restore("prepared")

    branch = work.clone(f"{place}/branch")  # from here on both go their own ways
    sh("echo mine > /etc/config")
    print("branch:", sh("/bin/busybox cat /etc/config", branch).strip(), "- work:", sh("/bin/busybox cat /etc/config").strip())

    # Files in and out, and a volume that outlives the containers that use it.
    volumes = zind.Volumes(f"{place}/volumes")
    cache = zind.Mount.volume("cache", "/srv", place=volumes.place)
    print("the volume begins with:", sh("/bin/busybox cat /srv/data", mounts=[cache]).strip())
    with zind.Popen(["sh", "-c", "read line"], rootfs=work, stdin=zind.PIPE, mounts=[cache]) as p:
        p.copy_in("/etc/hostname", "/tmp/name-of-the-host")
        with p.root as inside:
            assert inside.read_file("/tmp/name-of-the-host") == pathlib.Path("/etc/hostname").read_bytes()
        p.copy_out("/srv/data", f"{place}/data")
        p.communicate(b"\n")
    volumes.remove("cache")
    branch.delete()
    work.delete()
