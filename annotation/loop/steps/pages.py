"""Items of a state, page by page, and what failed kept apart so that it blocks nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from annotation.loop.context import Loop
from annotation.loop.result import Result
from annotation.store import Entry, NotAllowed, State
from services.errors import MedMaxError, Overloaded, Unavailable

# Of the store or of Label Studio as a whole, not of the item: the pass ends, and the step waits.
SHARED = (Unavailable, Overloaded)


def entries(loop: Loop, state: State) -> Iterator[Entry]:
    """All items in the state, those that wait longest first."""
    after = None
    while page := loop.store.items.page(state, after, loop.settings.steps.batch):
        yield from page
        after = page[-1]


def each(
    loop: Loop,
    state: State,
    work: Callable[[Entry], None],
    ends: tuple[type[MedMaxError], ...] = SHARED,
) -> Result:
    """Do `work` for at most a batch of items in the state; an item that fails is counted and passed over.

    Args:
        ends: errors that every other item would fail with too; they end the pass and are raised.
    """
    result = Result()
    for entry in entries(loop, state):
        if loop.stopping.is_set() or result.done >= loop.settings.steps.batch:
            break
        try:
            work(entry)
            result.done += 1
        except NotAllowed:
            result.failed["changed_meanwhile"] += 1
        except ends:
            raise
        except MedMaxError as error:
            result.failed[error.code] += 1
    waiting = sum(loop.store.figures.counts().get(state, {}).values())
    result.left = max(0, waiting - sum(result.failed.values()))
    return result
