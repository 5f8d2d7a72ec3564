"""What Label Studio and the experts' browsers call: webhook, ML back end, pictures."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import SecretStr

from annotation.core import Kind
from annotation.labelstudio import ml_backend, pictures, render, templates, webhook
from annotation.labelstudio.pictures import PictureLinks
from annotation.labelstudio.webhook import Event, Received
from services.errors import ConfigurationError, InvalidInput, MedMaxError, Unavailable
from services.tokenizer.limits import Limits
from tests.support.labelstudio import REPORT, hosting, item, picture
from tests.support.pictures import dicom

SECRET = SecretStr("a webhook's secret")
LIMITS = Limits(max_bytes=1 << 24, max_pixels=1 << 24)
CREATED = {
    "action": "ANNOTATION_CREATED",
    "annotation": {"id": 7, "task": 4, "updated_at": "2026-11-25T10:00:00Z"},
    "task": {"id": 4, "data": {"text": "Jane Doe"}},
    "project": {"id": 2},
}


class Receiver:
    """A webhook's receiver with a sink that can be slow or broken."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.counts = Received()
        self.hold = threading.Event()
        self.hold.set()
        self.broken = False

    def sink(self, event: Event) -> None:
        self.hold.wait(10)
        if self.broken:
            raise RuntimeError("the disk is full")
        self.events.append(event)


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Receiver, httpx.Client]]:
    receiver = Receiver()
    with (
        hosting(webhook.router(SECRET, receiver.sink, receiver.counts)) as url,
        httpx.Client(base_url=url, timeout=20) as client,
    ):
        yield receiver, client


def post(client: httpx.Client, body: Any, secret: str = SECRET.get_secret_value()) -> httpx.Response:
    return client.post("/labelstudio/webhook", json=body, headers={"Authorization": f"Bearer {secret}"})


def test_an_event_reaches_the_sink_as_numbers_and_twice_with_one_key(
    served: tuple[Receiver, httpx.Client],
) -> None:
    receiver, client = served
    receiver.events.clear()
    assert [post(client, CREATED).status_code for _ in range(2)] == [202, 202]
    first, second = receiver.events
    assert first == second
    assert (first.action, first.project, first.annotations, first.tasks) == (
        "ANNOTATION_CREATED",
        2,
        (7,),
        (4,),
    )
    assert "Jane" not in str(first)


def test_a_later_change_of_an_annotation_is_another_event() -> None:
    later = CREATED | {"annotation": {"id": 7, "task": 4, "updated_at": "2026-11-25T10:00:01Z"}}
    keys = {webhook.read(str_json(body)).key for body in (CREATED, later)}
    assert len(keys) == 2


def str_json(body: Any) -> bytes:
    return httpx.Request("POST", "http://x", json=body).content


@pytest.mark.parametrize("secret", ["", "a webhook's secre", "a webhook's secret ", "wrong"])
def test_a_wrong_secret_is_refused_and_counted(served: tuple[Receiver, httpx.Client], secret: str) -> None:
    receiver, client = served
    receiver.events.clear()
    before = receiver.counts.refused["unauthenticated"]
    # httpx strips what follows a header's value; so does every server.
    expected = 202 if secret.strip() == SECRET.get_secret_value() else 401
    assert post(client, CREATED, secret).status_code == expected
    assert receiver.counts.refused["unauthenticated"] == before + (expected == 401)


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"action": 3},
        CREATED | {"annotation": {"id": "7"}},
        CREATED | {"annotation": {"id": -7}},
        CREATED | {"annotation": 7.5},
        CREATED | {"project": {"id": None}},
        CREATED | {"tasks": ["x"]},
    ],
    ids=str,
)
def test_what_is_no_event_is_refused(served: tuple[Receiver, httpx.Client], body: Any) -> None:
    answer = post(served[1], body)
    assert answer.status_code == 400
    assert "Jane" not in answer.text


def test_a_body_beyond_the_limit_is_refused(
    served: tuple[Receiver, httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "MAX_BYTES", 1000)
    assert post(served[1], CREATED | {"padding": "x" * 1000}).status_code == 413


def test_an_action_that_nobody_asked_for_is_counted_and_forgotten(
    served: tuple[Receiver, httpx.Client],
) -> None:
    receiver, client = served
    receiver.events.clear()
    before = receiver.counts.unknown.total()
    assert post(client, CREATED | {"action": "LABEL_LINK_CREATED"}).status_code == 202
    assert receiver.counts.unknown.total() == before + 1
    assert not receiver.events


def test_a_slow_sink_delays_no_answer_and_loses_nothing(served: tuple[Receiver, httpx.Client]) -> None:
    receiver, client = served
    receiver.events.clear()
    receiver.hold.clear()
    try:
        assert post(client, CREATED).status_code == 202
        assert receiver.counts.late >= 1
        assert not receiver.events
    finally:
        receiver.hold.set()
    limit = time.monotonic() + 10
    while not receiver.events and time.monotonic() < limit:
        time.sleep(0.01)
    assert len(receiver.events) == 1


def test_a_broken_sink_is_counted(served: tuple[Receiver, httpx.Client]) -> None:
    receiver, client = served
    receiver.broken = True
    try:
        assert post(client, CREATED).status_code == 202
    finally:
        receiver.broken = False
    assert receiver.counts.lost == 1


def test_deleted_annotations_come_as_a_list() -> None:
    event = webhook.read(
        str_json(
            {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 3}, {"id": 1}], "project": {"id": 2}}
        )
    )
    assert event.annotations == (1, 3)


@given(st.binary(max_size=60) | st.sampled_from([b"[" * 5000, b'{"action": NaN}', b"\xff"]))
def test_any_bytes_are_an_event_or_refused(body: bytes) -> None:
    with suppress(InvalidInput):
        assert webhook.read(body).key


# ML back end


async def draft(data: Mapping[str, Any]) -> str:
    if data["item"] == "gone":
        raise Unavailable("the model is starting")
    return "It is a large effusion.\nIt lies on the right." if data["text"] == REPORT else "Fresh."


TEMPLATES = {kind: templates.load(kind) for kind in Kind}


@pytest.fixture(scope="module")
def backend() -> Iterator[httpx.Client]:
    routes = ml_backend.router(draft, TEMPLATES, SecretStr("a long password indeed"), "medmax-phantom")
    auth = httpx.BasicAuth("labelstudio", "a long password indeed")
    with hosting(routes) as url, httpx.Client(base_url=url, auth=auth, timeout=20) as client:
        yield client


def ask(kind: Kind, id: str = "int-1") -> dict[str, Any]:
    about = item(kind, id)
    made = render.task(about, TEMPLATES[kind], {p.sha256: "http://x" for p in about.pictures})
    return {"id": 3, "data": made.data, "meta": made.meta}


def test_a_fresh_draft_comes_as_the_editor_wants_it(backend: httpx.Client) -> None:
    body = {"tasks": [ask(Kind.CHAT), ask(Kind.REPORT)], "label_config": "<View/>", "params": {"login": None}}
    answer = backend.post("/predict", json=body).raise_for_status().json()
    chat, report = answer["results"]
    assert chat["result"][0]["value"] == {"text": ["Fresh."]}
    assert report["result"][0]["value"] == {"text": ["It is a large effusion.", "It lies on the right."]}
    assert answer["model_version"] == "medmax-phantom"


def test_a_model_that_is_away_leaves_no_draft(backend: httpx.Client) -> None:
    answer = backend.post("/predict", json={"tasks": [ask(Kind.CHAT, "gone"), ask(Kind.CHAT)]})
    assert [len(entry["result"]) for entry in answer.raise_for_status().json()["results"]] == [0, 1]


@pytest.mark.parametrize("kind", [Kind.PICTURE, Kind.PREFERENCE])
def test_a_kind_without_a_text_has_no_draft(backend: httpx.Client, kind: Kind) -> None:
    assert backend.post("/predict", json={"tasks": [ask(kind)]}).status_code == 400


def test_health_needs_no_password_and_the_rest_does(backend: httpx.Client) -> None:
    url = str(backend.base_url)
    assert httpx.get(f"{url}/health").json()["status"] == "UP"
    assert backend.post("/setup", json={}).json() == {"model_version": "medmax-phantom"}
    for path in ("/setup", "/predict", "/webhook"):
        assert (
            httpx.post(f"{url}{path}", json={"tasks": []}, auth=("labelstudio", "wrong")).status_code == 401
        )


def test_more_tasks_than_the_limit_are_refused(backend: httpx.Client) -> None:
    assert backend.post("/predict", json={"tasks": [ask(Kind.CHAT)] * 51}).status_code == 422


# Pictures


@pytest.fixture(scope="module")
def gallery() -> Iterator[tuple[dict[tuple[str, str], bytes], PictureLinks]]:
    files: dict[tuple[str, str], bytes] = {}

    def read(item_id: str, sha256: str) -> bytes | None:
        return files.get((item_id, sha256))

    secret = SecretStr("a picture's secret")
    with hosting(pictures.router(PictureLinks("http://x", secret), read, LIMITS)) as url:
        yield files, PictureLinks(url, secret)


Gallery = tuple[dict[tuple[str, str], bytes], PictureLinks]


def test_a_signed_address_shows_the_picture_until_it_is_gone(gallery: Gallery) -> None:
    files, links = gallery
    about = item(Kind.CHAT, "int-1")
    shown = about.pictures[0]
    files[("int-1", shown.sha256)] = shown.data or b""
    url = links.urls(about)[shown.sha256]
    answer = httpx.get(url).raise_for_status()
    assert answer.headers["access-control-allow-origin"] == "*"
    with Image.open(BytesIO(answer.content)) as got, Image.open(BytesIO(shown.data or b"")) as sent:
        assert np.array_equal(np.asarray(got), np.asarray(sent))
    files.clear()
    assert httpx.get(url).status_code == 404


def test_a_dicom_file_is_shown_without_its_tags(gallery: Gallery) -> None:
    files, links = gallery
    film = dicom(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64))
    shown = picture(3)
    files[("int-2", shown.sha256)] = film
    about = item(Kind.CHAT, "int-2", answer=(shown,), dialogue=())
    content = httpx.get(links.urls(about)[shown.sha256]).raise_for_status().content
    assert content.startswith(b"\x89PNG")
    assert b"Doe" not in content


@pytest.mark.parametrize(
    "change", [("item=int-1", "item=int-2"), ("signature=", "signature=0"), ("until=", "until=9")]
)
def test_a_changed_address_shows_nothing(gallery: Gallery, change: tuple[str, str]) -> None:
    files, links = gallery
    about = item(Kind.CHAT, "int-1")
    shown = about.pictures[0]
    for name in ("int-1", "int-2"):
        files[(name, shown.sha256)] = shown.data or b""
    url = links.urls(about)[shown.sha256]
    assert httpx.get(url.replace(*change)).status_code == 404


def test_an_address_ends_with_its_days(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    files, links = gallery
    about = item(Kind.CHAT, "int-1")
    shown = about.pictures[0]
    files[("int-1", shown.sha256)] = shown.data or b""
    url = links.urls(about)[shown.sha256]
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 29 * pictures.DAY_S)
    assert httpx.get(url).status_code == 200
    monkeypatch.setattr(time, "time", lambda: now + 32 * pictures.DAY_S)
    assert httpx.get(url).status_code == 404


@pytest.mark.parametrize("make", [lambda s: webhook.router(s, print), lambda s: PictureLinks("http://x", s)])
def test_a_short_secret_is_refused(make: Any) -> None:
    with pytest.raises(MedMaxError) as caught:
        make(SecretStr("short"))
    assert isinstance(caught.value, ConfigurationError)
    assert "short" not in str(caught.value).replace("shorter", "")
