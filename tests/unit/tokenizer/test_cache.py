"""The cache keeps what was used last, within its limit."""

from __future__ import annotations

import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from services.tokenizer.cache import ByteCache


def test_the_value_unused_for_longest_goes_first() -> None:
    cache: ByteCache[str, int] = ByteCache(100)
    cache.put("a", 1, 40)
    cache.put("b", 2, 40)
    assert cache.get("a") == 1
    cache.put("c", 3, 40)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)


def test_a_value_over_the_limit_is_not_kept_and_drops_nothing() -> None:
    cache: ByteCache[str, int] = ByteCache(100)
    cache.put("a", 1, 100)
    cache.put("b", 2, 101)
    assert (cache.get("a"), cache.get("b")) == (1, None)


def test_a_limit_of_zero_keeps_nothing() -> None:
    cache: ByteCache[str, int] = ByteCache(0)
    cache.put("a", 1, 1)
    assert cache.get("a") is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 60))), st.integers(0, 100))
def test_bytes_never_pass_the_limit_and_are_counted_right(puts: list[tuple[int, int]], limit: int) -> None:
    cache: ByteCache[int, int] = ByteCache(limit)
    sizes: dict[int, int] = {}
    for key, size in puts:
        cache.put(key, size, size)
        sizes[key] = size
        assert cache.bytes <= limit
        assert cache.bytes == sum(sizes[k] for k in sizes if cache.get(k) is not None)
        if size <= limit:
            assert cache.get(key) == size


def test_many_threads_leave_the_count_right() -> None:
    cache: ByteCache[int, int] = ByteCache(500)

    def work(seed: int) -> None:
        for step in range(2000):
            key = (seed * 7 + step * 13) % 40
            if cache.get(key) is None:
                cache.put(key, key, key)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.bytes == sum(key for key in range(40) if cache.get(key) is not None) <= 500
