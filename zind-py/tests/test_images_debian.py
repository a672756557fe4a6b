"""Real images: Debian with PostgreSQL, and what skopeo, umoci and buildah make and read."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import tarfile
import tempfile

import pytest

import kit
import zind

pytestmark = [pytest.mark.limit(600), pytest.mark.skipif(os.geteuid() != 0, reason="mmdebstrap makes files of all users")]

#: What a database's image says of itself. PostgreSQL refuses to run as root.
POSTGRES = "/usr/lib/postgresql/15/bin"
CONFIG = {
    "User": "postgres",
    "Env": [f"PATH={POSTGRES}:/usr/bin:/bin", "PGDATA=/var/lib/postgresql/data"],
    "WorkingDir": "/var/lib/postgresql",
    "Cmd": ["sh", "-c", "initdb --auth=peer --no-sync >/dev/null && exec postgres -F -k /socket -c listen_addresses="],
    "StopSignal": "SIGINT",
}
#: Peer authentication: the server asks the kernel who is at the other end of the socket.
ASK = ["psql", "-h", "/socket", "-d", "postgres", "-Atc", "select current_user, 6 * 7"]


def command(*argv: object, **options) -> str:
    result = subprocess.run([str(arg) for arg in argv], capture_output=True, text=True, check=False, **options)
    assert result.returncode == 0, f"{argv}: {result.stdout}{result.stderr}"
    return result.stdout


@pytest.fixture(scope="session")
def postgres_tar() -> pathlib.Path:
    """Kept in $ZIND_TEST_CACHE if that is set."""
    cache = os.environ.get("ZIND_TEST_CACHE")
    place = pathlib.Path(cache or tempfile.mkdtemp(prefix="debian-root-", dir="/var/tmp"))
    tar = place / "postgres.tar"
    try:
        if not tar.exists():
            kit.bootstrap(tar, "--include=postgresql")
        yield tar
    finally:
        if not cache:
            shutil.rmtree(place)


@pytest.fixture(scope="session")
def database(postgres_tar) -> zind.Image:
    place = tempfile.mkdtemp(prefix="debian-root-", dir="/var/tmp")
    yield zind.Store(place).import_rootfs(postgres_tar, tag="local/postgres:15", config=CONFIG)
    shutil.rmtree(place)


def answer(image: zind.Image, place: pathlib.Path) -> str:
    """Starts the database, asks it from another container by its socket, and stops it."""
    place.chmod(0o777)
    socket = zind.Mount.bind(place, "/socket")
    with tempfile.TemporaryFile() as log:
        process = zind.Popen(image=image, stdout=log, stderr=log, mounts=[socket])
        try:
            ready = lambda: log.seek(0) or b"ready to accept connections" in log.read() or process.poll() is not None
            assert kit.wait_until(ready, timeout=120, pause=0.05)
            log.seek(0)
            assert process.poll() is None, log.read().decode()
            return zind.run(ASK, image=image, mounts=[socket], capture_output=True, text=True, check=True).stdout
        finally:
            process.stop(timeout=30)
            process.wait()


def test_postgres_answers_by_peer_authentication(database, tmp_path):
    assert answer(database, tmp_path) == "postgres|42\n"


def test_postgres_answers_over_layers_and_from_what_was_committed(database, tmp_path):
    layers = zind.Layers.create(tmp_path / "layers", database)
    setup = "initdb --auth=peer --no-sync > /dev/null; echo \"select 'kept'\" > /var/lib/postgresql/query.sql"
    zind.run(["sh", "-c", setup], rootfs=layers, check=True)
    run = {**CONFIG, "Cmd": CONFIG["Cmd"][:2] + [CONFIG["Cmd"][2].split("&&")[1]]}
    image = layers.commit("local/postgres:filled", config=run, compression="zstd")
    (tmp_path / "socket").mkdir()
    assert answer(image, tmp_path / "socket") == "postgres|42\n"
    assert zind.run(["stat", "-c", "%U %a", "/var/lib/postgresql/data"], image=image, capture_output=True).stdout == b"postgres 700\n"
    layers.delete()


USER = """
import sys, tempfile, time, zind
store = zind.Store(sys.argv[2])
image = store.import_rootfs(sys.argv[1], tag="local/postgres:15", config=eval(sys.argv[3]))
script = image.config["config"]["Cmd"][2].replace("exec postgres", "postgres") + " & "
script += "for i in $(seq 1200); do psql -h /socket -d postgres -Atc 'select current_user, 6 * 7' 2>/dev/null && break; sleep 0.1; done; kill -INT $(head -1 $PGDATA/postmaster.pid); wait"
result = zind.run(["sh", "-c", script], image=image, mounts=[zind.Mount.tmpfs("/socket")], capture_output=True, text=True)
print(result.stdout[-500:], result.stderr[-1000:], result)
assert "postgres|42" in result.stdout
"""


def test_an_ordinary_user_has_the_same_with_a_single_id(user_python, postgres_tar):
    """One id is all the user has: the container is the image's user, and every file its own."""
    place = pathlib.Path(tempfile.mkdtemp(dir=user_python.tmp))
    os.chown(place, user_python.uid, user_python.gid)
    mode = postgres_tar.parent.stat().st_mode
    try:
        os.chmod(postgres_tar.parent, 0o755)
        user_python.snippet(USER, str(postgres_tar), str(place / "store"), repr(CONFIG), timeout=400)
    finally:
        os.chmod(postgres_tar.parent, mode & 0o7777)
        shutil.rmtree(place)


# --- other tools -----------------------------------------------------------------------------------------------------
@pytest.fixture
def store(tmp_path) -> zind.Store:
    return zind.Store(tmp_path / "store")


def listing(root: pathlib.Path) -> dict[str, tuple]:
    """Type, mode, owner, size or target, time and attributes of every file."""
    found = {}
    for path in sorted(root.rglob("*")):
        meta = path.lstat()
        size = os.readlink(path) if path.is_symlink() else meta.st_size if path.is_file() else None
        xattrs = {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)}
        key = str(path.relative_to(root))
        found[key] = (meta.st_mode, meta.st_uid, meta.st_gid, size, meta.st_nlink if path.is_file() else 1, int(meta.st_mtime), xattrs)
    return found


def rich_layers(store, base, tmp_path) -> zind.Image:
    """Changes of every kind."""
    layers = zind.Layers.create(tmp_path / "rich", base)
    script = """
        echo data > /srv/file; ln /srv/file /srv/hard; ln -s ../etc /srv/link; mkfifo /srv/fifo
        chown 7:70000 /srv/file; chmod 6711 /srv/file; mkdir -m 3777 /srv/sticky; touch -d @1234567890 /srv/file
        rm -r /usr/share/doc; mkdir /usr/share/doc; echo new > /usr/share/doc/new
        rm /etc/motd; rm -r /home; echo file > /home; printf '%0300d' 0 > "/srv/$(printf 'n%0200d' 1)"
        mkdir -p /srv/d/e/f; head -c 3000000 /dev/zero > /srv/zeros; echo odd > "/srv/$(printf 'a\\377b')"
    """
    zind.run(["sh", "-c", script], rootfs=layers, capabilities="docker", check=True)
    upper = pathlib.Path(layers.upper)
    os.setxattr(upper / "srv/d", "user.note", b"\0\xff=")
    os.setxattr(upper / "srv/zeros", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    image = layers.commit("local/rich:1")
    layers.delete()
    return image


@pytest.fixture
def debian(store, postgres_tar, tmp_path_factory) -> zind.Image:
    """A smaller Debian: what the database's tar has without most of it."""
    small = tmp_path_factory.mktemp("debian") / "small.tar"
    keep = ("./etc", "./bin", "./sbin", "./lib", "./lib64", "./home", "./srv", "./tmp", "./usr/bin", "./usr/lib64", "./usr/lib/x86_64-linux-gnu", "./usr/share/doc/bash")
    with tarfile.open(postgres_tar) as source, tarfile.open(small, "w") as target:
        for info in source:
            if info.name == "." or info.name.startswith(keep) or any(name.startswith(info.name + "/") for name in keep):
                target.addfile(info, source.extractfile(info) if info.isfile() else None)
    return store.import_rootfs(small, tag="local/debian:12", config={"Cmd": ["cat", "/etc/debian_version"]})


def test_what_we_commit_is_unpacked_the_same_by_umoci(store, debian, tmp_path):
    kit.needs_program("umoci", "tar")
    image = rich_layers(store, debian, tmp_path)
    image.save(tmp_path / "layout", "oci-dir")
    command("umoci", "unpack", "--image", f"{tmp_path}/layout:{tag_in(tmp_path / 'layout')}", tmp_path / "bundle")
    image.export(tmp_path / "flat.tar")
    (tmp_path / "flat").mkdir()
    command("tar", "--xattrs", "--xattrs-include=*", "-xpf", tmp_path / "flat.tar", "-C", tmp_path / "flat")
    theirs, ours = listing(tmp_path / "bundle/rootfs"), listing(tmp_path / "flat")
    assert set(theirs) == set(ours)
    different = {name: (theirs[name], ours[name]) for name in theirs if theirs[name] != ours[name]}
    assert not different, dict(list(different.items())[:5])
    with image.mount() as root:
        assert root.read_file("/usr/share/doc/new") == b"new\n"


def tag_in(layout: pathlib.Path) -> str:
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    return entry["annotations"]["org.opencontainers.image.ref.name"]


def test_skopeo_copies_what_we_save_and_we_load_what_it_makes(store, debian, tmp_path):
    kit.needs_program("skopeo")
    image = zind.build(debian).run(["sh", "-c", "echo built > /b"]).cmd(["cat", "/b"]).commit("local/built:1", compression="zstd")
    image.save(tmp_path / "docker.tar", "docker")
    image.save(tmp_path / "oci.tar", "oci")
    for number, source in enumerate([f"docker-archive:{tmp_path}/docker.tar", f"oci-archive:{tmp_path}/oci.tar"]):
        layout = tmp_path / f"copy{number}"
        command("skopeo", "--insecure-policy", "copy", source, f"oci:{layout}:copied")
        (loaded,) = zind.Store(tmp_path / f"other{number}").load(layout)
        assert zind.run(image=loaded, capture_output=True).stdout == b"built\n"
        assert loaded.config["rootfs"] == image.config["rootfs"]
    # And from the store itself, as a layout directory.
    command("skopeo", "--insecure-policy", "inspect", f"oci:{store.path}/images:local/built:1")


def test_umoci_changes_what_we_save_and_we_run_it(store, debian, tmp_path):
    kit.needs_program("umoci")
    layout = tmp_path / "layout"
    debian.save(layout, "oci-dir")
    name = f"{layout}:{tag_in(layout)}"
    command("umoci", "unpack", "--image", name, tmp_path / "bundle")
    (tmp_path / "bundle/rootfs/added").write_text("by umoci\n")
    shutil.rmtree(tmp_path / "bundle/rootfs/usr/share/doc")
    command("umoci", "repack", "--image", f"{layout}:changed", tmp_path / "bundle")
    command("umoci", "config", "--image", f"{layout}:changed", "--config.cmd", "cat", "--config.cmd", "/added", "--config.user", "daemon")
    images = {tag: image for image in zind.Store(tmp_path / "other").load(layout) for tag in image.tags}
    changed = next(image for tag, image in images.items() if tag.endswith("changed"))
    assert zind.run(image=changed, capture_output=True).stdout == b"by umoci\n"
    assert zind.run(["id", "-un"], image=changed, capture_output=True).stdout == b"daemon\n"
    assert zind.run(["ls", "/usr/share/doc"], image=changed, capture_output=True).returncode == 2


def test_buildah_builds_on_what_we_save_and_we_run_it(store, debian, tmp_path):
    kit.needs_program("buildah")
    debian.save(tmp_path / "layout", "oci-dir")
    buildah = ["buildah", "--root", tmp_path / "root", "--runroot", tmp_path / "run", "--storage-driver", "vfs"]
    try:
        name = command(*buildah, "from", "--signature-policy", policy(tmp_path), f"oci:{tmp_path}/layout:{tag_in(tmp_path / 'layout')}").split()[-1]
        (tmp_path / "file").write_text("by buildah\n")
        command(*buildah, "copy", name, tmp_path / "file", "/added")
        command(*buildah, "config", "--cmd", '["cat", "/added"]', "--env", "A=b", name)
        command(*buildah, "commit", "--signature-policy", policy(tmp_path), name, f"oci-archive:{tmp_path}/built.tar:built")
    finally:
        subprocess.run([str(arg) for arg in [*buildah, "rm", "--all"]], capture_output=True, check=False)
    (loaded,) = zind.Store(tmp_path / "other").load(tmp_path / "built.tar")
    assert zind.run(image=loaded, capture_output=True).stdout == b"by buildah\n"
    assert zind.run(["sh", "-c", "echo $A"], image=loaded, capture_output=True).stdout == b"b\n"


def policy(place: pathlib.Path) -> pathlib.Path:
    path = place / "policy.json"
    path.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    return path
