"""Places smaller than a state, and institutions, by capitals and what stands beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from annotation.deid.core import Category, Span
from annotation.deid.tokens import Words, is_family, is_given, known
from annotation.deid.words import words

_LIVES = re.compile(
    r"\b(?:liv(?:es|ing|ed)\s(?:alone\s|with\s\w+\s(?:\w+\s)?)?(?:in|at|near|outside|on)|resid(?:es|ing|ed|ent)\s(?:in|at|of|near)|mov(?:ed|ing)\s(?:to|from|here\sfrom)"
    r"|(?:comes?|came|coming|travell?(?:ed|ing|s)?|trip|flew|flight|drove|returned|return|back|transfer(?:red)?|referred|sent|brought|flown|airlifted|originally|originates|native|immigrated|emigrated|evacuated)\s(?:\w+\s)?(?:from|to|of)"
    r"|born\s(?:and\sraised\s)?(?:in|at)|raised\sin|grew\sup\sin|work(?:s|ed|ing)?\s(?:\w+\s){0,3}(?:in|at|for)|teach(?:es|er)?\s(?:in|at)|employ(?:ed|er)\s?(?:at|by|in|:)|based\s(?:in|at)|located\s(?:in|at)|home\sin|house\sin|farm\s(?:in|near|outside)"
    r"|admitted\s(?:to|at)|treated\s(?:in|at)|seen\s(?:in|at)|operated\s(?:in|at)|scanned\s(?:in|at)|performed\s(?:in|at)|done\s(?:in|at)|diagnosed\s(?:in|at)|visit(?:ed|ing|s|ing\sfamily\sin)|holiday\s(?:in|to)|vacation\s(?:in|to)|city|town|village|hometown|municipality|suburb|district|address|location|site|facility|institution|hospital|employer)"
    r"\s?(?:of|is|:)?\s(?:the\s)?(?:town\sof\s|city\sof\s|village\sof\s|nearby\s|rural\s|downtown\s|central\s|greater\s)?",
    re.IGNORECASE,
)
_FROM = re.compile(
    r"\b(?:from|near|outside|via|in|at|to)\s(?:the\s)?(?:town\sof\s|city\sof\s|village\sof\s|nearby\s|rural\s|downtown\s)?"
)


_INSIDE = re.compile(r" |'s |\. |, ?(?=LLC|Inc|Ltd)|s' | & ")
_LINKS = frozenset({"of", "for", "the", "at", "and"})
_HOLY = frozenset(
    {"St", "Saint", "Mount", "Royal", "Queen", "King", "Memorial", "Mercy", "Sacred", "Holy", "General"}
)


class Places:
    """Cities, hospitals, schools, employers: by capitals and what stands beside them."""

    def find(self, text: str) -> Iterator[Span]:
        every = Words(text)
        for start, end in (*_institutions(every), *_after(every), *_cities(every)):
            yield Span(Category.PLACE, start, end)


def _institutions(every: Words) -> Iterator[tuple[int, int]]:
    """Names that end in "Hospital" and the like, or go on after "University of"."""
    kinds = words("institutions") | words("centres")
    for index, word in every:
        if not word.proper or word.lower not in kinds or (word.shape == "caps" and len(word.text) < 4):
            continue
        first, last = _institution_start(every, index), _institution_end(every, index)
        named = [w for i, w in enumerate(every.all[first : last + 1], first) if i != index and w.proper]
        own = [w for w in named if not known(w.text) or (w.start > word.end and w.lower in words("places"))]
        if own or (len(named) > 1 and any(w.text in _HOLY for w in named)):
            yield every.all[first].start, every.all[last].end


def _institution_start(every: Words, index: int) -> int:
    first = index
    while first > 0 and index - first < 6 and _INSIDE.fullmatch(every.gap(first - 1)):
        before = every.all[first - 1]
        if not before.proper and before.lower not in ("of", "and", "the", "de", "da", "la"):
            break
        first -= 1
    while first < index and (
        not every.all[first].proper or every.all[first].lower in ("the", "at", "in", "from")
    ):
        first += 1
    return first


def _institution_end(every: Words, index: int) -> int:
    last = index
    if re.match(r" (?:of|for|at) (?:the )?[A-Z]", every.text[every.all[index].end :][:12]):
        for following in range(index + 1, min(index + 6, len(every.all))):
            word = every.all[following]
            if re.search(r"[.;:\n]", every.gap(following - 1)) or not (word.proper or word.lower in _LINKS):
                break
            if word.proper:
                last = following
    return last


def _after(every: Words) -> Iterator[tuple[int, int]]:
    """Unknown capitalised words after "lives in", "referred from" and the like."""
    for found in _LIVES.finditer(every.text):
        first = every.from_position(found.end())
        if (
            first is None
            or not every.all[first].proper
            or every.known(first)
            or (every.all[first].shape == "caps" and len(every.all[first].text) < 4)
        ):
            continue
        yield every.all[first].start, every.all[_run(every, first)].end


def _cities(every: Words) -> Iterator[tuple[int, int]]:
    for index, word in every:
        if (
            word.proper
            and word.lower in words("cities")
            and not (every.eponym(index) or every.graded(index))
            and not _person(every, index)
        ):
            yield word.start, word.end
    for found in _FROM.finditer(every.text):
        first = every.from_position(found.end())
        if (
            first is not None
            and every.all[first].shape == "title"
            and not every.known(first)
            and not every.eponym(first)
        ):
            last = _run(every, first)
            if not any(is_given(w) for w in every.all[first : last + 1]) and found[0].startswith(
                ("from", "near", "outside", "at")
            ):
                yield every.all[first].start, every.all[last].end


def _person(every: Words, index: int) -> bool:
    """A given name right before it: Florence Paris is a person."""
    return (
        index > 0
        and every.gap(index - 1) == " "
        and is_given(every.all[index - 1])
        and not known(every.all[index - 1].text)
        and is_family(every.all[index])
    )


def _run(every: Words, first: int) -> int:
    last = first
    while last + 1 < len(every.all) and last - first < 4 and every.gap(last) in (" ", ", ", "-"):
        following = every.all[last + 1]
        if (
            not following.proper
            or (every.known(last + 1) and following.lower not in words("places"))
            or following.lower in words("general")
        ):
            break
        last += 1
    return last
