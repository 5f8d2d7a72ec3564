"""Bodies travel with their requests, or not at all where they are large, chunked or never end."""

import asyncio
import json
import pickle
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse

from services.deployments.body import KEY, LIMIT_BYTES, Body, SendAhead


async def _app(scope: Any, receive: Any, send: Any) -> None:
    """Tells what it got, beside the headers and in the body."""
    ahead = scope.get(KEY)
    body = b"" if ahead is not None else await Request(scope, receive).body()
    facts = {
        "ahead": None if ahead is None else len(ahead),
        "body": len(body),
        "headers": [name.decode() for name, _ in scope["headers"]],
    }
    await JSONResponse(facts)(scope, receive, send)


@pytest.fixture
def client() -> httpx.AsyncClient:
    transport = httpx.ASGITransport(SendAhead(_app, timeout_s=0.2))
    return httpx.AsyncClient(transport=transport, base_url="http://here")


@pytest.mark.parametrize("size", [0, 1, 1000, LIMIT_BYTES])
async def test_a_body_up_to_the_limit_goes_ahead(client: httpx.AsyncClient, size: int) -> None:
    facts = (await client.post("/", content=b"x" * size)).json()
    assert (facts["ahead"], facts["body"]) == (size, 0)


async def test_a_larger_one_does_not(client: httpx.AsyncClient) -> None:
    facts = (await client.post("/", content=b"x" * (LIMIT_BYTES + 1))).json()
    assert (facts["ahead"], facts["body"]) == (None, LIMIT_BYTES + 1)


async def test_nor_does_one_of_unknown_length(client: httpx.AsyncClient) -> None:
    async def chunks():
        yield b"ab"
        yield b"c"

    facts = (await client.post("/", content=chunks())).json()
    assert (facts["ahead"], facts["body"]) == (None, 3)


async def test_a_body_that_does_not_come_is_a_deadline() -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(60)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-length", b"5")]}
    await SendAhead(_app, timeout_s=0.05)(scope, receive, send)
    assert sent[0]["status"] == 504
    assert json.loads(sent[1]["body"])["error"]["code"] == "deadline_exceeded"


async def test_serves_control_headers_are_not_for_callers(client: httpx.AsyncClient) -> None:
    headers = {"X-Request-Disconnect-Disabled": "?1", "X-Request-Timeout-Seconds": "1", "X-Other": "1"}
    names = (await client.post("/", headers=headers)).json()["headers"]
    assert "x-other" in names
    assert not [name for name in names if name.startswith(("x-request-disconnect", "x-request-timeout-s"))]


async def test_a_replica_gets_the_body_once_and_then_nothing() -> None:
    body = pickle.loads(pickle.dumps(Body(b"abc")))
    assert pickle.loads(await body(None)) == [{"type": "http.request", "body": b"abc", "more_body": False}]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(body(None), 0.05)
