"""Marked regions and missing findings as instruction rows.

A region is written `[left, top, right, bottom]` in thousandths of the picture's width and height from its top left.
Of a brush stroke this is the bounding box.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from annotation.core import Judgement, Kind, Picture, Region
from annotation.dataset.text import Given, NameOf, Refused, plain, row, spell_answer
from services.checkpoint.vocabulary import PLACEHOLDER

SCALE = 1000
_SLACK = 1e-3  # a box drawn to the edge may end a little beyond it

WHERE, WHAT = "Where is: {}?", "What is in the region {}?"
WHERE_WRONG, WHAT_WRONG = "Where does this generated picture show: {}?", "What is wrong in the region {}?"
LACKS = "Which findings does this report lack?\n{}"


def box(region: Region) -> tuple[int, int, int, int]:
    """Left, top, right, bottom in thousandths. Raises: Refused where it is no box in the picture."""
    edges = (region.x, region.y, region.x + region.width, region.y + region.height)
    if not all(math.isfinite(edge) and -_SLACK <= edge <= 1 + _SLACK for edge in edges):
        raise Refused("region_outside_of_the_picture")
    left, top, right, bottom = (min(SCALE, max(0, round(edge * SCALE))) for edge in edges)
    if left >= right or top >= bottom:
        raise Refused("region_without_area")
    return left, top, right, bottom


def written(place: tuple[int, int, int, int]) -> str:
    return f"[{', '.join(map(str, place))}]"


def where_and_what(judgement: Judgement, name: NameOf) -> Iterator[Given]:
    """For each label of a picture where it is, all places; for each place what is there, all labels."""
    shown = {picture.sha256: picture for picture in judgement.item.pictures}
    marked: set[tuple[str, str, tuple[int, int, int, int]]] = set()
    for region in judgement.verdict.regions:
        try:
            label = " ".join(plain(region.label).split())
            if not label:
                raise Refused("region_without_label")
            if region.picture not in shown:
                raise Refused("region_of_another_picture")
            marked.add((region.picture, label, box(region)))
        except Refused as refused:
            yield None, refused.reason
    for sha256 in sorted({sha256 for sha256, _, _ in marked}):
        picture = shown[sha256]
        here = sorted((label, place) for digest, label, place in marked if digest == sha256)
        where, what = (WHERE_WRONG, WHAT_WRONG) if picture.synthetic else (WHERE, WHAT)
        path = (name(picture),)
        for label in sorted({label for label, _ in here}):
            answer = "; ".join(written(place) for other, place in here if other == label)
            yield "where", row((PLACEHOLDER + where.format(label), path), (answer, ()), "vqa")
        for place in sorted({place for _, place in here}):
            answer = ", ".join(label for label, other in here if other == place)
            yield "what", row((PLACEHOLDER + what.format(written(place)), path), (answer, ()), "vqa")


def missing_findings(judgement: Judgement, name: NameOf) -> Iterator[Given]:
    """REPORT: a row that asks of the model's report what it lacks, beside the dialogue's pictures."""
    item, missing = judgement.item, judgement.verdict.missing
    if item.kind is not Kind.REPORT or not missing:
        return
    names = sorted({" ".join(plain(finding).split()) for finding in missing} - {""})
    if not names:
        raise Refused("missing_finding_without_name")
    report, _ = spell_answer([part for part in item.answer if isinstance(part, str)], name)
    pictures = [part for turn in item.dialogue for part in turn.parts if isinstance(part, Picture)]
    paths = tuple(dict.fromkeys(name(picture) for picture in pictures))
    asked = PLACEHOLDER * len(paths) + LACKS.format(report)
    yield "missing", row((asked, paths), (", ".join(names), ()), "report_understanding")
