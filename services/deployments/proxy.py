"""What this project adds to Ray Serve's proxies. Serve calls `prepare` in every proxy process
(`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`) before it opens a port.

- gRPC: the settings' host; errors of the tree with their trailing metadata, also in mid-stream; no Ray internals
  in messages.
- HTTP: bodies travel with their requests (`services.deployments.body`); where no gateway replica could answer, the REST dialect's error object in place of plain text.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import grpc
from ray.serve._private.proxy_request_response import ResponseStatus
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services import config, logs
from services.deployments import draining
from services.deployments.body import SendAhead, teach_requests
from services.deployments.faults import error_from
from services.deployments.loopback import bind_to
from services.errors import DeadlineExceeded, MedMaxError, Overloaded, Unavailable
from services.gateway.rest.errors import error_response
from services.rpc.status import status_of

IMPORT_PATH = "services.deployments.proxy:prepare"


def prepare() -> list[Middleware]:
    """Returns: middleware for the HTTP proxy."""
    settings = config.Settings()
    bind_to(settings)
    logs.configure("proxy")
    _teach_statuses()
    teach_requests()
    return [Middleware(ErrorObjects), Middleware(SendAhead, timeout_s=settings.request_timeout_s)]


def _teach_statuses() -> None:
    serve_proxy: Any = importlib.import_module("ray.serve._private.proxy")
    serve_status, serve_set = serve_proxy.get_grpc_response_status, serve_proxy.set_grpc_code_and_details

    def get_status(exc: BaseException, request_timeout_s: float | None, request_id: str) -> ResponseStatus:
        status: ResponseStatus = serve_status(exc, request_timeout_s, request_id)
        if status.code is grpc.StatusCode.CANCELLED:
            return status
        ours = status_of(error_from(exc, "gateway"))
        trailing = [(key.encode(), value.encode()) for key, value in ours.trailing]
        return replace(status, code=ours.code, message=ours.details, headers=trailing)

    def set_status(context: Any, status: ResponseStatus) -> None:
        if status.headers:
            added = [(key.decode(), value.decode()) for key, value in status.headers]
            context.set_trailing_metadata([*(context.trailing_metadata() or ()), *added])
        serve_set(context, status)

    serve_proxy.get_grpc_response_status = get_status
    serve_proxy.set_grpc_code_and_details = set_status


class ErrorObjects:
    """ASGI middleware: answers for a gateway that could not."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            draining.check()
        except MedMaxError as error:
            await error_response(error)(scope, receive, send)
            return
        started = replaced = False

        async def forward(message: Message) -> None:
            nonlocal started, replaced
            if replaced:
                return
            if message["type"] == "http.response.start" and not started:
                started = True
                if error := _from_serve(message):
                    replaced = True
                    await error_response(error)(scope, receive, send)
                    return
                message["headers"] = _once(message.get("headers", []))
            await send(message)

        await self._app(scope, receive, forward)
        if not started:
            interrupted = Unavailable("the gateway was interrupted; try again", retry_after_s=1)
            await error_response(interrupted)(scope, receive, send)


def _from_serve(message: Message) -> MedMaxError | None:
    """The error that Serve itself, not the gateway, reports in plain text."""
    headers = {key.lower(): value for key, value in message.get("headers", [])}
    if not headers.get(b"content-type", b"").startswith(b"text/plain"):
        return None
    errors: dict[int, MedMaxError] = {
        408: DeadlineExceeded("the request's time ran out"),
        429: Overloaded("the gateway's queue is full", retry_after_s=1),
        503: Unavailable("the gateway is not ready; try again", retry_after_s=1),
    }
    return errors.get(message["status"])


def _once(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Without the request id that Serve adds to the gateway's own."""
    seen = False
    kept = []
    for name, value in headers:
        if name.lower() == b"x-request-id":
            if seen:
                continue
            seen = True
        kept.append((name, value))
    return kept
