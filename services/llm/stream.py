"""Events on their way from the engine's thread to whoever waits for them."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Self

from services.errors import MedMaxError
from services.llm.events import Event, Finish, Text


class Mailbox:
    """Events of one sequence, in order; any thread may post or take.

    Attributes:
        cancelled: set once nobody waits any more; the engine drops the sequence at its next step.
        loop: event loop of the waiting task, or None where a thread waits.
        eager: whether whoever waits wants every piece, or to be woken only at the end.
        ring: called (on `loop`, if there is one) when there is news.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop | None, ring: Callable[[], None], eager: bool = True
    ) -> None:
        self.loop, self.ring, self.eager = loop, ring, eager
        self.cancelled = False
        self._lock = threading.Lock()
        self._events: deque[Event] = deque()
        self._error: MedMaxError | None = None

    def post(self, event: Event) -> None:
        """Add an event; text that was not fetched yet grows instead."""
        with self._lock:
            if isinstance(event, Text) and self._events and isinstance(last := self._events[-1], Text):
                self._events[-1] = last + event
            else:
                self._events.append(event)

    def fail(self, error: MedMaxError) -> None:
        """End the stream in an error, after what was posted before."""
        with self._lock:
            self._error = self._error or error

    def take(self) -> Event | None:
        """The next event; None while there is none.

        Raises:
            MedMaxError: the sequence failed and every event before was taken.
        """
        with self._lock:
            if self._events:
                return self._events.popleft()
            if self._error is not None:
                raise self._error
            return None


def ring_all(mailboxes: Iterable[Mailbox]) -> None:
    """Wake everyone who waits for one of these, each event loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Mailbox]] = {}
    for mailbox in mailboxes:
        if mailbox.loop is None:
            mailbox.ring()
        else:
            by_loop.setdefault(mailbox.loop, []).append(mailbox)
    for loop, boxes in by_loop.items():
        try:
            loop.call_soon_threadsafe(_ring, boxes)
        except RuntimeError:  # the loop is closed: nobody can be waiting
            for mailbox in boxes:
                mailbox.cancelled = True


def _ring(mailboxes: list[Mailbox]) -> None:
    for mailbox in mailboxes:
        mailbox.ring()


class Stream:
    """Asynchronous iterator over the events of one sequence; letting go of it cancels the work."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """loop: the running event loop, in which the stream will be read."""
        self._news = asyncio.Event()
        self.mailbox = Mailbox(loop, self._news.set)
        self._done = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._done:
            self._news.clear()
            try:
                event = self.mailbox.take()
            except MedMaxError:
                self._done = True
                raise
            if event is not None:
                self._done = isinstance(event, Finish)
                return event
            await self._news.wait()
        raise StopAsyncIteration

    def cancel(self) -> None:
        """Stop the work at the engine's next step; harmless once the answer is complete."""
        self.mailbox.cancelled = True

    def __del__(self) -> None:
        self.cancel()
