"""The end of the stack: answers at work are finished, new calls are refused, nothing stays."""

import asyncio
import signal
from pathlib import Path

import grpc.aio
import pytest

from services.deployments.processes import descendants
from services.pb.medmax.v1 import assistant_pb2, assistant_pb2_grpc, common_pb2
from tests.support.stack import listening, start, title

CALLS = 16


@pytest.mark.slow
async def test_stopping_finishes_answers_and_leaves_no_process(tmp_path: Path, model: Path) -> None:
    served = await asyncio.to_thread(
        start, tmp_path, "--http-port", "0", "--grpc-port", "0", "--checkpoint", str(model)
    )
    below = descendants(served.process.pid)
    assert any("raylet" in title(process.pid) for process in below)
    message = assistant_pb2.Message(role=assistant_pb2.ROLE_USER, parts=[assistant_pb2.Part(text="hello")])
    request = assistant_pb2.GenerateRequest(messages=[message], mode=common_pb2.OUTPUT_MODE_IMAGE)
    async with grpc.aio.insecure_channel(served.grpc) as channel:
        stub = assistant_pb2_grpc.AssistantStub(channel)
        first = [event async for event in stub.Generate(request)]

        async def outcome() -> str:
            try:
                return [event async for event in stub.Generate(request)][-1].WhichOneof("event")
            except grpc.aio.AioRpcError as error:
                return error.code().name

        calls = [asyncio.ensure_future(outcome()) for _ in range(CALLS)]
        while served.metric("medmax_requests_ongoing", service="llm") == 0:
            await asyncio.sleep(0)
        stopped = asyncio.create_task(asyncio.to_thread(served.stop, signal.SIGINT))
        outcomes = await asyncio.gather(*calls)
        status = await stopped
    assert first[-1].WhichOneof("event") == "finish"
    assert set(outcomes) <= {"finish", "UNAVAILABLE"}
    assert "finish" in outcomes
    assert status == 0
    left = {process for process in below | served.children if title(process.pid)}
    assert not left, [title(process.pid) for process in left]
    assert not listening({process.pid for process in below})
    assert "Traceback" not in served.log.read_text()
