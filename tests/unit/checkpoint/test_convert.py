"""Rewriting in another layout: bit for bit, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from services.checkpoint import Checkpoint, GenerationDefaults, Layout, open_checkpoint
from services.checkpoint.convert import convert, total_bytes
from services.errors import CheckpointError
from tests.support.golden import NAMES, Golden
from tests.support.tiny import tiny_checkpoint


def assert_equal(found: Checkpoint, wanted: Checkpoint) -> None:
    assert (found.config, found.vq_config) == (wanted.config, wanted.vq_config)
    assert (found.generation, found.vocabulary.tokenizer_json) == (
        wanted.generation,
        wanted.vocabulary.tokenizer_json,
    )
    assert set(found.vqgan_weights) == set(wanted.vqgan_weights)
    for ours, theirs in (
        (found.weights, wanted.weights),
        (found.vqgan_weights, wanted.vqgan_weights),
    ):
        for name in theirs:
            assert ours.dtype(name) == theirs.dtype(name)
            assert torch.equal(ours[name], theirs[name]), name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", [Layout.META, Layout.HUGGING_FACE])
def test_a_published_checkpoint_survives_the_way_there_and_back(
    tmp_path: Path, name: str, layout: Layout
) -> None:
    original = open_checkpoint(Golden(name).checkpoint)
    own = convert(original, tmp_path / "own")
    there = convert(own, tmp_path / "there", layout)
    back = convert(there, tmp_path / "back")
    for checkpoint, kind in ((own, Layout.OWN), (there, layout), (back, Layout.OWN)):
        assert checkpoint.layout is kind
        assert_equal(checkpoint, original)
    assert back.digest == own.digest  # the files too, to the last byte


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_key_value_heads": 2, "swin_norm": True},
        {"tie_word_embeddings": True},
        {"intermediate_size": 52, "max_position_embeddings": 100},
    ],
    ids=["mha", "gqa_swin", "tied", "odd sizes"],
)
@pytest.mark.parametrize("layout", [Layout.META, Layout.HUGGING_FACE])
def test_our_own_checkpoint_survives_too(tmp_path: Path, changes: dict, layout: Layout) -> None:
    generation = GenerationDefaults(temperature=0.25, guidance_text=2.0)
    path = tiny_checkpoint(tmp_path, generation=generation, **changes)
    share_norms(path)
    own = open_checkpoint(path)
    there = convert(own, tmp_path / "there", layout)
    assert_equal(there, own)
    assert_equal(convert(there, tmp_path / "back"), own)


def share_norms(path: Path) -> None:
    """Give all heads the first one's norms, as Meta's layout has it."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(path / "model.safetensors")
    shared = {
        n: t[:1].expand_as(t).contiguous() if "_norm." in n and t.ndim == 2 else t for n, t in tensors.items()
    }
    save_file(shared, path / "model.safetensors", {"format": "pt"})


def test_norms_that_differ_by_key_head_make_as_many_shards(tmp_path: Path) -> None:
    own = open_checkpoint(tiny_checkpoint(tmp_path))
    there = convert(own, tmp_path / "there", Layout.META)
    assert [f.name for f in there.weight_files] == [
        *(f"consolidated.0{i}.pth" for i in range(4)),
        "vqgan.ckpt",
    ]
    assert_equal(there, own)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_key_value_heads": 2}, "different norms"),
        ({"tie_word_embeddings": True}, "tied"),
        ({"intermediate_size": 50}, "intermediate_size"),
    ],
)
def test_what_meta_s_layout_cannot_hold_is_refused(tmp_path: Path, changes: dict, said: str) -> None:
    own = open_checkpoint(tiny_checkpoint(tmp_path, **changes))
    with pytest.raises(CheckpointError, match=f"Meta's layout cannot hold.*{said}"):
        convert(own, tmp_path / "there", Layout.META)
    assert [p.name for p in tmp_path.iterdir()] == ["tiny"]


def test_provenance_tells_both_sides_digests(tmp_path: Path) -> None:
    source = open_checkpoint(Golden("mha").checkpoint)
    written = convert(source, tmp_path / "own")
    provenance = json.loads((tmp_path / "own" / "provenance.json").read_text())
    assert provenance["digest"] == written.digest
    assert provenance["files"] == written.file_digests
    assert provenance["files"].keys() == {"model.safetensors", "vqgan.safetensors"}
    assert provenance["source"]["digest"] == source.digest
    assert provenance["source"]["files"] == source.file_digests
    assert str(tmp_path) not in json.dumps(provenance)


def test_files_are_no_larger_than_asked(tmp_path: Path) -> None:
    source = open_checkpoint(Golden("mha").checkpoint)
    written = convert(source, tmp_path / "own", shard_bytes=100_000)
    files = sorted((tmp_path / "own").glob("model-*.safetensors"))
    assert len(files) > 3
    assert all(file.stat().st_size < 110_000 for file in files)
    assert_equal(written, source)


def test_progress_reaches_the_total(tmp_path: Path) -> None:
    source = open_checkpoint(Golden("mha").checkpoint)
    written: list[int] = []
    convert(source, tmp_path / "own", advance=written.append)
    assert sum(written) == total_bytes(source)
    assert len(written) > 50


def test_an_existing_destination_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "own"
    target.mkdir()
    with pytest.raises(CheckpointError, match="never overwritten"):
        convert(open_checkpoint(Golden("mha").checkpoint), target)
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("layout", list(Layout))
def test_a_conversion_that_stops_leaves_nothing_behind(tmp_path: Path, layout: Layout) -> None:
    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(open_checkpoint(Golden("mha").checkpoint), tmp_path / "new", layout, advance=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(CheckpointError, match="bytes are needed on the disk and 1000 are free"):
        convert(open_checkpoint(Golden("mha").checkpoint), tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
