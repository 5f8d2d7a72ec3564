"""Cosine of a CLIP-type model's embeddings, from a folder on this machine.

A folder with `open_clip_config.json` (BiomedCLIP's form) is loaded by open_clip; one with a `config.json` of
`model_type: clip` by transformers. Nothing is fetched, but open_clip may look for a text tower that a hub address names.
"""

from __future__ import annotations

import asyncio
import json
import threading
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evaluation.scorers.core import Scorer, not_installed
from evaluation.scorers.pixels import picture
from evaluation.suite.example import Answer, Score, Truth
from services.errors import MedMaxError

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Clip:
    """Embeddings of length one, float32 [d]."""

    image: Callable[[Image.Image], Vector]
    text: Callable[[str], Vector]


_working = threading.Lock()  # one at a time: the models use every core they are given


def kind_of(folder: Path) -> str | None:
    """`open_clip`, `transformers`, or None where the folder holds no CLIP-type model."""
    if (folder / "open_clip_config.json").is_file():
        return "open_clip"
    try:
        return (
            "transformers"
            if json.loads((folder / "config.json").read_bytes())["model_type"] == "clip"
            else None
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


@cache
def load(folder: Path) -> Clip | str:
    """The model, or why it cannot be loaded."""
    kind = kind_of(folder)
    if kind is None:
        return f"{folder.name} holds neither open_clip_config.json nor a config.json of a CLIP model"
    module, package = (
        ("open_clip", "open_clip_torch") if kind == "open_clip" else ("transformers", "transformers")
    )
    if (reason := not_installed(module, package)) is not None:
        return reason
    try:
        return _open_clip(folder) if kind == "open_clip" else _transformers(folder)
    except Exception as error:  # whatever reading a folder of somebody else's does
        return f"{folder.name} cannot be loaded: {type(error).__name__}: {str(error)[:200]}"


def _open_clip(folder: Path) -> Clip:
    import open_clip
    import torch

    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()

    @torch.inference_mode()
    def image(shown: Image.Image) -> Vector:
        return _unit(model.encode_image(preprocess(shown).unsqueeze(0))[0])

    @torch.inference_mode()
    def text(words: str) -> Vector:
        return _unit(model.encode_text(tokenizer([words]))[0])

    return Clip(image, text)


def _transformers(folder: Path) -> Clip:
    import torch
    from transformers import AutoTokenizer, CLIPModel

    model: Any = CLIPModel.from_pretrained(folder, local_files_only=True)
    model.eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    size = model.config.vision_config.image_size
    try:
        settings = json.loads((folder / "preprocessor_config.json").read_bytes())
    except OSError:
        settings = {}
    mean = np.array(settings.get("image_mean", (0.48145466, 0.4578275, 0.40821073)), dtype=np.float32)
    std = np.array(settings.get("image_std", (0.26862954, 0.26130258, 0.27577711)), dtype=np.float32)

    @torch.inference_mode()
    def image(shown: Image.Image) -> Vector:
        pixels = (np.asarray(centred(shown, size), dtype=np.float32) / 255 - mean) / std
        given = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)
        return _unit(model.visual_projection(model.vision_model(pixel_values=given).pooler_output)[0])

    @torch.inference_mode()
    def text(words: str) -> Vector:
        limit = model.config.text_config.max_position_embeddings
        given = tokenizer([words], truncation=True, max_length=limit, return_tensors="pt")
        hidden = model.text_model(given["input_ids"], attention_mask=given["attention_mask"])
        return _unit(model.text_projection(hidden.pooler_output)[0])

    return Clip(image, text)


def centred(shown: Image.Image, size: int) -> Image.Image:
    """The middle square at `size`, by bicubic resampling of the short side."""
    scale = size / min(shown.size)
    width, height = max(size, round(shown.width * scale)), max(size, round(shown.height * scale))
    left, top = (width - size) // 2, (height - size) // 2
    return shown.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))


def _unit(vector: Any) -> Vector:
    value: Vector = vector.float().numpy()
    return np.asarray(value / max(float(np.linalg.norm(value)), 1e-12))


class _ClipScorer(Scorer):
    def __init__(self, folder: Path | None) -> None:
        self._folder = folder.resolve() if folder else None

    def missing(self) -> str | None:
        if self._folder is None:
            return "no CLIP-type model was given (--clip)"
        loaded = load(self._folder)
        return loaded if isinstance(loaded, str) else None

    async def score(self, truth: Truth, answer: Answer) -> Score:
        assert self._folder is not None
        clip = load(self._folder)
        assert isinstance(clip, Clip)
        try:
            return await asyncio.to_thread(self._locked, clip, truth, answer)
        except (ValueError, RuntimeError, MedMaxError) as error:
            return Score(None, "clip_failed", str(error))

    def _locked(self, clip: Clip, truth: Truth, answer: Answer) -> Score:
        with _working:
            return self.cosine(clip, truth, answer)

    @abstractmethod
    def cosine(self, clip: Clip, truth: Truth, answer: Answer) -> Score: ...


class ClipImageText(_ClipScorer):
    """The row's picture and the written caption."""

    name, version, metric = "clip_image_text", 1, "CLIP cosine, picture and text"

    @staticmethod
    def both(folder: Path | None) -> tuple[Scorer, Scorer]:
        """This scorer, and the one for drawn pictures."""
        return ClipImageText(folder), ClipTextImage(folder)

    def applies(self, truth: Truth) -> str | None:
        return None if truth.picture else "the row has no picture"

    def cosine(self, clip: Clip, truth: Truth, answer: Answer) -> Score:
        assert truth.picture is not None
        if not answer.text.strip():
            return Score(None, "no_text", "the answer holds no text")
        return Score(float(clip.image(picture(truth.picture)) @ clip.text(answer.text)))


class ClipTextImage(_ClipScorer):
    """The first drawn picture and the caption it was asked for with."""

    name, version, metric = "clip_text_image", 1, "CLIP cosine, text and picture"

    def cosine(self, clip: Clip, truth: Truth, answer: Answer) -> Score:
        if not answer.pictures:
            return Score(None, "no_picture", "the answer holds no picture")
        return Score(float(clip.image(picture(answer.pictures[0])) @ clip.text(truth.question)))


class ClipImageImage(_ClipScorer):
    """The first drawn picture and the row's; answers without a picture are counted, not scored (as published)."""

    name, version, metric = "clip_image_image", 1, "CLIP cosine, picture and picture"

    def applies(self, truth: Truth) -> str | None:
        return None if truth.picture else "the row has no picture"

    def cosine(self, clip: Clip, truth: Truth, answer: Answer) -> Score:
        assert truth.picture is not None
        if not answer.pictures:
            return Score(None, "no_picture", "the answer holds no picture")
        return Score(float(clip.image(picture(answer.pictures[0])) @ clip.image(picture(truth.picture))))
