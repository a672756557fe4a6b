"""Registries from Python: against docker-registry, and against servers that break the rules."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import http.server
import io
import json
import os
import pathlib
import pickle
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time

import pytest

import kit
import zind

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest(blob: bytes) -> str:
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def descriptor(kind: str, blob: bytes) -> dict:
    return {"mediaType": kind, "digest": digest(blob), "size": len(blob)}


class Made:
    """An image of layers with one file each."""

    def __init__(self, *files: bytes) -> None:
        tars = []
        for number, content in enumerate(files):
            out = io.BytesIO()
            with tarfile.open(fileobj=out, mode="w") as tar:
                info = tarfile.TarInfo(f"file{number}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            tars.append(out.getvalue())
        self.layers = [gzip.compress(tar, 1) for tar in tars]
        rootfs = {"type": "layers", "diff_ids": [digest(tar) for tar in tars]}
        self.config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": descriptor(CONFIG, self.config),
                "layers": [descriptor(LAYER, layer) for layer in self.layers],
            }
        ).encode()

    def blobs(self) -> dict[str, tuple[str, bytes]]:
        """By path."""
        there = {f"/v2/team/app/blobs/{digest(blob)}": ("x", blob) for blob in [self.config, *self.layers]}
        return {**there, "/v2/team/app/manifests/1": (MANIFEST, self.manifest)}


class Server:
    """An HTTP server on loopback, which answers by ``answer(handler)`` and keeps what it was asked."""

    def __init__(self, answer) -> None:
        seen = self.seen = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                seen.append((self.command, self.path, self.headers))
                with contextlib.suppress(OSError):
                    answer(self)

            do_HEAD = do_POST = do_PUT = do_PATCH = do_GET

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(http.server.ThreadingHTTPServer):
            daemon_threads = False
            block_on_close = True

            def handle_error(self, *_: object) -> None:
                pass

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.host = "127.0.0.1:%d" % self.http.server_address[1]
        self.name = f"{self.host}/team/app:1"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Server:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


def send(handler, status: int, body: bytes = b"", kind: str = "x", **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def have(made: Made):
    """Answers as a registry does that has an image."""
    there = made.blobs()

    def answer(handler) -> None:
        kind, blob = there.get(handler.path, ("", None))
        if blob is None:
            body = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
            send(handler, 404, json.dumps(body).encode())
        elif "Range" in handler.headers:
            start = int(handler.headers["Range"].split("=")[1].rstrip("-"))
            send(handler, 206, blob[start:], kind, Content_Range=f"bytes {start}-{len(blob) - 1}/{len(blob)}")
        else:
            send(handler, 200, blob, kind)

    return answer


@pytest.fixture
def store(tmp_path) -> zind.Store:
    return zind.Store(tmp_path / "store")


@pytest.fixture
def nobody(monkeypatch, tmp_path) -> pathlib.Path:
    """A user without credentials, and the directory for them."""
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "DOCKER_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@contextlib.contextmanager
def docker_registry(path: pathlib.Path, http_more: str = "", more: str = ""):
    """Debian's docker-registry; its host and port."""
    kit.needs_program("docker-registry")
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = "127.0.0.1:%d" % free.getsockname()[1]
    config = path / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {path}/registry}}}}\n"
        f"http: {{addr: '{host}'{http_more}}}\n{more}"
    )
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(["docker-registry", "serve", config], **quiet) as server:
        try:
            for _ in range(1000):
                with contextlib.suppress(OSError), socket.create_connection(host.split(":")):
                    break
                time.sleep(0.02)
            yield host
        finally:
            server.kill()


def test_an_image_goes_to_a_registry_and_comes_back(store, tmp_path, nobody):
    made = Made(b"one" * 1000, os.urandom(300_000))
    with Server(have(made)) as server:
        heard: list[zind.Progress] = []
        image = store.pull(server.name, progress=heard.append)
    assert image.digest == digest(made.manifest)
    downloads = [event for event in heard if event.kind == "download"]
    assert {event.layer for event in downloads} == {0, 1}
    assert max(event.done for event in downloads) == len(made.layers[1])
    with docker_registry(tmp_path) as host:
        store.push(image, f"{host}/back/app:1", chunk_size=100_000, extra_tags=["2"])
        other = zind.Store(tmp_path / "other")
        assert other.pull(f"{host}/back/app:2").digest == image.digest
        kit.needs_program("skopeo")
        argv = ["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{host}/back/app:1"]
        assert subprocess.check_output(argv, text=True).strip() == image.digest
    # What is here needs no registry any more.
    assert other.pull(f"{host}/back/app:2", policy="missing") == other.pull(f"{host}/back/app:2", policy="never")


def test_what_a_registry_refuses_is_data(store, nobody):
    with Server(have(Made(b"x"))) as server:
        with pytest.raises(zind.RegistryError, match="manifest unknown") as caught:
            store.pull(server.host + "/team/app:2")
    error = caught.value
    assert (error.registry, error.status, error.code) == (server.host, 404, "MANIFEST_UNKNOWN")
    assert "tag" in error.hint
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.code, again.status) == (str(error), error.code, 404)
    for name, code in [("registry.invalid/a", "dns"), (server.name, "connect")]:
        with pytest.raises(zind.RegistryError) as caught:
            store.pull(name)
        assert (caught.value.status, caught.value.code) == (None, code)
    with pytest.raises(zind.NotFoundError):
        store.pull(server.name, policy="never")
    with pytest.raises(zind.SpecError) as caught:
        store.pull("UPPER/Case:!")
    assert caught.value.field == "reference"


def test_passwords_and_an_own_authority(store, tmp_path, nobody):
    kit.needs_program("htpasswd")
    kit.needs_program("openssl")
    trust = tmp_path / "certs"
    trust.mkdir()
    own = [
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"),
        *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "own.key", "-out", trust / "ca.crt"),
    ]
    subprocess.run(own, check=True, capture_output=True)
    passwords = subprocess.check_output(["htpasswd", "-Bbn", "user", "pass"])
    (tmp_path / "htpasswd").write_bytes(passwords)
    tls = f", tls: {{certificate: {trust}/ca.crt, key: {tmp_path}/own.key}}"
    auth = f"auth: {{htpasswd: {{realm: test, path: {tmp_path}/htpasswd}}}}\n"
    with Server(have(Made(b"secret"))) as server:
        image = store.pull(server.name)
    with docker_registry(tmp_path, tls, auth) as host:
        name = f"{host}/team/app:1"
        with pytest.raises(zind.RegistryError) as caught:
            store.push(image, name, auth=("user", "pass"))
        assert caught.value.code == "tls" and "tls_verify" in caught.value.hint
        with pytest.raises(zind.RegistryError) as caught:
            store.push(image, name, cert_dir=trust)
        assert caught.value.status == 401 and "no credentials" in str(caught.value)
        with pytest.raises(zind.RegistryError) as caught:
            store.push(image, name, cert_dir=trust, auth=("user", "wrong"))
        assert caught.value.status == 401 and "wrong" not in str(caught.value).split("; ")[0]
        store.push(image, name, cert_dir=trust, auth=("user", "pass"))
        # Of docker's file, by a helper of it, and of a file by name.
        helpers = tmp_path / "bin"
        helpers.mkdir()
        helper = helpers / "docker-credential-test"
        helper.write_text(
            '#!/bin/sh\nread server\n[ "$server" = ' + host + ' ] || { echo credentials not found; exit 1; }\n'
            'echo "{\\"ServerURL\\": \\"$server\\", \\"Username\\": \\"user\\", \\"Secret\\": \\"pass\\"}"\n'
        )
        helper.chmod(0o755)
        (nobody / "config.json").write_text(json.dumps({"credHelpers": {host: "test"}}))
        with pytest.raises(zind.SysError) as caught:
            store.pull(name, tls_verify=False)
        assert caught.value.step == "CredentialHelper" and "PATH" in caught.value.hint
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", f"{helpers}:{os.environ['PATH']}")
            assert store.pull(name, tls_verify=False).digest == image.digest
        file = tmp_path / "own.json"
        entry = {"auth": base64.b64encode(b"user:pass").decode()}
        file.write_text(json.dumps({"auths": {f"{host}/team": entry}}))
        assert store.pull(name, cert_dir=trust, auth_file=file).digest == image.digest


def test_ctrl_c_stops_a_pull_that_waits_and_the_next_goes_on(store, nobody):
    made = Made(os.urandom(2_000_000))
    layer = f"/v2/team/app/blobs/{digest(made.layers[0])}"
    normal, stalled = have(made), threading.Event()

    def answer(handler) -> None:
        if handler.path == layer and not stalled.is_set():
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(made.layers[0])))
            handler.end_headers()
            handler.wfile.write(made.layers[0][:1_000_000])
            handler.wfile.flush()
            stalled.set()
            handler.connection.recv(1)
            handler.close_connection = True
        else:
            normal(handler)

    ticks = []

    def press(*_: object) -> None:
        # A second after the bytes were on their way.
        ticks.append(stalled.is_set())
        if sum(ticks) > 10:
            raise KeyboardInterrupt

    with Server(answer) as server:
        before = signal.signal(signal.SIGALRM, press)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
            with pytest.raises(KeyboardInterrupt):
                store.pull(server.name)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        with pytest.raises(zind.NotFoundError):
            store.image(server.name)
        store.pull(server.name)
        ranges = [headers.get("Range") for _, path, headers in server.seen if path == layer]
        assert ranges[0] is None and int(ranges[1].removeprefix("bytes=").rstrip("-")) > 0
    assert store.verify() == []


def test_an_error_in_the_callers_function_stops_a_pull(store, nobody):
    def hear(event: zind.Progress) -> None:
        raise ZeroDivisionError

    with Server(have(Made(b"x" * 1000))) as server, pytest.raises(ZeroDivisionError):
        store.pull(server.name, progress=hear)
    with pytest.raises(zind.NotFoundError):
        store.image(server.name)


def test_credentials_stay_with_their_registry(store, nobody):
    made = Made(b"x" * 1000)
    normal = have(made)
    secret = "Basic " + base64.b64encode(b"user:pass").decode()
    with Server(normal) as elsewhere:

        def answer(handler) -> None:
            if handler.headers.get("Authorization") != secret:
                send(handler, 401, WWW_Authenticate='Basic realm="x"')
            elif "/blobs/" in handler.path:
                send(handler, 307, Location=f"http://{elsewhere.host}{handler.path}")
            else:
                normal(handler)

        with Server(answer) as server:
            store.pull(server.name, auth=("user", "pass"))
        assert len(elsewhere.seen) == 2
        assert not any("Authorization" in headers for _, _, headers in elsewhere.seen)


@pytest.mark.parametrize("what", ["wrong", "endless", "cut", "loop", "401", "429", "silent", "redirects"])
def test_servers_that_break_the_rules_end_in_an_error(what, store, nobody):
    made = Made(os.urandom(50_000))
    normal = have(made)

    def answer(handler) -> None:
        blob = digest(made.layers[0]) in handler.path
        if what == "401":
            send(handler, 401, WWW_Authenticate=f'Bearer realm="http://{handler.headers["Host"]}/token"')
        elif what == "429":
            send(handler, 429, Retry_After="0")
        elif what == "redirects":
            send(handler, 302, Location="file:///etc/passwd" if blob else handler.path)
        elif not blob:
            normal(handler)
        elif what == "wrong":
            send(handler, 200, bytes(len(made.layers[0])))
        elif what == "endless":
            handler.send_response(200)
            handler.send_header("Connection", "close")
            handler.end_headers()
            while True:
                handler.wfile.write(bytes(65536))
        elif what == "cut":
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(made.layers[0])))
            handler.end_headers()
            handler.wfile.write(made.layers[0][:10])
            handler.close_connection = True
        elif what == "loop":
            send(handler, 302, Location=handler.path)
        elif what == "silent":
            handler.connection.recv(1)
            handler.close_connection = True

    with Server(answer) as server:
        with pytest.raises((zind.RegistryError, zind.ImageError)):
            store.pull(server.name, auth=("user", "pass"), retries=1, timeout=0.5)
        assert len(server.seen) < 30
        with pytest.raises(zind.NotFoundError):
            store.image(server.name)
    assert store.verify() == []


@pytest.mark.limit(300)
def test_a_pull_needs_little_memory(tmp_path, nobody):
    made = Made(os.urandom(8 << 20) * 24)
    code = """if True:
        import sys, zind
        zind.Store(sys.argv[1]).pull(sys.argv[2])
        # Not getrusage(2): that begins with the peak of who has started this.
        print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
    """
    with Server(have(made)) as server:
        argv = [sys.executable, "-c", code, tmp_path / "store", server.name]
        peak = int(subprocess.check_output(argv, text=True)) * 1024
    assert peak < 100_000_000
