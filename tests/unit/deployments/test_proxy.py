"""What the HTTP proxy says when the gateway cannot."""

from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse, PlainTextResponse

from services.deployments.proxy import ErrorObjects


async def _get(app: Any) -> httpx.Response:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(ErrorObjects(app)), base_url="http://here"
    ) as client:
        return await client.get("/")


@pytest.mark.parametrize(
    ("status", "code", "answered"),
    [(503, "unavailable", 503), (429, "overloaded", 429), (408, "deadline_exceeded", 504)],
)
async def test_serves_own_text_becomes_an_error_object(status: int, code: str, answered: int) -> None:
    reply = await _get(PlainTextResponse("Deployment(name='gateway') is unavailable", status))
    assert reply.status_code == answered
    assert reply.json()["error"]["code"] == code
    assert "Deployment" not in reply.text


async def test_a_gateway_that_died_before_it_answered_is_unavailable() -> None:
    async def died(scope: Any, receive: Any, send: Any) -> None:
        return None

    reply = await _get(died)
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "unavailable"
    assert reply.headers["retry-after"] == "1"


async def test_the_gateways_own_answers_pass_with_one_request_id() -> None:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        response = JSONResponse({"error": {"code": "mine"}}, 503)
        response.headers.append("x-request-id", "a")
        response.headers.append("X-Request-ID", "a")
        await response(scope, receive, send)

    reply = await _get(answer)
    assert reply.status_code == 503
    assert reply.json() == {"error": {"code": "mine"}}
    assert reply.headers.get_list("x-request-id") == ["a"]
