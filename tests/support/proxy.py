"""A reverse proxy that can be down, slow, or answer for the server behind it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "host"}
_LIMITS = httpx.Limits(max_keepalive_connections=0)  # the server may end a kept one at any time


@dataclass
class Proxy:
    """
    Attributes:
        status: answer this instead of asking the server; 0 asks it.
        delay_s: wait before every answer.
        only: paths with this in them alone are hindered; empty = all.
        headers: of the answers that are ours.
        seen: requests by method and path.
    """

    target: str
    url: str = ""
    status: int = 0
    delay_s: float = 0.0
    only: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    # One for all requests: each new one reads the certificates.
    _client: httpx.AsyncClient = field(
        default_factory=lambda: httpx.AsyncClient(timeout=120, trust_env=False, limits=_LIMITS)
    )

    def heal(self) -> None:
        self.status, self.delay_s, self.only, self.headers = 0, 0.0, "", {}

    async def answer(self, request: Request) -> Response:
        path = request.url.path
        self.seen[f"{request.method} {path}"] += 1
        hindered = self.only in path
        if hindered and self.delay_s:
            await asyncio.sleep(self.delay_s)
        if hindered and self.status:
            return Response('{"detail": "hindered"}', self.status, self.headers, "application/json")
        headers = {name: value for name, value in request.headers.items() if name not in _HOP}
        got = await self._client.request(
            request.method,
            f"{self.target}{path}",
            params=request.url.query.encode(),
            headers=headers,
            content=await request.body(),
        )
        kept = {name: value for name, value in got.headers.items() if name not in _HOP}
        return Response(got.content, got.status_code, kept)


@contextmanager
def proxied(target: str, port: int = 0) -> Iterator[Proxy]:
    """A proxy in front of `target` on loopback; port 0 takes a free one."""
    proxy = Proxy(target.rstrip("/"))
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    app = Starlette(routes=[Route("/{path:path}", proxy.answer, methods=methods)])
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        proxy.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield proxy
        finally:
            server.should_exit = True
            thread.join()
