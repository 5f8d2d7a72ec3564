"""A language model shared by two processes behind the real stack: it answers, and a dead rank is replaced."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc.aio
import pytest

from services.deployments.processes import descendants
from services.pb.medmax.v1 import assistant_pb2_grpc
from tests.e2e.test_kill import CALLS, _answer, _healed, _request
from tests.support.stack import LOOPBACK, Served, listening, running, title


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("ranks")
    ports = ("--http-port", "0", "--grpc-port", "0")
    yield from running(folder, *ports, "--checkpoint", str(model), MEDMAX_TENSOR_PARALLEL="2")


def ranks(stack: Served) -> list[int]:
    """Process ids of the ranks beside the replicas' own."""
    pids = [child.pid for child in descendants(stack.process.pid)]
    return [pid for pid in pids if "services.llm.parallel" in title(pid)]


@pytest.mark.slow
async def test_a_dead_rank_ends_its_replica_which_is_replaced(shared: Served, png: bytes) -> None:
    victims = ranks(shared)
    replicas = shared.replicas("llm")
    assert (len(victims), len(replicas)) == (1, 1)
    assert {address for address, _ in listening({*victims, *replicas})} <= LOOPBACK
    started = asyncio.Event()
    async with grpc.aio.insecure_channel(shared.grpc) as channel:
        stub = assistant_pb2_grpc.AssistantStub(channel)
        assert await _answer(stub, _request(0, png)) is not None
        calls = [asyncio.ensure_future(_answer(stub, _request(n, png), started)) for n in range(1, CALLS)]
        await asyncio.wait_for(started.wait(), 60)
        os.kill(victims[0], signal.SIGKILL)
        # Every caller gets an answer or an error that says why; none waits for ever.
        await asyncio.wait_for(asyncio.gather(*calls), 90)
        await _healed(shared, stub, png)
    assert not set(victims) & set(ranks(shared))
    assert len(ranks(shared)) == 1
    assert not set(replicas) & set(shared.replicas("llm"))
