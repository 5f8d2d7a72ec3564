"""Names of people: by what stands before or after them, by lists of names, by capitals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from annotation.deid.core import Category, Span
from annotation.deid.name_cues import CARET, CREDENTIAL, HUMAN, LABEL, PERSON, PHRASE, RANK, TITLE, VERB
from annotation.deid.tokens import Words, is_family, is_given, known
from annotation.deid.words import words


class Names:
    """By titles, labels, phrases, relations, credentials, verbs, lists of names."""

    def find(self, text: str) -> Iterator[Span]:
        every = Words(text)
        for start, end in _ranges(text, every):
            yield Span(Category.NAME, start, end)


class KnownNames:
    """Names that other parts of the same item gave away."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)

    def find(self, text: str) -> Iterator[Span]:
        if not self._names:
            return
        every = Words(text)
        for index, word in every:
            parts = {word.lower, *word.lower.split("-")}
            if word.shape != "code" and parts & self._names and not every.eponym(index):
                yield Span(Category.NAME, word.start, word.end)


def telling_parts(text: str, spans: Iterable[Span]) -> set[str]:
    """Lower-case words of the found names that give the person away elsewhere too; no English ones.

    Eponyms are among them: where a patient is called Parkinson, only "Parkinson disease" stays.
    """
    eponyms = words("eponyms") | words("surnames_of_medicine")
    parts: set[str] = set()
    for span in spans:
        if span.category is Category.NAME:
            for _, word in Words(text[span.start : span.end]):
                pieces = {word.lower, *word.lower.split("-")}
                parts |= {w for w in pieces if len(w) > 2 and (w in eponyms or not known(w))}
    return parts - words("particles")


def _ranges(text: str, every: Words) -> Iterator[tuple[int, int]]:
    for found in TITLE.finditer(text):
        yield from _name(every, found.end(), free=True, lower=True)
    for found in RANK.finditer(text):
        yield from _name(every, found.end(), listed=found[0].rstrip(". ") in ("MR", "DR", "MS"))
    for found in LABEL.finditer(text):
        telling = re.search(r"name|patient|pt|alias", found[0], re.IGNORECASE) is not None
        yield from _name(every, found.end(), lower=telling, comma=True)
    for pattern in (PHRASE, PERSON):
        for found in pattern.finditer(text):
            yield from _name(every, found.end(), comma=True, lower=_lower_pair(every, found.end()))
    for found in CREDENTIAL.finditer(text):
        yield from _before(every, found.start())
    for found in CARET.finditer(text):
        yield found.start(), found.end()
    yield from _runs(every)


def _name(
    every: Words,
    position: int,
    *,
    free: bool = False,
    lower: bool = False,
    comma: bool = False,
    listed: bool = False,
) -> Iterator[tuple[int, int]]:
    """The name that begins at `position`.

    Args:
        free: the first word may be any; else none that is known, or on the list where `listed`.
        lower: it may be in small letters.
        comma: FAMILY, Given.
    """
    first = every.from_position(position)
    if first is not None and _begins_name(every, first, free, lower, listed):
        yield every.all[first].start, every.all[_last(every, first, comma)].end


def _begins_name(every: Words, first: int, free: bool, lower: bool, listed: bool) -> bool:
    word = every.all[first]
    if word.shape == "initial":
        return not listed and re.match(r"\.? ?[A-Z]", every.gap(first) + _next(every, first)) is not None
    if word.shape == "lower" and word.lower in words("particles"):
        following = next((w for w in every.all[first : first + 4] if w.lower not in words("particles")), word)
        return free and following.proper
    if word.shape == "lower":
        plain = len(word.text) < 3 or known(word.text) or word.text in words("function")
        return lower and not plain and (free or is_given(word) or is_family(word))
    if not word.proper or (listed and not (is_family(word) or is_given(word))):
        return False
    return free or not every.known(first)


def _lower_pair(every: Words, position: int) -> bool:
    """A given and a family name in small letters: john smith."""
    first = every.from_position(position)
    pair = [] if first is None else every.all[first : first + 2]
    return (
        len(pair) == 2
        and all(word.shape == "lower" and not known(word.text) for word in pair)
        and is_given(pair[0])
        and is_family(pair[1])
    )


def _last(every: Words, first: int, comma: bool = False) -> int:
    """Index of the last word of the name that begins with word `first`."""
    last = index = first
    while index + 1 < len(every.all) and index - first < 6:
        gap, word, before = every.gap(index), every.all[index + 1], every.all[index]
        joined = re.fullmatch(r"[ \t]{1,2}|\.[ ]?", gap) is not None and (
            "." not in gap or before.shape == "initial" or len(before.text) < 3
        )
        joined = joined or (
            comma
            and index == first
            and re.fullmatch(r",[ ]?", gap) is not None
            and not every.known(index + 1)
        )
        joined = joined or (gap == "-" and word.proper)
        if word.shape == "caps" and before.shape == "title":  # an abbreviation: My GP; but John SMITH
            joined = joined and (is_family(word) or is_given(word))
        if not joined:
            break
        index += 1
        if word.lower in words("particles") and word.shape == "lower":
            continue
        if word.shape == "initial" or (
            word.shape == "lower"
            and before.shape == "lower"
            and (is_given(before) and is_family(word))
            and not known(word.text)
        ):
            last = index
            continue
        if (
            not word.proper
            or word.lower in words("months")
            or (every.known(index) and not (is_given(before) and is_family(word)))
        ):
            break
        last = index
    return last


def _before(every: Words, position: int) -> Iterator[tuple[int, int]]:
    """The name that ends at `position`."""
    ending = [index for index, word in every if word.end == position]
    start = ending[0] if ending else -1
    index = start
    while index >= 0 and start - index < 5:
        word = every.all[index]
        inside = index == start or re.fullmatch(r"[ \t]{1,2}|\.[ ]?", every.gap(index)) is not None
        if not inside or not (
            word.shape == "initial"
            or word.lower in words("particles")
            or (word.proper and not known(word.text))
        ):
            break
        index -= 1
    if start >= 0 and index < start:
        yield every.all[index + 1].start, position


def _runs(every: Words) -> Iterator[tuple[int, int]]:
    """Capitalised words that are on lists of names, or act as people."""
    index = 0
    while index < len(every.all):
        word = every.all[index]
        initials = word.shape == "initial" and re.fullmatch(r"\.? ?", every.gap(index)) is not None
        if (
            not (word.proper or initials)
            or (word.proper and every.known(index) and not _acts(every, index))
            or word.lower in words("months")
        ):
            index += 1
            continue
        last = _last(every, index)
        run = every.all[index : last + 1]
        if (pair := _comma_pair(every, index)) is not None:
            yield run[0].start, every.all[pair].end
        elif _is_name(every, index, last):
            yield run[0].start, run[-1].end
        index = last + 1


def _acts(every: Words, index: int) -> bool:
    """Whether a name that diseases bear does what people alone do: "Barrett asked for a copy"."""
    word = every.all[index]
    borne = word.lower in words("eponyms") or word.lower in words("surnames_of_medicine")
    return borne and HUMAN.match(every.text, word.end) is not None


def _is_name(every: Words, first: int, last: int) -> bool:
    run = [word for word in every.all[first : last + 1] if word.proper]
    listed = [word for word in run if is_given(word) or is_family(word)]
    if not run or every.eponym(last):
        return False
    if len(run) == 1 and _acts(every, last):
        return True
    if len(run) == 1 and run[0].shape == "caps" and len(run[0].text) > 4 and every.lower_case:
        return is_given(run[0])  # a name in capitals among small letters
    if all(word.shape == "caps" for word in run):
        return len(run) > 1 and len(listed) == len(run) and any(is_given(word) for word in run)
    if VERB.match(every.text, every.all[last].end):
        return (
            bool(listed)
            or len(run) > 1
            or (every.all[last].shape == "title" and not _is_plain_start(every, first))
        )
    if len(run) > 1:
        return True
    if is_given(run[0]) and re.match(r" ?:\s", every.text[run[0].end : run[0].end + 3]):  # who speaks
        return True
    if len(run) == 1 and last > first:  # J. Smith
        return bool(listed) or "." in every.gap(first)
    return bool(listed) and not every.starts_sentence(first)


def _is_plain_start(every: Words, first: int) -> bool:
    word = every.all[first].lower
    return every.starts_sentence(first) and (
        word.endswith(("ing", "ed", "ly", "s")) or word in words("function") or len(word) < 4
    )


def _comma_pair(every: Words, index: int) -> int | None:
    """Index of the last word of Given in FAMILY, Given, where either is on its list."""
    if index + 1 >= len(every.all) or every.gap(index) not in (", ", ","):
        return None
    family, given = every.all[index], every.all[index + 1]
    if not (family.proper and given.proper) or known(given.text):
        return None
    return _last(every, index + 1) if is_family(family) or is_given(given) else None


def _next(every: Words, index: int) -> str:
    return every.all[index + 1].text if index + 1 < len(every.all) else ""
