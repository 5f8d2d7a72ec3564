from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from services.checkpoint import Checkpoint
from services.config import Settings
from services.deadline import Deadline
from services.errors import (
    ConfigurationError,
    DeadlineExceeded,
    InternalError,
    InvalidInput,
    Overloaded,
    Unavailable,
)
from services.llm.compute import Computer, Work
from services.llm.engine import Engine
from services.llm.events import Answer, Finish, FinishReason, Picture, Preview, Text
from services.llm.model import Chameleon
from services.llm.request import GenerationRequest, OutputMode, Priority, Sampling, SamplingRequest
from services.llm.sequence import guidance_weights, most_companions
from services.llm.stream import Stream
from services.llm.validation import resolve
from tests.support.tiny import CODES_PER_IMAGE

TEXT, IMAGE, BOTH = OutputMode.TEXT, OutputMode.IMAGE, OutputMode.INTERLEAVED
SPAN = CODES_PER_IMAGE + 2
LONG = SamplingRequest(temperature=2, top_p=1, seed=1)


def prompt(checkpoint: Checkpoint, text: str = "a question") -> list[int]:
    v = checkpoint.vocabulary
    return [v.bos, *v.encode(text), v.end_of_turn]


async def collect(stream: Stream) -> Answer:
    parts: list[Text | Picture] = []
    async for event in stream:
        if isinstance(event, Finish):
            return Answer(tuple(parts), event)
        parts.append(event)
    raise AssertionError("the stream ended without a finish")


async def settle(engine: Engine) -> None:
    """Until the engine has nothing to do."""
    give_up = Deadline.after(0, 10)
    while engine.stats().active or engine.stats().waiting:
        give_up.check()
        await asyncio.sleep(0.005)


def content(answer: Answer) -> tuple[object, ...]:
    return (answer.text, answer.token_ids, answer.pictures and [p.codes for p in answer.pictures])


def slow(engine: Engine, monkeypatch: pytest.MonkeyPatch, seconds: float = 0.02) -> None:
    """Make every step take `seconds` longer, so that a test can act in the middle of an answer."""
    step = engine._scheduler.step

    def slower() -> None:
        time.sleep(seconds)
        step()

    monkeypatch.setattr(engine._scheduler, "step", slower)


@pytest.fixture
def small(checkpoint: Checkpoint) -> Iterator[Engine]:
    """An engine of its own with three rows and a line of four."""
    settings = Settings(threads=1, max_batch=3)
    settings.llm.max_queued_requests = 4
    engine = Engine(checkpoint, settings)
    yield engine
    engine.close(0)


# Grammar


def test_every_mode_holds_to_its_grammar(engine: Engine, checkpoint: Checkpoint) -> None:
    ids = prompt(checkpoint)
    v = checkpoint.vocabulary
    for seed in range(8):
        sampling = SamplingRequest(temperature=1.5, top_p=1, seed=seed)
        text, image, both = engine.generate_batch(
            [GenerationRequest(ids, mode, sampling=sampling) for mode in (TEXT, IMAGE, BOTH)]
        )
        assert not text.pictures
        assert [len(p.codes) for p in image.parts if isinstance(p, Picture)] == [CODES_PER_IMAGE]
        assert len(image.parts) == 1
        assert image.finish.reason is FinishReason.STOP
        assert image.finish.usage.completion_tokens == SPAN
        for answer in (text, both):
            assert v.is_text[list(answer.token_ids)].all()
            assert v.decode(answer.token_ids).startswith(answer.text) or answer.pictures
            usage = answer.finish.usage
            assert usage.prompt_tokens + usage.completion_tokens <= checkpoint.config.context
        assert all(0 <= c < v.n_codes for a in (image, both) for p in a.pictures for c in p.codes)


def test_max_images_and_the_room_left_forbid_further_pictures(engine: Engine, checkpoint: Checkpoint) -> None:
    ids = prompt(checkpoint)

    def ask(**fields: object) -> list[Answer]:
        return engine.generate_batch(
            [
                GenerationRequest(ids, BOTH, sampling=SamplingRequest(temperature=1, seed=seed), **fields)
                for seed in range(20)
            ]
        )

    assert max(len(a.pictures) for a in ask(max_images=1)) == 1
    assert max(len(a.pictures) for a in ask(max_images=3)) > 1
    assert not any(a.pictures for a in ask(max_images=0))
    assert not any(a.pictures for a in ask(max_new_tokens=SPAN - 1))
    assert any(a.pictures for a in ask(max_new_tokens=SPAN + 4))


def test_an_answer_ends_at_max_new_tokens_and_at_the_context(engine: Engine, checkpoint: Checkpoint) -> None:
    ids = prompt(checkpoint)
    full = [50] * (checkpoint.config.context - 1)
    answers = engine.generate_batch(
        [GenerationRequest(ids, max_new_tokens=n, sampling=LONG) for n in (1, 2, 5)]
        + [
            GenerationRequest(full, sampling=LONG),
            GenerationRequest(ids, max_new_tokens=10**6, sampling=LONG),
        ]
    )
    lengths = [a.finish.usage.completion_tokens for a in answers]
    assert lengths[:4] == [1, 2, 5, 1]
    assert lengths[4] + len(ids) <= checkpoint.config.context
    assert {a.finish.reason for a in answers[:4]} == {FinishReason.LENGTH}


# Sampling


def test_the_same_seed_gives_the_same_answer_alone_and_in_a_crowd(
    engine: Engine, checkpoint: Checkpoint
) -> None:
    asked = [
        GenerationRequest(prompt(checkpoint, f"question {i % 3}"), mode, 40, sampling=SamplingRequest(seed=i))
        for i in range(6)
        for mode in OutputMode
    ]
    crowd = engine.generate_batch(asked)
    alone = [engine.generate_batch([request])[0] for request in asked]
    assert [content(a) for a in crowd] == [content(a) for a in alone]
    assert [a.finish.usage.seed for a in crowd] == [i for i in range(6) for _ in OutputMode]


def test_different_seeds_give_different_answers(engine: Engine, checkpoint: Checkpoint) -> None:
    asked = [
        GenerationRequest(prompt(checkpoint), IMAGE, sampling=SamplingRequest(image_temperature=1, seed=seed))
        for seed in range(8)
    ]
    assert len({content(a)[2][0] for a in engine.generate_batch(asked)}) == 8


def test_first_tokens_follow_the_models_distribution(
    engine: Engine, checkpoint: Checkpoint, models: dict[str, Chameleon]
) -> None:
    v, ids = checkpoint.vocabulary, prompt(checkpoint)
    setting = {"temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0}
    n = 3000
    answers = engine.generate_batch(
        [
            GenerationRequest(ids, max_new_tokens=1, sampling=SamplingRequest(**setting, seed=seed))
            for seed in range(n)
        ]
    )
    # A turn that ends at once has no text token; both ways to end it count together.
    counts = Counter(a.token_ids[0] if a.token_ids else v.eos for a in answers)
    with torch.inference_mode():
        logits = models["mha"](torch.tensor([ids]))[0, -1]
    allowed = torch.tensor([*v.text_ids.tolist(), v.eos, v.end_of_turn])
    p = torch.zeros(v.size, dtype=torch.float64)
    p[allowed] = torch.softmax(logits[allowed].double(), -1)
    p[v.eos] += p[v.end_of_turn]
    p[v.end_of_turn] = 0
    likely = [i for i in range(v.size) if p[i] * n >= 5]
    observed = [counts[i] for i in likely] + [n - sum(counts[i] for i in likely)]
    expected = [float(p[i]) * n for i in likely]
    assert stats.chisquare(observed, [*expected, n - sum(expected)]).pvalue > 1e-4
    assert set(counts) <= {int(i) for i in allowed}


def test_repetition_penalty_counts_prompt_and_output(engine: Engine, checkpoint: Checkpoint) -> None:
    def repeated(penalty: float) -> int:
        sampling = SamplingRequest(temperature=0, repetition_penalty=penalty)
        asked = [
            GenerationRequest(prompt(checkpoint, f"q{i}"), TEXT, 40, sampling=sampling) for i in range(6)
        ]
        return sum(len(a.token_ids) - len(set(a.token_ids)) for a in engine.generate_batch(asked))

    assert repeated(5.0) < repeated(1.0)


def test_logprobs_name_the_chosen_token_and_the_likeliest(engine: Engine, checkpoint: Checkpoint) -> None:
    request = GenerationRequest(
        prompt(checkpoint),
        TEXT,
        10,
        sampling=SamplingRequest(temperature=0, repetition_penalty=1),
        top_logprobs=3,
    )
    none, some = engine.generate_batch([replace(request, top_logprobs=None), request])
    assert none.text == some.text
    assert not any(p.logprobs for p in none.parts if isinstance(p, Text))
    entries = [entry for p in some.parts if isinstance(p, Text) for entry in p.logprobs]
    assert [entry.token_id for entry in entries] == list(some.token_ids)
    for entry in entries:
        assert [top.logprob for top in entry.top] == sorted((t.logprob for t in entry.top), reverse=True)
        assert len(entry.top) == 3
        assert entry.logprob == pytest.approx(entry.top[0].logprob)  # greedy takes the likeliest
        assert entry.logprob <= 0
    confidence = some.finish.text_confidence
    assert confidence.mean_logprob == pytest.approx(np.mean([e.logprob for e in entries]), abs=1e-6)
    assert confidence.mean_entropy > 0


def test_generation_ends_before_a_stop_string(engine: Engine, checkpoint: Checkpoint) -> None:
    request = GenerationRequest(
        prompt(checkpoint), TEXT, 60, sampling=SamplingRequest(temperature=2, top_p=1, seed=5)
    )
    whole = engine.generate_batch([request])[0].text
    at = next(i for i in range(3, len(whole)) if whole[i] != "\ufffd" and whole[i] not in whole[:i])
    stop = whole[at : at + 2].rstrip("\ufffd")
    cut = engine.generate_batch([replace(request, stop=("never there", stop))])[0]
    assert cut.text == whole[: whole.find(stop)]
    assert cut.finish.reason is FinishReason.STOP


# Guidance


def test_weights_of_the_streams_are_those_of_the_formula() -> None:
    full, image, none = np.random.default_rng(0).normal(size=3)
    for text, picture in [(3.0, 1.2), (1.0, 1.0), (0.0, 2.0), (5.0, 5.0)]:
        sampling = _sampling(guidance_text=text, guidance_image=picture)
        for pictures in (True, False):
            part = image if pictures else none
            expected = none + picture * (part - none) + text * (full - part)
            weights = guidance_weights(sampling, pictures)
            assert np.dot(weights, (full, part, none)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "image", "pictures", "companions"),
    [(3, 1.2, 0, 1), (3, 1.2, 1, 2), (1, 1, 0, 0), (1, 1, 1, 0), (3, 1, 1, 1), (3, 3, 1, 1), (1, 2, 0, 0)],
)
def test_only_streams_that_count_take_rows(
    engine: Engine, checkpoint: Checkpoint, text: float, image: float, pictures: int, companions: int
) -> None:
    ids = [*checkpoint.vocabulary.image_span([0] * CODES_PER_IMAGE) * pictures, 50]
    sampling = SamplingRequest(guidance_text=text, guidance_image=image)
    job = resolve(GenerationRequest(ids, IMAGE, sampling=sampling), engine._limits)
    assert most_companions(job) == companions


def _sampling(**changes: float) -> Sampling:
    return replace(Sampling(1, 1, 0, 1, 1, 1, 1, 1, 0), **changes)


# Streams, limits and trouble


async def test_events_reach_several_loops_and_come_before_the_answer_is_complete(
    engine: Engine, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(engine, monkeypatch)
    request = GenerationRequest(prompt(checkpoint), TEXT, 30, sampling=LONG)

    async def first_and_last() -> tuple[float, float]:
        start, times = time.monotonic(), []
        async for _ in engine.submit(request):
            times.append(time.monotonic() - start)
        return times[0], times[-1]

    here, there = await asyncio.gather(
        first_and_last(), asyncio.to_thread(lambda: asyncio.run(first_and_last()))
    )
    for first, last in (here, there):
        assert first < last / 3


async def test_text_that_nobody_fetched_yet_arrives_in_one_piece(
    engine: Engine, checkpoint: Checkpoint
) -> None:
    stream = engine.submit(GenerationRequest(prompt(checkpoint), TEXT, 30, sampling=LONG))
    await settle(engine)
    events = [event async for event in stream]
    assert len(events) == 2


@pytest.mark.parametrize("way", ["cancel", "abandon", "close task"])
async def test_letting_go_of_a_stream_frees_its_rows(
    engine: Engine, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    slow(engine, monkeypatch)
    before = engine.stats()
    stream = engine.submit(GenerationRequest(prompt(checkpoint), BOTH, 100, sampling=LONG))
    if way == "close task":
        task = asyncio.create_task(collect(stream))
        del stream
        await asyncio.sleep(0.06)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task
    else:
        await anext(aiter(stream))
        if way == "cancel":
            stream.cancel()
        del stream
    await settle(engine)
    after = engine.stats()
    assert (after.rows, after.active) == (0, 0)
    assert after.failed == before.failed + 1


async def test_a_deadline_ends_a_running_and_a_waiting_request(
    small: Engine, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(small, monkeypatch)
    endless = GenerationRequest(prompt(checkpoint), IMAGE, sampling=LONG)
    started = time.monotonic()
    streams = [small.submit(replace(endless, deadline=Deadline.after(100, 10))) for _ in range(3)]
    for stream in streams:
        with pytest.raises(DeadlineExceeded) as caught:
            await collect(stream)
        assert caught.value.field == "context.timeout_ms"
    assert time.monotonic() - started < 0.4
    await settle(small)
    small.check_integrity()


async def test_a_full_line_refuses_at_once_with_a_hint_and_recovers(
    small: Engine, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(small, monkeypatch, 0.01)
    request = GenerationRequest(prompt(checkpoint), IMAGE, sampling=LONG)
    running = small.submit(request)
    await asyncio.sleep(0.05)
    waiting = [small.submit(request) for _ in range(4)]
    with pytest.raises(Overloaded) as caught:
        small.submit(request)
    assert caught.value.retry_after_s is not None
    answers = await asyncio.gather(*map(collect, [running, *waiting]))
    assert len({content(a)[2][0] for a in answers}) == 1
    await collect(small.submit(request))


async def test_the_waiting_go_by_priority_then_by_arrival(
    small: Engine, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(small, monkeypatch, 0.005)
    request = GenerationRequest(prompt(checkpoint), IMAGE, sampling=SamplingRequest(guidance_text=3))
    running = small.submit(GenerationRequest(prompt(checkpoint), BOTH, 60, sampling=LONG))
    await asyncio.sleep(0.03)
    order: list[str] = []

    async def note(name: str, priority: Priority) -> None:
        stream = small.submit(replace(request, priority=priority))
        await collect(stream)
        order.append(name)

    names = [
        ("routine 1", Priority.ROUTINE),
        ("routine 2", Priority.ROUTINE),
        ("urgent", Priority.URGENT),
        ("stat", Priority.STAT),
    ]
    tasks = [asyncio.create_task(note(*entry)) for entry in names]
    await asyncio.gather(collect(running), *tasks)
    assert order == ["stat", "urgent", "routine 1", "routine 2"]


def test_a_batch_may_be_longer_than_the_line_and_reports_each_answer(
    small: Engine, checkpoint: Checkpoint
) -> None:
    asked = [
        GenerationRequest(prompt(checkpoint, str(i)), TEXT, 3, sampling=SamplingRequest(temperature=0))
        for i in range(12)
    ]
    told: dict[int, Answer] = {}
    answers = small.generate_batch(asked, told.__setitem__)
    assert [told[i] for i in range(12)] == answers
    assert len({a.text for a in answers}) > 3


def test_a_bad_request_in_a_batch_is_refused_before_any_work(engine: Engine, checkpoint: Checkpoint) -> None:
    before = engine.stats().steps
    with pytest.raises(InvalidInput):
        engine.generate_batch([GenerationRequest(prompt(checkpoint)), GenerationRequest([10**6])])
    assert engine.stats().steps == before


def test_what_goes_wrong_with_one_sequence_stays_with_it(
    engine: Engine, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_text = engine._scheduler.answers.on_text

    def failing(sequence, drawn, index):  # type: ignore[no-untyped-def]
        if sequence.job.sampling.seed == 13:
            raise ValueError("a defect")
        on_text(sequence, drawn, index)

    monkeypatch.setattr(engine._scheduler.answers, "on_text", failing)

    async def run() -> list[object]:
        streams = [
            engine.submit(
                GenerationRequest(prompt(checkpoint), TEXT, 20, sampling=SamplingRequest(seed=seed))
            )
            for seed in (12, 13, 14)
        ]
        return await asyncio.gather(*map(collect, streams), return_exceptions=True)

    first, second, third = asyncio.run(run())
    assert isinstance(second, InternalError)
    assert "a defect" not in str(second)
    assert isinstance(first, Answer)
    assert isinstance(third, Answer)


def test_logits_that_are_not_finite_fail_their_sequence_and_spoil_no_later_one(
    small: Engine, checkpoint: Checkpoint
) -> None:
    # The short one takes the spoiled row, and is read as far as the long one beside it.
    short = GenerationRequest(prompt(checkpoint, "hi"), TEXT, 12, sampling=LONG)
    long = GenerationRequest([*prompt(checkpoint), *[60] * 80], TEXT, 12, sampling=LONG)
    expected = small.generate_batch([short, long])
    poison, runner = checkpoint.vocabulary.encode("~")[0], small._computer.runner
    healthy = runner.embedding.clone()
    runner.embedding[poison] = torch.nan
    for mode in (TEXT, IMAGE):
        with pytest.raises(InternalError):
            small.generate_batch([GenerationRequest([poison] * 90, mode)])
    runner.embedding.copy_(healthy)
    assert list(map(content, small.generate_batch([short, long]))) == list(map(content, expected))
    small.check_integrity()


async def test_a_failing_step_loop_fails_every_caller_and_refuses_new_work(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(checkpoint, Settings(threads=1, max_batch=3))
    slow(engine, monkeypatch)
    request = GenerationRequest(prompt(checkpoint), IMAGE, sampling=LONG)
    tasks = [asyncio.create_task(collect(engine.submit(request))) for _ in range(3)]
    await asyncio.sleep(0.05)

    def broken(work: Work) -> None:
        raise RuntimeError("device lost")

    monkeypatch.setattr(engine._scheduler, "_compute", broken)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(o) for o in outcomes] == [InternalError] * 3
    assert "device lost" not in str(outcomes[0])
    with pytest.raises(Unavailable):
        engine.check_health()
    with pytest.raises(Unavailable):
        engine.submit(request)
    engine.close()


def test_a_model_that_does_not_run_is_found_out_at_the_start(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Computer, work: Work) -> None:
        raise RuntimeError("no kernel for this device")

    monkeypatch.setattr(Computer, "__call__", broken)
    with pytest.raises(InternalError):
        Engine(checkpoint, Settings(threads=1))


async def test_closing_lets_the_accepted_finish_and_refuses_the_rest(checkpoint: Checkpoint) -> None:
    engine = Engine(checkpoint, Settings(threads=1))
    request = GenerationRequest(prompt(checkpoint), IMAGE, sampling=LONG)
    task = asyncio.create_task(collect(engine.submit(request)))
    await asyncio.sleep(0)
    await asyncio.to_thread(engine.close)
    assert len((await task).pictures) == 1
    with pytest.raises(Unavailable):
        engine.submit(request)
    with pytest.raises(Unavailable):
        engine.check_health()


async def test_closing_without_patience_fails_what_runs(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(checkpoint, Settings(threads=1))
    slow(engine, monkeypatch)
    task = asyncio.create_task(
        collect(engine.submit(GenerationRequest(prompt(checkpoint), IMAGE, sampling=LONG)))
    )
    await asyncio.sleep(0.05)
    await asyncio.to_thread(engine.close, 0)
    with pytest.raises(Unavailable):
        await task


def test_a_cache_too_small_for_one_guided_answer_is_refused_with_the_size_needed(
    checkpoint: Checkpoint,
) -> None:
    big = replace(checkpoint, config=replace(checkpoint.config, max_position_embeddings=1 << 16))
    with pytest.raises(ConfigurationError, match="at least") as caught:
        Engine(big, Settings(threads=1, kv_cache_bytes=1 << 20))
    assert caught.value.field == "MEDMAX_KV_CACHE_BYTES"
    with pytest.raises(ConfigurationError) as caught:
        Engine(checkpoint, Settings(max_batch=2))
    assert caught.value.field == "MEDMAX_MAX_BATCH"


async def test_times_in_the_finish_are_from_arrival(
    small: Engine, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(small, monkeypatch, 0.01)
    request = GenerationRequest(prompt(checkpoint), IMAGE, sampling=LONG)
    first, second = await asyncio.gather(*(collect(small.submit(request)) for _ in range(2)))
    # Each takes two of the three rows, so the second waits for the first's sixteen steps.
    assert first.finish.queue_ms < 100 < second.finish.queue_ms
    assert second.finish.first_token_ms > second.finish.queue_ms


# Previews


@pytest.mark.parametrize("window", [1, 4])
async def test_previews_show_the_codes_drawn_so_far(checkpoint: Checkpoint, window: int) -> None:
    engine = Engine(checkpoint, Settings(threads=1, speculative_codes=window))
    request = GenerationRequest(prompt(checkpoint), IMAGE, sampling=LONG, preview_codes=5)
    *previews, picture, _ = [event async for event in engine.submit(request)]
    engine.close()
    assert isinstance(picture, Picture)
    assert all(isinstance(preview, Preview) for preview in previews)
    lengths = [len(preview.codes) for preview in previews]
    assert [length // 5 for length in lengths] == [1, 2, 3]
    assert all(preview.codes == picture.codes[: len(preview.codes)] for preview in previews)


def test_previews_come_only_where_asked_and_not_too_often(engine: Engine, checkpoint: Checkpoint) -> None:
    with pytest.raises(InvalidInput) as caught:
        engine.generate_batch([GenerationRequest(prompt(checkpoint), IMAGE, preview_codes=-1)])
    assert caught.value.field == "preview_codes"
    request = GenerationRequest(prompt(checkpoint), IMAGE, preview_codes=1)
    assert len(engine.generate_batch([request])[0].parts) == 1


# Fair shares


async def test_a_caller_with_many_requests_delays_anothers_by_one(
    small: Engine, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(small, monkeypatch, 0.002)
    request = GenerationRequest(prompt(checkpoint), IMAGE, sampling=SamplingRequest(guidance_text=3))
    order: list[str] = []

    async def ask(caller: str) -> None:
        await collect(small.submit(replace(request, caller=caller)))
        order.append(caller)

    await asyncio.gather(*map(ask, ["greedy", "greedy", "greedy", "modest"]))
    assert order.index("modest") == 1
