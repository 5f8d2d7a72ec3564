"""What Prometheus reads of the review loop."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from annotation.core import Decision, Kind
from annotation.loop import metrics
from annotation.loop.context import Loop
from annotation.loop.controller import Controller
from annotation.loop.result import Result
from annotation.loop.server import create_app
from annotation.loop.settings import ReviewSettings
from annotation.store import State, What
from annotation.store.versions import Status
from services.config import load
from tests.unit.review.samples import annotation, judgement, publish


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Name and the labels' values, by the labels' names, to value."""
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def asked(loop: Loop, **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(create_app(loop))
    async with httpx.AsyncClient(transport=transport, base_url="http://review") as client:
        return await client.get("/metrics", headers=headers)


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(ReviewSettings(), load(data_dir=tmp_path, api_keys="prometheus:secret"))


async def test_the_store_is_counted_and_nothing_of_an_item_is_told(loop: Loop) -> None:
    with loop:
        store = loop.store
        keys = publish(store, 3, modality="fundus of Mustermann")
        now = store.ledger.clock()
        for expert in ("7", "8"):
            store.annotations.record(annotation(keys[0].partition(":")[2], expert, now))
        store.judgements.save(judgement(store, keys[0]), store.items.get(keys[0]).revision)
        store.progress.begin("publish", "me", timedelta(seconds=60))
        store.progress.finish("publish", "me", done=3, failed=2, error="unavailable")
        reply = await asked(loop, authorization="Bearer secret")
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/plain")
    found = samples(reply.text)
    assert found["medmax_review_items", Kind.CHAT, State.PUBLISHED] == 2
    assert found["medmax_review_items", Kind.CHAT, State.JUDGED] == 1
    assert found["medmax_review_decisions", Decision.EDIT] == 1
    assert 0 <= found["medmax_review_oldest_seconds", State.PUBLISHED] < 60
    assert found["medmax_review_inbox_events", "waiting"] == 0
    assert found["medmax_review_step_failing", "publish"] == 1
    assert found["medmax_review_step_left_behind", "publish"] == 2
    assert found["medmax_review_step_finished_timestamp_seconds", "publish"] == pytest.approx(
        now.timestamp(), abs=60
    )
    told = [word for word in ("Mustermann", *(key.partition(":")[2] for key in keys)) if word in reply.text]
    assert not told


async def test_versions_and_the_model_in_service_are_told(loop: Loop) -> None:
    with loop:
        versions = loop.store.versions
        versions.built("data-1", [], path="data")
        for name in ("model-1", "model-2"):
            versions.candidate(name, path="model", parent="data-1")
        versions.decide("model-1", Status.PROMOTED, "better")
        found = samples((await asked(loop, authorization="Bearer secret")).text)
    assert found["medmax_review_versions", Status.BUILT, What.DATA] == 1
    assert found["medmax_review_versions", Status.CANDIDATE, What.MODEL] == 1
    assert found["medmax_review_versions", Status.PROMOTED, What.MODEL] == 1
    assert found["medmax_review_serving_info", "data-1", "model-1"] == 1


async def test_a_scrape_needs_a_key_where_there_are_keys(loop: Loop) -> None:
    with loop:
        assert (await asked(loop)).status_code == 401
        assert (await asked(loop, authorization="Bearer wrong")).status_code == 401


def test_a_controller_counts_its_passes(loop: Loop) -> None:
    before = samples(metrics.generate_latest(metrics.OWN).decode())
    with loop:
        Controller(loop, names=("tidy", "judge"), until_idle=True).run()
    metrics.note("judge", 0.5, None)
    metrics.note("judge", 2, Result(done=3, failed={"unavailable": 2}))  # type: ignore[arg-type]
    metrics.note("judge", 1, Result(said={"error": "unavailable"}))
    after = samples(metrics.generate_latest(metrics.OWN).decode())

    def more(*key: str) -> float:
        return after.get(key, 0) - before.get(key, 0)

    assert more("medmax_review_passes_total", "ok", "tidy") >= 1
    assert more("medmax_review_passes_total", "ok", "judge") >= 1
    assert more("medmax_review_passes_total", "busy", "judge") == 1
    assert more("medmax_review_passes_total", "failed", "judge") == 1
    assert more("medmax_review_passes_total", "error", "judge") == 1
    assert more("medmax_review_step_items_total", "done", "judge") == 3
    assert more("medmax_review_step_items_total", "failed", "judge") == 2
    assert more("medmax_review_pass_seconds_count", "tidy") >= 1
