"""A day's arrivals, what is asked, and what the commands refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.clients import grpc_request, rest_body
from loadtests.scenarios.asks import KINDS, MIXES, Asker
from loadtests.scenarios.plans import HOURS, constant_rate, day
from loadtests.stack import ROOT
from services.config import Settings
from services.gateway.rest.chat import prepare


def test_a_day_has_its_peak_in_the_morning() -> None:
    plan = day(radiologists=20, per_hour=6, compress=1440)
    assert plan.seconds == 60
    by_hour = [plan.sources(hour * 60 / 24 + 0.1) for hour in range(24)]
    assert by_hour.index(max(by_hour)) == 9  # type: ignore[type-var]
    assert max(by_hour) == 20  # type: ignore[type-var]
    assert plan.sources(60) is None


@given(st.integers(1, 500), st.floats(0.1, 100), st.floats(10, 10_000))
def test_compressing_a_day_leaves_its_number_of_questions(
    radiologists: int, per_hour: float, compress: float
) -> None:
    plan = day(radiologists, per_hour, compress)
    hours = sum(max(1, round(radiologists * level / max(HOURS))) for level in HOURS)
    assert plan.expected == pytest.approx(hours * per_hour, rel=1e-6)


@given(st.floats(0.1, 100), st.floats(1, 1000))
def test_a_constant_rate_is_constant(rate: float, seconds: float) -> None:
    plan = constant_rate(rate, seconds)
    assert plan.expected == pytest.approx(rate * seconds)
    assert plan.sources(0) == plan.sources(seconds * 0.99)


def test_the_same_seed_asks_the_same() -> None:
    first, again, other = (Asker(MIXES["mixed"], seed) for seed in (1, 1, 2))
    asked = [first.next() for _ in range(20)]
    assert asked == [again.next() for _ in range(20)]
    assert asked != [other.next() for _ in range(20)]


def test_a_mix_holds_its_shares() -> None:
    asker = Asker(MIXES["mixed"], 3)
    counts = Counter(asker.next().kind for _ in range(150))
    assert set(counts) == set(KINDS)
    assert counts["vqa"] / 150 == pytest.approx(MIXES["mixed"]["vqa"], abs=0.15)


@pytest.mark.parametrize("kind", KINDS)
def test_rest_and_grpc_ask_the_same(kind: str) -> None:
    ask = Asker(MIXES[kind], 5).next()
    by_rest = prepare(json.dumps(rest_body(ask)).encode(), Settings()).request
    by_grpc = grpc_request(ask)
    assert by_rest.mode == by_grpc.mode
    assert by_rest.messages == by_grpc.messages
    assert by_rest.sampling.seed == by_grpc.sampling.seed


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["loadtests.scenarios", "vqa", "--http", "http://10.1.2.3:80", "--grpc", "10.1.2.3:81"], "loopback"),
        (["loadtests.scenarios", "vqa", "--http", "http://127.0.0.1:80"], "--grpc"),
        (["loadtests.scenarios", "vqa", "--rate", "1e9"], "must be 0.01 to 1000"),
        (["loadtests.capacity", "--device", "absent.json", "--radiologists", "4"], "absent.json"),
    ],
)
def test_a_command_refuses_what_is_out_of_bounds(arguments: list[str], reason: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert reason in done.stderr
    assert done.stdout == ""
