"""Leaving one modality's questions about an attribute out of training, to see them brought back by fine-tuning."""

from __future__ import annotations

import re
from collections.abc import Sequence

from evaluation.phantoms import CATALOGUE
from evaluation.phantoms.questions import ATTRIBUTES
from evaluation.phantoms.rows import IMAGE, Turn

Slice = tuple[str, str]
"""Modality and topic of questions, one of ATTRIBUTES."""

_OPTION = re.compile(r"[A-D]\) ")
_WORDS = {
    "side": re.compile(r"\b(left|right|side|where)\b"),
    "size": re.compile(r"\b(size|large|small|big)\b"),
    "count": re.compile(r"\bhow many\b|\bexactly\b"),
}


def parse_slice(text: str) -> Slice:
    """`modality:topic`. Raises: ValueError naming what is known."""
    modality, _, topic = text.partition(":")
    if (modality, topic) not in (known := slices()):
        raise ValueError(f"{text!r} is no slice; it takes one of {', '.join(map(':'.join, known))}")
    return modality, topic


def slices() -> list[Slice]:
    """Every modality with the attributes that findings of it have."""
    has = {
        "side": lambda kind: kind.sided,
        "size": lambda kind: kind.sized,
        "count": lambda kind: bool(kind.counts),
    }
    return [
        (m.id, topic) for m in CATALOGUE.values() for topic in ATTRIBUTES if any(map(has[topic], m.kinds))
    ]


def topic_of(user: str) -> str | None:
    """The attribute that a user's turn asks about, None for any other; a report before the question is passed over."""
    lines = [line for line in user.replace(IMAGE, "").split("\n") if not _OPTION.match(line)]
    asked = lines[-1].lower()
    return next((topic for topic, words in _WORDS.items() if words.search(asked)), None)


def allowed(turns: Sequence[Turn], modality: str, without: frozenset[Slice]) -> list[Turn]:
    """The turns outside of the slices; the picture of a first turn that is left out goes to the next one."""
    kept = [turn for turn in turns if (modality, topic_of(turn[0])) not in without]
    if kept and IMAGE in turns[0][0] and IMAGE not in kept[0][0]:
        kept[0] = f"{IMAGE}{kept[0][0]}", kept[0][1]
    return kept
