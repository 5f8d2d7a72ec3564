"""What assignment must do on every database: subclass with a `settings` fixture (a migrated database)."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import select, update

from annotation.assign import Annotator, AssignPolicy, Crew, Desk, Reservation
from annotation.core import Reason
from annotation.store import ReviewStore, State
from annotation.store import schema as tables
from services.config import ROOT, Settings
from services.errors import InvalidInput, NotFound
from services.interactions.database import transaction
from tests.unit.review.samples import ACCEPT, EDIT, Clock, annotation, item, judgement, publish, state

NO_GOLD = AssignPolicy(gold_share=0)


def id_of(key: str) -> str:
    return key.partition(":")[2]


def crew(store: ReviewStore, *names: str, **fields: object) -> None:
    for name in names:
        Crew(store.ledger).put(replace(Annotator(name, max_open=10), **fields))  # type: ignore[arg-type]


def held(reservation: Reservation | None) -> str:
    assert reservation is not None
    return reservation.item


def process(settings: Settings, annotator: str, hurry: int = 1) -> subprocess.Popen[str]:
    given = json.dumps({"data_dir": str(settings.data_dir), "database_url": settings.database_url})
    return subprocess.Popen(
        [sys.executable, "-m", "tests.unit.review.worker", given, annotator, str(hurry)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


class AssignmentBehaviour:
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def store(self, settings: Settings, clock: Clock) -> Iterator[ReviewStore]:
        store = ReviewStore.open(settings, clock)
        yield store
        store.close()

    @pytest.fixture
    def desk(self, store: ReviewStore) -> Desk:
        return Desk(store.ledger, NO_GOLD)

    def test_an_item_goes_to_as_many_experts_as_are_wanted(self, store: ReviewStore, desk: Desk) -> None:
        crew(store, "1", "2", "3")
        (key,) = publish(store, wanted=2)
        first = desk.next_item("1")
        assert first is not None
        assert (first.item, first.project, first.adjudication) == (key, 1, False)
        assert first.task == store.items.get(key).ls_task
        assert desk.next_item("1") is None
        assert held(desk.next_item("2")) == key
        assert desk.next_item("3") is None
        assert desk.holding("1") == [first]

    def test_an_expired_reservation_goes_to_the_next_expert(
        self, store: ReviewStore, desk: Desk, clock: Clock
    ) -> None:
        crew(store, "1", "2")
        (key,) = publish(store)
        desk.next_item("1")
        clock.forward(minutes=119)
        assert desk.next_item("2") is None
        clock.forward(minutes=2)
        assert held(desk.next_item("2")) == key
        assert desk.holding("1") == []
        clock.forward(minutes=121)
        assert desk.expire() == 1
        assert held(desk.next_item("1")) == key

    def test_a_released_item_goes_to_somebody_else_and_never_back(
        self, store: ReviewStore, desk: Desk
    ) -> None:
        crew(store, "1", "2")
        (key,) = publish(store)
        assert held(desk.next_item("1")) == key
        assert desk.release("1", key)
        assert not desk.release("1", key)
        assert desk.next_item("1") is None
        assert held(desk.next_item("2")) == key
        with pytest.raises(NotFound):
            desk.release("1", "chat:unknown")

    def test_a_verdict_ends_the_reservation_and_is_never_asked_for_again(
        self, store: ReviewStore, desk: Desk, clock: Clock
    ) -> None:
        crew(store, "1", "2")
        (key,) = publish(store, wanted=2)
        desk.next_item("1")
        given = annotation(id_of(key), "1", clock())
        store.annotations.record(given)
        assert desk.holding("1") == []
        assert desk.next_item("1") is None
        store.annotations.remove(given.id)
        assert desk.next_item("1") is None
        assert store.items.get(key).taken == 0

    def test_a_verdict_that_comes_late_counts_beside_the_next_experts(
        self, store: ReviewStore, desk: Desk, clock: Clock
    ) -> None:
        crew(store, "1", "2")
        (key,) = publish(store)
        desk.next_item("1")
        clock.forward(minutes=121)
        desk.next_item("2")
        store.annotations.record(annotation(id_of(key), "1", clock()))
        assert state(store, key) is State.COLLECTED
        store.annotations.record(annotation(id_of(key), "2", clock()))
        assert len(store.annotations.of(key)) == 2

    def test_experts_get_items_of_their_specialities_flagged_ones_first_then_the_oldest(
        self, store: ReviewStore, desk: Desk, clock: Clock
    ) -> None:
        crew(store, "1", specialities=("chest", "brain"))
        (old,) = publish(store, speciality="chest")
        clock.forward(minutes=1)
        (new,) = publish(store, speciality="brain")
        (flagged,) = publish(store, speciality="chest", reason=Reason.FLAG)
        publish(store, speciality="skin")
        assert [held(desk.next_item("1")) for _ in range(3)] == [flagged, old, new]
        assert desk.next_item("1") is None

    def test_limits_of_an_experts_work_are_kept(self, store: ReviewStore, desk: Desk, clock: Clock) -> None:
        clock.now = clock.now.replace(hour=8)
        crew(store, "1", max_open=2, max_daily=3)
        publish(store, 6)
        first = held(desk.next_item("1"))
        desk.next_item("1")
        assert desk.next_item("1") is None
        store.annotations.record(annotation(id_of(first), "1", clock()))
        second = held(desk.next_item("1"))
        store.annotations.record(annotation(id_of(second), "1", clock()))
        assert desk.next_item("1") is None
        clock.forward(days=1)
        assert desk.next_item("1") is not None

    def test_who_is_unknown_inactive_or_without_a_speciality_gets_nothing(
        self, store: ReviewStore, desk: Desk, clock: Clock
    ) -> None:
        crew(store, "1", active=False)
        crew(store, "2", specialities=())
        (key, _) = publish(store, 2, wanted=2)
        assert desk.next_item("1") is None
        assert desk.next_item("2") is None
        with pytest.raises(NotFound):
            desk.next_item("3")
        store.annotations.record(annotation(id_of(key), "3", clock()))
        assert desk.next_item("3") is None
        assert not Crew(store.ledger).get("3").active
        assert [each.id for each in Crew(store.ledger).all()] == ["1", "2", "3"]

    def test_only_an_adjudicator_who_did_not_annotate_it_gets_a_conflict(
        self, store: ReviewStore, desk: Desk, clock: Clock
    ) -> None:
        crew(store, "1", "2", "3", "8")
        crew(store, "9", adjudicator=True)
        (key, _) = publish(store, 2, wanted=3)
        for name, verdict in (("1", EDIT), ("2", ACCEPT), ("8", ACCEPT)):
            store.annotations.record(annotation(id_of(key), name, clock(), verdict))
        assert desk.next_item("9") is None  # the other item is no conflict
        store.judgements.adjudicate(key, store.items.get(key).revision)
        crew(store, "8", "10", adjudicator=True)
        assert desk.next_item("8") is None
        given = desk.next_item("9")
        assert given is not None
        assert (given.item, given.adjudication) == (key, True)
        assert desk.next_item("10") is None
        assert held(desk.next_item("3")) != key
        store.annotations.record(annotation(id_of(key), "9", clock(), EDIT))
        assert state(store, key) is State.COLLECTED
        decided = replace(judgement(store, key), adjudicated=True)
        assert store.judgements.save(decided, store.items.get(key).revision)
        assert desk.next_item("10") is None

    def test_gold_items_are_mixed_in_and_look_like_any_other(self, store: ReviewStore) -> None:
        draws = iter([0.9, 0.0, 0.0, 0.0, 0.0])
        desk = Desk(store.ledger, AssignPolicy(gold_share=0.1), lambda: next(draws))
        crew(store, "1")
        gold = store.items.add_gold(item("int_" + "a" * 32, reason=Reason.GOLD, gold=EDIT), "dr-9")
        store.items.publish(gold, 1, 77)
        assert desk.next_item("1") is None  # alone it would give itself away
        keys = publish(store, 3)
        given = [desk.next_item("1") for _ in range(4)]
        assert sorted(held(each) for each in given) == sorted([gold, *keys])
        assert held(given[1]) == gold
        assert len({type(each) for each in given}) == 1
        assert "gold" not in repr(given)

    @pytest.mark.parametrize(
        ("wrong", "field"),
        [
            ({"id": "anna@example.org"}, "annotator.id"),
            ({"specialities": ("x y",)}, "annotator.specialities"),
            ({"max_open": -1}, "annotator.max_open"),
        ],
    )
    def test_senseless_annotators_are_refused(self, wrong: dict[str, object], field: str) -> None:
        with pytest.raises(InvalidInput) as refusal:
            replace(Annotator("1"), **wrong)  # type: ignore[arg-type]
        assert refusal.value.field == field

    # Several at once

    def test_experts_who_ask_at_once_share_the_slots_and_none_is_lost(
        self, store: ReviewStore, settings: Settings
    ) -> None:
        names = [str(number) for number in range(6)]
        crew(store, *names, max_open=100)
        keys = publish(store, 10, wanted=2)
        barrier = threading.Barrier(len(names))

        def take(name: str) -> list[str]:
            own = ReviewStore.open(settings, store.ledger.clock)
            desk, taken = Desk(own.ledger, NO_GOLD), []
            barrier.wait()
            while (given := desk.next_item(name)) is not None:
                taken.append(given.item)
            own.close()
            return taken

        with ThreadPoolExecutor(len(names)) as threads:
            taken = list(threads.map(take, names))
        assert all(len(each) == len(set(each)) for each in taken)
        assert Counter(key for each in taken for key in each) == dict.fromkeys(keys, 2)
        assert store.audit.verify().broken_at is None

    def test_an_expert_in_two_windows_gets_no_item_twice_and_keeps_his_limit(
        self, store: ReviewStore, desk: Desk
    ) -> None:
        crew(store, "1", max_open=3)
        publish(store, 8, wanted=3)
        with ThreadPoolExecutor(4) as threads:
            given = [each for each in threads.map(lambda _: desk.next_item("1"), range(8)) if each]
        assert len({each.item for each in given}) == len(given) == 3

    def test_processes_review_everything_once_each_also_when_one_is_killed(
        self, store: ReviewStore, settings: Settings
    ) -> None:
        names = ["1", "2", "3"]
        crew(store, "0", *names, max_open=100)
        keys = publish(store, 8, wanted=2)
        killed = process(settings, "0", hurry=0)
        assert killed.stdout is not None
        assert killed.stdout.readline().strip() in keys
        killed.kill()
        killed.communicate()
        # Its reservation lasts three seconds; who comes too early finds one slot less and comes again.
        done: list[str] = []
        deadline = time.monotonic() + 120
        while len(done) < 16 and time.monotonic() < deadline:
            workers = [process(settings, name) for name in names]
            done += [key for each in workers for key in each.communicate(timeout=120)[0].split()]
            assert [each.returncode for each in workers] == [0, 0, 0]
        assert Counter(done) == dict.fromkeys(keys, 2)
        assert {state(store, key) for key in keys} == {State.COLLECTED}
        with transaction(store.engine, write=False) as connection:
            rows = connection.execute(
                select(tables.expert_annotations.c.item, tables.expert_annotations.c.annotator)
            ).all()
        assert len(rows) == len(set(rows)) == 16

    def test_a_purge_beside_the_loop_loses_and_blocks_nothing(
        self, store: ReviewStore, settings: Settings, clock: Clock
    ) -> None:
        from tests.unit.review.samples import purge_interactions

        keys = publish(store, 12)
        expired = [id_of(key) for key in keys[:6]]
        of = tables.interactions.c
        with transaction(store.engine) as connection:
            connection.execute(
                update(tables.interactions).where(of.id.in_(expired)).values(expires_at=clock.now)
            )
        begin = threading.Barrier(3)

        def wait_then(do: Callable[[], object]) -> object:
            begin.wait()
            return do()

        def annotate() -> None:
            for key in keys:
                store.annotations.record(annotation(id_of(key), "1", clock()))

        work = (lambda: purge_interactions(store, settings, clock.now), store.retention.sweep, annotate)
        with ThreadPoolExecutor(3) as threads:
            assert next(iter(threads.map(wait_then, work))) == 6
        store.retention.sweep()
        assert [state(store, key) for key in keys] == [State.WITHDRAWN] * 6 + [State.COLLECTED] * 6
