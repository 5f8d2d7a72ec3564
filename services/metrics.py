"""Prometheus metrics: requests, errors and durations of every service, and the engine's own figures.

With MEDMAX_METRICS_DIR set (the serving stack sets it) every replica writes into that folder and any of them can
render the whole node. Labels come from fixed sets: never anything that a caller sent.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

# prometheus_client chooses its way to keep values when it is imported. Its own variable is not set for the whole
# stack, since Ray's processes would then write into the folder as well.
METRICS_DIR = "MEDMAX_METRICS_DIR"
if os.environ.get(METRICS_DIR):
    os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", os.environ[METRICS_DIR])

from prometheus_client import (  # noqa: E402
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead  # noqa: E402

from services import tracing  # noqa: E402
from services.errors import code_of  # noqa: E402
from services.tracing import Span  # noqa: E402

if TYPE_CHECKING:
    from services.config import Scale

log = logging.getLogger(__name__)
T = TypeVar("T")

CONTENT_TYPE = CONTENT_TYPE_LATEST
BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)

REQUESTS = Counter(
    "medmax_requests",
    "Finished requests; code is ok or the error's code",
    ["service", "method", "code"],
)
SECONDS = Histogram("medmax_request_seconds", "Duration of requests", ["service", "method"], buckets=BUCKETS)
FIRST = Histogram(
    "medmax_first_event_seconds",
    "Time to the first event of a stream",
    ["service", "method"],
    buckets=BUCKETS,
)
ONGOING = Gauge("medmax_requests_ongoing", "Requests at work", ["service"], multiprocess_mode="livesum")
QUEUE = Histogram("medmax_llm_queue_seconds", "Time that answers waited for the engine", buckets=BUCKETS)
FIRST_TOKEN = Histogram(
    "medmax_llm_first_token_seconds", "Time from arrival to the first token or code", buckets=BUCKETS
)
BETWEEN = Histogram("medmax_llm_token_seconds", "Time per text token after the first", buckets=BUCKETS)
TOKENS = Counter(
    "medmax_llm_tokens", "Tokens of answers, by the adapter they ran under", ["modality", "adapter"]
)
# Live values: they go with the process that set them.
REPLICAS = Gauge("medmax_replicas", "Replicas that run", ["service"], multiprocess_mode="livesum")
CALLS = Gauge(
    "medmax_calls_ongoing",
    "Calls of gateways to a deployment, those that wait for a replica included",
    ["service"],
    multiprocess_mode="livesum",
)
TARGET = Gauge(
    "medmax_autoscaling_target_requests",
    "Requests per replica that autoscaling aims at",
    ["service"],
    multiprocess_mode="livemax",
)
BOUNDS = Gauge(
    "medmax_autoscaling_replicas",
    "Least and most replicas that autoscaling may choose",
    ["service", "bound"],
    multiprocess_mode="livemax",
)
BUILD = Gauge(
    "medmax_build_info",
    "1; the release and the weights of a service, by the first 12 digits of their SHA-256",
    ["service", "version", "model", "checkpoint"],
    multiprocess_mode="livemax",
)
ENGINE = Gauge("medmax_engine", "The engine's own figures", ["figure"], multiprocess_mode="livesum")


@contextmanager
def track(service: str, method: str, parent: str = "") -> Iterator[Span]:
    """Counts and times what runs inside a coroutine, traces it, and logs one line about it.

    Args:
        parent: the `traceparent` that came with the request.
    """
    span = tracing.begin(f"{service}/{method}", "server", parent)
    with _counted(service, method, span), span.active():
        yield span


async def track_stream(
    service: str, method: str, events: AsyncIterator[T], parent: str = ""
) -> AsyncIterator[T]:
    """As `track`, over a stream, whose first event is timed as well. Closing it closes `events`."""
    span = tracing.begin(f"{service}/{method}", "server", parent)
    start, first = time.perf_counter(), True
    with _counted(service, method, span):
        async with aclosing(tracing.within(span, events)) as source:  # type: ignore[type-var]
            async for event in source:
                if first:
                    FIRST.labels(service, method).observe(time.perf_counter() - start)
                    first = False
                yield event


@contextmanager
def _counted(service: str, method: str, span: Span) -> Iterator[None]:
    start, code = time.perf_counter(), "ok"
    ONGOING.labels(service).inc()
    try:
        yield
    except BaseException as error:
        code = code_of(error)
        raise
    finally:
        ONGOING.labels(service).dec()
        seconds = time.perf_counter() - start
        REQUESTS.labels(service, method, code).inc()
        SECONDS.labels(service, method).observe(seconds)
        with span.active():  # the line bears the trace's id
            facts = {"method": method, "code": code, "ms": round(seconds * 1000, 1)}
            log.info("request", extra={"facts": facts})
        span.result(code)
        span.end()


async def track_tokens(events: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The `LanguageModelEvent`s of one answer, the times between its tokens observed. Closing it closes `events`."""
    last = 0.0
    async with aclosing(events) as source:  # type: ignore[type-var]
        async for event in source:
            kind, now = event.WhichOneof("event"), time.perf_counter()
            if kind == "text" and event.text.token_ids:
                if last:
                    BETWEEN.observe((now - last) / len(event.text.token_ids))
                last = now
            elif kind == "image":
                last = 0.0  # a picture is no pause between two words
            elif kind == "finish":
                usage = event.finish.usage
                QUEUE.observe(event.finish.queue_ms / 1000)
                FIRST_TOKEN.observe(event.finish.first_token_ms / 1000)
                adapter = event.finish.model.id.partition(":")[2]  # a name from the settings, or none
                TOKENS.labels("image", adapter).inc(usage.completion_image_tokens)
                TOKENS.labels("text", adapter).inc(usage.completion_tokens - usage.completion_image_tokens)
            yield event


def publish_engine(stats: Mapping[str, Any]) -> None:
    """Sets one `medmax_engine{figure=…}` per number in `stats`."""
    for name, value in stats.items():
        if isinstance(value, int | float):
            ENGINE.labels(name).set(value)


def publish_replica(service: str, model_id: str, digest: str = "") -> None:
    """Says that this process is a replica of `service`, and what it runs."""
    REPLICAS.labels(service).set(1)
    BUILD.labels(service, metadata.version("medmax-serve"), model_id, digest[:12]).set(1)


def publish_scale(service: str, scale: Scale) -> None:
    """What autoscaling of a deployment goes by, beside `medmax_calls_ongoing`."""
    TARGET.labels(service).set(scale.target_ongoing_requests)
    BOUNDS.labels(service, "least").set(scale.min_replicas)
    BOUNDS.labels(service, "most").set(max(scale.min_replicas, scale.max_replicas))


def render() -> bytes:
    """The scrape page of this node (`CONTENT_TYPE`)."""
    return generate_latest(_registry())


def ongoing(service: str) -> float:
    """Requests that `service` has at work on this node."""
    return _registry().get_sample_value("medmax_requests_ongoing", {"service": service}) or 0.0


def _registry() -> CollectorRegistry:
    folder = os.environ.get(METRICS_DIR)
    if not folder:
        return REGISTRY
    _forget_dead(Path(folder))
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=folder)  # type: ignore[no-untyped-call]
    return registry


def _forget_dead(folder: Path) -> None:
    """Drops the live gauges of processes that are gone: a killed replica cannot do so itself."""
    for file in folder.glob("gauge_live*.db"):
        found = re.search(r"_(\d+)\.db$", file.name)
        if found and not Path("/proc", found[1]).exists():
            mark_process_dead(int(found[1]), str(folder))  # type: ignore[no-untyped-call]
