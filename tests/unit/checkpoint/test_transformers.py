"""Random tiny models of transformers' own Chameleon, saved by it, against ours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from services.checkpoint import Layout, Vocabulary, open_checkpoint
from services.checkpoint.convert import convert
from services.llm.load import load_model
from services.vqgan import load_vqgan
from tests.support.golden import Golden
from tests.support.tiny import N_CODES, tiny_tokenizer

transformers = pytest.importorskip("transformers")

SHAPES = {
    "mha": {"num_key_value_heads": 4},
    "gqa_swin": {"num_key_value_heads": 2, "swin_norm": True},
    "tied": {"num_key_value_heads": 4, "tie_word_embeddings": True},
    "theta": {"num_key_value_heads": 1, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
}
VQ = {
    "plain": {"channel_multiplier": [1, 2], "num_res_blocks": 1},
    "attention": {"channel_multiplier": [1, 1, 2], "num_res_blocks": 2, "attn_resolutions": [8, 16]},
}


def random_model(shape: dict, vq: dict, seed: int = 0):  # type: ignore[no-untyped-def]
    vocabulary = Vocabulary(tiny_tokenizer())
    config = transformers.ChameleonConfig(
        vocab_size=vocabulary.size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=128,
        vocabulary_map={**vocabulary.ids, "<image>": vocabulary.ids["<reserved08707>"]},
        vq_config={
            "embed_dim": 8,
            "num_embeddings": N_CODES,
            "latent_channels": 32,
            "resolution": 32,
            "base_channels": 32,
            **vq,
        },
        **shape,
    )
    model = transformers.ChameleonForConditionalGeneration(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        scale = 0.1 if "vqmodel" in name else 0.2
        parameter.copy_(noise * scale + ("norm" in name and name.endswith("weight")))
    return model


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_of_non_image_ids_are_equal(tmp_path: Path, shape: str) -> None:
    theirs = random_model(SHAPES[shape], VQ["plain"])
    theirs.save_pretrained(tmp_path / "hf", max_shard_size="100KB")
    checkpoint = open_checkpoint(tmp_path / "hf")
    assert checkpoint.layout is Layout.HUGGING_FACE
    ids = torch.randint(0, checkpoint.config.vocab_size, (2, 40), generator=torch.Generator().manual_seed(1))
    ids[ids == theirs.config.image_token_id] = 0
    others = torch.ones(checkpoint.config.vocab_size, dtype=torch.bool)
    others[torch.from_numpy(checkpoint.vocabulary.code_ids)] = False
    with torch.inference_mode():
        wanted = theirs(input_ids=ids).logits[..., others]
        found = load_model(checkpoint)(ids)[..., others]
    assert wanted.abs().max() > 0.5
    assert (found - wanted).norm() / wanted.norm() < 1e-5


@pytest.mark.parametrize("vq", VQ)
def test_codes_are_equal(tmp_path: Path, vq: str) -> None:
    theirs = random_model(SHAPES["mha"], VQ[vq])
    theirs.save_pretrained(tmp_path / "hf")
    ours = load_vqgan(open_checkpoint(tmp_path / "hf"), decoder=False)
    pixels = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1
    found = ours.encode(pixels)
    with torch.inference_mode():
        wanted = theirs.model.vqmodel.encode(pixels).image_tokens
    assert len(wanted.unique()) > 4
    assert torch.equal(found.flatten(), wanted.flatten())


def test_transformers_reads_what_we_write(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(Golden("gqa_swin").checkpoint)
    convert(checkpoint, tmp_path / "hf", Layout.HUGGING_FACE)
    theirs, report = transformers.ChameleonForConditionalGeneration.from_pretrained(
        tmp_path / "hf", dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    ids = torch.tensor([Golden("gqa_swin").expected["text"]["ids"]])
    others = torch.ones(checkpoint.config.vocab_size, dtype=torch.bool)
    others[torch.from_numpy(checkpoint.vocabulary.code_ids)] = False
    with torch.inference_mode():
        wanted = theirs.eval()(input_ids=ids).logits[..., others]
        found = load_model(checkpoint)(ids)[..., others]
    assert (found - wanted).norm() / wanted.norm() < 1e-5
