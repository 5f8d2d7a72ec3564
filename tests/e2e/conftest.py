"""One real stack for the session; tests that kill or stop things start their own or leave this one healed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.support.stack import Served, checkpoint, running


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint to serve."""
    return checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Served]:
    """`medmax serve` on free ports."""
    folder = tmp_path_factory.mktemp("stack")
    yield from running(folder, "--http-port", "0", "--grpc-port", "0", "--checkpoint", str(model))


@pytest.fixture(scope="session")
def png() -> bytes:
    """A small grey picture."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((64, 64)).save(file, "PNG")
    return file.getvalue()
