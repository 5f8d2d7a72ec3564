"""Names of people: by what stands before or after them, by lists of names, by capitals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from annotation.deid.core import Category, Span
from annotation.deid.tokens import MONTHS, Words, is_family, is_given, known
from annotation.deid.words import words

_PARTICLES = frozenset("de da di do dos das del della van von der den ter ten la le el al bin ibn ben abu y e af av zu".split())
_TITLE = re.compile(
    r"\b(?:Mr|Mrs|Ms|Mx|Dr|Drs|Prof|Sr|Sra|Srta|Dott|Dra|Mme|Mlle|Herr|Frau|Senora?|mr|mrs|ms|dr|prof|MRS|PROF)\b\.?[ \t]+"
    r"|\b(?:Mr|Mrs|Ms|Dr)\.(?=[A-Z])"
)
_RANK = re.compile(
    r"\b(?:Miss|Mister|Professor|Doctor|Doktor|Nurse|Sergeant|Sgt\.?|Captain|Capt\.?|Lt\.?|Reverend|Rev\.?|Rabbi|Imam"
    r"|Sheikh|Sir|Dame|Lady|Lord|Judge|Officer|Midwife|Matron|Monsieur|Madame|MR\.?|DR\.?|MS\.?|Sister|Baby|Aunt|Uncle"
    r"|doctor|professor|nurse|miss|mister)[ \t]+(?:[Dd]r\.? )?"
)
_LABEL = re.compile(
    r"\b(?:patient(?:'s)?(?: full)?(?: name)?|pt\.?(?: name)?|(?:sur|fore|last |first |given |family |middle |maiden |full )?"
    r"names?(?: of (?:the )?(?:patient|child|mother|next of kin))?|alias|aka|a\.k\.a\.|subject|client|resident|contact"
    r"|referring(?: physician| doctor| clinician| provider| consultant| md)?|referrer|requested by|requesting physician"
    r"|ordering(?: physician| provider| doctor)?|ordered by|attending(?: physician| doctor| surgeon)?|consultant|gp|pcp"
    r"|(?:reporting |interpreting |reading )?radiologist|(?:reporting )?pathologist|(?:assistant )?surgeon|an(?:a?esthetist"
    r"|esthesiologist)|technologist|technician|sonographer|radiographer|operator|physician|provider|clinician|doctor"
    r"|author|witness(?:ed by)?|interpreter|guardian|next of kin|nok|emergency contact|informant|mother|father|wife|husband"
    r"|daughter|son|spouse|employer|responsible person|signature|signed|cc|attn|attention|to|from)\s?[:=]\s*",
    re.IGNORECASE,
)
_PHRASE = re.compile(
    r"\b(?:(?:seen|examined|reviewed|reported|dictated|signed|verified|authenticated|transcribed|read|interpreted|performed"
    r"|operated(?: on)?|discussed|referred|written|prepared|approved|co-?signed|assessed|treated|supervised|confirmed|witnessed"
    r"|accompanied|consented|communicated|relayed|given|handed over|phoned through|notified|acknowledged|attended|brought in)"
    r"(?: off| over| electronically| out)?\s*(?:by|with|from|to)\s*:?\s+"
    r"|(?:my|her|his|the patient's|patient) name is\s+|\bnamed\s+|\bcalled\s+|\bknown as\s+|\bI am\s+|\bI'm\s+|\bthis is\s+"
    r"|\bdear\s+|(?:regards|sincerely|faithfully|thanks|thank you|wishes|signed|hi|hello),?\s+|spoke (?:to|with)\s+"
    r"|speaking (?:to|with)\s+|\bask for\s+|\binformed\s+|\bnotified\s+|\bcontact\s+|\bc/o\s+|\bon behalf of\s+|\bper\s+|\battn\.?\s+)",
    re.IGNORECASE,
)
_PERSON = re.compile(
    r"\b(?:(?:grand|step|god)?(?:daughter|son|mother|father|child)|wife|husband|mom|mum|mummy|dad|daddy|sister|brother|aunt|uncle"
    r"|cousin|niece|nephew|partner|friend|carer|caregiver|neighbou?r|guardian|spouse|fiancee?|twin|baby|patient|pt|client"
    r"|colleague|nurse|midwife|gentleman|lady|woman|man|girl|boy|resident|consultant|physiotherapist|pharmacist|gp|doctor"
    r"|sonographer|radiographer|technologist|surgeon|radiologist|pathologist|[a-z]+ologist|interpreter|student|intern|registrar)"
    r"(?:'s name is)?[,:]?[ \t]+[(\"']?",
    re.IGNORECASE,
)
_CREDENTIAL = re.compile(
    r",?[ \t]+(?:M\.?D\b|MBBS\b|MBChB\b|Ph\.?D\b|RN\b|FRC[A-Z]\b|MRC[A-Z]+\b|FAC[A-Z]\b|DDS\b|DPM\b|PA-C\b|CRNA\b|PharmD\b|BSN\b)"
    r"|,[ \t]+(?:DO|NP|PA|RT|LPN|MS)\b"
)
_CARET = re.compile(r"[A-Za-z][A-Za-z'-]{0,40}(?:[ ][A-Za-z'-]{1,40}){0,2}(?:\^{1,4}[A-Za-z][A-Za-z'.-]{0,40}(?: [A-Z][A-Za-z'-]{1,40}\b(?=\^))?){1,4}")
_VERB = re.compile(
    r"(?:'s)?,?[ \t]+(?:(?:is|was) (?:a|an|the) |(?:is|was) (?:seen|admitted|discharged|referred|born|brought|taken|told|treated|scanned"
    r"|diagnosed|operated|transferred|started|given|reviewed|called|accompanied|aged)\b|aged? \d|\(?\d{2,3}[ ,-]?(?:y|year|yr)"
    r"|presents\b|presented\b|reports\b|reported\b|complains\b|complained\b|denies\b|denied\b|states\b|stated\b|underwent\b|lives\b"
    r"|works\b|says\b|said\b|attended\b|told\b|takes\b|thinks\b|called\b|phoned\b|asked\b|asks\b|weighs\b|feels\b|wants\b|came\b|went\b"
    r"|returned\b|developed\b|smokes\b|drinks\b|had been\b|has been\b|has had\b|has a\b|had a\b|fell\b|noticed\b|agreed\b|consented\b"
    r"|reviewed\b|dictated\b|signed\b|performed\b|examined\b|will\b|would\b|can\b|should\b)"
)


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
    """Lower-case words of the found names that give the person away elsewhere too; none that is English or medicine."""
    parts: set[str] = set()
    for span in spans:
        if span.category is Category.NAME:
            for _, word in Words(text[span.start : span.end]):
                parts |= {w for w in (word.lower, *word.lower.split("-")) if len(w) > 2 and not known(w)}
    return parts - _PARTICLES - words("surnames_of_medicine") - {"med", "mbbs", "phd", "jnr", "jr"}


def _ranges(text: str, every: Words) -> Iterator[tuple[int, int]]:
    for found in _TITLE.finditer(text):
        yield from _name(every, found.end(), free=True, lower=True)
    for found in _RANK.finditer(text):
        yield from _name(every, found.end(), listed=found[0].rstrip(". ") in ("MR", "DR", "MS"))
    for found in _LABEL.finditer(text):
        telling = re.search(r"name|patient|pt|alias", found[0], re.IGNORECASE) is not None
        yield from _name(every, found.end(), lower=telling, comma=True)
    for pattern in (_PHRASE, _PERSON):
        for found in pattern.finditer(text):
            yield from _name(every, found.end(), comma=True)
    for found in _CREDENTIAL.finditer(text):
        yield from _before(every, found.start())
    for found in _CARET.finditer(text):
        yield found.start(), found.end()
    yield from _runs(every)


def _name(
    every: Words, position: int, *, free: bool = False, lower: bool = False, comma: bool = False, listed: bool = False
) -> Iterator[tuple[int, int]]:
    """The name that begins at `position`.

    Args:
        free: the first word may be any; else none that is known, or on the list where `listed`.
        lower: it may be in small letters.
        comma: FAMILY, Given.
    """
    first = every.from_position(position)
    if first is None:
        return
    word = every.all[first]
    taken = word.proper or (word.shape == "initial" and re.match(r"\.? ?[A-Z]", every.gap(first) + _next(every, first)))
    if word.shape == "lower":
        taken = lower and len(word.text) > 2 and not known(word.text) and word.text not in _FUNCTION
        taken = taken and (free or is_given(word) or is_family(word))
    if not taken or (not free and word.shape != "initial" and every.known(first)) or (listed and not is_family(word)):
        if not (word.lower in _PARTICLES and word.proper is False and _next(every, first)[:1].isupper() and free):
            return
    yield word.start, every.all[_last(every, first, comma)].end


def _last(every: Words, first: int, comma: bool = False) -> int:
    """Index of the last word of the name that begins with word `first`."""
    last = index = first
    while index + 1 < len(every.all) and index - first < 6:
        gap, word, before = every.gap(index), every.all[index + 1], every.all[index]
        joined = re.fullmatch(r"[ \t]{1,2}|\.[ ]?", gap) is not None and ("." not in gap or before.shape == "initial" or len(before.text) < 3)
        joined = joined or (comma and index == first and re.fullmatch(r",[ ]?", gap) is not None and not every.known(index + 1))
        joined = joined or (gap == "-" and word.proper)
        if not joined:
            break
        index += 1
        if word.lower in _PARTICLES and word.shape == "lower":
            continue
        if word.shape == "initial" or (word.shape == "lower" and before.shape == "lower" and (is_given(before) and is_family(word)) and not known(word.text)):
            last = index
            continue
        if not word.proper or word.lower in MONTHS or (every.known(index) and not (is_given(before) and is_family(word))):
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
        if not inside or not (word.shape == "initial" or word.lower in _PARTICLES or (word.proper and not known(word.text))):
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
        if not (word.proper or initials) or (word.proper and every.known(index)) or word.lower in MONTHS:
            index += 1
            continue
        last = _last(every, index)
        run = every.all[index : last + 1]
        if _is_name(every, index, last):
            yield run[0].start, run[-1].end
        elif (pair := _comma_pair(every, index)) is not None:
            yield run[0].start, every.all[pair].end
        index = last + 1


def _is_name(every: Words, first: int, last: int) -> bool:
    run = [word for word in every.all[first : last + 1] if word.proper]
    listed = [word for word in run if is_given(word) or is_family(word)]
    if not run or every.eponym(last):
        return False
    if all(word.shape == "caps" for word in run):
        return len(run) > 1 and len(listed) == len(run) and any(is_given(word) for word in run)
    if _VERB.match(every.text, every.all[last].end):
        return bool(listed) or len(run) > 1 or (every.all[last].shape == "title" and not _is_plain_start(every, first))
    if len(run) > 1:
        return True
    if len(run) == 1 and last > first:  # J. Smith
        return bool(listed)
    return bool(listed) and not every.starts_sentence(first)


def _is_plain_start(every: Words, first: int) -> bool:
    word = every.all[first].lower
    return every.starts_sentence(first) and (word.endswith(("ing", "ed", "ly", "s")) or word in _FUNCTION or len(word) < 4)


def _comma_pair(every: Words, index: int) -> int | None:
    """Index of Given in FAMILY, Given."""
    if index + 1 >= len(every.all) or every.gap(index) not in (", ", ","):
        return None
    family, given = every.all[index], every.all[index + 1]
    if is_family(family) and given.proper and is_given(given) and not known(given.text) and family.shape != "initial":
        return _last(every, index + 1)
    return None


def _next(every: Words, index: int) -> str:
    return every.all[index + 1].text if index + 1 < len(every.all) else ""


_FUNCTION = frozenset(
    """said says told asked asks wants went came saw sees thinks thought ordered orders performed reviewed noted notes states
    stated advised recommends recommended called calls also never always just now then who whom whose about again because but
    and or so yet nor if when while as at by for in of on to up with from into over off out upon the a an this that these those
    i you he she it we they me him us them my your his its our their is am are was were be been being do does did have has had
    will would shall should may might must can could not no yes okay ok hi hello thanks please let see look take give get go
    got make made feel felt left right back here there where why how what which some any every each other another such own same
    however therefore moreover furthermore although though since until unless despite whether both either neither many much few
    several most least less more only even still already often sometimes usually perhaps maybe indeed overall nothing something
    everything anything nobody somebody everyone anyone mark note consider given following based""".split()
)
