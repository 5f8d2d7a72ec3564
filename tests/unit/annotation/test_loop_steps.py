"""The steps that need no Label Studio, on answers of the real model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from annotation.assign import Annotator
from annotation.core import Decision, Kind, Reason, Severity, Verdict
from annotation.dataset.versions import load as load_version
from annotation.loop.context import Loop
from annotation.loop.steps.clean import release
from annotation.loop.steps.route import PLAN, plan
from annotation.loop.steps.route import run as route
from annotation.store import State, What, item_key
from services.interactions.database import transaction
from services.interactions.schema import interactions
from tests.support.review import Asked, ask, expected, recorded
from tests.support.review_films import about
from tests.unit.annotation.loop_samples import loop_in, publish_all, run, say
from tests.unit.review.samples import answered, item


class Killed(BaseException):
    pass


def _dying_at(place: str) -> Callable[[str], None]:
    def point(name: str) -> None:
        if name == place:
            raise Killed

    return point


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Loop, dict[str, Asked]]]:
    """Six answers, routed and cleaned. Tests go on from one another, as the loop does."""
    folder = tmp_path_factory.mktemp("loop")
    with loop_in(folder) as loop:
        yield loop, {each.id: each for each in ask(loop.base, 6)}


def test_a_plan_changes_nothing_and_the_step_does_what_it_says(story: tuple[Loop, dict[str, Asked]]) -> None:
    loop, asked = story
    made, _ = plan(loop)
    assert not loop.store.figures.counts()
    assert {one.candidate.id for one in made.sent} == set(asked)
    assert all("random share" in made.explain(id)[0] for id in asked)
    assert run(loop, "route").done == len(asked)
    assert run(loop, "route").done == 0


def test_what_was_decided_before_a_kill_is_done_after_it(
    story: tuple[Loop, dict[str, Asked]], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, _ = story
    before = {each.key: each.weight for each in loop.store.items.page(State.ROUTED)}
    loop.store.progress.set_cursor(PLAN, {"items": [], "drawn": [["int_x", "chat"]]})
    monkeypatch.setattr("annotation.loop.steps.route.point", _dying_at("route.routed"))
    with pytest.raises(Killed):
        route(loop)
    monkeypatch.undo()
    assert loop.store.progress.cursor(PLAN) is not None
    route(loop)
    assert loop.store.progress.cursor(PLAN) is None
    assert {each.key: each.weight for each in loop.store.items.page(State.ROUTED)} == before


def test_items_are_cleaned_with_their_pictures(story: tuple[Loop, dict[str, Asked]]) -> None:
    loop, asked = story
    result = run(loop, "clean")
    assert (result.done, result.left, dict(result.failed)) == (len(asked), 0, {})
    # Some drawings look like letters to the reader of text; a person looks at those.
    held = loop.store.items.page(State.HELD)
    assert len(held) <= 1, [loop.store.items.report(entry.key) for entry in held]
    for entry in held:
        assert release(loop, entry.key, "somebody") is State.CLEANED
    for entry in loop.store.items.page(State.CLEANED):
        item = loop.store.items.load(entry.key, pictures=True)
        assert all(picture.data for picture in item.pictures)
        assert item.kind is asked[entry.id].kind
        assert run(loop, "clean").done == 0


def test_experts_who_agree_are_believed_and_conflicts_wait_for_an_adjudicator(
    story: tuple[Loop, dict[str, Asked]],
) -> None:
    loop, asked = story
    loop.crew.put(Annotator("9", adjudicator=True))
    keys = publish_all(loop)
    conflict = next(key for key in keys if key.startswith("chat"))
    for key in keys:
        truth = about(loop.store.items.load(key), asked[key.partition(":")[2]].truth)
        other = Verdict(decision=Decision.REJECT, error="other", severity=Severity.MINOR)
        if truth.decision is Decision.REJECT:
            other = Verdict(decision=Decision.ACCEPT)
        say(loop, key, {"1": truth, "2": other if key == conflict else truth})
    result = run(loop, "judge")
    assert result.said == {"judged": len(keys) - 1, "need_more": 0, "adjudication": 1}
    say(loop, conflict, {"9": asked[conflict.partition(":")[2]].truth})
    assert run(loop, "judge").said["judged"] == 1
    assert loop.store.judgements.current(conflict).adjudicated


def test_a_version_holds_what_was_said_and_is_built_once(story: tuple[Loop, dict[str, Asked]]) -> None:
    loop, asked = story
    result = run(loop, "build")
    assert (result.done, dict(result.failed)) == (len(asked), {})
    version = load_version(loop.datasets, result.said["version"])
    found, wanted = recorded(version), expected(asked.values())
    assert {file: set(records) for file, records in found.items()} == wanted
    assert all(len(records) == len(set(records)) for records in found.values())
    assert run(loop, "build").done == 0
    assert len(loop.store.versions.all(What.DATA)) == 1


def test_a_verdict_that_changed_and_changed_back_is_in_the_data_again(
    story: tuple[Loop, dict[str, Asked]],
) -> None:
    loop, asked = story
    (entry, *_) = [each for each in loop.store.items.page(State.BUILT) if each.kind is Kind.PICTURE]
    truth = about(loop.store.items.load(entry.key), asked[entry.id].truth)
    other = Verdict(decision=Decision.ACCEPT, realism=5, agreement=5)
    if truth.decision is Decision.ACCEPT:
        other = Verdict(
            decision=Decision.REJECT, error="other", severity=Severity.MINOR, realism=1, agreement=1
        )
    say(loop, entry.key, {"1": other, "2": other})
    assert run(loop, "judge", "build").done
    say(loop, entry.key, {"1": truth, "2": truth})
    run(loop, "judge", "build")
    assert loop.store.items.get(entry.key).state is State.BUILT
    assert len(loop.store.versions.all(What.DATA)) == 2


def test_an_expert_who_writes_a_name_keeps_that_item_out_of_the_data(
    story: tuple[Loop, dict[str, Asked]],
) -> None:
    loop, _asked = story
    (entry, *_) = [each for each in loop.store.items.page(State.BUILT) if each.kind is Kind.CHAT]
    named = Verdict(
        decision=Decision.EDIT,
        text="Seen by Dr. Meyer on 12/03/2021.",
        error="other",
        severity=Severity.MINOR,
    )
    say(loop, entry.key, {"1": named, "2": named, "9": named})
    run(loop, "judge")
    result = run(loop, "build")
    assert result.failed == {"identifier": 1}
    assert loop.store.items.get(entry.key).state is State.JUDGED
    version = load_version(loop.datasets, result.said["version"])
    assert entry.id not in {record[0] for records in recorded(version).values() for record in records}
    assert b"Meyer" not in b"".join(path.read_bytes() for path in version.path.rglob("*.jsonl"))


def test_consent_that_is_withdrawn_takes_the_item_out(story: tuple[Loop, dict[str, Asked]]) -> None:
    loop, _ = story
    (entry, *_) = loop.store.items.page(State.BUILT)
    with transaction(loop.store.engine) as connection:
        connection.execute(
            interactions.update().where(interactions.c.id == entry.id).values(consent_training=False)
        )
    run(loop, "tidy")
    assert loop.store.items.get(entry.key).state is State.WITHDRAWN


def test_an_item_that_cannot_be_cleaned_now_waits_and_the_others_go_on(tmp_path: Path) -> None:
    with loop_in(tmp_path, preference_share=1.0) as loop:
        ask(loop.base, 1)
        run(loop, "route")
        assert run(loop, "clean").failed == {"no_assistant": 1}  # an alternative needs one, and none is set
        counts = loop.store.figures.counts()
        assert counts == {State.ROUTED: {Kind.PREFERENCE: 1}, State.CLEANED: {Kind.CHAT: 1}}


@pytest.mark.parametrize(
    ("answer", "ends"), [("", State.WITHDRAWN), (" \n", State.WITHDRAWN), ("word " * 25_000, State.HELD)]
)
def test_an_answer_that_nobody_can_judge_is_not_tried_again_for_ever(
    tmp_path: Path, answer: str, ends: State
) -> None:
    with loop_in(tmp_path) as loop:
        (asked,) = ask(loop.base, 1)
        interaction = loop.interaction(asked.id)
        del interaction.output[:]
        interaction.output.add(text=answer)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Loop, "interaction", lambda loop, id: interaction)
            run(loop, "route", "clean")
        assert loop.store.figures.counts() == {ends: {Kind.CHAT: 1}}


def test_alternatives_are_drawn_from_the_running_assistant(tmp_path: Path) -> None:
    with loop_in(tmp_path, preference_share=1.0, assistant={"url": "local", "temperature": 2.0}) as loop:
        ask(loop.base, 2)
        run(loop, "route", "clean")
        found = [each for each in loop.store.items.page(State.CLEANED) if each.kind is Kind.PREFERENCE]
        gone = [each for each in loop.store.items.page(State.WITHDRAWN) if each.kind is Kind.PREFERENCE]
        assert len(found) + len(gone) == 2
        for entry in found:
            first, second = loop.store.items.load(entry.key).alternatives
            assert first != second


def test_a_member_of_the_share_that_repeats_an_earlier_answer_counts_for_its_verdict_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with loop_in(tmp_path) as loop:
        (first,) = answered(loop.store)
        run(loop, "route")
        _, other = answered(loop.store, 2)  # the same again, and another
        with monkeypatch.context() as patched:
            patched.setattr("annotation.loop.steps.route.point", _dying_at("route.weighed"))
            with pytest.raises(Killed):
                run(loop, "route")
        run(loop, "route")  # carries out again what it had decided
        run(loop, "route")
        weights = {entry.id: entry.weight for entry in loop.store.items.page(State.ROUTED)}
        assert weights == {first: 2.0, other: 1.0}
        assert loop.store.audit.verify().broken_at is None


def test_what_was_sent_for_its_risk_calibrates_once_a_member_of_the_share_repeats_it(tmp_path: Path) -> None:
    risky = {"routing": {"random_share": 0, "risk_threshold": 0}}
    with loop_in(tmp_path, **risky) as loop:
        (first,) = answered(loop.store)
        run(loop, "route")
        key = item_key(first, Kind.CHAT)
        assert loop.store.items.get(key).reason is Reason.RISK
        loop.store.items.clean(key, item(first), {})
        publish_all(loop)
        say(loop, key, {"1": Verdict(decision=Decision.ACCEPT), "2": Verdict(decision=Decision.ACCEPT)})
        run(loop, "judge")
        assert run(loop, "calibrate").left == 0
    with loop_in(tmp_path) as loop:
        answered(loop.store)
        run(loop, "route")
        assert loop.store.items.get(key).weight == 1
        assert run(loop, "calibrate").left == 1
