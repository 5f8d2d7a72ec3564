"""Tokens, time limits, retries and errors, against a server that fails in every way."""

from __future__ import annotations

import base64
import http.server
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import SecretStr

from annotation.labelstudio import http as transport
from annotation.labelstudio.http import Connection
from services.errors import (
    ConfigurationError,
    DeadlineExceeded,
    InvalidInput,
    MedMaxError,
    NotFound,
    Overloaded,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from tests.support.http_server import handling

LEGACY = "a" * 40


def jwt(seconds: float, name: str = "access") -> str:
    claims = {"exp": time.time() + seconds, "name": name}
    return "h." + base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=") + ".s"


@dataclass
class Script:
    """What the server does: a status, headers and body for each request in turn, the last one for ever."""

    answers: list[tuple[int, dict[str, str], bytes]]
    access_lives_s: float = 300.0
    delay_s: float = 0.0
    refuse_refresh: bool = False
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    refreshed: int = 0


@contextmanager
def scripted(script: Script) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def _any(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path == "/api/token/refresh/":
                script.refreshed += 1
                body = json.dumps({"access": jwt(script.access_lives_s, str(script.refreshed))}).encode()
                status, headers = (401 if script.refuse_refresh else 200), {}
            else:
                time.sleep(script.delay_s)
                script.seen.append((self.command, self.path, self.headers.get("Authorization", "")))
                answer = script.answers.pop(0) if len(script.answers) > 1 else script.answers[0]
                status, headers, body = answer
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = do_DELETE = _any

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with handling(Handler) as address:
        yield address


OK = (200, {}, b'{"a": 1}')


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "FIRST_WAIT_S", 0.001)


def call(script: Script, method: str = "GET", token: str = LEGACY, timeout_s: float = 5.0) -> Any:
    with scripted(script) as url:
        connection = Connection(url, SecretStr(token), timeout_s)
        try:
            return connection.request(method, "/api/thing/")
        finally:
            connection.close()


def test_a_legacy_token_goes_into_every_request() -> None:
    script = Script([OK])
    assert call(script) == {"a": 1}
    assert script.seen == [("GET", "/api/thing/", f"Token {LEGACY}")]


def test_a_personal_token_buys_an_access_token_once_while_it_lives() -> None:
    script = Script([OK])
    with scripted(script) as url:
        connection = Connection(url, SecretStr(jwt(1e6, "personal")))
        assert [connection.get("/x") for _ in range(3)] == [{"a": 1}] * 3
    assert script.refreshed == 1
    assert {seen[2].split()[0] for seen in script.seen} == {"Bearer"}


def test_an_access_token_is_renewed_before_it_ends() -> None:
    script = Script([OK], access_lives_s=20)
    with scripted(script) as url:
        connection = Connection(url, SecretStr(jwt(1e6)))
        connection.get("/x")
        connection.get("/x")
    assert script.refreshed == 2


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_access_token_that_ended_early_is_renewed_and_the_request_repeated(method: str) -> None:
    script = Script([(401, {}, b""), OK])
    assert call(script, method, jwt(1e6)) == {"a": 1}
    assert script.refreshed == 2


def test_a_personal_token_that_is_refused_says_so() -> None:
    with pytest.raises(Unauthenticated, match="personal access token"):
        call(Script([OK], refuse_refresh=True), token=jwt(1e6))


@pytest.mark.parametrize(
    ("status", "error", "requests"),
    [
        (400, InvalidInput, 1),
        (401, Unauthenticated, 1),
        (403, PermissionDenied, 1),
        (404, NotFound, 1),
        (429, Overloaded, transport.ATTEMPTS),
        (302, Unavailable, transport.ATTEMPTS),
        (500, Unavailable, transport.ATTEMPTS),
        (502, Unavailable, transport.ATTEMPTS),
    ],
)
def test_an_answer_becomes_an_error_of_our_tree(status: int, error: type[MedMaxError], requests: int) -> None:
    script = Script([(status, {}, b'{"detail": "Jane Doe has a mass"}')])
    with pytest.raises(error) as caught:
        call(script)
    assert len(script.seen) == requests
    assert "Jane" not in str(caught.value)


def test_a_passing_failure_is_survived() -> None:
    script = Script([(500, {}, b""), (429, {"Retry-After": "0"}, b""), OK])
    assert call(script) == {"a": 1}


@pytest.mark.parametrize("status", [429, 500])
def test_a_post_is_never_repeated(status: int) -> None:
    script = Script([(status, {}, b"")])
    with pytest.raises((Overloaded, Unavailable)):
        call(script, "POST")
    assert len(script.seen) == 1


def test_a_wait_that_is_too_long_is_the_callers(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Overloaded) as caught:
        call(Script([(429, {"Retry-After": "3600"}, b"")]))
    assert caught.value.retry_after_s == 3600


def test_a_slow_answer_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "ATTEMPTS", 2)
    with pytest.raises(DeadlineExceeded):
        call(Script([OK], delay_s=1.0), timeout_s=0.1)


def test_nobody_there_is_unavailable() -> None:
    with scripted(Script([OK])) as url:
        gone = url
    with pytest.raises(Unavailable):
        Connection(gone, SecretStr(LEGACY)).get("/x")


def test_what_is_no_label_studio_is_named() -> None:
    with pytest.raises(Unavailable, match="no Label Studio"):
        call(Script([(200, {}, b"<html>")]))


def test_deleting_what_is_gone_is_done() -> None:
    with scripted(Script([(404, {}, b"")])) as url:
        Connection(url, SecretStr(LEGACY)).delete("/x")


@pytest.mark.parametrize("url", ["", "localhost:8080", "ftp://x", "http://", "http://user:pw@host"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        Connection(url, SecretStr(LEGACY))


def test_no_token_enters_logs_or_messages(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    personal = jwt(1e6, "personal")
    for token in (LEGACY, personal):
        with pytest.raises(MedMaxError) as caught:
            call(Script([(500, {}, b"")]), token=token)
        assert token not in repr(caught.value)
    for secret in (LEGACY, personal, "Bearer "):
        assert secret not in caplog.text
