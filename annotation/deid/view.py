"""A text as the rules read it: plain ASCII where that is possible, placeholders opaque, and the way back."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from annotation.deid.core import Category

PLACEHOLDER = re.compile("|".join(re.escape(category.placeholder) for category in Category))
OPAQUE = "\ue000"
"""Stands for a character of a placeholder; no rule matches it."""

# Letters that do not decompose into an ASCII letter and marks.
_LETTERS = dict(zip("ßæœøðþłđıħŧÆŒØÐÞŁĐĦŦ’‘ʼ´′“”„«»", "saoodtldihtAOODTLDHT'''''" + '"' * 5, strict=True))


@dataclass(frozen=True)
class View:
    """`text`: what rules read. `origin[i]`: index in the original of its i-th character, one more at the end."""

    text: str
    origin: tuple[int, ...]

    def place(self, start: int, end: int) -> tuple[int, int]:
        """The same stretch in the original, with invisible characters and marks that follow its letters."""
        return self.origin[start], self.origin[end]


def view(text: str) -> View:
    """Accents, widths, dashes, spaces and digits of all scripts become ASCII; invisible characters vanish."""
    text = PLACEHOLDER.sub(lambda found: OPAQUE * len(found[0]), text)
    if text.isascii():
        return View(text, tuple(range(len(text) + 1)))
    letters: list[str] = []
    origin: list[int] = []
    for index, letter in enumerate(text):
        plain = _plain(letter)
        if plain:
            letters.append(plain)
            origin.append(index)
    return View("".join(letters), (*origin, len(text)))


def _plain(letter: str) -> str:
    if letter.isascii() or letter == OPAQUE:
        return letter
    if letter in _LETTERS:
        return _LETTERS[letter]
    kind = unicodedata.category(letter)
    if kind in ("Cf", "Mn", "Me"):
        return ""
    if kind == "Zs":
        return " "
    if kind in ("Zl", "Zp"):
        return "\n"
    if kind == "Pd":
        return "-"
    if kind == "Nd":
        return str(unicodedata.decimal(letter))
    folded = "".join(c for c in unicodedata.normalize("NFKD", letter) if unicodedata.category(c) != "Mn")
    return folded if len(folded) == 1 and folded.isascii() else letter
