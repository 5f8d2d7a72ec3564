"""Judgements for tests of instruction data, and the pictures that they are about."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from annotation.core import Annotation, Decision, Item, Judgement, Kind, Part, Picture, Turn, Verdict
from annotation.dataset.build import Build

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def pixels(seed: int, size: int = 32) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Smooth noise: pictures of different seeds do not look alike."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC))


def picture(seed: int, *, format: str = "PNG", synthetic: bool = False, **options: Any) -> Picture:
    target = BytesIO()
    Image.fromarray(pixels(seed)).save(target, format, **options)
    data = target.getvalue()
    return Picture(hashlib.sha256(data).hexdigest(), data, synthetic)


def item(
    id: str,
    *,
    question: str = "Is it normal?",
    answer: tuple[Part, ...] = ("yes",),
    shows: int | None = 0,
    **fields: Any,
) -> Item:
    """A question about picture `shows` (none: about none)."""
    asked: tuple[Part, ...] = (question,) if shows is None else (picture(shows), question)
    fields = {
        "kind": Kind.CHAT,
        "dialogue": (Turn("user", asked),),
        "model_id": "phantom",
        "model_digest": "ab" * 32,
        **fields,
    }
    return Item(id=id, answer=answer, **fields)


def judge(
    given: Item,
    verdict: Verdict | Decision = Decision.ACCEPT,
    *,
    minutes: float = 0,
    experts: tuple[str, ...] = ("7", "3"),
    **fields: Any,
) -> Judgement:
    """What `experts` say of it together, `minutes` after noon."""
    said = verdict if isinstance(verdict, Verdict) else Verdict(decision=verdict)
    at = NOON + timedelta(minutes=minutes)
    annotations = tuple(
        Annotation(f"1:{given.id}-{expert}", given.id, given.kind, expert, said, at, at) for expert in experts
    )
    return Judgement(
        given, said, annotations, **{"agreement": 1.0, "adjudicated": False, "made_at": at, **fields}
    )


def builder(root: Path, **fields: Any) -> Build:
    """A build that finds consent for all and identifiers in nothing."""
    return Build(root, **{"consent": lambda interaction: True, "check_text": lambda text: [], **fields})
