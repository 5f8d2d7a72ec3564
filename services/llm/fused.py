"""The model on a CPU as compiled code: threads that each read their rows through all layers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from services.checkpoint.config import ModelConfig
from services.llm.attention import attention_for, raw
from services.llm.kv_cache import KVCache
from services.llm.lora import PRODUCTS, Adapters
from services.llm.runner import Runner, Weights
from services.llm.step import Step

Forward = Callable[[Step], Tensor]
"""Reads a step's tokens: normed hidden states of `step.last`, [R, hidden_size]."""

# Loading holds the weights twice for a moment, and each thread fetches them all by itself.
_MOST_BYTES = 512 << 20
_WORTH_SHARING = 4_000_000  # multiplications of one step
_UNEVEN = 0.7  # share of a step's tokens in one thread from which on every layer is shared


class Fused:
    """`Runner.forward` for one process on a CPU. Use from one thread."""

    def __init__(self, runner: Runner, cache: KVCache, threads: int, least: int = _WORTH_SHARING) -> None:
        """Takes the layers' weights out of `runner`.

        Args:
            least: multiplications of a step from which on threads share it.
        """
        from services.llm import cpu

        self._read_layers: Callable[..., None] = cpu.read
        self._cpu, self._runner, self._threads, self._least = cpu, runner, threads, least
        config, layers = runner.config, runner.take_layers()
        self._heads = (config.num_attention_heads, config.head_dim)

        def stacked(name: str, *, norm: bool = False) -> NDArray[np.generic]:
            parts = [
                raw(_at_least_float32(getattr(layer, name)) if norm else getattr(layer, name))
                for layer in layers
            ]
            return np.stack(parts if norm else [cpu.panels(part) for part in parts])

        half = config.head_dim // 2
        wide = _at_least_float32(runner.embedding[:0]).dtype
        cos, sin = runner.rotary.cos[:, 0, :half], -runner.rotary.sin[:, 0, :half]
        self._weights = (
            *(stacked(name) for name in ("qkv", "out", "gate_up", "down")),
            *(stacked(name, norm=True) for name in ("head_norm", "head_bias", "input_norm", "post_norm")),
            *(part.to(wide).contiguous().numpy() for part in (cos, sin)),
            config.rms_norm_eps,
            config.swin_norm,
        )
        self._cache = raw(cache.keys), raw(cache.values)
        self._adapters = _stacked_adapters(runner.adapters, layers[0], cpu.panels) if runner.adapters else ()
        self._pool = ThreadPoolExecutor(threads - 1, "layers") if threads > 1 else None

    def __call__(self, step: Step) -> Tensor:
        runner = self._runner
        x = _at_least_float32(functional.embedding(step.ids, runner.embedding))
        q = torch.empty(len(x), *self._heads, dtype=x.dtype)
        self._read(step, x.numpy(), q.numpy(), (step.owners, *self._adapters) if step.shares else None)
        return runner.normed(x[step.last].to(runner.dtype))

    def _read(self, step: Step, x: NDArray[np.generic], q: NDArray[np.generic], adapters: Any) -> None:
        count, layers, c = len(x), self._runner.config.num_hidden_layers, self._cpu
        shared = (self._weights, self._cache, step.host, x, q, adapters)
        if self._pool is None or count * self._runner.parameters < self._least:
            self._read_layers(*shared, 0, count, 0, layers, c.WHOLE)
            return
        bounds = _even(step.host[1], self._threads)
        if max(b - a for a, b in pairwise(bounds)) <= _UNEVEN * count:
            self._share(shared, bounds, 0, layers, c.WHOLE)
            return
        # Some row has most of the tokens: its keys must be there before any of them attends.
        bounds = [count * share // self._threads for share in range(self._threads + 1)]
        for layer in range(layers):
            self._share(shared, bounds, layer, layer + 1, c.BEFORE)
            self._share(shared, bounds, layer, layer + 1, c.AFTER)

    def _share(self, shared: tuple[Any, ...], bounds: list[int], *which: int) -> None:
        """Tokens between the bounds, each part in one thread."""
        assert self._pool is not None
        parts = [(a, b) for a, b in pairwise(bounds) if a < b]
        others = [self._pool.submit(self._read_layers, *shared, a, b, *which) for a, b in parts[1:]]
        self._read_layers(*shared, *parts[0], *which)
        for part, other in zip(parts[:0:-1], others[::-1], strict=True):
            # A thread that has no processor yet is not waited for.
            if other.cancel():
                self._read_layers(*shared, *part, *which)
        for other in others:
            if not other.cancelled():
                other.result()


def _stacked_adapters(
    adapters: Adapters, like: Weights, panels: Callable[[NDArray[Any]], NDArray[Any]]
) -> tuple[NDArray[Any], ...]:
    """For qkv, out, gate_up and down in turn a and b of every layer and adapter, as the compiled layers read them.

    Filled up with zeros, so that all have one rank and those that change nothing add nothing.
    """
    found: list[NDArray[Any]] = []
    for product in PRODUCTS:
        each = [low for layer in adapters.layers for low in layer[product]]
        size, width = getattr(like, product).shape
        rank = max((low.a.shape[1] for low in each if low), default=1)
        downs, ups = [], []
        for low in each:
            a = like.qkv.new_zeros(size, rank)
            if low is not None:
                a[:, : low.a.shape[1]] = low.a
            downs.append(panels(raw(a)))
            b = like.qkv.new_zeros(downs[0].shape[0] * downs[0].shape[2], width)
            if low is not None:
                b[: len(low.b)] = low.b
            ups.append(panels(raw(b)))
        for parts in (downs, ups):
            found.append(np.stack(parts).reshape(len(adapters.layers), -1, *parts[0].shape))
    return tuple(found)


def _even(rows: NDArray[np.int64], shares: int) -> list[int]:
    """Bounds that part tokens as evenly as may be without parting a row."""
    starts = np.append(np.flatnonzero(np.diff(rows, prepend=-1)), len(rows))
    wanted = [len(rows) * share / shares for share in range(shares + 1)]
    return [int(starts[np.abs(starts - place).argmin()]) for place in wanted]


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype.itemsize >= 4 else tensor.float()


def forward_for(runner: Runner, cache: KVCache, threads: int, most: int) -> Forward:
    """The quickest for the model, its device and its group; `most` as `GpuForward` has it."""
    config: ModelConfig = runner.config
    if runner.device.type == "cuda" and importlib.util.find_spec("triton"):
        from services.llm.gpu.forward import GpuForward, fits

        if fits(runner):
            return GpuForward(runner, cache, most)
    compiled = (
        runner.device.type == "cpu"
        and runner.group.size == 1
        and runner.dtype is not torch.float16
        and runner.parameters * runner.dtype.itemsize <= _MOST_BYTES
        and config.head_dim % 2 == 0
    )
    if compiled:
        return Fused(runner, cache, threads)
    attention = attention_for(cache, threads)
    return lambda step: runner.forward(step, attention)
