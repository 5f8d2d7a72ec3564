"""The processes of a shared model: a clean end when one of them dies, none left behind."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from services.checkpoint import Checkpoint, open_checkpoint
from services.errors import CheckpointError, Unavailable
from services.llm.engine import Engine
from services.llm.request import GenerationRequest, OutputMode, SamplingRequest
from tests.support.tiny import tiny_checkpoint
from tests.unit.llm.conftest import shared
from tests.unit.llm.test_llm_engine import collect
from tests.unit.llm.test_llm_equivalence import prompt

LONG = SamplingRequest(temperature=2, top_p=1, seed=1)


def processes(engine: Engine) -> list[int]:
    assert engine._team is not None
    return [process.pid for process, _ in engine._team._workers]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("during", ["work", "idleness"])
async def test_a_rank_that_dies_ends_the_replica_with_an_error_to_every_caller(
    checkpoint: Checkpoint, during: str
) -> None:
    with shared(checkpoint, 2) as engine:
        victim = processes(engine)[0]
        engine.check_health()
        request = GenerationRequest(prompt(checkpoint, 1, 5, 0), OutputMode.TEXT, 100, sampling=LONG)
        if during == "work":
            streams = [engine.submit(request) for _ in range(3)]
            await anext(aiter(streams[0]))
        os.kill(victim, signal.SIGKILL)
        if during == "idleness":
            with pytest.raises(Unavailable, match="rank"):
                await unhealthy(engine)
            streams = [engine.submit(request)]
        outcomes = await asyncio.wait_for(
            asyncio.gather(*map(collect, streams), return_exceptions=True), timeout=30
        )
        assert [type(outcome) for outcome in outcomes] == [Unavailable] * len(streams)
        with pytest.raises(Unavailable):
            engine.check_health()
        with pytest.raises(Unavailable):
            engine.submit(request)
    assert not alive(victim)


async def unhealthy(engine: Engine) -> None:
    """Ask for the health for ten seconds: a process is gone only when all its threads are."""
    for _ in range(1000):
        engine.check_health()
        await asyncio.sleep(0.01)


def test_closing_ends_every_rank(checkpoint: Checkpoint) -> None:
    with shared(checkpoint, 2) as engine:
        ranks = processes(engine)
        assert all(map(alive, ranks))
    assert not any(map(alive, ranks))


def test_a_model_that_does_not_divide_is_refused_and_leaves_no_process(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(
        tiny_checkpoint(tmp_path, hidden_size=24, num_attention_heads=3, num_key_value_heads=3)
    )
    with pytest.raises(CheckpointError, match="shared by 2 ranks"), shared(checkpoint, 2):
        pass
    with shared(checkpoint, 3):
        pass
