"""What every rank computes in a step: hidden states of the rows, logits of those that draw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from services.checkpoint import Vocabulary
from services.checkpoint.config import ModelConfig
from services.llm.fused import Forward
from services.llm.group import joined
from services.llm.kv_cache import BLOCK, blocks_for
from services.llm.runner import Runner
from services.llm.step import Chunk, Share, Step

_WORTH_SHARING = 50_000_000  # multiplications of one step


@dataclass(frozen=True)
class Work:
    """One step, and whose logits are wanted.

    Attributes:
        step: what is read.
        text: int64 [n], places of kept hidden states (`Step.ends`) from which text is drawn; may be empty.
        codes: int64 [m], those from which image codes are.
    """

    step: Step
    text: Tensor
    codes: Tensor


class Head:
    """The rows of the output embedding for some ids; on each rank, those of its share of the vocabulary."""

    def __init__(self, runner: Runner, ids: NDArray[np.int64]) -> None:
        """ids: int64 [n], ascending."""
        wanted = torch.from_numpy(ids).to(runner.device)
        mine = (wanted >= runner.first_id) & (wanted < runner.first_id + len(runner.head))
        self._weight = runner.head[wanted[mine] - runner.first_id].t().contiguous()
        self._places, self._width, self._group = mine.nonzero().flatten(), len(ids), runner.group

    def __call__(self, hidden: Tensor) -> Tensor:
        """[m, hidden_size] → logits [m, n], float32 or wider."""
        logits = joined(self._group, hidden @ self._weight, self._places, self._width)
        return logits.float() if logits.dtype.itemsize < 4 else logits


class Computer:
    """A rank's part of the model, with the hidden state at each row's last token. Use from one thread."""

    def __init__(
        self, runner: Runner, forward: Forward, vocabulary: Vocabulary, places: int, threads: int
    ) -> None:
        """Takes the output embedding out of `runner`.

        Args:
            places: hidden states that are kept.
            threads: torch threads for work that is worth sharing.
        """
        self.runner, self._forward, self._threads = runner, forward, threads
        self._hidden = torch.zeros(
            places, runner.config.hidden_size, dtype=runner.dtype, device=runner.device
        )
        # Outside a picture no code can be drawn, inside nothing else: the other rows need no product.
        self._text, self._codes = Head(runner, vocabulary.text_choices), Head(runner, vocabulary.code_ids)
        runner.head = runner.head[:0].clone()

    def __call__(self, work: Work) -> tuple[Tensor | None, Tensor | None]:
        """Logits of text [n, text choices] and of codes [m, codes], float32 or wider; None where nobody draws."""
        self._use_threads(len(work.step.ids))
        self._hidden[work.step.ends] = self._forward(work.step)
        return (
            self._text(self._hidden[work.text]) if len(work.text) else None,
            self._codes(self._hidden[work.codes]) if len(work.codes) else None,
        )

    def _use_threads(self, ids: int) -> None:
        """All threads for much work, one for little: sharing a small product costs more than it saves."""
        threads = self._threads if ids * self.runner.parameters > _WORTH_SHARING else 1
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)


def trials(config: ModelConfig, device: torch.device, adapted: bool = False) -> Iterator[Work]:
    """Steps of a prompt and of a single id that touch nothing in use, to make the first real ones as fast as the rest.

    adapted: the same under an adapter, too.
    """
    rows = torch.zeros(1, dtype=torch.int64, device=device)
    table = torch.zeros(1, blocks_for(config.context), dtype=torch.int32, device=device)
    for count, shares in product((BLOCK, 1), ((), (Share(0, None),)) if adapted else ((),)):
        step = Step(
            ids=rows.repeat(count),
            rows=rows.repeat(count),
            positions=torch.arange(count, device=device),
            tables=table,
            singles=count if count == 1 else 0,
            extent=1,
            chunks=() if count == 1 else (Chunk(0, count, 0, 0),),
            last=rows + count - 1,
            ends=rows,
            shares=shares,
        )
        yield Work(step, rows, rows)
