"""A whole training run: pictures, VQ-GAN, codes, decoder, checkpoint. Continues where it was stopped."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import services
from evaluation.phantoms import SIZE, rows, truth
from evaluation.phantoms.rows import texts
from services.checkpoint import GenerationDefaults, Vocabulary
from services.checkpoint.write import save
from services.llm.model import Chameleon
from services.vqgan import VQGAN
from training.losses import bfloat16_pays
from training.phantom import lm, pictures, sequences, vq
from training.phantom.recipe import CODES, CONTEXT, Recipe
from training.phantom.vocabulary import tokenizer_json
from training.progress import Progress

GENERATION = GenerationDefaults(
    temperature=0.0,
    top_p=1.0,
    repetition_penalty=1.0,
    image_temperature=0.7,
    image_top_p=0.9,
    guidance_text=2.0,
    guidance_image=1.0,
)
"""The shipped model answers greedily, and draws with the settings that a sweep on other seeds found best."""

_VOCABULARY_TRUTHS = 4_000


@dataclass
class Clock:
    """Seconds that each stage took, over all the runs that it was spread on; kept in a file."""

    path: Path
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def at(cls, path: Path) -> Clock:
        return cls(path, json.loads(path.read_text()) if path.exists() else {})

    def stage(self, name: str, progress: Progress) -> Callable[..., None]:
        """A callback for the stage's steps that counts the time between them."""
        last = time.monotonic()

        def step(done: int, total: int, figures: dict[str, float] | None = None) -> None:
            nonlocal last
            now = time.monotonic()
            self.seconds[name] = self.seconds.get(name, 0.0) + now - last
            last = now
            if done % 50 == 0 or done == total:
                partial = self.path.with_suffix(".partial")
                partial.write_text(json.dumps(self.seconds))
                os.replace(partial, self.path)
            progress(name, done, total, figures or {})

        return step

    @property
    def minutes(self) -> float:
        return sum(self.seconds.values()) / 60


def train(recipe: Recipe, out: Path, work: Path, threads: int, progress: Progress) -> dict[str, Any]:
    """Train and write the checkpoint to `out`; unfinished work is kept in `work` and taken up again.

    Returns the provenance that was written beside the weights.

    Raises:
        ValueError: `work` holds another recipe's unfinished run.
    """
    torch.set_num_threads(threads)
    work.mkdir(parents=True, exist_ok=True)
    clock = Clock.at(work / "clock.json")
    seeds = pictures.training_seeds(recipe.seed, recipe.phantoms)
    data = pictures.load(work, seeds, threads, clock.stage("pictures", progress))
    truths = [truth(seed) for seed in seeds]
    vqgan = vq.train(recipe, data, work, clock.stage("VQ-GAN", progress))
    codes = _codes(vqgan, data, work / "codes.npy", clock.stage("codes", progress))
    vocabulary = Vocabulary(_tokenizer(recipe, seeds))
    weights = sequences.finding_weights(truths, data.masks, recipe.vq_config.grid, recipe.lm_finding_weight)
    maker = sequences.SequenceMaker(vocabulary, truths, codes, weights, CONTEXT, recipe.without)
    provenance = {
        "command": f"medmax train phantom --seed {recipe.seed} --threads {threads}"
        + "".join(f" --without {modality}:{topic}" for modality, topic in recipe.without),
        "seed": recipe.seed,
        "recipe": recipe.to_json(),
        "data_digest": sequences.digest(truths, data.digest),
        "phantoms": {"first_seed": seeds.start, "count": len(seeds), "size": SIZE},
        "threads": threads,
        "versions": {
            "medmax-serve": services.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "machine": platform.machine(),
        "bfloat16": bfloat16_pays(),
    }

    def write(model: Chameleon, step: int) -> None:
        minutes = {name: round(seconds / 60, 1) for name, seconds in clock.seconds.items()}
        progressed = {"decoder_steps": step, "minutes": {**minutes, "total": round(clock.minutes, 1)}}
        provenance.update(progressed)
        write_checkpoint(out, model, vqgan, vocabulary, recipe, provenance)

    model = lm.train(recipe, maker, work, clock.stage("decoder", progress), snapshot=write)
    write(model, recipe.lm_steps)
    return provenance


def _codes(
    vqgan: VQGAN, data: pictures.Pictures, path: Path, progress: Callable[..., None]
) -> NDArray[np.int16]:
    """Codes of all pictures, from `path` where an earlier run left them. The folder belongs to one VQ-GAN."""
    if not path.exists():
        partial = path.with_suffix(".partial.npy")
        np.save(partial, vq.encode_all(vqgan, data.pictures, progress))
        os.replace(partial, path)
    codes: NDArray[np.int16] = np.load(path)
    return codes


def _tokenizer(recipe: Recipe, seeds: range) -> str:
    rng = np.random.default_rng([recipe.seed, 13])
    sample = [truth(seed) for seed in seeds[:_VOCABULARY_TRUTHS]]
    return tokenizer_json(
        (text for item in sample for text in texts(rows(item, rng))), CODES, recipe.text_entries
    )


def write_checkpoint(
    out: Path,
    model: Chameleon,
    vqgan: VQGAN,
    vocabulary: Vocabulary,
    recipe: Recipe,
    provenance: dict[str, Any],
) -> None:
    """Write our own layout to `out`, float32 VQ-GAN and decoder."""
    save(
        out,
        lm.model_config(recipe, vocabulary),
        recipe.vq_config,
        vocabulary.tokenizer_json,
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        {name: tensor.contiguous() for name, tensor in vqgan.state_dict().items()},
        provenance,
        GENERATION,
    )
