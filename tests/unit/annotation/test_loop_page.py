"""The status page, as operators get it from the gateway."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import httpx
import pytest

from annotation.loop.status import Status
from annotation.page.render import render
from annotation.store import ReviewStore, State
from services.config import Settings, load
from services.gateway.rest import pages
from services.gateway.rest.app import create_app
from tests.unit.review.samples import annotation, judgement, publish


def gateway(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> httpx.AsyncClient:
    entry = EntryPoint("review", "annotation.page.render:page", pages.GROUP)
    monkeypatch.setattr(pages, "entry_points", lambda group: [entry] if group == pages.GROUP else [])

    def nobody() -> Any:
        raise AssertionError("the page needs no assistant")

    transport = httpx.ASGITransport(create_app(nobody, settings))
    return httpx.AsyncClient(transport=transport, base_url="http://gateway")


async def test_operators_alone_see_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(data_dir=tmp_path, api_keys="ward:one,head:two", operators="head")
    async with gateway(settings, monkeypatch) as client:
        asked = await client.get("/pages/review")
        assert asked.status_code == 401
        assert asked.headers["www-authenticate"].startswith("Basic")
        assert (await client.get("/pages/review", auth=("anybody", "wrong"))).status_code == 401
        assert (await client.get("/pages/review", auth=("anybody", "one"))).status_code == 403
        for way in ({"auth": ("anybody", "two")}, {"headers": {"Authorization": "Bearer two"}}):
            shown = await client.get("/pages/review", **way)  # type: ignore[arg-type]
            assert shown.status_code == 200
            assert "Expert review" in shown.text
            assert "script" not in shown.headers["content-security-policy"]


async def test_on_loopback_without_keys_everybody_is_the_operator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway(load(data_dir=tmp_path), monkeypatch) as client:
        assert (await client.get("/pages/review")).status_code == 200


def test_nothing_is_fetched_and_what_waits_is_shown(tmp_path: Path) -> None:
    store = ReviewStore.open(load(data_dir=tmp_path))
    keys = publish(store, 3, modality="<b>fundus</b>")
    now = store.ledger.clock()
    for expert in ("7", "8"):
        store.annotations.record(annotation(keys[0].partition(":")[2], expert, now))
    store.judgements.save(judgement(store, keys[0]), store.items.get(keys[0]).revision)
    status = Status.of(store)
    html = render(status)
    store.close()
    assert not re.search(r"""(src|href)=["'](?!data:)""", html)
    assert "<script" not in html
    assert "<b>fundus" not in html
    assert html.count("<svg") == 3
    assert sum(status.states[State.PUBLISHED].values()) == 2
    assert '<td>published</td><td class="n">2</td>' in html
