"""transformers' `generate`: one batch at a time, every row of it until the longest is done."""

from __future__ import annotations

import time
from typing import Any

import torch
import transformers
from transformers import ChameleonForConditionalGeneration, GenerationConfig
from transformers.generation.streamers import BaseStreamer

from loadtests.engine.jobs import Job, Options, Outcome, stepwise, texts_at_once


def load_model(options: Options) -> Any:
    """A `ChameleonForConditionalGeneration`, the stock class, which forbids image codes; the library is hardly typed."""
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    model: Any = ChameleonForConditionalGeneration.from_pretrained(
        options.hugging_face, dtype=getattr(torch, options.dtype)
    )
    return model.eval().requires_grad_(False)


def greedy(**settings: Any) -> Any:
    """A `GenerationConfig`."""
    make: Any = GenerationConfig
    return make(do_sample=False, **settings)


class _Clock(BaseStreamer):
    """The time of each step; `put` is first called with the prompts."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


class Generate:
    def __init__(self, options: Options) -> None:
        self._model = load_model(options)
        self._pad = self._model.config.pad_token_id or 0
        self.version = f"{transformers.__version__}, torch {torch.__version__}"

    def run(self, job: Job) -> Outcome:
        count = texts_at_once(job)
        config = greedy(max_new_tokens=count, eos_token_id=None, pad_token_id=self._pad, use_cache=True)
        clock = _Clock()
        start = time.perf_counter()
        ids, mask = padded([request.prompt for request in job.requests], self._pad)
        with torch.inference_mode():
            out = self._model.generate(
                input_ids=ids, attention_mask=mask, generation_config=config, streamer=clock
            )
        wall = time.perf_counter() - start
        if out.shape[1] != ids.shape[1] + count:
            raise RuntimeError(f"answers have {out.shape[1] - ids.shape[1]} tokens in place of {count}")
        return Outcome(wall, stepwise(start, [clock.times[1:]] * len(job.requests)))

    def close(self) -> None:
        pass


def padded(prompts: list[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask, int64 [prompts, longest], padded on the left."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    return ids, mask


def load(options: Options) -> Generate:
    return Generate(options)
