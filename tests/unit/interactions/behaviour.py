"""What a store of interactions must do on every database: subclass `StoreBehaviour` with a `settings` fixture."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import func, inspect, select, text

from services.config import ROOT, Settings
from services.errors import ConfigurationError, InvalidInput, NotFound, Unavailable
from services.interactions import InteractionStore, new_interaction_id
from services.interactions.database import (
    INTERACTIONS,
    connect,
    current_revision,
    database_url,
    migrate,
    newest_revision,
    transaction,
)
from services.interactions.records import as_timestamp
from services.interactions.schema import feedback, interactions, metadata, pictures
from services.pb.medmax.v1 import assistant_pb2
from tests.unit.interactions.samples import PROMPT_PICTURE, interaction, random_picture


def rows(store: InteractionStore, table: object = interactions) -> int:
    with transaction(store.engine, write=False) as connection:
        return connection.scalar(select(func.count()).select_from(table))  # type: ignore[call-overload]


def stored_ids(store: InteractionStore) -> list[str]:
    with transaction(store.engine, write=False) as connection:
        return list(connection.scalars(select(interactions.c.id)))


def picture_files(settings: Settings) -> set[str]:
    return {
        path.name for path in (settings.data_dir / "pictures").glob("*/*") if path.parent.name != ".incoming"
    }


def writer(settings: Settings, count: int) -> subprocess.Popen[str]:
    given = json.dumps({"data_dir": str(settings.data_dir), "database_url": settings.database_url})
    return subprocess.Popen(
        [sys.executable, "-m", "tests.unit.interactions.writer", given, str(count)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


class StoreBehaviour:
    @pytest.fixture
    def store(self, settings: Settings) -> Iterator[InteractionStore]:
        store = InteractionStore.open(settings)
        yield store
        store.close()

    async def test_what_was_saved_is_read_back_exactly(self, store: InteractionStore) -> None:
        saved = interaction(pictures=(b"first", b"second"))
        assert await store.save(saved) == saved.id
        read = await store.get(saved.id, "radiology", include_images=True)
        age = datetime.now(UTC) - read.created_at.ToDatetime(tzinfo=UTC)
        assert timedelta(0) <= age < timedelta(minutes=1)
        lasts = read.expires_at.ToDatetime(tzinfo=UTC) - read.created_at.ToDatetime(tzinfo=UTC)
        assert lasts == timedelta(days=30)
        for image in (read.prompt[0].parts[0].image, read.output[1].image, read.output[2].image):
            assert len(image.sha256) == 64
            image.sha256 = ""
        read.ClearField("created_at")
        read.ClearField("expires_at")
        assert read == saved

    async def test_pictures_come_only_when_asked_for(self, store: InteractionStore) -> None:
        saved = interaction(pictures=(b"film",))
        await store.save(saved)
        read = await store.get(saved.id, "radiology")
        assert read.output[1].image.data == b""
        assert read.output[1].image.width == 128
        assert b"film" not in read.SerializeToString()

    async def test_an_unset_id_is_given_and_ids_sort_by_time(self, store: InteractionStore) -> None:
        unset = interaction()
        unset.id = ""
        given = await store.save(unset)
        assert (await store.get(given, "radiology")).id == given
        await asyncio.sleep(0.002)
        assert given < new_interaction_id()

    async def test_saving_an_id_again_changes_nothing(self, store: InteractionStore) -> None:
        saved = interaction("first")
        await store.save(saved)
        again = interaction("second")
        again.id = saved.id
        assert await store.save(again) == saved.id
        assert rows(store) == 1
        assert (await store.get(saved.id, "radiology")).output[0].text == "first"

    async def test_saving_one_id_from_many_tasks_stores_it_once(self, store: InteractionStore) -> None:
        saved = interaction(pictures=(b"film",))
        assert set(await asyncio.gather(*(store.save(saved) for _ in range(12)))) == {saved.id}
        assert rows(store) == 1

    async def test_another_caller_finds_nothing(self, store: InteractionStore) -> None:
        saved = interaction()
        await store.save(saved)
        with pytest.raises(NotFound, match="no such interaction"):
            await store.get(saved.id, "pathology")
        with pytest.raises(NotFound):
            await store.add_feedback(
                assistant_pb2.SubmitFeedbackRequest(interaction_id=saved.id, flag=True), "pathology"
            )
        assert (await store.get(saved.id, None)).caller == "radiology"

    @pytest.mark.parametrize(
        "wrong", ["", "int_", "int_" + "g" * 32, "fbk_" + "0" * 32, "int_0\0' OR 1=1 --"]
    )
    async def test_what_is_no_id_is_refused_with_its_field(self, store: InteractionStore, wrong: str) -> None:
        with pytest.raises(InvalidInput) as refusal:
            await store.get(wrong, "radiology")
        assert refusal.value.field == "interaction_id"

    async def test_an_unknown_id_is_not_found(self, store: InteractionStore) -> None:
        with pytest.raises(NotFound):
            await store.get(new_interaction_id(), "radiology")

    async def test_feedback_is_kept_in_order(self, store: InteractionStore) -> None:
        saved = interaction()
        await store.save(saved)
        ids = []
        for fields in (
            {"rating": 5},
            {"flag": True, "comment": "wrong side ≠ left"},
            {"corrected_text": "A nodule in the right lung."},
        ):
            request = assistant_pb2.SubmitFeedbackRequest(interaction_id=saved.id, **fields)
            ids.append(await store.add_feedback(request, "radiology"))
            await asyncio.sleep(0.002)
        kept = (await store.get(saved.id, "radiology")).feedback
        assert [each.id for each in kept] == ids
        assert [each.rating for each in kept] == [5, 0, 0]
        assert [each.HasField("rating") for each in kept] == [True, False, False]
        assert kept[1].flag
        assert kept[1].comment == "wrong side ≠ left"
        assert kept[2].corrected_text == "A nodule in the right lung."
        assert {each.caller for each in kept} == {"radiology"}

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({}, "rating"),
            ({"rating": 0}, "rating"),
            ({"rating": 6}, "rating"),
            ({"comment": "x" * 4001}, "comment"),
            ({"comment": "a\0b"}, "comment"),
            ({"corrected_text": "x" * 16001}, "corrected_text"),
        ],
    )
    async def test_senseless_feedback_is_refused_with_its_field(
        self, store: InteractionStore, fields: dict[str, object], field: str
    ) -> None:
        saved = interaction()
        await store.save(saved)
        request = assistant_pb2.SubmitFeedbackRequest(interaction_id=saved.id, **fields)  # type: ignore[arg-type]
        with pytest.raises(InvalidInput) as refusal:
            await store.add_feedback(request, "radiology")
        assert refusal.value.field == field
        assert rows(store, feedback) == 0

    async def test_expiry_is_at_most_the_installations(self, store: InteractionStore) -> None:
        now = datetime.now(UTC)
        long = interaction(created_at=as_timestamp(now), expires_at=as_timestamp(now + timedelta(days=900)))
        short = interaction(created_at=as_timestamp(now), expires_at=as_timestamp(now + timedelta(days=2)))
        for each, days in ((long, 30), (short, 2)):
            await store.save(each)
            read = await store.get(each.id, "radiology")
            assert read.expires_at.ToDatetime(tzinfo=UTC) == now + timedelta(days=days)

    async def test_what_has_expired_is_not_shown_even_before_a_purge(self, store: InteractionStore) -> None:
        long_ago = as_timestamp(datetime.now(UTC) - timedelta(days=31))
        saved = interaction(created_at=long_ago)
        await store.save(saved)
        assert rows(store) == 1
        with pytest.raises(NotFound):
            await store.get(saved.id, "radiology")
        with pytest.raises(NotFound):
            await store.add_feedback(
                assistant_pb2.SubmitFeedbackRequest(interaction_id=saved.id, rating=1), "radiology"
            )

    async def test_purge_deletes_what_expired_and_the_pictures_only_it_needed(
        self, store: InteractionStore, settings: Settings
    ) -> None:
        now = datetime.now(UTC)
        tomorrow = as_timestamp(now + timedelta(days=1))
        goes = interaction(pictures=(b"goes", b"shared"), expires_at=tomorrow)
        stays = interaction(pictures=(b"stays", b"shared"))
        for each in (goes, stays):
            await store.save(each)
            await store.add_feedback(
                assistant_pb2.SubmitFeedbackRequest(interaction_id=each.id, rating=4), "radiology"
            )
        assert store.purge(now).interactions == 0

        later = now + timedelta(days=2)
        expected = {"interactions": 1, "feedback": 1, "pictures": 1, "picture_bytes": 4}
        counted = store.purge(later, dry_run=True).to_json()
        assert counted == {**expected, "unfinished_files": 0, "dry_run": True}
        assert rows(store) == 2
        assert store.purge(later).to_json() == {**expected, "unfinished_files": 0, "dry_run": False}
        assert store.purge(later).interactions == 0

        read = await store.get(stays.id, "radiology", include_images=True)
        assert [part.image.data for part in read.output[1:]] == [b"stays", b"shared"]
        assert read.prompt[0].parts[0].image.data == PROMPT_PICTURE
        assert len(picture_files(settings)) == rows(store, pictures) == 3
        assert rows(store, feedback) == 1

    async def test_purge_takes_more_than_one_batch(self, store: InteractionStore) -> None:
        await store.save(interaction())
        with transaction(store.engine) as connection:
            row = dict(connection.execute(select(interactions)).mappings().one())
            connection.execute(
                interactions.insert(), [{**row, "id": new_interaction_id()} for _ in range(450)]
            )
        assert store.purge(datetime.now(UTC) + timedelta(days=31)).interactions == 451
        assert rows(store) == 0

    async def test_a_picture_on_its_way_survives_a_purge(
        self, store: InteractionStore, settings: Settings
    ) -> None:
        gone, film = interaction(pictures=(b"film",)), interaction(pictures=(b"film",))
        soon = datetime.now(UTC) + timedelta(milliseconds=1)
        gone.expires_at.CopyFrom(as_timestamp(soon))
        await store.save(gone)
        purged = store.purge(datetime.now(UTC) + timedelta(seconds=1))
        assert (purged.interactions, purged.pictures) == (1, 0)
        await store.save(film)
        assert store.purge(datetime.now(UTC) + timedelta(days=1)).pictures == 0
        read = await store.get(film.id, "radiology", include_images=True)
        assert read.output[1].image.data == b"film"

    async def test_saving_a_picture_while_a_purge_deletes_it_loses_nothing(
        self, store: InteractionStore
    ) -> None:
        long_ago = datetime.now(UTC) - timedelta(days=40)
        for turn in range(20):
            film = b"film %d" % turn
            await store.save(interaction(pictures=(film,), created_at=as_timestamp(long_ago)))
            with transaction(store.engine) as connection:
                connection.execute(pictures.update().values(used_at=long_ago))
            saves = [store.save(interaction(pictures=(film,))) for _ in range(3)]
            _, *saved = await asyncio.gather(asyncio.to_thread(store.purge), *saves)
            for each in saved:
                read = await store.get(each, "radiology", include_images=True)
                assert read.output[1].image.data == film

    def test_processes_that_start_and_save_at_once_lose_and_double_nothing(self, settings: Settings) -> None:
        """Also the race for the first migration: nobody has opened this database before."""
        processes = [writer(settings, 24) for _ in range(3)]
        acknowledged = [line for each in processes for line in each.communicate(timeout=120)[0].split()]
        assert [each.returncode for each in processes] == [0, 0, 0]
        store = InteractionStore.open(settings)
        try:
            assert sorted(stored_ids(store)) == sorted(acknowledged)
            assert len(acknowledged) == 72
        finally:
            store.close()

    @pytest.mark.parametrize("after", [1, 17, 40])
    async def test_a_killed_writer_leaves_everything_it_acknowledged(
        self, settings: Settings, after: int
    ) -> None:
        process = writer(settings, 100_000)
        assert process.stdout is not None
        acknowledged = [process.stdout.readline().strip() for _ in range(after)]
        process.kill()
        acknowledged += process.stdout.read().split()
        process.wait()
        store = InteractionStore.open(settings)
        try:
            kept = stored_ids(store)
            assert set(acknowledged) <= set(kept)
            # Four threads: at most that many were stored without a chance to say so.
            assert len(kept) <= len(acknowledged) + 4
            assert len(kept) == len(set(kept))
            needed = set()
            for each in kept:
                read = await store.get(each, "radiology", include_images=True)
                assert read.output[1].image.data
                needed |= {read.output[1].image.sha256, read.prompt[0].parts[0].image.sha256}
            store.purge(datetime.now(UTC) + timedelta(days=1))
            assert picture_files(settings) == needed
            assert not list((settings.data_dir / "pictures" / ".incoming").iterdir())
        finally:
            store.close()

    def test_migrations_arrive_at_the_tables_of_the_program(self, store: InteractionStore) -> None:
        with store.engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, metadata) == []

    def test_migrations_go_down_to_nothing_and_up_again(self, settings: Settings) -> None:
        engine = connect(database_url(settings))
        assert current_revision(engine) is None
        migrate(engine)
        assert current_revision(engine) == newest_revision()
        with transaction(engine) as connection:
            config = INTERACTIONS.config()
            config.attributes["connection"] = connection
            command.downgrade(config, "base")
        assert inspect(engine).get_table_names() == ["alembic_version"]
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda _: migrate(engine), range(4)))
        assert set(inspect(engine).get_table_names()) == {*metadata.tables, "alembic_version"}
        engine.dispose()

    def test_a_database_from_a_newer_program_is_refused(self, settings: Settings) -> None:
        store = InteractionStore.open(settings)
        with transaction(store.engine) as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        store.close()
        with pytest.raises(ConfigurationError, match="newer version"):
            InteractionStore.open(settings)

    async def test_health_is_good_while_all_is_well(self, store: InteractionStore) -> None:
        await store.check_health()
        store.pictures.probe()

    async def test_a_closed_store_is_unavailable(self, settings: Settings) -> None:
        store = InteractionStore.open(settings)
        saving = [
            asyncio.create_task(store.save(interaction(pictures=(random_picture(),)))) for _ in range(8)
        ]
        await asyncio.sleep(0)
        await asyncio.to_thread(store.close)
        assert len(set(await asyncio.gather(*saving))) == 8
        with pytest.raises(Unavailable):
            await store.save(interaction())

    def test_the_store_keeps_pictures_private(self, store: InteractionStore, settings: Settings) -> None:
        asyncio.run(store.save(interaction(pictures=(b"film",))))
        for path in [settings.data_dir, *settings.data_dir.rglob("*")]:
            assert path.stat().st_mode & 0o077 == 0, path
