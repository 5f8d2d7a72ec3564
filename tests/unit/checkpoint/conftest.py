from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from services.checkpoint import Layout, open_checkpoint
from services.checkpoint.convert import convert
from tests.support.golden import Golden


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def meta(tmp_path: Path) -> Path:
    """A copy of the golden checkpoint with grouped heads, in Meta's layout."""
    return Path(shutil.copytree(Golden("gqa_swin").checkpoint, tmp_path / "meta"))


@pytest.fixture
def hf(tmp_path: Path) -> Path:
    """The same in Hugging Face's layout, in several shards."""
    source = open_checkpoint(Golden("gqa_swin").checkpoint)
    convert(source, tmp_path / "hf", Layout.HUGGING_FACE, shard_bytes=400_000)
    return tmp_path / "hf"
