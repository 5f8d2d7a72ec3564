"""Cache blocks under pressure: reuse of prefixes, preemption, chunked reading. Answers never show any of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.checkpoint import Checkpoint
from services.config import Settings
from services.llm.engine import GUIDED_ROWS, Engine
from services.llm.events import Answer
from services.llm.kv_cache import blocks_for
from services.llm.model import Chameleon
from services.llm.request import GenerationRequest, OutputMode, Priority, SamplingRequest
from tests.support import naive_llm
from tests.unit.llm.test_llm_engine import collect
from tests.unit.llm.test_llm_equivalence import assert_same, build, mixes, prompt


@contextmanager
def engine_with(checkpoint: Checkpoint, *, blocks: int | None = None, **changes: object) -> Iterator[Engine]:
    """An engine in float64 that must be in order when it is done with."""
    engine = Engine(checkpoint, Settings(threads=1, **changes), dtype=torch.float64, blocks=blocks)
    try:
        yield engine
        engine.check_integrity()
        assert engine.stats().blocks_held == 0
    finally:
        engine.close()


def least(checkpoint: Checkpoint) -> int:
    """Blocks of the smallest cache that is allowed."""
    return GUIDED_ROWS * blocks_for(checkpoint.config.context)


@pytest.mark.parametrize("shape", ["mha", "gqa_swin"])
@given(
    mix=mixes(2, 10),
    priorities=st.lists(st.sampled_from(Priority), min_size=10, max_size=10),
    chunk=st.sampled_from([16, 17, 40, 2048]),
    rows=st.integers(3, 12),
    reuse=st.booleans(),
    window=st.sampled_from([1, 2, 5, 16]),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_mix_in_the_smallest_cache_answers_as_each_request_would_alone(
    shape: str,
    mix: list[dict[str, object]],
    priorities: list[Priority],
    chunk: int,
    rows: int,
    reuse: bool,
    window: int,
    checkpoints: dict[str, Checkpoint],
    references: dict[tuple[str, str], Chameleon],
    adapters: dict[str, dict[str, Path]],
) -> None:
    checkpoint = checkpoints[shape]
    asked = [
        build(checkpoint, {**arguments, "priority": priority})
        for arguments, priority in zip(mix, priorities, strict=False)
    ]
    with engine_with(
        checkpoint,
        blocks=least(checkpoint),
        max_batch=rows,
        prefill_tokens=chunk,
        prefix_cache=reuse,
        speculative_codes=window,
        adapters=adapters[shape] if any(request.adapter for request in asked) else {},
    ) as engine:
        answers = engine.generate_batch(asked)
    for request, got in zip(asked, answers, strict=True):
        expected = naive_llm.answer(checkpoint, references[shape, request.adapter], request)
        assert_same(checkpoint, got, expected, len(request.prompt_ids))


def test_preempted_answers_are_what_they_would_have_been(checkpoint: Checkpoint) -> None:
    """Guided pictures and long texts with seeds, in a cache that holds a third of them."""
    asked = [
        GenerationRequest(
            prompt(checkpoint, seed, 8, seed % 2),
            mode,
            90,
            sampling=SamplingRequest(seed=seed, temperature=1.5),
        )
        for seed in range(6)
        for mode in OutputMode
    ]
    with engine_with(checkpoint, max_batch=64) as roomy:
        expected = roomy.generate_batch(asked)
        assert roomy.stats().preempted == 0
    with engine_with(checkpoint, max_batch=64, blocks=least(checkpoint)) as narrow:
        answers = narrow.generate_batch(asked)
        assert narrow.stats().preempted > 0
    assert list(map(_content, answers)) == list(map(_content, expected))
    assert [a.finish.usage for a in answers] == [a.finish.usage for a in expected]


async def test_an_emergency_takes_the_place_of_routine_work_which_goes_on_after_it(
    checkpoint: Checkpoint,
) -> None:
    long = GenerationRequest(
        prompt(checkpoint, 1, 8, 0),
        OutputMode.TEXT,
        100,
        sampling=SamplingRequest(temperature=2, top_p=1, seed=1),
    )
    urgent = replace(long, max_new_tokens=2, priority=Priority.STAT)
    with engine_with(checkpoint) as roomy:
        expected = _content((await asyncio.to_thread(roomy.generate_batch, [long]))[0])
    order: list[str] = []
    with engine_with(checkpoint, max_batch=3) as engine:

        async def ask(name: str, request: GenerationRequest) -> Answer:
            stream = engine.submit(request)
            answer = await collect(stream)
            order.append(name)
            return answer

        routine = [asyncio.create_task(ask("routine", long)) for _ in range(3)]
        while engine.stats().active < 3:
            await asyncio.sleep(0)
        await ask("stat", urgent)
        assert order == ["stat"]
        answers = await asyncio.gather(*routine)
        assert engine.stats().preempted == 1
    assert [_content(answer) for answer in answers] == [expected] * 3


def test_ten_questions_about_one_picture_read_it_once(checkpoint: Checkpoint) -> None:
    v = checkpoint.vocabulary
    picture = [v.bos, *v.image_span(range(16)), *v.image_span(range(16, 32)), *v.image_span(range(16))]
    asked = [
        GenerationRequest([*picture, *v.encode(f"q{i}"), v.end_of_turn], OutputMode.TEXT, 1)
        for i in range(10)
    ]
    with engine_with(checkpoint, max_batch=16) as engine:
        engine.generate_batch(asked[:1])
        one = engine.stats()
    with engine_with(checkpoint, max_batch=16) as engine:
        answers = engine.generate_batch(asked)
        ten = engine.stats()
    own = sum(len(request.prompt_ids) for request in asked) - 10 * len(picture)
    shared = len(picture) // 16 * 16
    assert ten.read_tokens <= one.read_tokens + own + 9 * (len(picture) - shared)
    assert sorted(a.finish.usage.cached_tokens for a in answers) == [0] + [shared] * 9


def test_the_next_turn_of_a_dialogue_reads_its_own_words_alone(checkpoint: Checkpoint) -> None:
    first = prompt(checkpoint, 1, 20, 1)
    with engine_with(checkpoint) as engine:
        greedy = SamplingRequest(temperature=0)
        answer = engine.generate_batch([GenerationRequest(first, OutputMode.TEXT, 30, sampling=greedy)])[0]
        said = [*first, *answer.token_ids]
        before = engine.stats().read_tokens
        second = [*said, checkpoint.vocabulary.end_of_turn, 50, 51]
        engine.generate_batch([GenerationRequest(second, OutputMode.TEXT, 1)])
        assert engine.stats().read_tokens - before <= len(second) - (len(said) - 1) // 16 * 16


def test_without_the_prefix_cache_nothing_is_kept(checkpoint: Checkpoint) -> None:
    with engine_with(checkpoint, prefix_cache=False) as engine:
        request = GenerationRequest(prompt(checkpoint, 1, 20, 2), OutputMode.TEXT, 4)
        for _ in range(2):
            assert engine.generate_batch([request])[0].finish.usage.cached_tokens == 0
        assert engine.stats().blocks_cached == 0


async def test_a_long_prompt_is_read_in_pieces_between_the_steps_of_the_others(
    checkpoint: Checkpoint,
) -> None:
    long = prompt(checkpoint, 3, 100, 0)
    with engine_with(checkpoint, prefill_tokens=16) as engine:
        before = engine.stats().steps
        await asyncio.to_thread(engine.generate_batch, [GenerationRequest(long, OutputMode.TEXT, 1)])
        assert engine.stats().steps - before == -(-len(long) // 16)


@pytest.mark.parametrize("length", [31, 32, 33, 47, 48, 49])
def test_a_prompt_is_found_by_others_as_soon_as_it_is_read_however_it_was_cut(
    checkpoint: Checkpoint, length: int
) -> None:
    v = checkpoint.vocabulary
    ids = [v.bos, *v.text_ids[:length].tolist()][:length]
    asked = [GenerationRequest(ids, OutputMode.TEXT, 40, sampling=SamplingRequest(seed=i)) for i in range(2)]
    with engine_with(checkpoint, prefill_tokens=length - 1) as engine:
        first, second = engine.generate_batch(asked)
        assert second.finish.usage.cached_tokens == (length - 1) // 16 * 16
        # They run side by side: the second does not wait until the first has finished.
        longest = max(answer.finish.usage.completion_tokens for answer in (first, second))
        assert engine.stats().steps <= longest + 6


def _content(answer: Answer) -> tuple[object, ...]:
    return answer.text, answer.token_ids, [picture.codes for picture in answer.pictures]
