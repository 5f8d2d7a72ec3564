"""Keeps a roll-out's record and its lock in step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from services.errors import InvalidInput, MedMaxError, NotFound
from services.rollout.record import MAX_WHY_CHARS, Book, Event, Phase, Rollout
from services.rollout.target import Ledger, Lock, Taken, amend


class Keeper:
    """
    Args:
        say: told one line at every step.
    """

    def __init__(self, ledger: Ledger, lock: Lock, say: Callable[[str], None]) -> None:
        self._ledger, self._lock, self.say = ledger, lock, say

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Nobody else conducts meanwhile. Raises: Taken."""
        self._lock.acquire()
        try:
            yield
        except KeyboardInterrupt:
            self.say(
                "the roll-out stands where it is: `medmax rollout status --watch` goes on, `abort` goes back"
            )
            raise
        finally:
            try:
                self._lock.release()
            except MedMaxError as error:
                # It ends by itself, and what the work came to must not be lost for it.
                self.say(f"the lock could not be given back: {error}")

    def current(self) -> Rollout:
        """The last roll-out. Raises: NotFound."""
        current = self._ledger.read().current
        if current is None:
            raise NotFound("there was no roll-out yet")
        return current

    def begin(self, rollout: Rollout) -> Rollout:
        """Writes `rollout` down, or returns the same one where it is unfinished.

        Raises:
            Taken: another one is unfinished.
        """
        current = self._ledger.read().current
        if current and not current.phase.over:
            if current.same_as(rollout.change):
                self.say(f"going on with roll-out {current.id}, which stands at: {current.phase}")
                return current
            raise Taken(
                f"roll-out {current.id} of {current.new} is unfinished ({current.phase}); go on with it "
                "(`medmax rollout status --watch`) or end it (`medmax rollout abort`)"
            )
        return self.note(rollout, rollout.phase, "started", rollout.why)

    def note(self, rollout: Rollout, phase: Phase, what: str = "", reason: str = "") -> Rollout:
        """Writes down that `phase` begins, and `what` happened. An abort asked for meanwhile is kept."""
        rollout.phase, rollout.since = phase, time.time()
        rollout.reason = reason[:MAX_WHY_CHARS] or rollout.reason

        def change(book: Book) -> Event | None:
            if book.current and book.current.id == rollout.id:
                rollout.abort = rollout.abort or book.current.abort
            elif book.current and not book.current.phase.over:
                raise Taken(f"roll-out {book.current.id} has taken this one's place")
            book.current = rollout
            return rollout.event(what, rollout.by, reason[:MAX_WHY_CHARS], rollout.since) if what else None

        amend(self._ledger, change)
        return rollout

    def tick(self, rollout: Rollout) -> Rollout:
        """Keeps the lock, and sees whether somebody wants the roll-out back. Raises: Taken: it is another's now."""
        self._lock.renew()
        current = self._ledger.read().current
        if current is None or current.id != rollout.id:
            raise Taken(f"the record of roll-out {rollout.id} was replaced by another process")
        rollout.abort = current.abort
        return rollout

    def ask_abort(self, by: str, why: str) -> None:
        """Writes down that somebody wants it back. Raises: NotFound, InvalidInput: there is none to abort."""

        def change(book: Book) -> Event | None:
            current = book.current
            if current is None:
                raise NotFound("there was no roll-out yet")
            if current.phase.over:
                raise InvalidInput(
                    f"roll-out {current.id} is over ({current.phase}); roll the former model out instead"
                )
            if current.abort is None:
                current.abort = {"by": by, "why": why[:MAX_WHY_CHARS]}
                return current.event("abort asked for", by, why[:MAX_WHY_CHARS], time.time())
            return None

        amend(self._ledger, change)
