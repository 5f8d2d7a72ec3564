"""A judgement's instruction rows, preference pairs and unpaired negatives.

    ACCEPT      the answer, as a row                       REJECT      the answer, as an unpaired negative
    EDIT        the corrected answer, as a row; and as a   PREFERENCE  every pair of alternatives that the ranking
                pair, preferred over the model's                       orders
    regions, missing findings: annotation.dataset.grounding, whatever the decision

Comments never enter a row. What gives no row says so by name (`Made.none`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

from annotation.core import Decision, Item, Judgement, Kind, Picture
from annotation.dataset.grounding import missing_findings, where_and_what
from annotation.dataset.text import (
    SOURCE,
    Given,
    NameOf,
    Record,
    Refused,
    Spelt,
    pair,
    plain,
    row,
    spell_answer,
    spell_dialogue,
    unpaired,
)
from services.checkpoint.vocabulary import PLACEHOLDER


class File(StrEnum):
    """Which file a record goes into."""

    ROWS = "rows"
    PREFERENCES = "preferences"
    UNPAIRED = "unpaired"


@dataclass(frozen=True)
class Made:
    """All that comes of a judgement.

    Attributes:
        records: in a fixed order, no two alike.
        none: (part, reason) of each part of the verdict that gave nothing.
    """

    records: tuple[tuple[File, Record], ...]
    none: tuple[tuple[str, str], ...]


def make(judgement: Judgement, name: NameOf) -> Made:
    """The records of one judgement; `image_path`s are what `name` calls the pictures."""
    records: list[tuple[File, Record]] = []
    none: list[tuple[str, str]] = []
    for part, given in (
        ("verdict", _verdict(judgement, name)),
        ("regions", where_and_what(judgement, name)),
        ("missing", missing_findings(judgement, name)),
    ):
        try:
            for rule, fields in given:
                if rule is None:
                    none.append((part, str(fields)))
                elif (record := _complete(judgement, rule, fields)) not in records:
                    records.append(record)
        except Refused as refused:
            none.append((part, refused.reason))
    return Made(tuple(records), tuple(none))


def _verdict(judgement: Judgement, name: NameOf) -> Iterator[Given]:
    item, verdict = judgement.item, judgement.verdict
    asked = spell_dialogue(item.dialogue, name)
    if item.kind is Kind.PREFERENCE:
        yield from _ranking(judgement, asked, name)
    elif verdict.decision is Decision.ACCEPT:
        yield "answer", row(asked, spell_answer(item.answer, name), _task(item))
    elif verdict.decision is Decision.REJECT:
        yield "rejection", unpaired(asked, spell_answer(item.answer, name))
    elif verdict.decision is None:
        yield None, "no_decision"
    elif item.kind is Kind.PICTURE:
        yield None, "a_picture_has_no_corrected_text"
    else:
        corrected = _corrected(judgement, name)
        yield "correction", row(asked, corrected, _task(item))
        answered = spell_answer(item.answer, name)
        if corrected != answered:
            yield "correction", pair(asked, corrected, answered)


def _corrected(judgement: Judgement, name: NameOf) -> Spelt:
    """The expert's text. The answer's pictures stand where it has placeholders for all of them; else those that the
    answer began with come first, and the others last. Raises: Refused."""
    text = (judgement.verdict.text or "").strip()
    if not text:
        raise Refused("edit_without_text")
    parts = judgement.item.answer
    pictures = tuple(name(part) for part in parts if isinstance(part, Picture))
    if (count := text.count(PLACEHOLDER)) and count == len(pictures):
        plain(text.replace(PLACEHOLDER, " "))
        return text, pictures
    plain(text)
    first = next((i for i, part in enumerate(parts) if isinstance(part, str) and part.strip()), len(parts))
    leading = sum(isinstance(part, Picture) for part in parts[:first])
    return PLACEHOLDER * leading + text + PLACEHOLDER * (len(pictures) - leading), pictures


def _ranking(judgement: Judgement, asked: Spelt, name: NameOf) -> Iterator[Given]:
    alternatives, ranking = judgement.item.alternatives, judgement.verdict.ranking
    if sorted(ranking) != list(range(len(alternatives))):
        raise Refused("ranking_is_no_order_of_the_alternatives")
    answers: list[Spelt] = []  # best first; of equal ones the best place counts
    for index in ranking:
        try:
            answer = spell_answer(alternatives[index], name)
        except Refused as refused:
            yield None, refused.reason
            continue
        if answer in answers:
            yield None, "equal_alternatives"
        else:
            answers.append(answer)
    for better, worse in combinations(answers, 2):
        yield "ranking", pair(asked, better, worse)


def _task(item: Item) -> str:
    draws = item.task in ("image_generation", "multimodal_generation")
    return "image_generation" if item.kind is Kind.PICTURE and not draws else item.task


def _complete(judgement: Judgement, rule: str, fields: Record) -> tuple[File, Record]:
    item, decision = judgement.item, judgement.verdict.decision
    if "text" in fields:
        file = File.ROWS
    else:
        file = File.PREFERENCES if "chosen" in fields else File.UNPAIRED
        fields = {**fields, "task": _task(item), "source": SOURCE}
    provenance = {
        "interaction": item.id,
        "kind": item.kind.value,
        "rule": rule,
        "verdict": decision.value if decision else "rank" if item.kind is Kind.PREFERENCE else "",
        "annotations": sorted({annotation.id for annotation in judgement.annotations}),
        "annotators": sorted({annotation.annotator for annotation in judgement.annotations}),
        "model_version": f"{item.model_id}@{item.model_digest}",
        "dataset_version": None,
    }
    return file, {**fields, "provenance": provenance}
