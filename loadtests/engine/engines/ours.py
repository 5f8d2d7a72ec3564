"""Our engine, asked through its public interface: as peers are, without an event loop, where all requests are texts that come
at once; else from an event loop beside it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise

import torch

from loadtests.engine.jobs import Job, Options, Outcome, Request, Sample, stepwise
from services.checkpoint import Checkpoint, open_checkpoint
from services.config import Device, DType, Scale, Settings
from services.llm.engine import Engine
from services.llm.events import Event, Picture, Text
from services.llm.request import GenerationRequest, OutputMode, SamplingRequest

# Text as every peer can: greedy. Pictures as the reference draws them.
TEXT = SamplingRequest(temperature=0.0, repetition_penalty=1.0)
PICTURE = SamplingRequest(image_temperature=0.7, image_top_p=0.9, guidance_image=1.2)
TOO_MANY = 0.01  # a share of requests that break the objective beyond which it is not met
_IDLE_POLL_S = 0.01


class Ours:
    def __init__(self, checkpoint: Checkpoint, settings: Settings) -> None:
        self.version = f"{_version()}, torch {torch.__version__}"
        self._engine = Engine(checkpoint, settings)

    def run(self, job: Job) -> Outcome:
        if not job.in_flight and not any(r.picture or r.arrival_s for r in job.requests):
            return self._at_once(job)
        return asyncio.run(self._run(job))

    def _at_once(self, job: Job) -> Outcome:
        before = self._engine.stats().read_tokens
        stamps: list[list[float]] = [[] for _ in job.requests]

        def note(index: int, event: Event) -> None:
            if isinstance(event, Text):
                stamps[index].append(time.perf_counter())

        start = time.perf_counter()
        answers = self._engine.generate_batch([_asked(r) for r in job.requests], on_event=note)
        wall = time.perf_counter() - start
        samples = stepwise(start, stamps)
        for sample, answer, request in zip(samples, answers, job.requests, strict=True):
            sample.tokens = answer.finish.usage.completion_tokens
            if sample.tokens != request.new_tokens:
                raise RuntimeError(f"an answer has {sample.tokens} tokens in place of {request.new_tokens}")
        return Outcome(wall, samples, self._engine.stats().read_tokens - before)

    def close(self) -> None:
        self._engine.close(drain_s=0)

    async def _run(self, job: Job) -> Outcome:
        before = self._engine.stats().read_tokens
        trial = _Trial(self._engine, job)
        outcome = await trial.run()
        while (stats := self._engine.stats()).active or stats.waiting:
            await asyncio.sleep(_IDLE_POLL_S)
        self._engine.check_health()
        outcome.read_tokens = stats.read_tokens - before
        return outcome


class _Trial:
    """One job on its way."""

    def __init__(self, engine: Engine, job: Job) -> None:
        self._engine, self._job = engine, job
        self._gate = asyncio.Semaphore(job.in_flight) if job.in_flight else contextlib.nullcontext()
        self._broken = 0
        self._hopeless = asyncio.Event()
        self._start = self._end = 0.0

    async def run(self) -> Outcome:
        self._start = time.perf_counter()
        answers = asyncio.gather(*(self._answer(request) for request in self._job.requests))
        hopeless = asyncio.ensure_future(self._hopeless.wait())
        await asyncio.wait((answers, hopeless), return_when=asyncio.FIRST_COMPLETED)
        hopeless.cancel()
        if self._hopeless.is_set() and not answers.done():
            answers.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await answers
            return Outcome(time.perf_counter() - self._start, complete=False)
        return Outcome(self._end - self._start, await answers)

    async def _answer(self, request: Request) -> Sample:
        due = self._start + request.arrival_s
        await asyncio.sleep(due - time.perf_counter())
        async with self._gate:
            late = self._count_if(time.perf_counter() - due)
            sample = await self._stream(request, due)
        self._end = time.perf_counter()
        if not late:
            self._count_if(sample.ttft_ms / 1000)
        return sample

    def _count_if(self, ttft_s: float) -> bool:
        """Whether a first token that comes after `ttft_s`, or later, breaks the objective; counts those that do."""
        limit = self._job.give_up
        if limit is None or ttft_s * 1000 <= limit.ttft_ms:
            return False
        self._broken += 1
        if self._broken > TOO_MANY * len(self._job.requests):
            self._hopeless.set()
        return True

    async def _stream(self, request: Request, due: float) -> Sample:
        asked = time.perf_counter()
        stamps: list[float] = []
        pictures, finish = 0, None
        async for event in _events(self._engine, request):
            if isinstance(event, Text):
                stamps.append(time.perf_counter())
            elif isinstance(event, Picture):
                pictures += 1
            else:
                finish = event
        assert finish is not None
        done = time.perf_counter()
        tokens = finish.usage.completion_tokens
        if request.picture:
            first = (asked - due) * 1000 + finish.first_token_ms
            gaps = [((done - due) * 1000 - first) / max(1, tokens - 1)]
            return Sample(first, gaps, tokens, pictures)
        if tokens != request.new_tokens:
            raise RuntimeError(f"an answer has {tokens} tokens in place of {request.new_tokens}")
        gaps = [(b - a) * 1000 for a, b in pairwise(stamps)]
        return Sample((stamps[0] - due) * 1000, gaps, tokens)


def _asked(request: Request) -> GenerationRequest:
    return GenerationRequest(
        request.prompt,
        mode=OutputMode.IMAGE if request.picture else OutputMode.TEXT,
        max_new_tokens=None if request.picture else request.new_tokens,
        sampling=replace(PICTURE, guidance_text=request.guidance, seed=request.seed)
        if request.picture
        else TEXT,
    )


async def _events(engine: Engine, request: Request) -> AsyncIterator[Event]:
    stream = engine.submit(_asked(request))
    try:
        async for event in stream:
            yield event
    finally:
        stream.cancel()


def settings_for(checkpoint: Checkpoint, options: Options, device: Device = Device.CPU) -> Settings:
    """A cache that holds all that the options say at once, and one guided answer of any length."""
    dtype = DType(options.dtype)
    per_token = checkpoint.config.kv_elements_per_token * (4 if dtype is DType.FLOAT32 else 2)
    # The last block of a row is not full.
    tokens = max(options.tokens + 32 * options.rows, 4 * checkpoint.config.context)
    return Settings(
        device=device,
        threads=options.threads,
        max_batch=options.rows,
        dtype=dtype,
        kv_cache_bytes=per_token * tokens,
        # As vLLM does: otherwise the rounds pay for memory's first use.
        touch_cache=True,
        llm=Scale(max_queued_requests=-1),
    )


def _version() -> str:
    try:
        return version("medmax-serve")
    except PackageNotFoundError:
        return "not installed"


def load(options: Options) -> Ours:
    checkpoint = open_checkpoint(options.own)
    return Ours(checkpoint, settings_for(checkpoint, options))
