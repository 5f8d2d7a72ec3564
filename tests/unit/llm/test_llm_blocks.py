"""The pool of cache blocks against a model of it that is slow and obvious."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.llm.blocks import BlockPool, prefix_keys

SIZE = 6
KEYS = [bytes([n]) for n in range(8)]


class Pool(RuleBasedStateMachine):
    """`held` has one entry per holder; `content` what each block's content is found by."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(SIZE, 16)
        self.held: list[int] = []
        self.content: dict[int, bytes] = {}

    @rule()
    def take(self) -> None:
        index = self.pool.take()
        if len(set(self.held)) == SIZE:
            assert index is None
            return
        assert index is not None
        assert index not in self.held
        self.content.pop(index, None)
        self.held.append(index)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        index = data.draw(st.sampled_from(self.held))
        self.held.remove(index)
        self.pool.release(index)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), key=st.sampled_from(KEYS))
    def register(self, data: st.DataObject, key: bytes) -> None:
        index = data.draw(st.sampled_from(self.held))
        self.pool.register(index, key)
        if key not in self.content.values() and index not in self.content:
            self.content[index] = key

    @rule(keys=st.lists(st.sampled_from(KEYS), max_size=4, unique=True))
    def find(self, keys: list[bytes]) -> None:
        places = {key: index for index, key in self.content.items()}
        expected = []
        for key in keys:
            if key not in places:
                break
            expected.append(places[key])
        assert self.pool.first_missing(keys) == (keys[len(expected)] if len(expected) < len(keys) else None)
        found = self.pool.find(keys)
        assert found == expected
        self.held += found

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        index = data.draw(st.sampled_from(self.held))
        self.pool.forget(index)
        self.content.pop(index, None)

    @invariant()
    def agrees(self) -> None:
        assert self.pool.problems(self.held) == []
        assert self.pool.available == SIZE - len(set(self.held))
        assert self.pool.registered == len(self.content)
        assert all(self.pool.holders(index) == self.held.count(index) for index in range(SIZE))


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_the_content_that_was_used_longest_ago_goes_first() -> None:
    pool = BlockPool(3, 16)
    blocks = [pool.take() for _ in range(3)]
    for index, key in zip(blocks, KEYS, strict=False):
        pool.register(index, key)
    for index in (1, 0, 2):
        pool.release(blocks[index])
    assert [pool.take(), pool.take()] == [blocks[1], blocks[0]]
    assert pool.find([KEYS[2]]) == [blocks[2]]


def test_problems_are_found() -> None:
    pool = BlockPool(3, 16)
    index = pool.take()
    assert pool.problems([index]) == []
    assert pool.problems([])
    assert pool.problems([index, index])
    pool._free.append(index)
    assert pool.problems([index])


@given(st.lists(st.integers(0, 3), max_size=70), st.lists(st.integers(0, 3), max_size=70))
@settings(max_examples=80, deadline=None)
def test_keys_agree_exactly_as_far_as_the_ids_do(one: list[int], other: list[int]) -> None:
    first, second = (prefix_keys(np.array(ids, np.int64), 4) for ids in (one, other))
    assert len(first) == len(one) // 4
    for index, (a, b) in enumerate(zip(first, second, strict=False)):
        assert (a == b) == (one[: 4 * index + 4] == other[: 4 * index + 4])
