"""What back-ups must do on every database: subclass with the fixtures `settings` and `target`, two installations."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from annotation.backup.archive import Archive
from annotation.backup.create import create
from annotation.backup.database import present
from annotation.backup.restore import restore
from annotation.loop import faults
from annotation.store import Event, ReviewStore, What
from annotation.store.schema import item_pictures
from services.config import Settings
from services.errors import ConfigurationError, InvalidInput, NotFound, Unavailable
from services.interactions import InteractionStore
from services.interactions.database import connect, database_url, transaction
from services.interactions.pictures import PictureStore
from services.interactions.schema import interaction_pictures, interactions
from services.pb.medmax.v1 import assistant_pb2
from tests.unit.interactions.samples import interaction, random_picture
from tests.unit.review.samples import Clock, annotation, judgement, publish

SECRET = "a secret of sixteen bytes and more"


def run(do: Callable[[Settings, str], object], settings: Settings, archive: Path, kill_at: str) -> int:
    """In a process of its own, killed at a place; the signal that ended it."""
    child = os.fork()
    if child == 0:
        os.environ[faults.VARIABLE] = kill_at
        try:
            do(settings, str(archive))
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


def save(store: InteractionStore, count: int = 1) -> list[str]:
    return [
        asyncio.run(store.save(interaction(pictures=(random_picture(), random_picture()))))
        for _ in range(count)
    ]


def review(store: ReviewStore) -> str:
    """An item with a picture that was judged; its key."""
    (key,) = publish(store)
    store.annotations.record(annotation(key.partition(":")[2], "7", store.ledger.clock()))
    store.judgements.save(judgement(store, key), store.items.get(key).revision)
    return key


def fill(settings: Settings, model_bytes: int = 17 << 20) -> list[str]:
    """Interactions, feedback, reviews, a data-set version, a model, a secret; ids of the interactions."""
    store = InteractionStore.open(settings)
    ids = save(store, 5)
    request = assistant_pb2.SubmitFeedbackRequest(
        interaction_id=ids[0], rating=2, comment="not \\. so\t\n\\N"
    )
    asyncio.run(store.add_feedback(request, "radiology"))
    store.close()
    reviews = ReviewStore.open(settings, Clock())
    keys = [review(reviews) for _ in range(3)]
    reviews.inbox.add([Event("ANNOTATION_CREATED", 1, 1000, 7)])
    data_dir = settings.data_dir.absolute()
    folder = data_dir / "datasets" / "v1"
    (folder / "images").mkdir(parents=True)
    (folder / "rows.jsonl").write_text('{"text": "a"}\n' * 3)
    (folder / "images" / "a.png").write_bytes(random_picture())
    reviews.versions.built("v1", [(keys[0], reviews.items.get(keys[0]).revision)], path=str(folder))
    model = data_dir / "review" / "models" / "m1"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(os.urandom(model_bytes))  # more than one piece
    reviews.versions.candidate("m1", path=str(model), parent="v1")
    reviews.close()
    (data_dir / "review.secret").write_text(SECRET)
    return ids


def rows(settings: Settings) -> dict[str, list[tuple[Any, ...]]]:
    """Everything in the database, folders of versions aside."""
    engine = connect(database_url(settings))
    with transaction(engine, write=False) as connection:
        found = {}
        for table in present(connection):
            columns = [each for each in table.c if each.name != "path"]
            found[table.name] = sorted((tuple(row) for row in connection.execute(select(*columns))), key=repr)
    engine.dispose()
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check_pictures(settings: Settings) -> int:
    """Every picture that a row needs is there and whole; how many."""
    engine = connect(database_url(settings))
    with transaction(engine, write=False) as connection:
        own = list(connection.scalars(select(interaction_pictures.c.sha256)))
        reviewed = item_pictures in present(connection)
        cleaned = list(connection.scalars(select(item_pictures.c.sha256))) if reviewed else []
    engine.dispose()
    for sha256 in own:
        PictureStore.open(settings).read(sha256)
    for sha256 in cleaned:
        PictureStore.open(settings, prefix="review").read(sha256)
    return len(own) + len(cleaned)


def holds_nothing(settings: Settings) -> bool:
    """A program that starts now finds an empty installation."""
    store = ReviewStore.open(settings)
    with transaction(store.engine, write=False) as connection:
        count = sum(len(connection.execute(select(table)).all()) for table in present(connection))
    store.close()
    return count == 1  # the audit's head


@contextmanager
def writers(settings: Settings) -> Iterator[list[str]]:
    """A gateway and a review loop that go on writing, and a purge that goes on deleting; ids that were acknowledged."""
    stop, saved, failed = threading.Event(), [], []

    def guarded(work: Any) -> None:
        try:
            while not stop.is_set():
                work()
        except Exception as error:
            failed.append(error)

    store, reviews = InteractionStore.open(settings), ReviewStore.open(settings, Clock())
    threads = [
        threading.Thread(target=guarded, args=(lambda: saved.extend(save(store)),)),
        threading.Thread(target=guarded, args=(lambda: review(reviews),)),
        threading.Thread(target=guarded, args=(store.purge,)),
    ]
    for thread in threads:
        thread.start()
    try:
        yield saved
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        store.close()
        reviews.close()
    assert not failed


class BackupBehaviour:
    @pytest.fixture
    def archive(self, tmp_path: Path) -> Path:
        return tmp_path / "archive"

    def test_everything_comes_back_elsewhere(
        self, settings: Settings, target: Settings, archive: Path
    ) -> None:
        fill(settings)
        made = create(settings, str(archive))
        assert (made.missing, made.outside) == ((), ())
        done = restore(target, str(archive))
        assert done.name == made.name
        assert rows(target) == rows(settings)
        assert check_pictures(target) == check_pictures(settings) > 10
        assert (target.data_dir / "review.secret").read_text() == SECRET
        for folder in ("datasets", "review"):
            assert files(target.data_dir / folder) == files(settings.data_dir / folder) != {}
        store = ReviewStore.open(target)
        assert store.audit.verify().broken_at is None
        versions = [store.versions.get("v1"), store.versions.get("m1")]
        assert [version.what for version in versions] == [What.DATA, What.MODEL]
        assert all(Path(version.path).is_relative_to(target.data_dir.absolute()) for version in versions)
        assert all(Path(version.path).is_dir() for version in versions)
        # The database goes on with numbers that no row has.
        store.inbox.add([Event("ANNOTATION_UPDATED", 1, 1000, 7)])
        review(store)
        assert store.audit.verify().broken_at is None
        store.close()

    def test_a_back_up_is_one_moment_while_others_write(
        self, settings: Settings, target: Settings, archive: Path
    ) -> None:
        before = fill(settings)
        names = []
        with writers(settings) as saved:
            for _ in range(3):
                acknowledged = [*before, *saved]
                names.append(create(settings, str(archive)).name)
        assert saved, "they did write"
        restore(target, str(archive), names[-1])
        check_pictures(target)
        store = ReviewStore.open(target)
        assert store.audit.verify().broken_at is None, "no entry without the one before"
        with transaction(store.engine, write=False) as connection:
            ids = set(connection.scalars(select(interactions.c.id)))
        store.close()
        assert set(acknowledged) <= ids, "what was acknowledged before is in it"
        now = {name: {repr(row) for row in table} for name, table in rows(settings).items()}
        then = rows(target)
        for name in ("interactions", "interaction_pictures", "feedback", "review_audit"):
            assert {repr(row) for row in then[name]} <= now[name]

    def test_what_is_in_an_archive_is_not_written_again(self, settings: Settings, archive: Path) -> None:
        fill(settings)
        first, second = create(settings, str(archive)), create(settings, str(archive))
        assert first.new_pictures > 10
        assert second.new_pictures == 0
        assert Archive.open(str(archive)).names() == sorted({first.name, second.name})

    @pytest.mark.parametrize("what", ["picture", "rows", "file", "manifest"])
    def test_a_flipped_bit_is_found_and_named(
        self, settings: Settings, target: Settings, archive: Path, what: str
    ) -> None:
        fill(settings)
        name = create(settings, str(archive)).name
        opened = Archive.open(str(archive))
        manifest = opened.load(name)
        parts = dict(manifest.parts())
        victim, said = {
            "picture": (manifest.pictures[""][0], f"picture {manifest.pictures[''][0]}"),
            "rows": next(
                (b[0], n) for n, b in parts.items() if n in {"SQLite database", "table interactions"}
            ),
            "file": (parts["file datasets/v1/rows.jsonl"][0], "file datasets/v1/rows.jsonl"),
            "manifest": (name.partition("-")[2], name),
        }[what]
        blob = archive / "blobs" / victim[:2] / victim
        data = bytearray(blob.read_bytes())
        data[len(data) // 2] ^= 1
        blob.write_bytes(data)
        if what != "manifest":
            assert [said in each for each in opened.damaged(manifest)] == [True]
        with pytest.raises(InvalidInput) as refused:
            restore(target, str(archive))
        assert said in refused.value.message
        assert files(target.data_dir / "pictures") == {}
        assert holds_nothing(target)

    @pytest.mark.parametrize("place", ["picture:7", "pictures", "rows", "ready"])
    def test_a_killed_back_up_is_none_and_the_next_one_is_whole(
        self, settings: Settings, archive: Path, place: str
    ) -> None:
        fill(settings)
        assert run(create, settings, archive, f"backup.{place}") == signal.SIGKILL
        opened = Archive.open(str(archive))
        assert opened.names() == []
        assert files(archive / "blobs"), "it was on its way"
        name = create(settings, str(archive)).name
        assert opened.names() == [name]
        assert opened.damaged(opened.load(name)) == []

    @pytest.mark.parametrize("place", ["picture:7", "file:2", "table:5", "rows"])
    def test_a_killed_restore_left_nothing_half_and_can_be_repeated(
        self, settings: Settings, target: Settings, archive: Path, place: str
    ) -> None:
        if place.startswith("table") and not settings.database_url:
            pytest.skip("SQLite has one file")
        fill(settings)
        create(settings, str(archive))
        assert run(restore, target, archive, f"restore.{place}") == signal.SIGKILL
        restore(target, str(archive))
        assert rows(target) == rows(settings)
        assert check_pictures(target) == check_pictures(settings)

    def test_a_killed_restore_is_an_empty_installation(
        self, settings: Settings, target: Settings, archive: Path
    ) -> None:
        fill(settings)
        create(settings, str(archive))
        assert run(restore, target, archive, "restore.rows") == signal.SIGKILL
        assert holds_nothing(target)

    def test_nothing_that_is_there_is_written_over(
        self, settings: Settings, target: Settings, archive: Path
    ) -> None:
        fill(settings)
        create(settings, str(archive))
        there = InteractionStore.open(target)
        save(there)
        there.close()
        before = rows(target)
        with pytest.raises(ConfigurationError, match="MEDMAX_DATABASE_URL"):
            restore(target, str(archive))
        assert rows(target) == before
        assert not (target.data_dir / "review.secret").exists()

    def test_a_file_with_other_contents_is_named_and_left(
        self, settings: Settings, target: Settings, archive: Path
    ) -> None:
        fill(settings)
        create(settings, str(archive))
        target.data_dir.mkdir(parents=True)
        (target.data_dir / "review.secret").write_text("another one")
        with pytest.raises(ConfigurationError, match=r"review\.secret"):
            restore(target, str(archive))
        assert (target.data_dir / "review.secret").read_text() == "another one"
        assert files(target.data_dir / "pictures") == {}
        assert holds_nothing(target)

    def test_a_picture_that_is_gone_is_named_and_the_rest_is_kept(
        self, settings: Settings, target: Settings, archive: Path
    ) -> None:
        fill(settings)
        engine = connect(database_url(settings))
        with transaction(engine, write=False) as connection:
            sha256 = connection.scalar(select(interaction_pictures.c.sha256).limit(1))
        engine.dispose()
        PictureStore.open(settings).delete(str(sha256))
        assert create(settings, str(archive)).missing == (sha256,)
        assert restore(target, str(archive)).missing == (sha256,)
        assert rows(target) == rows(settings)

    def test_old_back_ups_go_and_take_what_no_other_needs(
        self, settings: Settings, target: Settings, archive: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fill(settings)
        now = datetime.now(UTC)

        class Earlier(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:
                return now - timedelta(days=10)

        monkeypatch.setattr(import_module("annotation.backup.create"), "datetime", Earlier)
        old = create(settings, str(archive)).name
        monkeypatch.undo()
        store = InteractionStore.open(settings)
        save(store)
        store.purge(now + timedelta(days=60))
        store.close()
        before = len(files(archive / "blobs"))
        made = create(settings, str(archive), keep_days=7)
        assert made.pruned == 1
        opened = Archive.open(str(archive))
        assert opened.names() == [made.name]
        assert len(files(archive / "blobs")) < before
        assert opened.damaged(opened.load(made.name)) == []
        with pytest.raises(NotFound):
            opened.find(old)
        restore(target, str(archive))
        assert rows(target) == rows(settings)

    def test_two_at_a_time_are_refused(self, settings: Settings, archive: Path) -> None:
        fill(settings)
        with Archive.open(str(archive), make=True).locked(), pytest.raises(Unavailable):
            create(settings, str(archive))

    def test_an_installation_that_never_reviewed(
        self, settings: Settings, target: Settings, archive: Path
    ) -> None:
        store = InteractionStore.open(settings)
        (id,) = save(store)
        store.close()
        create(settings, str(archive))
        restore(target, str(archive))
        store = InteractionStore.open(target)
        found = asyncio.run(store.get(id, None, include_images=True))
        store.close()
        assert len(found.output) == 3

    def test_nothing_to_restore(self, target: Settings, archive: Path) -> None:
        with pytest.raises(NotFound):
            restore(target, str(archive))
        assert not archive.exists(), "a mistyped folder is not made"
