"""Which rows draw text, codes or nothing, and how."""

from __future__ import annotations

from collections.abc import Sequence as Sequences
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from services.llm.batch import Batch
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
    """Sequences that draw image codes, each `width` of them at once.

    Attributes:
        rows: int64 [n], the sequences' own rows.
        streams: int64 [n · 3 · w], the kept hidden states whose logits are mixed, w for every row, which for a step without
            drafts is 1; the own row fills up. [n · w] where no row is guided.
        weights: float32 [n, 3, 1, 1]; None where no row is guided.
        followers, leaders: int64 [m], every row that reads a drawn code, and the index (0…n-1) of its sequence.
        width: int64 [n], codes that each may settle; None where nothing is drafted.
    """

    sequences: list[Sequence]
    rows: Tensor
    draw: Draw
    streams: Tensor
    weights: Tensor | None
    followers: Tensor
    leaders: Tensor
    width: Tensor | None = None


@dataclass(frozen=True)
class Plan:
    """Who draws what.

    Attributes:
        drafted: codes of sequences whose drafts are read in this step.
        advancing: int64 [k], every row that gets exactly one id more.
    """

    text: TextPlan | None
    codes: CodePlan | None
    drafted: CodePlan | None
    closing: list[Sequence]
    closing_rows: Tensor
    advancing: NDArray[np.int64]

    @classmethod
    def of(cls, sequences: Sequences[Sequence], batch: Batch) -> Plan:
        device = batch.device
        ahead = {s for s in sequences if batch.ahead[s.row.index]}
        text = [s for s in sequences if s.phase is Phase.TEXT]
        codes = [s for s in sequences if s.phase is Phase.CODES and s not in ahead]
        closing = [s for s in sequences if s.phase is Phase.CLOSING]
        drafted = [s for s in sequences if s in ahead]
        return cls(
            _text(text, device) if text else None,
            _codes(codes, batch, 1) if codes else None,
            _codes(drafted, batch, batch.window) if drafted else None,
            closing,
            _places([s.row.index for s in closing], device),
            np.array([row.index for s in sequences if s not in ahead for row in s.rows], np.int64),
        )

    def wanted(self, window: int) -> tuple[Tensor, Tensor]:
        """Places of the hidden states for text and for codes; see `Work`."""
        streams = [part.streams for part in (self.codes, self.drafted) if part]
        return (
            self.text.rows * window if self.text else NOBODY,
            NOBODY if not streams else streams[0] if len(streams) == 1 else torch.cat(streams),
        )


NOBODY = torch.empty(0, dtype=torch.int64)


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


def _codes(sequences: list[Sequence], batch: Batch, window: int) -> CodePlan:
    streams: list[list[int]] = []
    weights, followers, leaders = [], [], []
    guided = any(s.companions for s in sequences)
    for index, sequence in enumerate(sequences):
        rows = sequence.rows
        followers += [row.index for row in rows]
        leaders += [index] * len(rows)
        padding = 3 - len(rows) if guided else 0
        streams.append([row.index for row in rows] + [sequence.row.index] * padding)
        weights.append([row.weight for row in rows] + [0.0] * padding)
    own = [s.row.index for s in sequences]
    within = torch.arange(window, device=batch.device)
    mixed = (
        torch.tensor(streams, dtype=torch.int64, device=batch.device).unsqueeze(-1) * batch.window + within
    )
    sampling = [s.job.sampling for s in sequences]
    return CodePlan(
        sequences,
        _places(own, batch.device),
        Draw.of([(s.image_temperature, s.image_top_p, 0) for s in sampling], batch.device),
        mixed.flatten(),
        torch.tensor(weights, device=batch.device)[:, :, None, None] if guided else None,
        _places(followers, batch.device),
        _places(leaders, batch.device),
        _places((batch.ahead[own] + 1).tolist(), batch.device) if window > 1 else None,
    )
