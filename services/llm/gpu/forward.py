"""`Runner.forward` on a GPU: products by torch, the rest by our kernels, steps of single tokens as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from services.llm.attention import chunk_attention
from services.llm.gpu import kernels
from services.llm.kv_cache import BLOCK, KVCache, blocks_for
from services.llm.lora import Added
from services.llm.runner import Runner, Weights
from services.llm.step import Chunk, Share, Step

# Positions that one program attends to. Fewer keep more of the card busy for a single long row, more cost less to merge.
_PART = 256
_TILE = 32
_SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)


@dataclass(frozen=True)
class Tokens:
    """What a run of the layers reads; tensors that a graph keeps in their places.

    Attributes:
        ids, rows, positions: int64 [N], as `Step`'s.
        tables: int32 [rows, blocks of a row].
        count: int32 [1], how many of the N there are; the rest is padding, which is computed and never stored.
    """

    ids: Tensor
    rows: Tensor
    positions: Tensor
    tables: Tensor
    count: Tensor


Replay = Callable[[], None]
Record = Callable[[Callable[[], Tensor]], tuple[Replay, Tensor]]
"""Runs a function whose tensors stay in place; returns what runs it again, and where its result then lies."""


class GpuForward:
    """Reads a step's tokens, as `fused.Forward`. Use from one thread, under `torch.inference_mode`.

    Steps in which no row reads a long piece are padded to one of a few sizes and replayed as a CUDA graph, which is
    recorded when the object is made; others, those with adapters and those of a tensor-parallel group run kernel by kernel.
    """

    def __init__(self, runner: Runner, cache: KVCache, most: int, record: Record | None = None) -> None:
        """
        Args:
            most: rows of the batch, and tokens of a step that are replayed.
            record: how graphs are made; CUDA's own by default, none on other devices.
        """
        if not fits(runner):
            raise ValueError("head_dim must be a power of two")
        self._runner, self._cache, self._layers = runner, cache, runner.take_layers()
        config, device = runner.config, runner.device
        self._wide = tl.float64 if runner.dtype is torch.float64 else tl.float32
        self._heads, self._kv_heads = runner.heads, runner.kv_heads
        self._parts = triton.cdiv(config.context, _PART)
        self._cos, self._sin = (t.to(device) for t in (runner.rotary.cos, runner.rotary.sin))
        self._scale = config.head_dim**-0.5
        self._graphs: dict[int, tuple[Tokens, Replay, Tensor]] = {}
        if record is None and device.type == "cuda":
            record = _Graphs()
        if record is not None and runner.group.size == 1:
            tables = torch.zeros(most, blocks_for(config.context), dtype=torch.int32, device=device)
            # The largest first: the smaller then find room in what it took.
            for size in sorted({*(s for s in _SIZES if s < most), most}, reverse=True):
                ids, rows, positions = torch.zeros(3, size, dtype=torch.int64, device=device)
                tokens = Tokens(
                    ids, rows, positions, tables, torch.zeros(1, dtype=torch.int32, device=device)
                )
                self._graphs[size] = (tokens, *self._recorded(record, tokens))

    def __call__(self, step: Step) -> Tensor:
        """Normed hidden states of the tokens `step.last`, [R, hidden_size]."""
        count = len(step.ids)
        size = None
        if not step.chunks and not step.shares:
            size = min((size for size in self._graphs if size >= count), default=None)
        if size is None:
            full = torch.full((1,), count, dtype=torch.int32, device=step.ids.device)
            tokens = Tokens(step.ids, step.rows, step.positions, step.tables, full)
            return self._read(tokens, step.chunks, step.shares)[step.last]
        tokens, replay, out = self._graphs[size]
        tokens.ids[:count].copy_(step.ids)
        tokens.rows[:count].copy_(step.rows)
        tokens.positions[:count].copy_(step.positions)
        tokens.tables[: len(step.tables)].copy_(step.tables)
        tokens.count.fill_(count)
        replay()
        return out[step.last]

    def _recorded(self, record: Record, tokens: Tokens) -> tuple[Replay, Tensor]:
        with torch.inference_mode():
            return record(lambda: self._read(tokens))

    def _read(self, tokens: Tokens, chunks: tuple[Chunk, ...] = (), shares: Sequence[Share] = ()) -> Tensor:
        """Normed hidden states, [N, hidden_size]."""
        runner, config = self._runner, self._runner.config
        x = runner.embed(tokens.ids)
        normed = x if config.swin_norm else self._norm(x, self._layers[0].input_norm)
        for index, layer in enumerate(self._layers):
            added = runner.adapters.at(index, shares)
            mixed = self._attend(index, added("qkv", normed, normed @ layer.qkv), tokens, chunks)
            attended = runner.group.sum(added("out", mixed, mixed @ layer.out))
            if config.swin_norm:
                self._norm_add(x, attended, layer.input_norm)
                self._norm_add(x, self._feed_forward(layer, x, added), layer.post_norm)
                normed = x
                continue
            normed = self._norm(x, layer.post_norm, attended)
            after = self._layers[index + 1].input_norm if index + 1 < len(self._layers) else runner.norm
            normed = self._norm(x, after, self._feed_forward(layer, normed, added))
        return self._norm(x, runner.norm) if config.swin_norm else normed

    def _attend(self, index: int, projected: Tensor, tokens: Tokens, chunks: tuple[Chunk, ...]) -> Tensor:
        """Attention's output before its projection, [N, heads · head_dim]; `projected` holds q, k and v."""
        layer, n = self._layers[index], len(projected)
        dim, heads, kv_heads = self._runner.config.head_dim, self._heads, self._kv_heads
        q = projected.new_zeros(n, heads, dim)
        keys, values = self._cache.keys[index], self._cache.values[index]
        where = (tokens.rows, tokens.positions, tokens.tables, tokens.count)
        width = tokens.tables.shape[1]
        kernels.place[(n, heads + 2 * kv_heads)](
            projected, layer.head_norm, layer.head_bias, self._cos, self._sin, q, keys, values, *where,
            heads, kv_heads, width, WIDE=self._wide, HALF=dim // 2, PAGE=BLOCK,
        )  # fmt: skip
        mixed = torch.zeros_like(q)
        singles = chunks[0].start if chunks else n
        if singles:
            wide = torch.float64 if q.dtype is torch.float64 else torch.float32
            most, total = q.new_empty(2, singles, heads, self._parts, dtype=wide)
            parts = q.new_empty(singles, heads, self._parts, dim, dtype=wide)
            kernels.attend[(singles, heads, self._parts)](
                q, keys, values, *where, most, total, parts, heads, kv_heads, width, self._parts, self._scale,
                WIDE=self._wide, DIM=dim, PAGE=BLOCK, PART=_PART, TILE=_TILE,
            )  # fmt: skip
            kernels.merge[(singles, heads)](
                most, total, parts, tokens.positions, tokens.count, mixed, heads, self._parts,
                DIM=dim, PART=_PART, PARTS=triton.next_power_of_2(self._parts),
            )  # fmt: skip
        for chunk in chunks:
            piece = slice(chunk.start, chunk.start + chunk.count)
            mixed[piece] = chunk_attention(keys, values, q[piece], chunk, tokens.tables)
        return mixed.flatten(1)

    def _feed_forward(self, layer: Weights, x: Tensor, added: Added) -> Tensor:
        gate_up = added("gate_up", x, x @ layer.gate_up)
        width, block = gate_up.shape[1] // 2, 1024
        out = gate_up.new_empty(len(x), width)
        kernels.gate[(len(x), triton.cdiv(width, block))](gate_up, out, width, WIDE=self._wide, BLOCK=block)
        return self._runner.group.sum(added("down", out, out @ layer.down))

    def _norm(self, x: Tensor, weight: Tensor, added: Tensor | None = None) -> Tensor:
        """RMSNorm of x, to which `added` is added first, in place."""
        n, width = x.shape
        out = torch.empty_like(x)
        kernels.add_norm[(n,)](
            x, x if added is None else added, weight, out, width, self._runner.config.rms_norm_eps,
            ADD=added is not None, WIDE=self._wide, BLOCK=triton.next_power_of_2(width),
        )  # fmt: skip
        return out

    def _norm_add(self, x: Tensor, y: Tensor, weight: Tensor) -> None:
        n, width = x.shape
        kernels.norm_add[(n,)](
            x, y, weight, width, self._runner.config.rms_norm_eps,
            WIDE=self._wide, BLOCK=triton.next_power_of_2(width),
        )  # fmt: skip


class _Graphs:
    """Records CUDA graphs that share their memory."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Callable[[], Tensor]) -> tuple[Replay, Tensor]:
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            run()  # kernels are compiled and libraries set up outside of the recording
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Other threads of the process may use the card meanwhile: the VQ-GAN's, for one.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            out = run()
        return graph.replay, out


def fits(runner: Runner) -> bool:
    """Whether the kernels can run the model."""
    dim = runner.config.head_dim
    return dim >= 2 and dim & (dim - 1) == 0
