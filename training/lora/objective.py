"""What is learnt from a pack: cross-entropy over answers, or Direct Preference Optimization over pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from services.llm.model import Chameleon
from training.lora.batch import Batch
from training.losses import Targets, divergence, nats
from training.rows.sequence import CHOSEN, REJECTED

if TYPE_CHECKING:
    from peft import PeftModel

_HEAD_ELEMENTS = 1 << 26
"""Logits of one piece of the head: more are computed, and computed again backward, piece by piece."""


@dataclass(frozen=True)
class Costs:
    """Nats of every learnt position: `text` [n] at `text_at` int64 [n], `codes` [m] at `codes_at`, places in the pack."""

    text: Tensor
    text_at: Tensor
    codes: Tensor
    codes_at: Tensor


def costs(model: Chameleon, batch: Batch, targets: Targets) -> Costs:
    """The head runs on learnt positions alone; within a picture on the codes' rows alone, from which serving draws there.
    A picture's end is forced when serving, so it is not learnt."""
    hidden = model.hidden(batch.ids, batch.positions, batch.mask)[0]
    return _costs(model, hidden, batch, targets, batch.labels[0] >= 0)


def _costs(model: Chameleon, hidden: Tensor, batch: Batch, targets: Targets, at: Tensor) -> Costs:
    """Of the positions `at`, bool [T]."""
    labels = batch.labels[0]
    code, text_at, codes_at = _places(labels, targets, at)
    text = _pieces(nats, hidden[text_at], model.head, labels[text_at])
    codes = _pieces(nats, hidden[codes_at], model.head[targets.code_ids], code[codes_at])
    return Costs(text, text_at, codes, codes_at)


def _places(labels: Tensor, targets: Targets, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The code of every label or -1, int64 [T], and where among `at` text and where codes are learnt."""
    known = labels.clamp(min=0)
    code = targets.code[known].masked_fill(~at, -1)
    return code, (targets.is_text[known] & at).nonzero().flatten(), (code >= 0).nonzero().flatten()


def _drift(
    model: PeftModel, hidden: Tensor, batch: Batch, targets: Targets, at: Tensor
) -> tuple[Tensor, Tensor]:
    """Nats that the model is from its base at the positions `at`, over text [n] and over codes [m]."""
    inner = _inner(model)
    with torch.no_grad(), model.disable_adapter():
        base = inner.hidden(batch.ids, batch.positions, batch.mask)[0]
    _, text_at, codes_at = _places(batch.labels[0], targets, at)
    return (
        _pieces(divergence, hidden[text_at], inner.head, base[text_at]),
        _pieces(divergence, hidden[codes_at], inner.head[targets.code_ids], base[codes_at]),
    )


def _pieces(cost: Callable[..., Tensor], hidden: Tensor, head: Tensor, target: Tensor) -> Tensor:
    size = max(1, _HEAD_ELEMENTS // len(head))
    if len(hidden) <= size:
        return cost(hidden, head, target)
    places = range(0, len(hidden), size)
    pieces = [(hidden[i : i + size], head, target[i : i + size]) for i in places]
    return torch.cat([checkpoint(cost, *piece, use_reentrant=False) for piece in pieces])


FIGURES = (
    *("text_nats", "text_ids", "code_nats", "codes"),
    *("dpo", "preferred", "margin", "pairs"),
    *("drift", "kept"),  # a code counts for image_weight in both
)


def answers_loss(
    model: PeftModel, batch: Batch, targets: Targets, image_weight: float, keep_weight: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Sum of nats over the pack's answers, a code counting for `image_weight`; where the base is kept, `keep_weight` times
    the divergence from the model with its adapter off. And the sums of FIGURES, float64 [10]."""
    inner, learnt = _inner(model), batch.labels[0] >= 0
    hidden = inner.hidden(batch.ids, batch.positions, batch.mask)[0]
    found = _costs(inner, hidden, batch, targets, learnt & ~batch.keep)
    loss = found.text.sum() + image_weight * found.codes.sum()
    drift, kept = loss.new_zeros(()), 0.0
    if (held := learnt & batch.keep).any():
        text, codes = _drift(model, hidden, batch, targets, held)
        drift, kept = text.sum() + image_weight * codes.sum(), len(text) + image_weight * len(codes)
        loss = loss + keep_weight * drift
    none = loss.new_zeros(0)
    figures = _figures(found, batch, none, none)
    figures[8:] = torch.tensor([float(drift.detach()), kept], dtype=figures.dtype)
    return loss, figures


def pairs_loss(model: PeftModel, batch: Batch, targets: Targets, beta: float) -> tuple[Tensor, Tensor]:
    """Sum over the pack's pairs of -log σ(β · ((log π/πref)(chosen) - (log π/πref)(rejected))).

    Rafailov et al. 2023, equation 7; πref is the model with its adapter off. Figures count the preferred answers' nats.
    """
    found = costs(_inner(model), batch, targets)
    with torch.no_grad(), model.disable_adapter():
        reference = costs(_inner(model), batch, targets)
    ratios = _ratios(found, reference, batch)
    margin = beta * (ratios[:, CHOSEN] - ratios[:, REJECTED])
    losses = -functional.logsigmoid(margin)
    return losses.sum(), _figures(found, batch, losses.detach(), margin.detach())


def _ratios(found: Costs, reference: Costs, batch: Batch) -> Tensor:
    """log π/πref of every answer: float32 [examples, 3], by block."""
    count = int(batch.sequence[-1]) + 1
    sums = found.text.new_zeros(count * 3)
    place = batch.sequence * 3 + batch.block
    sums = sums.index_add(0, place[found.text_at], reference.text - found.text)
    return sums.index_add(0, place[found.codes_at], reference.codes - found.codes).view(count, 3)


def _figures(found: Costs, batch: Batch, losses: Tensor, margin: Tensor) -> Tensor:
    text, codes = found.text.detach(), found.codes.detach()
    if len(losses):
        kept, drawn = batch.block[found.text_at] == CHOSEN, batch.block[found.codes_at] == CHOSEN
        text, codes = text[kept], codes[drawn]
    values = (
        text.sum(),
        len(text),
        codes.sum(),
        len(codes),
        losses.sum(),
        (margin > 0).sum(),
        margin.sum(),
        len(losses),
        *(0.0, 0.0),
    )
    return torch.tensor([float(value) for value in values], dtype=torch.float64)


def _inner(model: PeftModel) -> Chameleon:
    inner: Chameleon = model.base_model.model  # type: ignore[assignment]
    return inner
