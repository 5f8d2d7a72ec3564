"""One step on the device: read the waiting ids, draw the next ones under grammar and guidance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from services.checkpoint import Vocabulary
from services.llm.batch import Batch, CodePlan, Plan, TextPlan
from services.llm.runner import Runner
from services.llm.sampler import FORBIDDEN, assess, penalise, sample
from services.llm.sequence import Row

_WORTH_SHARING = 50_000_000  # multiplications of one step
_PADDING = 16  # ids by which prompts of one prefill may differ in length


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
    """The model, its vocabulary's masks and the batch that it advances."""

    def __init__(self, runner: Runner, vocabulary: Vocabulary, batch: Batch, threads: int) -> None:
        """threads: torch threads for work that is worth sharing."""
        self._runner, self._batch, self._threads = runner, batch, threads
        device = runner.device
        self._end_image = vocabulary.end_image
        self._code_ids = torch.from_numpy(vocabulary.code_ids).to(device)
        self._code_head = runner.head[self._code_ids].contiguous()
        text = torch.full((2, runner.config.vocab_size), FORBIDDEN, device=device)
        text[:, torch.from_numpy(vocabulary.text_ids).to(device)] = 0
        text[:, [vocabulary.eos, vocabulary.end_of_turn]] = 0
        text[1, vocabulary.begin_image] = 0
        self._text_masks = text  # [may not begin a picture, may]

    def warm_up(self) -> None:
        """Run the model once, so that no caller waits for what libraries set up on first use."""
        ids = torch.zeros(
            1, min(128, self._runner.config.context - 1), dtype=torch.int64, device=self._runner.device
        )
        length = torch.tensor([ids.shape[1]], device=self._runner.device)
        self._use_threads(ids.numel())
        self._runner.prefill(ids, length, self._batch.cache, 0)
        self._use_threads(1)
        hidden = self._runner.step(ids[:, 0], length, self._batch.cache, ids.shape[1] + 1)
        functional.linear(hidden, self._runner.head)

    def read(self, reading: int) -> Tensor:
        """Advance the first `reading` rows by one id and prefill the rest with their prompts.

        Returns:
            Hidden state at each row's last id, [rows, hidden_size].
        """
        rows, state = self._batch.rows, self._batch.state
        hidden = []
        if reading:
            extent = max(row.position for row in rows[:reading]) + 1
            ids, positions = state.next_ids[:reading], state.positions[:reading]
            self._use_threads(reading)
            hidden.append(self._runner.step(ids, positions, self._batch.cache, extent))
            positions += 1
            for row in rows[:reading]:
                row.position += 1
        first = reading
        for group in _groups(rows[reading:]):
            lengths = [row.position for row in group]
            ids = state.tokens[first : first + len(group), : max(lengths)]
            self._use_threads(ids.numel())
            lengths_on_device = state.positions[first : first + len(group)]
            hidden.append(self._runner.prefill(ids, lengths_on_device, self._batch.cache, first))
            first += len(group)
        return hidden[0] if len(hidden) == 1 else torch.cat(hidden)

    def _use_threads(self, ids: int) -> None:
        """All threads for much work, one for little: sharing a small product costs more than it saves."""
        threads = self._threads if ids * self._runner.parameters > _WORTH_SHARING else 1
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)

    def draw(self, plan: Plan, hidden: Tensor) -> Drawn | None:
        """Draw and note the next id of every row; image codes stay on the device."""
        drawn = self._draw_text(plan.text, hidden) if plan.text else None
        if plan.codes:
            self._draw_codes(plan.codes, hidden)
        if plan.closing:
            self._note(plan.closing_rows, torch.full_like(plan.closing_rows, self._end_image))
        return drawn

    def _note(self, rows: Tensor, ids: Tensor) -> Tensor:
        """Write drawn ids, and return the positions they take."""
        state = self._batch.state
        positions = state.positions[rows]
        state.next_ids[rows] = ids
        state.tokens[rows, positions] = ids
        return positions

    def _draw_text(self, plan: TextPlan, hidden: Tensor) -> Drawn:
        state, rows = self._batch.state, plan.rows
        positions = state.positions[rows]
        logits = functional.linear(hidden[rows], self._runner.head).float()
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

    def _draw_codes(self, plan: CodePlan, hidden: Tensor) -> None:
        state, rows = self._batch.state, plan.rows
        # In an image span only the codes' rows of the output embedding count.
        if plan.weights is None:
            mixed = functional.linear(hidden[rows], self._code_head).float()
        else:
            streams = functional.linear(hidden[plan.streams], self._code_head).float()
            mixed = (streams * plan.weights).sum(1)
        codes = sample(mixed, plan.draw, state.uniform[rows, state.positions[rows]])
        ids = self._code_ids[codes]
        positions = self._note(rows, ids)
        state.next_ids[plan.followers] = ids[plan.leaders]
        _, picked, entropy = assess(mixed, codes)
        state.logprobs[rows, positions] = picked
        state.entropies[rows, positions] = entropy


def _groups(rows: list[Row]) -> list[list[Row]]:
    """Neighbours whose prompts are of similar length, to be read in one padded batch."""
    groups: list[list[Row]] = []
    for row in rows:
        if groups and abs(groups[-1][0].position - row.position) <= _PADDING:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups
