"""Interactions in the store → what routing chooses from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np

from annotation.core import Kind
from annotation.loop.context import Loop
from annotation.routing import risk
from annotation.routing.features import Features
from annotation.routing.plan import Candidate
from annotation.routing.pool import Floats, Places, Pool
from annotation.routing.score import SIGNS, scores
from annotation.store import Candidate as Stored
from annotation.store.candidates import Columns, kind_of

_FLOOR = -1e3  # nats: a probability that was zero


class _Like(NamedTuple):
    """What many candidates share; columns of `Columns`."""

    task: str
    mode: str
    output_images: int
    modality: str
    caller: str
    model_id: str
    flagged: bool


@dataclass(frozen=True)
class Candidates:
    """
    Attributes:
        repeated: digests of candidates that an item has, too.
    """

    pool: Pool
    repeated: frozenset[str]


def candidates(loop: Loop, since: datetime) -> Candidates:
    """All that may be routed, made `since` then, with their risks by the calibration in force."""
    ids: list[str] = []
    digests: list[str] = []
    created, raw, which = [np.empty(0, np.int64)], [np.empty(0)], [np.empty(0, np.intp)]
    known: dict[tuple[Any, ...], int] = {}
    repeated: set[str] = set()
    for page in loop.store.candidates.columns(since=since):
        ids += page.interaction_id
        digests += page.digest
        created.append(np.asarray(page.created_at, dtype="M8[us]").astype(np.int64))
        raw.append(_scores(page))
        shared = zip(*(getattr(page, name) for name in _Like._fields), strict=True)
        which.append(np.asarray([known.setdefault(like, len(known)) for like in shared], dtype=np.intp))
        repeated.update(digest for digest, found in zip(page.digest, page.repeats, strict=True) if found)
    like = [_candidate(loop, _Like(*one)) for one in known]
    score, of = np.concatenate(raw), np.concatenate(which)
    risks, missed = _assessed(risk_model(loop), score, like, of)
    pool = Pool.ordered(ids, digests, np.concatenate(created), risks, score, missed, like, of)
    return Candidates(pool, frozenset(repeated))


def risk_model(loop: Loop) -> risk.RiskModel:
    """The calibration in force; the prior before the first."""
    found = loop.store.progress.calibration()
    return risk.RiskModel() if found is None else risk.load(found.parameters)


def features_of(stored: Stored) -> Features:
    """Of an interaction's columns, rounding errors aside."""

    def log(value: float | None) -> float | None:
        return None if value is None else min(max(value, _FLOOR), 0.0)

    return Features(
        mean_logprob=log(stored.mean_logprob),
        min_logprob=log(stored.min_logprob),
        mean_entropy=None if stored.mean_entropy is None else max(stored.mean_entropy, 0.0),
        tokens=stored.tokens,
        picture_logprob=log(stored.picture_logprob),
        characters=stored.characters,
        truncated=stored.reason == "length",
        mode=stored.mode,
        task=stored.task,
        modality=stored.modality,
        agreement=stored.agreement,
    )


def _scores(page: Columns) -> Floats:
    """`score(features_of(…))` of each."""

    def figures(values: Sequence[float | str | None], low: float, high: float) -> Floats:
        return np.clip(np.asarray(values, dtype=np.float64), low, high)

    bounds = dict.fromkeys(SIGNS, (_FLOOR, 0.0)) | {
        "mean_entropy": (0.0, np.inf),
        "agreement": (0.0, 1.0),
    }
    signs = {name: figures(getattr(page, name), *bounds[name]) for name in SIGNS}
    return scores(signs, [reason == "length" for reason in page.reason])


def _candidate(loop: Loop, one: _Like) -> Candidate:
    return Candidate(
        "",
        kind_of(one.task, one.mode, one.output_images),
        datetime.fromtimestamp(0, UTC),
        speciality=loop.settings.speciality(one.modality, one.task),
        modality=one.modality,
        task=one.task,
        caller=one.caller,
        model_id=one.model_id,
        flagged=one.flagged,
        consent=True,  # the store gives no others
    )


def _assessed(
    model: risk.RiskModel, score: Floats, like: list[Candidate], which: Places
) -> tuple[Floats, Floats]:
    risks, missed = np.zeros(len(score)), np.ones(len(score))
    for kind in Kind:
        own = np.asarray([one.kind is kind for one in like], dtype=np.bool_)[which]
        curve = model.curve(kind)
        risks[own], missed[own] = curve.risks(score[own]), curve.missed(score[own])
    return risks, missed
