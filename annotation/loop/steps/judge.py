"""Collected verdicts → judgements: who is reliable, what stands, who must look again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from sqlalchemy import select

from annotation.agreement.reliability import Reliability, reliability
from annotation.assign import Crew
from annotation.core import Annotation, Item, Judgement, Reason
from annotation.judge.judge import NeedsMore
from annotation.judge.judge import judge as decide
from annotation.judge.policy import JudgePolicy
from annotation.loop.context import Loop
from annotation.loop.faults import point
from annotation.loop.result import Result
from annotation.loop.steps.pages import each
from annotation.store import Entry, ReviewStore, State
from annotation.store.schema import expert_annotations, items
from services.errors import NotFound

RECENT = 1_000
"""Items whose votes tell who is reliable, the newest."""


def run(loop: Loop) -> Result:
    """A batch of collected items; the same verdicts give the same judgement, so repeating is safe."""
    if not loop.store.items.page(State.COLLECTED, limit=1):
        return Result()
    standing = standings_of(loop.store)
    policy = policy_of(loop)
    said = {"judged": 0, "need_more": 0, "adjudication": 0}

    def work(entry: Entry) -> None:
        item = loop.store.items.load(entry.key)
        found = decide(item, loop.store.annotations.of(entry.key), standing, policy)
        point("judge.decided")
        if isinstance(found, Judgement):
            loop.store.judgements.save(found, entry.revision)
            said["judged"] += 1
        elif isinstance(found, NeedsMore):
            # Those whose verdicts do not count took their places; as many more are wanted.
            loop.store.judgements.need_more(entry.key, entry.revision, max(found.missing, 1))
            said["need_more"] += 1
        else:
            loop.store.judgements.adjudicate(entry.key, entry.revision)
            said["adjudication"] += 1
        point("judge.saved")

    result = each(loop, State.COLLECTED, work)
    result.said |= said
    return result


def policy_of(loop: Loop) -> JudgePolicy:
    """The settings', with the crew's adjudicators."""
    return loop.settings.judge.model_copy(update={"adjudicators": loop.adjudicators})


def standings_of(store: ReviewStore, recent: int = RECENT) -> Reliability:
    """How reliable each expert is, from gold items and from votes on the newest `recent` ordinary ones."""
    gold = gold_items(store)
    return reliability(gold, _annotations(store, gold.values(), recent))


def gold_items(store: ReviewStore) -> dict[str, Item]:
    """By id, with their right verdicts."""
    found: dict[str, Item] = {}
    after = None
    while page := store.items.gold_page(after):
        for entry in page:
            try:
                item = store.items.load(entry.key)
                found[entry.id] = replace(item, gold=store.items.gold_verdict(entry.key))
            except NotFound:
                continue  # withdrawn
        after = page[-1]
    return found


def _annotations(store: ReviewStore, gold: Iterable[Item], recent: int) -> Iterable[Annotation]:
    for item in gold:
        yield from store.annotations.of(f"{item.kind.value}:{item.id}")
    own = expert_annotations.c
    # Adjudicators' are no votes: they decide where votes did not.
    annotated = select(own.item).where(own.deleted_at.is_(None), ~own.adjudication)
    newest = (
        select(items.c.key)
        .where(items.c.key.in_(annotated), items.c.reason != Reason.GOLD, items.c.state != State.WITHDRAWN)
        .order_by(items.c.updated_at.desc())
        .limit(recent)
    )
    with store.ledger.read() as connection:
        keys = connection.scalars(newest).all()
    deciders = {each.id for each in Crew(store.ledger).all() if each.adjudicator}
    for key in keys:
        yield from (one for one in store.annotations.of(key) if one.annotator not in deciders)
