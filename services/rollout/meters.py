"""Measures a service's requests: from its own /metrics pages, or from a Prometheus that scrapes them."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import httpx
from prometheus_client.parser import text_string_to_metric_families

from services.errors import InvalidInput, Unauthenticated, Unavailable
from services.rollout.measured import Measured

REQUESTS = "medmax_requests_total"
FIRST_TOKEN = "medmax_llm_first_token_seconds_bucket"
TIMEOUT_S = 10.0
MAX_PAGE_BYTES = 32 << 20
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")  # a name, or an address

Sample = dict[tuple[str, str], float]  # (metric, code or le) → value


class Meter(Protocol):
    """Measures from a mark on."""

    def mark(self) -> Any:
        """The present. Raises: Unavailable, Unauthenticated."""

    def since(self, mark: Any) -> Measured:
        """Raises: Unavailable, Unauthenticated."""


class NoMeter:
    """Measures nothing: a roll-out on health alone."""

    def mark(self) -> None:
        return None

    def since(self, mark: None) -> Measured:
        return Measured()


@dataclass(frozen=True)
class PageMeter:
    """Counters of /metrics pages, each of one process or pod.

    A counter that fell belongs to a process that started anew, and counts from 0. A page's address must always lead
    to the same pod: behind a load balancer with several, use Prometheus.

    Args:
        urls: of the pages.
        key: API key; empty = none.
    """

    urls: tuple[str, ...]
    key: str = ""

    def mark(self) -> list[Sample]:
        return [_sample(_page(url, self.key)) for url in self.urls]

    def since(self, mark: list[Sample]) -> Measured:
        total: Sample = {}
        for before, now in zip(mark, self.mark(), strict=True):
            for name, value in now.items():
                earlier = before.get(name, 0.0)
                total[name] = total.get(name, 0.0) + (value - earlier if value >= earlier else value)
        return _measured(total)


@dataclass(frozen=True)
class PrometheusMeter:
    """Asks a Prometheus, which adds up all pods. In the first `shortest` seconds it knows nothing: a rate needs scrapes.

    Args:
        url: of the server, with its path prefix.
        selector: labels of our series, such as `namespace="medmax"`; empty = all.
        token: bearer token; empty = none.
    """

    url: str
    selector: str = ""
    token: str = ""
    shortest: int = 30

    def mark(self) -> float:
        self._ask("vector(1)")
        return time.time()

    def since(self, mark: float) -> Measured:
        seconds = math.floor(time.time() - mark)
        if seconds < self.shortest:
            return Measured()
        more = f",{self.selector}" if self.selector else ""
        total: Sample = {}
        for metric, label, where in (
            (REQUESTS, "code", 'service="gateway"' + more),
            (FIRST_TOKEN, "le", more[1:]),
        ):
            for labels, value in self._ask(f"sum by ({label}) (increase({metric}{{{where}}}[{seconds}s]))"):
                total[metric, labels.get(label, "")] = value
        return _measured(total)

    def _ask(self, query: str) -> Iterator[tuple[dict[str, str], float]]:
        answer = _get(f"{self.url.rstrip('/')}/api/v1/query", self.token, {"query": query})
        try:
            for each in answer.json()["data"]["result"]:
                value = float(each["value"][1]) if isinstance(each, dict) else 0.0
                if isinstance(each, dict) and math.isfinite(value):
                    yield each["metric"], value
        except (ValueError, KeyError, TypeError, IndexError):
            raise Unavailable("the answer is not Prometheus's", field=shown(self.url)) from None


def _page(url: str, key: str) -> str:
    return _get(url, key).text


def _get(url: str, key: str, params: dict[str, str] | None = None) -> httpx.Response:
    where = shown(url)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.get(url, params=params, headers=headers, timeout=TIMEOUT_S, trust_env=outside(url))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unavailable(f"cannot be read ({type(error).__name__})", field=where) from None
    if answer.status_code in {401, 403}:
        raise Unauthenticated(f"refused the key (HTTP {answer.status_code})", field=where)
    if answer.status_code != 200:
        raise Unavailable(f"answered HTTP {answer.status_code}", field=where)
    if len(answer.content) > MAX_PAGE_BYTES:
        raise Unavailable(f"the answer is larger than {MAX_PAGE_BYTES:,} bytes", field=where)
    return answer


def check_url(url: str, field: str) -> str:
    """`url` where it is http or https with a host. Raises: InvalidInput."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        parsed = httpx.URL("")
    if parsed.scheme not in {"http", "https"} or not _HOST.fullmatch(parsed.host):
        raise InvalidInput("must be an address such as http://HOST:PORT", field=field)
    return url


def outside(url: str) -> bool:
    """A proxy for the outside must not see what goes to this machine."""
    return httpx.URL(url).host not in {"127.0.0.1", "localhost", "::1"}


def shown(url: str) -> str:
    return str(httpx.URL(url).copy_with(userinfo=b"", query=None))


def _sample(page: str) -> Sample:
    sample: Sample = {}
    for name, labels, value in _series(page):
        if name == REQUESTS and labels.get("service") == "gateway":
            key = name, labels.get("code", "")
        elif name == FIRST_TOKEN:
            key = name, labels.get("le", "")
        else:
            continue
        sample[key] = sample.get(key, 0.0) + value
    return sample


def _series(page: str) -> Iterable[tuple[str, dict[str, str], float]]:
    wanted = "".join(line + "\n" for line in page.splitlines() if line.startswith((REQUESTS, FIRST_TOKEN)))
    try:
        for family in text_string_to_metric_families(wanted):
            for each in family.samples:
                yield each.name, each.labels, float(each.value)
    except ValueError:
        raise Unavailable("a page of metrics is not in Prometheus's text format") from None


def _measured(total: Sample) -> Measured:
    codes: dict[str, float] = {}
    buckets: dict[float, float] = {}
    for (metric, label), value in total.items():
        if metric == REQUESTS:
            codes[label] = value
        else:
            buckets[float(label)] = value
    return Measured(codes, buckets)
