"""What the review loop's store must do on every database: subclass with a `settings` fixture (a migrated database)."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import delete, func, inspect, select, update

from annotation.core import Decision, Kind, Reason
from annotation.routing.score import SIGNS
from annotation.store import REVIEW, Because, Event, NotAllowed, Recorded, ReviewStore, State, Status, What
from annotation.store import schema as tables
from annotation.store.candidates import Columns
from annotation.store.figures import Throughput
from annotation.store.progress import Calibration
from services.config import ROOT, Settings
from services.errors import ConfigurationError, InvalidInput, NotFound, PayloadTooLarge
from services.interactions.database import current_revision, migrate, newest_revision, transaction
from services.interactions.schema import interactions
from tests.unit.review.controller import STEPS
from tests.unit.review.samples import (
    ACCEPT,
    EDIT,
    FILM,
    REPORT,
    Clock,
    annotation,
    answered,
    candidates,
    item,
    judgement,
    publish,
    purge_interactions,
    routed,
    said,
    state,
)


def id_of(key: str) -> str:
    return key.partition(":")[2]


def everything(store: ReviewStore) -> str:
    """Every value in the review loop's tables."""
    with transaction(store.engine, write=False) as connection:
        return repr([connection.execute(select(table)).all() for table in tables.metadata.sorted_tables])


def controller(settings: Settings) -> subprocess.Popen[str]:
    given = json.dumps({"data_dir": str(settings.data_dir), "database_url": settings.database_url})
    return subprocess.Popen(
        [sys.executable, "-m", "tests.unit.review.controller", given],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def judged(store: ReviewStore, clock: Clock, **fields: object) -> str:
    (key,) = publish(store, **fields)
    store.annotations.record(annotation(id_of(key), "7", clock()))
    assert store.judgements.save(judgement(store, key), store.items.get(key).revision)
    return key


class ReviewBehaviour:
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def store(self, settings: Settings, clock: Clock) -> Iterator[ReviewStore]:
        store = ReviewStore.open(settings, clock)
        yield store
        store.close()

    # Routing

    def test_candidates_are_what_has_consent_lasts_and_was_not_routed(self, store: ReviewStore) -> None:
        kept = answered(store, 3)
        answered(store, consent_training=False)
        answered(store, age=timedelta(days=31))
        (gone,) = answered(store)
        store.items.route([routed(gone)])
        found = candidates(store)
        assert [each.interaction_id for each in found] == sorted(kept)
        first = found[0]
        assert (first.task, first.kind, first.mode, first.reason) == ("vqa", Kind.CHAT, "interleaved", "stop")
        assert (first.prompt_images, first.output_images, first.tokens, first.characters) == (1, 0, 9, 8)
        assert first.mean_logprob == -0.1234567890123456
        assert first.min_logprob == float("-inf")
        assert first.mean_entropy == 0.25
        assert len({each.digest for each in found}) == 3
        later = store.candidates.columns(since=datetime.now(UTC) + timedelta(minutes=1))
        assert not list(later)

    def test_columns_say_what_rows_say_whatever_the_pages(self, store: ReviewStore) -> None:
        answered(store, 5)
        answered(store, 2, caller='"Ward" \\7,\n{b}')
        rows = candidates(store)
        assert store.resamples.put(rows[0].interaction_id, 0.75, 4)
        store.items.route([replace(routed(rows[1].interaction_id), digest=rows[1].digest)])
        with transaction(store.engine) as connection:
            own = interactions.update().where(interactions.c.id == rows[2].interaction_id)
            connection.execute(own.values(digest=rows[1].digest, mean_logprob=None, min_logprob=None))
        rows = candidates(store)
        for size in (1, 4, 100):
            pages = store.candidates.columns(size=size)
            columns = [each for page in pages for each in zip(*page, strict=True)]
            found = [dict(zip(Columns._fields, each, strict=True)) for each in columns]
            assert [each.pop("repeats") for each in found] == [row.digest == rows[1].digest for row in rows]
            assert not any(each.pop("flagged") for each in found)
            assert len(found) == 6
            for each, row in zip(found, rows, strict=True):
                made_at = datetime.fromisoformat(each.pop("created_at")).replace(tzinfo=UTC)
                assert made_at == row.created_at
                signs = {name: each.pop(name) for name in SIGNS}
                assert {name: None if value is None else float(value) for name, value in signs.items()} == {
                    name: getattr(row, name) for name in SIGNS
                }
                assert each == {name: getattr(row, name) for name in each}

    def test_a_user_who_flags_or_corrects_is_heard(self, store: ReviewStore) -> None:
        flagged, corrected, praised, silent = sorted(answered(store, 4))
        said(store, flagged, rating=4)
        said(store, flagged, flag=True, rating=2)
        said(store, corrected, corrected_text="right lung")
        said(store, praised, rating=5, comment="good")
        (page,) = store.candidates.columns()
        heard = dict(zip(page.interaction_id, page.flagged, strict=True))
        assert heard == {flagged: True, corrected: True, praised: False, silent: False}

    def test_routing_twice_or_at_once_takes_an_interaction_once(self, store: ReviewStore) -> None:
        chosen = [routed(each) for each in answered(store, 20)]
        with ThreadPoolExecutor(3) as threads:
            new = list(threads.map(lambda _: store.items.route(chosen), range(3)))
        assert sorted(key for keys in new for key in keys) == sorted(
            f"chat:{x.interaction_id}" for x in chosen
        )
        assert store.items.route(chosen) == []
        assert store.figures.counts() == {State.ROUTED: {Kind.CHAT: 20}}
        assert store.figures.spent() == {(Reason.RISK, Kind.CHAT, "general"): 20}
        assert store.figures.spent(datetime.now(UTC).date() - timedelta(days=2)) == {}

    def test_an_interaction_that_is_gone_is_not_routed(self, store: ReviewStore) -> None:
        (there,) = answered(store)
        assert store.items.route([routed("int_" + "0" * 32), routed(there)]) == [f"chat:{there}"]

    @pytest.mark.parametrize(
        "wrong", [{"risk": 1.5}, {"risk": float("nan")}, {"wanted": 0}, {"reason": Reason.GOLD}]
    )
    def test_senseless_choices_are_refused(self, store: ReviewStore, wrong: dict[str, object]) -> None:
        with pytest.raises(InvalidInput):
            store.items.route([routed(answered(store)[0], **wrong)])

    def test_duplicates_are_known_by_their_digest(self, store: ReviewStore) -> None:
        (one,) = answered(store)
        store.items.route([routed(one, digest="aa")])
        assert store.items.sent_digests(["aa", "bb", ""]) == {(Kind.CHAT, "aa"): one}

    # From routed to built

    def test_an_item_goes_all_the_way_and_every_step_is_on_record(
        self, store: ReviewStore, clock: Clock
    ) -> None:
        (key,) = publish(store, wanted=2, speciality="chest", weight=50.0)
        given = [annotation(id_of(key), name, clock()) for name in ("7", "8")]
        assert store.annotations.record(given[0]) is Recorded.NEW
        assert state(store, key) is State.PUBLISHED
        assert store.annotations.record(given[1]) is Recorded.NEW
        assert state(store, key) is State.COLLECTED
        assert sorted(store.annotations.of(key), key=lambda each: each.annotator) == given
        decided = judgement(store, key)
        assert store.judgements.save(decided, store.items.get(key).revision)
        ((entry, read),) = store.judgements.to_build()
        assert read == decided
        assert (read.item.speciality, read.item.risk, read.item.reason) == ("chest", 0.5, Reason.RISK)
        assert entry.weight == 50.0
        assert store.versions.built("v1", [(key, entry.revision)], path="data/v1") == []
        assert state(store, key) is State.BUILT
        assert store.judgements.to_build() == []
        assert [each.key for each, _ in store.judgements.standing()] == [key]
        moves = [each.after["state"] for each in store.audit.of(key) if each.what == "move"]
        assert moves == ["cleaned", "published", "collected", "judged", "built"]
        assert store.audit.verify().broken_at is None

    def test_repeated_steps_change_nothing(self, store: ReviewStore, clock: Clock) -> None:
        (one,) = answered(store)
        (key,) = store.items.route([routed(one)])
        steps = [
            lambda: store.items.clean(key, item(one), REPORT),
            lambda: store.items.publish(key, 1, 5),
            lambda: store.annotations.record(annotation(one, "7", clock(), number=9)),
            lambda: store.judgements.save(judgement(store, key), store.items.get(key).revision),
            lambda: store.versions.built("v1", [(key, store.items.get(key).revision)], path="p"),
        ]
        for step in steps:
            step()
            before = everything(store)
            step()
            assert everything(store) == before

    def test_moves_that_are_not_in_the_table_are_refused(self, store: ReviewStore) -> None:
        (one,) = answered(store)
        (key,) = store.items.route([routed(one)])
        with pytest.raises(NotAllowed, match="routed cannot become published"):
            store.items.publish(key, 1, 5)
        with pytest.raises(NotAllowed):
            store.annotations.record(annotation(one, "7", store.ledger.clock()))
        store.items.clean(key, item(one), REPORT)
        store.items.publish(key, 1, 5)
        with pytest.raises(NotAllowed, match="another task"):
            store.items.publish(key, 1, 6)
        (other,) = store.items.route([routed(each) for each in answered(store)])
        store.items.clean(other, item(id_of(other)), REPORT)
        with pytest.raises(NotAllowed, match="another item"):
            store.items.publish(other, 1, 5)
        with pytest.raises(NotAllowed):
            store.items.hold(key, REPORT)
        with pytest.raises(NotFound):
            store.items.publish("chat:unknown", 1, 7)

    def test_a_held_item_keeps_only_the_report_until_a_person_releases_it(self, store: ReviewStore) -> None:
        (one,) = answered(store)
        (key,) = store.items.route([routed(one)])
        assert store.items.hold(key, {"doubt": "burned-in text"}) is State.HELD
        assert store.items.report(key) == {"doubt": "burned-in text"}
        with pytest.raises(NotFound):
            store.items.load(key)
        assert store.items.clean(key, item(one), REPORT, who="dr-9") is State.CLEANED
        assert store.items.report(key) == REPORT
        assert store.audit.of(key)[-1].who == "dr-9"

    def test_a_cleaned_item_comes_back_with_its_pictures(self, store: ReviewStore) -> None:
        (key,) = publish(store)
        loaded = store.items.load(key, pictures=True)
        assert loaded == item(id_of(key), risk=0.5, reason=Reason.RISK)
        assert loaded.pictures[0].data == FILM
        assert store.items.load(key).pictures[0].data is None
        with pytest.raises(InvalidInput, match="without bytes"):
            store.items.clean(key, store.items.load(key), REPORT)

    def test_a_verdict_that_came_before_its_publication_was_noted_counts(
        self, store: ReviewStore, clock: Clock
    ) -> None:
        """The controller was killed between making the task and saying so."""
        (one,) = answered(store)
        (key,) = store.items.route([routed(one)])
        store.items.clean(key, item(one), REPORT)
        store.annotations.record(annotation(one, "7", clock()))
        assert store.items.publish(key, 1, 5) is State.COLLECTED

    def test_a_verdict_changed_after_judgement_is_judged_and_built_again(
        self, store: ReviewStore, clock: Clock
    ) -> None:
        key = judged(store, clock)
        revision = store.items.get(key).revision
        first = store.annotations.of(key)[0]
        clock.forward(minutes=1)
        later = annotation(id_of(key), "7", clock(), ACCEPT)
        assert store.annotations.record(later) is Recorded.CHANGED
        assert state(store, key) is State.COLLECTED
        assert store.annotations.record(first) is Recorded.UNCHANGED
        assert store.annotations.history(first.id) == [EDIT, ACCEPT]
        # The version on disk was made before the change.
        assert store.versions.built("v1", [(key, revision)], path="p") == [key]
        assert state(store, key) is State.COLLECTED
        assert store.versions.containing([key]) == {key: ["v1"]}
        assert store.judgements.save(judgement(store, key, ACCEPT), store.items.get(key).revision)
        ((entry, now),) = store.judgements.to_build()
        assert now.verdict == ACCEPT
        assert store.versions.built("v2", [(key, entry.revision)], path="p", parent="v1") == []
        assert state(store, key) is State.BUILT

    def test_a_decision_on_outdated_evidence_is_refused(self, store: ReviewStore, clock: Clock) -> None:
        (key,) = publish(store)
        store.annotations.record(annotation(id_of(key), "7", clock()))
        decided, revision = judgement(store, key), store.items.get(key).revision
        clock.forward(minutes=1)
        store.annotations.record(annotation(id_of(key), "7", clock(), ACCEPT))
        for decide in (
            lambda: store.judgements.save(decided, revision),
            lambda: store.judgements.adjudicate(key, revision),
            lambda: store.judgements.need_more(key, revision),
        ):
            with pytest.raises(NotAllowed, match="meanwhile"):
                decide()
        assert state(store, key) is State.COLLECTED

    def test_two_controllers_that_judge_at_once_judge_once(self, store: ReviewStore, clock: Clock) -> None:
        (key,) = publish(store)
        store.annotations.record(annotation(id_of(key), "7", clock()))
        decided, revision = judgement(store, key), store.items.get(key).revision
        with ThreadPoolExecutor(4) as threads:
            did = list(threads.map(lambda _: store.judgements.save(decided, revision), range(4)))
        assert sorted(did) == [False, False, False, True]

    def test_more_experts_and_adjudicators_are_asked_for(self, store: ReviewStore, clock: Clock) -> None:
        (key,) = publish(store, wanted=2)
        for name in ("7", "8"):
            store.annotations.record(annotation(id_of(key), name, clock()))
        assert store.judgements.need_more(key, store.items.get(key).revision)
        assert (state(store, key), store.items.get(key).wanted) == (State.PUBLISHED, 3)
        store.annotations.record(annotation(id_of(key), "9", clock(), ACCEPT))
        assert store.judgements.adjudicate(key, store.items.get(key).revision)
        assert state(store, key) is State.ADJUDICATION

    def test_a_deleted_verdict_makes_room_for_another(self, store: ReviewStore, clock: Clock) -> None:
        (key,) = publish(store, wanted=2)
        first, second = (annotation(id_of(key), name, clock()) for name in ("7", "8"))
        for each in (first, second):
            store.annotations.record(each)
        assert store.annotations.remove(second.id)
        assert not store.annotations.remove(second.id)
        assert not store.annotations.remove("1:404")
        assert store.annotations.of(key) == [first]
        assert (state(store, key), store.items.get(key).taken) == (State.PUBLISHED, 1)

    @pytest.mark.parametrize(
        ("wrong", "error"),
        [
            ({"id": "1:2 Anna"}, InvalidInput),
            ({"annotator": "anna@example.org"}, InvalidInput),
            ({"item_id": "unknown"}, NotFound),
        ],
    )
    def test_senseless_annotations_are_refused(
        self, store: ReviewStore, clock: Clock, wrong: dict[str, str], error: type[Exception]
    ) -> None:
        (key,) = publish(store)
        with pytest.raises(error):
            store.annotations.record(replace(annotation(id_of(key), "7", clock()), **wrong))  # type: ignore[arg-type]

    def test_a_verdict_of_too_many_bytes_is_refused(self, store: ReviewStore, clock: Clock) -> None:
        (key,) = publish(store)
        mask = replace(EDIT.regions[0], mask=bytes(13 * 2**20))
        with pytest.raises(PayloadTooLarge):
            store.annotations.record(annotation(id_of(key), "7", clock(), replace(EDIT, regions=(mask,))))
        nowhere = replace(EDIT.regions[0], x=float("nan"))
        with pytest.raises(InvalidInput, match="finite"):
            store.annotations.record(annotation(id_of(key), "7", clock(), replace(EDIT, regions=(nowhere,))))

    # Gold

    def test_the_verdict_of_a_gold_item_is_in_nothing_that_is_exported(
        self, store: ReviewStore, clock: Clock
    ) -> None:
        key = store.items.add_gold(item("gold-1", reason=Reason.GOLD, gold=EDIT), "dr-9")
        assert store.items.add_gold(item("gold-1", reason=Reason.GOLD, gold=ACCEPT), "dr-9") == key
        assert store.items.load(key).gold is None
        assert store.items.gold_verdict(key) == EDIT
        store.items.publish(key, 1, 5)
        store.annotations.record(annotation("gold-1", "7", clock()))
        assert state(store, key) is State.PUBLISHED
        with pytest.raises(InvalidInput, match="gold"):
            store.versions.built("v1", [(key, store.items.get(key).revision)], path="p")
        assert store.versions.all(What.DATA) == []
        assert EDIT.text not in repr([store.items.load(key), store.items.get(key), store.audit.of(key)])
        (other,) = publish(store)
        with pytest.raises(NotFound):
            store.items.gold_verdict(other)
        (entry,) = store.items.gold_page()
        assert (entry.key, entry.gold) == (key, True)
        assert store.items.gold_page(entry) == []
        assert not list(store.candidates.columns())

    # Withdrawal and retention

    def test_what_is_withdrawn_is_gone_and_the_versions_that_hold_it_are_named(
        self, store: ReviewStore, settings: Settings, clock: Clock
    ) -> None:
        key = judged(store, clock)
        store.versions.built("v1", [(key, store.items.get(key).revision)], path="p")
        other = judged(store, clock)
        assert "right lung" in everything(store)
        clock.forward(days=29)
        assert store.retention.sweep().withdrawn == 0
        clock.forward(days=2)
        swept = store.retention.sweep()
        assert (swept.withdrawn, swept.pictures, swept.versions) == (2, 1, {"v1": 1})
        assert [store.items.get(each).because for each in (key, other)] == [Because.EXPIRED] * 2
        assert store.versions.withdrawn_in("v1") == [key]
        left = everything(store)
        assert "lung" not in left
        assert "What is shown" not in left
        assert not list((settings.data_dir / "pictures" / "review").glob("??/*"))
        assert store.retention.sweep().withdrawn == 0
        assert store.audit.verify().broken_at is None

    def test_a_purge_that_knows_nothing_of_reviews_takes_the_texts_with_it(
        self, store: ReviewStore, settings: Settings, clock: Clock
    ) -> None:
        (key,) = publish(store)
        (early,) = store.items.route([routed(each) for each in answered(store)])
        assert purge_interactions(store, settings, clock() + timedelta(days=31)) == 2
        assert "What is shown" not in everything(store)
        with pytest.raises(NotFound):
            store.items.load(key)
        assert store.items.clean(early, item(id_of(early)), REPORT) is State.WITHDRAWN
        assert store.retention.sweep().withdrawn == 1
        assert state(store, key) is State.WITHDRAWN
        assert [each.key for each in store.items.withdrawn_tasks()] == [key]
        assert store.items.task_gone(key) is State.WITHDRAWN
        assert store.items.withdrawn_tasks() == []

    def test_withdrawn_consent_is_followed(self, store: ReviewStore) -> None:
        key, other = publish(store, 2)
        with transaction(store.engine) as connection:
            connection.execute(
                update(interactions).where(interactions.c.id == id_of(key)).values(consent_training=False)
            )
        assert store.retention.sweep().withdrawn == 1
        assert store.items.get(key).because == Because.CONSENT
        assert state(store, other) is State.PUBLISHED

    def test_an_item_withdrawn_while_it_is_published_leaves_its_task_to_be_deleted(
        self, store: ReviewStore, clock: Clock
    ) -> None:
        (one,) = answered(store)
        (key,) = store.items.route([routed(one)])
        store.items.clean(key, item(one), REPORT)
        assert store.items.withdraw(key, Because.REFUSED)
        assert not store.items.withdraw(key, Because.REFUSED)
        assert store.items.publish(key, 1, 5) is State.WITHDRAWN
        assert [each.ls_task for each in store.items.withdrawn_tasks()] == [5]
        assert store.annotations.record(annotation(one, "7", clock())) is Recorded.IGNORED
        assert EDIT.text not in everything(store)

    def test_a_task_that_a_person_deleted_ends_its_item_unless_it_was_judged(
        self, store: ReviewStore, clock: Clock
    ) -> None:
        done = judged(store, clock)
        (open_,) = publish(store)
        task = store.items.get(open_).ls_task
        assert task is not None
        assert store.items.by_task(1, task) == store.items.get(open_)
        assert store.items.by_task(2, task) is None
        assert store.items.task_gone(open_) is State.WITHDRAWN
        assert store.items.get(open_).because == Because.DELETED
        assert store.items.task_gone(done) is State.JUDGED
        assert store.items.get(done).ls_task is None
        assert store.judgements.current(done).verdict == EDIT

    # The webhook's inbox

    def test_an_event_waits_until_it_is_processed_and_again_when_it_comes_again(
        self, store: ReviewStore
    ) -> None:
        event = Event("ANNOTATION_UPDATED", 1, 5, 9)
        store.inbox.add([event, event])
        store.inbox.add([event, Event("ANNOTATION_CREATED", 1, 6, 10)])
        first, second = store.inbox.waiting()
        assert (first.event, first.arrivals) == (event, 2)
        store.inbox.add([event])  # while it is processed
        assert not store.inbox.done(first)
        store.inbox.failed(second, "unavailable")
        assert store.figures.inbox() == (2, 1)
        assert [each.event for each in store.inbox.waiting()] == [event, second.event]
        assert all(store.inbox.done(each) for each in store.inbox.waiting())
        assert store.inbox.waiting() == []
        store.inbox.add([event])
        assert [each.event for each in store.inbox.waiting()] == [event]

    @pytest.mark.parametrize(
        "wrong", [Event("x y", 1), Event("A", 0), Event("A", 1, 2**31), Event("A" * 65, 1)]
    )
    def test_senseless_events_are_refused(self, store: ReviewStore, wrong: Event) -> None:
        with pytest.raises(InvalidInput):
            store.inbox.add([wrong])

    # Versions, progress, figures

    def test_one_model_serves_at_a_time_and_the_reasons_are_kept(self, store: ReviewStore) -> None:
        for name in ("m1", "m2", "m3"):
            assert store.versions.candidate(name, path=f"models/{name}", parent="v1")
            assert not store.versions.candidate(name, path=f"models/{name}", parent="v1")
        assert store.versions.decide("m1", Status.PROMOTED, "vqa +4 points", {"vqa": 91.5})
        assert not store.versions.decide("m1", Status.PROMOTED, "again")
        assert store.versions.decide("m2", Status.REFUSED, "captions -3 points")
        assert store.versions.decide("m3", Status.PROMOTED, "vqa +1 point")
        serving = store.versions.serving()
        assert serving is not None
        assert serving.id == "m3"
        assert store.versions.get("m1").status is Status.RETIRED
        assert store.versions.get("m1").scores == {"vqa": 91.5}
        assert store.versions.get("m2").why == "captions -3 points"
        with pytest.raises(NotAllowed):
            store.versions.decide("m2", Status.PROMOTED, "on second thoughts")
        assert store.versions.decide("m1", Status.PROMOTED, "back")
        assert [each.id for each in store.versions.all(What.MODEL) if each.status is Status.PROMOTED] == [
            "m1"
        ]

    def test_a_step_belongs_to_one_controller_until_its_lease_is_over(
        self, store: ReviewStore, clock: Clock
    ) -> None:
        lease = timedelta(minutes=5)
        assert store.progress.begin("judge", "a", lease)
        assert not store.progress.begin("judge", "b", lease)
        clock.forward(minutes=4)
        assert store.progress.begin("judge", "a", lease)
        clock.forward(minutes=6)
        assert store.progress.begin("judge", "b", lease)
        assert not store.progress.finish("judge", "a", done=3)
        assert store.progress.finish("judge", "b", done=5, failed=1, error="unavailable")
        step = store.progress.steps()["judge"]
        assert (step.holder, step.done, step.failed, step.error) == ("", 5, 1, "unavailable")
        assert store.progress.begin("judge", "a", lease)

    def test_cursors_and_calibrations_are_kept(self, store: ReviewStore, clock: Clock) -> None:
        assert store.progress.cursor("reconcile") is None
        for value in ({"after": 5}, ["x", None]):
            store.progress.set_cursor("reconcile", value)
            assert store.progress.cursor("reconcile") == value
        assert store.progress.calibration() is None
        for ece in (None, 0.02):
            fitted = Calibration(clock(), "isotonic", {"x": [0.1]}, ece, 40)
            store.progress.calibrate(fitted)
            assert store.progress.calibration() == fitted

    def test_figures_say_what_waits_where_and_how_much_gets_done(
        self, store: ReviewStore, clock: Clock
    ) -> None:
        begin = clock()
        judged(store, clock)
        clock.forward(hours=1)
        publish(store, 2)
        (gold,) = [store.items.add_gold(item("gold-1", reason=Reason.GOLD, gold=EDIT), "dr-9")]
        assert store.figures.counts() == {
            State.JUDGED: {Kind.CHAT: 1},
            State.PUBLISHED: {Kind.CHAT: 2},
            State.CLEANED: {Kind.CHAT: 1},
        }
        assert store.figures.oldest() == {State.JUDGED: begin, State.PUBLISHED: clock()}
        assert [each.key for each in store.items.page(State.CLEANED)] == [gold]
        first, *_ = pages = store.items.page(State.PUBLISHED, limit=1)
        assert len(pages) == 1
        assert [each.key for each in store.items.page(State.PUBLISHED, first)] != [first.key]
        assert store.figures.decisions() == {"chest_xray": {Decision.EDIT: 1}}
        assert store.figures.agreement() == {begin.date(): 1.0}
        workload = store.figures.workloads()["7"]
        assert (workload.held, workload.done, workload.seconds) == (0, 1, 12.5)
        days = store.figures.throughput(days=3)
        assert len(days) == 3
        total = Throughput(
            *(
                sum(getattr(day, name) for day in days.values())
                for name in ("routed", "annotations", "judged")
            )
        )
        assert total == Throughput(routed=4, annotations=1, judged=1)

    # Audit

    @pytest.mark.parametrize("harm", ["change", "remove", "cut", "words", "rewrite"])
    def test_an_audit_that_somebody_changed_is_noticed(
        self, store: ReviewStore, clock: Clock, harm: str
    ) -> None:
        key = judged(store, clock)
        store.versions.built("v1", [(key, store.items.get(key).revision)], path="p")
        kept = store.audit.head()
        entries = store.audit.verify().entries
        assert entries == kept.number > 6
        audit = tables.audit
        with transaction(store.engine) as connection:
            if harm == "change":
                connection.execute(update(audit).where(audit.c.number == 3).values(who="somebody"))
            elif harm == "words":
                connection.execute(update(audit).where(audit.c.number == 3).values(after={"x": "two words"}))
            elif harm == "remove":
                connection.execute(delete(audit).where(audit.c.number == 3))
            else:
                last = connection.execute(select(audit).where(audit.c.number == 2)).one()
                connection.execute(delete(audit).where(audit.c.number > 2))
                if harm == "rewrite":
                    connection.execute(update(tables.audit_head).values(number=2, hash=last.hash))
        assert store.audit.verify().broken_at == 3
        assert store.audit.verify([kept]).broken_at == 3

    def test_an_audit_rewritten_whole_is_noticed_by_a_head_kept_elsewhere(self, store: ReviewStore) -> None:
        publish(store)
        kept = store.audit.head()
        with transaction(store.engine) as connection:
            connection.execute(delete(tables.audit))
            connection.execute(update(tables.audit_head).values(number=0, hash="0" * 64))
        publish(store)
        assert store.audit.verify().broken_at is None
        assert store.audit.verify([kept]).broken_at is not None

    def test_the_audit_takes_no_sentences(self, store: ReviewStore) -> None:
        with pytest.raises(ValueError, match="single words"), store.ledger.change("dr-9") as change:
            change.note("move", "chat:x", {}, {"why": "the patient Anna"})

    # Several at once, and the schema

    def test_changes_of_many_threads_make_one_chain(self, store: ReviewStore, clock: Clock) -> None:
        keys = publish(store, 6, wanted=3)
        barrier = threading.Barrier(4)

        def annotate(name: str) -> None:
            barrier.wait()
            for key in keys:
                store.annotations.record(annotation(id_of(key), name, clock()))

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(annotate, ("5", "6", "7", "8")))
        assert {state(store, key) for key in keys} == {State.COLLECTED}
        assert [store.items.get(key).taken for key in keys] == [4] * 6
        assert store.audit.verify().broken_at is None

    @pytest.mark.parametrize("after", [7, 22])
    def test_a_killed_controller_leaves_what_it_said_and_the_next_one_goes_on(
        self, store: ReviewStore, settings: Settings, after: int
    ) -> None:
        keys = sorted(f"chat:{each}" for each in answered(store, 6))
        killed = controller(settings)
        assert killed.stdout is not None
        lines = [killed.stdout.readline() for _ in range(after)]
        killed.kill()
        lines += killed.communicate()[0].splitlines()
        for key, reached in (line.split() for line in lines):
            assert STEPS.index(state(store, key)) >= STEPS.index(State(reached))
        assert store.audit.verify().broken_at is None
        assert controller(settings).wait(timeout=120) == 0
        assert {key: state(store, key) for key in keys} == dict.fromkeys(keys, State.BUILT)
        assert all(len(versions) == 1 for versions in store.versions.containing(keys).values())
        assert all(len(store.annotations.of(key)) == 1 for key in keys)
        for key in keys:
            moves = [each.after["state"] for each in store.audit.of(key) if each.what == "move"]
            assert moves == [each.value for each in STEPS[1:]]
        assert store.audit.verify().broken_at is None

    def test_migrations_arrive_at_the_tables_of_the_program(self, store: ReviewStore) -> None:
        options = {
            "compare_type": True,
            "version_table": REVIEW.table,
            "include_name": lambda name, kind, _: kind != "table" or str(name).startswith("review_"),
        }
        with store.engine.connect() as connection:
            context = MigrationContext.configure(connection, opts=options)
            assert compare_metadata(context, tables.metadata) == []

    def test_migrations_go_down_and_up_beside_the_interactions(
        self, store: ReviewStore, settings: Settings
    ) -> None:
        answered(store)
        with transaction(store.engine) as connection:
            config = REVIEW.config()
            config.attributes["connection"] = connection
            command.downgrade(config, "base")
        assert not [
            name for name in inspect(store.engine).get_table_names() if name in tables.metadata.tables
        ]
        with ThreadPoolExecutor(3) as threads:
            list(threads.map(lambda _: migrate(store.engine, REVIEW), range(3)))
        assert current_revision(store.engine, REVIEW) == newest_revision(REVIEW)
        with transaction(store.engine, write=False) as connection:
            assert connection.scalar(select(func.count()).select_from(interactions)) == 1
            connection.execute(update(tables.cursors).values(name="x"))

    def test_a_database_from_a_newer_program_is_refused(self, store: ReviewStore, settings: Settings) -> None:
        with transaction(store.engine) as connection:
            connection.exec_driver_sql("UPDATE review_version SET version_num = '9999'")
        with pytest.raises(ConfigurationError, match="newer version"):
            ReviewStore.open(settings)
