"""Routing: budgets, the random share, flags, risk, gold, duplicates, and that each candidate is accounted for once."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from annotation.core import Kind, Reason
from annotation.routing.choose import choose
from annotation.routing.draw import Draws
from annotation.routing.plan import Spent, Why
from annotation.routing.policy import RiskRule, RoutingPolicy
from services.errors import ConfigurationError, InvalidInput
from tests.unit.annotation import reference_choose
from tests.unit.annotation.routing_samples import KEY, NOW, candidate, crowd


def keys(placements):
    return [(one.candidate.id, one.candidate.kind) for one in placements]


def route(candidates, spent=None, key=KEY, now=NOW, **policy):
    return choose(candidates, spent or Spent(), RoutingPolicy(**policy), key, now)


def after(spent, plan):
    """What the store would keep of a run."""
    today = Counter(spent.today)
    today.update((one.reason, one.candidate.kind, one.candidate.speciality) for one in plan.sent)
    digests = {(one.candidate.kind, one.candidate.digest): one.candidate.id for one in plan.sent}
    return Spent(
        today, spent.sent | set(keys(plan.sent)), {**spent.digests, **digests}, spent.drawn | plan.drawn
    )


def fate(plan, id):
    (one,) = [one for one in (*plan.sent, *plan.withheld) if one.candidate.id == id]
    return one


def drawn(candidates, **policy):
    plan = route(candidates, per_day=100_000, **policy)
    return {one.candidate.id for one in plan.sent if one.reason is Reason.RANDOM}


kinds = st.sampled_from(list(Kind))
specialities = st.sampled_from(["radiology", "pathology"])
candidates = st.lists(
    st.builds(
        candidate,
        st.text("0123456789abcdef", min_size=1, max_size=3),
        kinds,
        digest=st.sampled_from(["", "d1", "d2", "d3", "d4"]),
        speciality=specialities,
        modality=st.sampled_from(["ct", "mri"]),
        caller=st.sampled_from(["a", "b"]),
        risk=st.floats(0, 1) | st.just(0.5),
        score=st.sampled_from([0.0, 0.25, 0.5]),
        missed=st.floats(0, 1),
        flagged=st.booleans(),
        consent=st.booleans(),
        held=st.booleans(),
        gold=st.booleans(),
        created_at=st.sampled_from([NOW - timedelta(days=30), NOW]),
    ),
    max_size=40,
    unique_by=lambda one: (one.id, one.kind),
)
policies = st.builds(
    RoutingPolicy,
    per_day=st.integers(0, 30),
    per_kind=st.dictionaries(kinds, st.integers(0, 10)),
    per_speciality=st.dictionaries(specialities, st.integers(0, 10)),
    random_share=st.sampled_from([0.0, 0.3, 1.0]),
    gold_share=st.sampled_from([0.0, 0.2, 0.5]),
    flag_limit=st.floats(0, 1),
    risk_rule=st.sampled_from(list(RiskRule)),
    risk_top=st.integers(0, 10),
)


@settings(max_examples=100, deadline=None)
@given(candidates=candidates, policy=policies, shuffle=st.randoms(use_true_random=False))
def test_every_candidate_is_placed_once_whatever_their_order_and_no_budget_is_exceeded(
    candidates, policy, shuffle
):
    spent = Spent()
    first = choose(candidates, spent, policy, KEY, NOW)
    assert sorted(keys((*first.sent, *first.withheld))) == sorted((one.id, one.kind) for one in candidates)
    shuffled = list(candidates)
    shuffle.shuffle(shuffled)
    assert choose(shuffled, spent, policy, KEY, NOW) == first

    # Later runs of the day, with what is left: budgets hold for the day, and nothing is sent twice.
    for _ in range(3):
        plan = choose(candidates, spent, policy, KEY, NOW)
        assert not set(keys(plan.sent)) & spent.sent
        spent = after(spent, plan)
    assert sum(spent.today.values()) <= policy.per_day
    for kind, budget in policy.per_kind.items():
        assert sum(n for (_, of, _), n in spent.today.items() if of is kind) <= budget
    for name, budget in policy.per_speciality.items():
        assert sum(n for (*_, of), n in spent.today.items() if of == name) <= budget
    assert (
        sum(n for (why, *_), n in spent.today.items() if why is Reason.FLAG)
        <= policy.parts(policy.per_day).flags
    )
    if policy.risk_rule is RiskRule.TOP:
        assert sum(n for (why, *_), n in spent.today.items() if why is Reason.RISK) <= policy.risk_top

    # Nothing goes out that must not, and no question twice.
    for one in first.sent:
        item = one.candidate
        assert not item.held
        assert item.gold or (item.consent and item.created_at == NOW)
        assert item.gold == (one.reason is Reason.GOLD)
    asked = [
        (one.candidate.kind, one.candidate.digest)
        for one in first.sent
        if one.candidate.digest and not one.candidate.gold
    ]
    assert len(asked) == len(set(asked))
    for one in first.withheld:
        if one.why is Why.DUPLICATE:
            sent = {key: of.candidate for key, of in zip(keys(first.sent), first.sent, strict=True)}
            assert sent[one.of, one.candidate.kind].digest == one.candidate.digest


def without_draws_of_gold(placements):
    """Gold is not drawn; the reference gives it the draw of another kind of the same id."""
    return [one._replace(draw=1.0) if one.candidate.gold else one for one in placements]


def tabled(placements):
    return Counter(
        (str(one.reason or one.why), one.candidate.kind, one.candidate.speciality) for one in placements
    )


@settings(max_examples=200, deadline=None)
@given(
    candidates=candidates,
    policy=policies,
    again=st.integers(0, 2),
    digests=st.dictionaries(st.tuples(kinds, st.sampled_from(["d1", "d2"])), st.just("earlier"), max_size=2),
)
def test_columns_decide_as_one_candidate_at_a_time_does(candidates, policy, again, digests):
    spent = Spent(digests=digests)
    for run in range(3):
        plan = choose(candidates, spent, policy, KEY, NOW)
        wanted = reference_choose.choose(candidates, spent, policy, KEY, NOW)
        assert list(plan.sent) == without_draws_of_gold(wanted.sent)
        assert list(plan.withheld) == without_draws_of_gold(wanted.withheld)
        assert (plan.drawn, plan.uncovered) == (wanted.drawn, wanted.uncovered)
        counts = {(row["outcome"], row["kind"], row["speciality"]): row["count"] for row in plan.table()}
        assert counts == tabled((*wanted.sent, *wanted.withheld))
        assert plan.to_json()["thinned"] == sum(
            one.why is not Why.DUPLICATE and key in wanted.drawn
            for placements in (wanted.sent, wanted.withheld)
            for key, one in zip(keys(placements), placements, strict=True)
        )
        spent = after(spent, plan)
        if run == again:
            spent = replace(spent, today={})


@pytest.mark.parametrize(
    "policy", [{}, {"risk_rule": "top"}, {"risk_rule": "miss_rate"}, {"per_kind": {"chat": 5}}]
)
def test_columns_decide_the_same_of_a_crowd_of_whom_many_ask_the_same(policy):
    crowd_ = [
        replace(one, digest=f"d{i % 700}", risk=round(one.risk, 1)) for i, one in enumerate(crowd(3000))
    ]
    policy = RoutingPolicy(**{"per_day": 300, "random_share": 0.1, **policy})
    plan = choose(crowd_, Spent(), policy, KEY, NOW)
    wanted = reference_choose.choose(crowd_, Spent(), policy, KEY, NOW)
    assert plan.sent == wanted.sent
    assert list(plan.withheld) == list(wanted.withheld)
    assert Why.DUPLICATE in {one.why for one in plan.withheld}


def test_the_random_share_is_the_same_after_a_restart_and_another_with_another_key():
    crowd_ = crowd(5000)
    first, again, other = (drawn(crowd_, key=key, random_share=0.1) for key in (KEY, KEY, KEY[::-1]))
    assert first == again
    assert len(first & other) / len(first) == pytest.approx(0.1, abs=0.05)


def test_neither_risk_nor_flags_nor_anything_else_of_an_item_changes_its_draw():
    plain = [replace(one, risk=0.0, flagged=False, modality="", caller="") for one in crowd(3000)]
    loud = [replace(one, risk=1.0, flagged=True, modality="ct", caller="x") for one in plain]
    assert drawn(plain, random_share=0.05) == drawn(loud, random_share=0.05)
    assert len(drawn(plain, random_share=0.05)) > 100


def test_draws_are_uniform_and_independent_of_consecutive_ids():
    draw = Draws(KEY, "random share")
    values = np.array([draw(f"int-{number:08d}") for number in range(40_000)])
    assert chisquare(np.histogram(values, 50, (0, 1))[0]).pvalue > 0.001
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.02
    other = np.array([Draws(KEY, "order")(f"int-{number:08d}") for number in range(40_000)])
    assert abs(np.corrcoef(values, other)[0, 1]) < 0.02


def by_risk_and_flag(candidates):
    counts = Counter((one.risk > 0.5, one.flagged or one.risk > 0.9) for one in candidates)
    return [counts[cell] for cell in ((False, False), (False, True), (True, False), (True, True))]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("per_day", [400, 100_000])
def test_the_random_share_looks_like_everything_with_and_without_enough_budget(seed, per_day):
    everything = crowd(12_000, seed)
    plan = route(everything, per_day=per_day, random_share=0.1, risk_threshold=0.8)
    ours = by_risk_and_flag(one.candidate for one in plan.sent if one.reason is Reason.RANDOM)
    assert sum(ours) == 100 if per_day == 400 else 1050 < sum(ours) < 1350
    expected = np.array(by_risk_and_flag(everything)) / len(everything) * sum(ours)
    assert chisquare(ours, expected).pvalue > 0.005
    # The test can tell: what is sent for other reasons looks nothing like everything.
    others = by_risk_and_flag(one.candidate for one in plan.sent if one.reason is not Reason.RANDOM)
    assert chisquare(others, np.array(expected) / sum(expected) * sum(others)).pvalue < 1e-6


def test_weights_make_up_for_cells_thinned_by_their_budgets():
    # Radiology is bad (risk 1), has a tenth of the budget it would need; the weighted mean must still be right.
    found = []
    for seed in range(30):
        everything = [
            replace(one, risk=0.9 if one.speciality == "radiology" else 0.1) for one in crowd(3000, seed)
        ]
        plan = route(everything, per_day=10_000, per_speciality={"radiology": 40}, random_share=0.1)
        ours = [one for one in plan.sent if one.reason is Reason.RANDOM]
        truth = np.mean([one.risk for one in everything])
        weighted = np.average([one.candidate.risk for one in ours], weights=[one.weight for one in ours])
        plain = np.mean([one.candidate.risk for one in ours])
        found.append((weighted - truth, plain - truth))
    weighted, plain = np.mean(found, axis=0)
    assert abs(weighted) < 0.01
    assert plain < -0.1
    assert not plan.uncovered


def test_a_cell_without_any_budget_is_named_as_uncovered():
    plan = route(crowd(2000), per_kind={Kind.PICTURE: 0}, per_day=10_000, random_share=0.1)
    assert {kind for kind, _ in plan.uncovered} == {Kind.PICTURE}
    assert sum(plan.uncovered.values()) == sum(kind is Kind.PICTURE for _, kind in plan.drawn)


def test_flags_and_risk_cannot_use_the_budget_of_the_random_share():
    loud = crowd(2000, risk=1.0, flagged=True)
    spent = after(Spent(), route(loud, per_day=100, random_share=0.0001))
    assert sum(spent.today.values()) <= 75
    later = route(crowd(2000, seed=1), spent, per_day=100, random_share=0.1)
    assert sum(one.reason is Reason.RANDOM for one in later.sent) == 25


def test_a_thinned_member_gets_no_second_draw_but_may_go_for_its_risk():
    items = crowd(1000, risk=0.0, flagged=False)
    first = route(items, per_day=40, random_share=0.5)
    assert len(first.sent) == 10
    spent = replace(after(Spent(), first), today={})
    second = route(items, spent, per_day=10_000, random_share=0.5)
    assert not [one for one in second.sent if one.reason is Reason.RANDOM]
    risky = [replace(one, risk=0.9) for one in items]
    third = route(risky, spent, per_day=10_000, random_share=0.5)
    assert {one.reason for one in third.sent} == {Reason.RISK}
    assert set(keys(third.sent)) & spent.drawn


def test_a_caller_who_flags_everything_does_not_push_out_the_others():
    noisy = [candidate(f"n{i}", caller="noisy", flagged=True, risk=0.9) for i in range(500)]
    quiet = [candidate(f"q{i}", caller="quiet", flagged=True, risk=0.1) for i in range(5)]
    plan = route([*noisy, *quiet], per_day=40, random_share=0)
    assert all(fate(plan, f"q{i}").reason is Reason.FLAG for i in range(5))
    # And half of what is not gold or random is left for risk.
    reasons = Counter(one.reason for one in plan.sent)
    assert reasons[Reason.FLAG] == 19
    assert reasons[Reason.RISK] == 19


def test_risk_takes_turns_between_strata_and_the_riskiest_of_each_first():
    common = [candidate(f"c{i}", modality="chest_xray", risk=0.9 + i / 10_000) for i in range(200)]
    rare = [candidate(f"r{i}", modality="fundus", risk=0.5 + i / 10_000) for i in range(200)]
    plan = route([*common, *rare], per_day=20, random_share=0, gold_share=0)
    assert sorted(one.candidate.id for one in plan.sent) == sorted(
        [*(f"c{i}" for i in range(190, 200)), *(f"r{i}" for i in range(190, 200))]
    )


def test_the_first_stratum_of_the_day_changes_when_the_budget_is_smaller_than_their_number():
    items = [candidate(f"{name}", modality=name, risk=0.9) for name in "abcdef"]
    firsts = {
        route(items, per_day=1, random_share=0, gold_share=0, now=NOW + timedelta(days=day))
        .sent[0]
        .candidate.modality
        for day in range(7)
    }
    assert len(firsts) > 2


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"risk_rule": "threshold", "risk_threshold": 0.75}, {"i8", "i9"}),
        ({"risk_rule": "top", "risk_top": 3}, {"i7", "i8", "i9"}),
        ({"risk_rule": "miss_rate", "miss_rate": 0.45}, {"i5", "i6", "i7", "i8", "i9"}),
    ],
)
def test_each_rule_of_risk_sends_what_it_says(rule, expected):
    items = [candidate(f"i{i}", risk=i / 10, missed=i / 10) for i in range(10)]
    plan = route(items, random_share=0, **rule)
    assert {one.candidate.id for one in plan.sent} == expected
    assert {one.why for one in plan.withheld} == {Why.BELOW_THRESHOLD}


def test_gold_is_mixed_in_at_its_share_over_the_runs_of_a_day():
    gold = [candidate(f"g{i}", gold=True, consent=False) for i in range(100)]
    spent = Spent()
    for run in range(10):
        items = [candidate(f"{run}-{i}", risk=0.9) for i in range(20)]
        plan = route([*items, *gold], spent, per_day=1000, random_share=0, gold_share=0.1)
        spent = after(spent, plan)
    counts = Counter(reason for (reason, *_), n in spent.today.items() for _ in range(n))
    assert counts[Reason.RISK] == 200
    assert counts[Reason.GOLD] in (22, 23)  # a tenth of all


def test_no_gold_is_sent_where_nothing_else_is():
    plan = route([candidate("g", gold=True)], gold_share=0.5)
    assert fate(plan, "g").why is Why.GOLD_NOT_NEEDED


def test_the_order_of_sending_tells_nothing_of_the_reason():
    gold = crowd(300, seed=9, gold=True, flagged=False)
    plan = route([*crowd(3000), *gold], per_day=600, random_share=0.1)
    for reason in Reason:
        places = [i for i, one in enumerate(plan.sent) if one.reason is reason]
        assert len(places) > 5
        error = len(plan.sent) / np.sqrt(12 * len(places))
        assert abs(np.mean(places) - len(plan.sent) / 2) < 3.5 * error, reason


def test_a_duplicate_of_the_random_share_counts_for_the_verdict_on_its_like():
    items = [candidate(f"i{i}", digest=f"d{i % 50}") for i in range(1000)]
    plan = route(items, per_day=10_000, random_share=0.3)
    assert len([one for one in plan.sent if one.reason is Reason.RANDOM]) == 50
    weights = sum(one.weight for one in (*plan.sent, *plan.withheld))
    members = sum(one.draw < 0.3 for one in (*plan.sent, *plan.withheld))
    assert weights == pytest.approx(members)
    earlier = Spent(digests={(Kind.CHAT, "d7"): "old"})
    again = route(items, earlier, per_day=10_000, random_share=0.3)
    assert {one.of for one in again.withheld if one.candidate.digest == "d7"} == {"old"}


def test_over_the_runs_of_a_day_every_member_of_the_random_share_is_counted_once():
    early = [candidate(f"e{i}", digest=f"d{i % 40}") for i in range(400)]
    late = [candidate(f"l{i}", digest=f"d{i % 60}") for i in range(400)]
    spent, weights = Spent(), 0.0
    for items in (early, [*early, *late], [*early, *late]):
        plan = route(items, spent, per_day=120, random_share=0.3)
        weights += sum(one.weight for one in (*plan.sent, *plan.withheld))
        spent = after(spent, plan)
    draw = Draws(KEY, "random share")
    assert sum(n for (reason, *_), n in spent.today.items() if reason is Reason.RANDOM) == 30
    assert weights == pytest.approx(sum(draw(one.id) < 0.3 for one in early))  # nothing of `late` fits


def test_what_must_not_be_sent_is_not_and_says_why():
    base = candidate("x", risk=1.0, flagged=True)
    cases = {
        Why.HELD: replace(base, id="held", held=True),
        Why.NO_CONSENT: replace(base, id="consent", consent=False),
        Why.TOO_OLD: replace(base, id="old", created_at=NOW - timedelta(days=7, seconds=1)),
        Why.ALREADY_SENT: replace(base, id="sent"),
    }
    plan = route(cases.values(), Spent(sent={("sent", Kind.CHAT)}), random_share=1.0)
    assert {one.why: one.candidate.id for one in plan.withheld} == {why: c.id for why, c in cases.items()}
    assert not plan.sent


def test_a_plan_says_in_words_why_each_item_is_where_it_is():
    items = [
        *crowd(400),
        candidate("risky", risk=0.95, modality="rare"),
        candidate("calm", risk=0.01),
        candidate("nobody", consent=False),
        *(candidate(f"g{i}", gold=True) for i in range(5)),
    ]
    plan = route(items, per_day=100, random_share=0.05)
    assert plan.explain("risky") == ["chat: sent for its risk: risk 0.950, threshold 0.3"]
    assert "consent" in plan.explain("nobody")[0]
    assert "not risky enough (risk 0.010, threshold 0.3)" in plan.explain("calm")[0]
    assert plan.explain("unheard-of") == []
    for one in (*plan.sent, *plan.withheld):
        (sentence,) = plan.explain(one.candidate.id)
        assert sentence.startswith(f"{one.candidate.kind}: {'sent' if one.reason else 'not sent'}")
    table = plan.table()
    assert sum(row["count"] for row in table) == len(items)
    assert sum(row["count"] for row in table if row["sent"]) == len(plan.sent)
    assert json.loads(json.dumps(plan.to_json()))["sent"] == len(plan.sent)


def test_one_interaction_may_ask_for_two_kinds_of_review_and_both_are_drawn_together():
    items = [candidate(f"i{i}", kind, digest="") for i in range(300) for kind in (Kind.CHAT, Kind.PICTURE)]
    plan = route(items, per_day=10_000, random_share=0.2)
    drawn = Counter(one.candidate.id for one in plan.sent)
    assert set(drawn.values()) == {2}


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ([candidate("a"), candidate("a")], "id"),
        ([candidate("a", risk=float("nan"))], "risk"),
        ([candidate("a", score=1.5)], "score"),
        ([candidate("a", created_at=NOW.replace(tzinfo=None))], "created_at"),
    ],
)
def test_a_candidate_that_makes_no_sense_is_named(bad, named):
    with pytest.raises(InvalidInput, match=named):
        route(bad)


@pytest.mark.parametrize("key", [b"", b"short", b"x" * 65])
def test_a_key_that_can_be_guessed_is_refused(key):
    with pytest.raises(ConfigurationError, match="16 to 64 bytes"):
        route([], key=key)


def test_a_hundred_thousand_candidates_are_all_accounted_for():
    plan = route(crowd(100_000), per_day=2000)
    assert len(plan.sent) + len(plan.withheld) == 100_000
    assert Counter(one.reason for one in plan.sent)[Reason.RANDOM] == 500
