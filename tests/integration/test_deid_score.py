"""Planted identifiers, all 18 kinds, 500 cases: what is sent holds none of them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.deid_score import BANKS, Score, score

RECALL, PRECISION = 0.9, 0.9
"""Floors over all text categories, well below what docs/deidentification.md reports."""


@pytest.fixture(scope="module", params=BANKS)
def measured(request: pytest.FixtureRequest) -> Score:
    return score(BANKS[request.param], seed=1, count=250, total=Score())


def test_no_planted_identifier_is_sent(measured: Score) -> None:
    assert measured.leaks == []
    assert measured.planted.total() > 400
    assert len(measured.planted) == 20


def test_most_is_removed_rather_than_held(measured: Score) -> None:
    assert measured.removed.total() / measured.planted.total() >= RECALL


def test_what_is_removed_was_an_identifier(measured: Score) -> None:
    assert measured.right.total() / measured.found.total() >= PRECISION


def test_clean_cases_pass_as_they_are(measured: Score) -> None:
    clean = measured.clean
    assert clean["terms destroyed"] <= 0.03 * clean["terms"]
    assert clean["clean held"] <= 0.1 * clean["clean cases"]
    assert clean["clean_picture held"] + clean["clean_picture masked"] <= 0.2 * clean["clean_picture cases"]


def test_the_script_prints_one_json_document() -> None:
    command = [
        sys.executable,
        "scripts/deid_score.py",
        "--half",
        "development",
        "--cases",
        "40",
        "--no-pictures",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, check=True, timeout=120)
    record = json.loads(done.stdout)
    assert {row["category"] for row in record["categories"]} >= {"name", "date", "all"}
