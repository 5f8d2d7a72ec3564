"""Counting, timing, and one page for many processes."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from services import metrics
from services.errors import InvalidImage
from services.pb.medmax.v1 import common_pb2, llm_pb2


def _count(service: str, code: str) -> float:
    return (
        metrics.REGISTRY.get_sample_value(
            "medmax_requests_total", {"service": service, "method": "m", "code": code}
        )
        or 0.0
    )


async def _numbers(fail: Exception | None = None):
    for number in range(5):
        yield number
        if fail and number == 2:
            raise fail


def test_the_code_of_an_error_is_counted() -> None:
    with pytest.raises(InvalidImage), metrics.track("a", "m"):
        raise InvalidImage("no picture")
    with pytest.raises(KeyError), metrics.track("a", "m"):
        raise KeyError("x")
    with metrics.track("a", "m"):
        assert metrics.ongoing("a") == 1
    assert (_count("a", "invalid_image"), _count("a", "internal_error"), _count("a", "ok")) == (1, 1, 1)
    assert metrics.ongoing("a") == 0


async def test_a_stream_is_ok_only_when_it_was_read_to_its_end() -> None:
    assert [number async for number in metrics.track_stream("b", "m", _numbers())] == list(range(5))
    async with aclosing(metrics.track_stream("b", "m", _numbers())) as stream:
        assert await anext(stream) == 0
    with pytest.raises(InvalidImage):
        [number async for number in metrics.track_stream("b", "m", _numbers(InvalidImage("bad")))]
    assert (_count("b", "ok"), _count("b", "cancelled"), _count("b", "invalid_image")) == (1, 1, 1)
    first = metrics.REGISTRY.get_sample_value(
        "medmax_first_event_seconds_count", {"service": "b", "method": "m"}
    )
    assert first == 3


async def test_a_cancelled_call_is_counted_as_such() -> None:
    async def call() -> None:
        with metrics.track("c", "m"):
            await asyncio.sleep(60)

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert _count("c", "cancelled") == 1


WORK = """
import os, sys, time
from services import metrics
metrics.ONGOING.labels("llm").inc()
metrics.REQUESTS.labels("llm", "Generate", "ok").inc(2)
metrics.publish_engine({"active": 3, "name": "ignored"})
print("ready", flush=True)
sys.stdin.read()
"""
READ = "from services import metrics; sys = __import__('sys'); sys.stdout.write(metrics.render().decode())"


def test_processes_share_a_page_and_the_dead_leave_it(tmp_path: Path) -> None:
    env = {**os.environ, metrics.METRICS_DIR: str(tmp_path)}

    def page() -> str:
        return subprocess.run(
            [sys.executable, "-c", READ], env=env, capture_output=True, text=True, check=True
        ).stdout

    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORK], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    both = page()
    assert 'medmax_requests_total{code="ok",method="Generate",service="llm"} 4.0' in both
    assert 'medmax_requests_ongoing{service="llm"} 2.0' in both
    assert 'medmax_engine{figure="active"} 6.0' in both
    workers[0].kill()
    workers[0].wait()
    one = page()
    assert 'medmax_requests_total{code="ok",method="Generate",service="llm"} 4.0' in one, "counts stay"
    assert 'medmax_requests_ongoing{service="llm"} 1.0' in one
    workers[1].kill()
    workers[1].wait()


async def test_an_answers_tokens_are_counted_by_modality_and_adapter_and_its_times_observed() -> None:
    def sample(name: str, **labels: str) -> float:
        return metrics.REGISTRY.get_sample_value(name, labels) or 0.0

    names = ("queue_seconds", "first_token_seconds", "token_seconds")
    before = [sample(f"medmax_llm_{name}_count") for name in names]

    def tokens(kind: str) -> float:
        return sample("medmax_llm_tokens_total", modality=kind, adapter="report")

    counted = {kind: tokens(kind) for kind in ("text", "image")}
    closed = False

    async def answer() -> AsyncIterator[llm_pb2.LanguageModelEvent]:
        nonlocal closed
        try:
            for ids in ([1], [2, 3], [4]):
                yield llm_pb2.LanguageModelEvent(text=llm_pb2.TextSpan(text="a", token_ids=ids))
            yield llm_pb2.LanguageModelEvent(image=llm_pb2.ImageSpan())
            usage = common_pb2.Usage(completion_tokens=22, completion_image_tokens=16)
            model = common_pb2.ModelVersion(id="medmax-phantom:report")
            finish = llm_pb2.Finish(usage=usage, model=model, queue_ms=3, first_token_ms=5)
            yield llm_pb2.LanguageModelEvent(finish=finish)
        finally:
            closed = True

    assert len([event async for event in metrics.track_tokens(answer())]) == 5
    after = [sample(f"medmax_llm_{name}_count") for name in names]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1, 2]
    assert tokens("image") - counted["image"] == 16
    assert tokens("text") - counted["text"] == 6
    closed = False
    async with aclosing(metrics.track_tokens(answer())) as stream:
        await anext(stream)
    assert closed, "letting go of the metrics lets go of the answer"
