"""Pictures by address: only from listed hosts, never around the list, never into the network."""

from __future__ import annotations

import asyncio
import http.server
import socket
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from rest_server import picture

from services.config import Settings
from services.deadline import Deadline
from services.errors import InvalidInput, MedMaxError, PayloadTooLarge, Unavailable
from services.gateway.rest import media
from services.pb.medmax.v1 import assistant_pb2


class Pictures(http.server.BaseHTTPRequestHandler):
    seen: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers["Host"]))
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", "/picture")
            self.end_headers()
            return
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(picture() if self.path == "/picture" else bytes(1_000_000))

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pictures) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()


def fetch(url: str, *hosts: str) -> bytes:
    settings = Settings(image_url_hosts=hosts, max_image_bytes=100_000)
    media.check_address(url, "url", settings)
    item = media.Fetch(url, assistant_pb2.ImagePart(), "url")
    asyncio.run(media.fetch(item, settings, Deadline.after(0, 20)))
    return item.image.data


def refusal(url: str, *hosts: str) -> MedMaxError:
    with pytest.raises(MedMaxError) as caught:
        fetch(url, *hosts)
    assert caught.value.field == "url"
    return caught.value


def test_listed_address_is_fetched(port: int) -> None:
    assert fetch(f"http://127.0.0.1:{port}/picture", f"127.0.0.1:{port}") == picture()


def test_host_is_reached_at_the_address_that_was_checked_under_its_own_name(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    url = f"http://pacs.example:{port}/picture"
    # The name alone does not open the inside of the network; the address must be named as well.
    assert "inside the network" in refusal(url, f"pacs.example:{port}").message
    assert fetch(url, f"pacs.example:{port}", "127.0.0.1") == picture()
    assert Pictures.seen[-1] == ("/picture", f"pacs.example:{port}")


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", "127.0.0.1", "169.254.169.254", "192.168.1.1", "0.0.0.0", "224.0.0.1", "::1", "fe80::1", "fd00::1",
     "::ffff:10.0.0.1", "100.64.0.1", "64:ff9b::a00:1", "2002:a00:1::1"],
)  # fmt: skip
def test_name_that_points_inside_is_not_contacted(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        outside = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", port))
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [outside, (family, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert isinstance(refusal("https://pacs.example/a.png", "pacs.example"), InvalidInput)


@pytest.mark.parametrize(
    "url",
    [
        "http://evil.example/a.png",
        "http://pacs.example.evil.example/a.png",
        "http://pacs.example@evil.example/a.png",
        "http://user:word@pacs.example/a.png",
        "http://pacs.example:8042/a.png",
        "http://pacs.example\\@evil.example/a.png",
        "http://[::1]/a.png",
        "http://2130706433/a.png",
        "http://pacs.example:99999/a.png",
        "http://[bad/a.png",
        "ftp://pacs.example/a.png",
        "file:///etc/passwd",
        "http:///a.png",
        "//pacs.example/a.png",
        "",
    ],
)
def test_address_off_the_list_is_refused_before_anything_is_sent(url: str) -> None:
    settings = Settings(image_url_hosts=("pacs.example",))
    with pytest.raises(InvalidInput):
        media.check_address(url, "url", settings)


def test_empty_list_refuses_every_address() -> None:
    with pytest.raises(InvalidInput, match="data: URL"):
        media.check_address("https://example.org/a.png", "url", Settings())


def test_redirect_is_not_followed(port: int) -> None:
    before = len(Pictures.seen)
    assert "302" in refusal(f"http://127.0.0.1:{port}/redirect", f"127.0.0.1:{port}").message
    assert len(Pictures.seen) == before + 1


def test_missing_picture_is_the_callers_error(port: int) -> None:
    assert "404" in refusal(f"http://127.0.0.1:{port}/missing", f"127.0.0.1:{port}").message


def test_fetched_bytes_are_limited(port: int) -> None:
    error = refusal(f"http://127.0.0.1:{port}/large", f"127.0.0.1:{port}")
    assert isinstance(error, PayloadTooLarge)
    assert "100,000 bytes" in error.message


def test_host_that_does_not_answer_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert isinstance(refusal(f"http://127.0.0.1:{port}/a", f"127.0.0.1:{port}"), Unavailable)
