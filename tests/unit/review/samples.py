"""Interactions that were answered, and what experts say of them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from annotation.core import (
    Annotation,
    Decision,
    Item,
    Judgement,
    Kind,
    Picture,
    Reason,
    Region,
    Severity,
    Turn,
    Verdict,
)
from annotation.store import Candidate, ReviewStore, Routed, State
from annotation.store.candidates import wanted
from services.config import Settings
from services.interactions import InteractionStore, new_feedback_id
from services.interactions.database import transaction
from services.interactions.pictures import PictureStore, digest
from services.interactions.records import Record, as_timestamp
from services.interactions.schema import feedback, interactions
from tests.unit.interactions.samples import interaction

_tasks = itertools.count(1_000)
FILM = b"a chest film without a name"
REPORT = {"removed": {"name": 1}}


@dataclass
class Clock:
    """A clock that tests move. Starts at the real time, for interactions are stamped with that."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **by: float) -> None:
        self.now += timedelta(**by)


def candidates(store: ReviewStore) -> list[Candidate]:
    """Row by row, in the order of their ids."""
    with store.ledger.read() as connection:
        rows = connection.execute(wanted(store.ledger.clock()).order_by(interactions.c.id))
        return [Candidate.of(row) for row in rows]


def answered(store: ReviewStore, count: int = 1, **fields: object) -> list[str]:
    """Store interactions as the gateway does, their pictures aside; their ids. `age` is a timedelta."""
    made_at = datetime.now(UTC) - fields.pop("age", timedelta())  # type: ignore[operator]
    rows = []
    for number in range(count):
        message = interaction(f"answer {number}", created_at=as_timestamp(made_at))
        for name, value in fields.items():
            setattr(message, name, value)
        rows.append(Record.of(message, 30).row)
    with transaction(store.engine) as connection:
        connection.execute(interactions.insert(), rows)
    return [row["id"] for row in rows]


def said(store: ReviewStore, interaction_id: str, **fields: object) -> None:
    """Feedback by the user who asked."""
    row = {"rating": None, "flag": False, "comment": "", "corrected_text": "", **fields}
    with transaction(store.engine) as connection:
        connection.execute(
            feedback.insert().values(
                id=new_feedback_id(),
                interaction_id=interaction_id,
                created_at=datetime.now(UTC),
                caller="radiology",
                **row,
            )
        )


def purge_interactions(store: ReviewStore, settings: Settings, now: datetime) -> int:
    return InteractionStore(store.engine, PictureStore.open(settings), 30).purge(now).interactions


def routed(interaction_id: str, **fields: object) -> Routed:
    return replace(Routed(interaction_id, Kind.CHAT, Reason.RISK, 0.5), **fields)  # type: ignore[arg-type]


def item(id: str, kind: Kind = Kind.CHAT, **fields: object) -> Item:
    """A cleaned item about one film."""
    made = Item(
        id=id,
        kind=kind,
        dialogue=(Turn("user", (Picture(digest(FILM), FILM), "What is shown?")),),
        answer=("A nodule in the left lung.",),
        modality="chest_xray",
        model_id="medmax-phantom",
    )
    return replace(made, **fields)  # type: ignore[arg-type]


EDIT = Verdict(
    decision=Decision.EDIT,
    text="A nodule in the right lung.",
    error="side",
    severity=Severity.MAJOR,
    regions=(Region(digest(FILM), "nodule", 0.5, 0.25, 0.1, 0.125, mask=b"\x89PNG mask"),),
)
ACCEPT = Verdict(decision=Decision.ACCEPT)


def annotation(
    item_id: str,
    annotator: str,
    at: datetime,
    verdict: Verdict = EDIT,
    *,
    number: int | None = None,
    kind: Kind = Kind.CHAT,
) -> Annotation:
    """One expert's; `number` is Label Studio's, by default one for each expert and item."""
    number = abs(hash((item_id, annotator))) % 10**8 if number is None else number
    return Annotation(f"1:{number}", item_id, kind, annotator, verdict, at, at, seconds=12.5)


def judgement(store: ReviewStore, key: str, verdict: Verdict = EDIT) -> Judgement:
    """What a judge would say who takes the first verdict."""
    given = tuple(store.annotations.of(key))
    return Judgement(store.items.load(key), verdict, given, 1.0, False, store.ledger.clock())


def publish(store: ReviewStore, count: int = 1, **fields: object) -> list[str]:
    """Interactions answered, routed, cleaned and published in project 1; the items' keys in the order of their tasks."""
    keys = store.items.route([routed(each, **fields) for each in answered(store, count)])
    for key in sorted(keys):
        store.items.clean(key, item(key.partition(":")[2], Kind(key.partition(":")[0])), REPORT)
        store.items.publish(key, 1, next(_tasks))
    return sorted(keys)


def state(store: ReviewStore, key: str) -> State:
    return store.items.get(key).state
