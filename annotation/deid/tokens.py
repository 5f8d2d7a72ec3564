"""Words of a text with what their letters say, and which words are known to be no names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property

from annotation.deid.words import medicine, people, words

_WORD = re.compile(r"(?!(?<=[A-Za-z]')s\b)[A-Za-z]+(?:(?:'(?!s\b)|-)[A-Za-z]+)*")
_TITLE = re.compile(r"(?:[A-Z]'|Mc|Mac|Al-|El-)?[A-Z][a-z]+(?:['-]?[A-Z]?[a-z]+)*\Z")
_GRADE = re.compile(r" (?:type |grade |class |stage )?(?:[IV]{1,3}[A-F]?\b|[A-Z]?\d(?:[a-zA-Z]\d?)?\b(?!\d))")
_NUMBERED = re.compile(r"\n\s{0,4}\d{1,2}\)\Z")
_MEDICAL_ENDING = re.compile(
    r"(?:itis|oma|omas|osis|oses|emia|aemia|uria|pathy|pathies|ectomy|ostomy|otomy|scopy|graphy|gram|grams|plasty|algia"
    r"|tion|tions|sion|sions|ment|ness|ously|ally|able|ible|ism|isms|ase|mab|nib|cillin|mycin|micin|statin|pril|sartan"
    r"|olol|azole|idine|amine|caine|cycline|floxacin|prazole|gliptin|gliflozin|parin|xaban|tinib|ciclib|setron|triptan"
    r"|oxetine|azepam|zolam|profen|oxacin|thiazide|semide|olone|asone|onide|terol|tropium|coccus|cocci|bacter|bacillus"
    r"|ceae|virus|viridae|ology|ological|genic|genous|trophy|trophic|plasia|plastic|megaly|penia|cytosis|rrhage|rrhea"
    r"|pnea|pnoea|plegia|paresis|esthesia|lysis|stasis|static|toxic|philic|phobic|ologist|icity|ility|ularity)\Z"
)


@dataclass(frozen=True)
class Word:
    """Letters from `start` to `end`; `shape`: `title`, `caps`, `initial`, `lower`, or `code` beside digits."""

    text: str
    start: int
    end: int
    shape: str

    @property
    def lower(self) -> str:
        return self.text.lower()

    @property
    def proper(self) -> bool:
        return self.shape in ("title", "caps")


class Words:
    """The words of one text in order."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.all = [_word(text, found) for found in _WORD.finditer(text)]
        self._at = {word.start: index for index, word in enumerate(self.all)}

    def __iter__(self) -> Iterator[tuple[int, Word]]:
        return enumerate(self.all)

    @cached_property
    def lower_case(self) -> frozenset[str]:
        """Words that stand in small letters somewhere in the text: no names there, so none elsewhere."""
        return frozenset(word.text for word in self.all if word.shape == "lower" and len(word.text) > 3)

    def from_position(self, position: int) -> int | None:
        """Index of the word that begins at `position`."""
        return self._at.get(position)

    def gap(self, index: int) -> str:
        """Characters between a word and the next, or to the end."""
        after = self.all[index + 1].start if index + 1 < len(self.all) else len(self.text)
        return self.text[self.all[index].end : after]

    def starts_sentence(self, index: int) -> bool:
        start = self.all[index].start
        before = self.text[max(0, start - 12) : start].rstrip(" \t\"'([-")
        return not before or before[-1] in ".!?:;\n|•*#" or _NUMBERED.search(before) is not None

    def eponym(self, index: int) -> bool:
        """Whether a noun such as "fracture" follows within three words of the same clause."""
        for following in range(index, min(index + 3, len(self.all) - 1)):
            if re.search(r"[.,;:!?\n(]", self.gap(following)):
                return False
            if self.all[following + 1].lower in words("eponym_nouns"):
                return True
        return False

    def graded(self, index: int) -> bool:
        """Whether a grade follows: Garden III, Prague C2."""
        return _GRADE.match(self.text, self.all[index].end) is not None

    def known(self, index: int) -> bool:
        """Whether the word is English or medicine here."""
        word = self.all[index]
        if word.lower in words("surnames_of_medicine"):
            return self.eponym(index) or self.graded(index)
        return known(word.text) or (word.lower in self.lower_case and word.lower not in _names())


def known(word: str) -> bool:
    """Whether a word, or each part of a hyphenated one, is English, medicine or a country's name."""
    lower = word.lower()
    if lower in medicine() or lower.removesuffix("s") in medicine():
        return True
    if "-" in lower:
        parts = [part for part in lower.split("-") if part]
        return all(len(part) < 2 or known(part) or part in words("surnames_of_medicine") for part in parts)
    return len(lower) > 5 and lower not in _names() and _MEDICAL_ENDING.search(lower) is not None


@cache
def _names() -> frozenset[str]:
    given, family = people()
    return given | family


def is_given(word: Word) -> bool:
    return any(part in people()[0] for part in (word.lower, *word.lower.split("-")))


def is_family(word: Word) -> bool:
    return any(part in people()[1] for part in (word.lower, *word.lower.split("-")))


def _word(text: str, found: re.Match[str]) -> Word:
    word, start, end = found[0], found.start(), found.end()
    beside = text[start - 1 : start] + text[end : end + 1]
    if any(c.isdigit() or c in "_@/\\" for c in beside):
        shape = "code"
    elif len(word) == 1 and word.isupper():
        shape = "initial"
    elif len(word) > 1 and word.replace("'", "").replace("-", "").isupper():
        shape = "caps"
    elif _TITLE.match(word):
        shape = "title"
    else:
        shape = "lower" if word.islower() else "code"
    return Word(word, start, end, shape)
