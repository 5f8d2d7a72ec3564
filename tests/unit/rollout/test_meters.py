"""Requests as they are measured from pages and from Prometheus."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from services import metrics
from services.errors import InternalError, InvalidInput, Unauthenticated, Unavailable
from services.rollout.meters import FIRST_TOKEN, REQUESTS, PageMeter, PrometheusMeter, check_url
from tests.support.http_server import serving


def request(fails: bool = False) -> None:
    try:
        with metrics.track("gateway", "CreateChatCompletion"):
            if fails:
                raise InternalError("a defect")
            metrics.FIRST_TOKEN.observe(0.3)
    except InternalError:
        assert fails


def test_only_what_happened_since_the_mark_counts() -> None:
    with serving(lambda path, body: (200, metrics.render())) as url:
        meter = PageMeter((f"{url}/metrics",))
        request(fails=True)
        mark = meter.mark()
        assert meter.since(mark).requests == 0
        for _ in range(9):
            request()
        request(fails=True)
        with metrics.track("tokenizer", "Tokenize"):
            """A service behind the gateway, whose requests would count twice."""
        found = meter.since(mark)
        assert (found.requests, found.errors, found.answers) == (10, 1, 9)
        assert 0.2 < (found.first_token(0.95) or 0) <= 0.5


def test_a_process_that_started_anew_counts_from_zero() -> None:
    pages = iter([page(ok=100), page(ok=7)])
    with serving(lambda path, body: (200, next(pages))) as url:
        meter = PageMeter((url,))
        assert meter.since(meter.mark()).requests == 7


def test_pages_of_several_pods_are_added_up() -> None:
    counts = {"/a": [10, 15], "/b": [1000, 1001]}
    with serving(lambda path, body: (200, page(ok=counts[path].pop(0)))) as url:
        meter = PageMeter((f"{url}/a", f"{url}/b"))
        assert meter.since(meter.mark()).requests == 6


def page(ok: int) -> bytes:
    return f'{REQUESTS}{{service="gateway",method="Chat",code="ok"}} {ok}\n'.encode()


def test_prometheus_is_asked_for_what_the_program_counts() -> None:
    asked: list[str] = []

    def answer(path: str, body: Any) -> tuple[int, Any]:
        (query,) = parse_qs(urlsplit(path).query)["query"]
        asked.append(query)
        if query == "vector(1)":
            return 200, {"data": {"result": [{"metric": {}, "value": [0, "1"]}]}}
        rows = (
            [("ok", "40"), ("internal_error", "2")] if REQUESTS in query else [("0.5", "30"), ("+Inf", "40")]
        )
        label = "code" if REQUESTS in query else "le"
        result = [{"metric": {label: name}, "value": [0, value]} for name, value in rows]
        return 200, {"status": "success", "data": {"resultType": "vector", "result": result}}

    with serving(answer) as url:
        meter = PrometheusMeter(url, 'namespace="ward"', shortest=30)
        meter.mark()
        assert meter.since(time.time() - 10).requests == 0  # too early
        found = meter.since(time.time() - 61)
    assert (found.requests, found.errors, found.answers) == (42, 2, 40)
    assert asked[-2:] == [
        f'sum by (code) (increase({REQUESTS}{{service="gateway",namespace="ward"}}[61s]))',
        f'sum by (le) (increase({FIRST_TOKEN}{{namespace="ward"}}[61s]))',
    ]
    assert f"{REQUESTS}{{".encode() in metrics.render()
    assert f"{FIRST_TOKEN}{{".encode() in metrics.render()


def test_prometheus_understands_the_questions() -> None:
    promql = pytest.importorskip("promql_parser", reason="the extra `chart` is not installed")
    promql.parse(f'sum by (le) (increase({FIRST_TOKEN}{{namespace="ward"}}[61s]))')
    promql.parse(f'sum by (code) (increase({REQUESTS}{{service="gateway"}}[61s]))')


@pytest.mark.parametrize(
    ("status", "error"), [(401, Unauthenticated), (500, Unavailable), (404, Unavailable)]
)
def test_a_page_that_cannot_be_read_is_an_error_without_the_key(status: int, error: type[Exception]) -> None:
    with serving(lambda path, body: (status, {})) as url, pytest.raises(error) as raised:
        PageMeter((f"{url}/metrics?token=secret",), key="secret").mark()
    assert "secret" not in str(raised.value)
    with pytest.raises(Unavailable):
        PageMeter(("http://127.0.0.1:1/metrics",)).mark()


@pytest.mark.parametrize("url", ["", "gateway:8000", "file:///etc/passwd", "http://", "http://[x"])
def test_an_address_that_is_none_is_named(url: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        check_url(url, "prometheus")
    assert raised.value.field == "prometheus"
