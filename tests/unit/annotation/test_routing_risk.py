"""Features, the raw score, and risks that are calibrated however answers were routed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation.agreement.text import normalised
from annotation.core import Decision, Item, Judgement, Kind, Reason, Turn, Verdict
from annotation.routing.features import Features, content_digest, features, resampled_agreement
from annotation.routing.risk import Outcome, RiskModel, fit, load, prior
from annotation.routing.score import score
from services.errors import InvalidInput
from services.pb.medmax.v1 import assistant_pb2, common_pb2

HALF = np.array([0.5])


def interaction(**fields):
    made = assistant_pb2.Interaction(
        mode=common_pb2.OUTPUT_MODE_TEXT,
        reason=common_pb2.FINISH_REASON_STOP,
        output=[assistant_pb2.Part(text="No effusion.")],
        text_confidence=common_pb2.Confidence(
            mean_logprob=-0.2, min_logprob=-1.5, mean_entropy=0.4, tokens=4
        ),
    )
    question = made.prompt.add(role=assistant_pb2.ROLE_USER)
    question.parts.add().image.sha256 = "ab" * 32
    question.parts.add().text = "Is there an effusion?"
    made.MergeFrom(assistant_pb2.Interaction(**fields))
    return made


def picture(mean_logprob):
    part = assistant_pb2.Part()
    part.image.confidence.CopyFrom(common_pb2.Confidence(mean_logprob=mean_logprob, tokens=64))
    return part


# --- features


def test_features_are_those_of_the_stored_interaction():
    found = features(interaction(), task="vqa", modality="chest_xray", agreement=0.75)
    assert found == Features(-0.2, -1.5, 0.4, 4, None, 12, False, "text", "vqa", "chest_xray", 0.75)
    drawn = features(
        interaction(
            mode=common_pb2.OUTPUT_MODE_INTERLEAVED,
            reason=common_pb2.FINISH_REASON_LENGTH,
            output=[picture(-2.0), picture(-3.5)],
        )
    )
    assert drawn.picture_logprob == -3.5  # the least likely picture
    assert drawn.truncated
    assert drawn.mode == "interleaved"


def test_an_answer_without_text_has_no_figures_of_text():
    silent = interaction()
    silent.text_confidence.Clear()
    assert features(silent).mean_logprob is None


@pytest.mark.parametrize(
    ("field", "value"),
    [("mean_logprob", 0.5), ("min_logprob", float("nan")), ("mean_entropy", -1), ("agreement", 1.01)],
)
def test_figures_that_cannot_be_are_named(field, value):
    with pytest.raises(InvalidInput, match=field):
        Features(**{field: value})


def test_the_same_question_and_answer_have_one_digest_whoever_asked_and_however_typed():
    first = interaction()
    again = interaction(id="another", caller="another", created_at={"seconds": 7})
    again.prompt[0].parts[1].text = "is there an  Effusion ?"
    assert content_digest(first) == content_digest(again)


@pytest.mark.parametrize(
    "change",
    [
        lambda one: setattr(one.output[0], "text", "An effusion."),
        lambda one: setattr(one.prompt[0].parts[1], "text", "Is there a mass?"),
        lambda one: setattr(one.prompt[0].parts[0].image, "sha256", "cd" * 32),
        lambda one: setattr(one.prompt[0], "role", assistant_pb2.ROLE_SYSTEM),
    ],
)
def test_another_question_picture_role_or_answer_has_another_digest(change):
    other = interaction()
    change(other)
    assert content_digest(other) != content_digest(interaction())


def test_text_of_two_parts_is_not_the_text_of_one():
    two = interaction(output=[assistant_pb2.Part(text="Indeed")])
    one = interaction()
    one.output[0].text = "No effusion. Indeed"
    assert content_digest(two) != content_digest(one)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("Yes.", "yes", True),
        ("A  “large” effusion!", 'a "large" effusion', True),
        ("ﬁbrosis", "fibrosis", True),
        ("1.5 cm", "15 cm", False),
        ("hepatitis A", "hepatitis", False),
        ("-3 D", "3 D", False),
        (".5 mm", "5 mm", False),
        ("no effusion", "effusion", False),
    ],
)
def test_what_counts_as_the_same_text(a, b, same):
    assert (normalised(a) == normalised(b)) is same


def test_agreement_is_the_share_of_resampled_answers_that_say_the_same():
    answers = {1: "Yes.", 2: "yes", 3: "No", 4: " YES "}

    async def ask(seed):
        await asyncio.sleep(0)
        return answers[seed]

    assert asyncio.run(resampled_agreement(ask, "yes", [1, 2, 3, 4])) == 0.75


def test_resampling_that_fails_says_so_and_leaves_nothing_running():
    cancelled = []

    async def ask(seed):
        if seed == 2:
            raise ConnectionError("gone")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(seed)
            raise
        return ""

    with pytest.raises(ConnectionError):
        asyncio.run(resampled_agreement(ask, "yes", [1, 2, 3]))
    assert sorted(cancelled) == [1, 3]


@pytest.mark.parametrize("seeds", [[], [1, 1], list(range(33))])
def test_seeds_must_be_few_and_different(seeds):
    async def ask(seed):
        return ""

    with pytest.raises(InvalidInput, match="seeds"):
        asyncio.run(resampled_agreement(ask, "", seeds))


# --- score

logprobs = st.none() | st.floats(-50, 0)


@settings(deadline=None)
@given(
    st.builds(
        Features,
        mean_logprob=logprobs,
        min_logprob=logprobs,
        mean_entropy=st.none() | st.floats(0, 12),
        picture_logprob=logprobs,
        agreement=st.none() | st.floats(0, 1),
        truncated=st.booleans(),
    )
)
def test_a_score_is_a_share_and_rises_with_every_sign_of_doubt(one):
    found = score(one)
    assert 0 <= found <= 1
    for field, step in (
        ("mean_logprob", -1),
        ("min_logprob", -1),
        ("mean_entropy", 1),
        ("picture_logprob", -1),
    ):
        if (value := getattr(one, field)) is not None:
            assert score(replace(one, **{field: value + step})) >= found
    if one.agreement is not None:
        assert score(replace(one, agreement=one.agreement / 2)) >= found
    assert score(replace(one, truncated=True)) >= found


def test_nothing_known_is_in_the_middle():
    assert score(Features()) == 0.5


# --- calibration


def world(count, seed):
    """Scores, whether each answer is bad, and whether a user flags it: users see badness that the score does not."""
    rng = np.random.default_rng(seed)
    scores = rng.beta(2, 3, count)
    truth = np.clip(0.02 + 0.9 * scores**2, 0, 1)
    bad = rng.random(count) < truth
    flagged = rng.random(count) < np.where(bad, 0.5, 0.01)
    return scores, truth, bad, flagged


def outcomes(scores, bad, weights, kind=Kind.CHAT):
    return [
        Outcome(f"i{index}", kind, float(score), not refused, float(weight))
        for index, (score, refused, weight) in enumerate(zip(scores, bad, weights, strict=True))
    ]


def test_risks_fitted_on_the_random_share_are_calibrated_and_on_everything_sent_are_not():
    errors = []
    for seed in range(5):
        scores, truth, bad, flagged = world(20_000, seed)
        drawn = np.random.default_rng([seed, 1]).random(20_000) < 0.05
        sent = drawn | flagged | (scores > 0.6)
        everything = fit(outcomes(scores[sent], bad[sent], np.ones(sent.sum())))
        ours = fit(outcomes(scores[sent], bad[sent], drawn[sent]))
        assert ours.verdicts == drawn.sum()
        grid = np.linspace(0.1, 0.9, 50)
        expected = np.interp(grid, np.sort(scores), truth[np.argsort(scores)])
        errors.append(
            [np.mean(model.curve(Kind.CHAT).risks(grid) - expected) for model in (ours, everything)]
        )
    random_only, all_sent = np.mean(errors, axis=0)
    assert abs(random_only) < 0.03
    assert all_sent > 0.08  # flags make every score look worse than it is


def test_the_ece_is_of_verdicts_that_the_curve_has_not_seen():
    scores, _, bad, _ = world(2000, 1)
    curve = fit(outcomes(scores, bad, np.ones(2000))).curves[Kind.CHAT]
    assert curve.ece < 0.05
    assert sum(row.n for row in curve.reliability) == 2000
    assert [row.predicted for row in curve.reliability] == sorted(row.predicted for row in curve.reliability)
    # Scores that say nothing: a curve that memorised its verdicts would look perfect on them.
    noise = fit(outcomes(np.linspace(0, 1, 40), np.arange(40) % 2 == 0, np.ones(40))).curves[Kind.CHAT]
    assert noise.ece > 0.03


def test_weights_stand_for_interactions_that_were_thinned():
    scores, _, bad, _ = world(4000, 2)
    few = np.arange(4000) % 10 == 0
    site = np.random.default_rng(3).random(4000) < 0.5
    bad = (
        bad | site
    )  # half the answers come from a site where all are bad, and nine in ten of its were thinned
    kept = ~site | few
    weighted = fit(
        outcomes(scores[kept], bad[kept], np.where(site, site.sum() / (site & few).sum(), 1)[kept])
    )
    plain = fit(outcomes(scores[kept], bad[kept], np.ones(kept.sum())))
    whole = fit(outcomes(scores, bad, np.ones(4000)))
    grid = np.linspace(0.1, 0.8, 30)
    risks = [model.curve(Kind.CHAT).risks(grid) for model in (weighted, plain, whole)]
    assert np.abs(risks[0] - risks[2]).mean() < 0.08
    assert np.abs(risks[1] - risks[2]).mean() > 0.2


def test_conformal_misses_no_more_unacceptable_answers_than_promised():
    missed = {0.05: [], 0.2: []}
    for seed in range(60):
        scores, _, bad, _ = world(600, [9, seed])
        model = fit(outcomes(scores[:300], bad[:300], np.ones(300)))
        later = model.curve(Kind.CHAT).missed(scores[300:][bad[300:]])
        for rate, shares in missed.items():
            shares.append(np.mean(later <= rate))
    for rate, shares in missed.items():
        error = np.std(shares) / np.sqrt(len(shares))
        assert np.mean(shares) <= rate + 3 * error
        assert np.mean(shares) >= rate / 2  # and sends no more than it must


def test_without_unacceptable_answers_conformal_sends_everything():
    model = fit(outcomes(np.full(50, 0.1), np.zeros(50), np.ones(50)))
    assert (model.curve(Kind.CHAT).missed(np.array([0.0, 0.5, 1.0])) == 1).all()


def test_before_any_verdict_the_risk_is_the_prior_and_says_so():
    for model in (RiskModel(), fit([])):
        curve, ends = model.curve(Kind.REPORT), np.array([0.0, 1.0])
        assert curve.risks(ends) == pytest.approx([prior(0), prior(1)])
        assert curve.verdicts == 0
        assert (curve.missed(ends) == 1).all()


def test_the_prior_fades_and_one_verdict_claims_nothing():
    one = fit(outcomes([0.5], [True], [1])).curve(Kind.CHAT)
    assert prior(0.5) <= one.risks(HALF)[0] < 0.8
    many = fit(outcomes(np.full(1000, 0.5), np.ones(1000), np.ones(1000)))
    assert many.curve(Kind.CHAT).risks(HALF)[0] > 0.99


def test_kinds_are_calibrated_apart():
    model = fit(
        [
            *outcomes(np.full(200, 0.5), np.ones(200), np.ones(200), Kind.REPORT),
            *outcomes(np.full(200, 0.5), np.zeros(200), np.ones(200), Kind.CHAT),
        ]
    )
    risks = {kind: model.curve(kind).risks(HALF)[0] for kind in Kind}
    assert risks[Kind.REPORT] > 0.9
    assert risks[Kind.CHAT] < 0.1
    assert risks[Kind.PICTURE] == pytest.approx(prior(0.5))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.just(0.0) | st.floats(1, 100)), max_size=40),
    st.randoms(use_true_random=False),
)
def test_a_risk_never_falls_as_the_score_rises_and_survives_json(rows, shuffle):
    made = outcomes(*(zip(*rows, strict=True) if rows else ([], [], [])))
    model = fit(made, model_digest="ab")
    shuffle.shuffle(made)
    assert fit(made, model_digest="ab") == model
    curve, grid = model.curve(Kind.CHAT), np.linspace(0, 1, 30)
    again = load(model.model_dump_json()).curve(Kind.CHAT)
    for found, reloaded in (
        (curve.risks(grid), again.risks(grid)),
        (curve.missed(grid), again.missed(grid)),
    ):
        assert (np.diff(found) >= 0).all()
        assert ((found >= 0) & (found <= 1)).all()
        assert (found == reloaded).all()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "risk_model"),
        ('{"format": 2}', "risk_model.format"),
        ('{"score_version": 9}', "risk_model.score_version"),
        ('{"curves": {"chat": {"verdicts": 1, "stand_for": 1, "knots": [[0, 2]]}}}', "knots"),
        ('{"curves": {"chat": {"verdicts": 1, "stand_for": 1, "knots": [[0, 0.5], [1, 0.2]]}}}', "chat"),
        ('{"curves": {"poem": {}}}', "curves.poem"),
        ('{"colour": 1}', "colour"),
    ],
)
def test_a_file_that_is_no_risk_model_is_refused_by_field(text, named):
    with pytest.raises(InvalidInput, match=named):
        load(text)


@pytest.mark.parametrize(
    ("field", "value"),
    [("score", 1.2), ("score", float("nan")), ("weight", -1), ("weight", 0.5), ("weight", float("nan"))],
)
def test_an_outcome_out_of_range_is_named(field, value):
    good = Outcome("i", Kind.CHAT, 0.5, True, 1)
    with pytest.raises(InvalidInput, match=field):
        fit([replace(good, **{field: value})])


def test_an_outcome_is_made_of_a_judgement():
    item = Item("i", Kind.CHAT, (Turn("user", ("?",)),), ("yes",), reason=Reason.RANDOM)
    edited = Judgement(item, Verdict(Decision.EDIT, "no"), (), None, False, datetime(2026, 1, 1, tzinfo=UTC))
    assert Outcome.of(edited, 0.3, 2.5) == Outcome("i", Kind.CHAT, 0.3, False, 2.5)
    ranked = replace(edited, item=replace(item, kind=Kind.PREFERENCE), verdict=Verdict(ranking=(1, 0)))
    assert Outcome.of(ranked, 0.3, 1) is None
