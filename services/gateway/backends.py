"""The three services as the gateway sees them.

An in-process servicer, a Serve handle's adaptor and a gRPC client all have these methods; messages are the contract's own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from services.pb.medmax.v1 import assistant_pb2, decoder_pb2, llm_pb2, tokenizer_pb2


class Backend(Protocol):
    """What every service has."""

    async def check_health(self) -> None:
        """Raises: Unavailable when the service cannot answer."""

    async def close(self) -> None:
        """Lets go of what the backend holds."""


class TokenizerBackend(Backend, Protocol):
    """Pixels to codes."""

    async def Tokenize(self, request: tokenizer_pb2.TokenizeRequest) -> tokenizer_pb2.TokenizeResponse: ...


class LanguageModelBackend(Backend, Protocol):
    """Ids to events; closing the iterator frees the work."""

    def Generate(
        self, request: llm_pb2.LanguageModelGenerateRequest
    ) -> AsyncIterator[llm_pb2.LanguageModelEvent]: ...


class DecoderBackend(Backend, Protocol):
    """Codes to a picture file."""

    async def Decode(self, request: decoder_pb2.DecodeRequest) -> decoder_pb2.DecodeResponse: ...


class Store(Protocol):
    """Where interactions are kept (`services.interactions.InteractionStore`)."""

    async def save(self, interaction: assistant_pb2.Interaction) -> str: ...

    async def get(
        self, interaction_id: str, caller: str | None, include_images: bool = False
    ) -> assistant_pb2.Interaction: ...

    async def add_feedback(self, request: assistant_pb2.SubmitFeedbackRequest, caller: str) -> str: ...

    async def check_health(self) -> None: ...

    def close(self) -> None: ...
