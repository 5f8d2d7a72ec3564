"""A training run in small: it ends in a checkpoint, goes on after a stop, and does not mix two recipes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evaluation.phantoms import TRAIN_SEEDS, held_out
from services.checkpoint import open_checkpoint
from services.vqgan import load_vqgan
from training.phantom import run
from training.phantom.pictures import training_seeds
from training.phantom.recipe import Recipe
from training.phantom.state import load_state, save_state
from training.phantom.vq import MovingCodebook

SMALL = replace(
    Recipe().shortened(500),
    vq_batch=4,
    vq_steps=6,
    vq_unquantized_steps=2,
    lm_steps=4,
    lm_batch_tokens=600,
    hidden=32,
    layers=1,
    heads=2,
    inner=48,
    text_entries=300,
)


class Stopped(Exception):
    """The run was killed."""


def _train(
    folder: Path, recipe: Recipe = SMALL, stop: tuple[str, int] | None = None
) -> list[tuple[str, int]]:
    seen: list[tuple[str, int]] = []

    def progress(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        if (stage, done) == stop:
            raise Stopped
        seen.append((stage, done))

    run.train(recipe, folder / "model", folder / "work", 1, progress)
    return seen


def test_a_run_ends_in_a_checkpoint_that_opens_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        _train(tmp_path, stop=("decoder", 2))
    assert not (tmp_path / "model").exists()
    stages = [stage for stage, _ in _train(tmp_path)]
    assert "pictures" not in stages
    assert "VQ-GAN" not in stages
    checkpoint = open_checkpoint(tmp_path / "model")
    assert checkpoint.grid == (12, 12)
    assert checkpoint.provenance["seed"] == 0
    assert len(checkpoint.provenance["data_digest"]) == 64
    vqgan = load_vqgan(checkpoint)
    codes = vqgan.encode(torch.zeros(1, 3, 96, 96))
    assert vqgan.decode(codes).shape == (1, 3, 96, 96)
    assert _train(tmp_path) == []


def test_a_run_does_not_go_on_with_another_recipes_weights(tmp_path: Path) -> None:
    path = tmp_path / "vq.pt"
    save_state(path, SMALL.vq_part, {"step": 3})
    assert load_state(path, SMALL.vq_part) == {"recipe": SMALL.vq_part, "step": 3}
    with pytest.raises(ValueError, match="another recipe"):
        load_state(path, replace(SMALL, vq_rate=1.0).vq_part)
    assert load_state(tmp_path / "none.pt", SMALL.vq_part) is None


def test_training_never_draws_a_held_out_phantom() -> None:
    for seed in (0, 1, 999):
        seeds = training_seeds(seed, 32_000)
        assert seeds.start >= TRAIN_SEEDS.start
        assert seeds.stop <= TRAIN_SEEDS.stop <= held_out(0, 1).start
    assert not set(training_seeds(0, 1_000_000)) & set(training_seeds(1, 10))


def test_codebook_entries_move_to_the_latents_that_choose_them_and_unused_ones_are_revived() -> None:
    weight = torch.tensor([[0.0, 0.0], [10.0, 10.0]])
    codebook = MovingCodebook(weight)
    latents = torch.full((64, 2), 2.0)
    for _ in range(400):
        codebook.update(latents, torch.zeros(64, dtype=torch.int64))
    assert torch.allclose(weight[0], torch.tensor([2.0, 2.0]), atol=0.05)
    assert codebook.revive(latents, torch.Generator().manual_seed(0), below=0.1) == 1
    assert torch.equal(weight[1], torch.tensor([2.0, 2.0]))
