"""Images: pulled, built, run, changed, committed and saved, with a bar that shows how far it is.

python3 images.py                 builds a small image from this machine's busybox; no network is used
python3 images.py debian:12       pulls an image and looks into it
"""

import os
import shutil
import sys
import tempfile

import zind


class Bar:
    """One line on the terminal for each piece of work."""

    def __init__(self):
        self.last = None

    def __call__(self, event):
        layer = "" if event.layer is None else f" layer {event.layer + 1} of {event.layers}"
        name = f"{event.kind}{layer}"
        if self.last not in (None, name):
            print(file=sys.stderr)
        self.last = name
        if event.total:
            done = 30 * event.done // event.total
            shown = f"[{'#' * done:<30}] {100 * event.done // event.total:3} %"
        else:
            shown = f"{event.done / 1e6:.1f} MB"
        print(f"\r{name:<28} {shown}", end="", file=sys.stderr, flush=True)

    def end(self):
        if self.last is not None:
            print(file=sys.stderr)


def pull(name):
    bar = Bar()
    try:
        image = zind.Store().pull(name, progress=bar)
    finally:
        bar.end()
    print(image, f"{image.size / 1e6:.1f} MB,", len(image.layers), "layers")
    print(zind.run(["cat", "/etc/os-release"], image=image, capture_output=True, text=True, entrypoint=[]).stdout)


def build(place):
    store = zind.Store(os.path.join(place, "store"))
    bar = Bar()

    def steps(greeting):
        return (
            zind.build(store=store)
            .copy(shutil.which("busybox"), "/bin/busybox")
            .run(["/bin/busybox", "sh", "-c", "for name in sh cat ls echo rm; do /bin/busybox ln -s busybox /bin/$name; done"])
            .env(GREETING=greeting)
            .run(["sh", "-c", "mkdir /srv; echo $GREETING > /srv/greeting"])
            .workdir("/srv")
            .cmd(["cat", "greeting"])
        )

    builder = steps("hello")
    image = builder.commit("local/greeter:1", progress=bar)
    bar.end()
    print(image, "says", zind.run(image=image, capture_output=True, text=True).stdout.strip())

    builder = steps("good morning")  # only what comes after the change runs again
    other = builder.commit("local/greeter:2")
    print([f"{step.what.split()[0]} {'cached' if step.cached else 'ran'}" for step in builder.steps])
    print(other, "says", zind.run(image="local/greeter:2", store=store, capture_output=True, text=True).stdout.strip())

    layers = zind.Layers.create(os.path.join(place, "work"), other)  # a root that stays, over an image
    zind.run(["sh", "-c", "echo good night > greeting; rm /bin/ls"], rootfs=layers, check=True)
    changed = layers.commit("local/greeter:3", message="later")
    print([(change.kind, change.path) for change in layers.diff()], "became", changed)
    layers.delete()

    archive = os.path.join(place, "greeter.tar")
    store.save([image, other, changed], archive, progress=bar)  # docker load and skopeo read it: format="docker" or "oci"
    bar.end()
    second = zind.Store(os.path.join(place, "second"))
    loaded = second.load(archive)
    print("loaded:", sorted(tag for image in loaded for tag in image.tags), "with", second.usage().blobs, "bytes of blobs")
    with second.image("local/greeter:3").mount() as root:
        print("it holds", root.read_file("/srv/greeting").decode().strip())
    second.remove("local/greeter:3")
    print(second.gc(), "faults:", second.verify())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        pull(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory(prefix="zind-images-") as place:
            build(place)
