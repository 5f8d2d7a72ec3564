"""OpenTelemetry traces: a span for every hop of a request, sent to a collector over OTLP.

Off, with nothing of OpenTelemetry imported, unless OTEL_EXPORTER_OTLP_ENDPOINT (or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT)
names a collector; what else is set is OpenTelemetry's own (`services/tracing_settings.py`, docs/observability.md).
Spans hold codes, counts, times and the request's id: never a prompt, an answer, a file's name or an error's message.

The span at work is kept in a context variable that is put back before control leaves, so that a generator that is
read from several tasks leaves nothing of its own behind.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from importlib import metadata
from typing import Any, Literal, TypeVar

from services import logs, tracing_settings
from services.errors import BY_CODE, code_of

T = TypeVar("T")
Kind = Literal["server", "client", "internal"]
Fact = str | int | float | bool

TRACEPARENT = "traceparent"  # W3C Trace Context's header; gRPC metadata of the same name
NOT_FAULTS = {"ok", "cancelled"}

_tracer: Any = None  # of OpenTelemetry, once `configure` found a collector
_provider: Any = None


class Span:
    """One hop of a request; false where nothing is recorded of it, so that facts need not be put together.

    Attributes:
        started_ns: Unix time of its begin.
    """

    __slots__ = ("_kind", "_span", "started_ns")

    def __init__(self, span: Any = None, kind: Kind = "internal") -> None:
        self._span, self._kind = span, kind
        self.started_ns = 0 if span is None else time.time_ns()

    def __bool__(self) -> bool:
        return self._span is not None and self._span.is_recording()

    @property
    def traceparent(self) -> str:
        """W3C's header for a hop below this one; empty when tracing is off."""
        if self._span is None:
            return ""
        own = self._span.get_span_context()
        return f"00-{own.trace_id:032x}-{own.span_id:016x}-{int(own.trace_flags) & 1:02x}"

    def rename(self, name: str) -> None:
        if self:
            self._span.update_name(name)

    def set(self, facts: Mapping[str, Fact | Sequence[str]]) -> None:
        """Adds attributes."""
        if self:
            self._span.set_attributes(facts)

    def event(self, name: str, after_ms: float, facts: Mapping[str, Fact] | None = None) -> None:
        """Something that happened `after_ms` milliseconds after the span's begin."""
        if self:
            self._span.add_event(name, facts, timestamp=self.started_ns + int(after_ms * 1e6))

    def result(self, code: str) -> None:
        """`ok` or an error's code. What a caller got wrong is no fault of the server that told it so."""
        if not self or code == "ok":
            return
        self._span.set_attribute("error.type", code)
        ours = code not in BY_CODE or BY_CODE[code].http_status >= 500
        if code not in NOT_FAULTS and (ours or self._kind != "server"):
            from opentelemetry.trace import Status, StatusCode

            self._span.set_status(Status(StatusCode.ERROR, code))

    def end(self) -> None:
        if self._span is not None:
            self._span.end()

    @contextmanager
    def active(self) -> Iterator[None]:
        """The span at work of what runs inside. Must be left in the context in which it was entered."""
        if self._span is None:
            yield
            return
        current = _CURRENT.set(self)
        trace = logs.TRACE_ID.set(format(self._span.get_span_context().trace_id, "032x"))
        try:
            yield
        finally:
            logs.TRACE_ID.reset(trace)
            _CURRENT.reset(current)


OFF = Span()
_CURRENT: ContextVar[Span] = ContextVar("medmax_span", default=OFF)


def configure(service: str) -> None:
    """Starts to export this process's spans, where a collector is set. Idempotent.

    Args:
        service: the resource's `service.name` is `medmax-` and this.

    Raises:
        ConfigurationError: a variable has no value that works here, or the extra `tracing` is not installed.
    """
    global _tracer, _provider
    if _tracer is not None or not tracing_settings.check():
        return
    import os
    import socket

    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create(
        {
            "service.namespace": "medmax",
            "service.name": f"medmax-{service}",
            "service.version": metadata.version("medmax-serve"),
            "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
        }
    )
    # A provider of our own, not the process's: Ray may have one.
    _provider = TracerProvider(resource=resource)
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = _provider.get_tracer("medmax")


def close() -> None:
    """Sends what is left and stops. Blocks, with a collector that is gone for some seconds."""
    global _tracer, _provider
    provider, _tracer, _provider = _provider, None, None
    if provider is not None:
        provider.shutdown()


def traceparent() -> str:
    """What the next hop should get; empty when tracing is off."""
    return "" if _tracer is None else _CURRENT.get().traceparent


def parent_of(pairs: Iterable[tuple[str, Any]] | None) -> str:
    """The `traceparent` of a gRPC call's metadata, empty where there is none."""
    if _tracer is None:
        return ""
    return next((value for key, value in pairs or () if key == TRACEPARENT and isinstance(value, str)), "")


def begin(
    name: str, kind: Kind = "internal", parent: Span | str | None = None, links: Sequence[Span] = ()
) -> Span:
    """A span that `end` must be called of.

    Args:
        name: from a fixed set, never from a caller.
        parent: a span, or the `traceparent` that came with a request (one without W3C's form counts as none);
            default: the span at work.
        links: spans without which this one would not be.
    """
    if _tracer is None:
        return OFF
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanKind, set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    if isinstance(parent, str) and parent:
        context = TraceContextTextMapPropagator().extract({TRACEPARENT: parent}, Context())
    else:
        above = (parent if isinstance(parent, Span) else _CURRENT.get())._span
        context = Context() if above is None else set_span_in_context(above, Context())
    made = _tracer.start_span(
        name,
        context,
        SpanKind[kind.upper()],
        links=[Link(link._span.get_span_context()) for link in links if link],
    )
    if made.is_recording() and (request_id := logs.REQUEST_ID.get()):
        made.set_attribute("medmax.request_id", request_id)
    return Span(made, kind)


@contextmanager
def span(
    name: str, kind: Kind = "internal", parent: Span | str | None = None, links: Sequence[Span] = ()
) -> Iterator[Span]:
    """A span around a block of a coroutine or a function; in a generator take `recorded` and `within`."""
    made = begin(name, kind, parent, links)
    with recorded(made), made.active():
        yield made


@contextmanager
def recorded(span: Span) -> Iterator[None]:
    """Ends `span` with what came of the block, without being at work in it."""
    try:
        yield
    except BaseException as error:
        span.result(code_of(error))
        raise
    finally:
        span.end()


def within(span: Span, events: AsyncIterator[T]) -> AsyncIterator[T]:
    """`events`, made with `span` at work. Closing it closes `events`."""
    return events if span is OFF else _within(span, events)


async def _within(span: Span, events: AsyncIterator[T]) -> AsyncIterator[T]:
    async with aclosing(events) as source:  # type: ignore[type-var]
        while True:
            with span.active():
                try:
                    event = await anext(source)
                except StopAsyncIteration:
                    return
            yield event
