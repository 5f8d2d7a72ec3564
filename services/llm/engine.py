"""The engine: one step loop in a thread of its own, many sequences at once.

    submit ─► WaitingLine ─► Scheduler.step ─► Mailbox ─► Stream
              priorities     rows of a Batch   events
                             Decoding draws

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
from services.llm.decoding import Decoding
from services.llm.events import Answer, Finish, Picture, Text
from services.llm.kv_cache import KVCache
from services.llm.load import load_model
from services.llm.request import GenerationRequest, Job
from services.llm.runner import Runner
from services.llm.scheduler import Scheduler
from services.llm.sequence import Sequence
from services.llm.stream import Mailbox, Stream, ring_all
from services.llm.text import TextAssembler
from services.llm.validation import Limits, resolve
from services.llm.waiting import WaitingLine

log = logging.getLogger(__name__)

GUIDED_ROWS = 3  # rows of one sequence under full guidance


@dataclass(frozen=True)
class EngineStats:
    """A snapshot; totals count from the engine's start."""

    waiting: int
    active: int
    rows: int
    capacity: int
    steps: int
    prompt_tokens: int
    text_tokens: int
    pictures: int
    finished: int
    failed: int


class Engine:
    """Serves one model; safe to use from any thread and any event loop."""

    def __init__(self, checkpoint: Checkpoint, runner: Runner, settings: Settings, rows: int) -> None:
        """Returns once the model has run.

        Args:
            rows: sequences in one step, companions included; `from_checkpoint` fits them to the settings.

        Raises:
            InternalError: the model does not run on this device.
        """
        self.checkpoint, self._vocabulary = checkpoint, checkpoint.vocabulary
        self._limits = Limits(
            checkpoint.vocabulary,
            checkpoint.generation,
            checkpoint.config.context,
            checkpoint.codes_per_image,
        )
        threads = settings.threads or os.cpu_count() or 1
        self._batch = Batch(runner.config, rows, runner.dtype, runner.device)
        decoding = Decoding(runner, checkpoint.vocabulary, self._batch, threads)
        self._condition = threading.Condition()
        self._waiting = WaitingLine(settings.llm.max_queued_requests)
        self._scheduler = Scheduler(self._batch, decoding, self._limits, self._waiting, self._condition)
        self._stepping = threading.Lock()
        self._draining = self._stopping = False
        self._failure: MedMaxError | None = None
        self._thread = threading.Thread(target=self._run, name="llm-engine", daemon=True)
        self._ready = threading.Event()
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, settings: Settings) -> Engine:
        """An engine on `settings.device` whose cache takes at most `settings.kv_cache_bytes`.

        Raises:
            CheckpointError: the weights are incomplete or damaged.
            ConfigurationError: the cache cannot hold one guided sequence, or there is no such device.
        """
        if settings.device is Device.CUDA and not torch.cuda.is_available():
            raise ConfigurationError("no CUDA device is available; use cpu", field="MEDMAX_DEVICE")
        dtype = dtype_of(settings)
        per_row = KVCache.bytes_per_row(checkpoint.config, dtype)
        rows = min(settings.max_batch, settings.kv_cache_bytes // per_row)
        if settings.max_batch < GUIDED_ROWS:
            raise ConfigurationError(f"must be at least {GUIDED_ROWS}", field="MEDMAX_MAX_BATCH")
        if rows < GUIDED_ROWS:
            raise ConfigurationError(
                f"must be at least {GUIDED_ROWS * per_row}, one guided answer of this model",
                field="MEDMAX_KV_CACHE_BYTES",
            )
        runner = Runner(load_model(checkpoint, str(settings.device), dtype))
        return cls(checkpoint, runner, settings, rows)

    # Callers' side

    def submit(self, request: GenerationRequest) -> Stream:
        """Queue a request; iterate over what comes back, inside the running event loop.

        Raises:
            InvalidInput: a field is out of range.
            Overloaded: the line of waiting requests is full.
            Unavailable: the engine is going down or has failed.
        """
        job = resolve(request, self._limits)
        stream = Stream(asyncio.get_running_loop())
        self._enqueue(job, stream.mailbox, bounded=True)
        return stream

    def generate_batch(
        self, requests: Requests[GenerationRequest], on_answer: Callable[[int, Answer], None] | None = None
    ) -> list[Answer]:
        """Answers to many requests, in their order; blocks. There may be more than the line of waiting takes.

        Args:
            on_answer: called with the index of each request as its answer is complete.

        Raises:
            MedMaxError: the first request to fail; the others are cancelled.
        """
        jobs = [resolve(request, self._limits) for request in requests]
        done: SimpleQueue[int] = SimpleQueue()
        boxes = [Mailbox(None, partial(done.put, index), eager=False) for index in range(len(jobs))]
        answers: dict[int, Answer] = {}
        try:
            for job, box in zip(jobs, boxes, strict=True):
                self._enqueue(job, box, bounded=False)
            while len(answers) < len(jobs):
                index = done.get()
                answers[index] = _collect(boxes[index])
                if on_answer is not None:
                    on_answer(index, answers[index])
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
            active=len(self._scheduler.active),
            rows=len(self._batch.rows),
            capacity=self._batch.capacity,
            **asdict(self._scheduler.counts),
        )

    def check_health(self) -> None:
        """Raises: Unavailable once the step loop has failed or ended."""
        if self._failure is not None:
            raise Unavailable(f"the language model has stopped: {self._failure.message}")
        if not self._thread.is_alive():
            raise Unavailable("the language model is going down")

    def check_integrity(self) -> None:
        """Check that every row in use belongs to a live sequence, and that reservations cover what is in use.

        Raises:
            AssertionError: it is not so; a defect of the engine.
        """
        with self._stepping:
            self._scheduler.check_integrity()

    def close(self, drain_s: float = 10.0) -> None:
        """Refuse new work, let the accepted finish for at most `drain_s`, fail the rest, end the thread."""
        give_up = Deadline(time.monotonic() + drain_s)
        with self._condition:
            self._draining = True
            self._condition.wait_for(lambda: self._idle or self._failure is not None, give_up.remaining_s)
            self._stopping = True
            self._condition.notify_all()
        self._thread.join()

    @property
    def _idle(self) -> bool:
        return not self._scheduler.active and not len(self._waiting)

    # The step loop's side

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                self._scheduler.warm_up()
                self._ready.set()
                while self._wait_for_work():
                    with self._stepping:
                        self._scheduler.step()
                    ring_all(self._scheduler.news)
                    self._scheduler.news = set()
            self._end(Unavailable("the language model is going down", retry_after_s=1.0))
        except Exception:
            error = internal_error()
            log.exception("the step loop failed: %s", error.message)
            self._end(error)

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
            left = [*self._scheduler.active, *self._waiting.clear()]
            self._scheduler.active = []
            self._condition.notify_all()
        for sequence in left:
            sequence.mailbox.fail(error)
        self._ready.set()
        ring_all(self._scheduler.news | {sequence.mailbox for sequence in left})


def _collect(mailbox: Mailbox) -> Answer:
    parts: list[Text | Picture] = []
    while (event := mailbox.take()) is not None:
        if isinstance(event, Finish):
            return Answer(tuple(parts), event)
        parts.append(event)
    raise internal_error()  # woken without an end: cannot happen


def dtype_of(settings: Settings) -> torch.dtype:
    """What the weights are held and computed in."""
    names = {DType.FLOAT32: torch.float32, DType.BFLOAT16: torch.bfloat16, DType.FLOAT16: torch.float16}
    automatic = torch.bfloat16 if settings.device is Device.CUDA else torch.float32
    return names.get(settings.dtype, automatic)
