"""Training of the decoder over text and image codes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from services.checkpoint import ModelConfig, Vocabulary
from services.llm.model import Chameleon
from training.losses import Targets, bfloat16_pays, nats
from training.phantom.recipe import CONTEXT, Recipe
from training.phantom.sequences import Example, SequenceMaker
from training.phantom.state import load_state, save_state
from training.schedule import rate_at

_SAVE_EVERY = 200


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


def loss_of(model: Chameleon, batch: Example, targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted mean cross-entropy, and the plain means over text and over pictures, in nats.

    `batch` has arrays of [B, T]. The head runs on learnt positions alone, and within a picture on the codes' rows
    alone, from which serving draws there (its grammar knows where a picture ends).
    """
    ids, labels = torch.from_numpy(batch.ids), torch.from_numpy(batch.labels)
    code = targets.code[labels.clamp(min=0)].masked_fill(labels < 0, -1)
    in_picture = code >= 0
    # End-of-image is forced, never drawn: nothing to learn.
    in_text = targets.is_text[labels.clamp(min=0)] & (labels >= 0)
    hidden = model.hidden(ids, *_apart(batch))
    text = nats(hidden[in_text], model.head, labels[in_text])
    picture = nats(hidden[in_picture], model.head[targets.code_ids], code[in_picture])
    weight = torch.from_numpy(batch.weight)
    weights = torch.cat((weight[in_text], weight[in_picture]))
    loss = (torch.cat((text, picture)) * weights).sum() / weights.sum()
    return loss, text.mean().detach(), picture.mean().detach()


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
    optimizers = _optimizers(model, recipe.lm_rate)
    path, step = folder / "lm.pt", 0
    if (saved := load_state(path, recipe.to_json())) is not None:
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        step = saved["step"]
    rng = np.random.default_rng([recipe.seed, 12, step])
    half = bfloat16_pays()
    targets = Targets.of(vocabulary)
    batches = maker.batches(rng, recipe.lm_batch_tokens, recipe.lm_mix)
    while step < recipe.lm_steps:
        batch = next(batches)
        rate = rate_at(step, recipe.lm_steps, recipe.lm_rate, recipe.lm_warmup_steps, floor=0.02)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss, text, picture = loss_of(model, batch, targets)
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        # A batch holds sequences of like length, often of one family: a figure is there where its kind is.
        means = {"loss": loss.item(), "text": text.item(), "picture": picture.item()}
        figures = {name: value for name, value in means.items() if not math.isnan(value)}
        progress(step, recipe.lm_steps, figures)
        if step % _SAVE_EVERY == 0 or step == recipe.lm_steps:
            state = {
                "model": model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "step": step,
            }
            save_state(path, recipe.to_json(), state)
            if snapshot is not None:
                snapshot(model, step)
    return model.eval().requires_grad_(False)


def _optimizers(model: Chameleon, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for embeddings, head and norms; one rate serves both."""
    matrices = [p for name, p in model.model.layers.named_parameters() if name.endswith("_proj.weight")]
    chosen = {id(parameter) for parameter in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]
