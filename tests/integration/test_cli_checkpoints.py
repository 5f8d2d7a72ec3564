"""The commands for whoever checks a checkpoint by hand, as a process of their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from services.decoder.marking import is_synthetic
from tests.support.golden import Golden
from tests.unit.cli.medmax import medmax

GOLDEN = Golden("gqa_swin")
META = str(GOLDEN.checkpoint)


@pytest.fixture(scope="module")
def hf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden checkpoint in Hugging Face's layout, its vqgan.ckpt kept apart."""
    folder = tmp_path_factory.mktemp("layouts")
    result = medmax(folder, "convert", META, "hf", "--to", "hf")
    assert (result.status, result.out) == (0, "hf\n")
    assert "converting" in result.err
    (folder / "hf" / "vqgan.ckpt").rename(folder / "vqgan.ckpt")
    return folder / "hf"


@pytest.mark.parametrize(
    "command", ["tokenize", "decode", "logits", "generate-ids", "inspect", "convert", "fetch"]
)
def test_help_says_how_to_use_it(tmp_path: Path, command: str) -> None:
    result = medmax(tmp_path, command, "--help")
    assert result.status == 0
    assert f"Usage: medmax {command}" in result.out
    assert "--json" in result.out


def write(folder: Path, value: object) -> str:
    (folder / "list.json").write_text(json.dumps(value))
    return "list.json"


def test_tokenize_prints_codes_and_grid(tmp_path: Path, hf: Path) -> None:
    image = GOLDEN.expected["images"][2]
    for checkpoint in (META, str(hf)):
        file = str(GOLDEN.folder / image["file"])
        result = medmax(tmp_path, "tokenize", file, "--checkpoint", checkpoint, "--json")
        assert result.status == 0
        assert result.document == {"codes": image["tokens"], "grid": [32, 32]}


def test_decode_writes_the_reference_s_picture(tmp_path: Path, hf: Path) -> None:
    codes = write(tmp_path, GOLDEN.expected["decode"]["tokens"])
    wanted = np.asarray(Image.open(GOLDEN.folder / "images" / "decoded.png").convert("RGB"), np.int16)
    given = ("--checkpoint", str(hf), "--vqgan", str(hf.parent / "vqgan.ckpt"))
    for arguments in (("--checkpoint", META), given):
        result = medmax(tmp_path, "decode", codes, "-o", "out.png", *arguments, "--json")
        assert result.document == {"file": "out.png", "width": 512, "height": 512}
        found = np.asarray(Image.open(tmp_path / "out.png").convert("RGB"), np.int16)
        assert np.abs(found - wanted).max() <= 1
        assert is_synthetic((tmp_path / "out.png").read_bytes())


def test_decode_without_a_decoder_says_what_to_do(tmp_path: Path, hf: Path) -> None:
    codes = write(tmp_path, GOLDEN.expected["decode"]["tokens"])
    result = medmax(tmp_path, "decode", codes, "-o", "out.png", "--checkpoint", str(hf))
    assert result.status == 1
    assert "MEDMAX_VQGAN" in result.err
    assert not (tmp_path / "out.png").exists()
    named = str(hf.parent / "vqgan.ckpt")
    result = medmax(tmp_path, "decode", codes, "-o", "out.png", "--checkpoint", str(hf), MEDMAX_VQGAN=named)
    assert result.status == 0


@pytest.mark.parametrize("prompt", ["text", "mixed"])
def test_logits_are_written_in_float32(tmp_path: Path, prompt: str) -> None:
    ids = write(tmp_path, GOLDEN.expected[prompt]["ids"])
    arguments = ("--checkpoint", META, "--dtype", "float32", "--json")
    result = medmax(tmp_path, "logits", ids, "-o", "logits.npy", *arguments)
    wanted = GOLDEN.arrays[f"{prompt}_logits"]
    assert result.document == {"file": "logits.npy", "shape": list(wanted.shape)}
    found = np.load(tmp_path / "logits.npy")
    assert found.dtype == np.float32
    assert np.linalg.norm(found - wanted) / np.linalg.norm(wanted) < 1e-5


def test_the_dtype_is_honoured(tmp_path: Path) -> None:
    ids = write(tmp_path, GOLDEN.expected["text"]["ids"])
    medmax(tmp_path, "logits", ids, "-o", "logits.npy", "--checkpoint", META, "--dtype", "bfloat16")
    wanted = GOLDEN.arrays["text_logits"]
    error = np.linalg.norm(np.load(tmp_path / "logits.npy") - wanted) / np.linalg.norm(wanted)
    assert 1e-4 < error < 0.1


@pytest.mark.parametrize("index", [0, 1])
def test_generate_ids_repeats_the_reference_s_text(tmp_path: Path, index: int) -> None:
    case = GOLDEN.expected["greedy_text"][index]
    arguments = ("--greedy", "--max-new", str(len(case["output"])), "--repetition-penalty", "1.2")
    result = medmax(
        tmp_path, "generate-ids", write(tmp_path, case["prompt"]), *arguments, "--checkpoint", META, "--json"
    )
    assert result.document["ids"] == case["output"]


@pytest.mark.parametrize("index", [0, 1])
def test_generate_ids_repeats_the_reference_s_picture(tmp_path: Path, index: int) -> None:
    case = GOLDEN.expected["greedy_image"][index]
    guidance = ("--guidance-text", "3.0", "--guidance-image", "1.2")
    arguments = ("--mode", "image", "--greedy", "--max-new", "96", *guidance, "--checkpoint", META)
    prompt = write(tmp_path, case["prompt"])
    result = medmax(tmp_path, "generate-ids", prompt, *arguments, "--dtype", "float32", "--json")
    assert result.document["ids"] == case["output_first_96"]


def test_inspect_tells_what_there_is_and_who_can_use_it(tmp_path: Path, hf: Path) -> None:
    found = medmax(tmp_path, "inspect", META, "--json").document
    assert (found["layout"], found["dtype"], found["image"]["grid"]) == ("meta", "bfloat16", [32, 32])
    assert found["vocabulary"]["begin_image"] == 261
    assert found["services"] == {"tokenizer": True, "llm": True, "decoder": True}
    one, two = found["memory_per_gpu"]["1"], found["memory_per_gpu"]["2"]
    assert one["weights"] == found["parameters"] * 2
    assert one["kv_cache"] == 2 * two["kv_cache"] == 3 * 2 * 2 * 16 * 4096 * 2
    assert one["weights"] / 2 < two["weights"] < one["weights"]
    assert found["memory_per_gpu"]["8"] is None
    other = medmax(tmp_path, "inspect", str(hf), "--json").document
    assert other["services"] == {"tokenizer": True, "llm": True, "decoder": False}
    assert other["layout"] == "hf"
    text = medmax(tmp_path, "inspect", str(hf)).out
    assert "not decoder" in text
    assert other["digest"] in text


def test_convert_tells_both_digests_and_overwrites_nothing(tmp_path: Path) -> None:
    result = medmax(tmp_path, "convert", META, "own", "--json")
    assert (
        result.document["digest"] == json.loads((tmp_path / "own" / "provenance.json").read_text())["digest"]
    )
    assert result.document["source_digest"] == medmax(tmp_path, "inspect", META, "--json").document["digest"]
    again = medmax(tmp_path, "convert", META, "own", "--json")
    assert again.status == 1
    assert again.document["error"]["code"] == "checkpoint_error"
    back = medmax(tmp_path, "convert", "own", "meta", "--to", "meta", "--json")
    assert back.document["layout"] == "meta"
    assert (tmp_path / "meta" / "models" / "small" / "consolidated.pth").is_file()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1, 2", "no JSON"),
        ('["a"]', "whole numbers"),
        ("{}", "whole numbers"),
        ("[1, true]", "whole numbers"),
    ],
)
def test_a_file_that_is_no_list_of_ids_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "ids.json").write_text(content)
    result = medmax(tmp_path, "logits", "ids.json", "-o", "x.npy", "--checkpoint", META)
    assert result.status == 1
    assert "ids.json" in result.err
    assert said in result.err


@pytest.mark.parametrize("ids", [[], [384], [-1]])
def test_ids_outside_the_vocabulary_are_refused(tmp_path: Path, ids: list[int]) -> None:
    for command in (("logits", write(tmp_path, ids), "-o", "x.npy"), ("generate-ids", write(tmp_path, ids))):
        result = medmax(tmp_path, *command, "--checkpoint", META, "--json")
        assert result.status == 1
        assert result.document["error"]["code"] == "invalid_input"
