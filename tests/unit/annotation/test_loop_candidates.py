"""Columns of the store → candidates with a risk: the same as one interaction at a time gives."""

from __future__ import annotations

from datetime import timedelta
from math import exp
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression
from sqlalchemy import bindparam

from annotation.core import Kind
from annotation.loop.candidates import candidates
from annotation.loop.steps.route import plan, run
from annotation.routing.choose import choose
from annotation.routing.features import Features
from annotation.routing.plan import Spent
from annotation.routing.risk import Outcome, RiskModel, fit, prior
from annotation.routing.score import SIGNS, score, scores
from annotation.store.progress import Calibration
from services.interactions.database import transaction
from services.interactions.schema import interactions
from tests.unit.annotation import reference_choose
from tests.unit.annotation.loop_samples import loop_in, rows_as_candidates
from tests.unit.review.samples import answered, said

logprobs = st.none() | st.floats(-1000, 0)
many_features = st.lists(
    st.builds(
        Features,
        mean_logprob=logprobs,
        min_logprob=logprobs,
        mean_entropy=st.none() | st.floats(0, 50),
        picture_logprob=logprobs,
        agreement=st.none() | st.floats(0, 1),
        truncated=st.booleans(),
    ),
    max_size=20,
)


def one_at_a_time(features: Features) -> float:
    """The formula of `score.score`, in Python's own numbers."""
    signs = []
    if features.mean_logprob is not None:
        signs.append((3.0, 1 - exp(features.mean_logprob)))
    if features.min_logprob is not None:
        signs.append((2.0, 1 - exp(features.min_logprob)))
    if features.mean_entropy is not None:
        signs.append((2.0, 1 - exp(-features.mean_entropy)))
    if features.picture_logprob is not None:
        signs.append((3.0, 1 - exp(features.picture_logprob / 4.0)))
    if features.agreement is not None:
        signs.append((4.0, 1 - features.agreement))
    total = weight = 0.0
    for each, value in signs:
        total, weight = total + each * value, weight + each
    found = total / weight if weight else 0.5
    return (1 + found) / 2 if features.truncated else found


@given(many_features)
def test_scores_of_columns_are_those_of_single_answers_to_the_last_bit(many: list[Features]) -> None:
    columns = {name: np.array([getattr(one, name) for one in many], dtype=np.float64) for name in SIGNS}
    expected = [one_at_a_time(one) for one in many]
    assert scores(columns, [one.truncated for one in many]).tolist() == expected
    assert [score(one) for one in many] == expected


def test_the_prior_is_the_isotonic_curve_without_an_import_of_scipy() -> None:
    grid = np.linspace(0, 1, 11)
    fitted = isotonic_regression([prior(float(x)) for x in grid], weights=np.full(11, 10 / 11))
    curve = RiskModel().curve(Kind.CHAT)
    assert [x for x, _ in curve.knots] == grid.tolist()
    assert [y for _, y in curve.knots] == pytest.approx(fitted.x, abs=1e-15)


def fitted(count: int) -> RiskModel:
    rng = np.random.default_rng(0)
    values = rng.random((count, 2)).tolist()
    return fit(Outcome(f"int_{n}", Kind.CHAT, a, b > a, 1.0) for n, (a, b) in enumerate(values))


@pytest.mark.parametrize("model", [None, fitted(300)], ids=["prior", "fitted"])
def test_a_plan_over_columns_is_the_plan_over_interactions_one_at_a_time(
    model: RiskModel | None, tmp_path: Path
) -> None:
    routing = {"per_day": 60, "random_share": 0.2, "per_kind": {"picture": 4}}
    chest = [{"name": "chest", "modalities": ["chest_xray"]}]
    with loop_in(tmp_path, routing=routing, specialities=chest) as loop:
        ids = answered(loop.store, 300)
        rng = np.random.default_rng(1)
        of = interactions.c
        rows = [
            {
                "own": id,
                "mean_logprob": None if n % 7 == 0 else -rng.exponential(),
                "min_logprob": -float("inf") if n % 11 == 0 else -5 * rng.random(),
                "mean_entropy": rng.random() - 0.01,
                "picture_logprob": -9 * rng.random() if n % 5 == 0 else None,
                "output_images": int(n % 5 == 0),
                "reason": "length" if n % 13 == 0 else "stop",
                "task": ["vqa", "captioning", "", "image_generation"][n % 4],
                "modality": ["chest_xray", "ct", ""][n % 3],
                "caller": f"ward {n % 6}",
                "digest": "" if n % 17 == 0 else f"{n % 200:032x}",
            }
            for n, id in enumerate(ids)
        ]
        values = {name: bindparam(name) for name in rows[0] if name != "own"}
        with transaction(loop.store.engine) as connection:
            connection.execute(interactions.update().where(of.id == bindparam("own")).values(values), rows)
        for id in ids[::9]:
            said(loop.store, id, flag=True)
        if model is not None:
            parameters = model.model_dump(mode="json")
            loop.store.progress.calibrate(Calibration(loop.clock(), "isotonic", parameters, None, 300))
        for _ in range(2):  # with nothing spent, then with what was sent and drawn
            now = loop.clock()
            pool = candidates(loop, now - timedelta(days=7)).pool
            wanted = rows_as_candidates(loop)
            assert [pool[place] for place in range(len(pool))] == wanted
            made, spent = plan(loop)
            digests = loop.store.items.sent_digests(each.digest for each in wanted)
            assert spent == Spent(loop.store.figures.spent(), digests=digests, drawn=spent.drawn)
            expected = reference_choose.choose(wanted, spent, made.policy, loop.secrets.key, made.now)
            assert made.sent == expected.sent
            assert list(made.withheld) == list(expected.withheld)
            assert made == choose(wanted, spent, made.policy, loop.secrets.key, made.now)
            assert run(loop).said["looked_at"] == len(wanted)
        assert spent.drawn
        assert spent.digests
