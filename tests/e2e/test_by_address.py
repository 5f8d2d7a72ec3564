"""Each service alone as a plain gRPC server, a gateway pointed at them by address, keys on."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import httpx
import openai
import pytest

from services.pb.medmax.v1 import llm_pb2, llm_pb2_grpc, tokenizer_pb2, tokenizer_pb2_grpc
from tests.support.stack import Served, running

KEY = "k-123456"
HEADERS = {"authorization": f"Bearer {KEY}"}
KEYS = {"MEDMAX_API_KEYS": f"ward:{KEY}", "MEDMAX_SERVICE_KEY": KEY}
serving = contextmanager(running)


@pytest.fixture(scope="module")
def apart(
    tmp_path_factory: pytest.TempPathFactory, model: Path
) -> Iterator[tuple[Served, dict[str, Served]]]:
    folder = tmp_path_factory.mktemp("apart")
    with ExitStack() as stack:
        plain = {
            name: stack.enter_context(
                serving(folder / name, name, "--port", "0", "--checkpoint", str(model), **KEYS)
            )
            for name in ("tokenizer", "llm", "decoder")
        }
        addresses = {f"MEDMAX_{name.upper()}_ADDRESS": server.grpc for name, server in plain.items()}
        ports = ("--http-port", "0", "--grpc-port", "0", "--checkpoint", str(model))
        yield stack.enter_context(serving(folder / "gateway", *ports, **KEYS, **addresses)), plain


def test_the_gateway_answers_through_them(apart: tuple[Served, dict[str, Served]]) -> None:
    gateway, _ = apart
    assert gateway.replicas("gateway")
    assert not gateway.replicas("llm")
    client = openai.OpenAI(base_url=f"{gateway.http}/v1", api_key=KEY, max_retries=0)
    answer = client.chat.completions.create(
        model="medmax-phantom", messages=[{"role": "user", "content": "hi"}], max_tokens=4
    )
    assert answer.usage.completion_tokens >= 1
    assert client.images.generate(model="medmax-phantom", prompt="a chest radiograph").data[0].b64_json


def test_without_the_key_nothing_is_answered_anywhere(apart: tuple[Served, dict[str, Served]]) -> None:
    gateway, plain = apart
    body = {"messages": [{"role": "user", "content": "hi"}]}
    for headers in ({}, {"authorization": "Bearer wrong"}):
        reply = httpx.post(f"{gateway.http}/v1/chat/completions", json=body, headers=headers, trust_env=False)
        assert reply.status_code == 401
    for address in (gateway.grpc, plain["llm"].grpc):
        with grpc.insecure_channel(address) as channel:
            events = llm_pb2_grpc.LanguageModelStub(channel).Generate(
                llm_pb2.LanguageModelGenerateRequest(prompt_ids=[0]), timeout=10
            )
            with pytest.raises(grpc.RpcError) as caught:
                next(events)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    for address in (gateway.grpc, plain["tokenizer"].grpc):
        with grpc.insecure_channel(address) as channel:
            stub = tokenizer_pb2_grpc.ImageTokenizerStub(channel)
            with pytest.raises(grpc.RpcError) as caught:
                stub.Tokenize(tokenizer_pb2.TokenizeRequest(image=b"x"), timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            with pytest.raises(grpc.RpcError) as caught:
                stub.Tokenize(
                    tokenizer_pb2.TokenizeRequest(image=b"x"), timeout=10, metadata=list(HEADERS.items())
                )
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_service_that_is_gone_is_named_and_the_gateway_goes_on(
    apart: tuple[Served, dict[str, Served]],
) -> None:
    gateway, plain = apart
    assert httpx.get(f"{gateway.http}/readyz", trust_env=False).status_code == 200
    assert plain["decoder"].stop() == 0
    assert httpx.get(f"{gateway.http}/readyz", trust_env=False).status_code == 503
    client = openai.OpenAI(base_url=f"{gateway.http}/v1", api_key=KEY, max_retries=0)
    with pytest.raises(openai.InternalServerError) as caught:
        client.images.generate(model="medmax-phantom", prompt="a chest radiograph")
    assert caught.value.status_code == 503
    assert caught.value.code == "unavailable"
    assert client.chat.completions.create(
        model="medmax-phantom", messages=[{"role": "user", "content": "hi"}], max_tokens=2
    ).usage
