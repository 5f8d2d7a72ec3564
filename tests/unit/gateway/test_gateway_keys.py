"""Keys and rates on the wire, REST and gRPC."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import openai
import pytest
from pydantic import SecretStr
from rest_server import Server, serving, tiny_settings

from services.config import Settings
from services.gateway.auth import Gate, hash_key
from services.gateway.local import local_assistant
from services.gateway.servicer import AssistantServicer
from services.pb.medmax.v1 import assistant_pb2, assistant_pb2_grpc, common_pb2
from services.rpc import Server as RpcServer

KEYS = (SecretStr("ris:alpha"), SecretStr(f"pacs:{hash_key('beta')}"), SecretStr("slow:gamma"))
CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}


def with_key(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def locked(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = tiny_settings(
        checkpoint, tmp_path_factory.mktemp("locked"), api_keys=KEYS, requests_per_minute=20
    )
    with serving(settings) as server:
        yield server


@pytest.fixture(scope="module")
def rest(locked: Server) -> Iterator[httpx.Client]:
    with locked.client() as client:
        yield client


@pytest.mark.parametrize(
    "headers", [{}, with_key("wrong"), {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer"}]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", CHAT),
        ("POST", "/v1/images/generations"),
        ("POST", "/v1/feedback"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/medmax-phantom"),
        ("GET", "/v1/interactions/int_00000000000000000000000000000000"),
        ("GET", "/metrics"),
    ],
)
def test_without_a_right_key_nothing_is_told(
    rest: httpx.Client, method: str, path: str, headers: dict[str, str]
) -> None:
    reply = rest.request(method, path, headers=headers)
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"].startswith("Bearer")
    assert reply.json()["error"]["code"] == "unauthenticated"


def test_openai_client_tells_a_wrong_key(locked: Server) -> None:
    with (
        openai.OpenAI(base_url=f"{locked.url}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()


def test_health_and_docs_stay_open(rest: httpx.Client) -> None:
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
        assert rest.get(path).status_code == 200


def test_interaction_belongs_to_its_key(rest: httpx.Client) -> None:
    made = rest.post(CHAT, json=BODY, headers=with_key("alpha")).json()
    url = f"/v1/interactions/{made['interaction_id']}"
    assert rest.get(url, headers=with_key("alpha")).json()["caller"] == "ris"
    assert rest.get(url, headers=with_key("beta")).status_code == 404
    feedback = {"interaction_id": made["interaction_id"], "flag": True}
    assert rest.post("/v1/feedback", json=feedback, headers=with_key("beta")).status_code == 404


def test_key_over_its_rate_is_told_when_to_come_back(rest: httpx.Client) -> None:
    replies = [rest.get("/v1/models", headers=with_key("gamma")) for _ in range(21)]
    assert [reply.status_code for reply in replies] == [200] * 20 + [429]
    assert 1 <= int(replies[-1].headers["retry-after"]) <= 3
    error = replies[-1].json()["error"]
    assert (error["code"], error["type"]) == ("rate_limited", "rate_limit_error")
    assert "20 requests per minute" in error["message"]
    assert rest.get("/v1/models", headers=with_key("alpha")).status_code == 200


@pytest.fixture
async def stub(settings: Settings) -> AsyncIterator[Any]:
    settings = settings.model_copy(update={"api_keys": KEYS})
    async with local_assistant(settings) as assistant:
        gate = Gate(settings)
        servicer = AssistantServicer(assistant, gate)
        server = await RpcServer({"gateway": servicer}, "127.0.0.1", 0, settings).start()
        async with grpc.aio.insecure_channel(server.address) as channel:
            yield assistant_pb2_grpc.AssistantStub(channel)
        await server.stop(1)


def question(**fields: Any) -> assistant_pb2.GenerateRequest:
    part = assistant_pb2.Part(text="x")
    message = assistant_pb2.Message(role=assistant_pb2.ROLE_USER, parts=[part])
    return assistant_pb2.GenerateRequest(messages=[message], **{"max_new_tokens": 2, **fields})


METADATA = (("authorization", "Bearer alpha"),)


async def failure(call: Any) -> grpc.aio.AioRpcError:
    """How a call ends that must fail, streamed or not."""
    try:
        if hasattr(call, "__aiter__"):
            _ = [event async for event in call]
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the call did not fail")


async def test_grpc_answers_with_a_key_and_keeps_the_record(stub: Any) -> None:
    events = [event async for event in stub.Generate(question(), metadata=METADATA)]
    interaction_id = events[-1].finish.interaction_id
    asked = assistant_pb2.GetInteractionRequest(interaction_id=interaction_id)
    assert (await stub.GetInteraction(asked, metadata=METADATA)).caller == "ris"
    given = assistant_pb2.SubmitFeedbackRequest(interaction_id=interaction_id, rating=5)
    assert (await stub.SubmitFeedback(given, metadata=METADATA)).feedback_id.startswith("fbk_")
    others = (("authorization", "Bearer beta"),)
    assert (await failure(stub.GetInteraction(asked, metadata=others))).code() is grpc.StatusCode.NOT_FOUND


async def test_grpc_without_a_key_is_unauthenticated(stub: Any) -> None:
    for metadata in ((), (("authorization", "Bearer wrong"),)):
        assert (
            await failure(stub.Generate(question(), metadata=metadata))
        ).code() is grpc.StatusCode.UNAUTHENTICATED


async def test_grpc_names_the_field_of_bad_input(stub: Any) -> None:
    sampling = common_pb2.Sampling(temperature=float("nan"))
    error = await failure(stub.Generate(question(sampling=sampling), metadata=METADATA))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "sampling.temperature: must be a number from 0 to 2" in (error.details() or "")
    assert dict(error.trailing_metadata() or ())["medmax-field"] == "sampling.temperature"


async def test_grpc_deadline_of_the_transport_counts(stub: Any, long_prompt: str) -> None:
    request = question(max_new_tokens=500)
    request.messages[0].parts[0].text = long_prompt
    request.sampling.temperature, request.sampling.repetition_penalty = 0, 1
    begun = time.monotonic()
    error = await failure(stub.Generate(request, metadata=METADATA, timeout=0.15))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - begun < 2


async def test_grpc_request_over_the_limit_is_refused_by_name(stub: Any) -> None:
    request = question()
    request.messages[0].parts.add(image=assistant_pb2.ImagePart(data=bytes(33 << 20)))
    error = await failure(stub.Generate(request, metadata=METADATA))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "request: at most 33,554,432 bytes" in (error.details() or "")
