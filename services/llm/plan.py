"""Which rows draw text, codes or nothing, and how."""

from __future__ import annotations

from collections.abc import Sequence as Sequences
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from services.llm.sampler import Draw
from services.llm.sequence import Phase, Sequence


@dataclass(frozen=True)
class TextPlan:
    """Sequences that draw text: their rows [n] and how they draw."""

    sequences: list[Sequence]
    rows: Tensor
    draw: Draw
    penalty: Tensor | None
    top: int | None


@dataclass(frozen=True)
class CodePlan:
    """Sequences that draw image codes.

    Attributes:
        rows: int64 [n], the sequences' own rows.
        streams: int64 [n · 3], the rows whose logits are mixed; the own row fills up. [n] where no row is guided.
        weights: float32 [n, 3, 1]; None where no row is guided.
        followers, leaders: int64 [m], every row that reads a drawn code, and the index (0…n-1) of its sequence.
    """

    sequences: list[Sequence]
    rows: Tensor
    draw: Draw
    streams: Tensor
    weights: Tensor | None
    followers: Tensor
    leaders: Tensor


@dataclass(frozen=True)
class Plan:
    """Who draws what.

    Attributes:
        advancing: int64 [k], every row that gets an id more.
    """

    text: TextPlan | None
    codes: CodePlan | None
    closing: list[Sequence]
    closing_rows: Tensor
    advancing: NDArray[np.int64]

    @classmethod
    def of(cls, sequences: Sequences[Sequence], device: torch.device) -> Plan:
        text = [s for s in sequences if s.phase is Phase.TEXT]
        codes = [s for s in sequences if s.phase is Phase.CODES]
        closing = [s for s in sequences if s.phase is Phase.CLOSING]
        return cls(
            _text(text, device) if text else None,
            _codes(codes, device) if codes else None,
            closing,
            _places([s.row.index for s in closing], device),
            np.array([row.index for s in sequences for row in s.rows], np.int64),
        )


def _places(values: list[int], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.int64, device=device)


def _text(sequences: list[Sequence], device: torch.device) -> TextPlan:
    sampling = [s.job.sampling for s in sequences]
    penalties = [s.repetition_penalty for s in sampling]
    tops = [s.job.top_logprobs for s in sequences if s.job.top_logprobs is not None]
    return TextPlan(
        sequences,
        _places([s.row.index for s in sequences], device),
        Draw.of([(s.temperature, s.top_p, s.top_k) for s in sampling], device),
        torch.tensor(penalties, device=device) if any(p != 1 for p in penalties) else None,
        max(tops) if tops else None,
    )


def _codes(sequences: list[Sequence], device: torch.device) -> CodePlan:
    streams: list[int] = []
    weights, followers, leaders = [], [], []
    guided = any(s.companions for s in sequences)
    for index, sequence in enumerate(sequences):
        rows = sequence.rows
        followers += [row.index for row in rows]
        leaders += [index] * len(rows)
        if guided:
            padding = 3 - len(rows)
            streams += [row.index for row in rows] + [sequence.row.index] * padding
            weights.append([row.weight for row in rows] + [0.0] * padding)
        else:
            streams.append(sequence.row.index)
    sampling = [s.job.sampling for s in sequences]
    return CodePlan(
        sequences,
        _places([s.row.index for s in sequences], device),
        Draw.of([(s.image_temperature, s.image_top_p, 0) for s in sampling], device),
        _places(streams, device),
        torch.tensor(weights, device=device).unsqueeze(-1) if guided else None,
        _places(followers, device),
        _places(leaders, device),
    )
