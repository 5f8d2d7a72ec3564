"""Ten thousand short requests of every kind through one engine: none lost, nothing left behind, flat memory."""

from __future__ import annotations

import asyncio
import random
import resource
from pathlib import Path

import pytest

from services.checkpoint import Checkpoint, open_checkpoint
from services.config import Settings
from services.deadline import Deadline
from services.errors import Cancelled, DeadlineExceeded
from services.llm.engine import GUIDED_ROWS, Engine
from services.llm.events import Finish
from services.llm.kv_cache import blocks_for
from services.llm.request import GenerationRequest, OutputMode, Priority, SamplingRequest
from tests.support.tiny import tiny_checkpoint

REQUESTS, AT_ONCE = 10_000, 64


def request(checkpoint: Checkpoint, number: int) -> GenerationRequest:
    """Every kind: pictures in and out, shared prefixes, guidance, priorities, deadlines that pass."""
    dice, v = random.Random(number), checkpoint.vocabulary
    picture = v.image_span([dice.randrange(4)] * 16) if dice.random() < 0.5 else []
    words = [int(v.text_ids[dice.randrange(len(v.text_ids))]) for _ in range(dice.randrange(1, 20))]
    mode = dice.choices(list(OutputMode), weights=(8, 1, 2))[0]
    return GenerationRequest(
        [v.bos, *picture, *words],
        mode,
        max_new_tokens=None if mode is OutputMode.IMAGE else dice.randrange(1, 12),
        sampling=SamplingRequest(seed=number, guidance_text=dice.choice([1.0, 3.0])),
        priority=dice.choice(list(Priority)),
        deadline=Deadline.after(1, 10) if dice.random() < 0.02 else None,
        caller=dice.choice("abc"),
    )


def resident() -> int:
    """Memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.slow
def test_ten_thousand_requests_leave_nothing_behind(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint(tmp_path))
    blocks = (GUIDED_ROWS + 1) * blocks_for(checkpoint.config.context)
    engine = Engine(checkpoint, Settings(threads=1, max_batch=24), blocks=blocks)
    outcomes = {"answered": 0, "given up": 0, "too late": 0}
    memory: list[int] = []

    async def one(number: int) -> None:
        patience = 2 if number % 50 == 0 else None
        try:
            async for index, event in enumerated(engine.submit(request(checkpoint, number))):
                if isinstance(event, Finish):
                    outcomes["answered"] += 1
                elif index == patience:
                    outcomes["given up"] += 1
                    return
        except (DeadlineExceeded, Cancelled):
            outcomes["too late"] += 1

    async def run() -> None:
        gate = asyncio.Semaphore(AT_ONCE)

        async def gated(number: int) -> None:
            async with gate:
                await one(number)
                if number % 500 == 0:
                    memory.append(resident())

        await asyncio.gather(*map(gated, range(REQUESTS)))

    try:
        asyncio.run(run())
    finally:
        engine.close()
    engine.check_integrity()
    stats = engine.stats()
    assert sum(outcomes.values()) == REQUESTS
    assert outcomes["answered"] > 0.9 * REQUESTS
    assert stats.finished + stats.failed == REQUESTS
    assert (stats.active, stats.waiting, stats.rows, stats.blocks_held) == (0, 0, 0, 0)
    assert stats.preempted > 0
    assert stats.cached_tokens > 0
    # The second half must not need more than the first did, but for what an allocator keeps.
    half = len(memory) // 2
    assert max(memory[half:]) - max(memory[:half]) < 16 << 20


async def enumerated(stream):  # type: ignore[no-untyped-def]
    """The stream's events with their numbers."""
    index = 0
    async for event in stream:
        yield index, event
        index += 1
