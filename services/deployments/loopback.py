"""Keeps Ray Serve's gRPC servers where the settings say.

Serve 2.60 binds its gRPC proxy and every replica's internal gRPC server to `[::]`, without an option, and the
internal one unpickles what it is sent. On loopback installations their addresses are rewritten before they bind.
"""

from __future__ import annotations

import functools
import logging

from grpc.aio._server import Server

from services.config import Settings

log = logging.getLogger(__name__)
EVERYWHERE = "[::]:"


def bind_to(settings: Settings) -> None:
    """From now on, gRPC servers of this process that ask for every interface get `settings.host`. Idempotent."""
    if not settings.loopback or hasattr(Server.add_insecure_port, "__wrapped__"):
        return
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    original = Server.add_insecure_port

    @functools.wraps(original)
    def add_insecure_port(self: Server, address: str) -> int:
        if address.startswith(EVERYWHERE):
            address = f"{host}:{address.removeprefix(EVERYWHERE)}"
        return original(self, address)

    Server.add_insecure_port = add_insecure_port  # type: ignore[method-assign]
