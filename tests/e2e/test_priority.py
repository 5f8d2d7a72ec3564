"""How the system shares a busy machine out among the stack's processes."""

import os

import pytest

from tests.support.stack import Served


@pytest.mark.parametrize("kind", ["gateway", "tokenizer", "llm", "decoder", "proxy"])
def test_ray_s_workers_do_not_give_way_to_everything_else(stack: Served, kind: str) -> None:
    own = os.getpriority(os.PRIO_PROCESS, stack.process.pid)
    found = [os.getpriority(os.PRIO_PROCESS, pid) for pid in stack.processes(kind)]
    assert found
    assert set(found) == {own}
