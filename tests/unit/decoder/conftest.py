"""A decoder on the tiny checkpoint."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.config import Settings
from services.decoder.decoder import ImageDecoder
from tests.support.tiny import tiny_checkpoint


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def tiny_settings(tiny_path: Path) -> Settings:
    return Settings(checkpoint=tiny_path)


@pytest.fixture
async def decoder(tiny_settings: Settings) -> AsyncIterator[ImageDecoder]:
    decoder = ImageDecoder.load(tiny_settings)
    yield decoder
    await decoder.close()
