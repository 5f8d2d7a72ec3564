"""A caller who goes away frees the engine."""

import asyncio

import grpc.aio
import httpx

from services.pb.medmax.v1 import assistant_pb2, assistant_pb2_grpc, common_pb2
from tests.support.stack import Served, wait_until

CALLS = 96
FREED_WITHIN_S = 5


def _cancelled(stack: Served) -> float:
    return stack.metric("medmax_requests_total", service="llm", code="cancelled")


async def _begun(stack: Served) -> None:
    """Until the engine has some of the calls: who hangs up before that has nothing to free."""
    ongoing = lambda: stack.metric("medmax_requests_ongoing", service="llm") > 0  # noqa: E731
    await asyncio.to_thread(wait_until, ongoing, 30, "the engine has work")


def _check_freed(stack: Served, before: float) -> None:
    wait_until(
        lambda: stack.metric("medmax_requests_ongoing", service="llm") == 0,
        FREED_WITHIN_S,
        "no work for those gone",
    )
    assert _cancelled(stack) > before
    wait_until(
        lambda: stack.metric("medmax_engine", figure="active") == 0, FREED_WITHIN_S, "no live sequence"
    )
    assert httpx.get(f"{stack.http}/readyz", trust_env=False).status_code == 200


async def test_http_callers_who_hang_up(stack: Served) -> None:
    before = _cancelled(stack)
    async with httpx.AsyncClient(
        trust_env=False, timeout=60, limits=httpx.Limits(max_connections=CALLS)
    ) as client:
        body = {"prompt": "a brain MRI"}
        calls = [
            asyncio.ensure_future(client.post(f"{stack.http}/v1/images/generations", json=body))
            for _ in range(CALLS)
        ]
        await _begun(stack)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    await asyncio.to_thread(_check_freed, stack, before)


async def test_grpc_callers_who_hang_up(stack: Served) -> None:
    before = _cancelled(stack)
    message = assistant_pb2.Message(
        role=assistant_pb2.ROLE_USER, parts=[assistant_pb2.Part(text="a fundus photo")]
    )
    request = assistant_pb2.GenerateRequest(messages=[message], mode=common_pb2.OUTPUT_MODE_IMAGE)
    async with grpc.aio.insecure_channel(stack.grpc) as channel:
        stub = assistant_pb2_grpc.AssistantStub(channel)
        calls = [stub.Generate(request) for _ in range(CALLS)]
        await _begun(stack)
        for call in calls:
            call.cancel()
        await asyncio.gather(*(call.code() for call in calls))
    await asyncio.to_thread(_check_freed, stack, before)


async def test_a_deadline_in_mid_stream_ends_with_its_code(stack: Served) -> None:
    message = assistant_pb2.Message(
        role=assistant_pb2.ROLE_USER, parts=[assistant_pb2.Part(text="tell me all")]
    )
    context = common_pb2.RequestContext(timeout_ms=250)
    request = assistant_pb2.GenerateRequest(
        messages=[message], mode=common_pb2.OUTPUT_MODE_IMAGE, context=context
    )
    async with grpc.aio.insecure_channel(stack.grpc) as channel:
        stub = assistant_pb2_grpc.AssistantStub(channel)

        async def outcome() -> str:
            try:
                return [event async for event in stub.Generate(request)][-1].WhichOneof("event")
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise
                return str(dict(error.trailing_metadata())["medmax-code"])

        outcomes = await asyncio.gather(*(outcome() for _ in range(CALLS)))
    assert set(outcomes) <= {"finish", "deadline_exceeded"}
    assert "deadline_exceeded" in outcomes
