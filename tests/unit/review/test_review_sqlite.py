"""The review loop's state on SQLite, which is what it uses by default."""

from __future__ import annotations

import shutil
from pathlib import Path

import hypothesis
import pytest
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import event

from annotation.store import ReviewStore
from services.config import Settings
from services.interactions.database import connect, database_url
from services.interactions.pictures import PictureStore
from tests.unit.interactions.samples import settings_in
from tests.unit.review.assignment import AssignmentBehaviour
from tests.unit.review.behaviour import ReviewBehaviour
from tests.unit.review.machine import ReviewMachine
from tests.unit.review.samples import Clock


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = settings_in(tmp_path_factory.mktemp("migrated"))
    ReviewStore.open(settings).close()
    return settings.data_dir / "medmax.sqlite3"


@pytest.fixture
def settings(migrated: Path, tmp_path: Path) -> Settings:
    settings = settings_in(tmp_path)
    settings.data_dir.mkdir(mode=0o700)
    shutil.copy(migrated, settings.data_dir / "medmax.sqlite3")
    return settings


class TestReview(ReviewBehaviour):
    pass


class TestAssignment(AssignmentBehaviour):
    pass


def test_any_order_of_steps_is_as_the_model_says(
    migrated: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def open_store(clock: Clock) -> ReviewStore:
        settings = settings_in(tmp_path_factory.mktemp("machine"))
        files = PictureStore.open(settings, prefix="review")
        shutil.copy(migrated, settings.data_dir / "medmax.sqlite3")
        engine = connect(database_url(settings))
        # What survives a power cut is not what this is about, and it takes most of the time.
        event.listen(engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous = OFF"))
        return ReviewStore(engine, files, clock)

    machine = type("Machine", (ReviewMachine,), {"open_store": staticmethod(open_store)})
    run_state_machine_as_test(
        machine, settings=hypothesis.settings(max_examples=40, stateful_step_count=30, deadline=None)
    )
