"""Label Studio's ML back-end protocol: a fresh draft of an answer while the expert looks at the task."""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from annotation.core import Kind
from annotation.labelstudio.http import Connection
from annotation.labelstudio.render import prefilled
from annotation.labelstudio.templates import Template
from services.errors import ConfigurationError, InvalidInput, MedMaxError, Unauthenticated

log = logging.getLogger(__name__)

MAX_TASKS = 50
TITLE = "MedMax drafts"
USER = "labelstudio"
Draft = Callable[[Mapping[str, Any]], Awaitable[str]]
"""Data of a task (`item`, `question`, `text`, …) to the text of a fresh answer."""


class _Task(BaseModel):
    model_config = ConfigDict(extra="ignore")
    id: int | None = None
    data: dict[str, Any]
    meta: dict[str, Any] | None = None


class PredictRequest(BaseModel):
    """`POST /predict`; what else Label Studio sends (project, login, params) decides nothing."""

    model_config = ConfigDict(extra="ignore")
    tasks: list[_Task] = Field(max_length=MAX_TASKS)


def router(
    draft: Draft,
    templates: Mapping[Kind, Template],
    password: SecretStr,
    model_version: str,
    timeout_s: float = 60.0,
) -> APIRouter:
    """`/health`, `/setup`, `/predict` and `/webhook`; all but the first need basic authentication as `labelstudio`.

    Args:
        draft: answers anew; a `MedMaxError` from it leaves that task without a draft.
        templates: the kinds that get drafts; CHAT and REPORT are those with a text to draft.
        model_version: what Label Studio files the drafts under.
        timeout_s: for all tasks of one request together.

    Raises:
        ConfigurationError: the password is shorter than 16 characters.
    """
    if len(password.get_secret_value()) < 16:
        raise ConfigurationError("must have at least 16 characters", field="labelstudio_ml_password")
    credentials = f"{USER}:{password.get_secret_value()}".encode()
    expected = b"Basic " + base64.b64encode(credentials)

    def authenticated(request: Request) -> None:
        given = request.headers.get("authorization", "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, expected):
            raise Unauthenticated("the password is wrong", field="Authorization")

    routes = APIRouter(include_in_schema=False)
    locked = [Depends(authenticated)]

    @routes.get("/health")
    @routes.get("/")
    async def health() -> dict[str, str]:
        return {"status": "UP", "model_class": "MedMax"}

    @routes.get("/versions", dependencies=locked)
    async def versions() -> dict[str, list[str]]:
        return {"versions": [model_version]}

    @routes.post("/setup", dependencies=locked)
    async def setup() -> dict[str, str]:
        return {"model_version": model_version}

    @routes.post("/webhook", dependencies=locked, status_code=201)
    async def webhook() -> dict[str, str]:
        # Label Studio tells of annotations here, to train on at once. Ours go through judgement first.
        return {"status": "ignored"}

    @routes.post("/predict", dependencies=locked)
    async def predict(request: PredictRequest) -> dict[str, Any]:
        async with asyncio.timeout(timeout_s):
            results = [await one(task) for task in request.tasks]
        return {"results": results, "model_version": model_version}

    async def one(task: _Task) -> dict[str, Any]:
        kind = (task.meta or {}).get("kind") or task.data.get("kind")
        template = templates.get(kind) if kind in (Kind.CHAT, Kind.REPORT) else None
        if template is None:
            raise InvalidInput("this kind of task has no draft", field="tasks")
        try:
            text = await draft(task.data)
        except MedMaxError as error:
            log.warning("no draft: %s", error.code)
            return {"result": [], "score": 0.0, "model_version": model_version}
        result = prefilled(template.kind, task.data | {"text": text})
        template.check_results(result)
        return {"result": result, "score": 0.0, "model_version": model_version}

    return routes


def connect(connection: Connection, project: int, url: str, password: SecretStr) -> int:
    """Tell a project of Label Studio where its drafts come from; known already, only the password is set again.

    Returns:
        Label Studio's number of the back end.

    Raises:
        InvalidInput: Label Studio cannot reach `url`, or the password is wrong there.
    """
    wanted = {
        "project": project,
        "url": url,
        "title": TITLE,
        "is_interactive": True,
        "auth_method": "BASIC_AUTH",
        "basic_auth_user": USER,
        "basic_auth_pass": password.get_secret_value(),
    }
    for found in connection.get("/api/ml/", project=project):
        if found["url"] == url:
            connection.patch(f"/api/ml/{found['id']}", wanted)
            return int(found["id"])
    return int(connection.post("/api/ml/", wanted)["id"])
