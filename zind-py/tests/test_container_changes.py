"""What containers have changed: told, kept under a name, put back, made images of."""

from __future__ import annotations

import asyncio
import os
import tarfile

import pytest

import zind
import zind.aio

CHANGES = "echo new > /etc/new; chown 33:34 /etc/new; echo more >> /marker; rm /etc/group"
#: Of the files of a directory of root's, a user namespace of root's with other ids knows nobody.
CASES = [
    (what, maps)
    for what in ("directory", "image")
    for maps in (None, "auto", "single")
    if (what, maps) != ("directory", "auto") or os.geteuid() != 0
]


@pytest.fixture
def place(tmp_path):
    """A place of the test's own; what a failed test left in it is ended."""
    containers = zind.Containers(tmp_path / "place")
    yield containers
    for container in containers.list(all=True):
        container.delete(force=True)


@pytest.fixture
def image(place, tiny_root):
    return zind.Store(place.path).import_rootfs(tiny_root, tag="tiny:1")


def short(found) -> list[str]:
    return [f"{change.kind[0]} {change.path}" for change in found]


def ran(container) -> bytes:
    container.start()
    exit, said = container.wait(60), container.logs().read()
    assert exit.code == 0, said
    return said


@pytest.mark.parametrize(("what", "uid_map"), CASES)
def test_told_and_made_an_image_of(place, image, tiny_root, what, uid_map):
    if uid_map == "auto" and os.geteuid() == 0:
        uid_map = [zind.IdMap(0, 300_000, 65_536)]
    script = CHANGES if uid_map not in (None, "single") else CHANGES.replace("chown 33:34", "true")
    root = {"rootfs": tiny_root} if what == "directory" else {"image": image}
    maps = {} if uid_map is None else {"uid_map": uid_map, "gid_map": uid_map}
    with zind.Container(["sh", "-c", script], containers=place, capabilities=["chown"], **root, **maps) as c:
        assert c.diff() == []
        ran(c)
        found = {change.path: change for change in c.diff()}
        assert {f"{change.kind[0]} {path}" for path, change in found.items()} >= {"a /etc/new", "m /marker", "d /etc/group"}
        if "chown" in script and (os.geteuid() == 0 or uid_map == "auto"):
            assert (found["/etc/new"].new.uid, found["/etc/new"].new.gid) == (33, 34)
        made = c.commit(["changed:1", "changed:latest"], message="by hand", compression="none")
        assert len(made.layers) == (2 if what == "image" else 1) and "changed:1" in made.tags
        c.export(place.path + "/root.tar")
    with tarfile.open(place.path + "/root.tar") as tar:
        names = set(tar.getnames())
        assert "etc/new" in names and "etc/group" not in names
        if "chown" in script and (os.geteuid() == 0 or uid_map == "auto"):
            assert (tar.getmember("etc/new").uid, tar.getmember("etc/new").gid) == (33, 34)
    argv = ["sh", "-c", "cat /etc/new /marker; ls /etc"]
    with zind.Container(argv, image=made, containers=place, **maps) as c:
        assert ran(c) == b"new\nuntouched\nmore\nnew\npasswd\n"


def test_snapshots_are_gone_back_to_by_any_program(place, image):
    with zind.Container(["sh", "-c", "echo x >> /marker; wc -l < /marker"], name="web", image=image, containers=place) as c:
        assert c.snapshots() == []
        ran(c)
        c.snapshot("one")
        assert ran(c).split() == [b"2", b"3"]
        again = zind.Container.open("web", containers=place.path)
        assert [s.name for s in again.snapshots()] == ["one"] and short(again.diff("one")) == ["m /marker"]
        again.restore("one")
        assert again.diff("one") == [] and ran(c).split()[-1] == b"3"
        with pytest.raises(zind.StateError):
            c.snapshot("one")
        with pytest.raises(zind.SpecError):
            c.snapshot("")
        for call in (c.restore, c.remove_snapshot, c.diff):
            with pytest.raises(zind.NotFoundError):
                call("other")
        c.remove_snapshot("one")
        assert c.snapshots() == []
    zind.Store(place.path).remove("tiny:1")
    assert zind.Store(place.path).gc().blobs > 0, "the image is nobody's any more"


def test_where_there_is_nothing_to_tell_it_says_why(place, tiny_root):
    for options, word in [
        ({}, "root of this machine"),
        ({"rootfs": tiny_root, "overlay": False}, "itself"),
        ({"rootfs": tiny_root, "auto_remove": True}, "--rm"),
    ]:
        with zind.Container(["true"], containers=place, **options) as c:
            for call in (c.diff, c.commit, lambda c=c: c.snapshot("x"), lambda c=c: c.export(place.path + "/x")):
                if "overlay" in options and call not in (c.diff, c.commit):
                    continue
                with pytest.raises(zind.StateError, match=word):
                    call()
    with zind.Container(["sleep", "1000"], rootfs=tiny_root, containers=place) as c:
        c.start()
        with pytest.raises(zind.StateError, match="do not pause it"):
            c.commit()
        with pytest.raises(zind.StateError, match="is running"):
            c.snapshot("x")
        assert c.commit(pause=False, compression="none").layers


def test_awaited(place, tiny_root):
    async def main():
        seen = []
        async with await zind.aio.Container.create(["sh", "-c", CHANGES], rootfs=tiny_root, containers=place) as c:
            await c.snapshot("before")
            await c.start()
            await c.wait()
            assert "m /marker" in short(await c.diff("before"))
            assert (await c.commit("changed:2", compression="none", progress=seen.append)).tags
            assert (await c.export(place.path + "/root.tar")).entries
            assert [s.name for s in await c.snapshots()] == ["before"]
            await c.restore("before")
            assert await c.diff() == []
            await c.remove_snapshot("before")
        await asyncio.sleep(0)
        assert seen

    asyncio.run(main())
