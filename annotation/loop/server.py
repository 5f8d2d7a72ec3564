"""What the controller serves: the webhook, pictures, drafts, the status page and its metrics."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, Response

from annotation.core import Kind
from annotation.labelstudio import ml_backend, pictures, templates, webhook
from annotation.labelstudio.pictures import PictureLinks
from annotation.loop import metrics
from annotation.loop.context import Loop
from annotation.loop.status import Status
from annotation.loop.steps.collect import events_of
from services.errors import ConfigurationError, InvalidInput, MedMaxError, NotFound
from services.gateway.auth import Gate
from services.gateway.rest import pages
from services.gateway.rest.errors import error_response
from services.tokenizer.limits import Limits

MODEL_VERSION = "medmax-draft"
PAGE = "/pages/review"


def create_app(loop: Loop, woken: Callable[[], None] | None = None) -> FastAPI:
    """
    Args:
        woken: called, from any thread, when the inbox got something.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(MedMaxError, _on_error)

    def sink(event: webhook.Event) -> None:
        loop.store.inbox.add(events_of(event))
        if woken is not None:
            woken()

    app.include_router(webhook.router(loop.secrets.webhook, sink))
    app.include_router(
        pictures.router(
            PictureLinks("", loop.secrets.pictures, loop.settings.labelstudio.picture_days),
            lambda item, sha256: _picture(loop, item, sha256),
            Limits(loop.base.max_image_bytes, loop.base.max_image_pixels),
        )
    )
    if loop.settings.assistant.url:
        own = loop.settings.labelstudio.configs or templates.FOLDER
        found = {kind: templates.load(kind, own) for kind in (Kind.CHAT, Kind.REPORT)}
        app.include_router(
            ml_backend.router(lambda data: _draft(loop, data), found, loop.secrets.drafts, MODEL_VERSION),
            prefix="/labelstudio/drafts",
        )
    gate = Gate(loop.base)
    pages.add(app, PAGE, lambda: lambda _: _page(loop), loop.base, gate)

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics", include_in_schema=False)
    async def scrape(request: Request) -> Response:
        gate.authenticate(request.headers.get("authorization"))
        return Response(await asyncio.to_thread(metrics.page, loop.store), media_type=CONTENT_TYPE_LATEST)

    return app


def _page(loop: Loop) -> str:
    from annotation.page.render import render

    return render(Status.of(loop.store))


def _picture(loop: Loop, item: str, sha256: str) -> bytes | None:
    """A picture of an item that is in review; None for others."""
    for kind in Kind:
        try:
            found = loop.store.items.load(f"{kind.value}:{item}")
        except (NotFound, InvalidInput):
            continue
        if any(picture.sha256 == sha256 for picture in found.pictures):
            return loop.store.items.shelf.files.read(sha256)
    return None


async def _draft(loop: Loop, data: Mapping[str, Any]) -> str:
    """A fresh answer to a task's question: of the item itself, not of what the caller says of it."""
    id = data.get("item")
    for kind in (Kind.CHAT, Kind.REPORT):
        try:
            item = await asyncio.to_thread(loop.store.items.load, f"{kind.value}:{id}", pictures=True)
        except (NotFound, InvalidInput):
            continue
        return await asyncio.to_thread(loop.drafts.text, item.dialogue)
    raise NotFound("no such item is in review", field="tasks")


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, MedMaxError)
    return error_response(error)


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket of ours, before anybody is told of its address.

    Raises:
        ConfigurationError: the port is taken or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise ConfigurationError(f"cannot listen there: {error.strerror}", field="review.port") from None
        yield listener
