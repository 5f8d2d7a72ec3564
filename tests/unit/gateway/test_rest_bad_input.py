"""Everything a caller can get wrong: the right status, the field, the limit, and the server goes on."""

from __future__ import annotations

import base64
import io
import json
import logging
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from rest_server import Server, picture

CHAT = "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}


def chat(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1, **fields}


def say(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"messages": list(messages), "max_tokens": 1, **fields}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def showing(data: bytes | str, kind: str = "image/png") -> dict[str, Any]:
    encoded = data if isinstance(data, str) else base64.b64encode(data).decode()
    return say(user([{"type": "image_url", "image_url": {"url": f"data:{kind};base64,{encoded}"}}]))


def linked(url: str) -> dict[str, Any]:
    return say(user([{"type": "image_url", "image_url": {"url": url}}]))


def refused(response: httpx.Response, status: int, field: str | None, said: str = "") -> dict[str, Any]:
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == field
    assert said in error["message"]
    assert "Traceback" not in response.text
    return error


@pytest.fixture(autouse=True)
def goes_on(server: Server, http: httpx.Client) -> Iterator[None]:
    """After each test the server still answers, and holds nothing back."""
    yield
    assert http.post(CHAT, json=chat()).status_code == 200
    server.wait_until_idle()


IMAGE_FIELD = "messages[0].content[0].image_url.url"
FIELDS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no messages": ({}, "messages", "required"),
    "empty messages": ({"messages": []}, "messages", "at least 1"),
    "messages of a wrong type": ({"messages": "hello"}, "messages", "list"),
    "message of a wrong type": ({"messages": ["hello"]}, "messages[0]", ""),
    "65 messages": (
        say(*[{"role": "user" if i % 2 == 0 else "assistant", "content": "x"} for i in range(65)]),
        "messages",
        "at most 64",
    ),
    "unknown role": (say({"role": "robot", "content": "x"}), "messages[0].role", "'user'"),
    "two users": (say(user("x"), user("y")), "messages[1].role", "alternate"),
    "no user at the end": (
        say(user("x"), {"role": "assistant", "content": "y"}),
        "messages[1].role",
        "the user's",
    ),
    "empty prompt": (say(user("")), "messages[0]", "empty"),
    "blank prompt": (say(user([{"type": "text", "text": " \n"}])), "messages[0]", "empty"),
    "no content": (say({"role": "user"}), "messages[0]", "empty"),
    "content of a wrong type": (say(user(7)), "messages[0].content", "string"),
    "part of an unknown type": (
        say(user([{"type": "input_audio", "input_audio": {}}])),
        "messages[0].content[0]",
        "type text or image_url",
    ),
    "part without its text": (say(user([{"type": "text"}])), "messages[0].content[0].text", "required"),
    "unknown field": (chat(temprature=1), "temprature", "unknown field"),
    "unknown field of a message": (say({**user("x"), "tone": 1}), "messages[0].tone", "unknown field"),
    "unknown field of a part": (
        say(user([{"type": "text", "text": "x", "bold": True}])),
        "messages[0].content[0].bold",
        "unknown field",
    ),
    "unknown stream option": (chat(stream_options={"x": 1}), "stream_options.x", "unknown field"),
    "temperature as a string": (chat(temperature="0.5"), "temperature", "number"),
    "temperature as a boolean": (chat(temperature=True), "temperature", "number"),
    "negative temperature": (chat(temperature=-0.01), "temperature", "greater than or equal to 0"),
    "huge temperature": (chat(temperature=1e308), "temperature", "less than or equal to 2"),
    "top_p 0": (chat(top_p=0), "top_p", "greater than 0"),
    "top_k": (chat(top_k=65_537), "top_k", "65536"),
    "fractional top_k": (chat(top_k=1.5), "top_k", "integer"),
    "repetition_penalty": (chat(repetition_penalty=6), "repetition_penalty", "5"),
    "guidance": (chat(guidance_text=21), "guidance_text", "20"),
    "negative seed": (chat(seed=-1), "seed", "greater than or equal to 0"),
    "huge seed": (chat(seed=2**64), "seed", str(2**64 - 1)),
    "max_tokens 0": (chat(max_tokens=0), "max_tokens", "greater than or equal to 1"),
    "max_tokens huge": (chat(max_tokens=10**12), "max_tokens", "65536"),
    "two different limits": (chat(max_completion_tokens=2), "max_tokens", "max_completion_tokens"),
    "five stops": (chat(stop=list("abcde")), "stop", "at most 4"),
    "empty stop": (chat(stop=""), "stop", "at least 1"),
    "long stop in a list": (chat(stop=["x" * 65]), "stop[0]", "at most 64"),
    "top_logprobs alone": (chat(top_logprobs=1), "top_logprobs", "logprobs: true"),
    "too many top_logprobs": (chat(logprobs=True, top_logprobs=21), "top_logprobs", "20"),
    "stream as a string": (chat(stream="yes"), "stream", "boolean"),
    "no modality": (chat(modalities=[]), "modalities", "at least 1"),
    "pictures in a text answer": (chat(max_images=1), "max_images", "text alone"),
    "17 new pictures": (chat(modalities=["text", "image"], max_images=17), "max_images", "16"),
    "too few tokens for a picture": (
        chat(modalities=["image"], max_tokens=17),
        "max_tokens",
        "at least 18",
    ),
    "image size": (chat(modalities=["image"], max_tokens=18, image_size=4096), "image_size", "2048"),
    "image format": (chat(image_format="gif"), "image_format", "'png'"),
    "priority": (chat(priority="soon"), "priority", "'stat'"),
    "retention beyond the installation's": (chat(retention_days=31), "retention_days", "30"),
    "metadata of a wrong type": (chat(metadata={"a": 1}), "metadata.a", "string"),
    "window of no width": (chat(window={"center": 1, "width": 0}), "window.width", "greater than 0"),
    "window on an 8-bit picture": (
        {**showing(picture()), "window": {"center": 1, "width": 1}},
        "window",
        "",
    ),
    "prompt longer than the context": (say(user("z" * 600)), "messages", "511"),
    "17 pictures": (
        say(user([showing(picture())["messages"][0]["content"][0]] * 17)),
        "messages[0].content[16].image_url.url",
        "16 pictures",
    ),
    "more pictures than fit": (
        say(
            user(
                [showing(picture())["messages"][0]["content"][0]] * 16 + [{"type": "text", "text": "z" * 300}]
            )
        ),
        "messages",
        "11 pictures fit",
    ),
    "pictures of a user": (
        say({**user("x"), "parts": [{"type": "text", "text": "y"}]}),
        "messages[0].parts",
        "",
    ),
    "picture that is not there": (
        say(
            user("x"),
            {"role": "assistant", "content": "y", "parts": [{"type": "image", "index": 0}]},
            user("z"),
        ),
        "messages[1].parts[0].index",
        "0 images",
    ),
    "no base64": (linked("data:image/png,abc"), IMAGE_FIELD, "base64"),
    "broken base64": (showing("@@@@"), IMAGE_FIELD, "base64"),
    "empty picture": (showing(""), IMAGE_FIELD, "empty"),
    "picture of a wrong type": (showing(picture(), "text/html"), IMAGE_FIELD, "image/"),
    "http address": (linked("http://example.org/a.png"), IMAGE_FIELD, "data: URL"),
    "https address": (linked("https://169.254.169.254/latest"), IMAGE_FIELD, "data: URL"),
    "file address": (linked("file:///etc/passwd"), IMAGE_FIELD, "data: URL"),
    "no address": (linked("picture.png"), IMAGE_FIELD, "data: URL"),
    "surrogate": (say(user("\ud800")), "messages[0].content", "surrogate"),
    "surrogate in a name": ({"\udc00": 1}, "\\udc00", "surrogate"),
    "NUL": (say(user("a\0b")), "messages[0].content", "U+0000"),
    "NUL in a field that is not read": (chat(user="a\0b"), "user", "U+0000"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_bad_field_is_named_with_its_limit(http: httpx.Client, name: str) -> None:
    body, field, said = FIELDS[name]
    refused(http.post(CHAT, content=json.dumps(body), headers=JSON), 400, field, said)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("tool_choice", "required"),
        ("functions", [{"name": "f"}]),
        ("function_call", {"name": "f"}),
        ("response_format", {"type": "json_object"}),
        ("logit_bias", {"50256": -100}),
        ("n", 2),
        ("audio", {"voice": "x"}),
        ("prediction", {"type": "content"}),
        ("reasoning_effort", "high"),
        ("web_search_options", {}),
        ("presence_penalty", 0.1),
        ("frequency_penalty", -1),
        ("verbosity", "low"),
        ("modalities", ["text", "audio"]),
    ],
)
def test_unsupported_field_of_openais_api_is_refused_by_name(
    http: httpx.Client, field: str, value: Any
) -> None:
    error = refused(http.post(CHAT, json=chat(**{field: value})), 400, field)
    assert error["code"] == "unsupported_field"


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"role": "tool", "content": "x", "tool_call_id": "y"}, "messages[1].role"),
        ({"role": "assistant", "content": None, "tool_calls": [{"id": "y"}]}, "messages[1].tool_calls"),
    ],
)
def test_tool_turns_are_refused_by_name(http: httpx.Client, message: dict[str, Any], field: str) -> None:
    body = say(user("x"), message, user("y"))
    assert refused(http.post(CHAT, json=body), 400, field)["code"] == "unsupported_field"


@pytest.mark.parametrize(
    ("content", "field", "said"),
    [
        (b"", "body", "not JSON"),
        (b"{", "body", "line 1"),
        (b"[]", "body", "JSON object"),
        (b'"x"', "body", "JSON object"),
        (b"null", "body", "JSON object"),
        (b'{"temperature": NaN}', "temperature", "finite"),
        (b'{"temperature": -Infinity}', "temperature", "finite"),
        (b'{"temperature": 1e999}', "temperature", "finite"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "body", "digits"),
        (b'{"model": "a", "model": "b"}', "model", "twice"),
        (b'{"messages": [{"role": "user", "role": "system"}]}', "role", "twice"),
        (b"\xff\xfe{}", "body", "UTF-8"),
        ('{"model": "ä"}'.encode("latin-1"), "body", "UTF-8"),
        ("\ufeff{}".encode(), "body", "JSON"),
        (b"[" * 100_000, "body", "32 levels"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "body", "32 levels"),
        (b'{"messages": ' + b"[" * 5000 + b"]" * 5000 + b"}", "body", "32 levels"),
    ],
)
def test_body_that_is_no_good_json_is_refused(
    http: httpx.Client, content: bytes, field: str, said: str
) -> None:
    refused(http.post(CHAT, content=content, headers=JSON), 400, field, said)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None]
)
def test_wrong_content_type_is_415(http: httpx.Client, kind: str | None) -> None:
    headers = {"Content-Type": kind} if kind else {}
    refused(
        http.post(CHAT, content=json.dumps(chat()).encode(), headers=headers), 415, "Content-Type", "json"
    )


def test_body_over_the_limit_is_413_whether_its_length_is_declared_or_not(http: httpx.Client) -> None:
    large = json.dumps(chat(user="x" * 500_000)).encode()
    refused(http.post(CHAT, content=large, headers=JSON), 413, "body", "400,000 bytes")
    chunks = (large[i : i + 65_536] for i in range(0, len(large), 65_536))
    refused(http.post(CHAT, content=chunks, headers=JSON), 413, "body", "400,000 bytes")


def test_picture_over_the_limit_is_413_under_its_name(http: httpx.Client) -> None:
    refused(http.post(CHAT, json=showing(b"\x89PNG" + bytes(200_001))), 413, IMAGE_FIELD, "200,000 bytes")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb() -> bytes:
    """A PNG of a few hundred bytes that says it has 10^10 pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def animated() -> bytes:
    file = io.BytesIO()
    frames = [Image.new("RGB", (16, 16), (shade, 0, 0)) for shade in (0, 200)]
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:])
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "statuses"),
    [
        ("text", b"hello, I am no picture", {400}),
        ("truncated", picture(file_format="JPEG")[:200], {400}),
        ("bomb", bomb(), {400, 413}),
        ("animated", animated(), {400}),
        ("dicom without pixels", bytes(128) + b"DICM", {400}),
        ("gif", picture(file_format="GIF"), {400}),
    ],
)
def test_hostile_picture_is_refused_under_its_name(
    http: httpx.Client, name: str, data: bytes, statuses: set[int]
) -> None:
    reply = http.post(CHAT, json=showing(data))
    assert reply.status_code in statuses, reply.text
    assert reply.json()["error"]["param"] == IMAGE_FIELD


def test_one_pixel_sixteen_bit_and_cmyk_pictures_do_not_hurt(http: httpx.Client) -> None:
    deep = io.BytesIO()
    Image.new("I;16", (20, 20), 3000).save(deep, "PNG")
    cmyk = io.BytesIO()
    Image.new("CMYK", (20, 20)).save(cmyk, "JPEG")
    for data in (picture((1, 1)), deep.getvalue(), cmyk.getvalue()):
        reply = http.post(CHAT, json=showing(data))
        assert reply.status_code in (200, 400), reply.text
        if reply.status_code == 400:
            assert reply.json()["error"]["param"] == IMAGE_FIELD


def test_unknown_model_is_404(http: httpx.Client) -> None:
    assert refused(http.post(CHAT, json=chat(model="gpt-4o")), 404, "model", "medmax-phantom")["code"] == (
        "model_not_found"
    )
    refused(http.get("/v1/models/gpt-4o"), 404, "model", "medmax-phantom")


def test_unknown_address_and_wrong_method_have_openais_shape(http: httpx.Client) -> None:
    refused(http.get("/v1/embeddings"), 404, None)
    wrong = http.get(CHAT)
    refused(wrong, 405, None)
    assert wrong.headers["allow"] == "POST"


@pytest.mark.parametrize("value", ["0", "-5", "1.5", "soon", "99999999999999", "١"])
def test_bad_timeout_header_is_named(http: httpx.Client, value: str) -> None:
    headers = {"X-Request-Timeout-Ms": value.encode()}  # type: ignore[dict-item]
    refused(http.post(CHAT, json=chat(), headers=headers), 400, "X-Request-Timeout-Ms", "milliseconds")


def test_deadline_in_the_header_ends_the_request(http: httpx.Client, long_body: dict[str, Any]) -> None:
    error = refused(
        http.post(CHAT, json=long_body, headers={"X-Request-Timeout-Ms": "60"}), 504, "X-Request-Timeout-Ms"
    )
    assert error["code"] == "deadline_exceeded"


def test_deadline_within_a_stream_is_an_error_event_without_done(
    http: httpx.Client, long_body: dict[str, Any]
) -> None:
    body = long_body | {"stream": True}
    with http.stream("POST", CHAT, json=body, headers={"X-Request-Timeout-Ms": "150"}) as response:
        assert response.status_code == 200
        lines = [line for line in response.iter_lines() if line]
    assert lines[-2] == "event: error"
    assert json.loads(lines[-1].removeprefix("data: "))["error"]["code"] == "deadline_exceeded"
    assert "data: [DONE]" not in lines


def test_every_response_carries_security_headers(http: httpx.Client) -> None:
    for response in (http.get("/healthz"), http.get("/nowhere"), http.post(CHAT, json=chat())):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in response.headers


ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["user", "assistant", "text", "image_url", "image", "medmax-phantom", "data:image/png;base64,"]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
NAMES = sorted(
    {
        "messages",
        "modalities",
        "stop",
        "stream",
        "seed",
        "temperature",
        "n",
        "tools",
        "metadata",
        "window",
        "model",
    }
)


@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    body=st.one_of(
        ANY_JSON,
        st.dictionaries(st.sampled_from(NAMES), ANY_JSON, max_size=4).map(lambda fields: chat(**fields)),
        st.lists(
            st.fixed_dictionaries(
                {"role": st.sampled_from(["system", "user", "assistant"]) | ANY_JSON, "content": ANY_JSON},
                optional={"images": ANY_JSON, "parts": ANY_JSON},
            ),
            max_size=4,
        ).map(lambda messages: say(*messages)),
    ),
    path=st.sampled_from([CHAT, "/v1/images/generations", "/v1/feedback"]),
)
def test_no_json_body_causes_a_server_error(http: httpx.Client, body: Any, path: str) -> None:
    response = http.post(path, content=json.dumps(body).encode(), headers=JSON)
    assert response.status_code < 500, response.text
    if response.status_code != 200:
        assert response.json()["error"]["param"]


def test_unforeseen_exception_gives_a_reference_and_logs_no_prompt(
    server: Server, http: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "Jane Doe, born 1951"

    def broken(*_: Any) -> Any:
        raise RuntimeError(secret)

    monkeypatch.setattr(type(server.assistant.model), "sampling", broken)
    with caplog.at_level(logging.INFO):
        reply = http.post(CHAT, json=say(user(secret)))
    monkeypatch.undo()
    error = refused(reply, 500, None, "reference ")
    assert error["code"] == "internal_error"
    reference = error["message"].split()[-1]
    assert reference in caplog.text
    assert "RuntimeError" in caplog.text
    assert "Jane" not in caplog.text + reply.text
