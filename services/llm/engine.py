"""The engine: one step loop in a thread of its own, many sequences at once.

    submit ─► WaitingLine ─► Scheduler.step ─► Mailbox ─► Stream
              priorities     rows of a Batch   events
                             Computer reads, Decoding draws

Callers' threads touch the waiting line and the mailboxes alone; the rest belongs to the step loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from collections.abc import Sequence as Requests
from dataclasses import asdict, dataclass
from functools import partial
from queue import SimpleQueue

import torch

from services.checkpoint import Checkpoint
from services.config import Device, DType, Settings
from services.deadline import Deadline
from services.errors import (
    ConfigurationError,
    MedMaxError,
    Unavailable,
    internal_error,
)
from services.llm.batch import Batch
from services.llm.compute import trials
from services.llm.decoding import Decoding
from services.llm.events import Answer, Event, Finish, Picture, Preview, Text
from services.llm.group import Alone
from services.llm.kv_cache import KVCache, blocks_for
from services.llm.load import open_adapters
from services.llm.parallel import Part, Team
from services.llm.request import GenerationRequest, Job
from services.llm.scheduler import Compute, Scheduler
from services.llm.sequence import Sequence
from services.llm.stream import Mailbox, Stream, ring_all
from services.llm.text import TextAssembler
from services.llm.validation import Limits, resolve
from services.llm.waiting import WaitingLine

log = logging.getLogger(__name__)

GUIDED_ROWS = 3  # rows of one sequence under full guidance


@dataclass(frozen=True)
class EngineStats:
    """A snapshot; totals count from the engine's start.

    `blocks` are those of the cache, `blocks_held` by running sequences, `blocks_cached` of which the content can be
    found again; `drafts_kept` of the `drafts_read` became codes of a picture; `read_tokens` are those that the model
    read, `cached_tokens` prompt tokens that it need not.
    """

    waiting: int
    active: int
    rows: int
    capacity: int
    blocks: int
    blocks_held: int
    blocks_cached: int
    steps: int
    prompt_tokens: int
    cached_tokens: int
    read_tokens: int
    text_tokens: int
    code_tokens: int
    pictures: int
    finished: int
    failed: int
    preempted: int
    drafts_read: int
    drafts_kept: int


class Engine:
    """Serves one model, alone and under adapters; safe to use from any thread and any event loop.

    Attributes:
        adapters: those that requests may name.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        settings: Settings,
        *,
        dtype: torch.dtype | None = None,
        blocks: int | None = None,
    ) -> None:
        """Loads the weights and returns once the model has run.

        Args:
            dtype: of weights and cache, where it is not what the settings say.
            blocks: of the key-value cache, where they are not as many as the settings' bytes hold.

        Raises:
            CheckpointError: the weights are incomplete or damaged, or do not divide among the ranks; an adapter is not
                this checkpoint's.
            ConfigurationError: the cache cannot hold one guided sequence, or there is no such device.
            Unavailable: a tensor-parallel rank did not start.
            InternalError: the model does not run on this device.
        """
        if settings.device is Device.CUDA and not torch.cuda.is_available():
            raise ConfigurationError("no CUDA device is available; use cpu", field="MEDMAX_DEVICE")
        if settings.max_batch < GUIDED_ROWS:
            raise ConfigurationError(f"must be at least {GUIDED_ROWS}", field="MEDMAX_MAX_BATCH")
        dtype = dtype or dtype_of(settings)
        self.checkpoint, self._vocabulary = checkpoint, checkpoint.vocabulary
        self.adapters = open_adapters(settings, checkpoint)
        self._limits = Limits(
            checkpoint.vocabulary,
            checkpoint.generation,
            checkpoint.config.context,
            checkpoint.codes_per_image,
            tuple(self.adapters),
        )
        part = Part(
            checkpoint,
            settings.tensor_parallel,
            str(settings.device),
            dtype,
            settings.max_batch * settings.speculative_codes,
            blocks or _blocks(checkpoint, settings, dtype),
            settings.threads or os.cpu_count() or 1,
            settings.touch_cache,
            tuple(self.adapters.values()),
        )
        self._team: Team | None = None
        if part.size > 1:
            self._team = Team(part)
            self._computer, cache = self._team.computer, self._team.cache
        else:
            self._computer, cache = part.build(Alone())
        self._compute: Compute = self._team or self._computer
        self._batch = Batch(
            checkpoint.config,
            settings.max_batch,
            cache,
            reuse=settings.prefix_cache,
            window=settings.speculative_codes,
            codes=checkpoint.vocabulary.n_codes,
            seeds=[bytes.fromhex(adapter.digest) for adapter in self.adapters.values()],
        )
        decoding = Decoding(checkpoint.vocabulary, self._batch)
        self._condition = threading.Condition()
        self._waiting = WaitingLine(settings.llm.max_queued_requests)
        self._scheduler = Scheduler(
            self._batch,
            decoding,
            self._compute,
            self._limits,
            self._waiting,
            self._condition,
            settings.prefill_tokens,
        )
        self._stepping = threading.Lock()
        self._draining = self._stopping = False
        self._failure: MedMaxError | None = None
        self._thread = threading.Thread(target=self._run, name="llm-engine", daemon=True)
        self._ready = threading.Event()
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            if self._team is not None:
                self._team.close()
            raise self._failure

    # Callers' side

    def submit(self, request: GenerationRequest) -> Stream:
        """Queue a request; iterate over what comes back, inside the running event loop.

        Raises:
            InvalidInput: a field is out of range.
            ModelNotFound: there is no such adapter.
            Overloaded: the line of waiting requests is full.
            Unavailable: the engine is going down or has failed.
        """
        job = resolve(request, self._limits)
        stream = Stream(asyncio.get_running_loop())
        self._enqueue(job, stream.mailbox, bounded=True)
        return stream

    def generate_batch(
        self,
        requests: Requests[GenerationRequest],
        on_answer: Callable[[int, Answer], None] | None = None,
        on_event: Callable[[int, Event], None] | None = None,
    ) -> list[Answer]:
        """Answers to many requests, in their order; blocks. There may be more than the line of waiting takes.

        Args:
            on_answer: called with the index of each request as its answer is complete.
            on_event: called with the index of a request and each of its events as they come.

        Raises:
            MedMaxError: the first request to fail; the others are cancelled.
        """
        jobs = [resolve(request, self._limits) for request in requests]
        news: SimpleQueue[int] = SimpleQueue()
        boxes = [Mailbox(None, partial(news.put, i), eager=on_event is not None) for i in range(len(jobs))]
        parts: list[list[Text | Picture]] = [[] for _ in jobs]
        answers: dict[int, Answer] = {}
        try:
            for job, box in zip(jobs, boxes, strict=True):
                self._enqueue(job, box, bounded=False)
            while len(answers) < len(jobs):
                index = news.get()
                while (event := boxes[index].take()) is not None:
                    if on_event is not None:
                        on_event(index, event)
                    if isinstance(event, Finish):
                        answers[index] = Answer(tuple(parts[index]), event)
                        if on_answer is not None:
                            on_answer(index, answers[index])
                    elif not isinstance(event, Preview):
                        parts[index].append(event)
        finally:
            for box in boxes:
                box.cancelled = True
        return [answers[index] for index in range(len(jobs))]

    def _enqueue(self, job: Job, mailbox: Mailbox, *, bounded: bool) -> None:
        sequence = Sequence(job, mailbox, TextAssembler(self._vocabulary, job.stop))
        with self._condition:
            if self._failure is not None:
                raise Unavailable(f"the language model has stopped: {self._failure.message}")
            if self._draining:
                raise Unavailable("the language model is going down", retry_after_s=1.0)
            self._waiting.push(sequence, bounded=bounded)
            self._condition.notify_all()

    def stats(self) -> EngineStats:
        return EngineStats(
            waiting=len(self._waiting),
            active=len(self._scheduler.running.active),
            rows=self._batch.rows,
            capacity=self._batch.capacity,
            blocks=self._batch.pool.size,
            blocks_held=self._batch.pool.held,
            blocks_cached=self._batch.pool.registered,
            **asdict(self._scheduler.running.counts),
        )

    def check_health(self) -> None:
        """Raises: Unavailable once the step loop has failed or ended."""
        if self._failure is not None:
            raise Unavailable(f"the language model has stopped: {self._failure.message}")
        if not self._thread.is_alive():
            raise Unavailable("the language model is going down")
        if self._team is not None:
            self._team.check()

    def check_integrity(self) -> None:
        """Check that every row in use belongs to a live sequence, and that reservations cover what is in use.

        Raises:
            AssertionError: it is not so; a defect of the engine.
        """
        with self._stepping:
            self._scheduler.running.check_integrity()

    def close(self, drain_s: float = 10.0) -> None:
        """Refuse new work, let the accepted finish for at most `drain_s`, fail the rest, end the thread."""
        give_up = Deadline(time.monotonic() + drain_s)
        with self._condition:
            self._draining = True
            self._condition.wait_for(lambda: self._idle or self._failure is not None, give_up.remaining_s)
            self._stopping = True
            self._condition.notify_all()
        self._thread.join()
        if self._team is not None:
            self._team.close()

    @property
    def _idle(self) -> bool:
        return not self._scheduler.running.active and not len(self._waiting)

    # The step loop's side

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                for work in trials(self.checkpoint.config, self._batch.device, bool(self.adapters)):
                    self._compute(work)
                self._ready.set()
                while self._wait_for_work():
                    with self._stepping:
                        self._scheduler.step()
                    ring_all(self._scheduler.answers.news)
                    self._scheduler.answers.news = set()
            self._end(Unavailable("the language model is going down", retry_after_s=1.0))
        except MedMaxError as error:
            log.error("the step loop ended: %s", error.message)
            self._end(error)
        except Exception:
            unforeseen = internal_error()
            log.exception("the step loop failed: %s", unforeseen.message)
            self._end(unforeseen)

    def _wait_for_work(self) -> bool:
        """Block while there is nothing to do; False once the engine is to stop."""
        if self._idle:
            self.check_integrity()
        with self._condition:
            if self._idle:
                self._condition.notify_all()
            self._condition.wait_for(lambda: self._stopping or not self._idle)
            return not self._stopping

    def _end(self, error: MedMaxError) -> None:
        with self._condition:
            self._failure = error
            left = [*self._scheduler.running.active, *self._waiting.clear()]
            self._scheduler.running.active = []
            self._condition.notify_all()
        for sequence in left:
            sequence.mailbox.fail(error)
        self._ready.set()
        ring_all(self._scheduler.answers.news | {sequence.mailbox for sequence in left})


def _blocks(checkpoint: Checkpoint, settings: Settings, dtype: torch.dtype) -> int:
    """Cache blocks that the settings' bytes hold.

    Raises:
        ConfigurationError: they do not hold one guided answer.
    """
    per_block = KVCache.bytes_per_block(checkpoint.config, dtype, settings.tensor_parallel)
    least = GUIDED_ROWS * blocks_for(checkpoint.config.context)
    if settings.kv_cache_bytes // per_block < least:
        raise ConfigurationError(
            f"must be at least {least * per_block}, one guided answer of this model",
            field="MEDMAX_KV_CACHE_BYTES",
        )
    # More than this many no batch can fill.
    return min(
        settings.kv_cache_bytes // per_block, 2 * settings.max_batch * blocks_for(checkpoint.config.context)
    )


def dtype_of(settings: Settings) -> torch.dtype:
    """What the weights are held and computed in."""
    names = {DType.FLOAT32: torch.float32, DType.BFLOAT16: torch.bfloat16, DType.FLOAT16: torch.float16}
    automatic = torch.bfloat16 if settings.device is Device.CUDA else torch.float32
    return names.get(settings.dtype, automatic)
