"""Places smaller than a state, and institutions."""

from __future__ import annotations

import re
from collections.abc import Iterator

from annotation.deid.core import Category, Span
from annotation.deid.patterns import Pattern, Patterns
from annotation.deid.tokens import Words, is_family, is_given, known
from annotation.deid.words import words

_CAP = r"[A-Z][A-Za-z'.-]{1,24}"
_WAY = (
    r"(?:Street|St|Avenue|Ave|Road|Rd|Lane|Ln|Drive|Dr|Boulevard|Blvd|Court|Ct|Place|Pl|Way|Terrace|Ter|Close|Crescent|Cres"
    r"|Square|Sq|Parkway|Pkwy|Highway|Hwy|Row|Gardens|Grove|Mews|Circle|Cir|Trail|Trl|Alley|Walk|Heights|Hill|Quay|Plaza|Loop|Rise|Nagar|Marg)"
)
_STATE = (
    r"(?:A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|RI|S[CD]|T[NX]|UT|V[AT]|W[AIVY])"
)
_REST = rf"(?:,?\s(?:Apt|Apartment|Unit|Suite|Ste|Flat|Room|Floor|No)\b\.?\s?\#?\w{{1,6}})?(?:,\s?{_CAP}(?:\s{_CAP}){{0,2}}(?=,|\s{_STATE}\b|\s\d))?(?:,?\s{_STATE}\b)?(?:,?\s\d{{5}}(?:-\d{{4}})?\b)?"

ADDRESSES = Patterns(
    (
        Pattern.of(Category.PLACE, rf"(?<![\w.])(?P<x>\d{{1,5}}[A-Za-z]?,?\s(?:[NSEW]\.?\s)?(?:{_CAP}\s|\d{{1,3}}(?:st|nd|rd|th)\s){{1,4}}{_WAY}\b\.?{_REST})", case=True),
        Pattern.of(Category.PLACE, rf"(?<!\w)(?P<x>{_CAP}(?:\s{_CAP}){{0,2}}\s(?:Street|Avenue|Ave|Road|Rd|Lane|Boulevard|Blvd|Terrace|Crescent|Parkway|Highway|Mews)\b\.?(?:\s\d{{1,4}}\b)?{_REST})", case=True),
        Pattern.of(Category.PLACE, r"(?<!\w)(?P<x>[A-Z][a-z]{2,24}(?:stra(?:ss|s)e|str\.|weg|platz|gasse|allee|gatan|vagen|straat|laan|plein|utca)\s\d{1,4}[a-z]?(?:,?\s\d{4,5}\s[A-Z][a-z]+)?)", case=True),
        Pattern.of(Category.PLACE, rf"(?<!\w)(?P<x>(?:\d{{1,4}}(?:\s?bis)?,?\s)?(?:[Rr]ue|[Aa]venue|[Bb]oulevard|[Pp]lace|Calle|Avenida|Av\.|Plaza|Via|Viale|Piazza|Corso|Rua|Travessa|ul\.|Jalan|Jl\.|Passeig)\s(?:(?:de|del|della|di|du|des|la|las|los|do|da|dos|das)\s){{0,2}}(?:l'|d')?{_CAP}(?:\s{_CAP}){{0,2}}(?:,?\s(?:n\.?\s?)?\d{{1,4}}\b)?)", lambda f: any(c.isdigit() for c in f["x"]) or f["x"].startswith(("Calle", "Avenida", "Rua", "Jalan", "rue", "Rue")), case=True),
        Pattern.of(Category.PLACE, r"\b(?P<x>P\.?\s?O\.?\s?Box\s\d{1,7}|postfach\s\d{1,7}|apartado\s\d{1,6})\b"),
        Pattern.of(Category.PLACE, rf"(?<!\w)(?P<x>{_CAP}(?:\s{_CAP}){{0,2}},?\s{_STATE}(?:,?\s\d{{5}}(?:-\d{{4}})?)?)(?![\w-])", lambda f: not known(re.split(r"[\s,]", f["x"])[0]) or f["x"][-5:].isdigit(), case=True),
        Pattern.of(Category.PLACE, rf"(?<!\w){_STATE}\s(?P<x>\d{{5}}(?:-\d{{4}})?)(?!\w)", case=True),
        Pattern.of(Category.PLACE, r"\b(?:zip(?:\s?code)?|postal\s?code|post\s?code|postcode|plz|cap|pin\s?code)\s?(?:is|:|=|of)?\s{0,2}(?P<x>[A-Z]{0,2}\d[A-Z0-9]{1,4}(?:[\s-]?[A-Z0-9]{2,4})?)\b"),
        Pattern.of(Category.PLACE, r"(?<![\w-])(?P<x>[A-Z]{1,2}\d[A-Z\d]?\s\d(?!MM|CM|ML|MG|KG|DL|PM|AM|HZ)[ABD-HJLNP-UW-Z]{2}|[ABCEGHJ-NPRSTVXY]\d[A-Z]\s\d[A-Z]\d)(?!\w)", case=True),
        Pattern.of(Category.PLACE, r"(?<![\w.])(?P<x>-?\d{1,2}\.\d{4,8}\s?°?\s?[NS]?,\s?-?\d{1,3}\.\d{4,8}\s?°?\s?[EW]?)(?!\w)"),
        Pattern.of(Category.PLACE, rf"(?<!\w)(?P<x>{_CAP}(?:\s{_CAP})?\s(?:County|Borough|Township|Parish|Precinct))\b", lambda f: not known(f["x"].split()[0]), case=True),
        Pattern.of(Category.PLACE, r"\b(?:room|bed|ward|bay|apartment|apt|flat|unit\#)\s(?:no\.?\s?|number\s|\#)?(?P<x>\d{1,4}[A-Z]?(?:-\d{1,3})?)\b(?!\s?(?:air|mm|ml|cm|rest|days?|hours?|°))", lambda f: f[0][0].isupper() or f[0].lower().startswith(("apartment", "apt", "flat", "room ", "bed "))),
    )
)

_INSTITUTION = frozenset(
    """hospital hospitals clinic infirmary healthcare university institute hospice polyclinic sanatorium school church college academy
    practice surgery pharmacy laboratory laboratories ltd inc llc gmbh corporation corp klinikum krankenhaus spital hopital ospedale
    prison synagogue mosque temple factory bakery restaurant hotel airport mill""".split()
)
_CENTRE = frozenset("center centre foundation trust home group associates imaging health village court house partners system station".split())
_LIVES = re.compile(
    r"\b(?:liv(?:es|ing|ed)\s(?:alone\s|with\s\w+\s(?:\w+\s)?)?(?:in|at|near|outside|on)|resid(?:es|ing|ed|ent)\s(?:in|at|of|near)|mov(?:ed|ing)\s(?:to|from|here\sfrom)"
    r"|(?:comes?|came|coming|travell?(?:ed|ing|s)?|trip|flew|flight|drove|returned|return|back|transfer(?:red)?|referred|sent|brought|flown|airlifted|originally|originates|native|immigrated|emigrated|evacuated)\s(?:\w+\s)?(?:from|to|of)"
    r"|born\s(?:and\sraised\s)?(?:in|at)|raised\sin|grew\sup\sin|work(?:s|ed|ing)?\s(?:\w+\s){0,3}(?:in|at|for)|teach(?:es|er)?\s(?:in|at)|employ(?:ed|er)\s?(?:at|by|in|:)|based\s(?:in|at)|located\s(?:in|at)|home\sin|house\sin|farm\s(?:in|near|outside)"
    r"|admitted\s(?:to|at)|treated\s(?:in|at)|seen\s(?:in|at)|operated\s(?:in|at)|scanned\s(?:in|at)|performed\s(?:in|at)|done\s(?:in|at)|diagnosed\s(?:in|at)|visit(?:ed|ing|s|ing\sfamily\sin)|holiday\s(?:in|to)|vacation\s(?:in|to)|city|town|village|hometown|municipality|suburb|district|address|location|site|facility|institution|hospital|employer)"
    r"\s?(?:of|is|:)?\s(?:the\s)?(?:town\sof\s|city\sof\s|village\sof\s|nearby\s|rural\s|downtown\s|central\s|greater\s)?",
    re.IGNORECASE,
)
_FROM = re.compile(r"\b(?:from|near|outside|via|in|at|to)\s(?:the\s)?(?:town\sof\s|city\sof\s|village\sof\s|nearby\s|rural\s|downtown\s)?")


class Places:
    """Cities, hospitals, schools, employers: by capitals and what stands beside them."""

    def find(self, text: str) -> Iterator[Span]:
        every = Words(text)
        for start, end in (*_institutions(every), *_after(every), *_cities(every)):
            yield Span(Category.PLACE, start, end)


def _institutions(every: Words) -> Iterator[tuple[int, int]]:
    for index, word in every:
        if not word.proper or word.lower not in _INSTITUTION | _CENTRE or (word.shape == "caps" and len(word.text) < 4 and word.lower != "llc"):
            continue
        first = index
        while first > 0 and index - first < 6 and re.fullmatch(r"[ ]|'s |\. |, ?(?=LLC|Inc|Ltd)|s' | & ", every.gap(first - 1)):
            before = every.all[first - 1]
            if not before.proper and before.lower not in ("of", "and", "the", "de", "da", "la"):
                break
            first -= 1
        while first < index and (not every.all[first].proper or every.all[first].lower in ("the", "at", "in", "from")):
            first += 1
        own = [w for w in every.all[first:index] if w.proper and not known(w.text)]
        last = index
        if word.lower == "university" or word.lower in ("hospital", "institute", "school", "college", "church"):
            if re.match(r" (?:of|for|at) (?:the )?[A-Z]", every.text[word.end : word.end + 10]):
                tail = [w for w in every.all[index + 1 : index + 6] if w.start - word.end < 60]
                for offset, follower in enumerate(tail, index + 1):
                    if not (follower.proper or follower.lower in ("of", "for", "the", "at", "and")) or "\n" in every.gap(offset - 1) or re.search(r"[.;:]", every.gap(offset - 1)):
                        break
                    if follower.proper:
                        last = offset
                own += [w for w in every.all[index + 1 : last + 1] if w.proper and (not known(w.text) or w.lower in words("places") or w.lower in words("eponyms"))]
        if own or any(w.text in ("St", "Saint", "Mount", "Royal", "Queen", "King", "Memorial", "Mercy", "Sacred", "Holy", "General") for w in every.all[first:index] if index - first > 1):
            yield every.all[first].start, every.all[last].end


def _after(every: Words) -> Iterator[tuple[int, int]]:
    """Unknown capitalised words after "lives in", "referred from" and the like."""
    for found in _LIVES.finditer(every.text):
        first = every.from_position(found.end())
        if first is None or not every.all[first].proper or every.known(first) or every.all[first].shape == "caps" and len(every.all[first].text) < 4:
            continue
        yield every.all[first].start, every.all[_run(every, first)].end


def _cities(every: Words) -> Iterator[tuple[int, int]]:
    for index, word in every:
        if word.proper and word.lower in words("cities") and not every.eponym(index) and not _person(every, index):
            yield word.start, word.end
    for found in _FROM.finditer(every.text):
        first = every.from_position(found.end())
        if first is not None and every.all[first].shape == "title" and not every.known(first) and not every.eponym(first):
            last = _run(every, first)
            if not any(is_given(w) for w in every.all[first : last + 1]) and found[0].startswith(("from", "near", "outside", "at")):
                yield every.all[first].start, every.all[last].end


def _person(every: Words, index: int) -> bool:
    """A given name right before it: Florence Paris is a person."""
    return index > 0 and every.gap(index - 1) == " " and is_given(every.all[index - 1]) and not known(every.all[index - 1].text) and is_family(every.all[index])


def _run(every: Words, first: int) -> int:
    last = first
    while last + 1 < len(every.all) and last - first < 4 and every.gap(last) in (" ", ", ", "-"):
        following = every.all[last + 1]
        if not following.proper or (every.known(last + 1) and following.lower not in words("places")) or following.lower in words("general"):
            break
        last += 1
    return last
