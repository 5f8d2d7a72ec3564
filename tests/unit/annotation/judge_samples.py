"""Items, verdicts and annotations for the tests of agreement and judging."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from annotation.agreement.reliability import Reliability, Score, standing
from annotation.core import Annotation, Decision, Item, Kind, Reason, Turn, Verdict

START = datetime(2026, 3, 5, 9, 0, tzinfo=UTC)
ACCEPT, REJECT = Verdict(Decision.ACCEPT), Verdict(Decision.REJECT)


def edit(text: str, **fields: Any) -> Verdict:
    return Verdict(Decision.EDIT, text, **fields)


def item(kind: Kind = Kind.CHAT, id: str = "i", **fields: Any) -> Item:
    alternatives = (("a",), ("b",), ("c",)) if kind is Kind.PREFERENCE else ()
    values: dict[str, Any] = {"alternatives": alternatives, "reason": Reason.RISK, **fields}
    return Item(id, kind, (Turn("user", ("Is there an effusion?",)),), ("yes",), **values)


def annotation(
    annotator: str,
    verdict: Verdict,
    *,
    id: str = "",
    minutes: float = 0,
    updated: float | None = None,
    kind: Kind = Kind.CHAT,
    item_id: str = "i",
) -> Annotation:
    created = START + timedelta(minutes=minutes)
    changed = created if updated is None else START + timedelta(minutes=updated)
    return Annotation(id or f"1:{annotator}", item_id, kind, annotator, verdict, created, changed)


def known(kind: Kind = Kind.CHAT, **scores: tuple[int, int]) -> Reliability:
    """Of annotators by name: gold tasks right and wrong."""
    return Reliability({(name, kind): standing(Score(*score)) for name, score in scores.items()})
