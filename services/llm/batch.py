"""The rows of the running batch, and which of them draw text, codes or nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from services.checkpoint.config import ModelConfig
from services.llm.kv_cache import KVCache
from services.llm.rows import RowState
from services.llm.sampler import Draw
from services.llm.sequence import Phase, Row, Sequence


@dataclass(frozen=True)
class TextPlan:
    """Rows that draw text: their places [n] and how they draw."""

    sequences: list[Sequence]
    rows: Tensor
    draw: Draw
    penalty: Tensor | None
    top: int | None


@dataclass(frozen=True)
class CodePlan:
    """Rows that draw image codes.

    Attributes:
        rows: int64 [n], places of the sequences' own rows.
        streams: int64 [n, 3], places of the rows whose logits are mixed; the own row fills up.
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
    """What each row does, valid until a sequence comes, goes or changes phase."""

    text: TextPlan | None
    codes: CodePlan | None
    closing: list[Sequence]
    closing_rows: Tensor


class Batch:
    """Rows in use are 0…n-1; leaving rows are replaced by the last ones."""

    def __init__(self, config: ModelConfig, rows: int, dtype: torch.dtype, device: torch.device) -> None:
        self.capacity, self._device = rows, device
        self.cache = KVCache(config, rows, dtype, device)
        self.state = RowState(config, rows, device)
        self.rows: list[Row] = []

    def add(self, row: Row, prompt: NDArray[np.int64]) -> None:
        """Append a row that will read `prompt`, int64 [length], in the next prefill."""
        row.index, row.position = len(self.rows), len(prompt)
        self.rows.append(row)
        self.state.positions[row.index] = len(prompt)
        self.state.seen[row.index] = False
        self.state.image_limit[row.index] = -1
        ids = torch.from_numpy(prompt).to(self._device)
        self.state.tokens[row.index, : len(prompt)] = ids
        self.state.seen[row.index, ids] = True

    def remove(self, row: Row) -> None:
        """Free a row; the last row takes its place."""
        last = self.rows.pop()
        if last is not row:
            self.cache.move(last.index, row.index, last.position)
            self.state.move(last.index, row.index)
            last.index = row.index
            self.rows[row.index] = last
        row.index = -1

    def plan(self) -> Plan:
        sequences = [row.sequence for row in self.rows if row.sequence.row is row]
        text = [s for s in sequences if s.phase is Phase.TEXT]
        codes = [s for s in sequences if s.phase is Phase.CODES]
        closing = [s for s in sequences if s.phase is Phase.CLOSING]
        return Plan(
            self._text_plan(text) if text else None,
            self._code_plan(codes) if codes else None,
            closing,
            self._tensor([s.row.index for s in closing]),
        )

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)

    def _text_plan(self, sequences: list[Sequence]) -> TextPlan:
        sampling = [s.job.sampling for s in sequences]
        penalties = [s.repetition_penalty for s in sampling]
        tops = [s.job.top_logprobs for s in sequences if s.job.top_logprobs is not None]
        return TextPlan(
            sequences,
            self._tensor([s.row.index for s in sequences]),
            Draw.of([(s.temperature, s.top_p, s.top_k) for s in sampling], self._device),
            torch.tensor(penalties, device=self._device) if any(p != 1 for p in penalties) else None,
            max(tops) if tops else None,
        )

    def _code_plan(self, sequences: list[Sequence]) -> CodePlan:
        streams, weights, followers, leaders = [], [], [], []
        for index, sequence in enumerate(sequences):
            rows = [sequence.row, *sequence.companions]
            followers += [row.index for row in rows]
            leaders += [index] * len(rows)
            padding = 3 - len(rows)
            streams.append([row.index for row in rows] + [sequence.row.index] * padding)
            weights.append([row.weight for row in rows] + [0.0] * padding)
        sampling = [s.job.sampling for s in sequences]
        guided = any(s.companions for s in sequences)
        return CodePlan(
            sequences,
            self._tensor([s.row.index for s in sequences]),
            Draw.of([(s.image_temperature, s.image_top_p, 0) for s in sampling], self._device),
            torch.tensor(streams, dtype=torch.int64, device=self._device),
            torch.tensor(weights, device=self._device).unsqueeze(-1) if guided else None,
            self._tensor(followers),
            self._tensor(leaders),
        )
