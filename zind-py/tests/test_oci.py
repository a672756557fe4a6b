"""OCI documents: run as they say, refused by name where zind cannot, and written from options with nothing lost."""

import copy
import json
import os
import pathlib

import pytest

import kit
import zind
from kit import needs_root, refused

pytestmark = pytest.mark.limit(120)

DOCUMENTS = kit.TESTS.parent.parent / "zind-core/tests/oci"
ASK = """
. /proc/self/environ 2>/dev/null
echo "pid $$"
echo "name $(cat /proc/sys/kernel/hostname)"
echo "cwd $(pwd)"
echo "nofile $(ulimit -n)"
echo "umask $(umask)"
grep -E '^(Uid|Gid|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status
(echo x >/written) 2>/dev/null && echo "root rw" || echo "root ro"
"""


def document(name: str = "runc") -> dict:
    """A document of the tests, for whoever runs them: with a program that needs no terminal."""
    found = json.loads((DOCUMENTS / f"{name}.json").read_text())
    found["process"]["terminal"] = False
    if not kit.ROOT:
        # Device rules are root's; without a user namespace nothing is allowed.
        found["linux"].pop("resources", None)
    return found


@pytest.fixture
def bundle(tiny_root) -> pathlib.Path:
    """A directory with a root, and a place for the document."""
    os.rename(tiny_root, tiny_root.parent / "rootfs")
    return tiny_root.parent


def write(bundle: pathlib.Path, document: dict) -> pathlib.Path:
    (bundle / "config.json").write_text(json.dumps(document))
    return bundle


def answers(result) -> dict[str, str]:
    assert result.returncode == 0, (result, result.stderr)
    lines = [line.replace(":\t", " ").split(None, 1) for line in result.stdout.splitlines()]
    return {line[0]: line[1].strip() for line in lines}


def run(**options) -> zind.CompletedProcess:
    return zind.run(capture_output=True, text=True, timeout=60, stdin=zind.DEVNULL, **options)


def test_a_terminal_is_one_of_its_size(bundle):
    config = document()
    config["process"].update(terminal=True, consoleSize={"height": 12, "width": 34}, args=["sh", "-c", "tty; stty size"])
    result = zind.run(config=write(bundle, config), capture_output=True, text=True, timeout=60)
    assert result.stdout.split() == ["/dev/pts/0", "12", "34"], result
    assert result.returncode == 0


def test_ambient_capabilities_that_cannot_be_are_not(bundle):
    """`runc spec` 1.1 asks for ambient ones that are not inheritable."""
    config = document()
    config["process"]["capabilities"]["ambient"] = ["CAP_KILL"]
    config["process"]["args"] = ["sh", "-c", ASK]
    assert int(answers(run(config=write(bundle, config)))["CapAmb"], 16) == 0


@pytest.mark.parametrize("name", ["runc", "crun"])
def test_what_runtimes_write_is_run_as_it_says(bundle, name):
    config = document(name)
    config["process"]["args"] = ["sh", "-c", ASK]
    found = answers(run(config=write(bundle, config)))
    assert (found["pid"], found["name"], found["cwd"], found["nofile"]) == ("1", name, "/", "1024")
    assert found["root"] == "ro" and found["umask"] == "0022"
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "0")
    three = f"{1 << 5 | 1 << 10 | 1 << 29:016x}"
    assert (found["CapBnd"], found["CapPrm"], found["CapEff"], found["CapAmb"]) == (three, three, three, "0" * 16)


def test_the_environment_is_the_documents(bundle):
    config = document()
    config["process"].update(args=["env"], env=["PATH=/bin", "A=1", "B=x=y"], cwd="/tmp")
    assert sorted(run(config=write(bundle, config)).stdout.split()) == ["A=1", "B=x=y", "PATH=/bin"]


def test_it_is_a_path_a_dict_or_a_text(bundle, monkeypatch):
    config = document()
    config["process"]["args"] = ["echo", "here"]
    write(bundle, config)
    by_path = [bundle, str(bundle), bundle / "config.json"]
    # A dict and a text have no directory of their own.
    monkeypatch.chdir(bundle)
    for given in [*by_path, config, json.dumps(config), " " + json.dumps(config), json.dumps(config).encode(), ".", "config.json"]:
        assert run(config=given).stdout == "here\n", given
    monkeypatch.chdir("/")
    assert run(config=bundle).stdout == "here\n"
    refused(zind.SysError, lambda: run(config=config))


def test_popen_and_options_on_top(bundle):
    config = document()
    del config["process"]["args"]
    write(bundle, config)
    with zind.Popen(["sh", "-c", "echo $A $B; hostname; id -u; grep Seccomp: /proc/self/status"], config=bundle, stdout=zind.PIPE, text=True,
                    env={"A": "1", "B": "2"}, hostname="other", seccomp="default") as p:
        out = p.communicate()[0].split()
    assert out == ["1", "2", "other", "0", "Seccomp:", "2"]
    config["process"]["args"] = ["true"]
    write(bundle, config)
    refused(zind.SpecError, lambda: zind.run(["true"], config=bundle), field="argv")
    refused(zind.SpecError, lambda: zind.run(config={**config, "linux": {**config["linux"], "seccomp": {"defaultAction": "SCMP_ACT_DENY"}}}), field="linux.seccomp")


def test_the_user_of_the_document(bundle):
    needs_root("other ids")
    config = document()
    config["process"].update(args=["sh", "-c", ASK + "id -G"], user={"uid": 1000, "gid": 100, "umask": 0o77, "additionalGids": [5, 6]})
    result = run(config=write(bundle, config))
    found = answers(result)
    assert (found["Uid"].split()[0], found["Gid"].split()[0], found["umask"]) == ("1000", "100", "0077")
    assert result.stdout.splitlines()[-1] == "100 5 6"
    # Not ambient, and so gone with the program's execution.
    assert (found["CapPrm"], found["CapBnd"]) == ("0" * 16, f"{1 << 5 | 1 << 10 | 1 << 29:016x}")


def test_each_set_of_capabilities_is_the_documents(bundle):
    needs_root("other ids")
    config = document()
    kill, net = ["CAP_KILL"], ["CAP_KILL", "CAP_NET_RAW"]
    config["process"].update(args=["sh", "-c", ASK], user={"uid": 1000, "gid": 100},
                             capabilities={"bounding": [*net, "CAP_CHOWN"], "permitted": net, "effective": kill, "inheritable": net, "ambient": kill})
    found = answers(run(config=write(bundle, config)))
    assert [int(found[name], 16) for name in ("CapBnd", "CapPrm", "CapAmb")] == [1 << 0 | 1 << 5 | 1 << 13, 1 << 5, 1 << 5]


def test_mounts_devices_and_limits_of_the_document(bundle):
    needs_root("making a device node")
    config = document()
    (bundle / "data").mkdir()
    (bundle / "data/file").write_text("bound")
    config["mounts"] += [
        {"destination": "/data", "type": "bind", "source": "data", "options": ["rbind", "ro"]},
        {"destination": "/cache", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "mode=700"]},
    ]
    config["root"]["readonly"] = False
    config["linux"]["devices"] = [{"path": "/dev/zweiter", "type": "c", "major": 1, "minor": 5, "fileMode": 0o600, "uid": 0, "gid": 8}]
    config["linux"]["resources"] = {"pids": {"limit": 50}, "memory": {"limit": 64 << 20}}
    config["process"]["args"] = ["sh", "-c", """
        cat /data/file; echo; (: >/data/x) 2>/dev/null || echo ro
        stat -c '%a' /cache; stat -c '%a %u %g %t:%T' /dev/zweiter; head -c 2 /dev/zweiter | od -An -tx1
        ls -d /sys/fs/cgroup/*/ /sys/fs/cgroup/cgroup.procs 2>/dev/null | head -1 | wc -l
        (echo x >/sys/fs/cgroup/x) 2>/dev/null || echo ro"""]
    with zind.Popen(config=write(bundle, config), stdout=zind.PIPE, text=True) as p:
        assert set(p.isolation["limits"]) == {"memory", "pids"}
        out = p.communicate()[0].splitlines()
    assert [line.strip() for line in out] == ["bound", "ro", "700", "600 0 8 1:5", "00 00", "1", "ro"]


def test_cgroups_are_seen_as_on_the_host(bundle):
    config = document()
    config["process"]["args"] = ["cat", "/proc/self/mounts"]
    lines = [line.split() for line in run(config=write(bundle, config)).stdout.splitlines()]
    below = {line[1]: line for line in lines if line[1].startswith("/sys/fs/cgroup")}
    assert "ro" in below["/sys/fs/cgroup"][3].split(",")
    kinds = {line[2] for line in below.values()}
    here = {kind for kind in ("cgroup", "cgroup2") if any(f" - {kind} " in line for line in kit.mounts())}
    assert kinds == (here | {"tmpfs"} if "cgroup" in here else {"cgroup2"})


def test_cgroups_without_a_namespace_of_them(bundle):
    config = document()
    config["linux"]["namespaces"] = [one for one in config["linux"]["namespaces"] if one["type"] != "cgroup"] + [{"type": "user"}]
    if kit.ROOT:
        config["linux"].update({name: [{"containerID": 0, "hostID": 0, "size": 1000}] for name in ("uidMappings", "gidMappings")})
        del config["linux"]["resources"]
    config["process"]["args"] = ["sh", "-c", "find /sys/fs/cgroup -maxdepth 2 -name cgroup.procs | head -1; for d in /sys/fs/cgroup /sys/fs/cgroup/*/; do mkdir $d/x 2>&1; done; true"]
    config["process"]["capabilities"] = {}
    out = run(config=write(bundle, config)).stdout.splitlines()
    assert out[0].startswith("/sys/fs/cgroup")
    assert len(out) > 1 and all("Read-only" in line for line in out[1:]), out


def test_a_document_without_privilege(bundle):
    if kit.ROOT:
        pytest.skip(kit.NEEDS_USER + "a map of one's own id")
    config = document("runc-rootless")
    for name in ("uidMappings", "gidMappings"):
        config["linux"][name][0]["hostID"] = os.getuid() if name == "uidMappings" else os.getgid()
    config["process"]["args"] = ["sh", "-c", ASK]
    found = answers(run(config=write(bundle, config)))
    assert (found["pid"], found["Uid"].split()[0]) == ("1", "0")


def test_what_is_refused_names_the_place(bundle):
    for change, field, rule in [
        (lambda d: d["process"].update(args=["sh", 5]), "process.args", "[1]: 5 is no text"),
        (lambda d: d["process"].update(apparmorProfile=5), "process.apparmorProfile", "5 is no text"),
        (lambda d: d["linux"].update(mountLabel=5), "linux.mountLabel", "5 is no text"),
        (lambda d: d["linux"].update(mountLabel='u:r:t",size=1'), "mount_label", "a quote"),
        (lambda d: d["linux"].update(sysctl={"vm.swappiness": "1"}), "sysctl", "whole machine"),
        (lambda d: d["linux"].update(maskedPaths=["/opt"]), "linux.maskedPaths", "[0]"),
        (lambda d: d.update(hooks={"poststop": [{"path": "/bin/true"}]}), "hooks", "Container"),
        (lambda d: d.update(annotations={"org.zind.version": "1", "org.zind.magic": "1"}), "annotations", "org.zind.magic"),
        (lambda d: d.pop("root"), "root", "is missing"),
        (lambda d: d.update(ociVersion="2.0.0"), "ociVersion", "1.x"),
    ]:
        config = document()
        change(config)
        error = refused(zind.SpecError, lambda config=config: zind.run(config=config), field=field)
        assert rule in str(error), error
    for text in ["{", '{"a": 1, "a": 2}', "{" * 10_000, b"\xff{}"]:
        refused(zind.SpecError, lambda text=text: zind.run(config=text), field="config")
    refused(zind.SysError, lambda: zind.run(config=bundle / "nowhere"), step="Config")
    with pytest.raises(TypeError):
        zind.run(config=5)


def test_options_as_a_document_and_back(tiny_root):
    options = dict(
        rootfs=tiny_root, hostname="web", user="1000:1000" if kit.ROOT else None, env={"A": "1", "B": os.fsdecode(b"\xff")}, cwd="/tmp",
        mounts=[zind.Mount.tmpfs("/cache", size="1m"), zind.Mount.file("/etc/x", b"\x00\xff", mode=0o600)],
        rlimits={"nofile": 64}, umask=0o27, init=True, timeout=5,
    )
    made = zind.oci.config(["sh", "-c", ASK], **options)
    assert made["process"]["args"] == ["sh", "-c", ASK] and made["hostname"] == "web"
    assert made["root"] == {"path": str(tiny_root), "readonly": False}
    assert made["annotations"]["org.zind.version"] == "1" and made["process"]["env"][0].startswith("PATH=/")
    assert zind.oci.config(config=made) == made
    assert zind.oci.config(config=json.dumps(made, indent=None)) == made
    there = answers(run(config={k: v for k, v in made.items()}))
    here = answers(zind.run(["sh", "-c", ASK], capture_output=True, text=True, stdin=zind.DEVNULL, **{k: v for k, v in options.items() if k != "timeout"}))
    assert there.pop("pid") == here.pop("pid") and there == here
    assert there["nofile"] == "64" and there["umask"] == "0027" and there["Seccomp"] == "2"


def test_a_document_with_other_options_on_top():
    made = zind.oci.config(["sh"], hostname="a")
    changed = zind.oci.config(config=made, hostname="b", env={"X": "1"})
    expected = copy.deepcopy(made)
    expected["hostname"] = "b"
    expected["process"]["env"] = ["X=1"]
    assert changed == expected


def test_what_only_this_process_has_is_no_document():
    for options, field in [({"stdin": 0}, "stdin"), ({"pass_fds": [5]}, "pass_fds"), ({"cgroup_fd": 0}, "cgroup_fd")]:
        refused(zind.SpecError, lambda options=options: zind.oci.config(["true"], **options), field=field)


def test_a_document_for_asyncio(bundle):
    import asyncio

    config = document()
    config["process"]["args"] = ["echo", "here"]
    write(bundle, config)
    assert asyncio.run(zind.aio.run(config=bundle, capture_output=True)).stdout == b"here\n"
