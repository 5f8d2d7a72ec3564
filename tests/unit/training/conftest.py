from __future__ import annotations

from pathlib import Path

import pytest

from services.checkpoint import Checkpoint, open_checkpoint
from tests.support.tiny import tiny_checkpoint


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint's directory."""
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"), max_position_embeddings=256)


@pytest.fixture(scope="session")
def checkpoint(tiny: Path) -> Checkpoint:
    return open_checkpoint(tiny)
