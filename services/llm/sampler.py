"""Drawing tokens, over whole batches at once.

Each row brings the uniform number of its own generator, so that what it draws depends on nothing beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FORBIDDEN = -1e30  # a logit whose probability is exactly 0, and finite so that 0 times it is 0


@dataclass(frozen=True)
class Draw:
    """How rows draw: tensors [rows], and what may be skipped because no row needs it."""

    temperature: Tensor
    top_p: Tensor
    top_k: Tensor
    greedy: bool
    truncated: bool

    @classmethod
    def of(cls, settings: list[tuple[float, float, int]], device: torch.device) -> Draw:
        """From (temperature, top_p, top_k) of each row; temperature 0 is greedy, top_k 0 is all."""
        temperature = torch.tensor([t for t, _, _ in settings], dtype=torch.float64, device=device)
        top_p = torch.tensor([p for _, p, _ in settings], dtype=torch.float64, device=device)
        top_k = torch.tensor([k or 1 << 31 for _, _, k in settings], dtype=torch.int64, device=device)
        return cls(
            temperature,
            top_p,
            top_k,
            greedy=all(t == 0 for t, _, _ in settings),
            truncated=any(p < 1 or k for _, p, k in settings),
        )


def penalise(logits: Tensor, seen: Tensor, penalty: Tensor) -> Tensor:
    """Repetition penalty: seen tokens' positive logits are divided by it, negative ones multiplied.

    Args:
        logits: float32 [rows, vocabulary].
        seen: bool [rows, vocabulary].
        penalty: float32 [rows].
    """
    factor = penalty.unsqueeze(1)
    return torch.where(seen, torch.where(logits > 0, logits / factor, logits * factor), logits)


def sample(logits: Tensor, draw: Draw, uniform: Tensor) -> Tensor:
    """One choice per row, int64 [rows]: greedy, or by temperature, then top-k, then top-p.

    Args:
        logits: float32 [rows, choices].
        uniform: float64 [rows] in [0, 1).
    """
    best = logits.argmax(-1)
    if draw.greedy:
        return best
    chosen = inverse(distribution(logits, draw), uniform)
    return torch.where(draw.temperature == 0, best, chosen)


def distribution(logits: Tensor, draw: Draw) -> Tensor:
    """What `sample` draws from: probabilities, float64 [rows, choices], up to a factor per row."""
    best = logits.argmax(-1, keepdim=True)
    cold = (draw.temperature == 0).unsqueeze(1)
    # Less than the largest, in float64: no temperature above 0 is so small that it overflows into NaN.
    below = (logits - logits.gather(1, best)).double()
    probabilities = torch.softmax(below / torch.where(cold, 1.0, draw.temperature.unsqueeze(1)), -1)
    if draw.truncated and probabilities.device.type == "cpu":
        from services.llm import cpu

        cpu.truncate(probabilities.numpy(), draw.top_k.numpy(), draw.top_p.numpy())
        return probabilities
    return truncated(probabilities, draw) if draw.truncated else probabilities


def truncated(probabilities: Tensor, draw: Draw) -> Tensor:
    """Top-k, then the nucleus, of probabilities [rows, choices]; of equals the first are kept."""
    ordered, order = probabilities.sort(stable=True, dim=-1, descending=True)
    rank = torch.arange(ordered.shape[1], device=probabilities.device)
    ordered = ordered.masked_fill(rank >= draw.top_k.unsqueeze(1), 0.0)
    before = ordered.cumsum(-1) - ordered
    # The nucleus holds every choice before which less than top_p has been gathered.
    nucleus = before < draw.top_p.unsqueeze(1) * ordered.sum(-1, keepdim=True)
    kept = torch.zeros_like(nucleus).scatter_(1, order, nucleus & (ordered > 0))
    # Back in the order of ids, so that a row without truncation draws as it would among its like.
    return probabilities.masked_fill(~kept, 0.0)


def inverse(weights: Tensor, uniform: Tensor) -> Tensor:
    """First index at which the sum of weights [rows, choices] exceeds the uniform share of the total: int64 [rows]."""
    cumulative = weights.cumsum(-1)
    target = (uniform * cumulative[:, -1]).unsqueeze(1)
    # Rounding may lift the target to the total itself: never go beyond the last choice that has weight.
    last = (cumulative < cumulative[:, -1:]).sum(-1)
    return torch.minimum((cumulative <= target).sum(-1), last)


def assess(logits: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities [rows, choices], the chosen ones' [rows] and the entropy [rows] in nats."""
    log_probabilities = torch.log_softmax(logits, -1)
    picked = log_probabilities.gather(1, chosen.unsqueeze(1)).squeeze(1)
    # Not `exp`, which on a CPU takes ten times as long where its result is 0 (docs/log.md).
    entropy = -(torch.softmax(logits, -1) * log_probabilities).sum(-1)
    return log_probabilities, picked, entropy
