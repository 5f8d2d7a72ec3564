"""vLLM through its Transformers back end: text alone. Runs in .venv-vllm, without the rest of this project."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from loadtests.engine.jobs import Job, Options, Outcome, stepwise, texts_at_once

if TYPE_CHECKING:
    from vllm import RequestOutput

_GIB = 1 << 30


class VLLM:
    def __init__(self, options: Options) -> None:
        os.environ |= {
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            # In one process it was 1.3 to 3 times as fast as in its usual three, on two cores.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_OMP_THREADS_BIND": f"0-{options.threads - 1}",
            "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        }
        import torch
        import vllm

        self._vllm = vllm
        self._llm = vllm.LLM(
            model=options.hugging_face,
            tokenizer=options.hugging_face,
            model_impl="transformers",
            skip_tokenizer_init=True,
            dtype=options.dtype,
            max_num_seqs=options.rows,
            kv_cache_memory_bytes=4 * _GIB,
            disable_log_stats=True,
        )
        self.version = f"{vllm.__version__}, torch {torch.__version__}"
        self._count = 0

    def run(self, job: Job) -> Outcome:
        """Steps the engine by hand, as `LLM.generate` does, taking the time of every piece."""
        count = texts_at_once(job)
        from vllm.sampling_params import RequestOutputKind

        sampling = self._vllm.SamplingParams(
            temperature=0.0,
            max_tokens=count,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        engine = self._llm.llm_engine
        start = time.perf_counter()
        stamps: dict[str, list[float]] = {}
        for request in job.requests:
            name = str(self._count)
            self._count += 1
            stamps[name] = []
            engine.add_request(name, {"prompt_token_ids": request.prompt}, sampling)
        while engine.has_unfinished_requests():
            outputs: list[RequestOutput] = engine.step()
            now = time.perf_counter()
            for output in outputs:
                stamps[output.request_id] += [now] * len(output.outputs[0].token_ids)
        wall = time.perf_counter() - start
        if any(len(times) != count for times in stamps.values()):
            raise RuntimeError(f"an answer is not {count} tokens long")
        return Outcome(wall, stepwise(start, list(stamps.values())))

    def close(self) -> None:
        del self._llm


def load(options: Options) -> VLLM:
    return VLLM(options)
