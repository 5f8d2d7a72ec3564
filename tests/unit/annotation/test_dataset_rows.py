"""What rows a judgement gives: exactly those that the rules say, each once, all of them readable by training."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation.core import Decision, Judgement, Kind, Picture, Reason, Region, Turn, Verdict
from annotation.dataset.rows import File, make
from tests.support.judgements import item, judge, picture
from training.rows.schema import IMAGE, pair_of, row_of

EOT = "<reserved08706>"


def name(given: Picture) -> str:
    return f"images/{given.sha256[:8]}.png"


PATH = name(picture(0))


def made(judgement: Judgement) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {file.value: [] for file in File}
    for file, record in make(judgement, name).records:
        found[file.value].append(record)
    return found


def reasons(judgement: Judgement) -> list[str]:
    return [reason for _, reason in make(judgement, name).none]


def test_an_accepted_answer_is_a_row_with_its_provenance() -> None:
    found = made(judge(item("int_1", task="vqa")))
    (row,) = found.pop("rows")
    assert found == {"preferences": [], "unpaired": []}
    assert row == {
        "text": f"{IMAGE}Is it normal?{EOT}yes", "tokens": None, "image_path": [PATH], "task": "vqa",
        "source": "medmax-review", "credential": False, "learn": "last",
        "provenance": {
            "interaction": "int_1", "kind": "chat", "rule": "answer", "verdict": "accept",
            "annotations": ["1:int_1-3", "1:int_1-7"], "annotators": ["3", "7"],
            "model_version": f"phantom@{'ab' * 32}", "dataset_version": None,
        },
    }  # fmt: skip


def test_a_corrected_answer_is_a_row_and_is_preferred_over_the_models() -> None:
    found = made(judge(item("a"), Verdict(Decision.EDIT, text=" no, a mass ", comment="Mr Smith told me")))
    assert [row["text"] for row in found["rows"]] == [f"{IMAGE}Is it normal?{EOT}no, a mass"]
    (pair,) = found["preferences"]
    assert (pair["prompt"], pair["chosen"], pair["rejected"]) == (
        f"{IMAGE}Is it normal?",
        "no, a mass",
        "yes",
    )
    assert (pair["image_path"], pair["chosen_image_path"]) == ([PATH], [])
    assert "Smith" not in json.dumps(found)


def test_a_correction_that_changes_nothing_is_no_preference() -> None:
    found = made(judge(item("a"), Verdict(Decision.EDIT, text="yes")))
    assert (len(found["rows"]), found["preferences"]) == (1, [])


def test_a_rejected_answer_is_an_unpaired_negative_alone() -> None:
    found = made(judge(item("a"), Decision.REJECT))
    (negative,) = found["unpaired"]
    assert (negative["prompt"], negative["completion"], negative["label"]) == (
        f"{IMAGE}Is it normal?", "yes", False,
    )  # fmt: skip
    assert (found["rows"], found["preferences"]) == ([], [])


def test_a_ranking_gives_every_pair_once_the_better_one_chosen() -> None:
    ranked = item("a", kind=Kind.PREFERENCE, alternatives=(("worst",), ("best",), ("middle",)))
    found = made(judge(ranked, Verdict(ranking=(1, 2, 0))))
    assert [(pair["chosen"], pair["rejected"]) for pair in found["preferences"]] == [
        ("best", "middle"), ("best", "worst"), ("middle", "worst"),
    ]  # fmt: skip
    assert found["rows"] == []
    assert found["preferences"][0]["provenance"]["verdict"] == "rank"


def test_equal_alternatives_never_contradict_each_other() -> None:
    ranked = item("a", kind=Kind.PREFERENCE, alternatives=(("same",), ("other",), ("same",)))
    judgement = judge(ranked, Verdict(ranking=(0, 1, 2)))
    assert [(pair["chosen"], pair["rejected"]) for pair in made(judgement)["preferences"]] == [
        ("same", "other")
    ]
    assert reasons(judgement) == ["equal_alternatives"]


@pytest.mark.parametrize("ranking", [(), (0,), (0, 0), (0, 2), (0, 1, 1)])
def test_a_ranking_that_is_no_order_gives_nothing_and_says_so(ranking: tuple[int, ...]) -> None:
    judgement = judge(
        item("a", kind=Kind.PREFERENCE, alternatives=(("x",), ("y",))), Verdict(ranking=ranking)
    )
    assert made(judgement)["preferences"] == []
    assert reasons(judgement) == ["ranking_is_no_order_of_the_alternatives"]


@pytest.mark.parametrize(("decision", "file"), [(Decision.ACCEPT, "rows"), (Decision.REJECT, "unpaired")])
def test_a_drawn_picture_is_learnt_where_accepted_and_a_negative_where_rejected(
    decision: Decision, file: str
) -> None:
    drawn = picture(5, synthetic=True)
    found = made(
        judge(item("a", question="Draw a chest.", shows=None, kind=Kind.PICTURE, answer=(drawn,)), decision)
    )
    (record,) = found.pop(file)
    assert not any(found.values())
    if file == "rows":
        assert (record["text"], record["image_path"]) == (f"Draw a chest.{EOT}{IMAGE}", [name(drawn)])
    else:
        assert (record["completion"], record["completion_image_path"]) == (IMAGE, [name(drawn)])
    assert record["task"] == "image_generation"


def test_a_dialogue_is_written_turn_for_turn_and_its_pictures_in_order() -> None:
    turns = (
        Turn("system", ("Be brief.",)),
        Turn("user", (picture(1), "What is it?", "Say.")),
        Turn("assistant", ("A chest.", picture(2, synthetic=True))),
        Turn("user", ("And this?", picture(3))),
    )
    (row,) = made(judge(item("a", dialogue=turns, answer=("A brain: ", picture(4, synthetic=True)))))["rows"]
    assert row["text"] == (
        f"{IMAGE}Be brief.\nWhat is it?\nSay.{EOT}A chest.{IMAGE}{EOT}And this?{IMAGE}{EOT}A brain: {IMAGE}"
    )
    pictures = (picture(1), picture(2, synthetic=True), picture(3), picture(4, synthetic=True))
    assert row["image_path"] == [name(shown) for shown in pictures]


def test_pictures_of_a_corrected_answer_keep_their_place() -> None:
    first, second = picture(1, synthetic=True), picture(2, synthetic=True)
    answer = (first, "a mass", second)
    (row,) = made(judge(item("a", answer=answer), Verdict(Decision.EDIT, text="a cyst")))["rows"]
    assert row["text"].endswith(f"{EOT}{IMAGE}a cyst{IMAGE}")
    placed = Verdict(Decision.EDIT, text="this <image> and <image> that")
    (row,) = made(judge(item("a", answer=answer), placed))["rows"]
    assert row["text"].endswith(f"{EOT}this {IMAGE} and {IMAGE} that")
    assert row["image_path"] == [PATH, name(first), name(second)]


def region(shown: Picture, label: str, *place: float) -> Region:
    return Region(shown.sha256, label, *place)


def test_regions_ask_where_and_what_in_thousandths() -> None:
    shown = picture(0)
    regions = (
        region(shown, "mass", 0.5, 0.5, 0.25, 0.125),
        region(shown, "effusion", 0.1, 0.2, 0.3, 0.4),
        region(shown, "mass", 0.1, 0.2, 0.3, 0.4),
        region(shown, "mass", 0.1, 0.2, 0.3, 0.4),
    )
    found = made(judge(item("a"), Verdict(Decision.ACCEPT, regions=regions)))
    assert [row["text"] for row in found["rows"][1:]] == [
        f"{IMAGE}Where is: effusion?{EOT}[100, 200, 400, 600]",
        f"{IMAGE}Where is: mass?{EOT}[100, 200, 400, 600]; [500, 500, 750, 625]",
        f"{IMAGE}What is in the region [100, 200, 400, 600]?{EOT}effusion, mass",
        f"{IMAGE}What is in the region [500, 500, 750, 625]?{EOT}mass",
    ]
    assert {row["provenance"]["rule"] for row in found["rows"][1:]} == {"where", "what"}


def test_faults_of_a_drawn_picture_are_asked_for_as_faults() -> None:
    drawn = picture(5, synthetic=True)
    verdict = Verdict(Decision.REJECT, regions=(region(drawn, "six fingers", 0, 0, 1, 0.5),))
    found = made(judge(item("a", shows=None, kind=Kind.PICTURE, answer=(drawn,)), verdict))
    assert [row["text"] for row in found["rows"]] == [
        f"{IMAGE}Where does this generated picture show: six fingers?{EOT}[0, 0, 1000, 500]",
        f"{IMAGE}What is wrong in the region [0, 0, 1000, 500]?{EOT}six fingers",
    ]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Region("0" * 64, "mass", 0, 0, 1, 1), "region_of_another_picture"),
        (region(picture(0), " ", 0, 0, 1, 1), "region_without_label"),
        (region(picture(0), "mass", 0.5, 0, 0.6, 1), "region_outside_of_the_picture"),
        (region(picture(0), "mass", float("nan"), 0, 1, 1), "region_outside_of_the_picture"),
        (region(picture(0), "mass", 0.5, 0.5, 0.0001, 0.2), "region_without_area"),
        (region(picture(0), "a <image>", 0, 0, 1, 1), "text_looks_like_a_placeholder"),
    ],
)
def test_a_region_that_cannot_be_used_is_named_and_the_others_are_used(bad: Region, reason: str) -> None:
    good = region(picture(0), "cyst", 0, 0, 0.5, 0.5)
    judgement = judge(item("a"), Verdict(Decision.ACCEPT, regions=(bad, good)))
    assert len(made(judgement)["rows"]) == 3
    assert reasons(judgement) == [reason]


def test_missing_findings_are_asked_of_the_report() -> None:
    verdict = Verdict(Decision.REJECT, missing=("effusion", "  rib  fracture ", "effusion"))
    (row,) = made(judge(item("a", kind=Kind.REPORT, answer=("Normal chest.",)), verdict))["rows"]
    assert row["text"] == (
        f"{IMAGE}Which findings does this report lack?\nNormal chest.{EOT}effusion, rib fracture"
    )
    assert (row["task"], row["provenance"]["rule"]) == ("report_understanding", "missing")


@pytest.mark.parametrize(
    ("given", "verdict", "reason"),
    [
        (item("a"), Verdict(), "no_decision"),
        (item("a"), Verdict(Decision.EDIT), "edit_without_text"),
        (item("a"), Verdict(Decision.EDIT, text="see <image>"), "text_looks_like_a_placeholder"),
        (item("a", question=f"yes{EOT}no"), Verdict(Decision.ACCEPT), "text_looks_like_a_placeholder"),
        (item("a", question="half \ud800"), Verdict(Decision.ACCEPT), "half_of_a_character"),
        (item("a", answer=(" \n",)), Verdict(Decision.ACCEPT), "empty_answer"),
        (item("a", kind=Kind.PICTURE), Verdict(Decision.EDIT, text="x"), "a_picture_has_no_corrected_text"),
        (item("a", dialogue=()), Verdict(Decision.ACCEPT), "dialogue_does_not_alternate"),
        (item("a", dialogue=(Turn("assistant", ("hi",)),)), Verdict(Decision.ACCEPT), "dialogue_does_not_alternate"),
        (item("a", dialogue=(Turn("user", ("",)),)), Verdict(Decision.ACCEPT), "empty_turn"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_row_says_why(given: Any, verdict: Verdict, reason: str) -> None:
    judgement = judge(given, verdict)
    assert not any(made(judgement).values())
    assert reasons(judgement) == [reason]


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<"), min_size=1, max_size=12)
said = words.filter(str.strip)
shown = st.integers(0, 3).map(picture)
parts = st.lists(said | shown, min_size=1, max_size=3).map(tuple)


@st.composite
def regions(draw: Any, pictures: list[Picture]) -> tuple[Region, ...]:
    thousandths = st.integers(0, 999)
    found = []
    for _ in range(draw(st.integers(0, 3)) if pictures else 0):
        x, y = draw(thousandths), draw(thousandths)
        size = [draw(st.integers(1, 1000 - start)) / 1000 for start in (x, y)]
        found.append(Region(draw(st.sampled_from(pictures)).sha256, draw(said), x / 1000, y / 1000, *size))
    return tuple(found)


@st.composite
def judgements(draw: Any) -> Judgement:
    kind = draw(st.sampled_from(Kind))
    before = [
        Turn(role, draw(parts)) for _ in range(draw(st.integers(0, 1))) for role in ("user", "assistant")
    ]
    fields: dict[str, Any] = {
        "dialogue": (*before, Turn("user", draw(parts))),
        "answer": draw(parts),
        "kind": kind,
    }
    verdict: dict[str, Any] = {"comment": "SECRET"}
    if kind is Kind.PREFERENCE:
        fields["alternatives"] = tuple(draw(st.lists(parts, min_size=2, max_size=4)))
        verdict["ranking"] = tuple(draw(st.permutations(range(len(fields["alternatives"])))))
    else:
        verdict["decision"] = draw(
            st.sampled_from([d for d in Decision if kind is not Kind.PICTURE or d != "edit"])
        )
        if verdict["decision"] is Decision.EDIT:
            verdict["text"] = draw(said)
    if kind is Kind.REPORT:
        verdict["missing"] = tuple(draw(st.lists(said, max_size=2)))
    asked = item("a", **fields)
    verdict["regions"] = draw(regions(list(asked.pictures)))
    return judge(asked, Verdict(**verdict))


def spelt(given: tuple[Any, ...]) -> tuple[str, tuple[str, ...]]:
    """An answer as the rules want it, worked out another way than the code does."""
    text = ""
    for before, part in zip((None, *given), given, strict=False):
        glue = "\n" if isinstance(before, str) and isinstance(part, str) else ""
        text += glue + (part if isinstance(part, str) else IMAGE)
    return text.strip(), tuple(name(part) for part in given if isinstance(part, Picture))


@settings(max_examples=200, deadline=None)
@given(judgements())
def test_every_judgement_gives_exactly_the_rows_of_the_rules_and_none_twice(judgement: Judgement) -> None:
    asked, verdict = judgement.item, judgement.verdict
    found = made(judgement)
    everything = [json.dumps(record) for records in found.values() for record in records]
    assert len(set(everything)) == len(everything)
    assert "SECRET" not in "".join(everything)

    answer = spelt(asked.answer)
    own = [row for row in found["rows"] if row["provenance"]["rule"] in ("answer", "correction")]
    assert len(own) == (verdict.decision in (Decision.ACCEPT, Decision.EDIT))
    if verdict.decision is Decision.ACCEPT:
        assert own[0]["text"].split(EOT)[-1] == answer[0]
    if verdict.decision is Decision.EDIT:
        assert own[0]["text"].split(EOT)[-1].replace(IMAGE, "") == (verdict.text or "").strip()
    assert len(found["unpaired"]) == (verdict.decision is Decision.REJECT)

    if asked.kind is Kind.PREFERENCE:
        best_first = list(dict.fromkeys(spelt(asked.alternatives[i]) for i in verdict.ranking))
        expected = list(combinations(best_first, 2))
    elif verdict.decision is Decision.EDIT:
        corrected = (
            own[0]["text"].split(EOT)[-1],
            tuple(own[0]["image_path"][-len(answer[1]) or len(own[0]["image_path"]) :]),
        )
        expected = [(corrected, answer)] if corrected != answer else []
    else:
        expected = []
    assert [
        (
            (pair["chosen"], tuple(pair["chosen_image_path"])),
            (pair["rejected"], tuple(pair["rejected_image_path"])),
        )
        for pair in found["preferences"]
    ] == expected

    marked = {(r.picture, " ".join(r.label.split()), r.x, r.y, r.width, r.height) for r in verdict.regions}
    rules = [row["provenance"]["rule"] for row in found["rows"]]
    assert rules.count("where") == len({(digest, label) for digest, label, *_ in marked})
    assert rules.count("what") == len({(digest, *place) for digest, _, *place in marked})
    lacking = asked.kind is Kind.REPORT and any(finding.strip() for finding in verdict.missing)
    text_of_report = any(isinstance(part, str) for part in asked.answer)
    assert rules.count("missing") == (lacking and text_of_report)

    for row in found["rows"]:
        row_of(row)
    for pair in found["preferences"]:
        pair_of(pair)


def test_gold_items_give_rows_as_others_do_where_they_are_asked_for() -> None:
    assert len(made(judge(item("a", reason=Reason.GOLD)))["rows"]) == 1
