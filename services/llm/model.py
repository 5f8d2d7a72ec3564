"""The transformer of Chameleon: one decoder over text tokens and image codes.

Parameter names, shapes and the order of rotary pairs (rotate-half) are Hugging Face's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from services.checkpoint.config import ModelConfig


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float() if x.dtype.itemsize < 4 else x
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * scale).to(x.dtype) * self.weight


class HeadNorm(nn.Module):
    """LayerNorm over each head's dimension, with a weight and a bias of its own for every head."""

    def __init__(self, heads: int, head_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(heads, head_dim))
        self.bias = nn.Parameter(torch.zeros(heads, head_dim))

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., heads, head_dim]."""
        return torch.addcmul(self.bias, functional.layer_norm(x, x.shape[-1:], eps=1e-5), self.weight)


class Rotary:
    """Cosines and sines of the rotary embedding, [context, 1, head_dim], float32."""

    def __init__(self, config: ModelConfig) -> None:
        # On the CPU even where the module is being built on the meta device: these are no weights.
        half = torch.arange(0, config.head_dim, 2, dtype=torch.float64, device="cpu") / config.head_dim
        positions = torch.arange(config.context, dtype=torch.float64, device="cpu")
        angles = torch.outer(positions, config.rope_theta**-half)
        angles = torch.cat((angles, angles), -1).unsqueeze(1)
        self.cos, self.sin = angles.cos().float(), angles.sin().float()
        # rotate-half's sign goes into the sine, which leaves one roll of the halves per call.
        self.sin[..., : config.head_dim // 2] *= -1

    def at(self, positions: Tensor | slice, like: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines at `positions`, on the device and in the dtype of `like`."""
        if self.cos.device != like.device:
            self.cos, self.sin = self.cos.to(like.device), self.sin.to(like.device)
        return self.cos[positions].to(like.dtype), self.sin[positions].to(like.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x: [..., heads, head_dim] turned by the angles of its position."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = config.head_dim
        hidden = config.hidden_size
        self.q_proj = nn.Linear(hidden, self.heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(hidden, self.kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(hidden, self.kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head_dim, hidden, bias=False)
        self.q_norm = HeadNorm(self.heads, self.head_dim)
        self.k_norm = HeadNorm(self.kv_heads, self.head_dim)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [..., hidden] → q [..., heads, head_dim], k and v [..., kv_heads, head_dim], q and k rotated."""
        q = self.q_norm(self.q_proj(x).view(*x.shape[:-1], self.heads, self.head_dim))
        k = self.k_norm(self.k_proj(x).view(*x.shape[:-1], self.kv_heads, self.head_dim))
        v = self.v_proj(x).view(*x.shape[:-1], self.kv_heads, self.head_dim)
        return rotate(q, cos, sin), rotate(k, cos, sin), v

    def causal(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attention of [B, T, heads, head_dim] → [B, T, hidden].

        Every position attends to itself and what precedes it, or where `mask`, bool [B, 1, T, T], says so.
        """
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        grouped = self.heads != self.kv_heads
        if torch.is_grad_enabled() and torch.is_autocast_enabled("cpu") and not grouped:
            mixed = _plain_attention(q.to(v.dtype), k.to(v.dtype), v, mask)
        else:
            mixed = functional.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped
            )
        out: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(-2))
        return out


def _plain_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of [B, heads, T, head_dim] as two products: in bfloat16 on a CPU torch's fused kernel takes two to three
    times as long, its backward pass above all (docs/log.md)."""
    batch, heads, length, width = q.shape
    if mask is None:
        mask = torch.ones(length, length, dtype=torch.bool, device=q.device).tril().expand(batch, 1, -1, -1)
    bias = torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill_(~mask, -1e9)
    flat = (batch * heads, length, width)
    bias = bias.expand(batch, heads, length, length).reshape(batch * heads, length, length)
    scores = torch.baddbmm(bias, q.reshape(flat), k.reshape(flat).transpose(1, 2), alpha=width**-0.5)
    return torch.bmm(torch.softmax(scores, -1), v.reshape(flat)).view(batch, heads, length, width)


class MLP(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.swin_norm = config.swin_norm

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None = None) -> Tensor:
        """The residual stream [B, T, hidden] after this layer; `mask` as `Attention.causal`."""
        q, k, v = self.self_attn.project(self.before(x), cos, sin)
        return self.after(x, self.self_attn.causal(q, k, v, mask))

    def before(self, x: Tensor) -> Tensor:
        """What attention reads of the residual stream."""
        normed: Tensor = x if self.swin_norm else self.input_layernorm(x)
        return normed

    def after(self, x: Tensor, attended: Tensor) -> Tensor:
        """The residual stream with attention's output and the feed-forward block's added."""
        if self.swin_norm:
            x = x + self.input_layernorm(attended)
            fed: Tensor = self.post_attention_layernorm(self.mlp(x))
        else:
            x = x + attended
            fed = self.mlp(self.post_attention_layernorm(x))
        return x + fed


class Decoder(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # Given weights are not initialised: `_initialise` does that.
        weight = torch.empty(config.vocab_size, config.hidden_size)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, _weight=weight)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Chameleon(nn.Module):
    """Ids in, logits out. This is the form that trains; `runner.Runner` is the one that serves.

    Attributes:
        recompute: whether the backward pass computes each layer again, so that only what lies between layers is kept.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = None
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.recompute = False
        self._rotary = Rotary(config)
        self.apply(_initialise)

    @property
    def head(self) -> Tensor:
        """Output embedding, [vocab_size, hidden_size]."""
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    @property
    def layers(self) -> list[Layer]:
        return [layer for layer in self.model.layers if isinstance(layer, Layer)]

    def hidden(self, ids: Tensor, positions: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Normed hidden states, [B, T, hidden_size], with gradients.

        Args:
            ids: as `forward`.
            positions: int64 [B, T], place of each id in its own sequence, where that is not its place in the row.
            mask: bool [B, 1, T, T], which ids each one sees, where that is not all before it.
        """
        x = self.model.embed_tokens(ids)
        cos, sin = self._rotary.at(slice(0, ids.shape[1]) if positions is None else positions, x)
        for layer in self.layers:
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(layer, x, cos, sin, mask, use_reentrant=False)
            else:
                x = layer(x, cos, sin, mask)
        out: Tensor = self.model.norm(x)
        return out

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of every next token, for training.

        Args:
            ids: int64 [B, T], T at most the context. Rows of unequal length are padded on the right: no
                position sees what follows it.

        Returns:
            [B, T, vocab_size] in the weights' dtype, with gradients.
        """
        return functional.linear(self.hidden(ids), self.head)


def _initialise(module: nn.Module) -> None:
    # On the meta device, where a checkpoint's weights follow, this would import torch's compiler: 2 s.
    if isinstance(module, nn.Linear | nn.Embedding) and not module.weight.is_meta:
        nn.init.normal_(module.weight, std=0.02)
