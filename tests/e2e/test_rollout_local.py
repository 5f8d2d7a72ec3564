"""`medmax rollout` on a real `medmax serve`: real Ray Serve, the shipped model, and one with other weights."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.torch import load_file, save_file

from services.checkpoint import open_checkpoint
from services.rollout.record import Phase
from tests.support.stack import ROOT, Served, checkpoint, running
from tests.unit.cli.medmax import medmax

QUICK = ("--baseline-s", "0", "--settle-s", "1", "--window-s", "2", "--poll-s", "0.2", "--ready-s", "600")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """The same model with one tensor changed a little."""
    folder = tmp_path_factory.mktemp("other") / "model"
    shutil.copytree(model, folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * 1.01
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("stack")
    yield from running(folder, "--http-port", "0", "--grpc-port", "0", "--checkpoint", str(model))


def rollout(stack: Served, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit status and JSON document of `medmax rollout …`."""
    where = ("--gateway", stack.http, "--json")
    done = medmax(ROOT, "rollout", *arguments, *where, timeout=900, MEDMAX_DATA_DIR=str(stack.data))
    return done.status, done.document


def answering(stack: Served) -> str:
    """Digest of the weights that answer."""
    body = {"messages": [{"role": "user", "content": "hello"}], "modalities": ["text"], "max_tokens": 1}
    answer = httpx.post(f"{stack.http}/v1/chat/completions", json=body, timeout=120, trust_env=False)
    return str(answer.raise_for_status().json()["system_fingerprint"])


def test_a_running_stack_takes_another_model_and_refuses_one_that_is_none(
    stack: Served, model: Path, other: Path
) -> None:
    before = answering(stack)
    status, ended = rollout(stack, "start", "--model", str(other), "--why", "a test", *QUICK)
    assert (status, ended["outcome"]) == (0, Phase.PROMOTED), ended
    assert answering(stack) == open_checkpoint(other).digest != before

    status, ended = rollout(stack, "start", "--model", str(other.parent / "none"), *QUICK)
    assert (status, ended["outcome"]) == (1, Phase.ROLLED_BACK), ended
    assert "the stack refuses it" in ended["reason"]
    assert answering(stack) == open_checkpoint(other).digest

    _, kept = rollout(stack, "history")
    whats = [each["what"] for each in kept["events"]]
    assert whats == [
        "started",
        "applied",
        "ready",
        "promoted",
        "started",
        "applied",
        "going back",
        "rolled back",
    ]
