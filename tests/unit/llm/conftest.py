from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from services.checkpoint import Checkpoint, open_checkpoint
from services.config import Settings
from services.llm.engine import Engine
from services.llm.load import load_model
from services.llm.model import Chameleon
from tests.support.adapters import adapted, tiny_adapter
from tests.support.tiny import tiny_checkpoint

SHAPES = {
    "mha": {},
    "gqa_swin": {"num_key_value_heads": 2, "swin_norm": True, "tie_word_embeddings": True},
}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    return {
        name: open_checkpoint(tiny_checkpoint(tmp_path_factory.mktemp(name), **changes))
        for name, changes in SHAPES.items()
    }


@pytest.fixture(scope="session")
def checkpoint(checkpoints: dict[str, Checkpoint]) -> Checkpoint:
    return checkpoints["mha"]


@pytest.fixture(scope="session")
def models(checkpoints: dict[str, Checkpoint]) -> dict[str, Chameleon]:
    return {name: load_model(c, dtype=torch.float64) for name, c in checkpoints.items()}


@pytest.fixture(scope="session")
def adapters(
    checkpoints: dict[str, Checkpoint], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Path]]:
    """For each shape a large adapter of all projections and a small one of some."""
    folder = tmp_path_factory.mktemp("adapters")
    return {
        shape: {
            "wide": tiny_adapter(folder / f"{shape}-wide", base, seed=1),
            "narrow": tiny_adapter(
                folder / f"{shape}-narrow", base, seed=2, rank=2, targets=("k_proj", "v_proj", "down_proj"),
                lora_alpha=3, use_rslora=True,
            ),
        }
        for shape, base in checkpoints.items()
    }  # fmt: skip


@pytest.fixture(scope="session")
def references(
    checkpoints: dict[str, Checkpoint],
    models: dict[str, Chameleon],
    adapters: dict[str, dict[str, Path]],
) -> dict[tuple[str, str], Chameleon]:
    """By shape and adapter, "" for none."""
    found = {(shape, ""): model for shape, model in models.items()}
    for shape, folders in adapters.items():
        found |= {(shape, name): adapted(checkpoints[shape], folder) for name, folder in folders.items()}
    return found


@pytest.fixture(scope="session")
def engines(
    checkpoints: dict[str, Checkpoint], adapters: dict[str, dict[str, Path]]
) -> Iterator[dict[str, Engine]]:
    """In float64: with float32, one token in some ten thousand is a tie within rounding, which either side may win."""
    engines = {
        shape: Engine(base, Settings(threads=1, max_batch=10, adapters=adapters[shape]), dtype=torch.float64)
        for shape, base in checkpoints.items()
    }
    yield engines
    for engine in engines.values():
        engine.close()


@pytest.fixture(scope="session")
def _engine(engines: dict[str, Engine]) -> Engine:
    return engines["mha"]


@pytest.fixture
def engine(_engine: Engine) -> Iterator[Engine]:
    """The shared engine, which each test must leave idle and in order."""
    yield _engine
    _engine.check_integrity()
    _engine.check_health()


@contextmanager
def shared(checkpoint: Checkpoint, size: int, **changes: object) -> Iterator[Engine]:
    """An engine in float64 whose model `size` processes share."""
    engine = Engine(
        checkpoint, Settings(threads=1, max_batch=10, tensor_parallel=size, **changes), dtype=torch.float64
    )
    try:
        yield engine
    finally:
        engine.close()
