"""What a checkpoint's `config.json` says about the language model, with every claim checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Self

from services.errors import CheckpointError


def _checked(cls: type, values: Mapping[str, Any], *, required: bool) -> dict[str, Any]:
    """The entries of `values` that are fields of dataclass `cls`, each of its field's type.

    Raises:
        CheckpointError: an entry is missing (where `required`) or of the wrong type; the message names it.
    """
    kinds: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,)}
    found: dict[str, Any] = {}
    for field in fields(cls):
        if field.name not in values:
            if required and field.default is MISSING:
                raise CheckpointError(f"config.json lacks {field.name}", field=field.name)
            continue
        value: Any = values[field.name]
        kind = str(field.type)
        right = isinstance(value, kinds[kind]) and (kind == "bool" or not isinstance(value, bool))
        if not right:
            raise CheckpointError(f"config.json: {field.name} must be of type {kind}", field=field.name)
        if kind == "float" and not math.isfinite(value):
            raise CheckpointError(f"config.json: {field.name} must be finite", field=field.name)
        found[field.name] = float(value) if kind == "float" else value
    return found


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the transformer, under Hugging Face's Chameleon names.

    `swin_norm` puts the norms on the blocks' outputs (Chameleon-30B) in place of their inputs (7B).
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    max_position_embeddings: int
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-5
    swin_norm: bool = False
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, bool) and value <= 0:
                raise CheckpointError(f"config.json: {field.name} must be positive", field=field.name)
        if self.hidden_size % self.num_attention_heads or self.head_dim % 2:
            raise CheckpointError(
                "config.json: hidden_size must be an even multiple of num_attention_heads",
                field="hidden_size",
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise CheckpointError(
                "config.json: num_attention_heads must be a multiple of num_key_value_heads",
                field="num_key_value_heads",
            )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Raises: CheckpointError naming the entry that is missing, mistyped or out of range."""
        return cls(**_checked(cls, values, required=True))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def context(self) -> int:
        """Positions in the context: prompt and answer together."""
        return self.max_position_embeddings

    @property
    def kv_elements_per_token(self) -> int:
        """Numbers that the key-value cache keeps for one position, over all layers."""
        return 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor that `model*.safetensors` must hold."""
        hidden, inner, dim = self.hidden_size, self.intermediate_size, self.head_dim
        heads, kv_heads = self.num_attention_heads, self.num_key_value_heads
        layer: dict[str, tuple[int, ...]] = {
            "self_attn.q_proj.weight": (heads * dim, hidden),
            "self_attn.k_proj.weight": (kv_heads * dim, hidden),
            "self_attn.v_proj.weight": (kv_heads * dim, hidden),
            "self_attn.o_proj.weight": (hidden, heads * dim),
            "self_attn.q_norm.weight": (heads, dim),
            "self_attn.q_norm.bias": (heads, dim),
            "self_attn.k_norm.weight": (kv_heads, dim),
            "self_attn.k_norm.bias": (kv_heads, dim),
            "mlp.gate_proj.weight": (inner, hidden),
            "mlp.up_proj.weight": (inner, hidden),
            "mlp.down_proj.weight": (hidden, inner),
            "input_layernorm.weight": (hidden,),
            "post_attention_layernorm.weight": (hidden,),
        }
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab_size, hidden)}
        for index in range(self.num_hidden_layers):
            shapes |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
        shapes["model.norm.weight"] = (hidden,)
        if not self.tie_word_embeddings:
            shapes["lm_head.weight"] = (self.vocab_size, hidden)
        return shapes


@dataclass(frozen=True)
class GenerationDefaults:
    """How the model samples where a request does not say; the reference's figures unless the checkpoint has its own."""

    temperature: float = 1.0
    top_p: float = 0.9
    top_k: int = 0
    repetition_penalty: float = 1.2
    image_temperature: float = 0.7
    image_top_p: float = 0.9
    guidance_text: float = 3.0
    guidance_image: float = 1.2

    def __post_init__(self) -> None:
        limits = {
            "temperature": (0.0, 2.0),
            "top_p": (1e-9, 1.0),
            "top_k": (0, 65536),
            "repetition_penalty": (0.5, 5.0),
            "image_temperature": (0.0, 2.0),
            "image_top_p": (1e-9, 1.0),
            "guidance_text": (0.0, 20.0),
            "guidance_image": (0.0, 20.0),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise CheckpointError(
                    f"config.json: generation_config.{name} must be from {low} to {high}", field=name
                )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Raises: CheckpointError naming the entry that is mistyped or out of range."""
        return cls(**_checked(cls, values, required=False))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
