"""Which part of each tensor a tensor-parallel rank keeps."""

from __future__ import annotations

from services.checkpoint.config import ModelConfig
from services.errors import CheckpointError

_QUERY = ("q_proj.weight", "q_norm.weight", "q_norm.bias")
_KEY = ("k_proj.weight", "v_proj.weight", "k_norm.weight", "k_norm.bias")
_INNER = ("gate_proj.weight", "up_proj.weight")
_COLUMNS = ("o_proj.weight", "down_proj.weight")
_VOCABULARY = ("model.embed_tokens.weight", "lm_head.weight")


def bounds(config: ModelConfig, name: str, rank: int, size: int) -> tuple[int, int, int]:
    """(axis, start, stop) of the part of tensor `name` that rank `rank` of `size` keeps.

    Heads and the feed-forward's inner dimension are divided evenly; the vocabulary as evenly as it goes; norms over
    the hidden size are kept whole. With fewer key heads than ranks, several ranks keep the same key head.

    Raises:
        CheckpointError: heads or the inner dimension do not divide by `size`.
        ValueError: `rank` is not in 0…size-1.
    """
    if not 0 <= rank < size:
        raise ValueError(f"rank {rank} of {size}")
    shape = config.shapes()[name]
    check(config, size)
    if name.endswith(_KEY) and config.num_key_value_heads % size:
        heads = config.num_key_value_heads
        return (0, *_share(shape[0], rank * heads // size, heads))
    if name.endswith((*_QUERY, *_KEY, *_INNER)) or name in _VOCABULARY:
        return (0, *_share(shape[0], rank, size))
    if name.endswith(_COLUMNS):
        return (1, *_share(shape[1], rank, size))
    return 0, 0, shape[0]


def check(config: ModelConfig, size: int) -> None:
    """Raises: CheckpointError where the model cannot be shared by `size` ranks."""
    heads, keys, inner = config.num_attention_heads, config.num_key_value_heads, config.intermediate_size
    if size < 1 or heads % size or inner % size or (keys % size and size % keys):
        raise CheckpointError(
            f"{heads} heads, {keys} key heads and {inner} inner channels cannot be shared by {size} ranks",
            field="tensor_parallel",
        )


def _share(length: int, rank: int, size: int) -> tuple[int, int]:
    return length * rank // size, length * (rank + 1) // size
