"""Serves this node's metrics to Prometheus: a sidecar of every Ray pod.

    python -m services.exporter [--port 9464]

It reads the folder MEDMAX_METRICS_DIR that the replicas of its pod write, and must see their processes
(`shareProcessNamespace`), since live gauges of processes that are gone are dropped. With MEDMAX_API_KEYS set a scrape
needs a key, as the gateway's /metrics does.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from services import config, metrics
from services.config import Settings
from services.errors import ConfigurationError, Unauthenticated
from services.gateway.auth import Gate

PORT = 9464
Start = Callable[[str, list[tuple[str, str]]], Any]


class Exporter:
    """A WSGI application: `/metrics` with a key, `/healthz` without."""

    def __init__(self, settings: Settings) -> None:
        self._gate = Gate(settings)

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if environ.get("REQUEST_METHOD") != "GET" or path not in {"/metrics", "/healthz"}:
            return _reply(start, "404 Not Found", b"not found\n")
        if path == "/healthz":
            return _reply(start, "200 OK", b"ok\n")
        try:
            self._gate.authenticate(environ.get("HTTP_AUTHORIZATION"))
        except Unauthenticated:
            return _reply(start, "401 Unauthorized", b"a key is needed\n", ("WWW-Authenticate", "Bearer"))
        return _reply(start, "200 OK", metrics.render(), content_type=metrics.CONTENT_TYPE)


def _reply(
    start: Start, status: str, body: bytes, *more: tuple[str, str], content_type: str = "text/plain"
) -> list[bytes]:
    start(status, [("Content-Type", content_type), ("Content-Length", str(len(body))), *more])
    return [body]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    timeout = 10  # seconds for a request to arrive

    def log_message(self, format: str, *args: Any) -> None:
        """A scrape is no news."""


def server(settings: Settings, port: int = PORT) -> WSGIServer:
    """Listens on the settings' host; call `serve_forever`.

    Raises:
        ConfigurationError: MEDMAX_METRICS_DIR is not set, or the port is taken.
    """
    if not os.environ.get(metrics.METRICS_DIR):
        raise ConfigurationError("must name the folder that replicas write", field=metrics.METRICS_DIR)
    try:
        made = _Server((settings.host, port), _Quiet)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on port {port}: {error.strerror}", field="--port") from None
    made.set_app(Exporter(settings))
    return made


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m services.exporter", description=__doc__)
    parser.add_argument("--port", type=int, default=PORT)
    given = parser.parse_args()
    try:
        running = server(config.load(), given.port)
    except ConfigurationError as error:
        raise SystemExit(f"error: {error}") from None
    running.serve_forever()


if __name__ == "__main__":
    main()
