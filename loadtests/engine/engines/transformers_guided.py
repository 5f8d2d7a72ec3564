"""Guided pictures on transformers' Chameleon, one request at a time, as the reference serves them.

The stock class forbids image codes, so its decoder is stepped by hand: the prompt's stream and the prompt-free one as a batch
of two over transformers' own cache. The head works on the codes' rows alone, which is more than the reference does.
"""

from __future__ import annotations

import time
from typing import Any

import torch
import transformers
from transformers import DynamicCache

from loadtests.engine.engines.transformers_generate import load_model, padded
from loadtests.engine.jobs import Job, Options, Outcome, Request, Sample
from services.checkpoint import open_checkpoint

TEMPERATURE, TOP_P = 0.7, 0.9  # the reference's


class Guided:
    def __init__(self, options: Options) -> None:
        model = load_model(options)
        checkpoint = open_checkpoint(options.own)
        vocabulary = checkpoint.vocabulary
        self._codes = checkpoint.codes_per_image
        self._ids = torch.from_numpy(vocabulary.code_ids)
        self._head = model.lm_head.weight[self._ids].clone()
        self._decoder: Any = model.model
        self._pad, self._bos, self._begin = vocabulary.pad, vocabulary.bos, vocabulary.begin_image
        self.version = f"{transformers.__version__}, torch {torch.__version__}"

    def run(self, job: Job) -> Outcome:
        start = time.perf_counter()
        with torch.inference_mode():
            samples = [self._draw(request, start) for request in job.requests]
        return Outcome(time.perf_counter() - start, samples)

    def close(self) -> None:
        pass

    def _draw(self, request: Request, start: float) -> Sample:
        if not request.picture:
            raise ValueError("this engine draws pictures")
        random = torch.Generator().manual_seed(request.seed)
        streams = [[*request.prompt, self._begin]]
        if request.guidance != 1:
            streams.append([self._bos, self._begin])
        ids, mask = padded(streams, self._pad)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        cache, stamps = DynamicCache(), []
        for _ in range(self._codes):
            hidden = self._decoder(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state[:, -1]
            code = self._sample(hidden @ self._head.T, request.guidance, random)
            stamps.append(time.perf_counter())
            ids = self._ids[code].expand(len(streams), 1)
            mask = torch.cat((mask, mask.new_ones(len(streams), 1)), 1)
            positions = positions[:, -1:] + 1
        first = (stamps[0] - start) * 1000
        gap = (stamps[-1] - stamps[0]) * 1000 / max(1, self._codes - 1)
        return Sample(first, [gap], self._codes + 1, pictures=1)

    @staticmethod
    def _sample(logits: torch.Tensor, guidance: float, random: torch.Generator) -> torch.Tensor:
        """Logits [streams, codes] → one code, int64 [1]."""
        mixed = logits[-1] + guidance * (logits[0] - logits[-1])
        ordered, order = torch.softmax(mixed.float() / TEMPERATURE, -1).sort(descending=True)
        ordered[ordered.cumsum(0) - ordered >= TOP_P] = 0
        return order[torch.multinomial(ordered, 1, generator=random)]


def load(options: Options) -> Guided:
    return Guided(options)
