"""Requests of the Open Inference Protocol with `tritonclient`: at a rate that does not wait for answers, or by callers
that do."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from loadtests.clients import LATE, LOST
from loadtests.samples import OK, OPEN_LIMIT, SHED, Sample, spread

PROTOCOL = "tritonclient"
WARM_UP = 6
_PLAIN = {"UNAVAILABLE": LOST, "DEADLINE_EXCEEDED": LATE}

Requests = Sequence[list[triton.InferInput]]


def warm_up(address: str, model: str, requests: Requests, timeout_s: float) -> None:
    """Some requests that are not counted. Raises: RuntimeError: none is answered."""
    errors = []
    with triton.InferenceServerClient(address) as client:
        for inputs in requests[:WARM_UP]:
            try:
                client.infer(model, inputs, client_timeout=timeout_s)
            except InferenceServerException as error:
                errors.append(error)
    if len(errors) == len(requests[:WARM_UP]):
        raise RuntimeError(f"{model} does not answer: {errors[-1]}")


def at_rate(
    address: str,
    model: str,
    requests: Requests,
    *,
    rate: float,
    seconds: float,
    count: int,
    timeout_s: float,
    seed: int = 0,
) -> list[Sample]:
    """Requests at random moments, `rate` a second on average; latencies count from the moment at which one was due."""
    moments, free = random.Random(seed), threading.Semaphore(OPEN_LIMIT)
    samples: list[Sample] = []
    start = due = time.monotonic()

    def note(due: float, sent: float, result: Any, error: InferenceServerException | None) -> None:
        samples.append(_sample(model, start, due, sent, _code(error)))
        free.release()

    with triton.InferenceServerClient(address) as client:
        for number in range(count):
            due += moments.expovariate(rate)
            if due - start >= seconds:
                break
            time.sleep(max(0.0, due - time.monotonic()))
            now = time.monotonic()
            if not free.acquire(blocking=False):
                samples.append(_sample(model, start, due, now, SHED))
                continue
            client.async_infer(
                model,
                requests[number % len(requests)],
                callback=partial(note, due, now),
                client_timeout=timeout_s,
            )
        patience = time.monotonic() + timeout_s + 5
        for _ in range(OPEN_LIMIT):
            if not free.acquire(timeout=max(0.0, patience - time.monotonic())):
                raise RuntimeError("a request did not end by its own time limit")
    return samples


def at_concurrency(
    address: str,
    model: str,
    requests: Requests,
    *,
    callers: int,
    seconds: float,
    count: int,
    timeout_s: float,
) -> list[Sample]:
    """Requests of `callers`, each of whom waits for its answer; latencies count from the moment of sending."""
    numbers, lock = itertools.count(), threading.Lock()
    samples: list[Sample] = []
    start = time.monotonic()

    def call() -> None:
        with triton.InferenceServerClient(address) as client:
            while (sent := time.monotonic()) - start < seconds:
                with lock:
                    number = next(numbers)
                if number >= count:
                    return
                code = OK
                try:
                    client.infer(model, requests[number % len(requests)], client_timeout=timeout_s)
                except InferenceServerException as error:
                    code = _code(error)
                samples.append(_sample(model, start, sent, sent, code))

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return samples


def figures(samples: Sequence[Sample], batch: int) -> dict[str, Any]:
    """The report of one run. Times in seconds; rates over the time until the last request ended."""
    answered = [sample for sample in samples if sample.answered]
    elapsed = max((sample.due_s + sample.total_s for sample in samples), default=0.0)
    per_s = len(answered) / elapsed if elapsed else 0.0
    return {
        "due": len(samples),
        "answered": len(answered),
        "failed": dict(Counter(sample.code for sample in samples if not sample.answered)),
        "answered_per_s": round(per_s, 3),
        "pictures_per_s": round(per_s * batch, 3),
        "total_s": spread(sample.total_s for sample in answered),
        "sent_late_s": spread(sample.late_s for sample in samples),
    }


def _sample(model: str, start: float, due: float, sent: float, code: str) -> Sample:
    now = time.monotonic()
    return Sample(model, PROTOCOL, due - start, max(0.0, sent - due), None, now - due, code=code)


def _code(error: InferenceServerException | None) -> str:
    if error is None:
        return OK
    status = str(error.status() or "unknown").removeprefix("StatusCode.")
    return _PLAIN.get(status, status.lower())
