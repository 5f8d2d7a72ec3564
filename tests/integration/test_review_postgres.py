"""The review loop's state on a real PostgreSQL."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import event, insert, make_url

from annotation.loop.context import Loop
from annotation.loop.settings import ReviewSettings
from annotation.loop.steps.route import plan, run
from annotation.store import ReviewStore
from annotation.store import schema as tables
from loadtests.review_database import fill
from services.config import ROOT, Settings
from services.interactions.database import connect, database_url, transaction
from services.interactions.pictures import PictureStore
from services.interactions.schema import metadata as interactions_metadata
from tests.integration.conftest import database
from tests.unit.annotation import reference_choose
from tests.unit.annotation.loop_samples import rows_as_candidates
from tests.unit.interactions.samples import settings_in
from tests.unit.review.assignment import AssignmentBehaviour
from tests.unit.review.behaviour import ReviewBehaviour
from tests.unit.review.machine import ReviewMachine
from tests.unit.review.samples import Clock


@pytest.fixture(scope="module")
def migrated(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Name of a database with all tables."""
    with database(postgres) as address:
        ReviewStore.open(settings_in(tmp_path_factory.mktemp("migrated"), database_url=address)).close()
        yield str(make_url(address).database)


@pytest.fixture
def settings(postgres: str, migrated: str, tmp_path: Path) -> Iterator[Settings]:
    with database(postgres, migrated) as address:
        yield settings_in(tmp_path, database_url=address)


class TestReview(ReviewBehaviour):
    """Everything that holds on SQLite."""


class TestAssignment(AssignmentBehaviour):
    """Likewise, and here experts who ask at once are served at once."""


def test_any_order_of_steps_is_as_the_model_says(settings: Settings) -> None:
    engine = connect(database_url(settings))
    # What survives a power cut is not what this is about.
    event.listen(engine, "connect", lambda raw, _: raw.cursor().execute("SET synchronous_commit = off"))
    everything = [*tables.metadata.sorted_tables, *interactions_metadata.sorted_tables]
    names = ", ".join(table.name for table in everything)

    def open_store(clock: Clock) -> ReviewStore:
        engine.dispose()
        with transaction(engine) as connection:
            connection.exec_driver_sql(f"TRUNCATE {names}")
            connection.execute(insert(tables.audit_head).values(id=1, number=0, hash="0" * 64))
        return ReviewStore(engine, PictureStore.open(settings, prefix="review"), clock)

    machine = type("Machine", (ReviewMachine,), {"open_store": staticmethod(open_store)})
    run_state_machine_as_test(
        machine, settings=hypothesis.settings(max_examples=15, stateful_step_count=30, deadline=None)
    )


def test_a_plan_over_columns_is_the_plan_over_rows(settings: Settings) -> None:
    with Loop(ReviewSettings(routing={"per_day": 400}), settings) as loop:
        fill(loop.store, 3_000)
        for _ in range(2):  # with nothing spent, then with what was sent and drawn
            rows = rows_as_candidates(loop)
            made, spent = plan(loop)
            wanted = reference_choose.choose(rows, spent, made.policy, loop.secrets.key, made.now)
            assert made.sent == wanted.sent
            assert list(made.withheld) == list(wanted.withheld)
            assert len(made.sent) + len(made.withheld) == len(rows)
            run(loop)


def test_a_hundred_thousand_interactions_are_routed_in_flat_memory(settings: Settings) -> None:
    """Prints the times; `loadtests/review_store.py` measures them alone."""
    command = [sys.executable, "-m", "loadtests.review_store", "--database", settings.database_url, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=240)
    figures = json.loads(done.stdout)
    print(done.stdout)
    assert figures["candidates"] == 100_000
    assert figures["routed"] == 200
    assert figures["items"] == 100_000
    assert figures["left"] == 0
    # Some 300 bytes a candidate; an object for each took over 2,000.
    assert figures["memory_growth_mb"]["100000"] < 60
