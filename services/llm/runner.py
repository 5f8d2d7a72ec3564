"""The transformer as it serves: a paged cache, and projections that read the same input fused into one.

The same function as `model.Chameleon`, whose docstrings and names hold here too; tests compare the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from services.checkpoint.adapter import Adapter
from services.checkpoint.config import ModelConfig
from services.checkpoint.sharding import bounds
from services.llm.attention import Attention
from services.llm.group import Alone, Group
from services.llm.lora import Adapters, Added
from services.llm.model import Rotary, rotate
from services.llm.step import Step


@dataclass(frozen=True)
class Weights:
    """One layer's, or one rank's part of them: q, k and v in one matrix, gate and up in another, head norms side by side.

    Matrices are [in, out]: on a CPU a product of few rows is quicker that way round.
    """

    qkv: Tensor
    out: Tensor
    gate_up: Tensor
    down: Tensor
    head_norm: Tensor
    head_bias: Tensor
    input_norm: Tensor
    post_norm: Tensor

    @classmethod
    def of(cls, state: dict[str, Tensor], layer: int) -> Weights:
        """Takes the layer's tensors out of `state`, so that loading never holds the model twice."""

        def pop(*names: str) -> Tensor:
            parts = [state.pop(f"model.layers.{layer}.{name}") for name in names]
            return parts[0] if len(parts) == 1 else torch.cat(parts)

        def matrix(*names: str) -> Tensor:
            return pop(*names).t().contiguous()

        return cls(
            matrix(*(f"self_attn.{name}_proj.weight" for name in "qkv")),
            matrix("self_attn.o_proj.weight"),
            matrix("mlp.gate_proj.weight", "mlp.up_proj.weight"),
            matrix("mlp.down_proj.weight"),
            pop("self_attn.q_norm.weight", "self_attn.k_norm.weight"),
            pop("self_attn.q_norm.bias", "self_attn.k_norm.bias"),
            pop("input_layernorm.weight"),
            pop("post_attention_layernorm.weight"),
        )


class Runner:
    """Reads tokens into a paged cache; use under `torch.inference_mode`.

    In a tensor-parallel group every rank runs the same steps on its part of the heads, of the feed-forward's inner
    channels and of the vocabulary.
    """

    def __init__(
        self,
        config: ModelConfig,
        state: Mapping[str, Tensor],
        group: Group | None = None,
        adapters: Sequence[Adapter] = (),
    ) -> None:
        """state: the weights under Hugging Face's names, or this rank's part of them; if a dict, it is emptied."""
        self.config, self.group = config, group or Alone()
        left = state if isinstance(state, dict) else dict(state)
        self.embedding: Tensor = left.pop("model.embed_tokens.weight")
        self.head: Tensor = left.pop("lm_head.weight", self.embedding)
        self.norm: Tensor = left.pop("model.norm.weight")
        size = self.group.size
        self.heads, self.kv_heads = (
            config.num_attention_heads // size,
            max(1, config.num_key_value_heads // size),
        )
        self._layers = [Weights.of(left, index) for index in range(config.num_hidden_layers)]
        self.parameters = sum(
            w.qkv.numel() + w.out.numel() + w.gate_up.numel() + w.down.numel() for w in self._layers
        )
        """Weights of the matrices that every token passes through on this rank."""
        self.rotary = Rotary(config)
        _, self.first_id, self._end_id = bounds(config, "model.embed_tokens.weight", self.group.rank, size)
        self.adapters = Adapters(adapters, config, self.group, self.dtype, self.device)

    @property
    def device(self) -> torch.device:
        return self.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.dtype

    def forward(self, step: Step, attention: Attention) -> Tensor:
        """Read the step's tokens.

        Returns:
            Normed hidden states of the tokens `step.last`, [R, hidden_size]; the same on every rank.
        """
        if not self._layers:
            raise RuntimeError("this runner's layers were taken")
        x = self.embed(step.ids)
        cos, sin = self.rotary.at(step.positions, x)
        for index, layer in enumerate(self._layers):
            added = self.adapters.at(index, step.shares)
            q, k, v = self._project(layer, x, cos, sin, added)
            x = self._after(layer, x, attention(index, q, k, v, step), added)
        return self.normed(x[step.last])

    def normed(self, x: Tensor) -> Tensor:
        """The last norm."""
        return self._rms(x, self.norm)

    def take_layers(self) -> list[Weights]:
        """The layers' weights, for whoever computes them in another way; `forward` refuses from then on."""
        layers, self._layers = self._layers, []
        return layers

    def embed(self, ids: Tensor) -> Tensor:
        """The tokens' embeddings, [N, hidden_size]."""
        if self.group.size == 1:
            return functional.embedding(ids, self.embedding)
        mine = (ids >= self.first_id) & (ids < self._end_id)
        x = functional.embedding((ids - self.first_id).clamp(0, len(self.embedding) - 1), self.embedding)
        return self.group.sum(x.masked_fill_(~mine.unsqueeze(1), 0))

    def _project(
        self, layer: Weights, x: Tensor, cos: Tensor, sin: Tensor, added: Added
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x [N, hidden] → q [N, heads, head_dim], k and v [N, kv_heads, head_dim], q and k rotated."""
        normed = x if self.config.swin_norm else self._rms(x, layer.input_norm)
        heads = added("qkv", normed, normed @ layer.qkv).view(len(x), -1, self.config.head_dim)
        qk, v = torch.split(heads, [self.heads + self.kv_heads, self.kv_heads], 1)
        qk = functional.layer_norm(qk, qk.shape[-1:], eps=1e-5)
        qk = rotate(torch.addcmul(layer.head_bias, qk, layer.head_norm), cos, sin)
        q, k = torch.split(qk, [self.heads, self.kv_heads], 1)
        return q, k, v

    def _after(self, layer: Weights, x: Tensor, mixed: Tensor, added: Added) -> Tensor:
        """The residual stream with attention's output and the feed-forward block's added."""
        attended = self.group.sum(added("out", mixed, mixed @ layer.out))
        if self.config.swin_norm:
            x = x + self._rms(attended, layer.input_norm)
            return x + self._rms(self._feed_forward(layer, x, added), layer.post_norm)
        x = x + attended
        return x + self._feed_forward(layer, self._rms(x, layer.post_norm), added)

    def _feed_forward(self, layer: Weights, x: Tensor, added: Added) -> Tensor:
        gate, up = added("gate_up", x, x @ layer.gate_up).chunk(2, -1)
        gated = functional.silu(gate) * up
        return self.group.sum(added("down", gated, gated @ layer.down))

    def _rms(self, x: Tensor, weight: Tensor) -> Tensor:
        wide = x.float() if x.dtype.itemsize < 4 else x
        scale = torch.rsqrt((wide * wide).mean(-1, keepdim=True) + self.config.rms_norm_eps)
        return (wide * scale).to(x.dtype) * weight
