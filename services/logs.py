"""Structured logs: one JSON object per line on stderr.

A record holds time, level, service, logger, message, the request's id, its trace's id where traces are on
(`services/tracing.py`), and whatever a caller passes as `extra={"facts": {...}}`. Messages and facts must hold no prompt, no answer, no picture and no key.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

from services.errors import MedMaxError

OURS = ("services", "annotation")
REQUEST_ID: ContextVar[str] = ContextVar("medmax_request_id", default="")
TRACE_ID: ContextVar[str] = ContextVar("medmax_trace_id", default="")
LIBRARIES = (
    "alembic",
    "asyncio",
    "fsspec",
    "httpx",
    "httpcore",
    "opentelemetry",
    "PIL",
    "pydicom",
    "sqlalchemy",
    "urllib3",
    "uvicorn",
)

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def enter(request_id: str) -> None:
    """From here on, this task's records are of the request with that id; one without the form of an id, which may
    hold anything, is left out."""
    REQUEST_ID.set(request_id if _ID.fullmatch(request_id) else "")


class JSONFormatter(logging.Formatter):
    """Args: service: name of the deployment or command that logs."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := REQUEST_ID.get():
            entry["request_id"] = request_id
        if trace_id := TRACE_ID.get():
            entry["trace_id"] = trace_id
        entry.update(getattr(record, "facts", {}))
        if record.exc_info and record.exc_info[0] is not None:
            # Without the exception's message, which may quote a prompt.
            entry["exception"] = record.exc_info[0].__qualname__
            entry["traceback"] = "".join(traceback.format_tb(record.exc_info[2]))
        return json.dumps(entry, ensure_ascii=False, default=str)


class CallersOwn(logging.Filter):
    """Drops what Serve logs, with a traceback, for every request that a caller got wrong: its metric counts it."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not (isinstance(error, MedMaxError) and error.http_status < 500)


def configure(service: str, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Sends our own logs and our libraries' warnings to `stream` (stderr). Idempotent."""
    handler = logging.StreamHandler(stream or sys.__stderr__)
    handler.setFormatter(JSONFormatter(service))
    handler.set_name("medmax")
    for name, threshold in [*((name, level) for name in OURS), *((name, "WARNING") for name in LIBRARIES)]:
        logger = logging.getLogger(name)
        logger.handlers = [kept for kept in logger.handlers if kept.get_name() != "medmax"] + [handler]
        logger.setLevel(threshold)
        logger.propagate = False
    serve = logging.getLogger("ray.serve")
    if not any(isinstance(kept, CallersOwn) for kept in serve.filters):
        serve.addFilter(CallersOwn())
