"""How far answers that were drawn anew agree with the first one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from math import isfinite

from sqlalchemy import insert, select

from annotation.core import Kind
from annotation.store.candidates import KINDS, Candidate, wanted
from annotation.store.ledger import Ledger
from annotation.store.schema import resamples
from services.errors import InvalidInput
from services.interactions.database import transaction
from services.interactions.schema import interactions

_TASKS = [task for task, kind in KINDS.items() if kind is Kind.CHAT]


@dataclass(frozen=True)
class Resamples:
    ledger: Ledger

    def wanting(self, since: datetime, characters: int, limit: int) -> list[Candidate]:
        """The newest candidates with a short answer of text alone whose agreement is not known.

        Args:
            since: only those made then or later.
            characters: longest answer; longer ones in other words would not agree.
        """
        of = interactions.c
        statement = (
            wanted(self.ledger.clock())
            .where(of.created_at >= since, of.task.in_(_TASKS), of.output_images == 0)
            .where(of.characters > 0, of.characters <= characters, resamples.c.interaction_id.is_(None))
            .order_by(of.id.desc())
            .limit(limit)
        )
        with self.ledger.read() as connection:
            return [Candidate.of(row) for row in connection.execute(statement)]

    def put(self, interaction_id: str, agreement: float | None, drawn: int) -> bool:
        """Keep the share of `drawn` answers that agree, None where none could be drawn; False where one is kept already,
        which stays, or the interaction is gone.

        Raises:
            InvalidInput: out of range.
        """
        if agreement is not None and not (isfinite(agreement) and 0 <= agreement <= 1):
            raise InvalidInput("must be 0 to 1", field="agreement")
        if (drawn < 1) != (agreement is None):
            raise InvalidInput("must be 1 or more, 0 where none could be drawn", field="drawn")
        there = select(interactions.c.id).where(interactions.c.id == interaction_id)
        kept = select(resamples.c.drawn).where(resamples.c.interaction_id == interaction_id)
        values = {"interaction_id": interaction_id, "agreement": agreement, "drawn": drawn}
        with transaction(self.ledger.engine) as connection:
            if connection.scalar(there) is None or connection.scalar(kept) is not None:
                return False
            connection.execute(insert(resamples).values(**values, made_at=self.ledger.clock()))
        return True
