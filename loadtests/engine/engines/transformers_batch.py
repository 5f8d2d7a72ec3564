"""transformers' `generate_batch`: its continuous batching over a paged cache.

Driven through the manager that `generate_batch` starts and stops around every call, kept running here.
"""

from __future__ import annotations

import time

import torch
import transformers
from transformers import ContinuousBatchingConfig

from loadtests.engine.engines.transformers_generate import greedy, load_model
from loadtests.engine.jobs import Job, Options, Outcome, stepwise, texts_at_once

_PAGE = 256  # tokens, its default


class GenerateBatch:
    def __init__(self, options: Options) -> None:
        model = load_model(options)
        config = ContinuousBatchingConfig(
            page_size=_PAGE,
            num_blocks=-(-options.tokens // _PAGE) + options.rows,
            max_requests_per_batch=options.rows,
            use_cuda_graph=False,
        )
        self._manager = model.init_continuous_batching(
            greedy(eos_token_id=-1), continuous_batching_config=config
        )
        self._manager.start()
        self.version = f"{transformers.__version__}, torch {torch.__version__}"

    def run(self, job: Job) -> Outcome:
        count = texts_at_once(job)
        start = time.perf_counter()
        self._manager.add_requests(
            [request.prompt for request in job.requests], max_new_tokens=count, record_timestamps=True
        )
        stamps: list[list[float]] = []
        while len(stamps) < len(job.requests):
            result = self._manager.get_result(timeout=1)
            if result is None:
                if not self._manager.is_running():
                    raise RuntimeError("the generation thread ended; see the log")
            elif result.error is not None:
                raise RuntimeError(result.error)
            elif result.is_finished():
                if len(result.generated_tokens) != count:
                    raise RuntimeError(f"{len(result.generated_tokens)} tokens in place of {count}")
                stamps.append(result.timestamps)
        return Outcome(time.perf_counter() - start, stepwise(start, stamps))

    def close(self) -> None:
        self._manager.stop(block=True, timeout=5)


def load(options: Options) -> GenerateBatch:
    return GenerateBatch(options)
