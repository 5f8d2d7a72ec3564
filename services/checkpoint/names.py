"""Tensor names, and the order of rotary pairs, in Meta's layout and in Hugging Face's.

Meta rotates neighbouring pairs (2i, 2i+1) of a head; Hugging Face, and we, rotate (i, i + half).
"""

from __future__ import annotations

from torch import Tensor

_TOP = {
    "model.embed_tokens.weight": "tok_embeddings.weight",
    "model.norm.weight": "norm.weight",
    "lm_head.weight": "output.weight",
}
_LAYER = {
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "self_attn.q_norm": "attention.q_normalization",
    "self_attn.k_norm": "attention.k_normalization",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}
_ROTATED = ("self_attn.q_proj", "self_attn.k_proj")
_HEAD_NORMS = ("self_attn.q_norm", "self_attn.k_norm")


def meta_name(name: str) -> str:
    """Meta's name of the tensor that Hugging Face calls `name`."""
    if name in _TOP:
        return _TOP[name]
    _, _, index, rest = name.split(".", 3)
    module, kind = rest.rsplit(".", 1)
    return f"layers.{index}.{_LAYER[module]}.{kind}"


def is_rotated(name: str) -> bool:
    """Whether rows of this weight matrix have another order in Meta's layout."""
    return name.rsplit(".", 1)[0].endswith(_ROTATED)


def is_head_norm(name: str) -> bool:
    """Whether this is a q or k norm: one row per head here, one row for all heads of a shard in Meta's layout."""
    return name.rsplit(".", 1)[0].endswith(_HEAD_NORMS)


def from_pairs(x: Tensor, head_dim: int) -> Tensor:
    """Whole heads along the first axis, [heads·head_dim, …]: neighbouring pairs → rotate-half."""
    return x.view(-1, head_dim // 2, 2, *x.shape[1:]).transpose(1, 2).reshape(x.shape)


def to_pairs(x: Tensor, head_dim: int) -> Tensor:
    """The inverse of `from_pairs`."""
    return x.reshape(-1, 2, head_dim // 2, *x.shape[1:]).transpose(1, 2).reshape(x.shape)
