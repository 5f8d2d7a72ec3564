"""The chat dialect, with the `openai` client against a real server."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import httpx
import openai
import pytest
from PIL import Image
from rest_server import Server, picture

MODEL = "medmax-phantom"


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def image_part(data: bytes, kind: str = "image/png") -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(data, kind)}}


def decoded(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def test_question_on_a_picture(client: openai.OpenAI, server: Server) -> None:
    reply: Any = client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [image_part(picture()), {"type": "text", "text": "Is there an effusion?"}],  # type: ignore[list-item]
            },
        ],
        max_tokens=8,
        temperature=0,
        user="ward-3",
        metadata={"case": "17"},
    )
    assert reply.object == "chat.completion"
    assert reply.model == MODEL
    assert reply.choices[0].finish_reason in ("stop", "length")
    assert isinstance(reply.choices[0].message.content, str)
    assert not hasattr(reply.choices[0].message, "images")
    assert reply.usage.prompt_tokens_details.image_tokens == 16
    assert reply.usage.completion_tokens <= 8
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert len(reply.system_fingerprint) == 64
    assert reply.interaction_id.startswith("int_")
    assert reply.confidence["mean_logprob"] <= 0
    assert reply.latency["total_ms"] > 0


def test_pictures_come_back_with_their_order(client: openai.OpenAI) -> None:
    for seed in range(20):
        reply: Any = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Show two pictures."}],
            max_completion_tokens=120,
            seed=seed,
            extra_body={"modalities": ["text", "image"], "max_images": 2, "image_format": "webp"},
        )
        message = reply.choices[0].message
        if len(message.images) == 2 and message.content:
            break
    else:
        pytest.fail("no seed gave two pictures and text")
    assert [image["index"] for image in message.images] == [0, 1]
    for image in message.images:
        opened = decoded(image["image_url"]["url"])
        assert (opened.format, opened.size) == ("WEBP", (image["width"], image["height"]))
        assert image["synthetic"] is True
        assert image["confidence"]["tokens"] == 16
    assert [part["index"] for part in message.parts if part["type"] == "image"] == [0, 1]
    assert "".join(part["text"] for part in message.parts if part["type"] == "text") == message.content
    assert reply.usage.images == 2

    # The answer goes back in the next turn as it came.
    again: Any = client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "user", "content": "Show two pictures."},
            message.model_dump(),
            {"role": "user", "content": "Which one is larger?"},
        ],
        max_tokens=2,
    )
    assert again.usage.prompt_tokens_details.image_tokens == 32


def test_image_modality_gives_one_picture_and_no_text(client: openai.OpenAI) -> None:
    reply: Any = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "A chest radiograph."}],
        extra_body={"modalities": ["image"], "image_size": 64, "visible_mark": True},
    )
    message = reply.choices[0].message
    assert message.content is None
    assert decoded(message.images[0]["image_url"]["url"]).size == (64, 64)


def test_stream_says_the_same_as_the_whole_answer(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Show a fundus."}],
        "max_tokens": 100,
        "seed": 3,
        "extra_body": {"modalities": ["text", "image"], "max_images": 2},
    }
    whole: Any = client.chat.completions.create(**asked)
    chunks: list[Any] = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == whole.choices[0].message.content
    images = [image for delta in deltas for image in getattr(delta, "images", None) or []]
    assert images == whole.choices[0].message.images
    assert len({chunk.id for chunk in chunks}) == 1
    last, usage = chunks[-2], chunks[-1]
    assert last.choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.interaction_id.startswith("int_")
    assert last.system_fingerprint == whole.system_fingerprint
    assert usage.choices == []
    assert usage.usage.completion_tokens == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_stream_on_the_wire_is_server_sent_events(http: httpx.Client) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "stream": True, "max_tokens": 3}
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = [line for line in response.iter_lines() if line]
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "content-length" not in response.headers
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    assert "usage" not in json.loads(lines[0][6:])


async def test_streamed_text_arrives_piece_by_piece(server: Server, long_prompt: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": long_prompt}],
            temperature=0,
            stream=True,
            extra_body={"repetition_penalty": 1},
        )
        pieces = [chunk.choices[0].delta.content async for chunk in stream]
    assert len(pieces) > 3


def test_logprobs_have_openais_shape(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "x"}],
        max_tokens=4,
        logprobs=True,
        top_logprobs=2,
    )
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    tokens = logprobs.content or []
    assert len(tokens) >= 1
    for token in tokens:
        assert token.logprob <= 0
        assert bytes(token.bytes or []) == token.token.encode()
        assert len(token.top_logprobs) == 2


def test_stop_string_ends_the_answer(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "x"}],
        "max_tokens": 60,
        "seed": 5,
    }
    whole = client.chat.completions.create(**asked).choices[0].message.content or ""
    stop = next(char for char in whole[3:] if char.isprintable())
    cut = client.chat.completions.create(**asked, stop=stop).choices[0]
    assert cut.finish_reason == "stop"
    assert cut.message.content == whole[: whole.index(stop)]


def test_harmless_fields_of_openais_api_are_accepted(http: httpx.Client) -> None:
    body = {
        "model": MODEL,
        "messages": [{"role": "developer", "content": "x"}, {"role": "user", "content": "y", "name": "z"}],
        "max_tokens": 1,
        "n": 1,
        "user": "u",
        "metadata": {"a": "b"},
        "stream_options": None,
        "service_tier": "auto",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "parallel_tool_calls": True,
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "logit_bias": {},
        "tools": [],
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "store": True,
        "top_logprobs": None,
    }
    reply = http.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text


def test_dicom_is_read_with_the_requests_window(http: httpx.Client) -> None:
    import numpy as np
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = CTImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = generate_uid()
    image.Rows = image.Columns = 16
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation = 15, 0
    image.PixelData = np.arange(256, dtype=np.uint16).tobytes()
    file = io.BytesIO()
    image.save_as(file, enforce_file_format=True)
    body = {
        "messages": [{"role": "user", "content": [image_part(file.getvalue(), "application/dicom")]}],
        "window": {"center": 128, "width": 40},
        "max_tokens": 1,
    }
    reply = http.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    stored = http.get(f"/v1/interactions/{reply.json()['interaction_id']}").json()
    part = stored["messages"][0]["content"][0]
    assert (part["mime_type"], part["width"]) == ("application/dicom", 16)
    assert part["window"] == {"center": 128, "width": 40}


def test_request_id_is_echoed_or_made_up(http: httpx.Client) -> None:
    assert http.get("/healthz", headers={"X-Request-ID": "ris-17"}).headers["x-request-id"] == "ris-17"
    made_up = http.get("/healthz", headers={"X-Request-ID": "Jane Doe"}).headers["x-request-id"]
    assert len(made_up) == 32


def test_caller_who_leaves_a_stream_frees_the_engine(server: Server, long_body: dict[str, Any]) -> None:
    finished = server.engine.stats().finished
    body = long_body | {"stream": True}
    with server.client() as http, http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert next(response.iter_lines()).startswith("data: ")
    server.wait_until_idle()
    assert server.engine.stats().finished == finished
    server.engine.check_integrity()


def test_caller_who_does_not_wait_for_the_answer_frees_the_engine(
    server: Server, long_body: dict[str, Any]
) -> None:
    finished = server.engine.stats().finished
    with server.client() as http, pytest.raises(httpx.ReadTimeout):
        http.post("/v1/chat/completions", json=long_body, timeout=0.05)
    server.wait_until_idle()
    assert server.engine.stats().finished == finished
    server.engine.check_integrity()
