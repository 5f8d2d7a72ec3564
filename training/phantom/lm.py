"""Training of the decoder over text and image codes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from services.checkpoint import ModelConfig, Vocabulary
from services.llm.model import Chameleon
from training.phantom.recipe import CONTEXT, Phase, Recipe
from training.phantom.sequences import Example, SequenceMaker
from training.phantom.state import load_state, save_state
from training.phantom.vq import rate_at

_SAVE_EVERY = 200


def bfloat16_pays() -> bool:
    """Whether this processor multiplies bfloat16 matrices in hardware."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def model_config(recipe: Recipe, vocabulary: Vocabulary) -> ModelConfig:
    return ModelConfig(
        vocab_size=vocabulary.size,
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        intermediate_size=recipe.inner,
        max_position_embeddings=CONTEXT,
    )


def loss_of(model: Chameleon, batch: Example, is_text: Tensor, phase: Phase) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted mean cross-entropy, and the plain means over text and over pictures, in nats.

    `batch` has arrays of [B, T]; `is_text`: bool [vocabulary]. The head runs on learnt positions alone.
    """
    ids, labels = torch.from_numpy(batch.ids), torch.from_numpy(batch.labels)
    learnt = labels >= 0
    targets = labels[learnt]
    hidden = model.hidden(ids, *_apart(batch))[learnt]
    each = functional.cross_entropy(functional.linear(hidden, model.head).float(), targets, reduction="none")
    text = is_text[targets]
    weight = torch.where(text, 1.0, phase.picture_weight)
    weight = torch.where(torch.from_numpy(batch.marked)[learnt], weight * phase.finding_weight, weight)
    loss = (each * weight).sum() / weight.sum()
    return loss, each[text].mean().detach(), each[~text].mean().detach()


def _apart(batch: Example) -> tuple[Tensor | None, Tensor | None]:
    """Positions [B, T] and mask bool [B, 1, T, T] that keep continuations apart; None where there are none."""
    if not batch.block.any():
        return None, None
    block = torch.from_numpy(batch.block)
    length = block.shape[1]
    sees = (block[:, None, :] == 0) | (block[:, None, :] == block[:, :, None])
    sees &= torch.ones(length, length, dtype=torch.bool).tril()
    return torch.from_numpy(batch.positions), sees[:, None]


def train(
    recipe: Recipe,
    maker: SequenceMaker,
    folder: Path,
    progress: Callable[[int, int, dict[str, float]], None],
    snapshot: Callable[[Chameleon, int], None] | None = None,
) -> Chameleon:
    """Train, or go on from `folder`'s last save. `progress` gets step, steps and figures."""
    torch.manual_seed(recipe.seed + 1)
    vocabulary = maker.vocabulary
    model = Chameleon(model_config(recipe, vocabulary))
    matrices = [p for p in model.parameters() if p.ndim == 2 and min(p.shape) > 64]
    chosen = {id(parameter) for parameter in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.lm_rate, betas=(0.9, 0.98), fused=True)
    path, step = folder / "lm.pt", 0
    if (saved := load_state(path, recipe.to_json())) is not None:
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        step = saved["step"]
    rng = np.random.default_rng([recipe.seed, 12, step])
    half = bfloat16_pays()
    # What ends an answer counts as text.
    is_text = torch.from_numpy(vocabulary.is_text).clone()
    is_text[[vocabulary.eos, vocabulary.begin_image]] = True
    phase: Phase | None = None
    batches: Iterator[Example] = iter(())
    while step < recipe.lm_steps:
        if phase is not recipe.phase_at(step):
            phase = recipe.phase_at(step)
            batches = maker.batches(rng, recipe.lm_batch_tokens, phase)
        batch = next(batches)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, recipe.lm_steps, recipe.lm_rate, recipe.lm_warmup_steps, floor=0.02)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss, text, picture = loss_of(model, batch, is_text, phase)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        # A batch holds sequences of like length, often of one family: a figure is there where its kind is.
        means = {"loss": loss.item(), "text": text.item(), "picture": picture.item()}
        figures = {name: value for name, value in means.items() if not math.isnan(value)}
        progress(step, recipe.lm_steps, figures)
        if step % _SAVE_EVERY == 0 or step == recipe.lm_steps:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            save_state(path, recipe.to_json(), state)
            if snapshot is not None:
                snapshot(model, step)
    return model.eval().requires_grad_(False)
