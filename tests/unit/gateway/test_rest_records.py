"""Feedback, interactions, models, health, metrics and the documentation."""

from __future__ import annotations

import base64
import io
import json
import re
from typing import Any

import httpx
import pytest
from PIL import Image
from rest_server import Server, picture

from services.gateway.rest import examples

CHAT = "/v1/chat/completions"


def ask(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    url = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "what?"}]
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 40, **fields}
    reply = http.post(CHAT, json=body)
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def test_stored_interaction_tells_what_was_asked_and_answered(http: httpx.Client) -> None:
    answer = ask(http, modalities=["image"], temperature=0.5, seed=2**63, consent_training=True)
    url = f"/v1/interactions/{answer['interaction_id']}"
    shown = http.get(url).json()
    assert shown["modalities"] == ["image"]
    assert shown["messages"][0]["role"] == "user"
    asked, text = shown["messages"][0]["content"]
    assert (asked["image_url"]["url"], asked["mime_type"], asked["synthetic"]) == (None, "image/png", False)
    assert text == {"type": "text", "text": "what?"}
    assert shown["output"][0]["sha256"] == answer["choices"][0]["message"]["images"][0]["sha256"]
    assert (shown["sampling"]["temperature"], shown["sampling"]["seed"]) == (0.5, 2**63)
    assert shown["usage"] == answer["usage"]
    assert shown["consent_training"] is True
    assert shown["caller"] == "local"
    assert shown["system_fingerprint"] == answer["system_fingerprint"]

    full = http.get(url, params={"include_images": "true"}).json()
    data = full["messages"][0]["content"][0]["image_url"]["url"].partition(",")[2]
    assert base64.b64decode(data) == picture()
    assert (
        full["output"][0]["image_url"]["url"]
        == answer["choices"][0]["message"]["images"][0]["image_url"]["url"]
    )
    assert Image.open(io.BytesIO(base64.b64decode(full["output"][0]["image_url"]["url"].partition(",")[2])))


def test_answer_that_was_not_to_be_stored_is_not(http: httpx.Client) -> None:
    assert ask(http, store=False)["interaction_id"] is None


def test_feedback_appears_with_the_interaction(http: httpx.Client) -> None:
    interaction_id = ask(http)["interaction_id"]
    given = {
        "interaction_id": interaction_id,
        "rating": 2,
        "flag": True,
        "comment": "hm",
        "corrected_text": "No.",
    }
    made = http.post("/v1/feedback", json=given)
    assert made.status_code == 200, made.text
    feedback = http.get(f"/v1/interactions/{interaction_id}").json()["feedback"]
    assert [entry["id"] for entry in feedback] == [made.json()["id"]]
    assert {name: feedback[0][name] for name in ("rating", "flag", "comment", "corrected_text")} == {
        name: given[name] for name in ("rating", "flag", "comment", "corrected_text")
    }


NO_SUCH = "int_" + "0" * 32


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"interaction_id": NO_SUCH, "flag": True}, 404, "interaction_id"),
        ({"interaction_id": "17", "flag": True}, 400, "interaction_id"),
        ({"interaction_id": NO_SUCH}, 400, "rating"),
        ({"interaction_id": NO_SUCH, "rating": 6}, 400, "rating"),
        ({"interaction_id": NO_SUCH, "rating": "5"}, 400, "rating"),
        ({"interaction_id": NO_SUCH, "comment": "x" * 4001}, 400, "comment"),
        ({"interaction_id": NO_SUCH, "corrected_text": "x" * 16_001}, 400, "corrected_text"),
        ({"interaction_id": NO_SUCH, "stars": 5}, 400, "stars"),
        ({"flag": True}, 400, "interaction_id"),
    ],
)
def test_bad_feedback_is_refused_by_field(
    http: httpx.Client, body: dict[str, Any], status: int, field: str
) -> None:
    reply = http.post("/v1/feedback", json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (status, field)


def test_interaction_that_is_not_there_is_404(http: httpx.Client) -> None:
    assert http.get(f"/v1/interactions/{NO_SUCH}").status_code == 404
    bad = http.get("/v1/interactions/../../etc/passwd%00")
    assert bad.status_code in (400, 404)
    query = http.get(f"/v1/interactions/{NO_SUCH}", params={"include_images": "perhaps"})
    assert (query.status_code, query.json()["error"]["param"]) == (400, "include_images")


def test_models_are_listed_and_found(http: httpx.Client) -> None:
    models = http.get("/v1/models").json()
    assert [model["id"] for model in models["data"]] == ["medmax-phantom"]
    assert http.get("/v1/models/medmax-phantom").json() == models["data"][0]


def test_health_readiness_and_metrics_answer(http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    assert http.get("/readyz").json() == {"status": "ready"}
    http.post(CHAT, json={"messages": []})
    page = http.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    sample = 'medmax_requests_total{code="invalid_input",method="chat_completions",service="gateway"}'
    assert sample in page.text


def test_readiness_tells_when_a_service_is_down(server: Server, http: httpx.Client, monkeypatch: Any) -> None:
    async def sick() -> None:
        from services.errors import Unavailable

        raise Unavailable("the decoder is going down", retry_after_s=1)

    monkeypatch.setattr(server.assistant.backends.decoder, "check_health", sick)
    reply = http.get("/readyz")
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    assert http.get("/healthz").status_code == 200


def test_docs_need_nothing_from_elsewhere(http: httpx.Client) -> None:
    page = http.get("/docs")
    assert page.status_code == 200
    assert "http://" not in page.text + page.headers["content-security-policy"]
    assert "https://" not in page.text
    for address in re.findall(r'(?:src|href)="(docs/[^"]+)"', page.text):
        asset = http.get(f"/{address}")
        assert asset.status_code == 200, address
        assert len(asset.content) > 50
        assert "unsafe-inline" not in asset.headers["content-security-policy"]
    assert len(re.findall(r"<script", page.text)) == len(re.findall(r"<script src=", page.text)) == 2


def test_openapi_document_names_every_reference(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert names == set(document["components"]["schemas"])
    assert {"ChatRequest", "ImagesRequest", "ErrorReply", "ChatReply"} <= names


@pytest.mark.parametrize("name", examples.CHAT)
def test_chat_example_of_the_docs_works(http: httpx.Client, name: str) -> None:
    reply = http.post(CHAT, json=examples.CHAT[name]["value"])
    assert reply.status_code == 200, reply.text


def test_other_examples_of_the_docs_work(http: httpx.Client) -> None:
    assert http.post("/v1/images/generations", json=examples.IMAGES["draw"]["value"]).status_code == 200
    interaction_id = ask(http)["interaction_id"]
    body = {**examples.FEEDBACK["correct"]["value"], "interaction_id": interaction_id}
    assert http.post("/v1/feedback", json=body).status_code == 200
