"""Tokenizer, decoder and the protocol's front on the tiny checkpoint, behind one gRPC port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.config import Settings
from services.decoder.servicer import ImageDecoderServicer
from services.inference.servicer import InferenceServicer
from services.rpc.server import Server
from services.tokenizer.servicer import ImageTokenizerServicer
from tests.support.tiny import tiny_checkpoint


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def settings(tiny_path: Path) -> Settings:
    return Settings(
        checkpoint=tiny_path, max_image_pixels=1_000_000, max_image_bytes=1 << 20, batch_size=4, threads=1
    )


@dataclass
class Front:
    """The services themselves and where they are served."""

    tokenizer: ImageTokenizerServicer
    decoder: ImageDecoderServicer
    servicer: InferenceServicer
    server: Server

    @property
    def address(self) -> str:
        return self.server.address


@pytest.fixture
async def front(settings: Settings) -> AsyncIterator[Front]:
    tokenizer = ImageTokenizerServicer.from_settings(settings)
    decoder = ImageDecoderServicer.from_settings(settings)
    servicer = InferenceServicer.local(settings, tokenizer, decoder)
    servicers = {"tokenizer": tokenizer, "decoder": decoder, "inference": servicer}
    server = await Server(servicers, "127.0.0.1", 0, settings).start()
    yield Front(tokenizer, decoder, servicer, server)
    await server.stop(1)
