"""Annotations as experts and others leave them, to verdicts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation.core import Decision, Kind, Severity
from annotation.labelstudio import render, templates
from annotation.labelstudio.parse import LOST, Oddity, Parsed, parse
from tests.support.labelstudio import (
    REPORT,
    choices,
    item,
    ranked,
    rectangle,
    stars,
    stroke,
    texts,
)

TEMPLATES = {kind: templates.load(kind) for kind in Kind}
ACCEPTED = [choices("decision", "accept")]


def task(kind: Kind, *annotations: Any, of: Any = None, **changes: Any) -> dict[str, Any]:
    """As the API gives it."""
    about = of or item(kind, "int-1")
    made = render.task(
        about, TEMPLATES[kind], {p.sha256: f"http://pictures/{p.sha256}" for p in about.pictures}
    )
    return {"id": 5, "data": made.data, "meta": made.meta, "annotations": list(annotations)} | changes


def annotation(result: Any, **changes: Any) -> dict[str, Any]:
    return {
        "id": 9,
        "completed_by": 3,
        "created_at": "2026-11-25T10:00:00.123456Z",
        "updated_at": "2026-11-25T10:01:00Z",
        "lead_time": 12.5,
        "was_cancelled": False,
        "result": result,
    } | changes


def read(kind: Kind, result: Any, of: Any = None, **changes: Any) -> Parsed:
    return parse(task(kind, annotation(result, **changes), of=of), TEMPLATES[kind], 2)


def oddities(parsed: Parsed) -> list[Oddity]:
    return [problem.oddity for problem in parsed.problems]


def test_an_accepted_answer() -> None:
    parsed = read(Kind.CHAT, ACCEPTED)
    (found,) = parsed.annotations
    assert not parsed.problems
    assert (found.id, found.item_id, found.kind, found.annotator) == ("2:9", "int-1", Kind.CHAT, "3")
    assert found.created_at == datetime(2026, 11, 25, 10, 0, 0, 123456, UTC)
    assert (found.updated_at.utcoffset() or 0, found.seconds) == (datetime.now(UTC).utcoffset(), 12.5)
    assert found.verdict.decision is Decision.ACCEPT
    assert found.verdict.text is None


def test_an_edited_answer_with_its_error() -> None:
    result = [
        choices("decision", "edit"),
        texts("text", "It is large and on the right side."),
        choices("error", "wrong_attribute"),
        choices("severity", "major"),
        texts("comment", "Sides are swapped."),
    ]
    verdict = read(Kind.CHAT, result).annotations[0].verdict
    assert verdict.decision is Decision.EDIT
    assert verdict.text == "It is large and on the right side."
    assert (verdict.error, verdict.severity) == ("wrong_attribute", Severity.MAJOR)
    assert verdict.comment == "Sides are swapped."


def test_what_was_filled_in_before_a_change_of_mind_does_not_count() -> None:
    result = [
        *ACCEPTED,
        texts("text", "Another."),
        choices("error", "other"),
        choices("severity", "critical"),
    ]
    verdict = read(Kind.CHAT, result).annotations[0].verdict
    assert (verdict.text, verdict.error, verdict.severity) == (None, "", Severity.NONE)


def test_a_report_edited_by_sentences_keeps_its_lines() -> None:
    sentences = REPORT.replace("\n", " ").replace(". ", ".|").split("|")
    sentences[2] = "There is a large right pleural effusion."
    result = [
        choices("decision", "edit"),
        texts("text", *sentences),
        choices("missing", "cardiomegaly", "mass"),
        choices("error", "wrong_attribute"),
        choices("severity", "minor"),
        *rectangle("a", "pleural effusion", (10, 60, 30, 30)),
    ]
    verdict = read(Kind.REPORT, result).annotations[0].verdict
    assert verdict.text == REPORT.replace("There is a small left", "There is a large right")
    assert verdict.missing == ("cardiomegaly", "mass")
    assert [(region.label, region.x) for region in verdict.regions] == [("pleural effusion", 0.1)]
    assert verdict.regions[0].picture == item(Kind.REPORT, "int-1").pictures[0].sha256


def test_a_generated_picture_with_stars_and_a_stroke() -> None:
    mask = np.zeros((384, 384), bool)
    mask[100:120, 200:240] = True
    result = [
        choices("decision", "reject"),
        choices("error", "wrong_finding"),
        choices("severity", "none"),
        stars("realism", 4),
        stars("agreement", 2),
        *stroke("b", "wrong finding", mask),
    ]
    verdict = read(Kind.PICTURE, result).annotations[0].verdict
    assert (verdict.decision, verdict.realism, verdict.agreement) == (Decision.REJECT, 4, 2)
    (region,) = verdict.regions
    assert region.mask
    assert region.label == "wrong finding"


@pytest.mark.parametrize(("side", "ranking"), [("left", (0, 1)), ("right", (1, 0))])
def test_of_two_alternatives_one_is_better(side: str, ranking: tuple[int, ...]) -> None:
    pair = {"from_name": "pair", "to_name": "pair", "type": "pairwise", "value": {"selected": side}}
    # The editor sends the ranker, too, although it is hidden.
    hidden = {
        "from_name": "rank",
        "to_name": "answers",
        "type": "ranker",
        "value": {"ranker": {"rank": ["a", "b"]}},
    }
    assert read(Kind.PREFERENCE, [pair, hidden]).annotations[0].verdict.ranking == ranking


def ranking(*order: str) -> dict[str, Any]:
    return {
        "from_name": "rank",
        "to_name": "answers",
        "type": "ranker",
        "value": {"ranker": {"rank": list(order)}},
    }


def test_more_alternatives_are_ranked() -> None:
    result = [ranking("c", "a", "b"), choices("ordered", "yes")]
    parsed = read(Kind.PREFERENCE, result, of=ranked("int-1"))
    assert parsed.annotations[0].verdict.ranking == (2, 0, 1)


@pytest.mark.parametrize(
    "order", [("a", "b"), ("a", "b", "b"), ("a", "b", "x"), ("a", "b", "c", "d"), (1, 2, 3)]
)
def test_a_ranking_that_is_no_order_of_the_alternatives_is_refused(order: tuple[Any, ...]) -> None:
    parsed = read(Kind.PREFERENCE, [ranking(*order), choices("ordered", "yes")], of=ranked("int-1"))
    assert not parsed.annotations
    assert oddities(parsed) == [Oddity.DAMAGED]


def test_an_order_that_nobody_confirmed_is_no_ranking() -> None:
    parsed = read(Kind.PREFERENCE, [ranking("a", "b", "c")], of=ranked("int-1"))
    assert oddities(parsed) == [Oddity.INCOMPLETE]


@pytest.mark.parametrize(
    ("kind", "result", "oddity"),
    [
        (Kind.CHAT, [], Oddity.INCOMPLETE),
        (Kind.CHAT, [choices("decision", "edit"), texts("text", " ")], Oddity.INCOMPLETE),
        (Kind.CHAT, [choices("decision", "burn")], Oddity.UNKNOWN_VALUE),
        (Kind.CHAT, [choices("decision", "accept", "reject")], Oddity.DAMAGED),
        (Kind.CHAT, [choices("decision", "reject"), choices("error", "bad luck")], Oddity.UNKNOWN_VALUE),
        (Kind.CHAT, None, Oddity.DAMAGED),
        (Kind.CHAT, ["accept"], Oddity.DAMAGED),
        (Kind.CHAT, [{"from_name": "decision", "value": {"choices": "accept"}}], Oddity.DAMAGED),
        (Kind.PICTURE, [*ACCEPTED, stars("realism", 3)], Oddity.INCOMPLETE),
        (Kind.PICTURE, [*ACCEPTED, stars("realism", 6), stars("agreement", 3)], Oddity.UNKNOWN_VALUE),
        (Kind.PICTURE, [*ACCEPTED, stars("realism", True), stars("agreement", 3)], Oddity.UNKNOWN_VALUE),
        (Kind.REPORT, [*ACCEPTED, *rectangle("a", "dragon", (1, 1, 5, 5))], Oddity.UNKNOWN_VALUE),
        (Kind.REPORT, [*ACCEPTED, *rectangle("a", "mass", (1, 1, 0, 5))], Oddity.BAD_REGION),
        (Kind.PREFERENCE, [], Oddity.INCOMPLETE),
    ],
)
def test_an_annotation_that_says_too_little_or_too_much_is_named(
    kind: Kind, result: Any, oddity: Oddity
) -> None:
    parsed = read(kind, result)
    assert not parsed.annotations
    assert oddities(parsed) == [oddity]
    assert oddity in LOST
    assert (parsed.problems[0].task, parsed.problems[0].annotation) == (5, 9)


@pytest.mark.parametrize(
    ("kind", "result", "oddity"),
    [
        (Kind.CHAT, [choices("decision", "reject")], Oddity.NO_REASON),
        (Kind.CHAT, [*ACCEPTED, choices("added by hand", "x")], Oddity.UNKNOWN_CONTROL),
        (Kind.REPORT, [*ACCEPTED, *rectangle("a", "mass", (1, 1, 5, 5))[:1]], Oddity.UNLABELLED),
    ],
)
def test_an_oddity_beside_a_whole_verdict_is_named_and_the_verdict_kept(
    kind: Kind, result: Any, oddity: Oddity
) -> None:
    parsed = read(kind, result)
    assert len(parsed.annotations) == 1
    assert oddities(parsed) == [oddity]


def test_an_edit_that_changes_nothing_is_named() -> None:
    original = item(Kind.CHAT, "int-1").answer[0]
    reason = [choices("error", "other"), choices("severity", "none")]
    parsed = read(Kind.CHAT, [choices("decision", "edit"), texts("text", f"{original} "), *reason])
    assert oddities(parsed) == [Oddity.UNCHANGED]


def test_a_skipped_task_is_counted() -> None:
    assert oddities(read(Kind.CHAT, [], was_cancelled=True)) == [Oddity.SKIPPED]


def test_a_user_may_come_as_a_number_or_an_object() -> None:
    assert read(Kind.CHAT, ACCEPTED, completed_by={"id": 8, "email": "x@y.z"}).annotations[0].annotator == "8"


@pytest.mark.parametrize("meta", [None, {}, [], {"item": 3, "kind": "chat"}, {"item": "x", "kind": "report"}])
def test_a_task_that_is_not_ours_is_no_reason_to_fail(meta: Any) -> None:
    parsed = parse(task(Kind.CHAT, annotation(ACCEPTED), meta=meta), TEMPLATES[Kind.CHAT], 2)
    assert oddities(parsed) == [Oddity.FOREIGN]
    assert not parsed.item_id


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 1 << 70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["id", "completed_by", "created_at", "updated_at", "lead_time", "was_cancelled", "result"]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(Kind)), st.dictionaries(st.sampled_from(KEYS), JSON, max_size=3))
def test_whatever_an_annotation_holds_it_is_read_or_named(kind: Kind, changes: dict[str, Any]) -> None:
    result = [*ACCEPTED, stars("realism", 1), stars("agreement", 1)]
    parsed = parse(task(kind, annotation(result) | changes), TEMPLATES[kind], 2)
    assert parsed.annotations or parsed.problems


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(Kind)), st.data())
def test_whatever_a_result_holds_it_is_read_or_named(kind: Kind, data: st.DataObject) -> None:
    names = [*TEMPLATES[kind].controls, "unknown"]
    keys = [
        "choices",
        "text",
        "rating",
        "ranker",
        "selected",
        "labels",
        "x",
        "width",
        "rle",
        "format",
        "rotation",
    ]
    values = st.dictionaries(st.sampled_from(keys), JSON | st.just("rle") | st.just([1, 2]), max_size=4)
    results = st.fixed_dictionaries(
        {"from_name": st.sampled_from(names) | JSON, "value": values | JSON},
        optional={"type": st.sampled_from(["rectangle", "brush"]) | JSON, "original_width": JSON, "id": JSON},
    )
    result = data.draw(st.lists(results, max_size=4))
    parsed = parse(task(kind, annotation(result)), TEMPLATES[kind], 2)
    assert parsed.annotations or parsed.problems
