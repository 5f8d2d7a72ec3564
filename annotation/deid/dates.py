"""Dates finer than a year, and ages over 89."""

from __future__ import annotations

import re

from annotation.deid.core import Category
from annotation.deid.patterns import Pattern, Patterns

_LONG = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?|januar|februar|maerz|marz|juni|juli|oktober|dezember|janvier|fevrier|mars|avril|mai"
    r"|juin|juillet|aout|septembre|octobre|novembre|decembre|enero|febrero|marzo|abril|mayo|junio|julio|agosto"
    r"|septiembre|octubre|noviembre|diciembre|gennaio|febbraio|aprile|maggio|giugno|luglio|settembre|ottobre|dicembre)"
)
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_MONTH = r"(?:0?[1-9]|1[0-2])"
_YEAR = r"(?:1[89]\d\d|20\d\d)"
_WEEKDAY = r"(?:(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?\.?,?\s+(?:the\s+)?)?"
_CLOCK = r"(?:[T,]?\s{0,2}(?:at\s|@\s?)?(?:[01]?\d|2[0-3])[:.]?[0-5]\d(?:[:.][0-5]\d(?:\.\d{1,6})?)?\s?(?:[ap]\.?m\b\.?|h(?:rs?|ours)?\b|z\b|[+-]\d\d:?\d\d|utc|gmt|est|pst|cet)?)?"
_ORDINAL = r"(?:st|nd|rd|th)?"
_NOT_IN = r"(?<![\w./:-])"
_END = r"(?![\w]|[./:-]\d)"
_ANNOUNCED = (
    r"(?:\b(?:on|dated?|dob|d\.o\.b\.?|doa|dod|since|until|till|from|seen|admitted|discharged|exam(?:ination)?|scan(?:ned)?|study|"
    r"prior|visit(?:ed)?|appointment|appt|surgery|operation|born|birthday|died|follow-?up|due|expiry|before|after|through|thru)"
    r"(?:\s(?:on|of|date|is|was|dated|from|for))?\s?:?\s{0,2}|\bbetween\s|\bdate(?:\sof\s\w{3,12}){0,2}\s?[:=]?\s{0,2})"
)


def _plausible(found: re.Match[str]) -> bool:
    """Two of the numbers are a day and a month."""
    numbers = [int(n) for n in re.findall(r"\d+", found["date"])][:3]
    small = [n for n in numbers if n <= 31]
    return len(small) >= 2 and any(1 <= n <= 12 for n in small) and all(n > 0 for n in numbers[:1])


def _compact(found: re.Match[str]) -> bool:
    digits = found["x"]
    day, month = int(digits[6:8]), int(digits[4:6])
    return 1 <= month <= 12 and 1 <= day <= 31


def _capital(found: re.Match[str]) -> bool:
    """ "may" and "march" in small letters are verbs."""
    name = found["m"]
    return (
        name.lower() not in ("may", "march", "mar", "mars", "mai", "dec", "sept", "jan") or name[0].isupper()
    )


_TENS = r"(?:nine(?:ty|ties))"
_ONES = r"(?:one|two|three|four|five|six|seven|eight|nine)"
_OLD = r"(?:9\d|1[0-2]\d)"

DATES = Patterns(
    (
        # 2021-03-12, 2021/3/12, 2021.03.12, with a time
        Pattern.of(
            Category.DATE,
            rf"{_NOT_IN}(?P<x>{_YEAR}(?P<s>[-/.])\s?{_MONTH}(?P=s)\s?{_DAY}(?!\d){_CLOCK}){_END}",
        ),
        # 12/03/2021, 12.3.21, 03-12-2021
        Pattern.of(
            Category.DATE,
            rf"(?<![\w/:-])(?<!\d\.)(?P<x>(?P<date>\d{{1,2}}\s?(?P<s>[-/.])\s?\d{{1,2}}\s?(?P=s)\s?(?:{_YEAR}|\d\d))(?!\d){_CLOCK}){_END}",
            _plausible,
        ),
        # 12 March 2021, 12th of March, 12-Mar-21
        Pattern.of(
            Category.DATE,
            rf"(?<![\w/])(?P<x>{_WEEKDAY}{_DAY}{_ORDINAL}(?:\.?\s?|[-/])(?:day\sof\s|of\s|de\s)?(?P<m>{_LONG})\b\.?"
            rf"(?:(?:[,\s]{{1,2}}|[-/])(?:of\s|de[l]?\s)?(?:{_YEAR}|'?\d\d\b(?!\s?(?:mg|ml|mm|cm|kg|g\b|%|year|y/?o|m\b|f\b))))?{_CLOCK})(?!\w)",
            _capital,
        ),
        # March 12, 2021; Mar 12; March 12th at 14:00
        Pattern.of(
            Category.DATE,
            rf"(?<![\w/])(?P<x>{_WEEKDAY}(?P<m>{_LONG})\b\.?[\s-]{{0,2}}(?:the\s)?{_DAY}{_ORDINAL}(?!\w|[./]\d|\s?(?:mg|ml|mm|cm|kg|g\b|%))"
            rf"(?:(?:,?\s{{1,2}}|-){_YEAR}(?!\d))?{_CLOCK})(?!\w)",
            _capital,
        ),
        # 2021 Mar 12; 12 03 2021; on the 5th
        Pattern.of(
            Category.DATE,
            rf"{_NOT_IN}(?P<x>{_YEAR}[\s,/-]{{1,2}}(?P<m>{_LONG})\b\.?[\s/-]{_DAY}){_END}",
            _capital,
        ),
        Pattern.of(
            Category.DATE, rf"{_NOT_IN}(?P<x>(?P<date>{_DAY}\s{_DAY}\s(?:19|20)\d\d)){_END}", _plausible
        ),
        Pattern.of(Category.DATE, rf"\bon\sthe\s(?P<x>{_DAY}(?:st|nd|rd|th))(?=[.,;]|\Z)"),
        # March 2021, Mar-21, March of 2021
        Pattern.of(
            Category.DATE,
            rf"(?<![\w/])(?P<x>(?P<m>{_LONG})\b\.?(?:,?\s{{1,2}}(?:of\s|de\s)?|[-/'])(?:{_YEAR}|'\d\d))(?!\w)",
            _capital,
        ),
        Pattern.of(Category.DATE, rf"(?<![\w/])(?P<x>(?P<m>{_LONG})[-/']\d\d)(?!\w)", _capital),
        # a month alone: in March
        Pattern.of(
            Category.DATE,
            rf"\b(?:in|since|until|by|last|next|this|of|during|early|late|mid|from|to|and|before|after)[\s-](?P<x>(?P<m>{_LONG}))\b(?![\s-]?[a-z]*ing\b)",
            lambda found: (
                found["m"][0].isupper() and len(found["m"]) > 2 and found["m"] not in ("Mar", "Mars", "Mai")
            ),
        ),
        # 03/2021, 2021-03
        Pattern.of(Category.DATE, rf"{_NOT_IN}(?P<x>{_MONTH}[/-](?:19|20)\d\d){_END}"),
        Pattern.of(Category.DATE, rf"{_NOT_IN}(?P<x>(?:19|20)\d\d[/-](?:0[1-9]|1[0-2])){_END}"),
        # 20210312, with or without a time, as DICOM writes it
        Pattern.of(
            Category.DATE, rf"(?<![\w.])(?P<x>(?:19|20)\d{{6}}(?:\d{{4,6}}(?:\.\d{{1,6}})?)?){_END}", _compact
        ),
        # on 3/12; DOB 3-12; never 4/5 strength
        Pattern.of(
            Category.DATE,
            rf"{_ANNOUNCED}(?P<x>(?P<date>{_DAY}\s?[/.-]\s?{_DAY})(?:\s?(?:-|to|and|until)\s?{_DAY}[/.-]{_DAY})?)"
            r"(?![\w%]|[/.-]\d|\s?(?:-|to)\s?\d|\s(?:strength|power|murmur|pain|score|vision|systolic|cores?|nodes?|cm|mm|mg|ml|hpf|points?|months?|weeks?|days?|years?|times|of\b))",
            _plausible,
        ),
        # a day and the season or feast that tells it
        Pattern.of(Category.DATE, rf"\b(?P<x>(?:spring|summer|autumn|fall|winter)(?:\sof)?,?\s{_YEAR})\b"),
        Pattern.of(Category.DATE, rf"\b(?P<x>Q[1-4][\s/-]?{_YEAR}|{_YEAR}[\s/-]?Q[1-4])\b"),
        Pattern.of(
            Category.DATE,
            r"\b(?P<x>(?:christmas|new\syear'?s?|boxing|thanksgiving|independence|valentine'?s|st\.?\spatrick'?s|mother'?s|father'?s|labor|memorial)\s(?:day|eve)"
            r"|easter\s(?:sunday|monday)|good\sfriday|christmas|thanksgiving|halloween|diwali|eid(?:\sal-\w{3,5})?|yom\skippur|hanukkah)\b",
            lambda found: (
                "tree" not in found.string[found.end() : found.end() + 6].lower() and found[0][0].isupper()
            ),
        ),
        # a time of day that a date could stand before; a clock position ("mass at 2:00") is none
        Pattern.of(
            Category.DATE,
            r"(?<![\w:.])(?P<x>(?:0?[1-9]|1[0-2])(?:[:.][0-5]\d(?::[0-5]\d)?)?\s?(?:[ap]m|[ap]\.m\.))(?!\w)",
        ),
        Pattern.of(
            Category.DATE, r"(?<![\w:.])(?P<x>(?:[01]?\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?)(?![\w:])"
        ),
        Pattern.of(
            Category.DATE, r"(?<![\w:.])(?P<x>(?:[01]\d|2[0-3]):?[0-5]\d\s?(?:hrs|hours|h|uhr))(?!\w)"
        ),
        # the year of birth tells the age
        Pattern.of(
            Category.DATE,
            rf"\b(?:born(?:\sin)?|d\.?o\.?b\.?|birth\s?(?:date|year|day)|(?:date|year)\sof\sbirth|geb\.?)\s?(?:is|was|in|:|=|-)?\s{{0,2}}(?P<x>{_YEAR})(?![\w]|[-/.]\d)",
        ),
    )
)

AGES = Patterns(
    (
        Pattern.of(
            Category.AGE,
            rf"(?<![\w.,/-])(?P<x>{_OLD})(?=\s?-?\s?(?:(?:years?|yrs?|y)[\s-]{{0,2}}(?:olds?|of\sage|o\b)|y/?o\b|y\.o\.?|yrs?\b\.?(?=\s?[mf]\b|,)|-?(?:year|yr)-old|yo[mf]?\b|\s?y(?:ears)?[/, ]\s?(?:m|f|male|female|man|woman|lady|gentleman)\b))",
        ),
        Pattern.of(
            Category.AGE,
            rf"\b(?:ages?|aged)(?:/(?:sex|gender))?(?:\s(?:is|was|of|at\s\w{{3,12}}))?\s?[:=]?\s{{0,2}}(?P<x>{_OLD})(?![\w%]|[./-]\d|\+)",
        ),
        Pattern.of(
            Category.AGE,
            rf"(?<![\w.,/-])(?P<x>{_OLD})(?=/?[MF]\b|\s?-?(?:[Mm]ale|[Ff]emale|[Mm]an|[Ww]oman|lady|gentleman)\b)",
            case=True,
        ),
        Pattern.of(
            Category.AGE,
            rf"\b(?P<x>{_TENS}(?:[\s-]{_ONES})?|(?:one|a)\shundred(?:\sand(?:\s{_ONES}|\s\w{{3,8}}))?|nonagenarian|centenarian)(?=[\s-]years?[\s-](?:old|of\sage)|\b)",
            lambda f: bool(_spelled(f)),
        ),
        Pattern.of(
            Category.AGE,
            r"\bin\s(?:his|her|their|my)\s(?:early\s|mid-?\s?|late\s)?(?P<x>90'?s|nineties|100s)\b",
        ),
        Pattern.of(Category.AGE, rf"\b(?:turned|turning|turns)\s(?P<x>{_OLD})(?![\w%]|[./-]\d)"),
        Pattern.of(
            Category.AGE,
            rf"\b(?:is|was|am|now)\s(?P<x>{_OLD})(?=\syears?\b(?!\s(?:after|ago|later|before|following|post))|\sand\slives)",
        ),
        Pattern.of(Category.AGE, rf"\b(?P<x>{_OLD})(?:th|st|nd|rd)\sbirthday\b"),
    )
)


def _spelled(found: re.Match[str]) -> bool:
    after = found.string[found.end() : found.end() + 14].lower()
    return "arian" in found[0].lower() or re.match(r"[\s-]years?[\s-](?:old|of)", after) is not None
