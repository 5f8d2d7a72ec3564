"""The checkpoints that are measured, written once below `var/`: the shipped one and random ones, none of which ends early."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from loadtests.engine.noise import HEAD, Shape, never_ends, random_checkpoint, small_vq_config, small_vqgan
from services.checkpoint import Checkpoint, Layout, open_checkpoint
from services.checkpoint.convert import convert
from services.checkpoint.write import save
from services.config import SHIPPED_MODEL

RECIPE = 2  # part of the folder's name: raise it when what is written changes
SHAPES = {
    "8.8m": Shape(hidden=256, inner=992, layers=4, heads=4, vocabulary=9216),
    "110m": Shape(hidden=768, inner=2048, layers=12, heads=12, vocabulary=16384),
}
SHIPPED = "phantom"
NAMES = (SHIPPED, *SHAPES)


@dataclass(frozen=True)
class Model:
    """A checkpoint in both layouts."""

    name: str
    own: Path
    hugging_face: Path

    @property
    def checkpoint(self) -> Checkpoint:
        return open_checkpoint(self.own)


def prepare(name: str, cache: Path, source: Path | None = None) -> Model:
    """The model `name`, out of `cache` if it was written before.

    Args:
        source: checkpoint to derive it from; default: of the shipped one's name, that one, else none.
    """
    if source is None and name != SHIPPED:
        folder = cache / f"{name}-{RECIPE}"
        if not (folder / "own").exists():
            convert(random_checkpoint(SHAPES[name]), folder / "own")
    else:
        given = open_checkpoint(source or SHIPPED_MODEL)
        folder = cache / f"{name}-{RECIPE}-{given.digest[:12]}"
        if not (folder / "own").exists():
            _write_endless(given, folder / "own")
    if not (folder / "hf").exists():
        _write_hugging_face(open_checkpoint(folder / "own"), folder / "hf")
    return Model(name, folder / "own", folder / "hf")


def _write_endless(given: Checkpoint, path: Path) -> None:
    """A copy whose text never ends; see `never_ends`."""
    tensors = {name: given.weights[name] for name in given.config.shapes()}
    tensors[HEAD] = never_ends(tensors.get(HEAD, tensors["model.embed_tokens.weight"]), given.vocabulary)
    save(
        path,
        replace(given.config, tie_word_embeddings=False),
        given.vq_config,
        given.vocabulary.tokenizer_json,
        tensors,
        dict(given.vqgan_weights),
        {"command": "loadtests.engine", "of": given.digest},
        given.generation,
    )


def _write_hugging_face(checkpoint: Checkpoint, path: Path) -> None:
    """For peers, which run text alone: transformers cannot build every VQ-GAN, so a small one takes its place."""
    config = small_vq_config(checkpoint.vocabulary.n_codes, grid=4)
    convert(
        replace(checkpoint, vq_config=config, vqgan_weights=small_vqgan(config)), path, Layout.HUGGING_FACE
    )
    # Without it, transformers would take the end token out of config.json and stop there.
    generation = {"bos_token_id": checkpoint.vocabulary.bos, "pad_token_id": checkpoint.vocabulary.pad}
    (path / "generation_config.json").write_text(json.dumps(generation))
