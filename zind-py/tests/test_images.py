"""Images: run as they say, committed, exported, built; as root and as an ordinary user."""

from __future__ import annotations

import asyncio
import fcntl
import io
import json
import os
import pathlib
import pickle
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time

import pytest

import kit
import zind

ROOT = os.geteuid() == 0


def tar_of(root: pathlib.Path, to: pathlib.Path, change=None) -> pathlib.Path:
    with tarfile.open(to, "w") as tar:
        tar.add(root, ".", filter=change or (lambda info: info))
    return to


@pytest.fixture
def store(tmp_path) -> zind.Store:
    return zind.Store(tmp_path / "store")


CONFIG = {
    "Cmd": ["echo", "from the image"],
    "Env": ["COLOR=red", "PATH=/bin"],
    "WorkingDir": "/srv/app",
    "Labels": {"a": "b"},
    "ExposedPorts": {"80/tcp": {}},
    "StopSignal": "SIGINT",
}


@pytest.fixture
def tiny(store, tiny_template, tmp_path) -> zind.Image:
    """busybox, with a user "web" of the group "staff"."""

    def change(info):
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        if info.name == "./etc/group":
            return None
        return info

    path = tar_of(tiny_template, tmp_path / "tiny.tar", change)
    with tarfile.open(path, "a") as tar:
        for name, data, owner in [
            ("etc/group", b"root:x:0:\nwww:x:34:\nstaff:x:50:web\n", (0, 0)),
            ("home/web.txt", b"mine\n", (33, 34)),
        ]:
            info = tarfile.TarInfo(name)
            info.size, info.mode, (info.uid, info.gid), info.mtime = len(data), 0o640 if owner[0] else 0o644, owner, 1_600_000_000
            tar.addfile(info, io.BytesIO(data))
    return store.import_rootfs(path, tag="local/tiny:1", config=CONFIG)


def out(argv=None, **options) -> str:
    return zind.run(argv, capture_output=True, text=True, check=True, **options).stdout


def test_an_image_as_a_document(store, tiny, tmp_path):
    made = zind.oci.config(image=tiny, hostname="web")
    assert made["root"]["path"] == "zind:image" and made["process"]["args"] == []
    assert zind.oci.config(config=made) == made
    assert out(config=made) == out(image=tiny) == "from the image\n"
    assert out(["sh", "-c", "pwd; echo $COLOR"], config=made) == "/srv/app\nred\n"
    layers = zind.Layers.create(tmp_path / "layers", tiny)
    on_layers = zind.oci.config(rootfs=layers)
    out(["touch", "/kept"], config=on_layers)
    assert out(["ls", "/kept"], config=on_layers) == "/kept\n"
    layers.delete()
    with pytest.raises(zind.Error):
        out(config=on_layers)
    shutil.rmtree(store.path)
    kit.refused(zind.SpecError, lambda: zind.run(config=made), field="annotations")
    assert not os.path.exists(store.path)


def entries(archive: pathlib.Path, index: int) -> dict[str, tarfile.TarInfo]:
    """Of a layer of an OCI layout directory, by umoci's and skopeo's way of looking: through the manifests."""
    blob = lambda digest: archive / "blobs" / digest.replace(":", "/")
    listed = json.loads((archive / "index.json").read_text())["manifests"]
    manifest = json.loads(blob(listed[0]["digest"]).read_text())
    with tarfile.open(blob(manifest["layers"][index]["digest"])) as tar:
        return {info.name: info for info in tar}


# --- what it is ------------------------------------------------------------------------------------------------------
def test_an_image_says_what_it_is(store, tiny):
    assert tiny.tags == ["local/tiny:1"] and tiny.id.startswith("sha256:") and tiny.digest != tiny.id
    assert tiny.config["config"]["Cmd"] == CONFIG["Cmd"] and tiny.platform == "linux/amd64"
    assert len(tiny.layers) == 1 and tiny.layers[0].size > 1 << 20 and tiny.size > tiny.layers[0].size
    assert store.image("local/tiny:1") == tiny == store.image(tiny.id) == store.image(tiny.id[7:19])
    assert store.images() == [tiny] and tiny.store == store
    assert "local/tiny:1" in repr(tiny) and "local/tiny:1" in tiny._repr_html_()
    assert pickle.loads(pickle.dumps(tiny)) == tiny and hash(tiny) == hash(store.image(tiny.digest))
    kit.refused(zind.NotFoundError, lambda: store.image("nothing"))
    with pytest.raises(TypeError, match="Store"):
        zind.Image("x")


def test_tags_come_and_go(store, tiny):
    store.tag(tiny, "local/other:2")
    assert sorted(store.image("local/other:2").tags) == ["local/other:2", "local/tiny:1"]
    store.remove("local/tiny:1")
    assert store.images()[0].tags == ["local/other:2"]
    store.remove(store.image("local/other:2"))
    assert store.images() == []
    kit.refused(zind.NotFoundError, lambda: store.remove("local/other:2"))


# --- running ---------------------------------------------------------------------------------------------------------
def test_the_image_says_what_runs(tiny):
    assert out(image=tiny) == "from the image\n"
    assert out([], image=tiny) == "from the image\n"
    assert out(["sh", "-c", "echo $COLOR $HOME; pwd"], image=tiny) == "red /root\n/srv/app\n"
    with zind.Popen(["sleep", "9"], image=tiny) as process:
        assert process.image == tiny
        process.kill()


def test_the_callers_options_win(tiny):
    given = out(["sh", "-c", "echo $COLOR; pwd; id -u"], image=tiny, env={"COLOR": "blue"}, cwd="/tmp", user=7)
    assert given == "blue\n/tmp\n7\n"
    assert out(["x"], image=tiny, entrypoint=["echo", "entry"]) == "entry x\n"
    assert out(image=tiny, entrypoint="pwd") == "/srv/app\n"
    assert "COLOR" not in out(["/bin/env"], image=tiny, clear_env=True)


def test_an_entrypoint_of_the_image_stays_before_the_arguments(store, tiny, tmp_path):
    image = zind.build(tiny).entrypoint(["echo", "start"]).cmd(["now"]).commit()
    assert out(image=image) == "start now\n"
    assert out(["later"], image=image) == "start later\n"
    assert out(["pwd"], image=image, entrypoint=[]) == "/srv/app\n"
    assert out(["pwd"], image=image, entrypoint="") == "/srv/app\n"
    kit.refused(zind.SpecError, lambda: zind.run(image=image, entrypoint=[]), field="argv")


def test_users_are_those_of_the_image(store, tiny):
    image = zind.build(tiny).user("web").commit()
    assert out(["id", "-u"], image=image) == "33\n"
    if ROOT:
        # As docker: the groups that have the user as a member, unless a group is named.
        assert out(["id"], image=image) == "uid=33(web) gid=34(www) groups=50(staff)\n"
        assert out(["id"], image=image, user="web:www") == "uid=33(web) gid=34(www)\n"
        assert out(["id", "-G"], image=image, user=33) == "34 50\n"
    assert out(["sh", "-c", "echo $HOME"], image=image) == "/\n"
    kit.refused(zind.SpecError, lambda: zind.run(["true"], image=zind.build(tiny).user("nobody").commit()), field="user")


def test_a_users_database_that_is_no_file_is_refused(store, tiny, tmp_path):
    path = tmp_path / "fifo.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in [("etc", tarfile.DIRTYPE), ("etc/passwd", tarfile.FIFOTYPE)]:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, 0o755
            tar.addfile(info)
    image = store.import_rootfs(path, config={"Cmd": ["/x"], "User": "web"})
    error = kit.refused(zind.SpecError, lambda: zind.run(image=image), field="user")
    assert "regular file" in str(error)


def test_volumes_of_the_image_can_be_written_to(store, tiny):
    image = zind.build(tiny).run(["sh", "-c", "mkdir /data; echo 1 > /data/kept"]).volume("/data").volume("/new").commit()
    assert out(["sh", "-c", "cat /data/kept; touch /data/x /new/x; ls /data /new"], image=image).split() == [
        "1", "/data:", "kept", "x", "/new:", "x",
    ]  # fmt: skip
    image = zind.build(image).run(["sh", "-c", "mkdir -p /new"]).commit()
    found = out(["sh", "-c", "touch /x 2>/dev/null || echo no; touch /data/x; ls /data"], image=image, read_only=True)
    assert found.split() == ["no", "kept", "x"]


def test_a_read_only_root_has_what_the_image_names(store, tiny):
    def image(**config) -> zind.Image:
        builder = zind.build(tiny).workdir(config.get("workdir", "/"))
        for path in config.get("volumes", ()):
            builder.volume(path)
        return builder.commit()

    made = image(workdir="/not/there", volumes=["/data/new", "/home", "/proc/x", "/sys/fs/y", "/dev/shm/z", "/dev"])
    script = "pwd; echo 1 > /data/new/x; echo 2 > /home/x; cat /data/new/x /home/x; touch /x ./x 2>/dev/null || echo no"
    for _ in range(2):
        result = zind.run(["sh", "-c", script], image=made, read_only=True, check=True, capture_output=True, text=True)
        assert result.stdout == "/not/there\n1\n2\nno\n" and result.isolation.read_only
    assert out(["pwd"], image=made) == "/not/there\n"
    for bad, what in (image(volumes=["/etc/group/x"]), "Volumes"), (image(workdir="/etc/group"), "WorkingDir"):
        with pytest.raises(zind.ImageError, match=f"{what}.*/etc/group"):
            out(["true"], image=bad, read_only=True)


def test_a_read_only_root_gets_places_to_mount_at(tiny, tmp_path):
    mounts = [zind.Mount.tmpfs("/not/there"), zind.Mount.file("/not/here/x", b"given\n")]
    layers = zind.Layers.create(tmp_path / "layers", tiny)
    script = "echo 1 > /not/there/x; cat /not/there/x /not/here/x; touch /x /not/y 2>/dev/null || echo no"
    for options in {"image": tiny}, {"rootfs": layers}, {"rootfs": layers}:
        result = zind.run(["sh", "-c", script], **options, mounts=mounts, read_only=True, capture_output=True, text=True)
        assert result.stdout == "1\ngiven\nno\n" and result.isolation.read_only, result
    named = zind.build(tiny).workdir("/work/here").volume("/data/new").commit()
    other = zind.Layers.create(tmp_path / "other", named)
    for _ in range(2):
        assert out(["sh", "-c", "pwd; touch /data/new/x; ls /data/new; touch x || echo no"], rootfs=other, read_only=True).split() == [
            "/work/here",
            "x",
            "no",
        ]
    layers.delete()
    other.delete()


def test_what_is_in_a_volume_stays_with_the_layers_and_out_of_the_commit(store, tiny, tmp_path):
    base = zind.build(tiny).run(["sh", "-c", "mkdir /data; echo base > /data/base"]).volume("/data").volume("/home/new").commit()
    layers = zind.Layers.create(tmp_path / "layers", base)
    out(["sh", "-c", "cat /data/base; echo 1 > /data/one; rm /data/base; echo 2 > /home/new/two; echo 3 > /three"], rootfs=layers)
    assert out(["cat", "/data/one", "/home/new/two"], rootfs=layers) == "1\n2\n"
    committed = layers.commit()
    committed.save(tmp_path / "layout", "oci-dir")
    names = set(entries(tmp_path / "layout", -1))
    assert {"three", "home/new"} <= names and not any(name.startswith(("data", "home/new/")) for name in names), names
    assert out(["sh", "-c", "cat /data/base; ls /home/new"], image=committed) == "base\n"
    layers.delete()


def test_stop_sends_the_images_signal(tiny):
    script = "trap 'echo asked; exit 7' INT; trap 'exit 8' TERM; echo ready; while :; do sleep 0.02; done"
    with zind.Popen(["sh", "-c", script], image=tiny, stdout=zind.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        assert process.stop() == 7
        assert process.stdout.read() == "asked\n"
    with zind.Popen(["sh", "-c", "trap '' INT; echo ready; sleep 60"], image=tiny, stdout=zind.PIPE) as process:
        process.stdout.readline()
        assert process.stop(timeout=0.2) == -9


def test_names_and_policies(store, tiny):
    assert out(image="local/tiny:1", store=store) == "from the image\n"
    assert out(image=tiny.id, store=store.path, pull="never") == "from the image\n"
    kit.refused(zind.NotFoundError, lambda: zind.run(image="local/none", store=store, pull="never"))
    kit.refused(zind.SpecError, lambda: zind.run(image="local/tiny:1", store=store, pull="sometimes"))
    refused = kit.refused(
        zind.RegistryError, lambda: zind.run(image="127.0.0.1:1/none", store=store, pull="always")
    )
    assert refused.registry == "127.0.0.1:1" and pickle.loads(pickle.dumps(refused)).code == refused.code
    for wrong in [{"pull": "never"}, {"store": store}, {"platform": "linux/amd64"}]:
        with pytest.raises(TypeError, match="go with image"):
            zind.run(["true"], **wrong)
    with pytest.raises(TypeError, match="image must be"):
        zind.run(["true"], image=5)
    kit.refused(zind.SpecError, lambda: zind.run(["true"], image=tiny, rootfs="/"), field="image")
    kit.refused(zind.SpecError, lambda: zind.run(["true"], entrypoint=["x"]), field="entrypoint")


def test_nothing_that_a_container_does_changes_the_image(store, tiny):
    zind.run(["sh", "-c", "rm -rf /bin/[a-z]* /etc /home; echo x > /new"], image=tiny)
    assert out(["sh", "-c", "cat /etc/group; ls /"], image=tiny).startswith("root:x:0:")
    kit.refused(zind.SpecError, lambda: zind.run(["true"], image=tiny, overlay=False), field="overlay")


def test_an_image_in_use_is_not_collected(store, tiny):
    with zind.Popen(["sh", "-c", "read x; cat /etc/group"], image=tiny, stdin=zind.PIPE, stdout=zind.PIPE) as process:
        store.remove(tiny)
        store.gc()
        assert b"staff" in process.communicate(b"\n")[0]
    store.gc()
    assert store.images() == [] and not any(pathlib.Path(store.path, "images/blobs/sha256").iterdir())


# --- layers, commit, export -------------------------------------------------------------------------------------------
def test_layers_over_an_image_run_as_it_says_and_are_committed(store, tiny, tmp_path):
    layers = zind.Layers.create(tmp_path / "layers", tiny)
    assert layers.image == tiny
    assert out(rootfs=layers) == "from the image\n"
    change = """
        echo 1 > /srv/app/one; mkdir -p /opt/a/b; ln /srv/app/one /srv/app/two; ln -s one /srv/app/link
        rm /marker; rm -r /home; mkdir /home; echo x > /home/new; mkfifo /opt/fifo; chmod 4711 /opt/a
        touch -d @1500000000 /srv/app/one
    """
    zind.run(["sh", "-c", change], rootfs=layers, check=True)
    layers.snapshot("first")
    zind.run(["sh", "-c", "rm /srv/app/link; echo 2 > /second"], rootfs=layers, check=True)
    image = layers.commit("local/two:1", message="a test", author="me", config={**CONFIG, "Cmd": ["ls", "/home"]})
    assert image.tags == ["local/two:1"] and len(image.layers) == 2 and image.layers[0] == tiny.layers[0]
    assert image.history[-1].comment == "a test" and image.history[-1].author == "me" and image.created
    assert out(image=image) == "new\n"
    look = "ls /marker /srv/app/link; cat /second /srv/app/two; ls -i /srv/app | sort -n; stat -c %Y /srv/app/one; stat -c %a /opt/a"
    found = zind.run(["sh", "-c", look], image=image, capture_output=True, text=True).stdout.split()
    assert found[:2] == ["2", "1"] and found[2] == found[4] and found[6:] == ["1500000000", "4711"]
    again = layers.commit(created=image.created, message="a test", author="me", config={**CONFIG, "Cmd": ["ls", "/home"]})
    assert again.layers == image.layers, "the same files are the same layer"
    nothing = zind.Layers.create(tmp_path / "nothing", tiny).commit()
    assert nothing.layers == tiny.layers and nothing.history[-1].empty_layer
    kit.refused(zind.SpecError, lambda: layers.commit(store=zind.Store(tmp_path / "other")), field="store")


def test_an_image_below_layers_stays_when_its_name_goes(store, tiny, tmp_path):
    layers = zind.Layers.create(tmp_path / "layers", tiny)
    clone = layers.clone(tmp_path / "clone")
    store.remove(tiny)
    store.gc()
    assert out(rootfs=layers) == out(rootfs=clone) == "from the image\n"
    assert layers.commit("local/back:1").tags == ["local/back:1"]
    store.remove("local/back:1")
    clone.delete()
    layers.delete()
    store.gc()
    assert not any(pathlib.Path(store.path, "images/blobs/sha256").iterdir())


def test_a_process_with_its_changes_on_disk_is_committed(store, tiny, tiny_template, tmp_path):
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    with zind.Popen(
        ["sh", "-c", "echo 1 > /new; rm /marker; echo ready; read x"],
        image=tiny, overlay=overlay, stdin=zind.PIPE, stdout=zind.PIPE,
    ) as process:  # fmt: skip
        process.stdout.readline()
        running = process.commit("local/running")
        process.communicate(b"\n")
    ended = process.commit("local/ended")
    for image in (running, ended):
        assert out(["sh", "-c", "cat /new; ls /marker || echo gone"], image=image) == "1\ngone\n"
    with zind.Popen(["true"], image=tiny) as process:
        pass
    kit.refused(zind.StateError, process.commit)
    with zind.Popen(["true"], overlay=overlay, rootfs=tiny_template) as process:
        pass
    kit.refused(zind.StateError, process.commit)


def test_what_no_layer_can_hold_is_named(store, tiny, tmp_path):
    layers = zind.Layers.create(tmp_path / "layers", tiny)
    zind.run(["touch", "/tmp/.wh.x"], rootfs=layers, check=True)
    error = kit.refused(zind.ImageError, layers.commit)
    assert error.what == "/tmp/.wh.x"
    assert len(store.images()) == 1


def test_roots_are_exported_flat(store, tiny, tmp_path):
    stats = tiny.export(tmp_path / "flat.tar")
    with tarfile.open(tmp_path / "flat.tar") as tar:
        members = {member.name: member for member in tar}
    assert len(members) == stats.entries and stats.whiteouts == 0
    text = members["home/web.txt"]
    assert (text.uid, text.gid, text.mode, text.mtime) == (33, 34, 0o640, 1_600_000_000)
    layers = zind.Layers.create(tmp_path / "layers", tiny)
    zind.run(["sh", "-c", "rm -r /home; echo 1 > /new"], rootfs=layers, check=True)
    layers.export(tmp_path / "changed.tar.gz", compression="gzip")
    with tarfile.open(tmp_path / "changed.tar.gz", "r:gz") as tar:
        names = tar.getnames()
    assert "new" in names and "home" not in names and "bin/busybox" in names and not any(".wh." in name for name in names)
    error = kit.refused(zind.SysError, lambda: tiny.export(tmp_path / "flat.tar"))
    assert isinstance(error, FileExistsError)
    # What was exported is the same root again.
    back = store.import_rootfs(tmp_path / "changed.tar.gz", config={"Cmd": ["cat", "/new"]})
    assert out(image=back) == "1\n"


def test_the_root_of_an_image_is_read_and_not_written(store, tiny, tmp_path):
    with tiny.mount() as root:
        store.remove(tiny)
        store.gc()
        assert b"staff" in root.read_file("/etc/group")
        root.copy_out("/etc", tmp_path / "etc")
        kit.refused(zind.SysError, lambda: root.write_file("/x", b""), number=30)
    assert "staff" in (tmp_path / "etc/group").read_text()


# --- builds ----------------------------------------------------------------------------------------------------------
def test_only_the_step_that_changed_runs_again(store, tiny, tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app/file").write_text("1")

    def steps(last: str) -> zind.Builder:
        builder = zind.build(tiny).env(A="1").workdir("/work").copy(tmp_path / "app", "app")
        for number in range(5):
            builder.run(["sh", "-c", f"echo {number} >> log; cat app/file >> log"])
        return builder.label(x="y").run(["sh", "-c", last])

    first = steps("echo end > end")
    image = first.commit("local/built:1")
    assert [step.cached for step in first.steps if step.diff_id] == [False] * 7
    assert out(["cat", "log", "end"], image=image) == "0\n11\n12\n13\n14\n1end\n"
    same = steps("echo end > end")
    assert same.commit("local/built:2").id == image.id and all(step.cached for step in same.steps)
    other = steps("echo other > end")
    changed = other.commit()
    assert [step.cached for step in other.steps if step.diff_id] == [True] * 6 + [False]
    assert changed.layers[:-1] == image.layers[:-1] and out(["cat", "end"], image=changed) == "other\n"
    assert changed.config["config"]["Labels"] == {"a": "b", "x": "y"}
    os.utime(tmp_path / "app/file", (5, 5))
    touched = steps("echo end > end")
    touched.commit()
    assert all(step.cached for step in touched.steps), "only content decides"
    (tmp_path / "app/file").write_text("2")
    new = steps("echo end > end")
    assert out(["cat", "app/file"], image=new.commit()) == "2"
    assert not any(step.cached for step in new.steps if step.diff_id)
    uncached = zind.build(tiny, cache=False).run(["touch", "/x"])
    for _ in range(2):
        uncached.commit()
        assert not uncached.steps[0].cached
    assert not [name for name in os.listdir(os.path.join(store.path, "build")) if name.startswith("work-")]


def test_a_step_that_fails_is_told_and_leaves_nothing(store, tiny):
    builder = zind.build(tiny).run(["touch", "/one"]).run(["sh", "-c", "exit 3"])
    with pytest.raises(zind.CalledProcessError) as info:
        builder.commit("local/never")
    error = info.value
    assert isinstance(error, zind.StepFailed) and error.returncode == 3 and error.cmd == ["sh", "-c", "exit 3"]
    assert "step 2" in str(error) and pickle.loads(pickle.dumps(error)).exit == error.exit
    assert [image.tags for image in store.images()] == [["local/tiny:1"]]
    kit.refused(zind.SysError, lambda: zind.build(tiny).run(["nope"]).commit(), step="Exec")
    kit.refused(zind.SysError, lambda: zind.build(tiny).copy("/nowhere", "/").commit(), step="Build")


def test_builds_from_nothing(store, tmp_path):
    image = (
        zind.build(store=store)
        .copy("/usr/bin/busybox", "/bin/busybox")
        .run(["/bin/busybox", "sh", "-c", "/bin/busybox ln -s busybox /bin/cat; echo hello > /greeting"])
        .cmd(["cat", "/greeting"])
        .expose(80)
        .stop_signal("TERM")
        .commit("local/scratch")
    )
    assert out(image=image) == "hello\n" and len(image.layers) == 2
    assert image.config["config"]["ExposedPorts"] == {"80/tcp": {}}
    assert [entry.empty_layer for entry in image.history] == [False, False, True, True, True]


def test_builds_of_settings_alone_are_the_same_image(store, tiny, tmp_path):
    (tmp_path / "bare").mkdir()
    bare = store.import_rootfs(tmp_path / "bare")
    for base in (None, bare, tiny):
        made = []
        for _ in range(2):
            made.append(zind.build(base, store=store).env(A="1").cmd(["x"]).commit())
            time.sleep(1.1)
        assert made[0].id == made[1].id


def test_steps_have_what_docker_gives(store, tiny):
    def caps(builder: zind.Builder) -> int:
        with builder.cmd(["x"]).commit().mount() as root:
            (line,) = [line for line in root.read_file("/status").decode().splitlines() if line.startswith("CapEff")]
        return int(line.split()[1], 16)

    look = ["sh", "-c", "cat /proc/self/status > /status"]
    assert caps(zind.build(tiny).run(look)) == 0xA80425FB
    assert caps(zind.build(tiny).run(look, capabilities=[])) == 0
    assert caps(zind.build(tiny).run(["sh", "-c", "chmod 777 /"]).user("web").run(look)) == 0
    if os.geteuid() == 0:
        changed = zind.build(tiny).run(["sh", "-c", "touch /x; chown 33:34 /x"]).commit()
        assert out(["stat", "-c", "%u:%g", "/x"], image=changed) == "33:34\n"
        mapped = zind.build(tiny, uid_map="auto").run(["sh", "-c", "touch /x; chown 33:34 /x; cat /proc/self/status > /status"])
        assert caps(mapped) == 0xA80425FB


def test_what_no_key_has_is_not_cached(store, tiny, tmp_path):
    (tmp_path / "file").write_text("1")
    os.setxattr(tmp_path / "file", "user.mark", b"1")

    def built(*steps: tuple[str, dict]) -> list[bool]:
        builder = zind.build(tiny).copy(tmp_path / "file", "/file")
        for argv, options in steps:
            builder.run(["sh", "-c", argv], **options)
        builder.commit()
        return [step.cached for step in builder.steps]

    mounted = {"mounts": [zind.Mount.bind(tmp_path, "/host", read_only=True)]}
    steps = (("mkdir -p /y; cat /host/file > /y/read", mounted), ("cat /y/read > /z", {}))
    assert built(*steps) == [False, False, False]
    first, again, last = built(*steps)
    assert (first, again) == (True, False) and isinstance(last, bool)
    os.setxattr(tmp_path / "file", "user.mark", b"2")
    assert built() == [False] and built() == [True]


def test_a_source_that_changes_meanwhile_is_not_kept(store, tiny, tmp_path):
    (tmp_path / "file").write_text("0" * 5_000_000)
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            with open(tmp_path / "file", "r+") as file:
                file.write(f"{number:020}")

    changing = threading.Thread(target=change)
    changing.start()
    try:
        zind.build(tiny).copy(tmp_path / "file", "/file").commit()
    finally:
        stop.set()
        changing.join()
    records = os.listdir(os.path.join(store.path, "build"))
    assert records == []


def test_strings_are_no_lists(store, tiny):
    builder = zind.build(tiny)
    for field, call in {
        "cmd": lambda: builder.cmd("sh"),
        "entrypoint": lambda: builder.entrypoint("sh"),
        "extra_tags": lambda: store.push(tiny, "localhost:1/x", extra_tags="latest"),
        "mirrors": lambda: store.pull("localhost:1/x", mirrors={"docker.io": "mirror:5000"}),
    }.items():
        with pytest.raises(zind.SpecError, match=f"{field} is a string; give a list") as info:
            call()
        assert info.value.field == field
    for auth in ("secret", ("secret",), ("secret", 1), {"secret": "x"}, {}, 5, object()):
        with pytest.raises(zind.SpecError, match="auth is none of") as info:
            store.pull("localhost:1/x", auth=auth)
        assert info.value.field == "auth" and "secret" not in str(info.value)
    for mirrors in ("secret", {"docker.io": 5}, {"docker.io": [("a", "b")]}):
        with pytest.raises(zind.SpecError) as info:
            store.pull("localhost:1/x", mirrors=mirrors)
        assert info.value.field == "mirrors"

    async def push() -> None:
        await zind.aio.Store(store.path).push(tiny, "localhost:1/x", extra_tags="latest")

    with pytest.raises(zind.SpecError, match="extra_tags is a string"):
        asyncio.run(push())


def test_configurations_have_known_fields(store, tmp_path):
    for config, told in ({"cmd": ["sh"]}, '"Cmd"'), ({"Cmd": "sh"}, "Cmd takes a list"), ({"X": 1}, '"X"'):
        with pytest.raises(zind.SpecError, match=told) as info:
            store.import_rootfs(tmp_path / "none", config=config)
        assert info.value.field == "config"


def test_starts_open_a_store_once(store, tiny, monkeypatch):
    opened = []
    monkeypatch.setattr(zind._images, "Store", type("Counted", (zind.Store,), {"__init__": lambda self, path=None: (opened.append(path), zind.Store.__init__(self, path))[1]}))
    for _ in range(3):
        assert out(image="local/tiny:1", store=store.path) == "from the image\n"
    assert len(opened) == 1
    # Another directory of the same name is another store.
    os.rename(store.path, store.path + ".away")
    kit.refused(zind.NotFoundError, lambda: zind.run(["true"], image="local/tiny:1", store=store.path, pull="never"))
    shutil.rmtree(store.path)
    os.rename(store.path + ".away", store.path)


def test_copies_belong_to_whom_they_are_given(store, tiny, tmp_path):
    kit.needs_root("other ids")
    (tmp_path / "file").write_text("x")
    image = zind.build(tiny).copy(tmp_path / "file", "/a").copy(tmp_path / "file", "/new/b", owner="web:staff").commit()
    assert out(["stat", "-c", "%u:%g", "/a", "/new/b", "/new"], image=image).split() == ["0:0", "33:50", "33:50"]
    kit.refused(zind.SpecError, lambda: zind.build(tiny).copy(tmp_path / "file", "/x", owner="nobody").commit())


# --- stopping, threads, asyncio --------------------------------------------------------------------------------------
def test_progress_is_heard_and_its_exception_stops_the_work(store, tiny, tmp_path):
    heard = []
    tiny.save(tmp_path / "saved.tar", progress=heard.append)
    assert {event.kind for event in heard} <= {"save", "check"} and heard[-1].done > 0
    assert all(isinstance(event, zind.Progress) for event in heard)

    class Enough(Exception):
        pass

    def stop(event):
        raise Enough

    with pytest.raises(Enough):
        tiny.save(tmp_path / "stopped.tar", progress=stop)
    assert not (tmp_path / "stopped.tar").exists()
    layers = zind.Layers.create(tmp_path / "layers", tiny)
    zind.run(["sh", "-c", "echo 1 > /x"], rootfs=layers, check=True)
    with pytest.raises(Enough):
        layers.commit("local/never", progress=stop)
    assert len(store.images()) == 1
    with pytest.raises(Enough):
        tiny.export(tmp_path / "stopped.tar", progress=stop)
    assert not (tmp_path / "stopped.tar").exists()


def test_asyncio(store, tiny, tmp_path):
    async def main():
        place = zind.aio.Store(store.path)
        assert await place.images() == [tiny] and await place.image("local/tiny:1") == tiny
        heard = []
        await place.save(tiny, tmp_path / "a.tar", progress=heard.append)
        other = zind.aio.Store(tmp_path / "other")
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.001)

        ticking = asyncio.ensure_future(tick())
        (loaded,) = await other.load(tmp_path / "a.tar")
        ticking.cancel()
        assert loaded.id == tiny.id and ticks > 1 and heard
        result = await zind.aio.run(image="local/tiny:1", store=other.path, capture_output=True)
        assert result.stdout == b"from the image\n"
        async with await zind.aio.Popen.start(["sleep", "60"], image=loaded) as process:
            assert process.image == loaded
            assert await process.stop(timeout=0.1) in (-2, -9, 130)
        assert await other.verify() == []
        await other.tag(loaded, "local/x")
        await other.remove("local/x")
        assert (await other.usage()).images[0].id == tiny.id
        await other.remove(loaded)
        assert (await other.gc()).blobs >= 3
        builder = (await zind.aio.build("local/tiny:1", store=place)).run(["sh", "-c", "echo built > /b"]).cmd(["cat", "/b"])
        built = await builder.commit("local/aio", progress=heard.append)
        assert (await zind.aio.run(image=built, capture_output=True)).stdout == b"built\n"
        assert [step.cached for step in builder.steps] == [False, True]
        assert (await (await zind.aio.build(tiny)).run(["sh", "-c", "echo built > /b"]).cmd(["cat", "/b"]).commit()) == built
        endless = asyncio.ensure_future((await zind.aio.build(tiny)).run(["sleep", "60"]).commit("local/never"))
        await asyncio.sleep(0.1)
        endless.cancel()
        with pytest.raises(asyncio.CancelledError):
            await endless
        await place.remove(built)
        saving = asyncio.ensure_future(place.save(tiny, tmp_path / "b.tar"))
        await asyncio.sleep(0)
        saving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving
        await asyncio.get_running_loop().shutdown_default_executor()

    asyncio.run(main())


def test_threads_build_and_run_at_once(store, tiny):
    failed = []

    def work(number: int) -> None:
        try:
            for turn in range(3):
                image = zind.build(tiny).run(["sh", "-c", f"echo {number} {turn} > /x"]).commit(f"local/t{number}")
                assert out(["cat", "/x"], image=image) == f"{number} {turn}\n"
                store.gc()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed
    assert sorted(tag for image in store.images() for tag in image.tags) == [*(f"local/t{number}" for number in range(4)), "local/tiny:1"]
    assert store.verify() == []


# --- ids -------------------------------------------------------------------------------------------------------------
LOOK = "stat -c '%n %u:%g %a' /home/web.txt /etc/group /new"


@pytest.mark.parametrize("maps", [None, "auto", [(0, 200_000, 40_000)]], ids=["root", "auto", "explicit"])
def test_ids_are_the_same_after_a_commit(store, tiny, tmp_path, maps):
    kit.needs_root("other ids")
    given = maps if isinstance(maps, str) or maps is None else [zind.IdMap(*line) for line in maps]
    options = {} if maps is None else {"uid_map": given} if isinstance(maps, str) else {"uid_map": given, "gid_map": given}
    layers = zind.Layers.create(tmp_path / "layers", tiny, **options)
    change = "echo 1 > /new; chown 35000:7 /new; chmod 2751 /new; echo more >> /home/web.txt"
    zind.run(["sh", "-c", change], rootfs=layers, capabilities="docker", check=True, **options)
    image = layers.commit()
    assert out(["sh", "-c", LOOK], image=image).split("\n")[:3] == [
        "/home/web.txt 33:34 640", "/etc/group 0:0 644", "/new 35000:7 2751",
    ]  # fmt: skip
    image.save(tmp_path / "layout", "oci-dir")
    found = entries(tmp_path / "layout", 1)
    assert {name: (info.uid, info.gid, info.mode) for name, info in found.items() if info.isfile()} == {
        "home/web.txt": (33, 34, 0o640),
        "new": (35000, 7, 0o2751),
    }
    assert out(["sh", "-c", LOOK], image=image, **options).split() == out(["sh", "-c", LOOK], image=image).split()


# --- many layers -----------------------------------------------------------------------------------------------------
def test_many_layers_are_one_directory_to_mount(store, tiny):
    builder = zind.build(tiny)
    for number in range(12):
        builder.run(["sh", "-c", f"echo {number} > /n{number}"])
    image = builder.commit()
    assert len(image.layers) == 13
    assert out(["sh", "-c", "cat /n0 /n11"], image=image) == "0\n11\n"
    mounted = out(["sh", "-c", "cat /proc/mounts"], image=image).splitlines()[0]
    assert mounted.startswith("overlay / overlay")


def test_limits_are_given_by_name_and_kept(tmp_path, store, tiny, tiny_template):
    assert store.limits["entries"] == 1_000_000 and store.limits["zstd_window_log"] == 26
    small = zind.Store(tmp_path / "small", limits={"entries": 3, "document": 1 << 20})
    assert (small.limits["entries"], small.limits["document"], small.limits["depth"]) == (3, 1 << 20, 4096)
    assert pickle.loads(pickle.dumps(small)).limits == small.limits
    with pytest.raises(zind.ImageError, match="entries"):
        small.import_rootfs(tar_of(tiny_template, tmp_path / "a.tar"))
    for bad in [{"size": 1}, {"zstd_window_log": 40}]:
        with pytest.raises(zind.SpecError) as caught:
            zind.Store(tmp_path / "small", limits=bad)
        assert caught.value.field == "limits"
    assert zind.aio.Store(tmp_path / "other", limits={"ratio": 7}).limits["ratio"] == 7


def test_a_wait_for_the_store_is_interrupted(store, tiny):
    """Ctrl-C while another process holds the locks: in calls that take no progress as well."""
    script = (
        "import sys, zind; store = zind.Store(sys.argv[1]); image = store.image('local/tiny:1'); print('ready', flush=True); input()\n"
        "try: print('going', flush=True); getattr(store, sys.argv[2])(*[image, 'b:1'][:int(sys.argv[3])] or [])\n"
        "except KeyboardInterrupt: print('interrupted', flush=True)"
    )
    for lock, call, arguments in [("lock", "gc", 0), ("index.lock", "tag", 2)]:
        with open(os.path.join(store.path, lock)) as held:
            process = subprocess.Popen([sys.executable, "-c", script, store.path, call, str(arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert process.stdout.readline() == "ready\n"
            fcntl.flock(held, fcntl.LOCK_EX)
            process.stdin.write("go\n")
            process.stdin.flush()
            assert process.stdout.readline() == "going\n"
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=60)
            assert out == "interrupted\n", (call, out)
    assert store.verify() == []


def test_gc_tells_what_it_gives_back(store, tiny):
    store.remove(tiny)
    heard = []
    collected = store.gc(progress=heard.append)
    assert collected.blobs == 3
    assert {event.kind for event in heard} == {"collect"} and heard[-1].done <= collected.bytes
    assert [event.done for event in heard] == sorted(event.done for event in heard)
    store_busy = asyncio.run(zind.aio.Store(store.path).gc())
    assert store_busy.blobs == 0
