"""The default root: this machine's programs, nothing of anybody's, and no way to change the machine."""

import os
import pathlib
import subprocess
import uuid

import pytest

import kit
import zind
from kit import ROOT, probe, sh

EXPECTED_TOP = {
    *("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "var"),
    *("dev", "home", "media", "mnt", "opt", "proc", "root", "run", "srv", "sys", "tmp"),
}


def test_the_top_directories_are_these_and_no_others():
    top = set(probe("answer(os.listdir('/'))"))
    assert top <= EXPECTED_TOP
    assert {"usr", "etc", "dev", "proc", "sys", "tmp", "home", "root", "run", "var"} <= top
    elsewhere = {name for name in os.listdir("/") if name not in EXPECTED_TOP}
    assert not top & elsewhere


@pytest.mark.parametrize("path", ["/home", "/root", "/tmp", "/var/tmp", "/mnt", "/media", "/opt", "/srv", "/run/lock"])
def test_it_is_empty(path):
    assert probe(f"answer(os.listdir({path!r}))") == []


def test_run_holds_no_sockets_of_services():
    assert probe("answer(os.listdir('/run'))") == ["lock"]
    find = "answer([os.path.join(d, f) for d, _, fs in os.walk('/') if not d.startswith('/proc') for f in fs if __import__('stat').S_ISSOCK(os.lstat(os.path.join(d, f)).st_mode)])"
    assert probe(find) == []


@pytest.mark.parametrize(
    "path",
    [
        *("/etc/shadow", "/etc/gshadow", "/etc/shadow-", "/etc/sudoers", "/etc/ssh", "/etc/ssl/private", "/etc/cron.d"),
        *("/etc/machine-id", "/etc/krb5.keytab", "/etc/docker", "/root/.ssh", "/root/.pyenv", "/var/run/docker.sock", "/var/log/dpkg.log"),
        *("/var/lib/dbus", "/var/spool/cron", "/var/mail", "/work", "/boot", "/proc/1/root/work"),
    ],
)
def test_it_is_not_there(path):
    assert probe("answer(os.path.lexists(sys.argv[1]))", path) is False


def test_nothing_in_etc_is_hidden_from_others_on_the_host():
    """What only root may read on the host is in no container, whoever starts it."""
    inside = probe("answer([os.path.join(d, f) for d, _, fs in os.walk('/etc') for f in fs if not os.path.islink(os.path.join(d, f))])")
    assert len(inside) > 50
    secret = [path for path in inside if os.path.isfile(path) and not os.stat(path).st_mode & 0o004]
    assert secret == []


def test_of_var_only_the_list_of_packages_is_there():
    files = probe("answer([os.path.join(d, f) for d, _, fs in os.walk('/var') for f in fs])")
    assert set(files) <= {"/var/lib/dpkg/status", "/var/lib/dpkg/arch"} | {f for f in files if os.path.islink(f)}


def test_passwd_and_group_are_the_containers_own():
    users = [line.split(":")[0] for line in sh("cat /etc/passwd").splitlines()]
    assert users == ["root", "_apt", "nobody"]
    assert [line.split(":")[0] for line in sh("cat /etc/group").splitlines()] == ["root", "tty", "nogroup"]
    assert sh("id -un") == "root"


def test_a_user_by_number_has_a_line_in_passwd():
    assert sh("id -u; id -un; cd ~; pwd", user="1234:1234").split() == ["1234", "user", "/home"]
    assert sh("grep :1234: /etc/group", user="1234:1234") == "user:x:1234:"


def test_hostname_and_hosts():
    assert sh("hostname; cat /etc/hostname").split() == ["zind", "zind"]
    assert sh("hostname; cat /etc/hostname; grep -c 'box$' /etc/hosts", hostname="box").split() == ["box", "box", "1"]
    found = probe("import socket; answer([socket.gethostbyname(n) for n in ('localhost', 'box')])", hostname="box")
    assert found == ["127.0.0.1", "127.0.1.1"]


def test_there_are_no_foreign_processes():
    commands = probe("answer([open(f'/proc/{p}/comm').read().strip() for p in os.listdir('/proc') if p.isdigit()])")
    assert sorted(commands) == ["python3", "zind-init"]


def test_the_environment_is_not_the_callers(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-tell")
    env = probe("answer(dict(os.environ))")
    assert set(env) - {"PWD", "SHLVL", "_", "LC_CTYPE"} == {"PATH", "HOME", "LANG"}
    assert env["HOME"] == "/root"
    everywhere = sh("cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'; set; export")
    assert "do-not-tell" not in everywhere


def test_files_of_the_host_are_invisible(tmp_path):
    secret = pathlib.Path("/tmp") / f"secret-{uuid.uuid4()}"
    secret.write_text("secret")
    try:
        assert sh(f"ls {secret} 2>&1; true").endswith("No such file or directory")
        assert sh(f"ls {tmp_path} 2>&1; true").endswith("No such file or directory")
    finally:
        secret.unlink()


def test_the_host_root_cannot_be_reached_through_proc():
    script = "for p in /proc/[0-9]*; do ls $p/root/work $p/cwd/work; done 2>/dev/null; true"
    assert sh(script) == ""


@pytest.mark.parametrize("directory", ["/tmp", "/home", "/root", "/run", "/var/tmp", "/etc", "/opt", "/usr", "/"])
def test_it_can_be_written_to_and_the_host_is_untouched(directory):
    name = f"{directory.rstrip('/')}/written-{uuid.uuid4()}"
    assert sh(f"echo text >{name}; cat {name}; rm {name}; mkdir {name}; ls -d {name}").split() == ["text", name]
    assert not os.path.lexists(name)
    assert sh(f"ls {name} 2>&1; true") != name, "the next container sees it"


def test_programs_can_be_replaced_and_the_host_is_untouched():
    kit.needs_root("files of the host's root belong to nobody in a user namespace")
    before = pathlib.Path("/usr/bin/env").read_bytes()
    assert sh("rm /usr/bin/env; printf '#!/bin/sh\\necho mine' >/usr/bin/env; chmod +x /usr/bin/env; env") == "mine"
    assert pathlib.Path("/usr/bin/env").read_bytes() == before


def tree(path: str) -> dict[str, tuple[int, int, float]]:
    found = {}
    for directory, _, files in os.walk(path):
        for name in files:
            meta = os.lstat(os.path.join(directory, name))
            found[os.path.join(directory, name)] = (meta.st_ino, meta.st_size, meta.st_mtime)
    return found


@pytest.mark.limit(120)
def test_rm_rf_usr_leaves_the_host_intact():
    before = tree("/usr")
    script = "apt list 2>/dev/null | wc -l; rm -rf /usr 2>/dev/null; for p in /usr/bin/rm /usr/bin/ls /usr/lib/os-release; do [ -e $p ] && echo $p; done; true"
    r = zind.run(["bash", "-c", script], capture_output=True, text=True)
    packages, *left = r.stdout.split()
    assert int(packages) > 100
    # Files of root's can be deleted only where root of the host is root of the container: an ordinary user's overlay
    # keeps the owners, as the kernel will have it.
    assert left == ([] if ROOT else ["/usr/bin/rm", "/usr/bin/ls", "/usr/lib/os-release"])
    assert tree("/usr") == before


@pytest.mark.limit(120)
def test_apt_lists_the_installed_packages():
    status = subprocess.check_output(["dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package}\n"], text=True)
    installed = {line.split()[1] for line in status.splitlines() if line.startswith("ii")}
    found = {line.split("/")[0] for line in sh("apt list --installed 2>/dev/null").splitlines() if "/" in line}
    assert installed == found


def test_bash_python_and_perl_run():
    assert sh("bash -c 'echo ${BASH_VERSION%%.*}'").isdigit()
    assert sh("python3 -c 'import ssl, sqlite3, json, ctypes; print(ssl.OPENSSL_VERSION.split()[0])'") == "OpenSSL"
    kit.needs_program("perl")
    assert sh("perl -MData::Dumper -e 'print 6 * 7'") == "42"


def test_gcc_builds_a_program_that_runs():
    kit.needs_program("gcc")
    script = r"""cd /tmp && printf '#include <stdio.h>\nint main(void) { return printf("%%d\\n", 6 * 7) < 0; }\n' >a.c && gcc -O1 a.c && ./a.out"""
    assert sh(script) == "42"


def test_certificates_and_locales_and_time_zones_are_there():
    assert int(sh("ls /etc/ssl/certs | wc -l")) > 50
    assert probe("import ssl; answer(len(ssl.create_default_context().get_ca_certs()))") > 50
    assert sh("date +%Z") == subprocess.check_output(["date", "+%Z"], text=True, env={"PATH": os.environ["PATH"]}).strip()


def test_names_are_not_resolved_and_that_is_told_at_once():
    source = """
import socket, time
began = time.monotonic()
try: found = socket.getaddrinfo("deb.debian.org", 80)
except socket.gaierror as error: found = "gaierror"
answer([found, time.monotonic() - began])
"""
    found, took = probe(source)
    assert found == "gaierror" and took < 5
    assert "nameserver" not in sh("cat /etc/resolv.conf")


def test_the_resolver_of_the_host_comes_with_its_network():
    assert sh("cat /etc/resolv.conf", network="host") == pathlib.Path("/etc/resolv.conf").read_text().strip()


def test_dev_is_minimal():
    names = set(probe("answer(os.listdir('/dev'))"))
    assert names == {"null", "zero", "full", "random", "urandom", "tty", "pts", "shm", "mqueue", "ptmx", "fd", "stdin", "stdout", "stderr"}
    assert sh("head -c 4 /dev/urandom | wc -c; head -c 3 /dev/zero | od -An -tx1; echo x >/dev/null; echo x >/dev/full 2>/dev/null || echo full").split() == ["4", "00", "00", "00", "full"]
    assert sh("echo hi >/dev/stdout") == "hi"


def test_no_device_can_be_made_or_used():
    assert "not permitted" in sh("mknod /tmp/sda b 8 0 2>&1; true")


def test_shared_memory_and_message_queues_work():
    source = """
from multiprocessing import shared_memory
block = shared_memory.SharedMemory(create=True, size=1000)
block.buf[:3] = b"abc"
again = shared_memory.SharedMemory(block.name)
found = bytes(again.buf[:3]).decode()
again.close(); block.close(); block.unlink()
answer(found)
"""
    assert probe(source) == "abc"


def test_pseudo_terminals_work():
    source = """
import pty
main, other = os.openpty()
os.write(main, b"x\\n")
answer([os.ttyname(other), os.read(other, 10).decode()])
"""
    assert probe(source) == ["/dev/pts/0", "x\n"]


def test_tmpfs_size_limits_what_is_written():
    r = zind.run(["sh", "-c", "head -c 3000000 /dev/zero >/tmp/x"], tmpfs_size="1m", capture_output=True)
    assert r.returncode != 0 and b"No space left" in r.stderr
    assert sh("head -c 500000 /dev/zero >/tmp/x; wc -c </tmp/x", tmpfs_size="1m") == "500000"
    assert zind.run(["sh", "-c", "head -c 3000000 /dev/zero >/usr/x"], tmpfs_size=1 << 20, stderr=zind.DEVNULL).returncode != 0


def test_read_only():
    for path in ("/usr/x", "/etc/x", "/x", "/home/x", "/root/x", "/usr/bin/env"):
        assert "Read-only file system" in sh(f"(: >{path}) 2>&1; true", read_only=True), path
    assert sh("echo x >/tmp/x; echo y >/run/x; echo z >/var/tmp/x; cat /tmp/x /run/x /var/tmp/x", read_only=True).split() == ["x", "y", "z"]
    assert zind.run(["true"], read_only=True).isolation.read_only is True


def test_read_only_cannot_be_undone_from_inside():
    assert "only" in sh("mount -o remount,rw / 2>&1; (: >/usr/x) 2>&1; true", read_only=True)


# --- mounts of the caller --------------------------------------------------------------------------------------------


def test_a_directory_is_bound(tmp_path):
    (tmp_path / "in").write_text("given")
    mount = zind.Mount.bind(tmp_path, "/data")
    assert sh("cat /data/in; echo taken >/data/out", mounts=[mount]) == "given"
    assert (tmp_path / "out").read_text() == "taken\n"


def test_a_directory_is_bound_read_only(tmp_path):
    (tmp_path / "in").write_text("given")
    mount = zind.Mount.bind(tmp_path, "/data/deep/place", read_only=True)
    assert "Read-only" in sh("cat /data/deep/place/in; (: >/data/deep/place/out) 2>&1; true", mounts=[mount])
    assert os.listdir(tmp_path) == ["in"]


def test_a_file_is_bound(tmp_path):
    (tmp_path / "conf").write_text("hello")
    assert sh("cat /etc/app.conf", mounts=[zind.Mount.bind(tmp_path / "conf", "/etc/app.conf")]) == "hello"


def test_a_tmpfs_of_its_own_size():
    mount = zind.Mount.tmpfs("/scratch", size="64k", mode=0o700)
    assert sh("stat -c %a /scratch; df -k --output=size /scratch | tail -1", mounts=[mount]).split() == ["700", "64"]


def test_mounts_come_in_order(tmp_path):
    (tmp_path / "x").write_text("1")
    mounts = [zind.Mount.bind(tmp_path, "/m"), zind.Mount.tmpfs("/m/t") if (tmp_path / "t").mkdir() is None else None]
    assert sh("echo 2 >/m/t/y; cat /m/x /m/t/y | tr -d '\\n'", mounts=mounts) == "12"
    assert os.listdir(tmp_path / "t") == []


def test_devices_and_set_uid_programs_in_a_bind_have_no_power(tmp_path):
    options = next(
        line.split()[5] for line in sh("cat /proc/self/mountinfo", mounts=[zind.Mount.bind(tmp_path, "/data")]).splitlines() if line.split()[4] == "/data"
    )
    assert {"nosuid", "nodev"} <= set(options.split(","))


@pytest.mark.parametrize("to", ["{victim}", "/home", "../../../../../../../home"])
def test_a_link_of_the_root_cannot_lead_a_mount_outside(tiny_root, tmp_path, to):
    victim = tmp_path / "victim"
    victim.mkdir()
    (tiny_root / "out").symlink_to(to.format(victim=victim))
    mount = zind.Mount.tmpfs("/out/x")
    if "victim" in to:
        # Inside the root it leads nowhere.
        kit.refused(zind.SysError, lambda: zind.run(["true"], rootfs=tiny_root, mounts=[mount]), step="MountTarget", hint=False)
    else:
        assert sh("ls /home", rootfs=tiny_root, mounts=[mount]) == "x"
        assert not os.path.lexists("/home/x")
    assert os.listdir(victim) == []
