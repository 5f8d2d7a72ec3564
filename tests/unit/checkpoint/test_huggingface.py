from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from services.checkpoint import Layout, open_checkpoint
from services.checkpoint.convert import convert
from services.errors import CheckpointError
from services.vqgan import load_vqgan
from tests.support.golden import Golden


def change(path: Path, **values: object) -> None:
    config = json.loads((path / "config.json").read_text())
    config |= values
    (path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def test_the_description_equals_that_of_the_original(hf: Path) -> None:
    original, found = open_checkpoint(Golden("gqa_swin").checkpoint), open_checkpoint(hf)
    assert found.layout is Layout.HUGGING_FACE
    assert len(found.weight_files) > 2
    assert (found.config, found.vq_config) == (original.config, original.vq_config)
    assert found.vocabulary.tokenizer_json == original.vocabulary.tokenizer_json


def test_entries_that_transformers_leaves_out_have_its_defaults(hf: Path) -> None:
    change(hf, rope_theta=None, rope_parameters=None, rms_norm_eps=None, max_position_embeddings=None)
    config = open_checkpoint(hf).config
    assert (config.rope_theta, config.rms_norm_eps, config.context) == (10_000.0, 1e-5, 4096)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type"),
        ({"attention_bias": True}, "attention_bias"),
        ({"num_key_value_heads": 4}, "k_proj"),
        ({"vocab_size": 400}, "different checkpoints"),
    ],
)
def test_what_cannot_be_served_rightly_is_refused(hf: Path, values: dict, said: str) -> None:
    change(hf, **values)
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(hf)


def test_ids_are_taken_by_name_and_not_from_the_configuration(hf: Path) -> None:
    change(hf, bos_token_id=1, eos_token_id=7)
    vocabulary = open_checkpoint(hf).vocabulary
    assert (vocabulary.bos, vocabulary.pad, vocabulary.eos) == (0, 1, 2)


def test_without_a_tokenizer_the_vocabulary_map_names_the_ids(hf: Path) -> None:
    (hf / "tokenizer.json").unlink()
    checkpoint = open_checkpoint(hf)
    vocabulary, whole = checkpoint.vocabulary, open_checkpoint(Golden("gqa_swin").checkpoint).vocabulary
    assert vocabulary.code_ids.tolist() == whole.code_ids.tolist()
    assert (vocabulary.begin_image, vocabulary.end_of_turn) == (whole.begin_image, whole.end_of_turn)
    assert vocabulary.text_ids.tolist() == whole.text_ids.tolist()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        vocabulary.encode("lung")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        convert(checkpoint, hf.parent / "own")
    assert not (hf.parent / "own").exists()


def test_a_vocabulary_map_that_contradicts_the_tokenizer_is_refused(hf: Path) -> None:
    names = json.loads((hf / "config.json").read_text())["vocabulary_map"]
    names["</s>"], names["<pad>"] = names["<pad>"], names["</s>"]
    change(hf, vocabulary_map=names)
    with pytest.raises(CheckpointError, match="<pad> another id"):
        open_checkpoint(hf)


def test_the_decoder_comes_from_the_vqgan_that_is_given(hf: Path, meta: Path) -> None:
    (hf / "vqgan.ckpt").unlink()
    assert not open_checkpoint(hf).has_decoder
    pictures = torch.zeros(1, 1024, dtype=torch.int64)
    given = open_checkpoint(hf, meta / "tokenizer" / "vqgan.ckpt")
    wanted = load_vqgan(open_checkpoint(meta)).decode(pictures)
    assert torch.equal(load_vqgan(given).decode(pictures), wanted)


def test_without_a_decoder_pictures_are_still_read(hf: Path) -> None:
    (hf / "vqgan.ckpt").unlink()
    checkpoint = open_checkpoint(hf)
    assert load_vqgan(checkpoint, decoder=False).encode(torch.zeros(1, 3, 512, 512)).shape == (1, 1024)
    for attempt in (lambda: load_vqgan(checkpoint), lambda: convert(checkpoint, hf.parent / "own")):
        with pytest.raises(CheckpointError, match=r"no VQ-GAN decoder; put .*vqgan\.ckpt.*MEDMAX_VQGAN"):
            attempt()
    assert not (hf.parent / "own").exists()


def test_a_given_vqgan_replaces_rounded_weights_by_the_originals(hf: Path, meta: Path) -> None:
    for file in hf.glob("model*.safetensors"):
        save_file({n: t.bfloat16() for n, t in load_file(file).items()}, file, {"format": "pt"})
    weights = open_checkpoint(hf).vqgan_weights
    original = open_checkpoint(meta).vqgan_weights
    assert all(torch.equal(weights[name], original[name]) for name in original)


def test_a_given_vqgan_with_another_codebook_is_refused(hf: Path, tmp_path: Path) -> None:
    other = Golden("mha").checkpoint / "tokenizer" / "vqgan.ckpt"
    with pytest.raises(CheckpointError, match="another codebook"):
        open_checkpoint(hf, other)
