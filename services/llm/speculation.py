"""Several image codes in one step: drafts for the next ones are read together, and those that hold are kept.

Jacobi-type drafting with the exact acceptance of speculative sampling: a draft that was drawn from q is kept with
probability min(1, p / q), where p is what the model now says; the first that is not kept is drawn again from what p has
beyond q. So every code has the distribution p, whatever the drafts were. The drafts that follow are drawn again from
the newest p, which is where a still picture settles.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from services.llm.sampler import Draw, distribution, inverse


def settle(
    logits: Tensor, drafts: Tensor, weights: Tensor, width: Tensor, draw: Draw, uniform: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One step's codes and the next step's drafts, for n sequences and a window of w codes.

    Args:
        logits: [n, w, codes], of each code given the drafts before it.
        drafts: int64 [n, w].
        weights: float64 [n, w, codes], the probabilities that each draft was drawn from.
        width: int64 [n], how many of the window count, from 1.
        draw: how each of the n sequences draws.
        uniform: float64 [n, 3, w], to accept, to draw again and to draft by.

    Returns:
        The codes, int64 [n, w], of which the first `settled`, int64 [n], hold; new drafts for what follows these,
        int64 [n, w], and their probabilities, float64 [n, w, codes].
    """
    n, window, choices = logits.shape
    p = _probabilities(logits, draw)
    place = torch.arange(window, device=logits.device)
    of_draft = drafts.unsqueeze(-1)
    kept = uniform[:, 0] * weights.gather(2, of_draft).squeeze(-1) < p.gather(2, of_draft).squeeze(-1)
    kept &= place < width.unsqueeze(1)
    right = kept.long().cumprod(1).sum(1)
    settled = torch.minimum(right + 1, width)
    # The first that does not hold is drawn again, from what the model's p has beyond the draft's.
    row = torch.arange(n, device=logits.device)
    first = right.clamp(max=window - 1)
    beyond = (p[row, first] - weights[row, first]).clamp(min=0)
    # p equal to q but for rounding: nothing lies beyond, and p itself is right.
    beyond = torch.where(beyond.sum(1, keepdim=True) > 0, beyond, p[row, first])
    again = inverse(beyond, uniform[row, 1, first])
    codes = torch.where(
        (place == right.unsqueeze(1)) & (right < width).unsqueeze(1), again.unsqueeze(1), drafts
    )
    # What follows is drafted from the newest probabilities; past the window, from its last.
    source = torch.minimum(settled.unsqueeze(1) + place, width.unsqueeze(1) - 1)
    following = p.gather(1, source.unsqueeze(-1).expand(-1, -1, choices))
    drafted = inverse(following.flatten(0, 1), uniform[:, 2].flatten()).view(n, window)
    return codes, settled, drafted, following


def _probabilities(logits: Tensor, draw: Draw) -> Tensor:
    """Float64 [n, w, codes], adding up to 1."""
    n, window, choices = logits.shape
    flat = logits.flatten(0, 1)
    each = Draw(
        draw.temperature.repeat_interleave(window),
        draw.top_p.repeat_interleave(window),
        draw.top_k.repeat_interleave(window),
        draw.greedy,
        draw.truncated,
    )
    p = distribution(flat, each)
    p = p / p.sum(-1, keepdim=True)
    best = functional.one_hot(flat.argmax(-1), choices).to(p.dtype)
    return torch.where((each.temperature == 0).unsqueeze(1), best, p).view(n, window, choices)
