"""Receiver of Label Studio's webhooks: says that something happened, never what.

Label Studio posts once, waits a second, does not repeat and does not sign; so this checks a secret, hands the numbers
to a sink and answers. What an event is about is read from the API; what was missed, reconciliation finds.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import SecretStr

from services.errors import ConfigurationError, InvalidInput, PayloadTooLarge, Unauthenticated

log = logging.getLogger(__name__)

ACTIONS = (
    "ANNOTATION_CREATED",
    "ANNOTATIONS_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_DELETED",
    "TASKS_DELETED",
    "PROJECT_UPDATED",
)
"""Those that a project's webhook asks for."""
# An annotation comes with its task; strokes on a large picture make some megabytes.
MAX_BYTES = 16 << 20
ANSWER_WITHIN_S = 0.15
MIN_SECRET_CHARS = 16


@dataclass(frozen=True)
class Event:
    """Something changed in a project. The same event may come twice, and has the same key then.

    Attributes:
        key: hex digest of all below and of the annotations' times.
        annotations, tasks: Label Studio's numbers.
    """

    key: str
    action: str
    project: int
    annotations: tuple[int, ...] = ()
    tasks: tuple[int, ...] = ()


@dataclass
class Received:
    """Counts since the start. `late`: the sink was still writing when the answer went out."""

    accepted: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    late: int = 0
    lost: int = 0


def router(secret: SecretStr, sink: Callable[[Event], None], received: Received | None = None) -> APIRouter:
    """`POST /labelstudio/webhook` with `Authorization: Bearer <secret>`.

    Args:
        sink: stores an event; called from a thread. Storing one with a known key must change nothing.
        received: counts, for metrics.

    Raises:
        ConfigurationError: the secret is shorter than 16 characters.
    """
    expected = f"Bearer {secret.get_secret_value()}".encode()
    if len(secret.get_secret_value()) < MIN_SECRET_CHARS:
        raise ConfigurationError(
            f"must have at least {MIN_SECRET_CHARS} characters", field="labelstudio_webhook_secret"
        )
    counts = received or Received()
    routes = APIRouter()
    writing: set[asyncio.Future[None]] = set()

    @routes.post("/labelstudio/webhook", status_code=202, include_in_schema=False)
    async def receive(request: Request) -> Response:
        try:
            given = request.headers.get("authorization", "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(given, expected):
                raise Unauthenticated("the secret is wrong", field="Authorization")
            event = read(await _body(request))
        except (InvalidInput, Unauthenticated) as error:
            counts.refused[error.code] += 1
            raise
        if event.action not in ACTIONS:
            counts.unknown["other"] += 1
            return Response(status_code=202)
        counts.accepted[event.action] += 1
        write = asyncio.ensure_future(asyncio.to_thread(sink, event))
        writing.add(write)
        write.add_done_callback(written)
        if not (await asyncio.wait({write}, timeout=ANSWER_WITHIN_S))[0]:
            counts.late += 1
        return Response(status_code=202)

    def written(write: asyncio.Future[None]) -> None:
        writing.discard(write)
        if not write.cancelled() and (error := write.exception()):
            counts.lost += 1
            log.error(
                "a webhook's event was not stored: %s; reconciliation will find it", type(error).__qualname__
            )

    return routes


async def _body(request: Request) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BYTES:
            raise PayloadTooLarge(f"must not exceed {MAX_BYTES} bytes", field="body")
        chunks.append(chunk)
    return b"".join(chunks)


def read(body: bytes) -> Event:
    """The event that a webhook's body tells of.

    Raises:
        InvalidInput: no JSON object, no action, or numbers that are none. The message quotes nothing.
    """
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidInput("must be JSON", field="body") from None
    if not isinstance(payload, dict) or not isinstance(action := payload.get("action"), str):
        raise InvalidInput("must be an object with an action", field="body")
    annotations = _all(payload, "annotation", "annotations")
    tasks = _all(payload, "task", "tasks")
    project = payload.get("project")
    numbers = [_number(entry, "annotations") for entry in annotations]
    # An annotation names its task, too.
    of = {_number(entry.get("task"), "annotations") for entry in annotations if entry.get("task")}
    event = Event(
        key="",
        action=action[:64],
        project=_number(project, "project") if project is not None else 0,
        annotations=tuple(sorted(numbers)),
        tasks=tuple(sorted({_number(entry, "tasks") for entry in tasks} | of)),
    )
    times = [str(entry.get("updated_at", "")) for entry in annotations]
    # Changes of a project carry its time of change where there is no annotation.
    known = [event.action, event.project, event.annotations, event.tasks, times]
    key = hashlib.sha256(json.dumps(known).encode()).hexdigest()
    return Event(key, event.action, event.project, event.annotations, event.tasks)


def _all(payload: dict[str, Any], one: str, many: str) -> list[dict[str, Any]]:
    entries = payload.get(many, [])
    entries = [*entries] if isinstance(entries, list) else [entries]
    if one in payload:
        # Some actions send a list under the singular.
        single = payload[one]
        entries += single if isinstance(single, list) else [single]
    if not all(isinstance(entry, dict) for entry in entries):
        raise InvalidInput("must be objects", field=many)
    return entries


def _number(entry: Any, field: str) -> int:
    value = entry.get("id") if isinstance(entry, dict) else entry
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 63:
        raise InvalidInput("needs a number as id", field=field)
    return value
