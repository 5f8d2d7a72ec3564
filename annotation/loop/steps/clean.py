"""Routed items → de-identified ones, or held ones where there is doubt."""

from __future__ import annotations

from dataclasses import replace

from annotation.agreement.text import normalised
from annotation.core import Item, Kind
from annotation.deid import Cleaned
from annotation.labelstudio.render import check
from annotation.loop.assistant import GONE, NoAssistant
from annotation.loop.context import Loop
from annotation.loop.faults import point
from annotation.loop.item import item_of
from annotation.loop.result import Result
from annotation.loop.steps.pages import each
from annotation.store import Because, Entry, State
from services.errors import InvalidInput, NotFound

ALTERNATIVES = 4
"""Answers drawn, at most, until one differs."""


def run(loop: Loop) -> Result:
    """A batch of routed items. An item is withdrawn where its interaction is gone, or where nothing was answered."""
    if not loop.store.items.page(State.ROUTED, limit=1):
        return Result()
    deidentifier = loop.deidentifier

    def work(entry: Entry) -> None:
        try:
            item = _item(loop, entry)
        except NotFound:
            loop.store.items.withdraw(entry.key, Because.EXPIRED)
            return
        if item is None or not _answered(item):  # nothing to choose between, or to judge
            loop.store.items.withdraw(entry.key, Because.REFUSED)
            return
        cleaned = deidentifier.clean(item)
        point("clean.cleaned")
        held = cleaned.held or _unfit(cleaned.item)
        if held is not None:
            loop.store.items.hold(entry.key, report_of(cleaned) | {"held": held})
        else:
            loop.store.items.clean(entry.key, cleaned.item, report_of(cleaned))

    return each(loop, State.ROUTED, work)


def _unfit(item: Item) -> str | None:
    """Why no task can be made of it; it would be tried again for ever."""
    try:
        check(item)
    except InvalidInput as error:
        return f"cannot be shown to experts: {error.field} {error.message}"
    return None


def _answered(item: Item) -> bool:
    return any(not isinstance(part, str) or part.strip() for part in item.answer)


def release(loop: Loop, key: str, who: str) -> State:
    """A person looked at a held item: it goes on, with what de-identification removes.

    Raises:
        NotFound: no such item, or its interaction is gone.
        NotAllowed: it is not held.
        InvalidInput: Label Studio could not show it.
    """
    entry = loop.store.items.get(key)
    item = _item(loop, entry)
    if item is None:
        raise NotFound("there is no other answer to compare with; refuse it", field="item")
    cleaned = loop.deidentifier.clean(item)
    check(cleaned.item)
    pictures = {picture.sha256: picture for picture in cleaned.item.pictures}
    if any(not picture.data for picture in pictures.values()):
        raise NotFound("a picture of this item cannot be shown; refuse it", field="item")
    return loop.store.items.clean(key, cleaned.item, report_of(cleaned), who)


def report_of(cleaned: Cleaned) -> dict[str, object]:
    """What was removed and why it is held; no word of the item."""
    return {"removed": cleaned.report.record(), "held": cleaned.held}


def _item(loop: Loop, entry: Entry) -> Item | None:
    """What is asked, not yet de-identified; None where the assistant has no other answer to rank.

    Raises:
        NotFound: the interaction expired or is gone.
        NoAssistant: nobody draws an alternative now.
    """
    item = item_of(loop.interaction(entry.id), entry)
    if entry.kind is not Kind.PREFERENCE:
        return item
    said = normalised("".join(part for part in item.answer if isinstance(part, str)))
    # The seeds are fixed, so that a repeat draws the same.
    for seed in range(1, ALTERNATIVES + 1):
        try:
            text = loop.drafts.text(item.dialogue, seed)
        except GONE as error:
            raise NoAssistant(f"no alternative could be drawn: {error.code}") from None
        if text.strip() and normalised(text) != said:
            return replace(item, alternatives=(item.answer, (text,)))
    return None
