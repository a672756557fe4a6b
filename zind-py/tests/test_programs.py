"""Ordinary programs run under the default policy: compilers, Python, Node, PostgreSQL, apt."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import textwrap

import kit
import pytest
import zind

# Real programs take their time on a busy machine.
pytestmark = pytest.mark.limit(180)


def run(script: str, **options) -> str:
    options.setdefault("stdin", zind.DEVNULL)
    result = zind.run(["sh", "-ec", textwrap.dedent(script)], capture_output=True, text=True, timeout=120, cwd="/tmp", **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_a_c_compiler():
    source = '#include <stdio.h>\\n#include <pthread.h>\\nstatic void *f(void *x) { return x; }\\nint main(void) { pthread_t t; pthread_create(&t, 0, f, "made"); void *r; pthread_join(t, &r); puts(r); }'
    assert run(f"printf '{source}' > a.c; gcc -O2 -pipe -pthread -o a a.c; ./a; g++ --version >/dev/null") == "made\n"


def test_a_rust_compiler():
    kit.needs_root("a compiler in root's home")
    if not shutil.which("rustc"):
        pytest.skip("needs the program rustc")
    sysroot = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True).stdout.strip()
    source = 'fn main() { println!("{}", std::thread::spawn(|| 6 * 7).join().unwrap()); }'
    mounts = [zind.Mount.bind(sysroot, "/opt/rust", read_only=True)]
    assert run(f"echo '{source}' > a.rs; /opt/rust/bin/rustc a.rs; ./a", mounts=mounts) == "42\n"


def test_python_with_processes_threads_and_loops():
    source = """
    import asyncio, concurrent.futures, multiprocessing, os, socket, sqlite3, subprocess, sys, tempfile, threading
    def double(x): return 2 * x
    if __name__ == "__main__":
        for method in ("fork", "spawn", "forkserver"):
            with multiprocessing.get_context(method).Pool(2) as pool:
                assert pool.map(double, range(4)) == [0, 2, 4, 6]
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            assert list(threads.map(double, range(4))) == [0, 2, 4, 6]
        value = multiprocessing.Value("i", 1); lock = multiprocessing.Lock(); queue = multiprocessing.Queue(); queue.put(3)
        assert queue.get() == 3
        async def served():
            server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            assert await reader.read() == b""
            writer.close(); server.close()
            child = await asyncio.create_subprocess_exec("true")
            return await child.wait()
        assert asyncio.run(served()) == 0
        database = sqlite3.connect(tempfile.mkdtemp() + "/a.db"); database.execute("create table a (b)"); database.commit()
        assert subprocess.run([sys.executable, "-m", "venv", "--without-pip", "v"]).returncode == 0
        print("fine")
    """
    assert run(f"cat > a.py <<'END'\n{textwrap.dedent(source)}\nEND\n/usr/bin/python3 a.py") == "fine\n"


def test_node():
    found = shutil.which("node", path="/usr/local/bin:/usr/bin:/bin")
    if not found or not os.path.realpath(found).startswith("/usr/"):
        pytest.skip("needs the program node")
    source = """
    const { Worker } = require("worker_threads"), { execFileSync } = require("child_process"), net = require("net"), fs = require("fs");
    const server = net.createServer(s => s.end("served")).listen(0, "127.0.0.1", () => {
      net.connect(server.address().port, "127.0.0.1").on("data", data => {
        new Worker("require('worker_threads').parentPort.postMessage(6 * 7)", { eval: true }).on("message", async answer => {
          await fs.promises.writeFile("a", "x");
          console.log(String(data), answer, execFileSync("echo", ["child"]).toString().trim(),
            require("crypto").createHash("sha256").update("x").digest("hex").length);
          server.close();
        });
      });
    });
    """
    assert run(f"cat > a.js <<'END'\n{source}\nEND\nnode a.js") == "served 42 child 64\n"


def test_postgresql():
    places = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    if not places:
        pytest.skip("needs the program initdb")
    place = os.path.dirname(places[-1])
    # As root of its own machine PostgreSQL does not start; any other number is as good as one with a name.
    options = {"user": 1000} if kit.ROOT else {"uid_map": [(1000, kit.UID, 1)], "gid_map": [(1000, kit.GID, 1)], "user": "1000:1000"}
    script = f"""
    export HOME=/tmp PGDATA=/tmp/data PATH={place}:$PATH
    initdb -U me -A trust --no-sync >/tmp/log 2>&1 || (cat /tmp/log; false)
    pg_ctl -w -o "-c listen_addresses= -k /tmp -c fsync=off" -l /tmp/log start >/dev/null || (cat /tmp/log; false)
    psql -h /tmp -U me -Atc "create table a as select generate_series(1, 1000) b; select sum(b) from a" postgres | tail -1
    pg_ctl -m fast -w stop >/dev/null
    """
    assert run(script, **options) == "500500\n"


def test_apt_in_a_user_namespace(tmp_path):
    kit.needs_program("apt-get", "dpkg-deb", "newuidmap")
    build = tmp_path / "made"
    (build / "DEBIAN").mkdir(parents=True)
    (build / "DEBIAN/control").write_text("Package: made-here\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@example.org>\nDescription: made here\n")
    (build / "DEBIAN/postinst").write_text("#!/bin/sh\nset -e\nid -u >/srv/made-here/by\n")
    (build / "DEBIAN/postinst").chmod(0o755)
    (build / "srv/made-here").mkdir(parents=True)
    (build / "srv/made-here/file").write_text("content\n")
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", str(build), str(tmp_path / "made.deb")], check=True, capture_output=True)
    tmp_path.chmod(0o755)
    (tmp_path / "made.deb").chmod(0o644)
    # This machine's own packages are no business of the container's: it has a list of its own.
    script = """
    mkdir -p dpkg/updates dpkg/info dpkg/triggers state/lists/partial cache/archives/partial log
    : > dpkg/status
    : > dpkg/available
    set -- -o Dir::State=/tmp/state -o Dir::State::status=/tmp/dpkg/status -o Dir::Cache=/tmp/cache -o Dir::Log=/tmp/log
    set -- "$@" -o Dpkg::Options::=--admindir=/tmp/dpkg -o Dpkg::Options::=--log=/tmp/log/dpkg
    set -- "$@" -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts=/dev/null -o APT::Sandbox::User=root
    apt-get "$@" -y -q install ./made.deb >out 2>&1 || (cat out; false)
    dpkg-query --admindir=/tmp/dpkg -W -f '${Status}\\n' made-here
    cat /srv/made-here/file /srv/made-here/by
    """
    with open(tmp_path / "made.deb", "rb") as package:
        found = run(f"cat > made.deb\n{textwrap.dedent(script)}", uid_map="auto", gid_map="auto", stdin=package)
    assert found == "install ok installed\ncontent\n0\n"
