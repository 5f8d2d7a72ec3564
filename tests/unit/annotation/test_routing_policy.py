"""Settings of routing: limits, and budgets in parts that add up."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation.checked import checked
from annotation.core import Kind
from annotation.routing.policy import RoutingPolicy
from services.errors import ConfigurationError


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"per_day": -1}, r"routing\.per_day"),
        ({"per_day": 100_001}, r"routing\.per_day"),
        ({"per_kind": {"chat": -3}}, r"routing\.per_kind\.chat"),
        ({"per_kind": {"poem": 3}}, r"routing\.per_kind\.poem"),
        ({"per_speciality": {"": 3}}, "1 to 64 characters"),
        ({"random_share": 1.5}, r"routing\.random_share"),
        ({"random_share": float("nan")}, r"routing\.random_share"),
        ({"random_reserve": 0}, "random_reserve must be above 0"),
        ({"random_reserve": 0.8, "gold_share": 0.3}, "must not exceed 1"),
        ({"risk_rule": "vibes"}, r"routing\.risk_rule"),
        ({"miss_rate": 0}, r"routing\.miss_rate"),
        ({"max_age_days": 0}, r"routing\.max_age_days"),
        ({"budget": 3}, r"routing\.budget"),
    ],
)
def test_a_wrong_setting_is_named(values, named):
    with pytest.raises(ConfigurationError, match=named):
        checked(RoutingPolicy, values, "routing")


def test_settings_are_read_as_written():
    policy = checked(RoutingPolicy, {"per_kind": {"report": 20}, "risk_rule": "top"}, "routing")
    assert policy.per_kind == {Kind.REPORT: 20}


@settings(deadline=None)
@given(
    budget=st.integers(0, 100_000),
    share=st.floats(0, 1),
    reserve=st.floats(0.001, 1),
    gold=st.floats(0, 0.5),
    flags=st.floats(0, 1),
)
def test_the_parts_of_a_budget_add_up_to_it(budget, share, reserve, gold, flags):
    if reserve + gold > 1:
        reserve = 1 - gold
    policy = RoutingPolicy(random_share=share, random_reserve=reserve, gold_share=gold, flag_limit=flags)
    parts = policy.parts(budget)
    assert parts.random + parts.gold + parts.rest == budget
    assert min(parts) >= 0
    assert parts.flags <= parts.rest
    assert (parts.random > 0) == (budget > 0 and share > 0)
