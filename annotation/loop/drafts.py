"""The running assistant, asked again: drafts for experts, alternatives to rank."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any, cast

from annotation.core import Turn
from annotation.loop.item import request_of
from annotation.loop.settings import AssistantSettings
from services.config import Settings
from services.errors import DeadlineExceeded
from services.pb.medmax.v1 import assistant_pb2, common_pb2

LOCAL = "local"
_START_S = 120.0


class Drafts:
    """Asks the assistant over REST, or one in this process. Safe for threads: it has an event loop of its own."""

    def __init__(self, settings: AssistantSettings, base: Settings) -> None:
        self._settings, self._base = settings, base
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="drafts", daemon=True)
        self._thread.start()
        self._stack = AsyncExitStack()
        self._assistant: Any = None
        self._opening = asyncio.Lock()

    def text(self, dialogue: Sequence[Turn], seed: int | None = None) -> str:
        """A fresh answer's text. Blocks.

        Raises:
            MedMaxError: what the assistant fails with.
        """
        future = asyncio.run_coroutine_threadsafe(self._text(dialogue, seed), self._loop)
        try:
            return future.result(self._base.request_timeout_s + _START_S)
        except TimeoutError:
            future.cancel()
            raise DeadlineExceeded("the assistant took too long") from None

    async def _text(self, dialogue: Sequence[Turn], seed: int | None) -> str:
        assistant = await self._open()
        request = request_of(
            dialogue, self._settings.temperature, secrets.randbits(32) if seed is None else seed
        )
        request.mode = common_pb2.OUTPUT_MODE_TEXT
        pieces: list[str] = []
        async with aclosing(cast(Any, self._events(assistant, request))) as events:
            async for event in events:
                if event.WhichOneof("event") == "text":
                    pieces.append(event.text.text)
        return "".join(pieces)

    def _events(
        self, assistant: Any, request: assistant_pb2.GenerateRequest
    ) -> AsyncIterator[assistant_pb2.GenerateEvent]:
        if self._settings.url == LOCAL:
            return cast(AsyncIterator[assistant_pb2.GenerateEvent], assistant.generate(request, LOCAL))
        return cast(AsyncIterator[assistant_pb2.GenerateEvent], assistant.generate(request))

    async def _open(self) -> Any:
        async with self._opening:
            if self._assistant is None:
                if self._settings.url == LOCAL:
                    from services.gateway.local import local_assistant

                    made: Any = local_assistant(self._base.model_copy(update={"store": False}))
                else:
                    from services.commands.remote import RemoteAssistant

                    key = self._settings.key.get_secret_value()
                    made = RemoteAssistant(self._settings.url, key, self._base)
                self._assistant = await self._stack.enter_async_context(made)
            return self._assistant

    def close(self) -> None:
        """Ends the assistant, if it runs in this process."""
        asyncio.run_coroutine_threadsafe(self._stack.aclose(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
