"""Why a cleaned text must be held: it may still name somebody, and no rule can tell."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from annotation.deid.tokens import Words
from annotation.deid.view import view
from annotation.deid.words import words

# Function words of one language each, without accents.
_LANGUAGES = {
    "en": "the of and is was with for that this are no has have from there which what were not patient",
    "de": "der die das und ist nicht mit ein eine wurde von bei dem den im zeigt auf wird sich keine",
    "fr": "le les des est une avec dans pour pas sur qui sont aux du ne plus cette il elle sans",
    "es": "el los las una con por del que se para es como fue sin muestra paciente esta sus y",
    "it": "il gli della che con per non una sono del nella si alla dei senza paziente questo e",
    "pt": "os uma com por para nao que foi sem da do em na no ao paciente esta e",
    "nl": "het een van en is niet met voor op aan werd bij zijn geen de ook naar",
}
_FUNCTION = {language: frozenset(text.split()) for language, text in _LANGUAGES.items()}
_MIN_WORDS = 4
_SYMBOLS = frozenset("µμαβγδεκλπσΔΩω°²³₂₃±≤≥×÷→←↑↓½¼¾‰†‡§©®™")


def doubt(text: str, allowed: frozenset[str] = frozenset()) -> str | None:
    """The reason to hold a cleaned `text`, or None.

    Args:
        allowed: lower-case words that are no names (drugs, products, tests of the own house).
    """
    if any(unicodedata.category(c).startswith("L") and not _readable(c) for c in text):
        return "text in a script that the rules do not read"
    seen = Words(view(text).text)
    if _foreign(seen):
        return "text in another language than English"
    for index, word in seen:
        unknown = word.shape == "title" and len(word.text) > 2 and word.lower not in allowed
        if unknown and not seen.starts_sentence(index) and not _explained(seen, index):
            return "a capitalised word that may be a name"
        if _caps_pair(seen, index):
            return "words in capitals that may be a name"
    return None


def _caps_pair(seen: Words, index: int) -> bool:
    """Two unknown words in capitals, neither of them an abbreviation."""
    pair = seen.all[index : index + 2]
    return (
        len(pair) == 2
        and re.fullmatch(r",? ", seen.gap(index)) is not None
        and all(
            w.shape == "caps" and len(w.text) > 4 and not _explained(seen, index + i)
            for i, w in enumerate(pair)
        )
    )


def _readable(letter: str) -> bool:
    if letter.isascii() or letter in _SYMBOLS:
        return True
    return unicodedata.name(letter, "").startswith(
        ("LATIN", "MODIFIER", "FEMININE ORDINAL", "MASCULINE ORDINAL")
    )


def _explained(seen: Words, index: int) -> bool:
    word = seen.all[index]
    return (
        seen.known(index)
        or seen.eponym(index)
        or word.lower in words("cities")
        or word.lower in words("surnames_of_medicine")
        or re.fullmatch(r"[A-Z][a-z]?", word.text) is not None
    )


def _foreign(seen: Words) -> bool:
    counts: Counter[str] = Counter()
    for _, word in seen:
        for language, function in _FUNCTION.items():
            counts[language] += word.lower in function
    english = counts.pop("en", 0)
    return max(counts.values(), default=0) >= max(_MIN_WORDS, english + 1)
