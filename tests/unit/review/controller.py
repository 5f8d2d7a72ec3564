"""Takes every interaction from routed to built, step by step, until all are; says so after each step.

python -m tests.unit.review.controller SETTINGS_JSON
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from itertools import count

from annotation.store import Entry, ReviewStore, State
from services.config import load
from tests.unit.review.samples import REPORT, annotation, item, judgement, routed

STEPS = (State.ROUTED, State.CLEANED, State.PUBLISHED, State.COLLECTED, State.JUDGED, State.BUILT)


def step(store: ReviewStore, entry: Entry, tasks: dict[str, int]) -> None:
    key, id = entry.key, entry.id
    if entry.state is State.ROUTED:
        store.items.clean(key, item(id), REPORT)
    elif entry.state is State.CLEANED:
        store.items.publish(key, 1, tasks[key])
    elif entry.state is State.PUBLISHED:
        store.annotations.record(annotation(id, "7", datetime.now(UTC), number=tasks[key]))
    elif entry.state is State.COLLECTED:
        store.judgements.save(judgement(store, key), entry.revision)
    else:
        store.versions.built(f"v{tasks[key]}", [(key, entry.revision)], path="p")


def main(settings_json: str) -> None:
    store = ReviewStore.open(load(**json.loads(settings_json)))
    for page in store.candidates.columns():
        for key in store.items.route([routed(id) for id in page.interaction_id]):
            print(key, State.ROUTED, flush=True)
    everything = sorted(entry.key for state in STEPS for entry in store.items.page(state))
    tasks = dict(zip(everything, count(1), strict=False))
    while ready := [entry for state in STEPS[:-1] for entry in store.items.page(state)]:
        for entry in ready:
            step(store, entry, tasks)
            print(entry.key, store.items.get(entry.key).state, flush=True)
    store.close()


if __name__ == "__main__":
    main(sys.argv[1])
