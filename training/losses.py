"""What both trainings learn by: cross-entropy over what serving would draw from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from services.checkpoint import Vocabulary


def bfloat16_pays() -> bool:
    """Whether this processor multiplies bfloat16 matrices in hardware."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@dataclass(frozen=True)
class Targets:
    """What the vocabulary says of a learnt id: `is_text` bool [vocabulary] (what ends an answer or begins a picture
    included), `code` int64 [vocabulary], its image code or -1, and `code_ids` int64 [codes], the reverse."""

    is_text: Tensor
    code: Tensor
    code_ids: Tensor

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> Targets:
        is_text = torch.from_numpy(vocabulary.is_text).clone()
        is_text[[vocabulary.eos, vocabulary.begin_image]] = True
        code = torch.from_numpy(vocabulary.id_to_code(np.arange(vocabulary.size)))
        return cls(is_text, code, torch.from_numpy(vocabulary.code_ids))

    def to(self, device: str) -> Targets:
        return Targets(self.is_text.to(device), self.code.to(device), self.code_ids.to(device))


def nats(hidden: Tensor, head: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of hidden states [n, hidden] against ids [n] among the head's rows, [n] in float32 or wider."""
    return functional.cross_entropy(_logits(hidden, head), target, reduction="none")


def divergence(hidden: Tensor, head: Tensor, base: Tensor) -> Tensor:
    """KL divergence of what `hidden` [n, hidden] says from what `base` [n, hidden] says among the head's rows: sum of
    p_base (log p_base - log p), nats, [n] in float32 or wider."""
    wanted = functional.log_softmax(_logits(base, head), dim=-1)
    found = functional.log_softmax(_logits(hidden, head), dim=-1)
    return functional.kl_div(found, wanted, reduction="none", log_target=True).sum(-1)


def _logits(hidden: Tensor, head: Tensor) -> Tensor:
    logits = functional.linear(hidden, head)
    return logits.float() if logits.dtype.itemsize < 4 else logits
