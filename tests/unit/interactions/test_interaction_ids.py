"""Identifiers of interactions and feedback."""

from __future__ import annotations

import re
import time
import uuid

import pytest

from services.errors import InvalidInput
from services.interactions.ids import check_id, new_feedback_id, new_interaction_id


def test_an_id_is_a_version_7_uuid_of_this_moment() -> None:
    before = time.time_ns() // 1_000_000
    value = new_interaction_id()
    after = time.time_ns() // 1_000_000
    assert re.fullmatch(r"int_[0-9a-f]{32}", value)
    inside = uuid.UUID(value[4:])
    assert inside.version == 7
    assert inside.variant == uuid.RFC_4122
    assert before <= inside.int >> 80 <= after


def test_ids_do_not_repeat() -> None:
    assert len({new_interaction_id() for _ in range(10_000)}) == 10_000


def test_an_id_of_another_kind_is_refused() -> None:
    assert check_id(new_feedback_id(), "fbk_")
    with pytest.raises(InvalidInput):
        check_id(new_feedback_id())
