"""Identifiers that a pattern finds: each a regular expression whose group `x`, or whole match, is the identifier."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from annotation.deid.core import Category, Span


@dataclass(frozen=True)
class Pattern:
    """A rule: what its `expression` matches is of `category` where `holds` agrees.

    Every repetition in an expression is bounded or of one class of characters, so that time grows with the text alone.
    """

    category: Category
    expression: re.Pattern[str]
    holds: Callable[[re.Match[str]], bool] = lambda _: True

    @classmethod
    def of(
        cls,
        category: Category,
        expression: str,
        holds: Callable[[re.Match[str]], bool] = lambda _: True,
        *,
        case: bool = False,
    ) -> Pattern:
        return cls(category, re.compile(expression, 0 if case else re.IGNORECASE), holds)

    def find(self, text: str) -> Iterator[Span]:
        for found in self.expression.finditer(text):
            if self.holds(found):
                group = "x" if "x" in self.expression.groupindex and found["x"] is not None else 0
                yield Span(self.category, found.start(group), found.end(group))


@dataclass(frozen=True)
class Patterns:
    """A recogniser of several patterns."""

    patterns: tuple[Pattern, ...]

    def find(self, text: str) -> Iterator[Span]:
        for pattern in self.patterns:
            yield from pattern.find(text)
