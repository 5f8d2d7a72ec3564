"""Experts' verdicts → the store: what the webhook tells of at once, everything else by looking at it all."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

from sqlalchemy import select

from annotation.core import Annotation, Kind
from annotation.labelstudio.parse import LOST, Problem
from annotation.labelstudio.snapshot import Snapshot
from annotation.labelstudio.webhook import Event as Hooked
from annotation.loop.context import Loop
from annotation.loop.cursors import ODDITIES, RECONCILED
from annotation.loop.faults import point
from annotation.loop.result import Result
from annotation.loop.steps.publish import STUDIO, note_projects
from annotation.store import Entry, Event, NotAllowed, Recorded, State
from annotation.store.inbox import Waiting
from annotation.store.schema import expert_annotations, items
from services.errors import MedMaxError, NotFound


def events_of(hooked: Hooked) -> list[Event]:
    """What the webhook's receiver heard, for the inbox."""
    action, project = hooked.action, hooked.project
    task = hooked.tasks[0] if len(hooked.tasks) == 1 else None
    if hooked.annotations:
        return [Event(action, project, task, annotation) for annotation in hooked.annotations]
    return [Event(action, project, each) for each in hooked.tasks] or [Event(action, project)]


def run(loop: Loop) -> Result:
    """Process what the inbox holds; look at everything where that is due."""
    if not loop.has_studio:
        return Result(said={"off": "review.labelstudio.url is not set"})
    result = Result()
    kinds = {loop.ready_studio.project(kind).id: kind for kind in Kind}
    for waiting in loop.store.inbox.waiting(loop.settings.steps.batch):
        if loop.stopping.is_set():
            break
        try:
            result.done += _process(loop, waiting, kinds)
        except STUDIO:
            raise
        except MedMaxError as error:
            loop.store.inbox.failed(waiting, error.code)
            result.failed[error.code] += 1
            continue
        point("collect.recorded")
        loop.store.inbox.done(waiting)
    result.left, _ = loop.store.figures.inbox()
    if _due(loop):
        reconcile(loop, result)
    return result


def _process(loop: Loop, waiting: Waiting, kinds: dict[int, Kind]) -> int:
    """Bring the event's task up to date; how many annotations changed."""
    event, items_ = waiting.event, loop.store.items
    if event.action == "PROJECT_UPDATED":
        note_projects(loop)
        return 0
    entry = items_.by_task(event.project, event.task) if event.task is not None else None
    if entry is None and event.annotation is not None:
        try:
            entry = items_.get(loop.store.annotations.item_of(f"{event.project}:{event.annotation}"))
        except NotFound:
            entry = None
    if entry is None:
        # Of a task that nobody published here, or that is about to be noted: `reconcile` finds it then.
        if event.task is not None and event.project in kinds:
            return _by_task(loop, kinds[event.project], event.task)
        return 0
    return sync(loop, entry)


def _by_task(loop: Loop, kind: Kind, task: int) -> int:
    """A task whose number is not noted yet, since a controller died between making and noting it."""
    try:
        parsed = loop.studio.task(kind, task)
    except NotFound:
        return 0
    return sum(_record(loop, annotation, Counter()) for annotation in parsed.annotations)


def sync(loop: Loop, entry: Entry) -> int:
    """Make the store say of one item's annotations what Label Studio says; how many changed."""
    if entry.ls_task is None:
        return 0
    try:
        parsed = loop.studio.task(entry.kind, entry.ls_task)
    except NotFound:
        loop.store.items.task_gone(entry.key)
        return 1
    changed = 0
    for annotation in parsed.annotations:
        changed += loop.store.annotations.record(annotation) in (Recorded.NEW, Recorded.CHANGED)
        point("collect.one")
    there = {annotation.id for annotation in parsed.annotations}
    for known in loop.store.annotations.of(entry.key):
        if known.id not in there:
            changed += loop.store.annotations.remove(known.id)
    return changed


def _due(loop: Loop) -> bool:
    last = loop.store.progress.cursor(RECONCILED)
    every = timedelta(minutes=loop.settings.labelstudio.reconcile_minutes)
    return last is None or loop.clock() - datetime.fromisoformat(last) >= every


def reconcile(loop: Loop, result: Result) -> None:
    """Compare all of Label Studio with the store, and mend the store. Truth, where the webhook is only fast."""
    begun = loop.clock()
    oddities: Counter[str] = Counter()
    for kind in Kind:
        before = known(loop, kind)

        def take(annotation: Annotation) -> None:
            result.done += _record(loop, annotation, result.failed)
            point("collect.reconciled")

        def odd(problem: Problem, kind: Kind = kind) -> None:
            if problem.oddity in LOST:
                oddities[f"{kind.value}: {problem.oddity.value}"] += 1

        _, changes = loop.studio.reconcile(kind, before, take, odd)
        for id in changes.deleted:
            result.done += loop.store.annotations.remove(id)
        for id in changes.gone:
            _gone(loop, f"{kind.value}:{id}", kind, before.tasks[id], result)
        for id, task in changes.surplus:
            # Of an item that is noted alone: of another one the publisher is about to choose.
            if id in before.tasks:
                result.done += loop.studio.remove_surplus(task)
    note_projects(loop)
    loop.store.progress.set_cursor(ODDITIES, dict(sorted(oddities.items())))
    # Last: a pass that was cut short is made again.
    loop.store.progress.set_cursor(RECONCILED, begun.isoformat())


def _gone(loop: Loop, key: str, kind: Kind, task: int, result: Result) -> None:
    try:
        loop.studio.task(kind, task)
    except NotFound:
        loop.store.items.task_gone(key)
        result.done += 1


def _record(loop: Loop, annotation: Annotation, failed: Counter[str]) -> int:
    """1 where it was new or changed. One that the store refuses is counted and passed over."""
    try:
        recorded = loop.store.annotations.record(annotation)
    except (NotFound, NotAllowed) as error:
        # A task that was imported by hand with an item's id, or before the item was cleaned again.
        failed[error.code] += 1
        return 0
    return int(recorded in (Recorded.NEW, Recorded.CHANGED))


def known(loop: Loop, kind: Kind) -> Snapshot:
    """What the store knows of a kind, in the form that Label Studio is compared with."""
    own = expert_annotations.c
    with loop.store.ledger.read() as connection:
        annotations = connection.execute(
            select(own.id, own.updated_at)
            .join(items, items.c.key == own.item)
            .where(items.c.kind == kind, own.deleted_at.is_(None), items.c.state != State.WITHDRAWN)
        ).all()
        tasks = connection.execute(
            select(items.c.id, items.c.ls_task).where(
                items.c.kind == kind, items.c.ls_task.is_not(None), items.c.state != State.WITHDRAWN
            )
        ).all()
    return Snapshot(
        {row.id: row.updated_at.isoformat() for row in annotations}, {row[0]: row[1] for row in tasks}
    )
