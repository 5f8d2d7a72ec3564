"""Addresses, postal codes, rooms: places that a pattern finds."""

from __future__ import annotations

import re

from annotation.deid.core import Category
from annotation.deid.patterns import Pattern, Patterns
from annotation.deid.tokens import known

_CAP = r"[A-Z][A-Za-z'.-]{1,24}"
_WAY = (
    r"(?:Street|St|Avenue|Ave|Road|Rd|Lane|Ln|Drive|Dr|Boulevard|Blvd|Court|Ct|Place|Pl|Way|Terrace|Ter|Close|Crescent|Cres"
    r"|Square|Sq|Parkway|Pkwy|Highway|Hwy|Row|Gardens|Grove|Mews|Circle|Cir|Trail|Trl|Alley|Walk|Heights|Hill|Quay|Plaza|Loop|Rise|Nagar|Marg)"
)
_STATE = r"(?:A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|RI|S[CD]|T[NX]|UT|V[AT]|W[AIVY])"
_REST = rf"(?:,?\s(?:Apt|Apartment|Unit|Suite|Ste|Flat|Room|Floor|No)\b\.?\s?\#?\w{{1,6}})?(?:,\s?{_CAP}(?:\s{_CAP}){{0,2}}(?=,|\s{_STATE}\b|\s\d))?(?:,?\s{_STATE}\b)?(?:,?\s\d{{5}}(?:-\d{{4}})?\b)?"

ADDRESSES = Patterns(
    (
        Pattern.of(
            Category.PLACE,
            rf"(?<![\w.])(?P<x>\d{{1,5}}[A-Za-z]?,?\s(?:[NSEW]\.?\s)?(?:{_CAP}\s|\d{{1,3}}(?:st|nd|rd|th)\s){{1,4}}{_WAY}\b\.?{_REST})",
            case=True,
        ),
        Pattern.of(
            Category.PLACE,
            rf"(?<!\w)(?P<x>{_CAP}(?:\s{_CAP}){{0,2}}\s(?:Street|Avenue|Ave|Road|Rd|Lane|Boulevard|Blvd|Terrace|Crescent|Parkway|Highway|Mews)\b\.?(?:\s\d{{1,4}}\b)?{_REST})",
            case=True,
        ),
        Pattern.of(
            Category.PLACE,
            r"(?<!\w)(?P<x>[A-Z][a-z]{2,24}(?:stra(?:ss|s)e|str\.|weg|platz|gasse|allee|gatan|vagen|straat|laan|plein|utca)\s\d{1,4}[a-z]?(?:,?\s\d{4,5}\s[A-Z][a-z]+)?)",
            case=True,
        ),
        Pattern.of(
            Category.PLACE,
            rf"(?<!\w)(?P<x>(?:\d{{1,4}}(?:\s?bis)?,?\s)?(?:[Rr]ue|[Aa]venue|[Bb]oulevard|[Pp]lace|Calle|Avenida|Av\.|Plaza|Via|Viale|Piazza|Corso|Rua|Travessa|ul\.|Jalan|Jl\.|Passeig)\s(?:(?:de|del|della|di|du|des|la|las|los|do|da|dos|das)\s){{0,2}}(?:l'|d')?{_CAP}(?:\s{_CAP}){{0,2}}(?:,?\s(?:n\.?\s?)?\d{{1,4}}\b)?)",
            lambda f: (
                any(c.isdigit() for c in f["x"])
                or f["x"].startswith(("Calle", "Avenida", "Rua", "Jalan", "rue", "Rue"))
            ),
            case=True,
        ),
        Pattern.of(
            Category.PLACE, r"\b(?P<x>P\.?\s?O\.?\s?Box\s\d{1,7}|postfach\s\d{1,7}|apartado\s\d{1,6})\b"
        ),
        Pattern.of(
            Category.PLACE,
            rf"(?<!\w)(?P<x>{_CAP}(?:\s{_CAP}){{0,2}}(?:,\s{_STATE}(?:,?\s\d{{5}}(?:-\d{{4}})?)?|\s{_STATE},?\s\d{{5}}(?:-\d{{4}})?))(?![\w-])",
            lambda f: (
                f["x"][-1].isdigit()
                or not (
                    known(re.split(r"[\s,]", f["x"])[0]) or f["x"].endswith(("MD", "PA", "MA", "MS", "ID"))
                )
            ),
            case=True,
        ),
        Pattern.of(Category.PLACE, rf"(?<!\w){_STATE}\s(?P<x>\d{{5}}(?:-\d{{4}})?)(?!\w)", case=True),
        Pattern.of(
            Category.PLACE,
            r"\b(?:zip(?:\s?code)?|postal\s?code|post\s?code|postcode|plz|cap|pin\s?code)\s?(?:is|:|=|of)?\s{0,2}(?P<x>[A-Z]{0,2}\d[A-Z0-9]{1,4}(?:[\s-]?[A-Z0-9]{2,4})?)\b",
        ),
        Pattern.of(
            Category.PLACE,
            r"(?<![\w-])(?P<x>[A-Z]{1,2}\d[A-Z\d]?\s\d(?!MM|CM|ML|MG|KG|DL|PM|AM|HZ)[ABD-HJLNP-UW-Z]{2}|[ABCEGHJ-NPRSTVXY]\d[A-Z]\s\d[A-Z]\d)(?!\w)",
            case=True,
        ),
        Pattern.of(
            Category.PLACE,
            r"(?<![\w.])(?P<x>-?\d{1,2}\.\d{4,8}\s?°?\s?[NS]?,\s?-?\d{1,3}\.\d{4,8}\s?°?\s?[EW]?)(?!\w)",
        ),
        Pattern.of(
            Category.PLACE,
            rf"(?<!\w)(?P<x>{_CAP}(?:\s{_CAP})?\s(?:County|Borough|Township|Parish|Precinct))\b",
            lambda f: not known(f["x"].split()[0]),
            case=True,
        ),
        Pattern.of(
            Category.PLACE,
            r"\b(?:room|bed|ward|bay|apartment|apt|flat|unit\#)\s(?:no\.?\s?|number\s|\#)?(?P<x>\d{1,4}[A-Z]?(?:-\d{1,3})?)\b(?!\s?(?:air|mm|ml|cm|rest|days?|hours?|°))",
            lambda f: (
                f[0][0].isupper() or f[0].lower().startswith(("apartment", "apt", "flat", "room ", "bed "))
            ),
        ),
    )
)
