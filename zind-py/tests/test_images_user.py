"""Images of an ordinary user, with a single id and with ranges: the ids of the image come out as they went in."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile

import pytest

import zind

from test_images import store, tiny  # noqa: F401  fixtures

AS_USER = """
import pathlib, resource, sys, tarfile, zind
archive, tmp = sys.argv[1], pathlib.Path(sys.argv[2])
store = zind.Store(tmp / "store")
(image,) = store.load(archive)
run = lambda argv=None, **options: zind.run(argv, capture_output=True, text=True, check=True, **options).stdout
assert run(image=image) == "from the image\\n"
assert run(["id", "-u"], image=image, user="web") == "33\\n"
layers = zind.Layers.create(tmp / "layers", image)
zind.run(["sh", "-c", "echo more >> /home/web.txt; echo 1 > /new; rm /marker; mkdir /opt; touch /opt/x"], rootfs=layers, check=True)
committed = layers.commit("local/user:1")
layout = tmp / "layout"
committed.save(layout, "oci-dir")
blob = layout / "blobs" / committed.layers[1].digest.replace(":", "/")
with tarfile.open(blob) as tar:
    found = {info.name: (info.uid, info.gid, info.mode) for info in tar}
print(found)
assert found["home/web.txt"] == (33, 34, 0o640) and found["new"][:2] == (0, 0) and ".wh.marker" in found
assert run(["sh", "-c", "cat /new; ls /opt; ls /marker || true"], image=committed) == "1\\nx\\n"
committed.export(tmp / "flat.tar")
with tarfile.open(tmp / "flat.tar") as tar:
    assert tar.getmember("home/web.txt").uid == 33
    assert {(tar.getmember(name).uid, tar.getmember(name).gid) for name in ("etc", "etc/group", "new")} == {(0, 0)}
layers.export(tmp / "layers.tar")
with tarfile.open(tmp / "layers.tar") as tar:
    assert (tar.getmember("home/web.txt").uid, tar.getmember("etc/group").uid, tar.getmember("etc/group").gid) == (33, 0, 0)
(tmp / "root/bin").mkdir(parents=True)
(tmp / "root/bin/sh").write_text("x")
limits = resource.getrlimit(resource.RLIMIT_NPROC)
resource.setrlimit(resource.RLIMIT_NPROC, (1, limits[1]))
for work in (lambda: store.import_rootfs(tmp / "root"), lambda: committed.export(tmp / "none.tar"), layers.commit):
    try:
        work()
    except zind.SysError as error:
        assert (error.step, error.errno) == ("Pack", 11), error
    else:
        raise SystemExit("there was a thread")
resource.setrlimit(resource.RLIMIT_NPROC, limits)
assert not (tmp / "none.tar").exists()
from_nothing = zind.build(store=store).copy(tmp / "root/bin/sh", "/sh").commit()
for number, made in enumerate([store.import_rootfs(tmp / "root"), from_nothing]):
    made.save(tmp / f"made-{number}", "oci-dir")
    with tarfile.open(tmp / f"made-{number}" / "blobs" / made.layers[0].digest.replace(":", "/")) as tar:
        assert {(info.uid, info.gid) for info in tar} == {(0, 0)}, tar.getmembers()
built = zind.build(image, store=store).run(["sh", "-c", "echo built > /b"]).copy(archive, "/archive").user("web").cmd(["cat", "/b"]).commit()
assert run(image=built) == "built\\n"
named = zind.build(image, store=store).workdir("/not/there").volume("/data/new").run(["sh", "-c", "cat /proc/self/status > /status"])
script = "pwd; touch /data/new/x; touch /x 2>/dev/null || echo no; grep CapEff /status"
assert run(["sh", "-c", script], image=named.commit(), read_only=True).split() == ["/not/there", "no", "CapEff:", "00000000a80425fb"]
with image.mount() as root:
    assert b"staff" in root.read_file("/etc/group")
    try:
        root.write_file("/x", b"")
    except zind.SysError:
        pass
    else:
        raise SystemExit("written")
layers.delete()
for image in store.images():
    store.remove(image)
store.gc()
"""


LINKS = """
import pathlib, sys, tarfile, zind
archive, tmp = sys.argv[1], pathlib.Path(sys.argv[2])
store = zind.Store(tmp / "store")
(image,) = store.load(archive)
def owners(path, *names):
    with tarfile.open(path) as tar:
        return [(tar.getmember(name).uid, tar.getmember(name).gid) for name in names]
def layer(image):
    image.save(tmp / "layout", "oci-dir")
    found = tmp / "layout/blobs" / image.layers[-1].digest.replace(":", "/")
    return found
image.export(tmp / "flat.tar")
names = ["home/first", "home/second", "home/pipe", "home/roots", "home/linked", "home/replaced"]
expected = [(33, 34), (7, 8), (5, 70000), (0, 0), (33, 34), (0, 0)]
assert owners(tmp / "flat.tar", *names) == expected, owners(tmp / "flat.tar", *names)
layers = zind.Layers.create(tmp / "layers", image)
zind.run(["sh", "-c", "cd /home; touch -h first second; ln -s x new; touch plain"], rootfs=layers, check=True)
committed = layers.commit("local/links:1")
assert owners(layer(committed), "home/first", "home/second", "home/new", "home/plain") == [(33, 34), (7, 8), (0, 0), (0, 0)]
committed.export(tmp / "again.tar")
assert owners(tmp / "again.tar", *names) == expected, owners(tmp / "again.tar", *names)
assert store.verify() == []
layers.delete()
for image in store.images():
    store.remove(image)
store.gc()
"""


def test_links_of_others_keep_their_owners(user_python, tiny):
    """Links and FIFOs have no attributes: who owns them is kept with their directory, also over several layers."""
    place = pathlib.Path(tempfile.mkdtemp(dir=user_python.tmp))
    try:
        image = (
            zind.build(tiny)
            .run(["sh", "-c", "cd /home; ln -s a first; ln first linked; ln -s a replaced; chown -h 33:34 first replaced"])
            .run(["sh", "-c", "cd /home; ln -s b second; mkfifo pipe; ln -s c roots; chown -h 7:8 second; chown 5:70000 pipe"])
            .run(["sh", "-c", "cd /home; rm replaced; ln -s b replaced"])
            .commit()
        )
        image.save(place / "links.tar")
        os.chown(place, user_python.uid, user_python.gid)
        os.chmod(place / "links.tar", 0o644)
        user_python.snippet(LINKS, str(place / "links.tar"), str(place))
    finally:
        shutil.rmtree(place)


WITH_RANGES = """
import pathlib, sys, tarfile, zind
archive, tmp = sys.argv[1], pathlib.Path(sys.argv[2])
store = zind.Store(tmp / "store")
(image,) = store.load(archive)
options = dict(uid_map="auto", capabilities="docker", check=True)
layers = zind.Layers.create(tmp / "layers", image, uid_map="auto")
change = "echo more >> /home/web.txt; echo 1 > /new; chown 5:6 /new; chmod 600 /new; mkdir -m 700 /own; echo x > /own/x; chmod 0 /own/x; chown -R 7:7 /own; rm /marker"
zind.run(["sh", "-c", change], rootfs=layers, **options)
committed = layers.commit("local/ranges:1")
committed.save(tmp / "layout", "oci-dir")
with tarfile.open(tmp / "layout/blobs" / committed.layers[1].digest.replace(":", "/")) as tar:
    found = {info.name: (info.uid, info.gid, info.mode) for info in tar}
print(found)
expected = {"home/web.txt": (33, 34, 0o640), "new": (5, 6, 0o600), "own": (7, 7, 0o700), "own/x": (7, 7, 0)}
assert {name: found[name] for name in expected} == expected and ".wh.marker" in found
look = zind.run(["sh", "-c", "stat -c '%u %a' /new /own/x; cat /own/x"], image=committed, capture_output=True, **options)
assert look.stdout.split() == [b"5", b"600", b"7", b"0", b"x"], look
layers.delete()
for image in store.images():
    store.remove(image)
store.gc()
"""


FROM_NOTHING = """
import pathlib, sys, tarfile, zind
tmp = pathlib.Path(sys.argv[1])
store = zind.Store(tmp / "store")
(tmp / "tree").mkdir()
(tmp / "tree/file").write_text("x")
busybox = "/bin/busybox"
script = "set -e; b=/bin/busybox; $b mkdir /x; $b touch /x/y /x/z; $b chown 9:10 /x/y; $b chown 7:8 /x; $b chmod 700 /x; $b cat /mine/file"
build = (
    zind.build(store=store, uid_map="auto")
    .copy("/bin/busybox", busybox)
    .copy(tmp / "tree", "/mine", owner="5:6")
    .run([busybox, "sh", "-c", script], capabilities="docker")
    .run(
        [busybox, "sh", "-c", "/bin/busybox cp /given /x/copied; /bin/busybox chown 11:12 /x/copied"],
        capabilities="docker",
        mounts=[zind.Mount.bind(tmp / "tree/file", "/given", read_only=True)],
    )
    .cmd([busybox, "stat", "-c", "%u:%g", busybox, "/mine/file", "/x", "/x/y", "/x/copied"])
)
image = build.commit("local/nothing:1")
image.save(tmp / "layout", "oci-dir")
found = {}
for layer in image.layers:
    with tarfile.open(tmp / "layout/blobs" / layer.digest.replace(":", "/")) as tar:
        found.update({info.name: (info.uid, info.gid) for info in tar})
expected = {"bin/busybox": (0, 0), "mine/": (5, 6), "mine/file": (5, 6), "x": (7, 8), "x/y": (9, 10), "x/z": (0, 0), "x/copied": (11, 12)}
expected = {name.rstrip("/"): owner for name, owner in expected.items()}
assert {name: found[name] for name in expected} == expected, found
shown = zind.run(image=image, uid_map="auto", capabilities="docker", capture_output=True, text=True, check=True).stdout
assert shown.split() == ["0:0", "5:6", "7:8", "9:10", "11:12"], shown
assert build.commit() and [step.cached for step in build.steps] == [True, True, True, False, True]
try:
    build.copy(tmp / "tree/file", "/x/more").commit()
except zind.SysError as error:
    assert error.errno == 13 and "a step that runs" in error.hint, error
else:
    raise SystemExit("it was copied")
image.export(tmp / "flat.tar")
assert store.verify() == []
for image in store.images():
    store.remove(image)
store.gc()
"""


def test_an_ordinary_user_builds_from_nothing_with_ranges(user_python):
    place = pathlib.Path(tempfile.mkdtemp(dir=user_python.tmp))
    try:
        os.chown(place, user_python.uid, user_python.gid)
        user_python.snippet(FROM_NOTHING, str(place))
    finally:
        shutil.rmtree(place)


@pytest.mark.parametrize("source", [AS_USER, WITH_RANGES], ids=["single", "ranges"])
def test_an_ordinary_user_keeps_the_ids(user_python, tiny, source):
    place = pathlib.Path(tempfile.mkdtemp(dir=user_python.tmp))
    try:
        tiny.save(place / "tiny.tar")
        os.chown(place, user_python.uid, user_python.gid)
        os.chmod(place / "tiny.tar", 0o644)
        user_python.snippet(source, str(place / "tiny.tar"), str(place))
    finally:
        shutil.rmtree(place)
