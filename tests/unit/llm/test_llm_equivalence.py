"""The engine against the slow and obvious computation: same greedy answers, whatever runs beside them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.checkpoint import Checkpoint, open_checkpoint
from services.config import DType, Settings
from services.llm.engine import Engine
from services.llm.events import Answer, Finish, Picture, Text
from services.llm.model import Chameleon
from services.llm.request import GenerationRequest, OutputMode, SamplingRequest
from tests.support import naive_llm
from tests.support.tiny import CODES_PER_IMAGE, N_CODES, tiny_checkpoint

SPAN = CODES_PER_IMAGE + 2


def prompt(checkpoint: Checkpoint, seed: int, length: int, pictures: int) -> list[int]:
    """`pictures` spans of random codes, then `length` random text ids and end-of-turn."""
    v, random = checkpoint.vocabulary, np.random.default_rng(seed)
    spans = [i for _ in range(pictures) for i in v.image_span(random.integers(0, N_CODES, CODES_PER_IMAGE))]
    return [v.bos, *spans, *random.choice(v.text_ids, length).tolist(), v.end_of_turn]


@st.composite
def requests(draw: st.DrawFn, adapters: tuple[str, ...] = ("",)) -> dict[str, object]:
    """Arguments of a greedy request, apart from the prompt's ids, under one of `adapters`."""
    mode = draw(st.sampled_from(list(OutputMode)))
    least = SPAN if mode is OutputMode.IMAGE else 1
    guidance = st.sampled_from([0.0, 1.0, 1.2, 3.0])
    return {
        "seed": draw(st.integers(0, 1000)),
        "length": draw(st.integers(0, 20)),
        "pictures": draw(st.integers(0, 2)),
        "mode": mode,
        "max_new_tokens": draw(st.one_of(st.none(), st.integers(least, 60))),
        "max_images": draw(st.one_of(st.none(), st.integers(mode is OutputMode.IMAGE, 3))),
        "sampling": SamplingRequest(
            temperature=0,
            image_temperature=0,
            repetition_penalty=draw(st.sampled_from([1.0, 1.2])),
            guidance_text=draw(guidance),
            guidance_image=draw(guidance),
        ),
        "top_logprobs": 0,
        "adapter": draw(st.sampled_from(adapters)),
    }


def mixes(least: int, most: int) -> st.SearchStrategy[list[dict[str, object]]]:
    """Requests beside each other: all of the base, or of the base and of two adapters."""
    names: list[tuple[str, ...]] = [("",), ("", "wide", "narrow")]
    return st.sampled_from(names).flatmap(
        lambda adapters: st.lists(requests(adapters), min_size=least, max_size=most)
    )


def build(checkpoint: Checkpoint, arguments: dict[str, object]) -> GenerationRequest:
    rest = {k: v for k, v in arguments.items() if k not in {"seed", "length", "pictures"}}
    ids = prompt(checkpoint, arguments["seed"], arguments["length"], arguments["pictures"])
    return GenerationRequest(ids, **rest)


def assert_same(checkpoint: Checkpoint, got: Answer, expected: naive_llm.NaiveAnswer, prompt: int) -> None:
    parts = []
    for part in got.parts:
        if isinstance(part, Picture):
            parts.append(("image", list(part.codes)))
        elif parts and parts[-1][0] == "text":
            parts[-1][1].extend(part.token_ids)
        else:
            parts.append(("text", list(part.token_ids)))
    assert parts == expected.parts
    finish = got.finish
    assert finish.reason.value == expected.reason
    logprobs = [entry.logprob for part in got.parts if isinstance(part, Text) for entry in part.logprobs]
    assert logprobs == pytest.approx(expected.logprobs, abs=1e-3)
    codes = [part.confidence for part in got.pictures]
    per_picture = np.reshape(expected.code_logprobs, (-1, CODES_PER_IMAGE))
    assert [c.mean_logprob for c in codes] == pytest.approx(per_picture.mean(1).tolist(), abs=1e-3)
    assert [c.min_logprob for c in codes] == pytest.approx(per_picture.min(1).tolist(), abs=1e-3)
    assert finish.text_confidence.tokens == len(expected.logprobs)
    if expected.logprobs:
        assert finish.text_confidence.mean_logprob == pytest.approx(np.mean(expected.logprobs), abs=1e-3)
        assert finish.text_confidence.min_logprob == pytest.approx(min(expected.logprobs), abs=1e-3)
    usage = finish.usage
    assert usage.prompt_tokens == prompt
    assert usage.images == len(codes)
    assert usage.completion_tokens == expected.completion_tokens
    assert usage.completion_image_tokens == len(expected.code_logprobs)


@pytest.mark.parametrize("shape", ["mha", "gqa_swin"])
@given(mix=mixes(1, 8))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_mix_answers_as_each_request_would_alone_without_a_cache(
    shape: str,
    mix: list[dict[str, object]],
    engines: dict[str, Engine],
    checkpoints: dict[str, Checkpoint],
    references: dict[tuple[str, str], Chameleon],
) -> None:
    checkpoint = checkpoints[shape]
    asked = [build(checkpoint, arguments) for arguments in mix]
    answers = engines[shape].generate_batch(asked)
    for request, got in zip(asked, answers, strict=True):
        expected = naive_llm.answer(checkpoint, references[shape, request.adapter], request)
        assert_same(checkpoint, got, expected, len(request.prompt_ids))
    engines[shape].check_integrity()


@given(
    mix=st.lists(st.tuples(requests(), st.one_of(st.none(), st.integers(0, 12))), min_size=2, max_size=10),
    kept=requests(),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_cancelling_neighbours_at_any_moment_changes_no_answer_and_leaks_no_row(
    mix: list[tuple[dict[str, object], int | None]],
    kept: dict[str, object],
    engines: dict[str, Engine],
    checkpoints: dict[str, Checkpoint],
    models: dict[str, Chameleon],
) -> None:
    engine, checkpoint = engines["mha"], checkpoints["mha"]

    async def read(arguments: dict[str, object], patience: int | None) -> Answer | None:
        """The answer, or None after letting go of it at event number `patience`."""
        parts = []
        async for event in engine.submit(build(checkpoint, arguments)):
            if isinstance(event, Finish):
                return Answer(tuple(parts), event)
            parts.append(event)
            if len(parts) == patience:
                return None
        raise AssertionError("the stream ended without a finish")

    async def run() -> Answer | None:
        others = [asyncio.ensure_future(read(arguments, patience)) for arguments, patience in mix]
        answer = await read(kept, None)
        for index, task in enumerate(others):
            if index % 2:
                task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        return answer

    answer = asyncio.run(run())
    request = build(checkpoint, kept)
    expected = naive_llm.answer(checkpoint, models["mha"], request)
    assert answer is not None
    assert_same(checkpoint, answer, expected, len(request.prompt_ids))
    engine.check_integrity()


def test_the_differential_test_meets_every_kind_of_answer(engine: Engine, checkpoint: Checkpoint) -> None:
    """Guards the tests above: random weights do begin pictures, end turns and run out of room."""
    greedy = SamplingRequest(temperature=0, image_temperature=0)
    asked = [
        GenerationRequest(prompt(checkpoint, seed, 8, seed % 3), OutputMode.INTERLEAVED, 60, sampling=greedy)
        for seed in range(24)
    ]
    answers = engine.generate_batch(asked)
    assert any(len(a.pictures) > 1 for a in answers)
    assert any(a.pictures and a.text for a in answers)
    assert {a.finish.reason.value for a in answers} == {"stop", "length"}


def test_an_engine_too_small_for_all_at_once_still_answers_all(
    checkpoint: Checkpoint, engine: Engine
) -> None:
    asked = [
        GenerationRequest(
            prompt(checkpoint, seed, 5, seed % 2), mode, 40, sampling=SamplingRequest(seed=seed)
        )
        for seed in range(6)
        for mode in OutputMode
    ]
    narrow = Engine(checkpoint, Settings(threads=1, max_batch=3))
    try:
        alone = narrow.generate_batch(asked)
        narrow.check_integrity()
    finally:
        narrow.close()
    together = engine.generate_batch(asked)
    assert _content(alone) == _content(together)


def _content(answers: list[Answer]) -> list[tuple[str, list[tuple[int, ...]]]]:
    return [(a.text, [p.codes for p in a.pictures]) for a in answers]


def test_half_precision_answers_and_keeps_the_grammar(tmp_path: Path) -> None:
    half = open_checkpoint(tiny_checkpoint(tmp_path))
    engine = Engine(half, Settings(threads=1, dtype=DType.BFLOAT16))
    try:
        answers = engine.generate_batch(
            [GenerationRequest(prompt(half, seed, 6, 1), OutputMode.INTERLEAVED, 60) for seed in range(4)]
        )
        assert all(len(p.codes) == CODES_PER_IMAGE for a in answers for p in a.pictures)
    finally:
        engine.close()
