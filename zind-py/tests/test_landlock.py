"""Landlock inside of containers: files, ports, sockets and signals, on the kernel that is here."""

from __future__ import annotations

import errno
import os
import pathlib
import pickle
import socket

import pytest

import kit
import zind
from zind import Landlock, oci

#: What programs take on the way.
USUAL = {"rox": ["/usr", "/bin", "/lib", "/lib64"], "rw": "/dev", "ro": ["/etc", "/proc"]}
ABI = kit.landlock_abi()
#: Kernels of the machines these tests are run on have it; one without is told, and not passed over elsewhere.
pytestmark = pytest.mark.skipif(ABI == 0, reason="needs a kernel with Landlock")


def needs(least: int) -> None:
    if ABI < least:
        pytest.skip(f"needs Landlock ABI {least}")


def usual(**more) -> Landlock:
    rules = {name: [paths] if isinstance(paths, str) else list(paths) for name, paths in USUAL.items()}
    for name, paths in more.items():
        if name in rules:
            rules[name] += [paths] if isinstance(paths, str) else paths
    return Landlock(**{**more, **rules})


#: Does things by name, and tells the errno of each, or 0.
TRIES = """
import errno, os, socket, ctypes
libc = ctypes.CDLL(None, use_errno=True)
def done(work):
    try: work()
    except OSError as error: return errno.errorcode[error.errno]
    return 0
def read(path): open(path).close()
def write(path): os.close(os.open(path, os.O_WRONLY))
def make(path): os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
def cut(path):
    if libc.truncate(path.encode(), 1): raise OSError(ctypes.get_errno(), "truncate")
def run(path):
    pid = os.fork()
    if not pid:
        try: os.execv(path, [path])
        except OSError as error: os._exit(error.errno)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code: raise OSError(code, "execve")
def tcp(): return socket.socket(socket.AF_INET, socket.SOCK_STREAM)
def bind(port):
    with tcp() as s: s.bind(("127.0.0.1", port))
def connect(port):
    with tcp() as s: s.connect(("127.0.0.1", port))
"""


def tries(script: str, **options):
    return kit.probe(TRIES + script, **options)


@pytest.fixture
def data(tmp_path):
    tmp_path.chmod(0o777)
    for name in ("in", "out"):
        (tmp_path / name).mkdir(mode=0o777)
        (tmp_path / name).chmod(0o777)
        for file in ("file", "other"):
            (tmp_path / name / file).write_text("text")
            (tmp_path / name / file).chmod(0o666)
        script = tmp_path / name / "script"
        script.write_text("#!/bin/true\n")
        script.chmod(0o755)
    return tmp_path


def bound(data: pathlib.Path, **options):
    return {"mounts": [zind.Mount.bind(data, "/data")], **options}


def test_reading_writing_making_removing(data):
    found = tries(
        """
answer([done(lambda: work(f"/data/{where}/{name}")) for where in ("in", "out") for work, name in
    ((read, "file"), (os.listdir, "."), (write, "file"), (make, "new"), (os.mkdir, "dir"), (os.unlink, "other"), (os.mkfifo, "fifo"))])""",
        landlock=usual(rw="/data/in", ro="/data/out"),
        **bound(data),
    )
    no = "EACCES"
    assert found == [0] * 7 + [0, 0, no, no, no, no, no]
    assert (data / "out" / "other").exists() and not (data / "in" / "other").exists()


def test_what_no_rule_lets_pass_is_not_read(data):
    script = """answer([done(lambda: read(path)) for path in ("/data/in/file", "/data/out/file", "/tmp/x", "/etc/passwd")])"""
    assert tries(script, landlock=usual(ro="/data/in"), **bound(data)) == [0, "EACCES", "ENOENT", 0]


def test_truncation(data):
    needs(3)
    script = """answer([done(lambda: cut("/data/in/file")), done(lambda: write("/data/in/file"))])"""
    rules = usual(allow={"read+write_file": "/data/in"})
    assert tries(script, landlock=rules, **bound(data)) == ["EACCES", 0]
    assert tries(script, landlock=usual(rw="/data/in"), **bound(data)) == [0, 0]
    assert (data / "in" / "file").read_text() == "t"


def test_moving_across_directories(data):
    needs(2)
    script = """
answer([done(lambda: os.rename("/data/in/file", f"/data/{to}")) for to in ("in/file2", "out/file", "in/sub/file")]
    + [done(lambda: os.link("/data/in/other", "/data/out/linked"))])"""
    rules = usual(allow={"read+write_file+make_reg+remove_file+make_dir": ["/data/in", "/data/out"]})
    (data / "in" / "sub").mkdir()
    # Within a directory it is no move; across, it takes refer.
    assert tries(script, landlock=rules, **bound(data)) == [0, "ENOENT", "ENOENT", "EXDEV"]
    again = """answer([done(lambda: os.rename("/data/in/file2", "/data/out/f")), done(lambda: os.rename("/data/out/f", "/data/in/file2"))])"""
    assert tries(again, landlock=rules, **bound(data))[0] == "EXDEV"
    assert tries(again, landlock=usual(rw="/data"), **bound(data)) == [0, 0]


def test_execution(data):
    script = """answer([done(lambda: run(f"/data/{name}/script")) for name in ("in", "out")])"""
    assert tries(script, landlock=usual(rox="/data/in", ro="/data/out"), **bound(data)) == [0, "EACCES"]


def test_the_program_itself_has_to_be_let_pass():
    with pytest.raises(zind.SysError) as info:
        zind.run(["true"], landlock=Landlock(ro="/usr"))
    assert info.value.errno == errno.EACCES and "rox=/usr" in info.value.hint
    assert zind.run(["true"], landlock=usual()).returncode == 0


def test_a_rule_for_one_file(data):
    script = """answer([done(lambda: work("/data/in/" + name)) for work, name in ((write, "file"), (cut, "file"), (write, "other"), (read, "other"))])"""
    assert tries(script, landlock=usual(rw="/data/in/file"), **bound(data)) == [0, 0, "EACCES", "EACCES"]
    with pytest.raises(zind.SysError) as info:
        zind.run(["true"], landlock=usual(allow={"make_dir": "/data/in/file"}), **bound(data))
    error = info.value
    assert (error.step, error.errno, error.filename) == ("LandlockRule", errno.EINVAL, "/data/in/file") and "make_dir" in error.hint


@pytest.mark.parametrize("how", [{}, {"init": False}, {"no_new_privileges": False}])
def test_a_missing_path_is_an_error_that_names_it(how):
    for path in ("/nowhere/at/all", "/etc/passwd/x"):
        with pytest.raises(zind.SysError) as info:
            zind.run(["true"], landlock=usual(ro=path), **how)
        assert (info.value.step, info.value.filename) == ("LandlockPath", path)
        assert info.value.errno in (errno.ENOENT, errno.ENOTDIR) and path in str(info.value)


def test_paths_are_those_of_the_containers_root(data):
    """A link leads nowhere but below the root; links of procfs are not followed."""
    (data / "in" / "link").symlink_to("/usr")
    (data / "in" / "up").symlink_to("../../../../../../data/out")
    script = """answer([done(lambda: os.listdir("/usr")), done(lambda: os.listdir("/data/out")), done(lambda: os.listdir("/data/in"))])"""
    rules = Landlock(rox=["/data/in/link", "/bin", "/lib", "/lib64"], ro=["/data/in/up", "/etc"], rw="/dev")
    assert tries(script, landlock=rules, **bound(data)) == [0, 0, "EACCES"]
    with pytest.raises(zind.SysError) as info:
        zind.run(["true"], landlock=usual(ro="/proc/self/root"))
    assert (info.value.step, info.value.errno) == ("LandlockPath", errno.ELOOP)


def test_ports(data):
    needs(4)
    script = """
with socket.create_server(("127.0.0.1", 7001)) as server:
    answer([done(lambda: bind(7002)), done(lambda: bind(7003)), done(lambda: connect(7001)), done(lambda: connect(7002))])"""
    assert tries(script, landlock=usual(bind=[7001, 7002], connect=7001)) == [0, "EACCES", 0, "EACCES"]
    assert tries(script, landlock=usual(bind="any", connect="any")) == [0, 0, 0, "ECONNREFUSED"]
    assert tries(script, landlock=usual(handle="fs")) == [0, 0, 0, "ECONNREFUSED"]
    nothing = """answer([done(lambda: bind(7002)), done(lambda: connect(7002))])"""
    assert tries(nothing, landlock=usual()) == ["EACCES", "EACCES"], "unless a rule lets it pass, nothing does"


def test_only_what_is_handled_is_refused(data):
    script = """answer([done(lambda: read("/data/out/file")), done(lambda: write("/data/out/file")), done(lambda: bind(7001))])"""
    assert tries(script, landlock=Landlock(rw="/dev", handle=["write"]), **bound(data)) == [0, "EACCES", 0]


#: Reaches for an abstract socket of the host's, and sends nothing to a process of it.
OUTSIDE = """
def reach(name):
    with socket.socket(socket.AF_UNIX) as s: s.connect("\\0" + name)
pid = int(sys.argv[2])
def own():
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("\\0own-" + sys.argv[1]); server.listen(); client.connect("\\0own-" + sys.argv[1])
answer([done(lambda: reach(sys.argv[1])), done(lambda: os.kill(pid, 0)), done(own), done(lambda: os.kill(os.getpid(), 0))])"""


def test_scopes_go_with_the_hosts_namespaces():
    needs(6)
    name = f"zind-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0" + name)
        server.listen()
        arguments = (name, str(os.getpid()))
        host = {"network": "host", "namespaces": {"pid": "host"}}

        def found(**options):
            return kit.probe(TRIES + OUTSIDE, *arguments, **{**host, **options})

        assert found() == ["EPERM", "EPERM", 0, 0]
        assert found(landlock=None) == [0, 0, 0, 0], "what the defence is for"
        assert found(landlock=usual(ro="/", scope="none")) == [0, 0, 0, 0]
        assert found(landlock=usual(ro="/")) == ["EPERM", "EPERM", 0, 0]
        assert found(landlock=usual(ro="/", scope=["signal"])) == [0, "EPERM", 0, 0]
        assert kit.probe(TRIES + OUTSIDE, *arguments, network="host")[0] == "EPERM"
    told = zind.run(["true"], network="host").isolation.landlock
    assert told == {"abi": ABI, "handled": [], "scopes": ["abstract"], "rules": 0, "missing": [], "default": True}
    for options in ({}, {"network": "host", "landlock": None}, {"network": "host", "privileged": True}):
        assert zind.run(["true"], **options).isolation.landlock is None
    assert zind.run(["true"], network="host", require={"landlock"}).returncode == 0


def test_further_programs_are_bound_too(data):
    script = TRIES + """
print([done(lambda: work("/data/in/file")) for work in (read, write)])"""
    for kind in (zind.Popen, None):
        rules = {"landlock": usual(ro="/data/in"), **bound(data)}
        if kind is None:
            with zind.Container(["cat"], stdin_open=True, **rules) as container:
                container.start()
                ran = container.exec(["/usr/bin/python3", "-c", script], capture_output=True, text=True)
        else:
            with kind(["cat"], stdin=zind.PIPE, **rules) as process:
                ran = process.exec(["/usr/bin/python3", "-c", script], capture_output=True, text=True)
        assert (ran.returncode, ran.stdout) == (0, "[0, 'EACCES']\n"), ran.stderr
        assert ran.isolation.landlock["rules"] == 8


def test_a_further_program_with_a_missing_path(data):
    with zind.Popen(["cat"], stdin=zind.PIPE, landlock=usual(ro="/data/in/file"), **bound(data)) as process:
        (data / "in" / "file").unlink()
        with pytest.raises(zind.SysError) as info:
            process.exec(["true"])
        assert (info.value.step, info.value.filename) == ("LandlockPath", "/data/in/file")
        with pytest.raises(zind.SpecError, match="landlock"):
            process.exec(["true"], landlock=None)


NESTED = """
import struct
libc.syscall.restype = ctypes.c_long
def restrict():
    attr = struct.pack("QQQ", 1 << 3, 0, 0)
    fd = libc.syscall(444, attr, ctypes.c_size_t(8), 0)
    if fd < 0: raise OSError(ctypes.get_errno(), "create")
    code = libc.syscall(446, fd, 0); failed = ctypes.get_errno(); os.close(fd)
    if code: raise OSError(failed, "restrict")
count = 0
while not (why := done(restrict)): count += 1
answer([count, why, done(lambda: os.listdir("/usr"))])"""


def test_domains_in_domains():
    """The kernel takes sixteen; those of the container's program come on top of ours."""
    assert tries(NESTED, landlock=None) == [16, "E2BIG", "EACCES"]
    assert tries(NESTED, landlock=usual()) == [15, "E2BIG", "EACCES"]


def test_without_no_new_privileges_it_takes_privilege():
    told = zind.run(["true"], landlock=usual(), no_new_privileges=False)
    assert told.isolation.landlock["handled"] and not told.isolation.no_new_privileges
    # The low level of an ordinary user has none.
    if not kit.ROOT:
        with pytest.raises(zind.SysError, match="no_new_privileges") as info:
            zind.spawn(["true"], landlock=Landlock(rox="/"))
        assert (info.value.step, info.value.errno) == ("Landlock", errno.EPERM)


def test_the_low_level_and_other_users():
    rules = Landlock(rox=["/usr", "/bin", "/lib", "/lib64"], rw="/dev")
    with zind.spawn(["cat", "/etc/passwd"], landlock=rules, no_new_privileges=True, stdout=zind.DEVNULL, stderr=zind.DEVNULL) as process:
        assert process.wait() == 1
    if kit.ROOT:
        # Who the program is need not reach the places of rules.
        hidden = Landlock(rox=["/usr", "/bin", "/lib", "/lib64"], rw="/root/x")
        made = [zind.Mount.file("/root/x", b"", mode=0o600)]
        assert zind.run(["true"], user="1000:1000", landlock=hidden, mounts=made).returncode == 0


def test_the_report():
    told = zind.run(["true"], landlock=usual(rw="/tmp", connect=443, bind=[1, 2]) if ABI >= 4 else usual(rw="/tmp"), require={"landlock"})
    found = told.isolation.landlock
    assert found["abi"] == ABI and found["rules"] == (11 if ABI >= 4 else 8) and not found["default"]
    assert {"execute", "read_file", "make_sym"} <= set(found["handled"]) and found["scopes"] == found["missing"] == []
    assert ("truncate" in found["handled"], "connect_tcp" in found["handled"], "ioctl_dev" in found["handled"]) == (ABI >= 3, ABI >= 4, ABI >= 5)
    assert "landlock" in told.isolation.in_force
    assert f"ABI {ABI}" in str(zind.doctor())


@pytest.mark.parametrize(
    ("text", "told"),
    [("reed=/x", "reed"), ("ro", "ro"), ("connect=99999", "99999"), ("scope=all", "all"), ("ro=", "no path"), ("handle=x", "x"), ("log=x", "x")],
)
def test_what_is_wrong_is_named(text, told):
    for make in (lambda: Landlock(text), lambda: zind.run(["true"], landlock=text)):
        with pytest.raises(zind.SpecError, match=told) as info:
            make()
        assert info.value.field == "landlock"


def test_rules_that_contradict_each_other():
    for rules in (Landlock(ro="usr"), Landlock(connect="any", bind=1, handle="fs"), Landlock(handle="read", allow={"make_dir": "/tmp"})):
        with pytest.raises(zind.SpecError) as info:
            zind.run(["true"], landlock=rules)
        assert info.value.field == "landlock"
    for value in (1, b"", [], ""):
        with pytest.raises((TypeError, zind.SpecError)):
            zind.run(["true"], landlock=value)


def test_rules_as_values():
    rules = Landlock("scope=abstract,signal", ro="/a,b", rwx=b"/\xff\\", allow={"LANDLOCK_ACCESS_FS_READ_FILE+ioctl_dev": "/dev/tty"}, connect=[443], best_effort=True)
    assert str(rules) == "ro=/a\\,b,rwx=/\udcff\\\\,read_file+ioctl_dev=/dev/tty,connect=443,scope=abstract+signal,best_effort"
    assert rules == Landlock(str(rules)) == pickle.loads(pickle.dumps(rules)) and hash(rules) == hash(Landlock(str(rules)))
    assert repr(Landlock(ro="/x")) == "zind.Landlock('ro=/x')" and Landlock() != rules and str(Landlock()) == ""


def test_it_is_in_the_document():
    """A document of zind's own means the same again; one of others has nothing of it."""
    document = oci.config(["true"], rootfs="/", landlock=usual())
    assert "rox=/usr" in document["annotations"]["org.zind.landlock"]
    plain = {"ociVersion": "1.2.0", "process": {"user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/"}, "root": {"path": "/"}, "linux": {"namespaces": [{"type": "mount"}]}}
    assert "landlock" not in str(oci.config(config=plain))
