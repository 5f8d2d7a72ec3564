"""Dynamic batching: items that arrive close together are worked on together, in one worker thread."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.deadline import Deadline
from services.errors import DeadlineExceeded, Overloaded, Unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(eq=False)
class _Entry(Generic[Item, Result]):
    item: Item
    result: asyncio.Future[Result]
    deadline: Deadline | None


class Batcher(Generic[Item, Result]):
    """A bounded queue in front of a function over batches.

    Items are worked on in order of arrival. Those whose caller went away, or whose time ran out before their turn,
    are dropped. When a batch fails its items are tried one by one, so that a bad one fails alone.

    Args:
        run: called in the worker thread with 1 to `max_size` items; returns as many results, in order.
        name: of the worker, for messages.
        max_wait_s: how long the first item of a batch waits for others.
        max_queue: items that may wait; below 0 = no limit.
        stuck_after_s: a batch that takes longer makes `check_health` fail.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Sequence[Result]],
        *,
        name: str,
        max_size: int = 16,
        max_wait_s: float = 0.002,
        max_queue: int = 256,
        stuck_after_s: float = 120.0,
    ) -> None:
        self._run = run
        self._name = name
        self._max_size = max_size
        self._max_wait_s = max_wait_s
        self._max_queue = max_queue
        self._stuck_after_s = stuck_after_s
        self._queue: deque[_Entry[Item, Result]] = deque()
        self._full = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._busy_since = math.inf
        self._closed = False

    @property
    def waiting(self) -> int:
        """Items in the queue, those being worked on not included."""
        return len(self._queue)

    async def submit(self, item: Item, deadline: Deadline | None = None) -> Result:
        """The result of `run` for `item`.

        Raises:
            Overloaded: the queue is full; nothing was done.
            DeadlineExceeded: `deadline` passed first.
            Unavailable: the batcher is closed.
            Exception: whatever `run` raised for this item.
        """
        if self._closed:
            raise Unavailable(f"the {self._name} is shutting down", retry_after_s=1)
        if 0 <= self._max_queue <= len(self._queue):
            raise Overloaded(
                f"the {self._name}'s queue is full; the limit is {self._max_queue}", retry_after_s=1
            )
        if deadline is not None:
            deadline.check()
        entry = _Entry(item, asyncio.get_running_loop().create_future(), deadline)
        self._queue.append(entry)
        if self._worker is None or self._worker.done():
            self._full = asyncio.Event()
            self._worker = asyncio.create_task(self._work())
        if len(self._queue) >= self._max_size:
            self._full.set()
        limit = asyncio.timeout(None if deadline is None else deadline.remaining_s)
        try:
            async with limit:
                result: Result = await entry.result
                return result
        except TimeoutError:
            if limit.expired():
                raise DeadlineExceeded("the request's time ran out", field="context.timeout_ms") from None
            raise
        finally:
            with suppress(ValueError):
                self._queue.remove(entry)

    def check_health(self) -> None:
        """Raises: Unavailable when closed, or when a batch has been at work for too long."""
        if self._closed:
            raise Unavailable(f"the {self._name} is shutting down", retry_after_s=1)
        if time.monotonic() - self._busy_since > self._stuck_after_s:
            raise Unavailable(f"the {self._name} has not finished a batch for {self._stuck_after_s:g} s")

    async def close(self) -> None:
        """Takes no more items, finishes those it has, ends the worker."""
        self._closed = True
        if self._worker is not None and self._worker.get_loop() is asyncio.get_running_loop():
            with suppress(asyncio.CancelledError):
                await asyncio.shield(self._worker)
        self._executor.shutdown(wait=False)

    async def _work(self) -> None:
        while self._queue:
            if len(self._queue) < self._max_size and self._max_wait_s:
                self._full.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._max_wait_s):
                        await self._full.wait()
            size = min(self._max_size, len(self._queue))
            batch = [self._queue.popleft() for _ in range(size)]
            live = [entry for entry in batch if self._is_live(entry)]
            try:
                if live:
                    await self._finish(live)
            except asyncio.CancelledError:
                for entry in (*live, *self._queue):
                    entry.result.cancel()
                raise

    @staticmethod
    def _is_live(entry: _Entry[Item, Result]) -> bool:
        # The caller of an entry whose time is up finds that out by itself.
        return not entry.result.done() and (entry.deadline is None or not entry.deadline.passed)

    async def _finish(self, batch: list[_Entry[Item, Result]]) -> None:
        try:
            results = await self._in_thread([entry.item for entry in batch])
        except Exception as error:
            if len(batch) > 1:
                for entry in batch:
                    if self._is_live(entry):
                        await self._finish([entry])
            elif not batch[0].result.done():
                batch[0].result.set_exception(error)
            return
        for entry, result in zip(batch, results, strict=True):
            if not entry.result.done():
                entry.result.set_result(result)

    async def _in_thread(self, items: list[Item]) -> Sequence[Result]:
        self._busy_since = time.monotonic()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, self._run, items)
        finally:
            self._busy_since = math.inf
