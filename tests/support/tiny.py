"""A tiny but complete checkpoint of random weights: byte-level tokenizer, transformer and VQ-GAN.

Answers are noise, but every part runs, in milliseconds, as it would on real weights.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from services.checkpoint import GenerationDefaults, ModelConfig, Vocabulary, code_name
from services.checkpoint.vocabulary import BEGIN_IMAGE, BOS, END_IMAGE, END_OF_TURN, EOS, PAD, UNK
from services.checkpoint.write import save
from services.vqgan import VQGAN, VQConfig

N_CODES = 32
GRID = 4
CODES_PER_IMAGE = GRID * GRID
RESOLUTION = 8  # pixels; the VQ-GAN halves the side once


def tiny_tokenizer() -> str:
    """JSON of a byte-level tokenizer: 4 steering tokens, the codes, 4 more, then the 256 bytes."""
    specials = [BEGIN_IMAGE, END_IMAGE, END_OF_TURN, "<reserved08707>"]
    names = [BOS, PAD, EOS, UNK, *(code_name(k) for k in range(N_CODES)), *specials]
    names += sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("i", "n"), ("Ġ", "the")]
    names += [a + b for a, b in merges]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, merges, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in (BOS, PAD, EOS, UNK, *specials)])
    return tokenizer.to_str()


def tiny_config(vocab_size: int, **changes: object) -> ModelConfig:
    values: dict[str, object] = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 128,
        **changes,
    }
    return ModelConfig.from_json(values)


def tiny_vq_config() -> VQConfig:
    return VQConfig(
        resolution=RESOLUTION,
        ch=32,
        ch_mult=(1, 1),
        num_res_blocks=1,
        z_channels=32,
        embed_dim=8,
        n_embed=N_CODES,
    )


def tiny_checkpoint(
    path: Path, *, seed: int = 0, generation: GenerationDefaults | None = None, **changes: object
) -> Path:
    """Write a tiny checkpoint below `path` and return its directory; `changes` go into the ModelConfig.

    Same seed and changes: same weights.
    """
    tokenizer_json = tiny_tokenizer()
    size = Tokenizer.from_str(tokenizer_json).get_vocab_size()
    config = tiny_config(size, **changes)
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in config.shapes().items():
        # Wide enough that greedy answers vary with the prompt and have no near ties.
        tensor = torch.randn(shape, generator=generator) * (0.3 if len(shape) > 1 else 0.1)
        tensors[name] = tensor + 1 if "norm" in name and name.endswith("weight") else tensor
    # Long rows in the head: the model often wants to begin a picture or to end, as a real one does.
    vocabulary = Vocabulary(tokenizer_json)
    head = tensors.get("lm_head.weight", tensors["model.embed_tokens.weight"])
    head[vocabulary.begin_image] *= 2.5
    head[vocabulary.eos] *= 2
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vq_config = tiny_vq_config()
        vqgan = VQGAN(vq_config)
    directory = path / "tiny"
    save(
        directory,
        config,
        vq_config,
        tokenizer_json,
        tensors,
        vqgan.state_dict(),
        {"command": "tests.support.tiny", "seed": seed},
        generation,
    )
    return directory
