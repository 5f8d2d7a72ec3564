"""What every response carries, what is counted of it, and what happens to an exception that nobody foresaw."""

from __future__ import annotations

import logging
import re
import time
import uuid
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services import logs, metrics, tracing
from services.gateway.rest.errors import error_response, known

log = logging.getLogger(__name__)

SERVICE = "gateway"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
PROBES = {"/healthz", "/readyz", "/metrics"}  # asked every few seconds, and no part of any request
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


class Envelope:
    """ASGI middleware: a request id, security headers, metrics, no traceback to a caller.

    `X-Request-ID` is echoed where it has a valid form and made up where not; it is in `scope["state"]["request_id"]`.
    `scope["state"]["code"]` is the error's code, set by whoever answers with an error.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        logs.enter(request_id)
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"], state["code"] = request_id, "ok"
        started = False
        begun = time.perf_counter()
        span = tracing.OFF
        if scope["path"] not in PROBES:
            span = tracing.begin("gateway/http", "server", Headers(scope=scope).get(tracing.TRACEPARENT, ""))

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if span:
                    span.set({"http.response.status_code": message["status"]})
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if headers.get("content-type", "").startswith("text/event-stream"):
                    metrics.FIRST.labels(SERVICE, _operation(scope)).observe(time.perf_counter() - begun)
            await send(message)

        metrics.ONGOING.labels(SERVICE).inc()
        try:
            with span.active():
                await self._app(scope, receive, send_with_headers)
        except Exception as error:
            answer = known(error)
            state["code"] = answer.code
            if not started:
                await error_response(answer)(scope, receive, send_with_headers)
        except BaseException:
            state["code"] = "cancelled"
            raise
        finally:
            operation, seconds = _operation(scope), time.perf_counter() - begun
            metrics.ONGOING.labels(SERVICE).dec()
            metrics.REQUESTS.labels(SERVICE, operation, state["code"]).inc()
            metrics.SECONDS.labels(SERVICE, operation).observe(seconds)
            facts = {"method": operation, "code": state["code"], "ms": round(seconds * 1000, 1)}
            with span.active():
                log.info("request", extra={"facts": facts})
            span.rename(f"{SERVICE}/{operation}")
            span.result(state["code"])
            span.end()


def _operation(scope: Scope) -> str:
    """Name of the route; one name for whatever has none, since paths come from callers."""
    return getattr(scope.get("route"), "operation_id", None) or "other"
