"""`kill -9` of any replica while answers stream: an error or an answer, then service again, the record whole."""

import asyncio
import os
import signal
from collections import Counter

import grpc
import grpc.aio
import httpx
import pytest

from services.pb.medmax.v1 import assistant_pb2, assistant_pb2_grpc, common_pb2
from tests.support.stack import Served

CALLS = 24
HEALED_WITHIN_S = 60.0
HONEST = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


def _request(number: int, png: bytes) -> assistant_pb2.GenerateRequest:
    # Bytes after the end of a PNG change its hash, so that the tokenizer's cache does not answer.
    picture = assistant_pb2.Part(image=assistant_pb2.ImagePart(data=png + number.to_bytes(4)))
    message = assistant_pb2.Message(
        role=assistant_pb2.ROLE_USER, parts=[picture, assistant_pb2.Part(text="Draw it again.")]
    )
    mode = common_pb2.OUTPUT_MODE_IMAGE if number % 2 else common_pb2.OUTPUT_MODE_TEXT
    context = common_pb2.RequestContext(timeout_ms=60_000)
    return assistant_pb2.GenerateRequest(messages=[message], mode=mode, context=context)


async def _answer(
    stub: assistant_pb2_grpc.AssistantStub, request, started: asyncio.Event | None = None
) -> str | None:
    """Id of the stored interaction; None where the call failed with a status that says so."""
    try:
        finish = None
        async for event in stub.Generate(request, timeout=90):
            if started is not None:
                started.set()
            if event.WhichOneof("event") == "finish":
                finish = event.finish
    except grpc.aio.AioRpcError as error:
        if error.code() not in HONEST or "Traceback" in (error.details() or ""):
            raise
        return None
    assert finish is not None, "a stream that ends well has a finish"
    return finish.interaction_id


async def _healed(stack: Served, stub: assistant_pb2_grpc.AssistantStub, png: bytes) -> None:
    async with asyncio.timeout(HEALED_WITHIN_S):
        for number in range(1000, 2000):
            if await _answer(stub, _request(number, png)) is not None:
                break
            await asyncio.sleep(0.2)
    # From then on every call is answered.
    answers = await asyncio.gather(*(_answer(stub, _request(number, png)) for number in range(2000, 2004)))
    assert None not in answers


@pytest.mark.slow
@pytest.mark.parametrize("deployment", ["llm", "tokenizer", "decoder", "gateway"])
async def test_a_killed_replica(stack: Served, png: bytes, deployment: str) -> None:
    before = set(stack.stored_ids())
    victims = stack.replicas(deployment)
    assert victims
    started = asyncio.Event()
    async with grpc.aio.insecure_channel(stack.grpc) as channel:
        stub = assistant_pb2_grpc.AssistantStub(channel)
        calls = [asyncio.ensure_future(_answer(stub, _request(n, png), started)) for n in range(CALLS)]
        await asyncio.wait_for(started.wait(), 60)
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        finished = [answer for answer in await asyncio.gather(*calls) if answer]
        await _healed(stack, stub, png)
    assert not set(victims) & set(stack.replicas(deployment))

    stored = Counter(stack.stored_ids())
    assert set(stored.values()) == {1}
    assert set(finished) <= set(stored), "an answer that was given is stored"
    assert len(set(finished)) == len(finished)
    assert len(set(stored) - before) <= CALLS + 1000
    for interaction in finished:
        reply = httpx.get(f"{stack.http}/v1/interactions/{interaction}", trust_env=False)
        assert reply.status_code == 200
