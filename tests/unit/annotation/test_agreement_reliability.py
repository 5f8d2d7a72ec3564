"""Reliability of annotators: gold, peers, and a rule that finds the bad ones and spares the good ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from annotation.agreement.consensus import Peers, Vote, consensus
from annotation.agreement.reliability import FLOOR, MIN_GOLD, Reliability, Score, reliability, standing
from annotation.core import Decision, Kind, Reason, Verdict
from tests.unit.annotation.judge_samples import ACCEPT, REJECT, annotation, edit, item


def test_the_posterior_is_beta_of_prior_and_gold():
    found = standing(Score(8, 2))
    assert (found.a, found.b) == (12, 3)
    assert found.lower == pytest.approx(beta(12, 3).ppf(0.05))
    assert found.doubt == pytest.approx(beta(12, 3).cdf(FLOOR))
    assert found.lower < found.mean < 1


def test_more_right_gold_raises_the_weight_and_the_lower_bound():
    rows = [standing(Score(right, 10 - right)) for right in range(11)]
    assert [one.weight for one in rows] == sorted(one.weight for one in rows)
    assert [one.lower for one in rows] == sorted(one.lower for one in rows)
    assert rows[0].weight > 0


def test_a_newcomer_counts_and_one_slip_is_forgiven():
    assert not Reliability().of("new", Kind.CHAT).unreliable
    assert not standing(Score(0, MIN_GOLD - 1)).unreliable
    assert not standing(Score(5, 1)).unreliable
    assert standing(Score(1, 7)).unreliable


def test_gold_of_other_kinds_counts_for_a_few_tasks_at_most():
    alone, helped = standing(Score(2, 4)), standing(Score(2, 4), others=Score(1000, 0))
    assert alone.mean < helped.mean
    assert helped.a + helped.b == pytest.approx(alone.a + alone.b + 5)


def test_votes_of_peers_are_a_weak_second_source():
    doubted = standing(Score(), peers=Peers(500, 50.0))
    assert doubted.mean < standing(Score()).mean
    assert not doubted.unreliable  # without gold nobody is dropped: the many may be wrong
    assert doubted.a + doubted.b == pytest.approx(10)


def test_gold_is_scored_by_the_definition_of_agreement_and_other_items_by_peers():
    gold = {
        "g1": item(id="g1", reason=Reason.GOLD, gold=edit("No effusion.")),
        "g2": item(id="g2", reason=Reason.GOLD, gold=REJECT),
    }
    found = reliability(
        gold,
        [
            annotation("ann", edit("no effusion"), item_id="g1"),
            annotation("ann", ACCEPT, item_id="g2"),
            annotation("bob", REJECT, item_id="g2"),
            annotation("ann", ACCEPT, item_id="i"),
            annotation("bob", ACCEPT, item_id="i"),
            annotation("eve", REJECT, item_id="alone"),
        ],
    )
    assert found.of("ann", Kind.CHAT).gold == Score(1, 1)
    assert found.of("bob", Kind.CHAT).gold == Score(1, 0)
    assert ("eve", Kind.CHAT) not in found.standings


def test_a_gold_item_without_its_verdict_is_an_error():
    with pytest.raises(ValueError, match="right verdict"):
        reliability({"g": item(id="g", reason=Reason.GOLD)}, [annotation("ann", ACCEPT, item_id="g")])


ACCURACY = {f"honest{number}": 0.85 + 0.015 * number for number in range(8)} | {"bad0": 0.35, "bad1": 0.45}
DECISIONS = [Decision.ACCEPT, Decision.EDIT, Decision.REJECT]


def simulate(seed, gold=20, ordinary=150, accuracy=ACCURACY):
    """Ten annotators, two of them unreliable: gold for all, and ordinary items for two of them each."""
    rng = np.random.default_rng(seed)
    names = list(accuracy)

    def verdict(truth, name):
        wrong = [one for one in DECISIONS if one is not truth]
        said = truth if rng.random() < accuracy[name] else wrong[rng.integers(2)]
        return edit("the text") if said is Decision.EDIT else Verdict(said)

    items, annotations = {}, []
    for number in range(gold):
        truth = DECISIONS[rng.integers(3)]
        right = edit("the text") if truth is Decision.EDIT else Verdict(truth)
        items[f"g{number}"] = item(id=f"g{number}", reason=Reason.GOLD, gold=right)
        annotations += [annotation(name, verdict(truth, name), item_id=f"g{number}") for name in names]
    for number in range(ordinary):
        truth = DECISIONS[rng.integers(3)]
        annotations += [
            annotation(names[who], verdict(truth, names[who]), item_id=f"i{number}")
            for who in rng.choice(len(names), 2, replace=False)
        ]
    return items, annotations


def test_two_planted_among_ten_are_found_and_the_honest_ones_are_spared():
    missed = wronged = 0
    for seed in range(12):
        found = set(reliability(*simulate(seed, gold=30)).unreliable(Kind.CHAT))
        missed += len({"bad0", "bad1"} - found)
        wronged += len(found - {"bad0", "bad1"})
    assert missed <= 3  # of 24
    assert wronged <= 1  # of 96


def test_honest_annotators_are_spared_however_often_one_looks():
    """After every gold task up to 60: an accuracy of 0.88 must not be dropped by a run of bad luck."""
    rng = np.random.default_rng(4)
    trips = {
        (right, total): standing(Score(right, total - right)).unreliable
        for total in range(MIN_GOLD, 61)
        for right in range(total + 1)
    }

    def ever(accuracy, count):
        answers = np.cumsum(rng.random((count, 60)) < accuracy, axis=1)
        looks = range(MIN_GOLD, 61)
        return np.mean([any(trips[int(row[total - 1]), total] for total in looks) for row in answers])

    assert ever(0.88, 2000) < 0.01
    assert ever(0.45, 500) > 0.95


def test_consensus_recovers_accuracies_from_votes_alone():
    rng = np.random.default_rng(7)
    votes = []
    for number in range(400):
        truth = rng.integers(3)
        for name in rng.choice(list(ACCURACY), 4, replace=False):
            said = truth if rng.random() < ACCURACY[name] else (truth + 1 + rng.integers(2)) % 3
            votes.append(Vote(f"i{number}", str(name), int(said)))
    found = consensus(votes)
    for name, accuracy in ACCURACY.items():
        assert found[name].right / found[name].votes == pytest.approx(accuracy, abs=0.1), name


def test_two_who_always_contradict_each_other_do_not_vouch_for_themselves():
    votes = [Vote(f"i{n}", who, who) for n in range(20) for who in ("a", "b")]
    found = consensus(votes)
    assert found["a"].right == pytest.approx(found["b"].right)
    assert found["a"].right / found["a"].votes < 0.5


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.builds(Vote, st.sampled_from("ijk"), st.sampled_from("abcd"), st.sampled_from(["x", "y", "z"])),
        max_size=12,
        unique_by=lambda vote: (vote.item, vote.annotator),
    ),
    st.randoms(use_true_random=False),
)
def test_consensus_does_not_depend_on_the_order_of_votes(votes, shuffle):
    first = consensus(votes)
    shuffle.shuffle(votes)
    assert consensus(votes) == first
    assert all(0 <= one.right <= one.votes for one in first.values())


def test_two_votes_of_one_annotator_on_an_item_are_an_error():
    with pytest.raises(ValueError, match="one vote"):
        consensus([Vote("i", "a", 1), Vote("i", "a", 2)])
