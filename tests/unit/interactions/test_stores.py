"""Stores by address."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from services.errors import ConfigurationError, Unavailable
from services.interactions.pictures import PictureStore, digest
from services.stores import open_store


class Objects(BaseHTTPRequestHandler):
    """The four object operations of S3's REST interface that pictures need, and nothing else; no signatures."""

    kept: ClassVar[dict[str, bytes]] = {}
    protocol_version = "HTTP/1.1"

    def _reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_PUT(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        if "aws-chunked" in self.headers.get("Content-Encoding", ""):
            body = _unchunked(body)
        self.kept[self.path.partition("?")[0]] = body
        self._reply(200, ETag='"x"')

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if "list-type" in query:
            self._reply(
                200, b'<?xml version="1.0"?><ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>'
            )
        elif path in self.kept:
            found = self.kept[path]
            self.send_response(206 if "Range" in self.headers else 200)
            self.send_header("Content-Length", str(len(found)))
            self.send_header("Content-Range", f"bytes 0-{len(found) - 1}/{len(found)}")
            self.end_headers()
            self.wfile.write(found)
        else:
            self._reply(404, b"<Error><Code>NoSuchKey</Code></Error>")

    def do_HEAD(self) -> None:
        found = self.kept.get(self.path)
        if found is None:
            self._reply(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(found)))
        self.send_header("Last-Modified", "Wed, 25 Nov 2026 00:00:00 GMT")
        self.end_headers()

    def do_DELETE(self) -> None:
        self.kept.pop(self.path, None)
        self._reply(204)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def _unchunked(body: bytes) -> bytes:
    out = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size.partition(b";")[0], 16)
        if not length:
            break
        out += rest[:length]
        body = rest[length + 2 :]
    return out


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Objects)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
    Objects.kept.clear()


def test_pictures_go_to_a_bucket_and_come_back(s3: ThreadingHTTPServer) -> None:
    filesystem, root = open_store("s3://bucket/pictures/", "x")
    store = PictureStore(filesystem, root)
    data = b"picture" * 1000
    store.check()
    store.write(digest(data), data)
    name = digest(data)
    assert Objects.kept == {f"/bucket/pictures/{name[:2]}/{name}": data}
    assert store.read(name) == data
    store.delete(name)
    # Arrow leaves a marker for the folder, at most one for each two digits.
    assert not [key for key in Objects.kept if not key.endswith("/")]
    store.delete(name)
    store.probe()


def test_a_store_out_of_reach_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store = PictureStore(*open_store("s3://bucket/pictures", "x"))
    with pytest.raises(Unavailable):
        store.check()


def test_a_folder_is_a_store(tmp_path: Path) -> None:
    filesystem, root = open_store(str(tmp_path), "x")
    assert filesystem.exists(root)


def test_what_is_no_store_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="MEDMAX_OBJECT_STORE"):
        open_store("gopher://x/y", "MEDMAX_OBJECT_STORE")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "somewhere")
    with pytest.raises(ConfigurationError, match="AWS_ENDPOINT_URL"):
        open_store("s3://bucket/x", "MEDMAX_OBJECT_STORE")
