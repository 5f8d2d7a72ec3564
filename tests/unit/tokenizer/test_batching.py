"""The batcher: order, batches, overload, deadlines, cancellation, a bad item, shutting down."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from services.batching import Batcher
from services.deadline import Deadline
from services.errors import DeadlineExceeded, InvalidInput, Overloaded, Unavailable


class Work:
    """Doubles numbers; notes its batches; fails on negative ones; waits at the gate while it is shut."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, items: list[int]) -> Sequence[int]:
        self.batches.append(list(items))
        assert self.gate.wait(10)
        if min(items) < 0:
            raise InvalidInput("negative", field="item")
        return [2 * item for item in items]


async def shut(work: Work, batcher: Batcher[int, int]) -> asyncio.Task[int]:
    """Closes the gate and lets one item (100) wait behind it."""
    work.gate.clear()
    first = asyncio.create_task(batcher.submit(100))
    while not work.batches:
        await asyncio.sleep(0.001)
    return first


async def queued(batcher: Batcher[int, int], number: int) -> None:
    while batcher.waiting != number:
        await asyncio.sleep(0.001)


async def test_each_caller_gets_its_own_result_and_items_keep_their_order() -> None:
    work = Work()
    batcher = Batcher(work, name="test", max_size=4, max_wait_s=0.001)
    assert await asyncio.gather(*(batcher.submit(i) for i in range(30))) == [2 * i for i in range(30)]
    assert [item for batch in work.batches for item in batch] == list(range(30))
    assert max(map(len, work.batches)) == 4
    await batcher.close()


async def test_a_full_batch_does_not_wait() -> None:
    batcher = Batcher(Work(), name="test", max_size=3, max_wait_s=60)
    async with asyncio.timeout(5):
        assert await asyncio.gather(*(batcher.submit(i) for i in range(3))) == [0, 2, 4]
    await batcher.close()


async def test_a_lone_item_waits_no_longer_than_told() -> None:
    batcher = Batcher(Work(), name="test", max_size=3, max_wait_s=0.05)
    start = time.monotonic()
    assert await batcher.submit(1) == 2
    assert time.monotonic() - start >= 0.05
    await batcher.close()


async def test_items_that_come_while_one_is_worked_on_form_a_batch() -> None:
    work = Work()
    batcher = Batcher(work, name="test", max_size=8, max_wait_s=0)
    first = await shut(work, batcher)
    others = [asyncio.create_task(batcher.submit(i)) for i in range(5)]
    await queued(batcher, 5)
    work.gate.set()
    assert await asyncio.gather(first, *others) == [200, 0, 2, 4, 6, 8]
    assert work.batches == [[100], [0, 1, 2, 3, 4]]
    await batcher.close()


async def test_a_full_queue_is_refused_with_the_limit_and_recovers() -> None:
    work = Work()
    batcher = Batcher(work, name="test", max_size=1, max_wait_s=0, max_queue=2)
    running = [await shut(work, batcher), *(asyncio.create_task(batcher.submit(i)) for i in range(2))]
    await queued(batcher, 2)
    with pytest.raises(Overloaded) as caught:
        await batcher.submit(9)
    assert "2" in caught.value.message
    assert caught.value.retry_after_s
    work.gate.set()
    assert await asyncio.gather(*running) == [200, 0, 2]
    assert await batcher.submit(9) == 18
    await batcher.close()


async def test_a_cancelled_item_is_dropped_and_frees_its_place() -> None:
    work = Work()
    batcher = Batcher(work, name="test", max_size=8, max_wait_s=0, max_queue=1)
    first = await shut(work, batcher)
    dropped = asyncio.create_task(batcher.submit(1))
    await queued(batcher, 1)
    dropped.cancel()
    await asyncio.gather(dropped, return_exceptions=True)
    kept = asyncio.create_task(batcher.submit(2))
    await queued(batcher, 1)
    work.gate.set()
    assert await asyncio.gather(first, kept) == [200, 4]
    assert work.batches == [[100], [2]]
    await batcher.close()


async def test_an_item_whose_time_ran_out_is_dropped() -> None:
    work = Work()
    batcher = Batcher(work, name="test", max_size=8, max_wait_s=0)
    first = await shut(work, batcher)
    with pytest.raises(DeadlineExceeded):
        await batcher.submit(1, Deadline.after(20, 60))
    work.gate.set()
    assert await first == 200
    assert await batcher.submit(2, Deadline.after(5000, 60)) == 4
    assert work.batches == [[100], [2]]
    await batcher.close()


async def test_a_deadline_already_passed_is_refused_at_once() -> None:
    work = Work()
    batcher = Batcher(work, name="test")
    with pytest.raises(DeadlineExceeded):
        await batcher.submit(1, Deadline(time.monotonic() - 1))
    assert work.batches == []
    await batcher.close()


async def test_a_bad_item_fails_alone() -> None:
    work = Work()
    batcher = Batcher(work, name="test", max_size=8, max_wait_s=0)
    first = await shut(work, batcher)
    others = [asyncio.create_task(batcher.submit(i)) for i in (1, -1, 3)]
    await queued(batcher, 3)
    work.gate.set()
    results = await asyncio.gather(first, *others, return_exceptions=True)
    assert results[:2] == [200, 2]
    assert isinstance(results[2], InvalidInput)
    assert results[3] == 6
    await batcher.close()


async def test_closing_finishes_what_was_accepted_and_refuses_the_rest() -> None:
    work = Work()
    batcher = Batcher(work, name="test", max_size=1, max_wait_s=0)
    running = [await shut(work, batcher), asyncio.create_task(batcher.submit(1))]
    await queued(batcher, 1)
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await batcher.submit(2)
    work.gate.set()
    await closing
    assert await asyncio.gather(*running) == [200, 2]
    with pytest.raises(Unavailable):
        batcher.check_health()


async def test_a_stuck_batch_makes_the_health_check_fail() -> None:
    work = Work()
    batcher = Batcher(work, name="test", max_size=1, max_wait_s=0, stuck_after_s=0.02)
    batcher.check_health()
    first = await shut(work, batcher)
    await asyncio.sleep(0.05)
    with pytest.raises(Unavailable):
        batcher.check_health()
    work.gate.set()
    await first
    batcher.check_health()
    await batcher.close()


def test_a_batcher_outlives_the_event_loop_that_used_it() -> None:
    batcher = Batcher(Work(), name="test", max_wait_s=0)
    assert asyncio.run(batcher.submit(1)) == 2
    assert asyncio.run(batcher.submit(2)) == 4
