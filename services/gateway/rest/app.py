"""The FastAPI application: routes, and nothing that a route's own module could hold."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from services import metrics
from services.config import Settings
from services.deadline import Deadline
from services.errors import InvalidInput, MedMaxError, ModelNotFound, NotFound
from services.gateway.access import model_name
from services.gateway.assistant import Assistant
from services.gateway.auth import Gate
from services.gateway.rest import chat, docs, images, media, pages, render
from services.gateway.rest.body import parse_object, read_body
from services.gateway.rest.completion import Completion
from services.gateway.rest.envelope import Envelope
from services.gateway.rest.errors import complaint, error_body, error_response, invalid
from services.gateway.rest.schemas import FeedbackRequest
from services.gateway.rest.streaming import EventStream, to_json, until_disconnect
from services.gateway.tasks import all_or_none
from services.pb.medmax.v1 import assistant_pb2, common_pb2

OFF_LOOP_BYTES = 64 * 1024  # a larger body is parsed, its pictures decoded, on another thread
MAX_TIMEOUT_MS = 2**31

AssistantSource = Assistant | Callable[[], Assistant]


class Rest:
    """The routes.

    Args:
        source: the assistant, or a function that gives it (called with every request).
    """

    def __init__(self, source: AssistantSource, settings: Settings, gate: Gate) -> None:
        self._source = source
        self._settings = settings
        self._gate = gate
        self._started = int(time.time())

    @property
    def _assistant(self) -> Assistant:
        return self._source if isinstance(self._source, Assistant) else self._source()

    async def chat_completions(self, request: Request) -> Response:
        caller = self._admit(request)
        deadline = self._deadline(request)
        body = await self._body(request)
        large = len(body) > OFF_LOOP_BYTES
        prepared = (
            await asyncio.to_thread(chat.prepare, body, self._settings)
            if large
            else chat.prepare(body, self._settings)
        )
        if prepared.fetches:
            await until_disconnect(request.receive, self._fetch(prepared, deadline))
        prepared.request.context.CopyFrom(_context(request, deadline))
        served = model_name(self._settings.model_id, prepared.request.adapter)
        completion = Completion.of(prepared.request, served)
        events = self._assistant.generate(prepared.request, caller)
        try:
            if not prepared.stream:
                reply = await until_disconnect(request.receive, completion.reply(events))
                return await asyncio.to_thread(_json, reply) if completion.with_images else _json(reply)
            chunks = completion.chunks(events, prepared.include_usage)
            # An error before the first chunk still gets its own status.
            first = await until_disconnect(request.receive, _first(chunks))
        except MedMaxError as error:
            raise prepared.names.translate(error) from None
        return EventStream(_with_first(first, chunks, prepared.names))

    async def images_generations(self, request: Request) -> Response:
        caller = self._admit(request)
        deadline = self._deadline(request)
        prepared = images.prepare(await self._body(request))
        prepared.request.context.CopyFrom(_context(request, deadline))
        try:
            reply = await until_disconnect(request.receive, images.draw(self._assistant, prepared, caller))
        except MedMaxError as error:
            raise prepared.names.translate(error) from None
        return await asyncio.to_thread(_json, reply)

    async def feedback(self, request: Request) -> Response:
        caller = self._admit(request)
        deadline = self._deadline(request)
        try:
            given = FeedbackRequest.model_validate(parse_object(await self._body(request)))
        except ValidationError as error:
            raise invalid(error) from None
        message = assistant_pb2.SubmitFeedbackRequest(
            context=_context(request, deadline),
            interaction_id=given.interaction_id,
            rating=given.rating,
            flag=bool(given.flag),
            comment=given.comment or "",
            corrected_text=given.corrected_text or "",
        )
        made = await self._assistant.submit_feedback(message, caller)
        return _json({"id": made.feedback_id, "object": "feedback", "interaction_id": given.interaction_id})

    async def interaction(
        self, request: Request, interaction_id: str, include_images: bool = False
    ) -> Response:
        caller = self._admit(request)
        message = assistant_pb2.GetInteractionRequest(
            context=_context(request, self._deadline(request)),
            interaction_id=interaction_id,
            include_images=include_images,
        )
        found = await self._assistant.get_interaction(message, caller)
        return await asyncio.to_thread(lambda: _json(render.interaction(found)))

    async def models(self, request: Request) -> Response:
        ids = self._assistant.access.models(self._admit(request))
        return _json({"object": "list", "data": [self._model(model_id) for model_id in ids]})

    async def model(self, request: Request, model_id: str) -> Response:
        if model_id not in self._assistant.access.models(self._admit(request)):
            raise ModelNotFound(f"no such model here; {self._settings.model_id} is served", field="model")
        return _json(self._model(model_id))

    async def healthz(self) -> Response:
        return _json({"status": "ok"})

    async def readyz(self) -> Response:
        await self._assistant.check_health()
        return _json({"status": "ready"})

    async def metrics(self, request: Request) -> Response:
        self._gate.authenticate(_authorization(request))
        return Response(await asyncio.to_thread(metrics.render), media_type=metrics.CONTENT_TYPE)

    def _admit(self, request: Request) -> str:
        return self._gate.admit(_authorization(request))

    async def _body(self, request: Request) -> bytes:
        return await read_body(request, self._settings.max_request_bytes, self._settings.request_timeout_s)

    async def _fetch(self, prepared: chat.Prepared, deadline: Deadline) -> None:
        await all_or_none(media.fetch(item, self._settings, deadline) for item in prepared.fetches)

    def _deadline(self, request: Request) -> Deadline:
        """The end of the request's time, counted from its arrival; `X-Request-Timeout-Ms` may set it earlier."""
        given = request.headers.get("x-request-timeout-ms", "")
        whole = given.isascii() and given.isdecimal() and len(given) < 12
        if given and not (whole and 1 <= int(given) <= MAX_TIMEOUT_MS):
            raise InvalidInput(
                f"must be a whole number of milliseconds from 1 to {MAX_TIMEOUT_MS:,}",
                field="X-Request-Timeout-Ms",
            )
        return Deadline.after(int(given or 0), self._settings.request_timeout_s)

    def _model(self, model_id: str) -> dict[str, Any]:
        return {
            "id": model_id,
            "object": "model",
            "created": self._started,
            "owned_by": "medmax",
        }


def create_app(source: AssistantSource, settings: Settings, gate: Gate | None = None) -> FastAPI:
    """The REST front of an assistant.

    Args:
        source: the assistant, or a function that gives it (called with every request).
        gate: shared with the gRPC front, so that a key's rate counts both.

    Raises:
        ConfigurationError: an API key has no valid form.
    """
    gate = gate or Gate(settings)
    rest = Rest(source, settings, gate)
    app = FastAPI(
        title="MedMax Serve",
        version=docs.version(),
        description=docs.DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.add_middleware(Envelope)
    app.add_exception_handler(MedMaxError, _on_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    for route in docs.ROUTES:
        app.add_api_route(
            route.path,
            getattr(rest, route.handler),
            methods=[route.method],
            tags=[route.tag],
            summary=route.summary,
            operation_id=route.handler,
            responses=route.responses,
            openapi_extra=route.openapi_extra,
            response_class=JSONResponse,
            response_model=None,
        )
    docs.install(app)
    pages.install(app, settings, gate)
    return app


def _authorization(request: Request) -> str | None:
    # Starlette reads headers as Latin-1; a key may have other characters.
    header = request.headers.get("authorization")
    return None if header is None else header.encode("latin-1").decode("utf-8", "surrogateescape")


def _context(request: Request, deadline: Deadline) -> common_pb2.RequestContext:
    return common_pb2.RequestContext(
        request_id=request.scope["state"]["request_id"], timeout_ms=deadline.remaining_ms
    )


def _json(value: dict[str, Any]) -> Response:
    return Response(to_json(value), media_type="application/json")


async def _first(chunks: Any) -> Any:
    return await anext(chunks)


async def _with_first(first: Any, chunks: Any, names: Any) -> Any:
    try:
        yield first
        async for chunk in chunks:
            yield chunk
    except MedMaxError as error:
        raise names.translate(error) from None
    finally:
        await chunks.aclose()


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, MedMaxError)
    request.scope["state"]["code"] = error.code
    return error_response(error)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    # The path starts with where the parameter stood: path or query.
    return await _on_error(request, complaint(first["type"], first["loc"][1:], first["msg"]))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = NotFound("no such address") if error.status_code == 404 else InvalidInput(str(error.detail))
    request.scope["state"]["code"] = known.code
    return JSONResponse(error_body(known), error.status_code, dict(error.headers or {}))
