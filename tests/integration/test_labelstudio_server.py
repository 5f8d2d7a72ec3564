"""The review loop's client against a real Label Studio."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from annotation.core import Annotation, Decision, Item, Kind, Severity
from annotation.labelstudio import ml_backend, render, templates, webhook
from annotation.labelstudio.client import LabelStudio
from annotation.labelstudio.http import Connection
from annotation.labelstudio.parse import Oddity
from annotation.labelstudio.projects import Hook, State
from annotation.labelstudio.server import VENV, Login, Server, running
from annotation.labelstudio.snapshot import Snapshot
from annotation.labelstudio.webhook import Event
from services.errors import ConfigurationError, NotFound, Unauthenticated
from tests.support.labelstudio import (
    choices,
    hosting,
    item,
    ranked,
    rectangle,
    stars,
    stroke,
    texts,
)

SECRET = SecretStr("the secret of webhooks")


def urls(about: Item) -> dict[str, str]:
    return {picture.sha256: f"http://127.0.0.1:9/{picture.sha256}.png" for picture in about.pictures}


@pytest.fixture(scope="module")
def studio(labelstudio_server: Server) -> Iterator[LabelStudio]:
    with LabelStudio(labelstudio_server.url, labelstudio_server.admin.token) as client:
        for kind in Kind:
            client.ensure_project(kind)
        yield client


@pytest.fixture(scope="module")
def expert(labelstudio_server: Server) -> Login:
    return labelstudio_server.add_expert("expert@hospital.example", "a long password")


def submit(server: Server, who: Login, task_id: int, result: list[dict[str, Any]], **more: Any) -> int:
    """What the expert's browser does with "Submit"."""
    connection = Connection(server.url, who.token)
    try:
        body = {"result": result, "lead_time": 3.5} | more
        return int(connection.post(f"/api/tasks/{task_id}/annotations/", body)["id"])
    finally:
        connection.close()


def annotations(studio: LabelStudio, kind: Kind, item_id: str) -> list[Annotation]:
    found = (parsed.annotations for parsed in studio.annotations(kind) if parsed.item_id == item_id)
    return [annotation for annotations in found for annotation in annotations]


def test_a_project_is_made_once_and_found_again(labelstudio_server: Server, studio: LabelStudio) -> None:
    with LabelStudio(labelstudio_server.url, labelstudio_server.admin.token) as other:
        for kind in Kind:
            found = other.ensure_project(kind)
            assert found == studio.project(kind)
            assert found.state is State.CURRENT
    assert len({studio.project(kind).id for kind in Kind}) == len(Kind)


@pytest.mark.parametrize("kind", Kind)
def test_an_item_is_published_once_however_often_it_is_tried(studio: LabelStudio, kind: Kind) -> None:
    about = item(kind, f"once-{kind.value}")
    first = studio.publish(about, urls(about))
    second = studio.publish(about, urls(about))
    assert (first.created, second.created) == (True, False)
    assert first.task_id == second.task_id
    task = studio.connection.get(f"/api/tasks/{first.task_id}/")
    assert task["meta"]["item"] == about.id
    prefilled = [prediction["result"] for prediction in task["predictions"]]
    assert [[entry["value"] for entry in result] for result in prefilled] == [
        [entry["value"] for entry in render.prefilled(kind, task["data"])]
    ]


def test_publishers_that_race_leave_one_task(labelstudio_server: Server, studio: LabelStudio) -> None:
    about = item(Kind.CHAT, "race")
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: studio.publish(about, urls(about)), range(4)))
    assert sum(len([1]) for parsed in studio.annotations(Kind.CHAT) if parsed.item_id == "race") == 1
    assert studio.publish(about, urls(about)).task_id == min(task.task_id for task in made)


def test_our_drafts_are_what_label_studios_own_validator_accepts(studio: LabelStudio) -> None:
    cases = []
    for about in [*(item(kind, "valid") for kind in Kind), ranked("valid")]:
        template = templates.load(about.kind)
        result = render.task(about, template, urls(about)).result
        cases.append(
            {"config": template.xml, "prediction": {"model_version": "m", "score": 0.5, "result": result}}
        )
    cases.append({**cases[0], "prediction": {"model_version": "m", "result": [choices("nothing", "accept")]}})
    program = (
        "import json, sys\n"
        "from label_studio_sdk.label_interface import LabelInterface\n"
        "print(json.dumps([LabelInterface(case['config']).validate_prediction(case['prediction'], return_errors=True)"
        " for case in json.load(sys.stdin)]))"
    )
    done = subprocess.run(
        [VENV / "bin" / "python", "-c", program],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    *valid, wrong = json.loads(done.stdout.splitlines()[-1])
    assert valid == [[]] * len(valid)
    assert wrong


def test_a_verdict_comes_back_as_the_expert_gave_it(
    labelstudio_server: Server, studio: LabelStudio, expert: Login
) -> None:
    about = item(Kind.REPORT, "verdict")
    task = studio.publish(about, urls(about))
    mask = np.zeros((384, 384), bool)
    mask[200:300, 40:90] = True
    sentences = render.prefilled(Kind.REPORT, {"text": about.answer[0]})[0]["value"]["text"]
    result = [
        choices("decision", "edit"),
        texts("text", *sentences[:2], "There is a large right pleural effusion.", sentences[3]),
        choices("missing", "mass"),
        choices("error", "wrong_attribute"),
        choices("severity", "critical"),
        *rectangle("r1", "pleural effusion", (10, 50, 30, 40)),
        *stroke("b1", "mass", mask),
    ]
    number = submit(labelstudio_server, expert, task.task_id, result)
    (found,) = annotations(studio, Kind.REPORT, about.id)
    project = studio.project(Kind.REPORT).id
    who = Connection(labelstudio_server.url, expert.token).get("/api/current-user/whoami")
    assert (found.id, found.annotator, found.seconds) == (f"{project}:{number}", str(who["id"]), 3.5)
    verdict = found.verdict
    assert (verdict.decision, verdict.error, verdict.severity) == (
        Decision.EDIT,
        "wrong_attribute",
        Severity.CRITICAL,
    )
    assert verdict.text == str(about.answer[0]).replace("a small left", "a large right", 1)
    assert verdict.missing == ("mass",)
    assert [region.label for region in verdict.regions] == ["pleural effusion", "mass"]
    assert verdict.regions[1].mask
    assert verdict.regions[1].y == pytest.approx(200 / 384)


def test_oddities_are_named_and_hide_nothing(
    labelstudio_server: Server, studio: LabelStudio, expert: Login
) -> None:
    project = studio.project(Kind.PICTURE).id
    studio.connection.post(
        f"/api/projects/{project}/import", [{"data": {"dialogue": "made by hand", "pictures": []}}]
    )
    about = item(Kind.PICTURE, "odd")
    task = studio.publish(about, urls(about)).task_id
    submit(labelstudio_server, expert, task, [], was_cancelled=True)
    submit(labelstudio_server, expert, task, [choices("decision", "accept"), stars("realism", 3)])
    good = [choices("decision", "accept"), stars("realism", 3), stars("agreement", 5)]
    submit(labelstudio_server, expert, task, good)
    oddities = {problem.oddity for parsed in studio.annotations(Kind.PICTURE) for problem in parsed.problems}
    assert {Oddity.FOREIGN, Oddity.SKIPPED, Oddity.INCOMPLETE} <= oddities
    assert [found.verdict.agreement for found in annotations(studio, Kind.PICTURE, "odd")] == [5]


def test_only_what_changed_since_is_read_again(
    labelstudio_server: Server, studio: LabelStudio, expert: Login
) -> None:
    ids = [f"since-{number}" for number in range(3)]
    numbers = [studio.publish(item(Kind.CHAT, id), urls(item(Kind.CHAT, id))).task_id for id in ids]
    submit(labelstudio_server, expert, numbers[0], [choices("decision", "accept")])
    (first,) = annotations(studio, Kind.CHAT, ids[0])
    time.sleep(0.01)
    submit(labelstudio_server, expert, numbers[1], [choices("decision", "accept")])
    (second,) = annotations(studio, Kind.CHAT, ids[1])
    seen = {parsed.item_id for parsed in studio.annotations(Kind.CHAT, second.created_at)}
    assert ids[1] in seen
    assert ids[0] not in seen
    assert first.created_at < second.created_at


def test_reconciliation_finds_what_is_new_changed_deleted_and_gone(
    labelstudio_server: Server, studio: LabelStudio, expert: Login
) -> None:
    ids = [f"reconcile-{number}" for number in range(4)]
    tasks = [studio.publish(item(Kind.PREFERENCE, id), urls(item(Kind.PREFERENCE, id))).task_id for id in ids]
    pair = {"from_name": "pair", "to_name": "pair", "type": "pairwise", "value": {"selected": "left"}}
    made = [submit(labelstudio_server, expert, task, [pair]) for task in tasks]
    taken: list[Annotation] = []
    before, changes = studio.reconcile(Kind.PREFERENCE, Snapshot(), taken.append)
    project = studio.project(Kind.PREFERENCE).id
    assert {f"{project}:{number}" for number in made} <= set(changes.new)
    own = Connection(labelstudio_server.url, expert.token)
    own.patch(f"/api/annotations/{made[0]}/", {"result": [pair | {"value": {"selected": "right"}}]})
    own.delete(f"/api/annotations/{made[1]}/")
    own.delete(f"/api/tasks/{tasks[2]}/")
    taken.clear()
    _, changes = studio.reconcile(Kind.PREFERENCE, before, taken.append)
    assert changes.updated == (f"{project}:{made[0]}",)
    assert set(changes.deleted) == {f"{project}:{made[1]}", f"{project}:{made[2]}"}
    assert changes.gone == (ids[2],)
    assert not changes.new
    assert [(annotation.item_id, annotation.verdict.ranking) for annotation in taken] == [(ids[0], (1, 0))]
    with pytest.raises(NotFound):
        studio.task(Kind.PREFERENCE, tasks[2])
    # What a person deleted comes back as a new task when it is published again.
    again = studio.publish(item(Kind.PREFERENCE, ids[2]), urls(item(Kind.PREFERENCE, ids[2])))
    assert again.created
    assert again.task_id != tasks[2]
    assert studio.remove(Kind.PREFERENCE, ids[3]) == 1
    assert studio.remove(Kind.PREFERENCE, ids[3]) == 0


def test_a_draft_tells_who_works_on_a_task(
    labelstudio_server: Server, studio: LabelStudio, expert: Login
) -> None:
    about = item(Kind.CHAT, "begun")
    task = studio.publish(about, urls(about)).task_id
    assert studio.drafts(task) == []
    own = Connection(labelstudio_server.url, expert.token)
    own.post(f"/api/tasks/{task}/drafts", {"result": [choices("decision", "accept")], "lead_time": 2})
    (draft,) = studio.drafts(task)
    assert draft.annotator == str(own.get("/api/current-user/whoami")["id"])
    assert not annotations(studio, Kind.CHAT, "begun")


def wait(condition: Callable[[], bool], seconds: float = 20) -> None:
    limit = time.monotonic() + seconds
    while not condition() and time.monotonic() < limit:
        time.sleep(0.05)
    assert condition()


def test_webhooks_arrive_with_their_secret_and_only_with_it(
    labelstudio_server: Server, expert: Login
) -> None:
    events: list[Event] = []
    counts = webhook.Received()
    with hosting(webhook.router(SECRET, events.append, counts)) as url:
        hook = Hook(f"{url}/labelstudio/webhook", SECRET)
        with LabelStudio(labelstudio_server.url, labelstudio_server.admin.token, hook=hook) as studio:
            project = studio.ensure_project(Kind.CHAT).id
            studio.ensure_project(Kind.CHAT)
            hooks = studio.connection.get("/api/webhooks/", project=project)
            assert [found["url"] for found in hooks] == [hook.url]
            about = item(Kind.CHAT, "hooked")
            task = studio.publish(about, urls(about)).task_id
            number = submit(labelstudio_server, expert, task, [choices("decision", "accept")])
            wait(lambda: len(events) == 1)
            own = Connection(labelstudio_server.url, expert.token)
            own.patch(f"/api/annotations/{number}/", {"result": [choices("decision", "reject")]})
            own.delete(f"/api/annotations/{number}/")
            wait(lambda: len(events) == 3)
            assert [event.action for event in events] == [
                "ANNOTATION_CREATED",
                "ANNOTATION_UPDATED",
                "ANNOTATIONS_DELETED",
            ]
            assert {event.project for event in events} == {project}
            assert all(event.annotations == (number,) for event in events)
            assert events[0].tasks == (task,)
            # With another secret nothing gets in; setting the project up again puts it right.
            studio.connection.patch(
                f"/api/webhooks/{hooks[0]['id']}/", {"headers": {"Authorization": "Bearer wrong"}}
            )
            submit(labelstudio_server, expert, task, [choices("decision", "accept")])
            wait(lambda: counts.refused["unauthenticated"] == 1)
            assert len(events) == 3
            studio.ensure_project(Kind.CHAT)
            submit(labelstudio_server, expert, task, [choices("decision", "accept")])
            wait(lambda: len(events) == 4)
            studio.connection.delete(f"/api/webhooks/{hooks[0]['id']}/")


def test_label_studio_asks_our_back_end_for_a_fresh_draft(
    labelstudio_server: Server, studio: LabelStudio
) -> None:
    asked: list[str] = []

    async def draft(data: Any) -> str:
        asked.append(data["item"])
        return "A fresh answer."

    password = SecretStr("a password for drafts")
    routes = ml_backend.router(draft, studio.templates, password, "medmax-phantom")
    about = item(Kind.CHAT, "drafted")
    task = studio.publish(about, urls(about)).task_id
    with hosting(routes) as url:
        backend = ml_backend.connect(studio.connection, studio.project(Kind.CHAT).id, url, password)
        assert ml_backend.connect(studio.connection, studio.project(Kind.CHAT).id, url, password) == backend
        answer = studio.connection.post(f"/api/ml/{backend}/interactive-annotating", {"task": task})
        assert answer["data"]["result"][0]["value"] == {"text": ["A fresh answer."]}
        assert asked == ["drafted"]
        studio.connection.delete(f"/api/ml/{backend}")


def test_a_configuration_changed_by_hand_is_named_and_left_until_told(studio: LabelStudio) -> None:
    project = studio.project(Kind.PICTURE).id
    by_hand = studio.templates[Kind.PICTURE].xml.replace("Other", "Something else")
    studio.connection.patch(f"/api/projects/{project}/", {"label_config": by_hand})
    assert studio.ensure_project(Kind.PICTURE).state is State.CHANGED
    about = item(Kind.PICTURE, "by-hand")
    with pytest.raises(ConfigurationError, match="by hand"):
        studio.publish(about, urls(about))
    assert studio.connection.get(f"/api/projects/{project}/")["label_config"] == by_hand
    assert studio.migrate(Kind.PICTURE) >= 1
    assert studio.publish(about, urls(about)).created


def test_a_new_version_is_migrated_unless_an_annotation_would_be_lost(
    labelstudio_server: Server, studio: LabelStudio, expert: Login, tmp_path: Path
) -> None:
    about = item(Kind.CHAT, "migrated")
    task = studio.publish(about, urls(about)).task_id
    reason = [choices("error", "unsafe_advice"), choices("severity", "major")]
    submit(labelstudio_server, expert, task, [choices("decision", "reject"), *reason])
    for path in templates.FOLDER.iterdir():
        (tmp_path / path.name).write_text(path.read_text())
    chat = tmp_path / "chat.xml"
    version_2 = chat.read_text().replace("mm-chat-v1", "mm-chat-v2")
    chat.write_text(version_2.replace('alias="unsafe_advice"', 'alias="danger"'))
    admin = labelstudio_server.admin.token
    with LabelStudio(labelstudio_server.url, admin, configs=tmp_path) as newer:
        assert newer.ensure_project(Kind.CHAT).state is State.OUTDATED
        with pytest.raises(ConfigurationError, match="error"):
            newer.migrate(Kind.CHAT)
        assert newer.ensure_project(Kind.CHAT).state is State.OUTDATED
    chat.write_text(version_2.replace('value="Unsafe advice"', 'value="Dangerous advice"'))
    with LabelStudio(labelstudio_server.url, admin, configs=tmp_path) as newer:
        assert newer.migrate(Kind.CHAT) >= 1
        assert newer.ensure_project(Kind.CHAT).state is State.CURRENT
        assert annotations(newer, Kind.CHAT, "migrated")[0].verdict.error == "unsafe_advice"
    assert studio.ensure_project(Kind.CHAT).state is State.NEWER
    with pytest.raises(ConfigurationError, match="upgrade"):
        studio.migrate(Kind.CHAT)
    # Back by hand for the tests that follow.
    project = studio.project(Kind.CHAT)
    studio.connection.patch(f"/api/projects/{project.id}/", {"title": "an old one", "description": ""})
    assert studio.ensure_project(Kind.CHAT).id != project.id


def test_a_token_that_was_withdrawn_is_refused(labelstudio_server: Server) -> None:
    gone = labelstudio_server.add_expert("gone@hospital.example", "a long password")
    with LabelStudio(labelstudio_server.url, gone.token) as studio:
        assert studio.project(Kind.REPORT).state is State.CURRENT
    admin = Connection(labelstudio_server.url, gone.token)
    admin.request("POST", "/api/token/blacklist/", json={"refresh": gone.token.get_secret_value()})
    with LabelStudio(labelstudio_server.url, gone.token) as studio, pytest.raises(Unauthenticated):
        studio.project(Kind.REPORT)


def test_a_folder_in_use_is_refused(labelstudio_server: Server) -> None:
    folder = Path(f"/proc/{labelstudio_server.pid}/cwd").resolve()
    with pytest.raises(ConfigurationError, match="uses this folder"), running(folder):
        pass


def test_a_busy_port_is_refused_and_not_shifted(labelstudio_server: Server, tmp_path: Path) -> None:
    port = int(labelstudio_server.url.rpartition(":")[2])
    with pytest.raises(ConfigurationError, match="taken"), running(tmp_path / "other", port):
        pass
