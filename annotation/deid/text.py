"""Identifiers in texts: found by all recognisers, replaced by placeholders, until nothing more is found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from annotation.deid.addresses import ADDRESSES
from annotation.deid.core import Category, Recogniser, Span
from annotation.deid.dates import AGES, DATES
from annotation.deid.names import KnownNames, Names, telling_parts
from annotation.deid.net import NET
from annotation.deid.numbers import IDENTIFIERS, PHONES, REST
from annotation.deid.places import Places
from annotation.deid.view import OPAQUE, view

RULES: tuple[Recogniser, ...] = (NET, IDENTIFIERS, DATES, AGES, ADDRESSES, PHONES, Places(), Names(), REST)
"""In order of precedence: of two that overlap the earlier names the category."""
MAX_CHARACTERS = 50_000
MAX_ROUNDS = 5


@dataclass(frozen=True)
class CleanText:
    """A text without what was found, and the categories of what was replaced, one an identifier."""

    text: str
    removed: tuple[Category, ...]


def find(text: str, recognisers: Sequence[Recogniser] = RULES) -> list[Span]:
    """Identifiers in `text`, in order and apart: what overlaps or touches in one category is one."""
    seen = view(text)
    return [Span(span.category, *seen.place(span.start, span.end)) for span in _apart(seen.text, recognisers)]


def _apart(text: str, recognisers: Sequence[Recogniser]) -> list[Span]:
    owner: list[Category | None] = [None] * len(text)
    for recogniser in recognisers:
        for span in recogniser.find(text):
            for index in range(max(span.start, 0), min(span.end, len(text))):
                # Letters of a placeholder belong to nobody.
                if owner[index] is None and text[index] != OPAQUE:
                    owner[index] = span.category
    spans: list[Span] = []
    start = 0
    for index in range(1, len(text) + 1):
        if index == len(text) or owner[index] != owner[start]:
            category = owner[start]
            if category is not None and any(c.isalnum() for c in text[start:index]):
                spans.append(Span(category, start, index))
            start = index
    return spans


def clean(text: str, recognisers: Sequence[Recogniser] = RULES) -> CleanText:
    """`text` with every identifier replaced by its placeholder; cleaning the result again changes nothing.

    Raises:
        ValueError: new identifiers still appear after `MAX_ROUNDS` rounds.
    """
    removed: list[Category] = []
    for _ in range(MAX_ROUNDS):
        spans = find(text, recognisers)
        if not spans:
            return CleanText(text, tuple(removed))
        removed += [span.category for span in spans]
        text = _replaced(text, spans)
    raise ValueError("the text gives new identifiers in every round")


def _replaced(text: str, spans: Iterable[Span]) -> str:
    pieces: list[str] = []
    position = 0
    for span in spans:
        pieces += [text[position : span.start], span.category.placeholder]
        position = span.end
    return "".join([*pieces, text[position:]])


def names_in(texts: Iterable[str], recognisers: Sequence[Recogniser] = RULES) -> KnownNames:
    """A recogniser of the names that `texts` give away, for all texts of the same item."""
    names: set[str] = set()
    for text in texts:
        seen = view(text).text
        names |= telling_parts(seen, _apart(seen, recognisers))
    return KnownNames(names)


def check_text(text: str, recognisers: Sequence[Recogniser] = RULES) -> list[Category]:
    """Categories of identifiers that the rules find in `text`, each once; empty for a clean one.

    For checks of results: placeholders are no identifiers, so a cleaned text has none.
    """
    return sorted({span.category for span in find(text, recognisers)})
