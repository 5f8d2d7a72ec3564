"""The interfaces between a roll-out and where it happens: what serves, what is kept, who may change it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from services.errors import MedMaxError, Overloaded
from services.rollout.record import MAX_EVENTS, Book, Event
from services.rollout.version import Change, Version

ATTEMPTS = 8


class Conflict(MedMaxError):
    """What was read changed before it could be written; read again."""


class Taken(Overloaded):
    """Somebody else conducts a roll-out."""


@dataclass(frozen=True)
class State:
    """What serves, as last seen.

    Attributes:
        version: in the specification.
        generation: of the specification, and the one that the status speaks of.
        ready: everything that serves is of that generation and healthy.
        taking: some requests already reach that generation.
        failed: why it will not become ready without another change; empty where it may.
        detail: one line for people.
        cluster: of Ray, which takes the requests.
        source: what the target needs to make a change.
    """

    version: Version
    generation: int
    observed: int
    ready: bool
    taking: bool
    failed: str
    detail: str
    cluster: str
    source: Any


class Target(Protocol):
    """What serves a model."""

    @property
    def name(self) -> str:
        """For people."""

    def read(self) -> State:
        """Raises: NotFound, Unavailable, Unauthenticated, PermissionDenied, ConfigurationError."""

    def undo_of(self, state: State, change: Change) -> Change:
        """The change that would lead back to `state`. Raises: InvalidInput: it has no such group."""

    def holds(self, state: State, change: Change) -> bool:
        """Whether `change` is in the specification already."""

    def preview(self, state: State, change: Change) -> str:
        """The difference that the change makes, as a unified diff; empty where it makes none."""

    def how(self, state: State, change: Change) -> str:
        """How it will come about, in a sentence."""

    def apply(self, state: State, change: Change, rollout: str) -> State:
        """Makes the change. Raises: Conflict: the target is not as in `state` any more."""

    def wait(self, state: State, seconds: float) -> None:
        """Until the target may have changed, at most so long."""


class Ledger(Protocol):
    """What is kept of roll-outs."""

    def read(self) -> Book: ...

    def write(self, book: Book) -> None:
        """Raises: Conflict: somebody wrote since `book` was read."""


class Lock(Protocol):
    """Who may conduct a roll-out."""

    def acquire(self) -> None:
        """Raises: Taken: somebody else holds it; says who and since when."""

    def renew(self) -> None:
        """Raises: Taken: it was lost."""

    def release(self) -> None: ...


def amend(ledger: Ledger, change: Callable[[Book], Event | None]) -> Book:
    """Reads, changes and writes what is kept, again where somebody was quicker. An event joins the history.

    Raises:
        Conflict: others were quicker time and again.
    """
    for attempt in range(ATTEMPTS):
        book = ledger.read()
        event = change(book)
        if event is not None:
            book.history = [*book.history, event][-MAX_EVENTS:]
        try:
            ledger.write(book)
        except Conflict:
            if attempt == ATTEMPTS - 1:
                raise
            continue
        break
    return book
