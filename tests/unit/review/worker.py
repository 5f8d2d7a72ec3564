"""One expert in a process of his own: takes items and annotates them until there are none.

python -m tests.unit.review.worker SETTINGS_JSON ANNOTATOR HURRY

Prints each item's key once it is annotated. With HURRY 0, holds the first item until it is killed.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime

from annotation.assign import AssignPolicy, Desk
from annotation.store import ReviewStore
from services.config import load
from tests.unit.review.samples import annotation


def main(settings_json: str, annotator: str, hurry: int) -> None:
    store = ReviewStore.open(load(**json.loads(settings_json)))
    desk = Desk(store.ledger, AssignPolicy(reservation_minutes=0.05, gold_share=0))
    while (held := desk.next_item(annotator)) is not None:
        if not hurry:
            print(held.item, flush=True)
            time.sleep(600)
        id = held.item.partition(":")[2]
        store.annotations.record(annotation(id, annotator, datetime.now(UTC)))
        print(held.item, flush=True)
    store.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
