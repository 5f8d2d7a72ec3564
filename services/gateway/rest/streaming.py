"""Answers that take a while: given up at once when the caller goes away, streamed as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, TypeVar, cast

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from services.errors import Cancelled
from services.gateway.rest.errors import error_body, known
from services.gateway.tasks import stop

T = TypeVar("T")

DONE = b"data: [DONE]\n\n"


def to_json(value: Mapping[str, Any]) -> bytes:
    """Compact JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


async def until_disconnect(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns; it is cancelled when the caller goes away first.

    Raises:
        Cancelled: the caller went away.
    """
    task = asyncio.create_task(work)
    watch = asyncio.create_task(_disconnect(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Cancelled("the caller went away")
        return task.result()
    finally:
        await stop(task, watch)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events from a stream of JSON objects, `[DONE]` last.

    An error ends the stream with an `error` event that holds OpenAI's error object, and no `[DONE]`. The source is
    closed whatever happens.
    """

    media_type = "text/event-stream"

    def __init__(self, source: AsyncIterator[Mapping[str, Any]]) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store, no-transform"})
        del self.headers["content-length"]
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await until_disconnect(receive, self._send(scope, send))
        except Cancelled:
            scope["state"]["code"] = Cancelled.code

    async def _send(self, scope: Scope, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})

        async def write(data: bytes, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        try:
            async with aclosing(cast(Any, self._source)) as source:
                async for value in source:
                    await write(b"data: " + to_json(value) + b"\n\n")
            await write(DONE)
        except Exception as error:
            answer = known(error)
            scope["state"]["code"] = answer.code
            await write(b"event: error\ndata: " + to_json(error_body(answer)) + b"\n\n")
        await write(b"", more=False)
