"""A tokenizer on the tiny checkpoint."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.config import Settings
from services.tokenizer.tokenizer import ImageTokenizer
from tests.support.tiny import tiny_checkpoint


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def tiny_settings(tiny_path: Path) -> Settings:
    return Settings(checkpoint=tiny_path, max_image_pixels=1_000_000, max_image_bytes=1 << 20)


@pytest.fixture
async def tokenizer(tiny_settings: Settings) -> AsyncIterator[ImageTokenizer]:
    tokenizer = ImageTokenizer.load(tiny_settings)
    yield tokenizer
    await tokenizer.close()
