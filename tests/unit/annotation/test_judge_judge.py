"""All verdicts on an item → a judgement, a request for more, or a conflict for an adjudicator."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation.agreement.reliability import Reliability
from annotation.checked import checked
from annotation.core import Annotation, Decision, Item, Judgement, Kind, Reason, Region, Severity, Verdict
from annotation.judge.judge import Conflict, NeedsAdjudication, NeedsMore, judge
from annotation.judge.policy import JudgePolicy
from services.errors import ConfigurationError, InvalidInput
from tests.unit.annotation.judge_samples import ACCEPT, REJECT, START, annotation, edit, item, known

NOBODY = Reliability()


def of(*annotations, item_=None, reliability=NOBODY, deleted=(), **policy):
    return judge(item_ or item(), annotations, reliability, JudgePolicy(**policy), deleted=deleted)


def test_two_experts_who_agree_settle_an_item():
    found = of(annotation("a", ACCEPT), annotation("b", ACCEPT, minutes=5))
    assert isinstance(found, Judgement)
    assert found.verdict.decision is Decision.ACCEPT
    assert found.agreement == 1.0
    assert not found.adjudicated
    assert found.made_at == START + timedelta(minutes=5)


def test_one_expert_is_not_enough_and_must_not_get_it_again():
    found = of(annotation("a", ACCEPT))
    assert found == NeedsMore(1, 2, ("a",))
    assert found.missing == 1
    assert of() == NeedsMore(0, 2, ())


def test_two_experts_who_differ_need_an_adjudicator():
    found = of(annotation("a", ACCEPT), annotation("b", REJECT))
    assert isinstance(found, NeedsAdjudication)
    assert (found.reason, found.field, found.agreement) == (Conflict.NO_MAJORITY, "decision", 0.0)


def test_different_edits_are_a_conflict_and_the_same_but_for_punctuation_are_not():
    assert of(annotation("a", edit("Left mass")), annotation("b", edit("Right mass"))).field == "text"
    found = of(annotation("a", edit("Left mass.")), annotation("b", edit("left mass"), minutes=1))
    assert found.verdict.text == "Left mass."


def test_the_text_is_the_most_reliable_experts():
    found = of(
        annotation("a", edit("left mass")),
        annotation("b", edit("Left mass."), minutes=1),
        reliability=known(a=(5, 3), b=(20, 0)),
    )
    assert found.verdict.text == "Left mass."


def test_the_majority_of_three_decides_and_the_third_remains_on_record():
    found = of(
        annotation("a", ACCEPT),
        annotation("b", ACCEPT),
        annotation("c", REJECT),
        reviewers=3,
    )
    assert found.verdict.decision is Decision.ACCEPT
    assert [one.annotator for one in found.annotations] == ["a", "b", "c"]
    assert found.agreement == pytest.approx(1 / 3)


def test_a_majority_of_heads_without_a_majority_of_weight_is_a_conflict():
    found = of(
        annotation("a", ACCEPT),
        annotation("b", ACCEPT),
        annotation("c", REJECT),
        reviewers=3,
        reliability=known(a=(6, 3), b=(6, 3), c=(40, 0)),
    )
    assert found.reason is Conflict.NO_MAJORITY


def test_a_weighty_minority_does_not_overrule_two_heads_by_itself():
    found = of(annotation("a", ACCEPT), annotation("c", REJECT), reliability=known(a=(6, 3), c=(40, 0)))
    assert found.reason is Conflict.NO_MAJORITY


def test_the_verdict_of_an_unreliable_annotator_does_not_count_and_another_is_asked():
    bad = known(bad=(1, 12))
    found = of(annotation("a", ACCEPT), annotation("bad", ACCEPT), reliability=bad)
    assert found == NeedsMore(1, 2, ("a", "bad"), unreliable=("bad",))
    settled = of(annotation("a", ACCEPT), annotation("bad", REJECT), annotation("c", ACCEPT), reliability=bad)
    assert settled.verdict.decision is Decision.ACCEPT
    assert settled.agreement == 1.0
    assert "bad" not in [one.annotator for one in settled.annotations]


def test_unreliable_at_one_kind_is_not_unreliable_at_another():
    bad = known(kind=Kind.REPORT, b=(1, 12))
    assert isinstance(of(annotation("a", ACCEPT), annotation("b", ACCEPT), reliability=bad), Judgement)


@pytest.mark.parametrize(
    ("item_", "verdict"),
    [(item(risk=0.9), ACCEPT), (item(), replace(REJECT, severity=Severity.MAJOR))],
)
def test_high_risk_or_severity_needs_a_third_expert(item_, verdict):
    found = of(annotation("a", verdict), annotation("b", verdict), item_=item_)
    assert (found.have, found.need) == (2, 3)


def test_the_number_of_experts_depends_on_the_kind():
    report = item(Kind.REPORT)
    one = annotation("a", ACCEPT, kind=Kind.REPORT)
    assert of(one, item_=report, reviewers_by_kind={Kind.REPORT: 1}).verdict.decision is Decision.ACCEPT
    assert of(one, item_=report, reviewers_by_kind={Kind.REPORT: 4}).need == 4


def test_one_expert_who_sees_critical_harm_is_not_outvoted():
    alarm = replace(REJECT, severity=Severity.CRITICAL)
    found = of(annotation("a", ACCEPT), annotation("b", ACCEPT), annotation("c", alarm))
    assert (found.reason, found.field) == (Conflict.DISSENT, "severity")
    both = of(annotation("a", alarm), annotation("b", REJECT), annotation("c", REJECT))
    assert both.verdict.severity is Severity.CRITICAL


def test_an_adjudicator_decides_a_conflict():
    found = of(
        annotation("a", ACCEPT),
        annotation("b", REJECT),
        annotation("chief", edit("Small effusion.", comment="private")),
        adjudicators={"chief"},
    )
    assert found.adjudicated
    assert found.verdict == edit("Small effusion.")
    assert found.agreement == 0.0
    assert len(found.annotations) == 3


def test_the_latest_adjudicator_decides_and_an_unusable_one_settles_nothing():
    first = annotation("chief", ACCEPT, minutes=1)
    later = annotation("head", REJECT, minutes=2)
    assert of(later, first, adjudicators={"chief", "head"}).verdict.decision is Decision.REJECT
    empty = annotation("head", Verdict(), minutes=3)
    assert of(first, empty, adjudicators={"chief", "head"}).reason is Conflict.UNUSABLE


def test_an_update_replaces_and_a_deleted_annotation_vanishes():
    first = annotation("a", REJECT, id="1:7")
    update = annotation("a", ACCEPT, id="1:7", updated=30)
    other = annotation("b", ACCEPT)
    assert of(update, other, first).verdict.decision is Decision.ACCEPT
    assert of(update, other, first, deleted={"1:7"}) == NeedsMore(1, 2, ("b",))


def test_an_expert_who_annotates_twice_counts_once_with_the_later_verdict():
    found = of(
        annotation("a", REJECT, id="1:1"),
        annotation("a", ACCEPT, id="1:2", minutes=3),
        annotation("b", ACCEPT),
    )
    assert found.verdict.decision is Decision.ACCEPT
    assert [one.id for one in found.annotations] == ["1:2", "1:b"]


def test_an_unusable_verdict_does_not_count_and_is_named():
    found = of(annotation("a", ACCEPT), annotation("b", Verdict(Decision.EDIT)))
    assert found == NeedsMore(1, 2, ("a", "b"), unusable=("1:b",))


def test_merged_verdicts_keep_the_worst_harm_the_middle_rating_and_the_heaviest_error():
    picture = item(Kind.PICTURE)
    wrong = Region("p", "third lung", 0.1, 0.1, 0.2, 0.2)
    base = replace(REJECT, regions=(wrong,), error="anatomy", comment="mine", realism=2)

    def by(name, **fields):
        return annotation(name, replace(base, **fields), kind=Kind.PICTURE)

    found = of(
        by("a", severity=Severity.MINOR),
        by("b", realism=3),
        by("c", realism=3, error="artefact", regions=(replace(wrong, x=0.11),)),
        item_=picture,
        reliability=known(Kind.PICTURE, c=(8, 0)),
        reviewers=3,
    ).verdict
    assert (found.severity, found.realism, found.comment) == (Severity.MINOR, 3, "")
    assert found.error == "anatomy"
    assert found.regions[0].x == 0.11  # the most reliable expert's, not a mean of all


def test_rankings_that_share_the_best_settle_a_preference():
    kind = Kind.PREFERENCE
    found = of(
        annotation("a", Verdict(ranking=(2, 0, 1)), kind=kind),
        annotation("b", Verdict(ranking=(2, 1, 0)), kind=kind),
        item_=item(kind),
    )
    assert found.verdict.ranking == (2, 0, 1)


@pytest.mark.parametrize("gold", [{"reason": Reason.GOLD}, {"gold": ACCEPT}])
def test_gold_is_not_judged(gold):
    with pytest.raises(InvalidInput, match="gold"):
        of(item_=item(**gold))


@pytest.mark.parametrize("wrong", [{"item_id": "other"}, {"kind": Kind.REPORT}])
def test_an_annotation_of_another_item_is_an_error(wrong):
    with pytest.raises(InvalidInput, match="another item"):
        of(annotation("a", ACCEPT, **wrong))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"reviewers": 0}, r"judge\.reviewers"),
        ({"reviewers_by_kind": {"chat": 21}}, "reviewers_by_kind.chat must be 1 to 20"),
        ({"high_risk": 2}, r"judge\.high_risk"),
        ({"dissent": "none"}, "dissent"),
        ({"voters": 2}, r"judge\.voters"),
    ],
)
def test_a_wrong_setting_is_named(values, named):
    with pytest.raises(ConfigurationError, match=named):
        checked(JudgePolicy, values, "judge")


verdicts = st.builds(
    Verdict,
    decision=st.sampled_from(Decision),
    text=st.sampled_from(["a", "A.", "b", None]),
    severity=st.sampled_from(Severity),
    error=st.sampled_from(["", "x", "y"]),
    missing=st.lists(st.sampled_from(["m", "M"]), max_size=1).map(tuple),
    realism=st.none() | st.integers(1, 5),
    agreement=st.none() | st.integers(1, 5),
    ranking=st.permutations([0, 1, 2]).map(tuple),
    comment=st.sampled_from(["", "a comment"]),
)


@st.composite
def histories(draw):
    """Annotations on one item as they may arrive: updated, twice by one expert, at the same moment."""
    kind = draw(st.sampled_from(list(Kind)))
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(1, 8), st.sampled_from("abcdef"), verdicts, st.integers(0, 3), st.integers(0, 3)
            ),
            max_size=10,
        )
    )
    times = [START + timedelta(minutes=minute) for minute in range(8)]
    made = [
        Annotation(f"1:{number}", "i", kind, who, verdict, times[start], times[start + more])
        for number, who, verdict, start, more in rows
    ]
    return item(kind, risk=draw(st.sampled_from([0.0, 0.9]))), made


@settings(max_examples=150, deadline=None)
@given(
    history=histories(),
    shuffle=st.randoms(use_true_random=False),
    reviewers=st.integers(1, 4),
    adjudicators=st.sampled_from([frozenset(), frozenset("f")]),
    deleted=st.sets(st.integers(1, 8).map(lambda n: f"1:{n}"), max_size=2),
)
def test_the_order_and_repetition_of_annotations_do_not_matter(
    history, shuffle, reviewers, adjudicators, deleted
):
    one, annotations = history
    policy = JudgePolicy(reviewers=reviewers, adjudicators=adjudicators)
    experts = known(one.kind, a=(20, 0), b=(0, 12), c=(9, 2))
    first = judge(one, annotations, experts, policy, deleted=deleted)
    again = [*annotations, *annotations]
    shuffle.shuffle(again)
    assert judge(one, again, experts, policy, deleted=deleted) == first
    check_invariants(one, first, reviewers)


def check_invariants(one: Item, found: object, reviewers: int) -> None:
    if isinstance(found, NeedsMore):
        assert found.have < found.need
        return
    assert isinstance(found, Judgement | NeedsAdjudication)
    experts = [each.annotator for each in found.annotations]
    assert len(experts) == len(set(experts))
    assert "b" not in experts  # unreliable
    if isinstance(found, Judgement):
        assert found.item is one
        assert found.verdict.comment == ""
        if not found.adjudicated:
            assert len(experts) >= reviewers
            assert found.made_at == max(each.updated_at for each in found.annotations)
