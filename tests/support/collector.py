"""A collector of traces on loopback: takes OTLP over HTTP as a real one does, and keeps what it got."""

from __future__ import annotations

import gzip
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.support.http_server import handling

POLL_S = 0.1


@dataclass(frozen=True)
class Received:
    """A span as it came; ids in hexadecimal digits."""

    service: str
    message: SpanMessage

    @property
    def name(self) -> str:
        return self.message.name

    @property
    def trace(self) -> str:
        return self.message.trace_id.hex()

    @property
    def id(self) -> str:
        return self.message.span_id.hex()

    @property
    def parent(self) -> str:
        return self.message.parent_span_id.hex()

    @property
    def kind(self) -> str:
        return SpanMessage.SpanKind.Name(self.message.kind).removeprefix("SPAN_KIND_").lower()

    @property
    def failed(self) -> bool:
        return self.message.status.code == Status.STATUS_CODE_ERROR

    @property
    def facts(self) -> dict[str, Any]:
        return {each.key: _value(each.value) for each in self.message.attributes}

    @property
    def events(self) -> list[tuple[str, float]]:
        """Names, and milliseconds after the span's begin."""
        begun = self.message.start_time_unix_nano
        return [(each.name, (each.time_unix_nano - begun) / 1e6) for each in self.message.events]

    @property
    def ms(self) -> float:
        return (self.message.end_time_unix_nano - self.message.start_time_unix_nano) / 1e6


@dataclass
class Collector:
    """
    Attributes:
        endpoint: for OTEL_EXPORTER_OTLP_ENDPOINT.
        raw: the requests' bodies.
    """

    endpoint: str = ""
    spans: list[Received] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)

    def trace(self, trace_id: str) -> list[Received]:
        """Its spans so far, by their begin."""
        found = [span for span in list(self.spans) if span.trace == trace_id]
        return sorted(found, key=lambda span: span.message.start_time_unix_nano)

    def wait(self, complete: Callable[[], Any], seconds: float = 30) -> Any:
        """What `complete` gives, once that is true."""
        limit = time.monotonic() + seconds
        while not (found := complete()):
            assert time.monotonic() < limit, [(span.service, span.name) for span in self.spans]
            time.sleep(POLL_S)
        return found

    def tree(self, trace_id: str) -> str:
        """The trace as lines, children below their parents: service, name, kind."""
        spans = self.trace(trace_id)
        known = {span.id for span in spans}

        def below(parent: str, depth: int) -> Iterator[str]:
            for span in spans:
                if span.parent == parent or (not depth and span.parent not in known):
                    yield f"{'  ' * depth}{span.service} {span.name} {span.kind}"
                    yield from below(span.id, depth + 1)

        return "\n".join(below("", 0))


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that answers until the block ends."""
    collector, lock = Collector(), threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            right = self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
            if right:
                request = ExportTraceServiceRequest.FromString(body)
                with lock:
                    collector.raw.append(body)
                    collector.spans += _spans(request)
            data = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200 if right else 404)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with handling(Handler) as collector.endpoint:
        yield collector


def _spans(request: ExportTraceServiceRequest) -> Iterator[Received]:
    for group in request.resource_spans:
        resource = {each.key: _value(each.value) for each in group.resource.attributes}
        for scope in group.scope_spans:
            for span in scope.spans:
                yield Received(str(resource["service.name"]).removeprefix("medmax-"), span)


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return (
        [_value(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, kind)
    )
