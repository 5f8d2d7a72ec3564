"""The transformer as it serves: a key-value cache, and projections that read the same input fused into one.

The same function as `model.Chameleon`, whose docstrings and names hold here too; tests compare the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from services.checkpoint.config import ModelConfig
from services.llm.kv_cache import KVCache
from services.llm.model import Chameleon, Layer, Rotary, rotate


@dataclass(frozen=True)
class _Weights:
    """One layer's: q, k and v in one matrix, gate and up in another, q and k norms side by side."""

    qkv: Tensor
    out: Tensor
    gate_up: Tensor
    down: Tensor
    head_norm: Tensor
    head_bias: Tensor
    input_norm: Tensor
    post_norm: Tensor

    @classmethod
    def of(cls, layer: Layer) -> _Weights:
        attention, mlp = layer.self_attn, layer.mlp
        return cls(
            torch.cat((attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight)),
            attention.o_proj.weight,
            torch.cat((mlp.gate_proj.weight, mlp.up_proj.weight)),
            mlp.down_proj.weight,
            torch.cat((attention.q_norm.weight, attention.k_norm.weight)),
            torch.cat((attention.q_norm.bias, attention.k_norm.bias)),
            layer.input_layernorm.weight,
            layer.post_attention_layernorm.weight,
        )


class Runner:
    """Reads prompts and single ids into a cache; use under `torch.inference_mode`."""

    def __init__(self, model: Chameleon) -> None:
        """Takes the weights out of `model`, layer by layer, and leaves it unusable."""
        self.config: ModelConfig = model.config
        self.embedding: Tensor = model.model.embed_tokens.weight
        self.head: Tensor = model.head
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self._norm: Tensor = model.model.norm.weight
        self._rotary = Rotary(model.config)
        self._heads, self._kv_heads = model.config.num_attention_heads, model.config.num_key_value_heads
        self._layers: list[_Weights] = []
        for layer in model.layers:
            self._layers.append(_Weights.of(layer))
            # Free what was copied, so that loading never holds the model twice.
            layer.to_empty(device="meta")

    @property
    def device(self) -> torch.device:
        return self.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.dtype

    def prefill(self, ids: Tensor, lengths: Tensor, cache: KVCache, first_row: int) -> Tensor:
        """Read prompts into the cache's rows `first_row`…, from position 0.

        Args:
            ids: int64 [B, T], padded on the right with any valid id.
            lengths: int64 [B], ids of each prompt without padding.

        Returns:
            Normed hidden state at each prompt's last id, [B, hidden_size].
        """
        rows, length = ids.shape
        x = functional.embedding(ids, self.embedding)
        cos, sin = self._rotary.at(slice(0, length), x)
        for index, layer in enumerate(self._layers):
            q, k, v = self._project(layer, x, cos, sin)
            cache.write_prompts(index, first_row, k, v)
            mixed = functional.scaled_dot_product_attention(
                q.transpose(1, 2),
                k.transpose(1, 2),
                v.transpose(1, 2),
                is_causal=True,
                enable_gqa=self._heads != self._kv_heads,
            )
            x = self._after(layer, x, mixed.transpose(1, 2).flatten(2))
        return self._rms(x[torch.arange(rows, device=ids.device), lengths - 1], self._norm)

    def step(self, ids: Tensor, positions: Tensor, cache: KVCache, extent: int) -> Tensor:
        """Read one id more into each of the first `len(ids)` rows of the cache.

        Args:
            ids: int64 [rows].
            positions: int64 [rows], the position of each id in its row.
            extent: largest position plus one.

        Returns:
            Normed hidden states, [rows, hidden_size].
        """
        rows = len(ids)
        x = functional.embedding(ids, self.embedding)
        cos, sin = self._rotary.at(positions, x)
        beyond = torch.arange(extent, device=ids.device) > positions.unsqueeze(1)
        mask = torch.zeros(rows, extent, dtype=x.dtype, device=ids.device).masked_fill_(beyond, -torch.inf)
        mask = mask.view(rows, 1, 1, extent)
        # The query heads of one key head stand in as its "positions": no copies of keys for grouped queries.
        grouped = (rows, self._kv_heads, self._heads // self._kv_heads, self.config.head_dim)
        for index, layer in enumerate(self._layers):
            q, k, v = self._project(layer, x, cos, sin)
            keys, values = cache.append(index, positions, k, v, extent)
            mixed = functional.scaled_dot_product_attention(q.view(grouped), keys, values, attn_mask=mask)
            x = self._after(layer, x, mixed.view(rows, -1))
        return self._rms(x, self._norm)

    def _project(self, layer: _Weights, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [..., hidden] → q [..., heads, head_dim], k and v [..., kv_heads, head_dim], q and k rotated."""
        normed = x if self.config.swin_norm else self._rms(x, layer.input_norm)
        heads = functional.linear(normed, layer.qkv).view(*x.shape[:-1], -1, self.config.head_dim)
        qk, v = torch.split(heads, [self._heads + self._kv_heads, self._kv_heads], -2)
        qk = functional.layer_norm(qk, qk.shape[-1:], eps=1e-5)
        qk = rotate(torch.addcmul(layer.head_bias, qk, layer.head_norm), cos, sin)
        q, k = torch.split(qk, [self._heads, self._kv_heads], -2)
        return q, k, v

    def _after(self, layer: _Weights, x: Tensor, mixed: Tensor) -> Tensor:
        """The residual stream with attention's output and the feed-forward block's added."""
        attended = functional.linear(mixed, layer.out)
        if self.config.swin_norm:
            x = x + self._rms(attended, layer.input_norm)
            return x + self._rms(self._feed_forward(layer, x), layer.post_norm)
        x = x + attended
        return x + self._feed_forward(layer, self._rms(x, layer.post_norm))

    def _feed_forward(self, layer: _Weights, x: Tensor) -> Tensor:
        gate, up = functional.linear(x, layer.gate_up).chunk(2, -1)
        return functional.linear(functional.silu(gate) * up, layer.down)

    def _rms(self, x: Tensor, weight: Tensor) -> Tensor:
        wide = x.float() if x.dtype.itemsize < 4 else x
        scale = torch.rsqrt((wide * wide).mean(-1, keepdim=True) + self.config.rms_norm_eps)
        return (wide * scale).to(x.dtype) * weight
