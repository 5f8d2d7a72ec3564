"""When two verdicts of a kind agree, and which field it is that differs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation.agreement.compare import check, compare, pairwise
from annotation.core import Decision, Kind, Region, Severity, Verdict
from services.errors import InvalidInput
from tests.unit.annotation.judge_samples import ACCEPT, REJECT, edit

LEFT = Region("p", "mass", 0.1, 0.1, 0.3, 0.3)
NEAR = replace(LEFT, x=0.12)
FAR = replace(LEFT, x=0.6)


@pytest.mark.parametrize(
    ("kind", "first", "second", "field"),
    [
        (Kind.CHAT, ACCEPT, ACCEPT, ""),
        (Kind.CHAT, ACCEPT, REJECT, "decision"),
        (Kind.CHAT, edit("No effusion."), edit("no  effusion"), ""),
        (Kind.CHAT, edit("No effusion."), edit("Small effusion."), "text"),
        (Kind.CHAT, REJECT, replace(REJECT, error="wrong side", severity=Severity.MAJOR, comment="!"), ""),
        (Kind.CHAT, replace(REJECT, regions=(LEFT,)), REJECT, ""),
        (Kind.REPORT, replace(ACCEPT, regions=(LEFT,)), replace(ACCEPT, regions=(NEAR,)), ""),
        (Kind.REPORT, replace(ACCEPT, regions=(LEFT,)), replace(ACCEPT, regions=(FAR,)), "regions"),
        (Kind.REPORT, replace(ACCEPT, regions=(LEFT,)), ACCEPT, "regions"),
        (Kind.REPORT, edit("x", missing=("Mass",)), edit("x", missing=("mass",)), ""),
        (Kind.REPORT, edit("x", missing=("mass",)), edit("x"), "missing"),
        (Kind.PICTURE, replace(ACCEPT, realism=4, agreement=3), replace(ACCEPT, realism=5, agreement=3), ""),
        (Kind.PICTURE, replace(ACCEPT, realism=2), replace(ACCEPT, realism=5), "realism"),
        (Kind.PICTURE, replace(ACCEPT, realism=2), ACCEPT, "realism"),
        (Kind.PICTURE, replace(REJECT, agreement=1), replace(REJECT, agreement=4), "agreement"),
        (Kind.PREFERENCE, Verdict(ranking=(0, 1)), Verdict(ranking=(1, 0)), "ranking"),
        (Kind.PREFERENCE, Verdict(ranking=(0, 1, 2)), Verdict(ranking=(0, 2, 1)), ""),
        (Kind.PREFERENCE, Verdict(ranking=(0, 1, 2, 3)), Verdict(ranking=(0, 3, 2, 1)), "ranking"),
        (Kind.PREFERENCE, Verdict(ranking=(0, 1, 2)), Verdict(ranking=(1, 0, 2)), "ranking"),
    ],
)
def test_verdicts_agree_by_the_definition_of_their_kind(kind, first, second, field):
    assert compare(kind, first, second).field == field
    assert compare(kind, second, first).field == field
    assert compare(kind, first, second).agree is (field == "")


verdicts = st.builds(
    Verdict,
    decision=st.sampled_from(Decision),
    text=st.sampled_from(["a", "b", None]),
    missing=st.lists(st.sampled_from(["x", "y"]), max_size=2).map(tuple),
    realism=st.none() | st.integers(1, 5),
    agreement=st.none() | st.integers(1, 5),
    ranking=st.permutations([0, 1, 2]).map(tuple),
    regions=st.lists(st.sampled_from([LEFT, NEAR, FAR]), max_size=2).map(tuple),
)


@settings(deadline=None)
@given(verdicts, verdicts, st.sampled_from(Kind))
def test_agreeing_is_mutual_and_everybody_agrees_with_himself(first, second, kind):
    assert compare(kind, first, first).agree
    assert compare(kind, first, second) == compare(kind, second, first)


def test_pairwise_agreement_is_the_share_of_pairs():
    assert pairwise(Kind.CHAT, [ACCEPT, ACCEPT, REJECT]) == pytest.approx(1 / 3)
    assert pairwise(Kind.CHAT, [ACCEPT]) is None


@pytest.mark.parametrize(
    ("kind", "verdict", "field"),
    [
        (Kind.CHAT, Verdict(), "decision"),
        (Kind.CHAT, edit("  "), "text"),
        (Kind.REPORT, Verdict(Decision.EDIT), "text"),
        (Kind.PICTURE, replace(ACCEPT, realism=6), "realism"),
        (Kind.PICTURE, replace(ACCEPT, regions=(replace(LEFT, width=1.5),)), "regions"),
        (Kind.PICTURE, replace(ACCEPT, regions=(replace(LEFT, x=float("nan")),)), "regions"),
        (Kind.PREFERENCE, Verdict(ranking=(0, 0, 1)), "ranking"),
        (Kind.PREFERENCE, Verdict(ranking=(0, 1)), "ranking"),
        (Kind.PREFERENCE, Verdict(), "ranking"),
    ],
)
def test_a_verdict_that_does_not_say_what_its_kind_asks_is_refused_by_field(kind, verdict, field):
    with pytest.raises(InvalidInput) as caught:
        check(kind, verdict, 3 if kind is Kind.PREFERENCE else 0)
    assert caught.value.field == field
