"""Items and reservations under any order of steps, compared after each with a model of a few lines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import select

from annotation.assign import Annotator, AssignPolicy, Crew, Desk
from annotation.store import Because, NotAllowed, Recorded, ReviewStore, State
from annotation.store import schema as tables
from annotation.store.evidence import Hold
from annotation.store.states import MOVES
from services.interactions.database import transaction
from tests.unit.review.samples import (
    ACCEPT,
    EDIT,
    REPORT,
    Clock,
    annotation,
    answered,
    item,
    judgement,
    routed,
)

EXPERTS, ADJUDICATOR = ("1", "2", "3"), "9"
OPEN = frozenset({State.ROUTED, State.HELD})
TAKING = frozenset({Hold.HELD, Hold.DONE})
anybody = st.sampled_from([*EXPERTS, ADJUDICATOR])
which = st.integers(0, 5)


@dataclass
class Model:
    """What one item should be. `holds` by annotator, `live` the annotators with a verdict."""

    wanted: int
    state: State = State.ROUTED
    task: bool = False
    holds: dict[str, tuple[Hold, datetime]] = field(default_factory=dict)
    live: dict[str, object] = field(default_factory=dict)

    def taken(self, adjudicators: bool) -> int:
        return sum(
            hold in TAKING and (name == ADJUDICATOR) == adjudicators for name, (hold, _) in self.holds.items()
        )

    def expire(self, now: datetime) -> None:
        for name, (hold, until) in self.holds.items():
            if hold is Hold.HELD and until <= now:
                self.holds[name] = (Hold.EXPIRED, until)

    def fits(self, name: str) -> bool:
        if name in self.holds and self.holds[name][0] is not Hold.EXPIRED:
            return False
        if name == ADJUDICATOR:
            return self.state is State.ADJUDICATION and self.taken(True) == 0
        return self.state is State.PUBLISHED and self.taken(False) < self.wanted

    def settle(self, changed: bool = True) -> None:
        experts, decided = len(set(self.live) - {ADJUDICATOR}), ADJUDICATOR in self.live
        enough = decided or experts >= self.wanted
        if self.state is State.PUBLISHED and enough:
            self.state = State.COLLECTED
        elif self.state is State.COLLECTED and not enough:
            self.state = State.PUBLISHED
        elif (self.state is State.ADJUDICATION and decided) or (
            self.state in {State.JUDGED, State.BUILT} and changed
        ):
            self.state = State.COLLECTED

    def withdraw(self) -> None:
        self.state = State.WITHDRAWN
        for name, (hold, until) in self.holds.items():
            if hold is Hold.HELD:
                self.holds[name] = (Hold.RELEASED, until)


class ReviewMachine(RuleBasedStateMachine):
    """Subclass with `open_store`, which gives a store over an empty database."""

    open_store: Callable[[Clock], ReviewStore]

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.store = type(self).open_store(self.clock)
        self.desk = Desk(self.store.ledger, AssignPolicy(gold_share=0))
        for name in (*EXPERTS, ADJUDICATOR):
            adjudicator = name == ADJUDICATOR
            Crew(self.store.ledger).put(
                Annotator(name, adjudicator=adjudicator, max_open=100, max_daily=1_000)
            )
        self.models: dict[str, Model] = {}
        self.versions = 0

    def pick(self, number: int) -> tuple[str, Model]:
        key = sorted(self.models)[number % len(self.models)]
        return key, self.models[key]

    @rule(wanted=st.integers(1, 3))
    def route(self, wanted: int) -> None:
        (key,) = self.store.items.route([routed(answered(self.store)[0], wanted=wanted)])
        self.models[key] = Model(wanted)

    @precondition(lambda self: self.models)
    @rule(number=which, hold=st.booleans())
    def advance(self, number: int, hold: bool) -> None:
        key, model = self.pick(number)
        if model.state is State.ROUTED and hold:
            model.state = self.store.items.hold(key, REPORT)
        elif model.state in OPEN:
            model.state = self.store.items.clean(key, item(key.partition(":")[2]), REPORT)
        elif model.state is State.CLEANED:
            self.store.items.publish(key, 1, 100 + sorted(self.models).index(key) + 1_000 * len(self.models))
            model.state, model.task = State.PUBLISHED, True
            model.settle(changed=False)

    @precondition(lambda self: self.models)
    @rule(name=anybody)
    def ask(self, name: str) -> None:
        for model in self.models.values():
            model.expire(self.clock.now)
        given = self.desk.next_item(name)
        fitting = {key for key, model in self.models.items() if model.fits(name)}
        if given is None:
            assert not fitting
        else:
            assert given.item in fitting
            assert given.adjudication == (name == ADJUDICATOR)
            self.models[given.item].holds[name] = (Hold.HELD, given.until)

    @precondition(lambda self: self.models)
    @rule(name=anybody, number=which)
    def release(self, name: str, number: int) -> None:
        key, model = self.pick(number)
        hold, until = model.holds.get(name, (None, self.clock.now))
        assert self.desk.release(name, key) == (hold is Hold.HELD)
        if hold is Hold.HELD:
            model.holds[name] = (Hold.RELEASED, until)

    @rule(minutes=st.sampled_from([1, 70, 125]))
    def wait(self, minutes: int) -> None:
        self.clock.forward(minutes=minutes)

    @precondition(lambda self: self.models)
    @rule(name=anybody, number=which, verdict=st.sampled_from([EDIT, ACCEPT]))
    def annotate(self, name: str, number: int, verdict: object) -> None:
        key, model = self.pick(number)
        one = annotation(key.partition(":")[2], name, self.clock.now, verdict)  # type: ignore[arg-type]
        if model.state in OPEN:
            with pytest.raises(NotAllowed):
                self.store.annotations.record(one)
            return
        did = self.store.annotations.record(one)
        if model.state is State.WITHDRAWN:
            assert did is Recorded.IGNORED
        elif model.live.get(name) == verdict:
            assert did is Recorded.UNCHANGED
        else:
            assert did in {Recorded.NEW, Recorded.CHANGED}
            model.live[name] = verdict
            model.holds[name] = (Hold.DONE, self.clock.now)
            model.settle()

    @precondition(lambda self: self.models)
    @rule(name=anybody, number=which)
    def remove(self, name: str, number: int) -> None:
        key, model = self.pick(number)
        one = annotation(key.partition(":")[2], name, self.clock.now)
        assert self.store.annotations.remove(one.id) == (name in model.live)
        if name in model.live:
            del model.live[name]
            model.holds[name] = (Hold.RELEASED, self.clock.now)
            model.settle()

    @precondition(lambda self: any(each.state is State.COLLECTED for each in self.models.values()))
    @rule(number=which, how=st.sampled_from(["judge", "more", "adjudicate"]))
    def decide(self, number: int, how: str) -> None:
        ready = sorted(key for key, model in self.models.items() if model.state is State.COLLECTED)
        key = ready[number % len(ready)]
        model, revision = self.models[key], self.store.items.get(key).revision
        with pytest.raises(NotAllowed):
            self.store.judgements.adjudicate(key, revision - 1)
        if how == "judge":
            decided = judgement(self.store, key)
            assert self.store.judgements.save(decided, revision)
            model.state = State.JUDGED
        elif how == "more":
            assert self.store.judgements.need_more(key, revision, 1)
            model.state, model.wanted = State.PUBLISHED, len(set(model.live) - {ADJUDICATOR}) + 1
        else:
            assert self.store.judgements.adjudicate(key, revision)
            model.state = State.ADJUDICATION

    @precondition(lambda self: any(each.state is State.JUDGED for each in self.models.values()))
    @rule()
    def build(self) -> None:
        ready = self.store.judgements.to_build()
        assert [entry.key for entry, _ in ready] == sorted(
            key for key, model in self.models.items() if model.state is State.JUDGED
        )
        self.versions += 1
        contents = [(entry.key, entry.revision) for entry, _ in ready]
        assert self.store.versions.built(f"v{self.versions}", contents, path="p") == []
        for entry, _ in ready:
            self.models[entry.key].state = State.BUILT

    @precondition(lambda self: self.models)
    @rule(number=which, gone=st.booleans())
    def withdraw(self, number: int, gone: bool) -> None:
        key, model = self.pick(number)
        if gone and model.task:
            self.store.items.task_gone(key)
            if model.state not in {State.JUDGED, State.BUILT}:
                model.withdraw()
        else:
            assert self.store.items.withdraw(key, Because.REFUSED) == (model.state is not State.WITHDRAWN)
            model.withdraw()

    @precondition(lambda self: self.models)
    @rule(number=which, to=st.sampled_from(State))
    def try_a_move_that_is_not_in_the_table(self, number: int, to: State) -> None:
        key, model = self.pick(number)
        if to in MOVES[model.state]:
            return
        try:
            with self.store.ledger.change("test") as change:
                assert not change.move(change.lock(key), to)
            assert to is model.state
        except NotAllowed:
            assert to is not model.state

    @invariant()
    def the_database_is_as_the_model_says(self) -> None:
        of = tables.items.c
        with transaction(self.store.engine, write=False) as connection:
            rows = connection.execute(select(of.key, of.state, of.wanted, of.taken, of.deciding)).all()
        assert {row.key: tuple(row)[1:] for row in rows} == {
            key: (model.state, model.wanted, model.taken(False), model.taken(True))
            for key, model in self.models.items()
        }

    def teardown(self) -> None:
        try:
            assert self.store.audit.verify().broken_at is None
            for key, model in self.models.items():
                before = State.ROUTED
                for entry in self.store.audit.of(key):
                    if entry.what == "move":
                        assert entry.before["state"] == before
                        before = State(str(entry.after["state"]))
                        assert before in MOVES[State(str(entry.before["state"]))]
                assert before is model.state
                if model.state is State.WITHDRAWN:
                    assert self.store.annotations.of(key) == []
                    assert self.store.items.report(key) == {}
        finally:
            self.store.close()
