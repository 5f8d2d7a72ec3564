"""Request bodies that travel with the request.

Serve's HTTP proxy hands a replica the request without its body. The replica looks the proxy up and fetches the body
with a call back: longer than the rest of the way, and the look-up blocks its event loop. Here the proxy reads a small
body first and sends it along.
"""

from __future__ import annotations

import asyncio
import functools
import pickle

from ray.serve._private.common import StreamingHTTPRequest
from ray.serve._private.proxy_request_response import ASGIProxyRequest
from starlette.types import ASGIApp, Receive, Scope, Send

from services.errors import DeadlineExceeded
from services.gateway.rest.errors import error_response

KEY = "medmax.body"
LIMIT_BYTES = 4 << 20
CONTROL_HEADERS = {b"x-request-disconnect-disabled", b"x-request-timeout-seconds"}


class SendAhead:
    """ASGI middleware of the proxy. Takes off Serve's own control headers too: they are not for callers.

    Args:
        timeout_s: for the body to arrive.
    """

    def __init__(self, app: ASGIApp, timeout_s: float) -> None:
        self._app = app
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = [pair for pair in scope["headers"] if pair[0].lower() not in CONTROL_HEADERS]
            scope = {**scope, "headers": headers}
            if _length(headers) <= LIMIT_BYTES:
                try:
                    async with asyncio.timeout(self._timeout_s):
                        body = await _read(receive)
                except TimeoutError:
                    error = DeadlineExceeded(
                        f"the body took more than {self._timeout_s:g} s to arrive", field="body"
                    )
                    await error_response(error)(scope, receive, send)
                    return
                if body is None:
                    return
                scope[KEY] = body
        await self._app(scope, receive, send)


class Body:
    """What a replica receives from instead of the proxy: the body at once, then nothing.

    It needs no news of a caller who goes away, since the proxy then cancels its request.
    """

    def __init__(self, data: bytes) -> None:
        self._data: bytes | None = data

    async def __call__(self, metadata: object) -> bytes:
        """Pickled ASGI messages."""
        if self._data is None:
            await asyncio.Event().wait()
        data, self._data = self._data, None
        return pickle.dumps([{"type": "http.request", "body": data, "more_body": False}])


def teach_requests() -> None:
    """From now on, this process's HTTP proxy sends the bodies along that `SendAhead` has read."""
    original = ASGIProxyRequest.serialized_replica_arg

    @functools.wraps(original)
    def serialized_replica_arg(self: ASGIProxyRequest, proxy_actor_name: str) -> bytes:
        body = self.scope.pop(KEY, None)
        if body is None:
            return original(self, proxy_actor_name)
        return pickle.dumps(StreamingHTTPRequest(self.scope, receive_asgi_messages=Body(body)))

    ASGIProxyRequest.serialized_replica_arg = serialized_replica_arg  # type: ignore[method-assign]


def _length(headers: list[tuple[bytes, bytes]]) -> int:
    """Declared bytes of the body; more than the limit where that is not known."""
    found = dict(headers)
    if b"transfer-encoding" in found:
        return LIMIT_BYTES + 1
    length = found.get(b"content-length", b"0")
    return int(length) if length.isdigit() else LIMIT_BYTES + 1


async def _read(receive: Receive) -> bytes | None:
    """The whole body, or None when the caller went away."""
    chunks = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(chunks)
