"""Images and archives that want out: names, links, documents, directories of the image's choice.

``zind-core/tests/store.rs`` has every case of ``hostile-images.json``; here are those with a history, each first with a careless
unpacker, and with the victim as the working directory.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import careless
import pytest
from scene import archive, entry, start, tree

import kit
import zind


@pytest.fixture
def store(tmp_path) -> zind.Store:
    return zind.Store(tmp_path / "store")


def layout(path: pathlib.Path, layers: list[bytes], *, config: dict | None = None, diff_ids: list[str] | None = None, media: str = "tar") -> pathlib.Path:
    """An image-layout directory with one image of these layers."""
    blobs = path / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(data: bytes, kind: str) -> dict:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    ids = diff_ids if diff_ids is not None else ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]
    document = {"architecture": "amd64", "os": "linux", "config": config or {}, "rootfs": {"type": "layers", "diff_ids": ids}}
    manifest = {
        "schemaVersion": 2,
        "config": blob(json.dumps(document).encode(), "config.v1+json"),
        "layers": [blob(layer, f"layer.v1.{media}") for layer in layers],
    }
    found = {**blob(json.dumps(manifest).encode(), "manifest.v1+json"), "annotations": {"org.opencontainers.image.ref.name": "local/hostile:1"}}
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [found]}))
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return path


# --- names and links -----------------------------------------------------------------------------------------------------
UP = "../" * 30
#: Layers of entries; VICTIM is where they want to.
CASES = {
    "dotdot": [[(UP + "VICTIM/made",)]],
    "absolute": [[("/VICTIM/made",)]],
    "through a link": [[("l", "link", "/VICTIM"), ("l/made",)]],
    "through a relative link": [[("l", "link", UP + "VICTIM"), ("l/made",)]],
    "through a link of the layer below": [[("l", "link", "/VICTIM")], [("l/made",)]],
    "link and chmod": [[("h", "hard", "/VICTIM/file", 0o4777)]],
    "hard link by dots": [[("h", "hard", UP + "VICTIM/file", 0o4777)]],
    "hard link from the working directory": [[("h", "hard", "file", 0o4777)]],
    "hard link through a link": [[("l", "link", "/VICTIM"), ("h", "hard", "ROOT/l/file", 0o4777)]],
    "the root is a link": [[("./", "link", "/VICTIM"), ("made",)]],
    "the root is a link in the next layer": [[], [(".", "link", "/VICTIM")], [("made",)]],
    "deletion through a link": [[("l", "link", "/VICTIM")], [("l/.wh.file",)]],
    "deletion by dots": [[("a/",), ("a/" + UP + "VICTIM/.wh.file",)]],
}


def layers_of(case: str, victim: pathlib.Path, root: pathlib.Path, into: pathlib.Path) -> list[pathlib.Path]:
    """Archives, one for each layer."""

    def made(name: str, kind: str = "", to: str = "", mode: int = 0o644):
        fill = lambda text: text.replace("/VICTIM" if text.startswith("/") else "VICTIM", str(victim) if text.startswith("/") else str(victim)[1:]).replace("ROOT", str(root))
        return entry(fill(name), mode=mode, **({kind: fill(to)} if kind else {}))

    into.mkdir()
    return [archive(into / f"{number}.tar", [made(*one) for one in layer]) for number, layer in enumerate(CASES[case])]


@pytest.mark.parametrize("case", CASES)
def test_careless_unpacking_leads_out(case, tmp_path, prey, monkeypatch):
    """The test below can fail: each archive does its harm to who joins paths."""
    root = tmp_path / "root"
    layers = layers_of(case, prey, root, tmp_path / "layers")
    before = tree(prey)
    monkeypatch.chdir(prey)
    with contextlib.suppress(FileExistsError):
        careless.extract(layers, root)
    assert tree(prey) != before


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_unpacked_outside(case, tmp_path, victim, store, monkeypatch):
    """CVE-2020-10696, CVE-2021-32760, CVE-2021-29136, CVE-2026-44517, CVE-2026-50163: names and links that lead out; the
    working directory is the victim's."""
    layers = [path.read_bytes() for path in layers_of(case, victim, tmp_path / "root", tmp_path / "layers")]
    monkeypatch.chdir(victim)
    beside = {path for path in tmp_path.iterdir()}
    try:
        for image in store.load(layout(tmp_path / "layout", layers)):
            image.unpack()
    except zind.ImageError as error:
        assert "layer" in str(error)
        assert store.images() == []
    assert {path for path in tmp_path.iterdir()} == beside | {tmp_path / "layout"}
    # The same as a root file system, which is one layer.
    for number in range(len(layers)):
        with contextlib.suppress(zind.ImageError):
            store.import_rootfs(tmp_path / f"layers/{number}.tar").unpack()


SWAP = """
import ctypes, glob, os, sys
libc = ctypes.CDLL(None)
pattern, stop = sys.argv[1:]
swaps = 0
print("ready", flush=True)
while not os.path.exists(stop):
    for directory in glob.glob(pattern, recursive=True) + glob.glob(pattern.replace("*/*", "*/.*"), recursive=True):
        for _ in range(50):
            if libc.renameat2(-100, os.fsencode(directory), -100, os.fsencode(os.path.dirname(directory) + "/l"), 2) == 0:
                swaps += 1
print(swaps)
"""


@contextlib.contextmanager
def swapping(pattern: pathlib.Path, stop: pathlib.Path):
    """Somebody exchanges directory and link of a layer while it is unpacked; at the end it says how often."""
    said: list[int] = []
    with subprocess.Popen([sys.executable, "-c", SWAP, str(pattern), str(stop)], stdout=subprocess.PIPE, text=True) as peer:
        try:
            assert peer.stdout.readline() == "ready\n"
            yield said
        finally:
            stop.touch()
            said.append(int(peer.stdout.readline()))


def many_files(victim: pathlib.Path, to: pathlib.Path) -> pathlib.Path:
    files = [entry("d/"), entry("l", link=str(victim))]
    return archive(to, files + [entry(f"d/{number}/" if number % 50 == 0 else f"d/made{number}") for number in range(1500)])


def test_directories_swapped_while_a_layer_is_unpacked(tmp_path, victim):
    """CVE-2025-47290: a peer in the store exchanges a directory of the layer with a link to the victim, while two threads unpack."""
    tar = many_files(victim, tmp_path / "layer.tar")
    end, rounds = time.monotonic() + 5, 0
    with swapping(tmp_path / "store-*/snapshots/*/*/diff/d", tmp_path / "stop") as swaps:
        while time.monotonic() < end and rounds < 100:
            fresh = zind.Store(tmp_path / f"store-{rounds}")

            def work() -> None:
                with contextlib.suppress(zind.Error):
                    fresh.import_rootfs(tar).unpack()

            threads = [threading.Thread(target=work) for _ in range(2)]
            [thread.start() for thread in threads]
            [thread.join() for thread in threads]
            assert sorted(os.listdir(victim)) == ["dir", "file"]
            rounds += 1
    assert swaps[0] > 0 and rounds > 0


def test_careless_unpacking_loses_the_race(tmp_path, prey):
    tar = many_files(prey, tmp_path / "layer.tar")
    with swapping(tmp_path / "root-*/d", tmp_path / "stop"):
        for number in range(100):
            with contextlib.suppress(OSError):
                careless.extract([tar], tmp_path / f"root-{number}")
            if len(os.listdir(prey)) > 2:
                break
    assert len(os.listdir(prey)) > 2


# --- documents, decoders, locks ------------------------------------------------------------------------------------------
BOUNDED = """
import resource, sys, zind
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
path = sys.argv[1]
if sys.argv[2] == "zind":
    try: zind.Store(sys.argv[3]).load(path)
    except zind.ImageError as error: print("refused:", error)
else:
    try: open(f"{path}/{sys.argv[2]}", "rb").read()
    except MemoryError: print("no memory")
"""


@pytest.mark.parametrize("what", ["index", "layout", "manifest", "config"])
def test_documents_of_any_size_are_not_read(what, tmp_path, victim):
    """CVE-2023-25153: a document of 2 GiB is read into memory. With an address space of one it would end the program."""
    path = layout(tmp_path / "layout", [archive(tmp_path / "layer.tar", [entry("a")]).read_bytes()])
    index = json.loads((path / "index.json").read_text())
    manifest = index["manifests"][0]["digest"][7:]
    config = json.loads((path / "blobs/sha256" / manifest).read_text())["config"]["digest"][7:]
    name = {"index": "index.json", "layout": "oci-layout", "manifest": f"blobs/sha256/{manifest}", "config": f"blobs/sha256/{config}"}[what]
    os.truncate(path / name, 2 << 30)
    if what in ("manifest", "config"):
        # As large as is said.
        holder = path / ("index.json" if what == "manifest" else f"blobs/sha256/{manifest}")
        document = json.loads(holder.read_text())
        (document["manifests"][0] if what == "manifest" else document["config"])["size"] = 2 << 30
        if what == "config":
            text = json.dumps(document).encode()
            digest = hashlib.sha256(text).hexdigest()
            (path / "blobs/sha256" / digest).write_bytes(text)
            index["manifests"][0] |= {"digest": f"sha256:{digest}", "size": len(text)}
            (path / "index.json").write_text(json.dumps(index))
        else:
            holder.write_text(json.dumps(document))
    assert kit.outside(BOUNDED, str(path), "zind", str(tmp_path / "store")).stdout.startswith("refused:")
    assert kit.outside(BOUNDED, str(path), name, "").stdout == "no memory\n"


@pytest.mark.parametrize("media", ["tar+gzip", "tar+zstd", "tar+xz"])
def test_a_decoder_that_ends_early_holds_no_lock(media, tmp_path, store):
    """CVE-2021-20291: a layer on which the decoder fails early, and whoever waits for it waits for ever, with the lock."""
    tar = archive(tmp_path / "layer.tar", [entry("a", data=os.urandom(300_000))]).read_bytes()
    spoiled = {
        "tar+gzip": gzip.compress(tar)[:5000] + b"\xff" * 5000,
        "tar+zstd": bytes.fromhex("28b52ffd") + b"\xff" * 10_000,
        "tar+xz": bytes.fromhex("fd377a585a00") + b"\0" * 10_000,
    }[media]
    path = layout(tmp_path / "spoiled", [spoiled], diff_ids=["sha256:" + hashlib.sha256(tar).hexdigest()], media=media)
    good = layout(tmp_path / "good", [archive(tmp_path / "good.tar", [entry("b", data=os.urandom(300_000))]).read_bytes()])
    ends: list[object] = []

    def work(path: pathlib.Path) -> None:
        for _ in range(5):
            try:
                ends.append(len(store.load(path)))
            except zind.Error as error:
                ends.append(error)

    threads = [threading.Thread(target=work, args=(path,), daemon=True) for path in (path, good, path)]
    [thread.start() for thread in threads]
    [thread.join(30) for thread in threads]
    assert not any(thread.is_alive() for thread in threads)
    assert ends.count(1) == 5 and sum(isinstance(end, zind.ImageError) for end in ends) == 10, ends
    store.gc()


def test_a_careless_decoder_holds_the_lock(tmp_path):
    """The test above can fail: who waits for a dead decoder with the lock in hand."""
    import fcntl

    os.mkfifo(tmp_path / "pipe")
    thread = careless.unpack_locked(tmp_path / "lock", tmp_path / "pipe")
    with open(tmp_path / "lock") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with open(tmp_path / "pipe", "wb"):
        thread.join(10)
    assert not thread.is_alive()


# --- what an image says of itself ----------------------------------------------------------------------------------------
@pytest.fixture
def busybox(tmp_path) -> list:
    return [entry("bin/"), entry("bin/busybox", data=pathlib.Path("/usr/bin/busybox").read_bytes(), mode=0o755), entry("bin/sh", link="busybox")]


@pytest.mark.parametrize("field", ["Volumes", "WorkingDir"])
def test_directories_of_an_image_are_inside(field, tmp_path, victim, store, busybox):
    """CVE-2022-23648, CVE-2026-55686: volumes and the working directory by dots and by links of the image."""
    files = [*busybox, entry("w", link=str(victim)), entry("up", link=UP[:-1] + str(victim)), entry("proc/")]
    tar = archive(tmp_path / "root.tar", files)
    for path in (f"/{UP}{str(victim)[1:]}", f"{victim}/new", "/w", "/w/new", "/up/new", "/w/../made", "/proc/1/root/tmp", "/bin/../../../x"):
        config = {field: {path: {}} if field == "Volumes" else path, "Cmd": ["/bin/sh", "-c", f"/bin/busybox cat {path}/file {victim}/file; exit 0"]}
        try:
            image = store.import_rootfs(tar, config=config)
        except zind.Error:
            continue
        for options in ({}, {"read_only": True}):
            end = start((), image=image, capture_output=True, **options)
            assert isinstance(end, zind.Error) or b"untouched" not in end.stdout, (path, end)
            assert sorted(os.listdir(victim)) == ["dir", "file"]


def test_a_careless_volume_is_filled_from_outside(tmp_path, prey, tiny_root):
    """The test above can fail."""
    (tiny_root / "w").symlink_to(prey)
    careless.copy(tiny_root, "/w", tmp_path / "volume")
    assert (tmp_path / "volume/file").read_text() == "untouched"
    careless.write(tiny_root, "/w/new/file", "x")
    assert (prey / "new/file").exists()


def test_an_image_without_layers_has_a_root_of_its_own(tmp_path, victim, store, monkeypatch):
    """CVE-2026-24054: with no layer to mount, a directory of the host's was bound: the working directory, or an empty one that all
    share."""
    monkeypatch.chdir(victim)
    (image,) = store.load(layout(tmp_path / "layout", [], config={"Cmd": ["/bin/busybox", "ls", "-a", "/"]}))
    error = start((), image=image)
    assert isinstance(error, zind.SysError) and error.step == "Exec", error
    seen = []
    for name in ("one", "two"):
        mounts = [zind.Mount.bind("/usr/bin/busybox", "/bin/busybox", read_only=True)]
        script = ["/bin/busybox", "sh", "-c", f"busybox ls /; busybox touch /made-{name}; busybox ls / /made*"]
        seen.append(zind.run(script, image=image, mounts=mounts, env={"PATH": "/bin"}, capture_output=True, text=True, stdin=zind.DEVNULL).stdout)
    assert "made-one" in seen[0] and "made-one" not in seen[1] and "file" not in seen[0] + seen[1]


LINKS = ["index.json", "oci-layout", "blobs", "blobs/sha256", "manifest", "config", "layer"]


@pytest.mark.parametrize("kind", ["absolute", "relative", "fifo"])
@pytest.mark.parametrize("what", LINKS)
def test_parts_of_an_archive_are_links(what, kind, tmp_path, victim, store):
    """CVE-2026-48749, CVE-2026-48752: a part of an unpacked image is a link, and the host reads what it leads to."""
    path = layout(tmp_path / "layout", [archive(tmp_path / "layer.tar", [entry("a")]).read_bytes()])
    index = json.loads((path / "index.json").read_text())["manifests"][0]["digest"][7:]
    manifest = json.loads((path / "blobs/sha256" / index).read_text())
    blobs = {"manifest": index, "config": manifest["config"]["digest"][7:], "layer": manifest["layers"][0]["digest"][7:]}
    part = path / (f"blobs/sha256/{blobs[what]}" if what in blobs else what)
    # Outside there is just what belongs there, so that whoever follows the link is served.
    aside = tmp_path / "aside"
    part.rename(aside)
    if kind == "fifo":
        os.mkfifo(part)
    else:
        part.symlink_to(aside if kind == "absolute" else os.path.relpath(aside, part.parent))
        assert os.path.exists(part)
    before = tree(tmp_path / "layout")
    if what == "oci-layout" and kind == "fifo":
        os.unlink(part)
        return
    with pytest.raises(zind.Error):
        store.load(path)
    assert store.images() == [] and tree(tmp_path / "layout") == before


def test_a_root_in_an_archive_is_no_link(tmp_path, victim, store):
    """CVE-2026-48749: the directory that is to become an image has links at its parts; they stay links."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "etc").symlink_to(victim)
    (root / "file").symlink_to(victim / "file")
    with store.import_rootfs(root).mount() as mounted, pytest.raises(zind.Error):
        mounted.read_file("/etc/file")
    image = store.images()[-1] if store.images() else store.import_rootfs(root, tag="local/x:1")
    image.export(tmp_path / "flat.tar")
    import tarfile

    with tarfile.open(tmp_path / "flat.tar") as tar:
        assert {info.name.lstrip("./"): info.issym() for info in tar if info.name.strip("./")} == {"etc": True, "file": True}
    assert b"untouched" not in (tmp_path / "flat.tar").read_bytes()


# --- builds --------------------------------------------------------------------------------------------------------------
def test_sources_of_builds_are_links(tmp_path, victim, store, busybox):
    """CVE-2024-9407, CVE-2024-9675, CVE-2024-11218, CVE-2025-4953, CVE-2024-23651: what a build copies or mounts leads out, in the
    image or in the directory it comes from."""
    base = store.import_rootfs(archive(tmp_path / "root.tar", [*busybox, entry("to", link=str(victim)), entry("up", link=UP[:-1] + str(victim))]))
    context = tmp_path / "context"
    context.mkdir()
    (context / "link").symlink_to(victim / "file")
    (context / "dir").symlink_to(victim)
    (context / "data").write_text("data")
    for target in ("/to/made", "/up/made", f"{victim}/made", "/to/"):
        with contextlib.suppress(zind.Error):
            zind.build(base).copy(context / "data", target).commit()
        assert sorted(os.listdir(victim)) == ["dir", "file"]
    with contextlib.suppress(zind.Error):
        image = zind.build(base).copy(context, "/copied").commit()
        with image.mount() as mounted:
            for name in ("/copied/link", "/copied/dir/file"):
                with pytest.raises(zind.Error):
                    mounted.read_file(name)
    with contextlib.suppress(zind.Error):
        zind.build(base).run(["/bin/sh", "-c", f"echo x > /to/made; echo x > {victim}/made; echo x > /up/file"]).commit()
