"""Who answers a command: a running server, or the whole assistant in this process."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

from services.commands.output import say
from services.config import Settings, load
from services.errors import Unavailable
from services.pb.medmax.v1 import assistant_pb2


class Assistant(Protocol):
    """What a command needs of either."""

    @property
    def where(self) -> str:
        """`at http://…` or `in process`."""

    def generate(self, request: assistant_pb2.GenerateRequest) -> AsyncIterator[assistant_pb2.GenerateEvent]:
        """The events of `Assistant.Generate`. Raises the errors of `services.errors`."""


@dataclass(frozen=True)
class LocalAssistant:
    """The services in this process."""

    assistant: Any  # services.gateway.assistant.Assistant, which imports torch
    where: str = "in process"

    async def generate(
        self, request: assistant_pb2.GenerateRequest
    ) -> AsyncIterator[assistant_pb2.GenerateEvent]:
        async with aclosing(cast(Any, self.assistant.generate(request, "local"))) as events:
            async for event in events:
                yield event


@asynccontextmanager
async def connect(server: str | None, local: bool) -> AsyncIterator[Assistant]:
    """The assistant to use, for as long as the context lasts; says on stderr which it is.

    Args:
        server: address from the command line; it must answer.
        local: do not look for a server.

    Raises:
        Unavailable: nothing of ours answers at `server`.
        ConfigurationError, CheckpointError: there is no server and the model cannot be loaded here.
    """
    settings = load()
    address = None if local else _find(server, settings)
    if address is not None:
        from services.commands.remote import RemoteAssistant

        say(f"asking the server at {address}")
        async with RemoteAssistant(address, os.environ.get("MEDMAX_API_KEY", ""), settings) as remote:
            yield remote
        return
    say("loading the model into this process" + ("" if local else ", since no server answers"))
    from services.gateway.local import local_assistant

    async with local_assistant(settings) as assistant:
        yield LocalAssistant(assistant)


def _find(server: str | None, settings: Settings) -> str | None:
    from services.commands.remote import answers_as_medmax

    if server is not None:
        if not answers_as_medmax(server, timeout_s=10):
            raise Unavailable(f"no MedMax server answers at {server}", field="--server")
        return server
    named = os.environ.get("MEDMAX_SERVER")
    address = named or f"http://127.0.0.1:{settings.http_port}"
    # Loopback answers at once or never; a server that somebody named may be far away.
    if answers_as_medmax(address, timeout_s=5 if named else 1):
        return address
    if named:
        say(f"no MedMax server answers at {named} (MEDMAX_SERVER)")
    return None
