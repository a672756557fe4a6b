"""Named volumes: made, filled once, held, removed; whatever the root, the payload or a crash does."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

import kit
import zind
from kit import ROOT, needs_root, refused


@pytest.fixture
def place(tmp_path):
    return tmp_path / "volumes"


@pytest.fixture
def volume(place):
    """Mounts of volumes in a place of the test's own."""

    def mount(name, target, **options):
        return zind.Mount.volume(name, target, place=place, **options)

    return mount


@pytest.fixture
def root(tiny_root):
    (tiny_root / "data/sub").mkdir(parents=True)
    (tiny_root / "data/sub/file").write_text("of the root\n")
    (tiny_root / "data/sub/file").chmod(0o640)
    os.link(tiny_root / "data/sub/file", tiny_root / "data/link")
    (tiny_root / "data").chmod(0o1770)
    return tiny_root


def sh(root, script, *mounts, **options):
    return kit.sh(script, rootfs=root, mounts=list(mounts), **options)


def test_what_is_written_outlives_containers(root, place, volume):
    assert sh(root, "echo mine >/v/x; ls -d /v", volume("web", "/v")) == "/v"
    assert sh(root, "cat /elsewhere/x", volume("web", "/elsewhere")) == "mine"
    (found,) = zind.Volumes(place).list()
    assert found.name == "web" and (found.path / "x").read_text() == "mine\n" and not found.is_fresh
    assert os.stat(place).st_mode & 0o777 == os.stat(found.path.parent).st_mode & 0o777 == 0o700
    assert not (root / "v").exists()


def test_a_fresh_one_begins_with_the_root_s_content_once(root, volume):
    v = volume("v", "/data")
    script = "stat -c %a /data /data/sub/file; [ /data/link -ef /data/sub/file ] && cat /data/link"
    assert sh(root, script, v).split() == ["1770", "640", "of", "the", "root"]
    sh(root, "rm -r /data/*; echo new >/data/y", v)
    assert sh(root, "ls -A /data", v) == "y"
    assert (root / "data/sub/file").read_text() == "of the root\n"


def test_not_where_it_was_used_before(root, volume):
    assert sh(root, "ls -A /data", volume("a", "/data", copy_up=False)) == ""
    assert sh(root, "ls -A /data", volume("a", "/data")) == ""
    assert sh(root, "ls -A /data", zind.Mount(type="bind", source=".", target="/x", options=["bind"]), volume("b", "/new")) == "link\nsub"
    assert sh(root, "ls -A /data", volume("b", "/data")) == ""


def test_the_default_root_and_a_persistent_overlay(root, volume, tmp_path):
    assert kit.sh("cat /etc/hostname; ls /etc", mounts=[volume("etc", "/etc")]).splitlines()[0] == "zind"
    upper = tmp_path / "upper"
    sh(root, "echo changed >/data/sub/more", overlay=upper)
    assert sh(root, "cat /data/sub/more; ls /data", volume("v", "/data"), overlay=upper) == "changed\nlink\nsub"


def test_modes_of_mounting(root, volume):
    assert sh(root, "touch /data/x 2>&1 || cat /data/link", volume("v", "/data", read_only=True)).endswith("of the root")
    mount = volume("v", "/data", read_only=True)
    assert mount.type == "volume" and str(mount.target) == "/data" and "'v'" in repr(mount).replace('"', "'")
    result = zind.run(["true"], rootfs=root, mounts=[mount])
    (told,) = result.isolation.mounts
    assert (told["type"], told["read_only"]) == ("volume", True)
    one = zind.Mount(type="volume", source="w", target="/data", options=["nocopy", "ro", "noexec"])
    assert one.type == "volume"
    refused(zind.SpecError, lambda: sh(root, "true", volume("v", "/data", options=["size=1m"])), field="mounts")
    refused(zind.SysError, lambda: sh(root, "true", volume("v", "/missing", create=False)), step=None)


def test_ids_are_mapped(root, place, volume):
    needs_root("other ids")
    maps = [zind.IdMap(1000, 0, 1)]
    path = zind.Volumes(place).create("v").path
    os.chown(path, 1000, 1000)
    assert sh(root, "touch /v/x; stat -c %u /v /v/x", volume("v", "/v", idmap=maps)) == "0\n0"
    assert os.stat(path / "x").st_uid == 1000
    # With a user namespace the second number is an id of the host.
    maps = [zind.IdMap(0, 100_000, 65_536)]
    assert sh(root, "touch /v/x; stat -c %u /v /v/x", volume("w", "/v", idmap=maps), uid_map=maps, gid_map=maps) == "0\n0"
    assert os.stat(zind.Volumes(place).get("w").path / "x").st_uid == 0


def test_a_user_namespace_of_its_own(root, volume):
    # What is root's outside is nobody's in there.
    (root / "data").chmod(0o755)
    (root / "data/sub/file").chmod(0o644)
    maps = {"uid_map": "auto", "gid_map": "auto"}
    assert sh(root, "cat /data/link", volume("v", "/data"), namespaces={"user": "new"}, **({} if ROOT else maps)) == "of the root"


def test_names_are_docker_s(place, root, volume):
    volumes = zind.Volumes(place)
    for name in ("a", "0", "web_1.2-x", "x" * 255):
        volumes.create(name)
        with pytest.raises(FileExistsError):
            volumes.create(name)
        assert volumes.get_or_create(name).name == name
    assert [found.name for found in volumes.list()] == ["0", "a", "web_1.2-x", "x" * 255]
    for name in ("", ".", "..", "../x", "a/b", ".a", "-a", "_a", "a b", "a\n", "x" * 256, "ä", "a\0"):
        refused(zind.SpecError, lambda name=name: volumes.create(name), field="name")
        refused(zind.SpecError, lambda name=name: volumes.remove(name), field="name")
        refused(zind.SpecError, lambda name=name: sh(root, "true", volume(name, "/v")), field="mounts")
    with pytest.raises(zind.NotFoundError):
        volumes.get("none")
    with pytest.raises(zind.NotFoundError):
        volumes.remove("none")


def test_a_link_at_the_target_stays_inside(root, place, volume):
    outside = place.parent / "victim"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    for number, link in enumerate((str(outside), "../../../../.." + str(outside))):
        inner = root / str(outside)[1:]
        inner.mkdir(parents=True, exist_ok=True)
        (inner / "inner").write_text("inner")
        (root / f"link{number}").symlink_to(link)
        assert sh(root, f"ls {outside} /link{number}/; touch /link{number}/made", volume(f"v{number}", f"/link{number}")).count("inner") == 2
        assert (zind.Volumes(place).get(f"v{number}").path / "made").exists()
    assert os.listdir(outside) == ["secret"]
    # Links in the content stay links, and a file as the target is no directory.
    (root / "data/evil").symlink_to(outside)
    assert sh(root, "readlink /data/evil", volume("w", "/data")) == str(outside)
    refused(zind.SysError, lambda: sh(root, "true", volume("x", "/marker")), number=20)


# --- held ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [{}, {"init": False}, {"namespaces": {"pid": "host"}}])
def test_nobody_removes_what_is_in_use(root, place, volume, options):
    volumes = zind.Volumes(place)
    script = "for f in /proc/self/fd/*; do readlink $f; done; read x"
    p = zind.Popen(["sh", "-c", script], rootfs=root, mounts=[volume("v", "/v")], stdin=zind.PIPE, stdout=zind.PIPE, text=True, **options)
    try:
        refused(zind.StateError, lambda: volumes.remove("v"))
        out, _ = p.communicate("\n")
        assert "lock" not in out
    finally:
        p.kill()
        p.wait()
    del p
    assert kit.wait_until(lambda: not volumes.list() or not volumes.remove("v"))
    assert volumes.list() == []
    assert os.listdir(place) == [".lock"]


def test_a_hold_of_one_s_own(place):
    volumes = zind.Volumes(place)
    volume = volumes.create("v")
    with volume.hold() as hold, volume.hold():
        assert hold.fileno() > 2 and not os.get_inheritable(hold.fileno())
        refused(zind.StateError, lambda: volumes.remove("v"))
    hold.close()
    volumes.remove("v")
    with pytest.raises(zind.NotFoundError):
        volume.hold()
    with pytest.raises(ValueError, match="closed"):
        hold.fileno()


def test_what_a_payload_did_to_it_does_not_matter(root, place, volume):
    """Modes, depth, sockets and names: it is removed all the same."""
    script = (
        "cd /v; mkdir -p a/b; mkfifo a/f; touch \"$(printf 'x\\377\\n')\" a/b/c; ln -s / a/s;"
        "i=0; while [ $i -lt 300 ]; do mkdir d && cd d; i=$((i+1)); done; chmod 0 /v/a/b /v/a /v"
    )
    sh(root, script, volume("v", "/v"))
    zind.Volumes(place).remove("v")
    assert os.listdir(place) == [".lock"]


# --- crashes and races -----------------------------------------------------------------------------------------------
def test_what_crashes_left_is_found(root, place, volume):
    volumes = zind.Volumes(place)
    path = volumes.create("v").path.parent
    (path / "_filling/data").mkdir(parents=True)
    (path / "_filling/half").write_text("half")
    assert sh(root, "ls -A /data", volume("v", "/data")) == "link\nsub"
    assert sorted(os.listdir(path)) == ["_data", "fill.lock", "filled", "lock"]
    # Half made, half removed.
    (place / ".zind-0000000000000001/_data").mkdir(parents=True)
    (place / ".zind-0000000000000002").mkdir()
    path.rename(place / ".zind-0000000000000003")
    assert volumes.list() == []
    volumes.create("next")
    assert sorted(os.listdir(place)) == [".lock", "next"]


def test_a_process_that_is_killed_while_it_fills(place):
    source = "import sys, zind; zind.run(['true'], mounts=[zind.Mount.volume('v', '/usr/share', place=sys.argv[1])])"
    child = subprocess.Popen([sys.executable, "-c", source, place], env=kit.child_env())
    filling = place / "v/_filling"
    assert kit.wait_until(filling.is_dir, timeout=30, pause=0.001)
    child.send_signal(signal.SIGKILL)
    child.wait()
    volumes = zind.Volumes(place)
    assert volumes.get("v").is_fresh and os.listdir(volumes.get("v").path) == []
    count = "find /etc | wc -l"
    kit.wait_until(lambda: not kit.running("zind-init"))
    mount = zind.Mount.volume("v", "/etc", place=place)
    assert kit.sh(count, mounts=[mount]) == kit.sh(count)
    volumes.remove("v")


def test_a_signal_ends_the_filling(place):
    class Enough(Exception):
        pass

    def handler(*_) -> None:
        raise Enough

    old = signal.signal(signal.SIGUSR1, handler)
    main = threading.get_ident()

    def disturb() -> None:
        kit.wait_until((place / "v/_filling").is_dir, timeout=30, pause=0.001)
        signal.pthread_kill(main, signal.SIGUSR1)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        with pytest.raises(Enough):
            zind.run(["true"], mounts=[zind.Mount.volume("v", "/usr/share", place=place)])
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, old)
    assert zind.Volumes(place).get("v").is_fresh
    zind.Volumes(place).remove("v")


def test_many_at_once_find_all_of_it(root, volume):
    for number in range(200):
        (root / f"data/n{number}").write_text(str(number))
    found = []

    def start() -> None:
        found.append(sh(root, "ls /data | wc -l", volume("v", "/data")))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["202"] * 8


def test_made_and_removed_at_once(root, place, volume):
    volumes, over = zind.Volumes(place), threading.Event()

    def remove() -> None:
        while not over.is_set():
            try:
                volumes.remove("v")
            except (zind.NotFoundError, zind.StateError):
                time.sleep(0.001)

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        for _ in range(30):
            assert sh(root, "cat /data/link; echo x >/data/x", volume("v", "/data")) == "of the root"
    finally:
        over.set()
        thread.join()


# --- where they are not ----------------------------------------------------------------------------------------------
def test_only_starts_of_containers_have_them(root, volume):
    with zind.Popen(["sleep", "100"], rootfs=root) as p:
        refused(zind.SpecError, lambda: p.mount(volume("v", "/v")))
        p.kill()
    del p


def test_from_a_loop(root, volume):
    async def main() -> bytes:
        result = await zind.aio.run(["cat", "/data/link"], rootfs=root, mounts=[volume("v", "/data")], capture_output=True)
        return result.stdout

    assert asyncio.run(main()) == b"of the root\n"


def test_an_ordinary_user_s_own_place(tmp_path):
    if ROOT:
        pytest.skip(kit.NEEDS_USER + "root's are below /var/lib")
    source = "import zind; zind.run(['touch', '/v/x'], mounts=[zind.Mount.volume('v', '/v')], check=True); print(zind.Volumes().place)"
    out = kit.outside(source, env=kit.child_env(XDG_DATA_HOME=str(tmp_path))).stdout.strip()
    assert pathlib.Path(out) == tmp_path / "zind/volumes"
    assert (tmp_path / "zind/volumes/v/_data/x").exists()


def test_a_fresh_volume_begins_with_what_layers_have(tmp_path, tiny_root):
    layers = zind.Layers.create(tmp_path / "layers", tiny_root)
    kit.sh("mkdir -p /srv/app; echo layered >/srv/app/file", rootfs=layers)
    volumes = zind.Volumes(tmp_path / "volumes")
    mount = zind.Mount.volume("app", "/srv/app", place=volumes.place)
    assert kit.sh("cat /srv/app/file; echo more >/srv/app/more", rootfs=layers, mounts=[mount]) == "layered"
    assert kit.sh("ls /srv/app", rootfs=layers) == "file" and kit.sh("ls /srv/app", rootfs=layers, mounts=[mount]) == "file\nmore"
    volumes.remove("app")
    layers.delete()
