from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from services.checkpoint import Checkpoint, ModelConfig
from services.checkpoint.adapter import Adapter, open_adapter
from services.llm.attention import Attention, CpuAttention, TorchAttention
from services.llm.batch import Batch
from services.llm.fused import Forward, Fused
from services.llm.kv_cache import KVCache
from services.llm.model import Chameleon
from services.llm.runner import Runner
from services.llm.sequence import Row

CPU = torch.device("cpu")


def _with(attention: Callable[[KVCache], Attention]) -> Callable[[Runner, KVCache], Forward]:
    return lambda runner, cache: partial(runner.forward, attention=attention(cache))


BACKENDS: dict[str, Callable[[Runner, KVCache], Forward]] = {
    "loops": _with(lambda cache: CpuAttention(cache, 1)),
    "torch": _with(TorchAttention),
    "fused": lambda runner, cache: Fused(runner, cache, 1),
    "fused, shared": lambda runner, cache: Fused(runner, cache, 2, least=0),
}


def runner_of(model: Chameleon, adapters: Sequence[Adapter] = ()) -> Runner:
    return Runner(model.config, model.state_dict(), adapters=adapters)


@pytest.mark.parametrize("backend", list(BACKENDS))
@pytest.mark.parametrize("shape", ["mha", "gqa_swin"])
@given(
    pieces=st.lists(st.tuples(*[st.integers(0, 70)] * 3), max_size=12),
    under=st.tuples(*[st.integers(0, 2)] * 3),
)
@settings(max_examples=30, deadline=None)
def test_reading_in_any_pieces_equals_the_full_computation(
    shape: str,
    backend: str,
    pieces: list[tuple[int, ...]],
    under: tuple[int, ...],
    checkpoints: dict[str, Checkpoint],
    models: dict[str, Chameleon],
    references: dict[tuple[str, str], Chameleon],
    adapters: dict[str, dict[str, Path]],
) -> None:
    """Three rows in steps of random numbers of ids each, short and long, beside each other, under adapters or none."""
    model, config = models[shape], checkpoints[shape].config
    ids = torch.randint(0, config.vocab_size, (3, 100), generator=torch.Generator().manual_seed(1))
    names = list(adapters[shape])
    opened = [open_adapter(adapters[shape][name], checkpoints[shape]) for name in names] if any(under) else []
    runner, cache = runner_of(model, opened), KVCache(config, 24, torch.float64, CPU)
    forward = BACKENDS[backend](runner, cache)
    batch = Batch(config, 4, cache, seeds=[bytes.fromhex(adapter.digest) for adapter in opened])
    rows = [Row(None, adapter=adapter) for adapter in under]  # type: ignore[arg-type]
    with torch.inference_mode():
        of_each = [references[shape, ["", *names][adapter]] for adapter in under]
        expected = torch.cat([one(ids[i : i + 1]) for i, one in enumerate(of_each)])
        for row, line in zip(rows, ids.numpy(), strict=True):
            batch.add(row, line)
        for piece in [*pieces, (100, 100, 100)]:
            left = batch.length - batch.read
            counts = [min(n, int(left[row.index])) for row, n in zip(rows, piece, strict=True)]
            reading = [(row, n) for row, n in zip(rows, counts, strict=True) if n]
            if not reading:
                continue
            for row, n in reading:
                batch.length[row.index] = batch.read[row.index] + n  # as if no more were known
                assert batch.grow(row, int(batch.length[row.index]))
            places = np.array([row.index for row, _ in reading])
            step = batch.step(places, np.array([n for _, n in reading]))
            got = forward(step) @ runner.head.T
            for place, logits in zip(step.ends.tolist(), got, strict=True):
                row = next(i for i, r in enumerate(rows) if r.index == place)
                torch.testing.assert_close(logits, expected[row, batch.read[place] - 1], rtol=1e-9, atol=1e-9)
            batch.length[[row.index for row in rows]] = 100


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(6, 6, 32), (8, 2, 64), (2, 1, 12)])
def test_compiled_attention_equals_torchs(dtype: torch.dtype, heads: int, kv_heads: int, dim: int) -> None:
    config = ModelConfig(
        vocab_size=300,
        hidden_size=heads * dim,
        num_hidden_layers=1,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=8,
        max_position_embeddings=160,
    )
    random = torch.Generator().manual_seed(3)
    caches = [KVCache(config, 40, dtype, CPU) for _ in range(2)]
    batches = [Batch(config, 4, cache) for cache in caches]
    lengths = [1, 37, 150]
    for batch in batches:
        for length in lengths:
            row = Row(None)  # type: ignore[arg-type]
            batch.add(row, np.arange(length))
            assert batch.grow(row, length)
    # What somebody else left in the cache must not matter, even where it is not a number.
    caches[0].keys.fill_(torch.nan)
    caches[0].values.fill_(torch.nan)
    n = sum(lengths)
    q = torch.randn(n, heads, dim, generator=random).to(dtype)
    k, v = (torch.randn(n, kv_heads, dim, generator=random).to(dtype) for _ in range(2))
    mixed = []
    for batch, attention in zip(
        batches, (CpuAttention(caches[0], 2), TorchAttention(caches[1])), strict=True
    ):
        step = batch.step(np.arange(3), np.array(lengths))
        mixed.append(attention(0, q, k, v, step).float())
    tolerance = 2e-2 if dtype is torch.bfloat16 else 1e-5
    torch.testing.assert_close(mixed[0], mixed[1], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", ["mha", "gqa_swin"])
@pytest.mark.parametrize(("threads", "under"), [(1, (0, 0, 0)), (2, (0, 0, 0)), (2, (1, 0, 2))])
def test_compiled_layers_equal_the_same_layers_in_torch(
    shape: str,
    dtype: torch.dtype,
    threads: int,
    under: tuple[int, ...],
    checkpoints: dict[str, Checkpoint],
    adapters: dict[str, dict[str, Path]],
) -> None:
    """Prompts of unlike lengths beside each other, under adapters or none, then a step of one id for each row."""
    config = checkpoints[shape].config
    torch.manual_seed(5)
    state = {name: torch.randn(size).mul_(0.1).to(dtype) for name, size in config.shapes().items()}
    caches = [KVCache(config, 40, dtype, CPU) for _ in range(2)]
    folders = adapters[shape].values() if any(under) else ()
    opened = [open_adapter(folder, checkpoints[shape]) for folder in folders]
    runner, other = (Runner(config, dict(state), adapters=opened) for _ in range(2))
    forwards = [Fused(runner, caches[0], threads, least=0), _with(TorchAttention)(other, caches[1])]
    caches[0].keys.fill_(torch.nan)
    caches[0].values.fill_(torch.nan)
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 0.15}[dtype]
    for forward, cache in zip(forwards, caches, strict=True):
        batch = Batch(config, 4, cache, seeds=[b"wide", b"narrow"])
        for index, length in enumerate((1, 37, 90)):
            row = Row(None, adapter=under[index])  # type: ignore[arg-type]
            batch.add(row, np.arange(length) % 7 + index)
            assert batch.grow(row, length + 1)
        with torch.inference_mode():
            hidden = [forward(batch.step(np.arange(3), batch.length[:3].copy())).float()]
            batch.length[:3] += 1
            hidden.append(forward(batch.step(np.arange(3), np.ones(3, np.int64))).float())
        if forward is forwards[0]:
            got = hidden
    for mine, torchs in zip(got, hidden, strict=True):
        torch.testing.assert_close(mine, torchs, rtol=tolerance, atol=tolerance)


def test_no_position_sees_what_follows_it(checkpoint: Checkpoint, models: dict[str, Chameleon]) -> None:
    ids = torch.randint(0, checkpoint.config.vocab_size, (1, 20), generator=torch.Generator().manual_seed(2))
    other = ids.clone()
    other[0, 12:] = 5
    with torch.inference_mode():
        torch.testing.assert_close(models["mha"](ids)[0, :12], models["mha"](other)[0, :12])


@pytest.mark.parametrize("shape", ["mha", "gqa_swin"])
def test_every_parameter_learns_and_has_the_name_that_checkpoints_use(
    shape: str, checkpoints: dict[str, Checkpoint]
) -> None:
    config = checkpoints[shape].config
    model = Chameleon(config)
    assert {n: tuple(p.shape) for n, p in model.named_parameters()} == config.shapes()
    ids = torch.randint(0, config.vocab_size, (2, 16))
    loss = torch.nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters())


def test_fusing_takes_the_weights_out_of_the_given_state(models: dict[str, Chameleon]) -> None:
    state = dict(models["mha"].state_dict())
    Runner(models["mha"].config, state)
    assert not state
