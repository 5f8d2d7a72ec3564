"""Deletes what has been kept long enough: interactions, feedback on them, and pictures that nothing needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Engine, delete, func, select, text

from services.interactions.database import transaction
from services.interactions.schema import feedback, interaction_pictures, interactions, pictures
from services.interactions.shelf import GRACE, Shelf

_BATCH = 200


@dataclass
class PurgeReport:
    """How much was deleted, or would have been (`dry_run`)."""

    interactions: int = 0
    feedback: int = 0
    pictures: int = 0
    picture_bytes: int = 0
    unfinished_files: int = 0
    dry_run: bool = False

    def to_json(self) -> dict[str, int | bool]:
        return asdict(self)


def _expired(now: datetime) -> ColumnElement[bool]:
    return interactions.c.expires_at <= now


def count(engine: Engine, now: datetime) -> PurgeReport:
    """What `purge` would delete, half-written files aside."""
    lasting = (
        select(interaction_pictures.c.sha256)
        .join(interactions, interactions.c.id == interaction_pictures.c.interaction_id)
        .where(~_expired(now))
    )
    unneeded = (pictures.c.used_at <= now - GRACE) & pictures.c.sha256.not_in(lasting)
    with transaction(engine, write=False) as connection:
        number, size = connection.execute(
            select(func.count(), func.coalesce(func.sum(pictures.c.bytes), 0)).where(unneeded)
        ).one()
        return PurgeReport(
            interactions=connection.scalar(
                select(func.count()).select_from(interactions).where(_expired(now))
            )
            or 0,
            feedback=connection.scalar(
                select(func.count()).select_from(feedback).join(interactions).where(_expired(now))
            )
            or 0,
            pictures=number,
            picture_bytes=int(size),
            dry_run=True,
        )


def purge(engine: Engine, shelf: Shelf, now: datetime) -> PurgeReport:
    """Delete in small transactions, so that saving goes on meanwhile. Repeating it after a crash is safe."""
    report = PurgeReport()
    while _purge_interactions(engine, now, report):
        pass
    report.pictures, report.picture_bytes = shelf.clear(now)
    report.unfinished_files = shelf.files.sweep(now - GRACE)
    if engine.dialect.name == "sqlite":
        # What was deleted is still in the write-ahead log until it is folded into the database.
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
    return report


def _purge_interactions(engine: Engine, now: datetime, report: PurgeReport) -> int:
    with transaction(engine) as connection:
        ids = list(connection.scalars(select(interactions.c.id).where(_expired(now)).limit(_BATCH)))
        if not ids:
            return 0
        comments = connection.execute(delete(feedback).where(feedback.c.interaction_id.in_(ids)))
        deleted = connection.execute(delete(interactions).where(interactions.c.id.in_(ids)))
    report.feedback += comments.rowcount
    report.interactions += deleted.rowcount
    return len(ids)
