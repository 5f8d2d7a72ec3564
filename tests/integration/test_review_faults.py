"""Label Studio misbehaves, or people meddle in it: each ends in the right state."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
from pydantic import SecretStr

from annotation import store
from annotation.core import Decision, Kind, Severity, Verdict
from annotation.labelstudio.http import Connection
from annotation.labelstudio.server import Login, Server
from annotation.labelstudio.tasks import find
from annotation.loop.context import Loop
from annotation.loop.controller import one_pass
from annotation.loop.cursors import RECONCILED
from annotation.loop.settings import ReviewSettings
from annotation.loop.status import Status
from annotation.loop.steps import STEPS
from annotation.loop.steps.publish import note_projects
from annotation.store import Because, State
from services.config import load
from tests.support.labelstudio import item
from tests.support.proxy import Proxy, proxied
from tests.support.review import submitted
from tests.support.review_loop import Panel, free_port, wait_for
from tests.unit.review.samples import answered, routed

ACCEPT = Verdict(decision=Decision.ACCEPT)
REJECT = Verdict(decision=Decision.REJECT, error="other", severity=Severity.MINOR)


@pytest.fixture(scope="module")
def proxy(labelstudio_server: Server) -> Iterator[Proxy]:
    with proxied(labelstudio_server.url) as found:
        yield found


def opened(folder: Path, url: str, token: SecretStr, timeout_s: float = 60) -> Loop:
    settings = ReviewSettings(
        labelstudio={
            "url": url,
            "token": token.get_secret_value(),
            "reconcile_minutes": 60,
            "timeout_s": timeout_s,
        },
        judge={"reviewers": 1, "careful_reviewers": 1},
    )
    return Loop(settings, load(data_dir=folder / "var"), public_url="http://127.0.0.1:9")


@pytest.fixture
def loop(tmp_path: Path, labelstudio_server: Server, proxy: Proxy) -> Iterator[Loop]:
    """Speaks to Label Studio through the proxy."""
    proxy.heal()
    with opened(tmp_path, proxy.url, labelstudio_server.admin.token) as made:
        yield made
    proxy.heal()


@pytest.fixture(scope="module")
def expert(labelstudio_server: Server) -> Login:
    (login,) = Panel.enrol(labelstudio_server, [f"fault-{os.urandom(3).hex()}"]).values()
    return login


def cleaned(loop: Loop) -> str:
    """An item ready to be published; its key."""
    (key,) = loop.store.items.route([routed(each) for each in answered(loop.store, 1)])
    loop.store.items.clean(key, item(Kind.CHAT, key.partition(":")[2]), {})
    return key


def published(loop: Loop) -> str:
    key = cleaned(loop)
    assert STEPS["publish"].run(loop).done == 1
    return key


def annotate(server: Server, who: Login, task: int | None, verdict: Verdict = ACCEPT) -> int:
    connection = Connection(server.url, who.token)
    try:
        body = {"result": submitted(verdict, Kind.CHAT), "lead_time": 5}
        return int(connection.post(f"/api/tasks/{task}/annotations/", body)["id"])
    finally:
        connection.close()


def look_again(loop: Loop) -> None:
    loop.store.progress.set_cursor(RECONCILED, None)


def state(loop: Loop, key: str) -> State:
    return loop.store.items.get(key).state


@pytest.mark.parametrize(
    ("status", "error"),
    [(500, "unavailable"), (401, "unauthenticated"), (429, "overloaded"), (403, "permission_denied")],
)
def test_what_label_studio_answers_is_shown_and_the_item_waits(
    loop: Loop, proxy: Proxy, status: int, error: str
) -> None:
    key = cleaned(loop)
    proxy.status, proxy.headers = status, {"Retry-After": "60"}
    for step in ("publish", "collect"):
        assert one_pass(loop, STEPS[step]).said["error"] == error
    assert state(loop, key) is State.CLEANED
    proxy.heal()
    assert STEPS["publish"].run(loop).done == 1
    assert state(loop, key) is State.PUBLISHED


def tasks(loop: Loop, key: str) -> list[int]:
    """Of an item, in Label Studio."""
    project = loop.ready_studio.project(Kind.CHAT).id
    return [task["id"] for task in find(loop.studio.connection, project, key.partition(":")[2])]


def test_a_slow_label_studio_makes_no_second_task(
    tmp_path: Path, loop: Loop, labelstudio_server: Server, proxy: Proxy
) -> None:
    key = cleaned(loop)
    assert tasks(loop, key) == []
    # The task is made five seconds late, when our patience has ended.
    proxy.delay_s, proxy.only = 5.0, "/import"
    with opened(tmp_path, proxy.url, labelstudio_server.admin.token, timeout_s=4) as impatient:
        assert one_pass(impatient, STEPS["publish"]).said["error"] == "deadline_exceeded"
    assert state(loop, key) is State.CLEANED
    proxy.heal()
    wait_for(lambda: len(tasks(loop, key)) == 1, 120, "the request arrives at last")
    assert STEPS["publish"].run(loop).done == 1
    assert tasks(loop, key) == [loop.store.items.get(key).ls_task]


def test_a_request_that_arrives_after_it_was_repeated_leaves_one_task(
    tmp_path: Path, loop: Loop, labelstudio_server: Server, proxy: Proxy
) -> None:
    key = cleaned(loop)
    assert tasks(loop, key) == []
    late = proxy.held = Event()
    proxy.only = "/import"
    with opened(tmp_path, proxy.url, labelstudio_server.admin.token, timeout_s=4) as impatient:
        assert one_pass(impatient, STEPS["publish"]).said["error"] == "deadline_exceeded"
    proxy.heal()
    assert STEPS["publish"].run(loop).done == 1
    late.set()
    wait_for(lambda: len(tasks(loop, key)) == 2, 120, "the first request arrives at last")
    look_again(loop)
    STEPS["collect"].run(loop)
    assert tasks(loop, key) == [loop.store.items.get(key).ls_task]
    assert state(loop, key) is State.PUBLISHED


def test_a_second_task_that_an_expert_works_on_is_left_and_counts(
    loop: Loop, labelstudio_server: Server, expert: Login
) -> None:
    key = published(loop)
    entry = loop.store.items.get(key)
    data = loop.studio.connection.get(f"/api/tasks/{entry.ls_task}/")
    body = [{"data": data["data"], "meta": data["meta"]}]
    path = f"/api/projects/{entry.ls_project}/import"
    (second,) = loop.studio.connection.post(path, body, return_task_ids="true")["task_ids"]
    annotate(labelstudio_server, expert, second)
    look_again(loop)
    STEPS["collect"].run(loop)
    assert loop.studio.task(Kind.CHAT, second).annotations == loop.store.annotations.of(key)
    assert state(loop, key) is State.COLLECTED


def test_a_label_studio_that_is_down_stops_nothing_else(tmp_path: Path, labelstudio_server: Server) -> None:
    port = free_port()
    with opened(tmp_path, f"http://127.0.0.1:{port}", labelstudio_server.admin.token) as loop:
        key = cleaned(loop)
        assert one_pass(loop, STEPS["publish"]).said["error"] == "unavailable"
        for name in ("tidy", "route", "judge", "calibrate", "build", "promote"):
            assert "error" not in one_pass(loop, STEPS[name]).said
        with proxied(labelstudio_server.url, port):
            assert STEPS["publish"].run(loop).done == 1
        assert one_pass(loop, STEPS["collect"]).said["error"] == "unavailable"
        assert state(loop, key) is State.PUBLISHED


def test_a_token_that_was_withdrawn_stops_publishing_until_there_is_a_new_one(
    tmp_path: Path, labelstudio_server: Server
) -> None:
    (login,) = Panel.enrol(labelstudio_server, ["leaves"]).values()
    connection = Connection(labelstudio_server.url, login.token)
    connection.post("/api/token/blacklist/", {"refresh": login.token.get_secret_value()})
    connection.close()
    with opened(tmp_path, labelstudio_server.url, login.token) as loop:
        key = cleaned(loop)
        for step in ("publish", "collect"):
            assert one_pass(loop, STEPS[step]).said["error"] == "unauthenticated"
        assert state(loop, key) is State.CLEANED
    with opened(tmp_path, labelstudio_server.url, labelstudio_server.admin.token) as loop:
        assert STEPS["publish"].run(loop).done == 1


def test_a_task_that_a_person_deleted_takes_the_item_out(loop: Loop, labelstudio_server: Server) -> None:
    seen, unseen = published(loop), published(loop)
    for key in (seen, unseen):
        task = loop.store.items.get(key).ls_task
        loop.studio.connection.delete(f"/api/tasks/{task}/")
    entry = loop.store.items.get(seen)
    assert entry.ls_project is not None
    loop.store.inbox.add([store.Event("TASKS_DELETED", entry.ls_project, entry.ls_task)])
    loop.store.progress.set_cursor(RECONCILED, loop.clock().isoformat())
    STEPS["collect"].run(loop)
    assert state(loop, seen) is State.WITHDRAWN
    assert state(loop, unseen) is State.PUBLISHED  # its webhook never came
    look_again(loop)
    STEPS["collect"].run(loop)
    assert state(loop, unseen) is State.WITHDRAWN


def test_a_verdict_that_changes_after_it_was_judged_is_judged_again(
    loop: Loop, labelstudio_server: Server, expert: Login
) -> None:
    key = published(loop)
    number = annotate(labelstudio_server, expert, loop.store.items.get(key).ls_task)
    look_again(loop)
    for name in ("collect", "judge"):
        STEPS[name].run(loop)
    assert loop.store.judgements.current(key).verdict.decision is Decision.ACCEPT
    connection = Connection(labelstudio_server.url, expert.token)
    connection.patch(f"/api/annotations/{number}/", {"result": submitted(REJECT, Kind.CHAT)})
    connection.close()
    entry = loop.store.items.get(key)
    assert entry.ls_project is not None
    loop.store.inbox.add([store.Event("ANNOTATION_UPDATED", entry.ls_project, entry.ls_task, number)])
    STEPS["collect"].run(loop)
    assert state(loop, key) is State.COLLECTED
    STEPS["judge"].run(loop)
    assert loop.store.judgements.current(key).verdict.decision is Decision.REJECT
    # And deleted, while the receiver was down.
    loop.studio.connection.delete(f"/api/annotations/{number}/")
    look_again(loop)
    STEPS["collect"].run(loop)
    assert loop.store.annotations.of(key) == []
    STEPS["judge"].run(loop)  # nothing to judge by: an expert must look again
    assert state(loop, key) is State.PUBLISHED


def test_a_verdict_that_came_before_its_task_was_noted_is_not_lost(
    loop: Loop, labelstudio_server: Server, expert: Login
) -> None:
    """The controller died between making the task and noting it, and an expert was quick."""
    key = cleaned(loop)
    about = loop.store.items.load(key)
    made = loop.ready_studio.publish(about, loop.links.urls(about))
    number = annotate(labelstudio_server, expert, made.task_id)
    project = loop.studio.project(Kind.CHAT).id
    loop.store.inbox.add([store.Event("ANNOTATION_CREATED", project, made.task_id, number)])
    STEPS["collect"].run(loop)
    assert len(loop.store.annotations.of(key)) == 1
    STEPS["publish"].run(loop)
    assert state(loop, key) is State.COLLECTED


def test_a_configuration_changed_by_hand_stops_its_kind_alone_and_is_named(loop: Loop) -> None:
    project = loop.ready_studio.project(Kind.CHAT)
    before = loop.studio.connection.get(f"/api/projects/{project.id}/")["label_config"]
    changed = before.replace('value="Accept"', 'value="Fine"', 1)
    loop.studio.connection.patch(f"/api/projects/{project.id}/", {"label_config": changed})
    try:
        key = cleaned(loop)
        result = STEPS["publish"].run(loop)
        assert (result.done, sum(result.failed.values())) == (0, 1)
        assert state(loop, key) is State.CLEANED
        assert any("changed by hand" in sentence for sentence in Status.of(loop.store).warnings)
    finally:
        loop.studio.migrate(Kind.CHAT)
    assert STEPS["publish"].run(loop).done == 1
    assert note_projects(loop)[Kind.CHAT.value] == "current"


def test_tasks_of_withdrawn_items_leave_label_studio(loop: Loop) -> None:
    key = published(loop)
    loop.store.items.withdraw(key, Because.CONSENT)
    STEPS["publish"].run(loop)
    assert key.partition(":")[2] not in {parsed.item_id for parsed in loop.studio.annotations(Kind.CHAT)}
    assert not loop.store.items.withdrawn_tasks()
