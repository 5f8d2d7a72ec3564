"""What is learnt from a pack: cross-entropy over answers, or Direct Preference Optimization over pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from services.llm.model import Chameleon
from training.lora.batch import Batch
from training.losses import Targets, nats
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
    labels = batch.labels[0]
    known = labels.clamp(min=0)
    code = targets.code[known].masked_fill(labels < 0, -1)
    codes_at = (code >= 0).nonzero().flatten()
    text_at = (targets.is_text[known] & (labels >= 0)).nonzero().flatten()
    hidden = model.hidden(batch.ids, batch.positions, batch.mask)[0]
    text = _pieces(hidden[text_at], model.head, labels[text_at])
    return Costs(
        text, text_at, _pieces(hidden[codes_at], model.head[targets.code_ids], code[codes_at]), codes_at
    )


def _pieces(hidden: Tensor, head: Tensor, target: Tensor) -> Tensor:
    size = max(1, _HEAD_ELEMENTS // len(head))
    if len(hidden) <= size:
        return nats(hidden, head, target)
    places = range(0, len(hidden), size)
    pieces = [(hidden[i : i + size], head, target[i : i + size]) for i in places]
    return torch.cat([checkpoint(nats, *piece, use_reentrant=False) for piece in pieces])


FIGURES = ("text_nats", "text_ids", "code_nats", "codes", "dpo", "preferred", "margin", "pairs")


def answers_loss(
    model: PeftModel, batch: Batch, targets: Targets, image_weight: float
) -> tuple[Tensor, Tensor]:
    """Sum of nats over the pack's answers, a code counting for `image_weight`; and the sums of FIGURES, float64 [8]."""
    found = costs(_inner(model), batch, targets)
    loss = found.text.sum() + image_weight * found.codes.sum()
    return loss, _figures(found, batch, loss.new_zeros(0), loss.new_zeros(0))


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
    )
    return torch.tensor([float(value) for value in values], dtype=torch.float64)


def _inner(model: PeftModel) -> Chameleon:
    inner: Chameleon = model.base_model.model  # type: ignore[assignment]
    return inner
