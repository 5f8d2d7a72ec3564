"""Drawing of the next ids, on the device, under grammar and guidance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from services.checkpoint import Vocabulary
from services.llm.batch import Batch
from services.llm.plan import CodePlan, Plan, TextPlan
from services.llm.sampler import FORBIDDEN, assess, penalise, sample
from services.llm.sequence import Sequence
from services.llm.speculation import settle


@dataclass(frozen=True)
class Drawn:
    """Text tokens drawn in one step, on the host; one entry per sequence of the plan.

    `top` holds the likeliest alternatives as (id, log-probability), as many as any of the rows asked for.
    """

    ids: list[int]
    logprobs: list[float]
    entropies: list[float]
    top: list[list[tuple[int, float]]]


@dataclass(frozen=True)
class Settled:
    """How many codes a sequence that drafts got in one step, of how many that it might have."""

    codes: int
    width: int


class Decoding:
    """What may be drawn when, and the batch whose rows draw."""

    def __init__(self, vocabulary: Vocabulary, batch: Batch) -> None:
        self._batch = batch
        device = batch.device
        self._end_image = vocabulary.end_image
        self._code_ids = torch.from_numpy(vocabulary.code_ids).to(device)
        self._choices = torch.from_numpy(vocabulary.text_choices).to(device)
        self._begin_image = int(np.searchsorted(vocabulary.text_choices, vocabulary.begin_image))

    def draw(
        self, plan: Plan, text: Tensor | None, codes: Tensor | None
    ) -> tuple[Drawn | None, list[Settled]]:
        """Draw and note the next ids of every row of the plan; image codes stay on the device.

        Args:
            text: logits of the text rows, [n, text choices].
            codes: logits of the streams, [m, codes].
        """
        drawn = self._text(plan.text, text) if plan.text and text is not None else None
        settled: list[Settled] = []
        if codes is not None:
            split = len(plan.codes.streams) if plan.codes else 0
            if plan.codes:
                self._codes(plan.codes, codes[:split])
            if plan.drafted:
                settled = self._drafted(plan.drafted, codes[split:])
        if plan.closing:
            self._note(plan.closing_rows, torch.full_like(plan.closing_rows, self._end_image))
        self._batch.length[plan.advancing] += 1
        return drawn, settled

    def begin_drafts(self, sequence: Sequence) -> None:
        """Drafts for a picture's next codes, of which nothing is known yet: any code, evenly."""
        state, window = self._batch.state, self._batch.window
        count = len(self._code_ids)
        uniform = torch.from_numpy(sequence.random.random(window)).to(self._batch.device)
        drafts = (uniform * count).long().clamp(max=count - 1)
        state.drafts[sequence.row.index] = drafts
        state.draft_weights[sequence.row.index] = 1 / count
        for row in sequence.rows:
            length = int(self._batch.length[row.index])
            ahead = min(window - 1, state.tokens.shape[1] - length)
            state.tokens[row.index, length : length + ahead] = self._code_ids[drafts[:ahead]]

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
        barred = positions > state.image_limit[rows]
        logits[:, self._begin_image].masked_fill_(barred, FORBIDDEN)
        penalised = logits
        if plan.penalty is not None:
            penalised = penalise(logits, state.seen[rows.unsqueeze(1), self._choices], plan.penalty)
        chosen = sample(penalised, plan.draw, state.uniform[rows, positions])
        ids = self._choices[chosen]
        self._note(rows, ids)
        state.seen[rows, ids] = True
        log_probabilities, picked, entropy = assess(logits, chosen)
        host = torch.stack((ids.double(), picked.double(), entropy.double())).tolist()
        top: list[list[tuple[int, float]]] = [[] for _ in plan.sequences]
        if plan.top:
            values, indices = log_probabilities.topk(min(plan.top, logits.shape[1]))
            pairs = zip(self._choices[indices].tolist(), values.tolist(), strict=True)
            top = [list(zip(i, v, strict=True)) for i, v in pairs]
        return Drawn([int(i) for i in host[0]], host[1], host[2], top)

    def _codes(self, plan: CodePlan, logits: Tensor) -> None:
        state, rows = self._batch.state, plan.rows
        logits = _mixed(plan, logits, 1).squeeze(1)
        positions = self._positions(rows)
        codes = sample(logits, plan.draw, state.uniform[rows, positions])
        ids = self._code_ids[codes]
        self._note(plan.followers, ids[plan.leaders])
        _, picked, entropy = assess(logits, codes)
        state.logprobs[rows, positions] = picked.float()
        state.entropies[rows, positions] = entropy.float()

    def _drafted(self, plan: CodePlan, logits: Tensor) -> list[Settled]:
        batch, state, rows = self._batch, self._batch.state, plan.rows
        window = batch.window
        assert plan.width is not None
        mixed = _mixed(plan, logits, window)
        uniform = torch.from_numpy(np.stack([s.random.random((3, window)) for s in plan.sequences]))
        codes, settled, drafts, weights = settle(
            mixed,
            state.drafts[rows],
            state.draft_weights[rows],
            plan.width,
            plan.draw,
            uniform.to(rows.device),
        )
        state.drafts[rows], state.draft_weights[rows] = drafts, weights
        within = torch.arange(window, device=rows.device)
        done = within < settled.unsqueeze(1)
        flat, positions = mixed.flatten(0, 1), self._positions(rows).unsqueeze(1) + within
        _, picked, entropy = assess(flat, codes.flatten())
        owners = rows.unsqueeze(1).expand(-1, window)
        state.logprobs[owners[done], positions[done]] = picked.view(done.shape)[done].float()
        state.entropies[owners[done], positions[done]] = entropy.view(done.shape)[done].float()
        self._write_ahead(plan, codes, settled, drafts)
        found = [Settled(*pair) for pair in zip(settled.tolist(), plan.width.tolist(), strict=True)]
        for sequence, one in zip(plan.sequences, found, strict=True):
            for row in sequence.rows:
                batch.length[row.index] += one.codes
                batch.read[row.index] += one.codes - 1
                batch.ahead[row.index] = 0
        return found

    def _write_ahead(self, plan: CodePlan, codes: Tensor, settled: Tensor, drafts: Tensor) -> None:
        """Into every row that follows: the codes that hold, then the new drafts, as far as the row goes."""
        state, window = self._batch.state, self._batch.window
        line = torch.arange(2 * window, device=codes.device).expand(len(codes), -1)
        split = settled.unsqueeze(1)
        ids = self._code_ids[
            torch.where(
                line < split,
                codes.gather(1, line.clamp(max=window - 1)),
                drafts.gather(1, (line - split).clamp(0, window - 1)),
            )
        ]
        places = self._positions(plan.followers).unsqueeze(1) + line[plan.leaders]
        fits = (line < split + window - 1)[plan.leaders] & (places < state.tokens.shape[1])
        owners = plan.followers.unsqueeze(1).expand_as(places)
        state.tokens[owners[fits], places[fits]] = ids[plan.leaders][fits]


def _mixed(plan: CodePlan, logits: Tensor, window: int) -> Tensor:
    """Guided logits, [n, window, codes], of the streams' [n · streams · window, codes]."""
    streams = logits.view(len(plan.rows), -1, window, logits.shape[-1])
    return streams[:, 0] if plan.weights is None else (streams * plan.weights).sum(1)
