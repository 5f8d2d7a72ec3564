"""What was promised against what is in the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select

from loadtests.samples import Sample
from services.config import Settings
from services.errors import MedMaxError
from services.interactions import InteractionStore
from services.interactions.records import to_interaction
from services.interactions.schema import interactions

SAID = frozenset(
    {
        "unavailable",
        "overloaded",
        "deadline_exceeded",
        "cancelled",
        "rate_limited",
        "out_of_reach",
        "client_timeout",
    }
)
"""Failures that say why, or in which the caller sees for himself that the connection broke or nothing came."""


@dataclass(frozen=True)
class Call:
    """One request: its seed, which no other request has, tells it in the store."""

    seed: int
    sample: Sample


@dataclass
class Account:
    """Counts over the calls of a run; `lost`, `doubled` and `unexplained` must be empty.

    Attributes:
        accepted: answers that were given to their end, with the id of a stored interaction.
        lost: of those, ids that cannot be read back, pictures included.
        doubled: seeds of requests that are stored more than once.
        unexplained: seeds of requests that failed without an error that says why.
        unstored: seeds of requests that were answered to their end, but have no id.
        unacknowledged: requests that are stored although their caller saw a failure: the end of the answer was lost
            on its way. Harmless where callers send anew, since each sending is a request of its own.
        failed: calls by code.
    """

    accepted: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[int] = field(default_factory=list)
    unexplained: list[int] = field(default_factory=list)
    unstored: list[int] = field(default_factory=list)
    unacknowledged: int = 0
    failed: dict[str, int] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.unexplained or self.unstored)


def balance(calls: Sequence[Call], stored: Iterable[tuple[str, int]], unreadable: Iterable[str]) -> Account:
    """Accounts for every call.

    Args:
        stored: id and seed of each interaction in the store.
        unreadable: ids of those that cannot be read to the last picture.
    """
    ids: Mapping[str, int] = dict(stored)
    broken, times = set(unreadable), Counter(ids.values())
    account = Account(failed=dict(Counter(call.sample.code for call in calls if not call.sample.answered)))
    for call in calls:
        sample = call.sample
        if times[call.seed] > 1:
            account.doubled.append(call.seed)
        if not sample.answered:
            account.unacknowledged += times[call.seed] > 0
            if sample.code not in SAID:
                account.unexplained.append(call.seed)
        elif not sample.interaction:
            account.unstored.append(call.seed)
        else:
            account.accepted += 1
            if ids.get(sample.interaction) != call.seed or sample.interaction in broken:
                account.lost.append(sample.interaction)
    return account


async def read_store(settings: Settings, wanted: Iterable[str]) -> tuple[list[tuple[str, int]], list[str]]:
    """Id and seed of every stored interaction, and which of `wanted` cannot be read with their pictures."""
    store = InteractionStore.open(settings)
    try:
        with store.engine.connect() as connection:
            rows = connection.execute(select(interactions.c.id, interactions.c.body)).all()
        stored = [(str(row.id), int(to_interaction(row.body, []).sampling.seed)) for row in rows]
        unreadable = []
        for each in wanted:
            try:
                await store.get(each, None, include_images=True)
            except MedMaxError:
                unreadable.append(each)
        return stored, unreadable
    finally:
        store.close()
