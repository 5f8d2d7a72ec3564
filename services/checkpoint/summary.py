"""What is worth knowing of a checkpoint before it is served."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from services.checkpoint.checkpoint import Checkpoint
from services.checkpoint.sharding import bounds, check
from services.checkpoint.staging import nbytes
from services.errors import CheckpointError

SIZES = (1, 2, 4, 8)
CONTEXT = 4096
GUIDED_STREAMS = 3


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """Layout, shape, vocabulary, digest, memory per GPU and the services that can use it; reads every weight file."""
    config, vocabulary = checkpoint.config, checkpoint.vocabulary
    dtypes = Counter(str(checkpoint.weights.dtype(n)).removeprefix("torch.") for n in checkpoint.weights)
    return {
        "layout": str(checkpoint.layout),
        "parameters": _count(checkpoint.weights),
        "vqgan_parameters": _count(checkpoint.vqgan_weights),
        "dtype": dtypes.most_common(1)[0][0],
        "dtypes": dict(dtypes),
        "config": config.to_json(),
        "vocabulary": {
            "size": vocabulary.size,
            "image_codes": vocabulary.n_codes,
            "reads_text": vocabulary.reads_text,
            **{name: getattr(vocabulary, name) for name in _STEERING},
        },
        "image": {"size": checkpoint.image_size, "grid": list(checkpoint.grid)},
        "generation": checkpoint.generation.to_json(),
        "memory_per_gpu": {str(size): memory(checkpoint, size) for size in SIZES},
        "services": {
            "tokenizer": checkpoint.has_encoder,
            "llm": vocabulary.reads_text,
            "decoder": checkpoint.has_decoder,
        },
        "files": checkpoint.file_digests,
        "digest": checkpoint.digest,
    }


_STEERING = ("bos", "pad", "eos", "unk", "begin_image", "end_image", "end_of_turn")


def memory(checkpoint: Checkpoint, size: int) -> dict[str, int] | None:
    """Bytes that one of `size` tensor-parallel GPUs needs: weights as stored, and the key-value cache of one sequence
    of 4096 positions, plain and under full guidance. None where the model cannot be shared so.
    """
    config = checkpoint.config
    try:
        check(config, size)
    except CheckpointError:
        return None
    weights = 0
    for name, shape in config.shapes().items():
        axis, start, stop = bounds(config, name, 0, size)
        weights += nbytes(checkpoint.weights, name) // shape[axis] * (stop - start)
    keys = max(1, config.num_key_value_heads // size)
    itemsize = checkpoint.weights.dtype("model.embed_tokens.weight").itemsize
    cache = config.kv_elements_per_token // config.num_key_value_heads * keys * CONTEXT * itemsize
    return {
        "weights": weights,
        "kv_cache": cache,
        "total": weights + cache,
        "total_guided": weights + GUIDED_STREAMS * cache,
    }


def _count(weights: Any) -> int:
    return sum(math.prod(weights.shape(name)) for name in weights)
