"""A loop below a folder, and verdicts without a Label Studio."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select

from annotation.core import Annotation, Kind, Verdict
from annotation.loop.candidates import features_of, risk_model
from annotation.loop.context import Loop
from annotation.loop.settings import ReviewSettings
from annotation.loop.steps import STEPS
from annotation.routing.plan import Candidate
from annotation.routing.score import score
from annotation.store import State
from services.config import load
from services.interactions.schema import feedback
from tests.unit.review.samples import candidates

EVERYTHING = {"random_share": 1.0, "random_reserve": 0.9}


def loop_in(folder: Path, **settings: Any) -> Loop:
    """Sends everything to experts, unless told otherwise."""
    given = {"routing": EVERYTHING, "dataset": {"min_judged": 1, "validation_share": 0}, **settings}
    return Loop(ReviewSettings(**given), load(data_dir=folder / "var"), public_url="http://127.0.0.1:1")


def publish_all(loop: Loop) -> list[str]:
    """Cleaned items as tasks 1, 2, … of project 1; their keys."""
    keys = [entry.key for entry in loop.store.items.page(State.CLEANED)]
    for number, key in enumerate(keys, 1):
        loop.store.items.publish(key, 1, number)
    return keys


def say(loop: Loop, key: str, verdicts: Mapping[str, Verdict]) -> None:
    """Each expert's verdict on an item, as collected."""
    kind, _, id = key.partition(":")
    for expert, verdict in verdicts.items():
        now = loop.clock()
        number = 1 + abs(hash((key, expert))) % 10**8
        loop.store.annotations.record(
            Annotation(f"1:{number}", id, Kind(kind), expert, verdict, now, now, 30.0)
        )


def run(loop: Loop, *names: str) -> Any:
    """A pass of each step; the last one's result."""
    return [STEPS[name].run(loop) for name in names][-1]


def rows_as_candidates(loop: Loop) -> list[Candidate]:
    """What routing should choose from, read and assessed one interaction at a time."""
    model = risk_model(loop)
    with loop.store.ledger.read() as connection:
        flagged = set(connection.scalars(select(feedback.c.interaction_id).where(feedback.c.flag)))
    found = []
    for each in candidates(loop.store):
        curve, raw = model.curve(each.kind), np.array([score(features_of(each))])
        found.append(
            Candidate(
                each.interaction_id,
                each.kind,
                each.created_at,
                digest=each.digest,
                speciality=loop.settings.speciality(each.modality, each.task),
                modality=each.modality,
                task=each.task,
                caller=each.caller,
                model_id=each.model_id,
                risk=float(curve.risks(raw)[0]),
                score=float(raw[0]),
                missed=float(curve.missed(raw)[0]),
                flagged=each.interaction_id in flagged,
                consent=True,
            )
        )
    return found
