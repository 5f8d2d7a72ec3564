"""Short answers are asked for again before routing, and what is not repeated is a doubtful answer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from annotation.core import Kind
from annotation.loop.assistant import NoAssistant
from annotation.loop.candidates import features_of
from annotation.loop.context import Loop
from annotation.loop.steps import resample
from annotation.loop.steps.route import plan
from annotation.routing.score import score
from services.errors import InvalidInput
from services.interactions.database import transaction
from services.interactions.schema import interactions
from tests.support.review import Asked, ask
from tests.unit.annotation.loop_samples import loop_in, run
from tests.unit.review.samples import candidates

LOCAL = {"url": "local", "temperature": 1.5}


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Loop, list[Asked]]]:
    """Six answers, three of them short ones to questions. Tests go on from one another, as the loop does."""
    folder = tmp_path_factory.mktemp("resample")
    settings = {"draws": 4, "characters": 40, "per_pass": 2}
    with loop_in(folder, assistant=LOCAL, resample=settings) as loop:
        yield loop, ask(loop.base, 6)


def agreements(loop: Loop) -> dict[str, float | None]:
    return {each.interaction_id: each.agreement for each in candidates(loop.store)}


def test_a_kill_after_the_draws_has_them_drawn_again(
    story: tuple[Loop, list[Asked]], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, _ = story

    def die(name: str) -> None:
        raise Killed

    monkeypatch.setattr("annotation.loop.steps.resample.point", die)
    with pytest.raises(Killed):
        resample.run(loop)
    assert not any(agreements(loop).values())


def test_the_newest_short_answers_are_drawn_again_once_and_a_bounded_number_a_pass(
    story: tuple[Loop, list[Asked]],
) -> None:
    loop, asked = story
    chats = [each.id for each in asked if each.kind is Kind.CHAT]
    assert len(chats) == 3
    assert resample.run(loop).done == 2
    known = agreements(loop)
    assert {id for id, value in known.items() if value is not None} == set(sorted(chats)[1:])
    assert resample.run(loop).done == 1
    assert resample.run(loop).done == 0
    assert {id for id, value in agreements(loop).items() if value is not None} == set(chats)
    assert all(value in {0, 0.25, 0.5, 0.75, 1} for value in agreements(loop).values() if value is not None)


def test_an_answer_that_is_not_repeated_has_a_higher_risk(story: tuple[Loop, list[Asked]]) -> None:
    loop, asked = story
    chat = next(each.id for each in asked if each.kind is Kind.CHAT)
    (stored,) = [each for each in candidates(loop.store) if each.interaction_id == chat]
    scores = []
    for agreement in (1.0, 0.5, 0.0):
        features = features_of(stored)
        assert features.agreement == stored.agreement
        scores.append(score(type(features)(**{**vars(features), "agreement": agreement})))
    assert scores == sorted(set(scores))
    made, _ = plan(loop)
    assert next(one for one in made.sent if one.candidate.id == chat).candidate.score == score(
        features_of(stored)
    )


def test_a_purged_interaction_takes_its_agreement_with_it(story: tuple[Loop, list[Asked]]) -> None:
    loop, asked = story
    chat = next(each.id for each in asked if each.kind is Kind.CHAT)
    with transaction(loop.store.engine) as connection:
        connection.execute(interactions.delete().where(interactions.c.id == chat))
    assert chat not in agreements(loop)
    assert not loop.store.resamples.put(chat, 0.5, 4)


def test_routing_draws_first_and_says_how_many(tmp_path: Path) -> None:
    with loop_in(tmp_path, assistant=LOCAL, resample={"draws": 2}) as loop:
        ask(loop.base, 1)
        result = run(loop, "route")
        assert (result.done, result.said["drawn_again"]) == (1, 1)


def test_nothing_is_drawn_unless_the_settings_ask_for_it(tmp_path: Path) -> None:
    with loop_in(tmp_path, assistant=LOCAL) as loop:
        ask(loop.base, 1)
        assert resample.run(loop).done == 0


def test_an_assistant_out_of_reach_is_said_and_leaves_the_rest_to_be_drawn_later(tmp_path: Path) -> None:
    away = {"url": "http://127.0.0.1:1"}
    with loop_in(tmp_path, assistant=away, resample={"draws": 2}) as loop:
        ask(loop.base, 1)
        with pytest.raises(NoAssistant):
            resample.run(loop)
        since = loop.clock() - timedelta(days=1)
        assert len(loop.store.resamples.wanting(since, 80, 10)) == 1
        routed = run(loop, "route")
        assert (routed.done, routed.failed) == (1, {"no_assistant": 1})


@pytest.mark.parametrize(("agreement", "drawn"), [(1.1, 2), (float("nan"), 2), (0.5, 0), (None, 2)])
def test_shares_out_of_range_are_refused(
    story: tuple[Loop, list[Asked]], agreement: float | None, drawn: int
) -> None:
    with pytest.raises(InvalidInput):
        story[0].store.resamples.put("int_x", agreement, drawn)
