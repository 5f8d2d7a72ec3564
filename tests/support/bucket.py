"""A bucket on loopback, in this process's memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs

import pytest


class Objects(BaseHTTPRequestHandler):
    """What of S3's REST interface pictures and back-ups need, and nothing else; no signatures."""

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
            self._reply(200, self._listing(path, query))
        elif path in self.kept:
            whole = self.kept[path]
            first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            end = min(int(last) + 1, len(whole)) if last else len(whole)
            found = whole[int(first) : end]
            self.send_response(206 if "Range" in self.headers else 200)
            self.send_header("Content-Length", str(len(found)))
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{len(whole)}")
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

    def _listing(self, bucket: str, query: str) -> bytes:
        """Keys below a prefix, and the next folders where a delimiter is given."""
        asked = parse_qs(query)
        prefix, delimiter = asked.get("prefix", [""])[0], asked.get("delimiter", [""])[0]
        keys, folders = [], set()
        for path in sorted(self.kept):
            key = path.removeprefix(f"{bucket.rstrip('/')}/")
            if key != path and key.startswith(prefix):
                head, found, _ = key.removeprefix(prefix).partition(delimiter or "\0")
                if found:
                    folders.add(prefix + head + delimiter)
                else:
                    keys.append((key, len(self.kept[path])))
        contents = "".join(
            f"<Contents><Key>{key}</Key><Size>{size}</Size>"
            "<LastModified>2026-11-25T00:00:00.000Z</LastModified></Contents>"
            for key, size in keys
        )
        common = "".join(
            f"<CommonPrefixes><Prefix>{each}</Prefix></CommonPrefixes>" for each in sorted(folders)
        )
        return (
            f'<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated>'
            f"<KeyCount>{len(keys) + len(folders)}</KeyCount>{contents}{common}</ListBucketResult>"
        ).encode()

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
