"""The GPU's layers against the same layers in torch: on a GPU where there is one, else interpreted, graphs without CUDA."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from services.checkpoint import Checkpoint, ModelConfig
from services.checkpoint.adapter import Adapter, open_adapter
from services.config import Device, Settings
from services.llm import parallel
from services.llm.attention import TorchAttention
from services.llm.batch import Batch
from services.llm.engine import Engine
from services.llm.fused import Forward
from services.llm.gpu.forward import GpuForward, Replay
from services.llm.group import Alone, Group
from services.llm.kv_cache import KVCache
from services.llm.load import load_state
from services.llm.request import GenerationRequest, OutputMode, SamplingRequest
from services.llm.runner import Runner
from services.llm.sequence import Row
from tests.unit.llm.test_llm_engine import content, prompt

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.1}


def repeated(run: Callable[[], Tensor]) -> tuple[Replay, Tensor]:
    """What a graph does, where there are none: the same work on the same tensors."""
    out = run()

    def again() -> None:
        out.copy_(run())

    return again, out


def forwards(
    config: ModelConfig, dtype: torch.dtype, adapters: Sequence[Adapter] = ()
) -> list[tuple[Forward, KVCache]]:
    """The GPU's and torch's, on the same weights, over caches that somebody else left full of what is not a number."""
    random = torch.Generator().manual_seed(5)
    state = {
        name: torch.randn(size, generator=random).mul_(0.1).to(DEVICE, dtype)
        for name, size in config.shapes().items()
    }
    caches = [KVCache(config, 40, dtype, DEVICE) for _ in range(2)]
    for cache in caches[:1]:
        cache.keys.fill_(torch.nan)
        cache.values.fill_(torch.nan)
    graphs = None if DEVICE.type == "cuda" else repeated
    ours = GpuForward(Runner(config, dict(state), adapters=adapters), caches[0], 4, graphs)
    other = partial(
        Runner(config, dict(state), adapters=adapters).forward, attention=TorchAttention(caches[1])
    )
    return [(ours, caches[0]), (other, caches[1])]


@pytest.mark.parametrize(
    ("shape", "dtype", "under"),
    [
        ("mha", torch.float64, (0, 0, 0)),
        ("gqa_swin", torch.float64, (0, 1, 2)),
        ("mha", torch.float32, (0, 1, 0)),
        ("mha", torch.bfloat16, (0, 0, 0)),
        ("gqa_swin", torch.bfloat16, (0, 0, 0)),
    ],
)
def test_gpu_layers_equal_the_same_layers_in_torch(
    shape: str,
    dtype: torch.dtype,
    under: tuple[int, ...],
    checkpoints: dict[str, Checkpoint],
    adapters: dict[str, dict[str, Path]],
) -> None:
    """A short and two long prompts beside each other, then single ids of one and of all rows, and two ids of a row;
    under adapters or none."""
    config, opened = checkpoints[shape].config, []
    if any(under):
        opened = [open_adapter(folder, checkpoints[shape]) for folder in adapters[shape].values()]
    found = []
    for forward, cache in forwards(config, dtype, opened):
        seeds = [bytes.fromhex(adapter.digest) for adapter in opened]
        batch, hidden = Batch(config, 4, cache, window=2, codes=4, seeds=seeds), []
        for index, length in enumerate((3, 33, 40)):
            row = Row(None, adapter=under[index])  # type: ignore[arg-type]
            batch.add(row, np.arange(length) % 7 + index)
            assert batch.grow(row, length + 8)
        with torch.inference_mode():
            hidden.append(forward(batch.step(np.arange(3), batch.length[:3].copy())))
            for places, count in (([1], 1), ([2, 0, 1], 1), ([1, 2], 2)):
                rows = np.array(places)
                batch.length[rows] += count
                batch.state.tokens[rows, batch.length[rows] - 1] = 5
                hidden.append(forward(batch.step(rows, np.full(len(rows), count))))
        found.append(torch.cat(hidden))
    assert len(found[0]) == 3 + 1 + 3 + 2
    torch.testing.assert_close(*found, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_attention_over_several_parts_of_a_long_row_equals_torchs(checkpoints: dict[str, Checkpoint]) -> None:
    values = {**vars(checkpoints["mha"].config), "max_position_embeddings": 640, "num_hidden_layers": 1}
    config, found = ModelConfig(**values), []
    for forward, cache in forwards(config, torch.float32):
        batch, row = Batch(config, 1, cache), Row(None)  # type: ignore[arg-type]
        batch.add(row, np.arange(600) % 200)
        assert batch.grow(row, 600)
        random = torch.Generator().manual_seed(6)
        for memory in (cache.keys, cache.values):
            memory.copy_(torch.randn(memory.shape, generator=random))
        batch.read[0] = 599  # as if it had been
        with torch.inference_mode():
            found.append(forward(batch.step(np.array([0]), np.array([1]))))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def test_an_engine_on_the_gpus_layers_answers_as_one_without(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text and a guided picture beside each other, greedy, in float64."""
    greedy = SamplingRequest(temperature=0, image_temperature=0, guidance_text=2.0)
    requests = [
        GenerationRequest(prompt(checkpoint, "why"), OutputMode.TEXT, 3, sampling=greedy),
        GenerationRequest(prompt(checkpoint, "a"), OutputMode.IMAGE, sampling=greedy),
    ]

    def answers() -> list[tuple[object, ...]]:
        settings = Settings(max_batch=4, threads=1, device=Device(DEVICE.type))
        engine = Engine(checkpoint, settings, dtype=torch.float64)
        try:
            return [content(answer) for answer in engine.generate_batch(requests)]
        finally:
            engine.check_integrity()
            engine.close()

    made: list[GpuForward] = []

    def forward_for(runner: Runner, cache: KVCache, threads: int, most: int) -> Forward:
        made.append(GpuForward(runner, cache, most, None if DEVICE.type == "cuda" else repeated))
        return made[0]

    with monkeypatch.context() as patched:
        patched.setattr(parallel, "forward_for", forward_for)
        ours = answers()
    assert made
    assert ours == answers()


class Threads(Group):
    """Ranks that are threads of this process, one at work at a time: Triton's interpreter is not made for several."""

    size = 2
    turn, meeting = threading.Lock(), threading.Barrier(2, timeout=240)

    def __init__(self, rank: int, parts: list[Tensor]) -> None:
        self.rank, self._parts = rank, parts

    def sum(self, part: Tensor) -> Tensor:
        self._parts[self.rank] = part
        self._meet()
        total = torch.stack(self._parts).sum(0)
        self._meet()
        return total

    def _meet(self) -> None:
        self.turn.release()
        self.meeting.wait()
        self.turn.acquire()

    def share(self, tensor: Tensor) -> Tensor:
        raise AssertionError("nothing is shared here")


@pytest.mark.parametrize("shape", ["mha", "gqa_swin"])
def test_two_ranks_on_the_gpus_layers_come_to_what_one_comes_to(
    shape: str, checkpoints: dict[str, Checkpoint]
) -> None:
    checkpoint, parts = checkpoints[shape], [torch.empty(0)] * 2

    def read(group: Group) -> list[Tensor]:
        state = load_state(checkpoint, DEVICE.type, torch.float64, group.rank, group.size)
        runner = Runner(checkpoint.config, state, group)
        cache = KVCache(runner.config, 8, torch.float64, runner.device, group.size)
        forward = GpuForward(runner, cache, 1, repeated)
        batch, row = Batch(runner.config, 1, cache), Row(None)  # type: ignore[arg-type]
        batch.add(row, np.arange(34) % 9)
        assert batch.grow(row, 35)
        with torch.inference_mode():
            hidden = [forward(batch.step(np.array([0]), np.array([34])))]
            batch.length[0] += 1
            return [*hidden, forward(batch.step(np.array([0]), np.array([1])))]

    def as_rank(rank: int) -> list[Tensor]:
        with Threads.turn:
            return read(Threads(rank, parts))

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(as_rank, range(2)))
    for ours in both:
        torch.testing.assert_close(ours, read(Alone()), rtol=1e-9, atol=1e-9)
