"""Verdicts on the random share → the curve that turns raw scores into risks.

Of the share are also items that were sent for another reason and that a member of it repeats: they have its weight."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select

from annotation.core import Decision, Kind
from annotation.loop.candidates import features_of
from annotation.loop.context import Loop
from annotation.loop.result import Result
from annotation.routing.risk import Outcome, fit
from annotation.routing.score import score
from annotation.store.candidates import COLUMNS, SOURCE, Candidate
from annotation.store.progress import Calibration
from annotation.store.schema import items, judgements
from services.interactions.schema import interactions

METHOD = "isotonic"


def run(loop: Loop) -> Result:
    """Fit anew once enough verdicts came in since the last time."""
    outcomes = list(_outcomes(loop))
    last = loop.store.progress.calibration()
    new = len(outcomes) - (last.verdicts if last is not None else 0)
    if new < loop.settings.calibrate_every:
        return Result(left=max(new, 0))
    model = fit(outcomes)
    # One figure for status: the kinds' own, by their verdicts.
    measured = [curve for curve in model.curves.values() if curve.ece is not None]
    total = sum(curve.verdicts for curve in measured)
    ece = sum((curve.ece or 0) * curve.verdicts for curve in measured) / total if total else None
    loop.store.progress.calibrate(
        Calibration(loop.clock(), METHOD, model.model_dump(mode="json"), ece, len(outcomes))
    )
    return Result(done=1, said={"verdicts": len(outcomes), "ece": ece})


def _outcomes(loop: Loop) -> Iterator[Outcome]:
    """Of items that stand for the random share, are judged and whose interaction is still there: the score is made of that."""
    newer = judgements.alias()
    last = ~(
        select(newer.c.item)
        .where(newer.c.item == judgements.c.item, newer.c.number > judgements.c.number)
        .exists()
    )
    statement = (
        select(items.c.kind, items.c.weight, judgements.c.decision, *COLUMNS)
        .select_from(SOURCE)
        .join(items, items.c.interaction_id == interactions.c.id)
        .join(judgements, judgements.c.item == items.c.key)
        .where(
            items.c.weight > 0,
            items.c.state.in_(["judged", "built"]),
            judgements.c.decision.is_not(None),
            last,
        )
        .order_by(items.c.key)
    )
    with loop.store.ledger.read() as connection:
        for kind, weight, decision, *values in connection.execute(statement):
            candidate = Candidate.of(values)
            yield Outcome(
                candidate.interaction_id,
                Kind(kind),
                score(features_of(candidate)),
                Decision(decision) is Decision.ACCEPT,
                weight,
            )
