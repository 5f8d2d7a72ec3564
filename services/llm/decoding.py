"""Drawing of the next ids, on the device, under grammar and guidance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from services.checkpoint import Vocabulary
from services.llm.batch import Batch
from services.llm.plan import CodePlan, Plan, TextPlan
from services.llm.sampler import FORBIDDEN, assess, penalise, sample


@dataclass(frozen=True)
class Drawn:
    """Text tokens drawn in one step, on the host; one entry per sequence of the plan.

    `top` holds the likeliest alternatives as (id, log-probability), as many as any of the rows asked for.
    """

    ids: list[int]
    logprobs: list[float]
    entropies: list[float]
    top: list[list[tuple[int, float]]]


class Decoding:
    """The vocabulary's masks, and the batch whose rows draw."""

    def __init__(self, vocabulary: Vocabulary, batch: Batch) -> None:
        self._batch = batch
        device = batch.device
        self._end_image = vocabulary.end_image
        self._code_ids = torch.from_numpy(vocabulary.code_ids).to(device)
        text = torch.full((2, batch.state.seen.shape[1]), FORBIDDEN, device=device)
        text[:, torch.from_numpy(vocabulary.text_ids).to(device)] = 0
        text[:, [vocabulary.eos, vocabulary.end_of_turn]] = 0
        text[1, vocabulary.begin_image] = 0
        self._text_masks = text  # [may not begin a picture, may]

    def draw(self, plan: Plan, text: Tensor | None, codes: Tensor | None) -> Drawn | None:
        """Draw and note the next id of every row of the plan; image codes stay on the device.

        Args:
            text: logits of the text rows, [n, vocabulary].
            codes: logits of the streams, [m, codes].
        """
        drawn = self._text(plan.text, text) if plan.text and text is not None else None
        if plan.codes and codes is not None:
            self._codes(plan.codes, codes)
        if plan.closing:
            self._note(plan.closing_rows, torch.full_like(plan.closing_rows, self._end_image))
        self._batch.length[plan.advancing] += 1
        return drawn

    def _positions(self, rows: Tensor) -> Tensor:
        """The positions that the next ids of `rows` take."""
        length = torch.from_numpy(self._batch.length).to(rows.device)
        return length[rows]

    def _note(self, rows: Tensor, ids: Tensor) -> Tensor:
        """Write drawn ids, and return the positions they take."""
        positions = self._positions(rows)
        self._batch.state.tokens[rows, positions] = ids
        return positions

    def _text(self, plan: TextPlan, logits: Tensor) -> Drawn:
        state, rows = self._batch.state, plan.rows
        positions = self._positions(rows)
        logits += self._text_masks[(positions <= state.image_limit[rows]).long()]
        penalised = logits if plan.penalty is None else penalise(logits, state.seen[rows], plan.penalty)
        ids = sample(penalised, plan.draw, state.uniform[rows, positions])
        self._note(rows, ids)
        state.seen[rows, ids] = True
        log_probabilities, picked, entropy = assess(logits, ids)
        host = torch.stack((ids.double(), picked.double(), entropy.double())).tolist()
        top: list[list[tuple[int, float]]] = [[] for _ in plan.sequences]
        if plan.top:
            values, indices = log_probabilities.topk(min(plan.top, logits.shape[1]))
            pairs = zip(indices.tolist(), values.tolist(), strict=True)
            top = [list(zip(i, v, strict=True)) for i, v in pairs]
        return Drawn([int(i) for i in host[0]], host[1], host[2], top)

    def _codes(self, plan: CodePlan, logits: Tensor) -> None:
        state, rows = self._batch.state, plan.rows
        if plan.weights is not None:
            logits = (logits.view(len(rows), 3, -1) * plan.weights).sum(1)
        positions = self._positions(rows)
        codes = sample(logits, plan.draw, state.uniform[rows, positions])
        ids = self._code_ids[codes]
        self._note(plan.followers, ids[plan.leaders])
        _, picked, entropy = assess(logits, codes)
        state.logprobs[rows, positions] = picked.float()
        state.entropies[rows, positions] = entropy.float()
