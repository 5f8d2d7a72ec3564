"""The OpenAPI document and `/docs`: Swagger UI from files of this installation, since a hospital has no CDN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata, resources
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import Response

from services.gateway.rest import examples, replies, schemas
from services.gateway.rest.envelope import HEADERS

REFERENCE = "#/components/schemas/{model}"
DESCRIPTION = examples.DESCRIPTION
_CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><title>MedMax Serve</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script><script src="docs/start.js"></script>
</body>
</html>
"""
_START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
  tryItOutEnabled: true
});
"""
_HEADERS = [
    {
        "name": "X-Request-ID",
        "in": "header",
        "description": "echoed, and in logs; at most 64 characters of A-Z a-z 0-9 . _ -",
        "schema": {"type": "string", "maxLength": 64, "pattern": "^[A-Za-z0-9._-]+$"},
    },
    {
        "name": "X-Request-Timeout-Ms",
        "in": "header",
        "description": "milliseconds after which the request fails with 504; at most the installation's limit counts",
        "schema": {"type": "integer", "minimum": 1, "maximum": 2**31},
    },
]
_FAILURES = {
    400: "wrong input: `param` names the field, `message` the limit",
    401: "no key, or a wrong one",
    404: "no such thing, or not yours",
    413: "too large",
    415: "not application/json",
    429: "over the key's rate, or overloaded; `Retry-After` gives seconds",
    500: "a defect of the server",
    503: "a service is starting, going down or out of reach; try again",
    504: "the request's time ran out",
}


@dataclass(frozen=True)
class Route:
    """One operation as the document tells it; `handler` is a method of `Rest`."""

    method: str
    path: str
    handler: str
    tag: str
    summary: str
    reply: type[BaseModel] | str
    body: type[BaseModel] | None = None
    body_examples: Mapping[str, Any] | None = None
    failures: tuple[int, ...] = ()
    open: bool = False
    streams: bool = False

    @property
    def responses(self) -> dict[int | str, dict[str, Any]]:
        success: dict[str, Any] = {"description": "done"}
        if isinstance(self.reply, str):
            success["content"] = {self.reply: {"schema": {"type": "string"}}}
        else:
            success["model"] = self.reply
        if self.streams:
            success["content"] = {
                "text/event-stream": {"schema": {"type": "string"}, "example": examples.STREAM}
            }
        failures: dict[int | str, dict[str, Any]] = {
            status: {"model": replies.ErrorReply, "description": _FAILURES[status]}
            for status in self.failures
        }
        return {200: success, **failures}

    @property
    def openapi_extra(self) -> dict[str, Any]:
        extra: dict[str, Any] = {}
        if not self.open:
            extra["security"] = [{"key": []}, {}]
            extra["parameters"] = _HEADERS
        if self.body is not None:
            content: dict[str, Any] = {"schema": {"$ref": REFERENCE.format(model=self.body.__name__)}}
            if self.body_examples:
                content["examples"] = dict(self.body_examples)
            extra["requestBody"] = {"required": True, "content": {"application/json": content}}
        return extra


_READ = (401, 429, 500)
_WRITE = (400, 401, 413, 415, 429, 500, 503, 504)
ROUTES = (
    Route(
        "POST",
        "/v1/chat/completions",
        "chat_completions",
        "answers",
        "Answer a conversation with text, pictures or both",
        replies.ChatReply,
        schemas.ChatRequest,
        examples.CHAT,
        (*_WRITE, 404),
        streams=True,
    ),
    Route(
        "POST",
        "/v1/images/generations",
        "images_generations",
        "answers",
        "Draw pictures from a description",
        replies.ImagesReply,
        schemas.ImagesRequest,
        examples.IMAGES,
        (*_WRITE, 404),
    ),
    Route("GET", "/v1/models", "models", "models", "The served models", replies.ModelList, failures=_READ),
    Route(
        "GET",
        "/v1/models/{model_id:path}",
        "model",
        "models",
        "One model",
        replies.Model,
        failures=(*_READ, 404),
    ),
    Route(
        "POST",
        "/v1/feedback",
        "feedback",
        "interactions",
        "Rate, flag, comment or correct a stored answer",
        replies.FeedbackReply,
        schemas.FeedbackRequest,
        examples.FEEDBACK,
        (*_WRITE, 404),
    ),
    Route(
        "GET",
        "/v1/interactions/{interaction_id}",
        "interaction",
        "interactions",
        "A stored interaction of this caller, with its feedback",
        replies.Interaction,
        failures=(*_READ, 400, 404, 503),
    ),
    Route("GET", "/healthz", "healthz", "health", "The process runs", replies.StatusReply, open=True),
    Route(
        "GET",
        "/readyz",
        "readyz",
        "health",
        "Every service and the store can answer",
        replies.StatusReply,
        failures=(503,),
        open=True,
    ),
    Route("GET", "/metrics", "metrics", "health", "Prometheus metrics", "text/plain", failures=(401,)),
)


def version() -> str:
    return metadata.version("medmax-serve")


def install(app: FastAPI) -> None:
    """Adds `/docs` and completes the OpenAPI document."""
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    assets = resources.files("fastapi_offline") / "static"
    files = {name: ((assets / name).read_bytes(), kind) for name, kind in _ASSETS.items()}
    files["start.js"] = (_START.encode(), "text/javascript")

    async def page() -> Response:
        headers = {**HEADERS, "Content-Security-Policy": _CONTENT_POLICY}
        return Response(_PAGE, media_type="text/html", headers=headers)

    def serve(content: bytes, kind: str) -> Any:
        async def asset() -> Response:
            return Response(content, media_type=kind, headers={"Cache-Control": "max-age=3600"})

        return asset

    app.add_api_route("/docs", page, include_in_schema=False)
    for name, (content, kind) in files.items():
        app.add_api_route(f"/docs/{name}", serve(content, kind), include_in_schema=False)


def _document(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema:
        return app.openapi_schema
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    bodies: list[tuple[Any, Any]] = [(route.body, "validation") for route in ROUTES if route.body]
    _, definitions = models_json_schema(bodies, ref_template=REFERENCE)
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(definitions["$defs"])
    components["securitySchemes"] = {
        "key": {
            "type": "http",
            "scheme": "bearer",
            "description": "an API key; not needed where keys are off",
        }
    }
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    for path in document["paths"].values():
        for operation in path.values():
            # FastAPI's own; wrong parameters get 400 here.
            operation["responses"].pop("422", None)
    app.openapi_schema = document
    return document
