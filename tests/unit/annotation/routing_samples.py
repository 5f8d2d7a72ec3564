"""Candidates for the tests of routing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from annotation.core import Kind
from annotation.routing.plan import Candidate

NOW = datetime(2026, 3, 5, 15, 0, tzinfo=UTC)
KEY = b"a key of the tests, 32 bytes long"[:32]


def candidate(id: str, kind: Kind = Kind.CHAT, **fields: Any) -> Candidate:
    return Candidate(id, kind, **{"created_at": NOW - timedelta(hours=1), "consent": True, **fields})


def crowd(count: int, seed: int = 0, **fields: Any) -> list[Candidate]:
    """Of mixed kinds, specialities, strata and risks, all eligible; `fields` hold for each."""
    rng = np.random.default_rng(seed)
    kinds = (Kind.CHAT, Kind.REPORT, Kind.PICTURE)
    specialities = ("radiology", "pathology", "general")
    modalities = ("chest_xray", "fundus", "histology", "ct")
    tasks = ("vqa", "captioning", "visual_chat")
    choices = rng.integers(0, (3, 3, 4, 3, 5), (count, 5)).tolist()
    figures = rng.random((count, 3)).tolist()
    made = []
    for index, ((a, b, c, d, e), (risk, score, flag)) in enumerate(zip(choices, figures, strict=True)):
        values = {
            "speciality": specialities[b],
            "modality": modalities[c],
            "task": tasks[d],
            "caller": f"caller-{e}",
            "digest": f"{seed}/{index}",
            "risk": risk,
            "score": score,
            "flagged": flag < 0.05,
        }
        made.append(candidate(f"{seed}-{index:06d}", kinds[a], **{**values, **fields}))
    return made
