"""Every limit of a `GenerateRequest`, by field."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from services.config import Settings
from services.errors import InvalidInput, MedMaxError, ModelNotFound, PayloadTooLarge
from services.gateway.validate import check_generate
from services.pb.medmax.v1 import assistant_pb2, common_pb2

SYSTEM, USER, ASSISTANT = (
    assistant_pb2.ROLE_SYSTEM,
    assistant_pb2.ROLE_USER,
    assistant_pb2.ROLE_ASSISTANT,
)
Request = assistant_pb2.GenerateRequest
LIMITED = Settings(max_text_chars=1_000, max_image_bytes=2_000)


def conversation(*turns: tuple[Any, str], **fields: Any) -> Request:
    request = Request(**fields)
    for role, text in turns:
        request.messages.add(role=role).parts.add(text=text)
    return request


def one(change: Callable[[Request], object]) -> Request:
    request = conversation((USER, "hello"))
    change(request)
    return request


def with_image(**fields: Any) -> Request:
    request = conversation((USER, "hello"))
    request.messages[0].parts.add(image=assistant_pb2.ImagePart(**fields))
    return request


def sampling(**fields: Any) -> Request:
    return conversation((USER, "hello"), sampling=common_pb2.Sampling(**fields))


GOOD = {
    "one turn": conversation((USER, "hello")),
    "system first": conversation((SYSTEM, "be brief"), (SYSTEM, "be kind"), (USER, "hello")),
    "three turns": conversation((USER, "a"), (ASSISTANT, "b"), (USER, "c")),
    "picture alone": one(
        lambda r: (
            r.messages[0].parts[0].CopyFrom(assistant_pb2.Part(image=assistant_pb2.ImagePart(data=b"x")))
        )
    ),
    "edges of sampling": sampling(
        temperature=0, top_p=1, top_k=65536, repetition_penalty=0.5, guidance_text=20, seed=2**64 - 1
    ),
    "no pictures in text": conversation((USER, "hello"), max_images=0),
    "served model": conversation((USER, "hello"), model="medmax-phantom"),
    "longest stop": conversation((USER, "hello"), stop=["x" * 64] * 4),
    "most text": conversation((USER, "x" * 1000)),
}

BAD: dict[str, tuple[Request, str, str]] = {
    "no messages": (Request(), "messages", "1 to 64"),
    "65 messages": (
        conversation(*[(USER if i % 2 == 0 else ASSISTANT, "x") for i in range(65)]),
        "messages",
        "1 to 64",
    ),
    "no role": (conversation((assistant_pb2.ROLE_UNSPECIFIED, "x")), "messages[0].role", "system, user"),
    "role from the future": (conversation((USER, "x"), (9, "y")), "messages[1].role", "system, user"),
    "two users": (conversation((USER, "a"), (USER, "b")), "messages[1].role", "alternate"),
    "assistant first": (conversation((ASSISTANT, "a"), (USER, "b")), "messages[0].role", "user first"),
    "late system": (conversation((USER, "a"), (SYSTEM, "b")), "messages[1].role", "before all others"),
    "system alone": (conversation((SYSTEM, "a")), "messages[0].role", "the user's"),
    "ends with the assistant": (conversation((USER, "a"), (ASSISTANT, "b")), "messages[1].role", "user"),
    "empty text": (conversation((USER, "")), "messages[0]", "empty"),
    "blank text": (conversation((USER, " \n\t")), "messages[0]", "empty"),
    "no parts": (one(lambda r: r.messages[0].ClearField("parts")), "messages[0]", "empty"),
    "empty part": (one(lambda r: r.messages[0].parts.add()), "messages[0].parts[1]", "text or an image"),
    "65 parts": (
        one(lambda r: [r.messages[0].parts.add(text="x") for _ in range(64)]),
        "messages[0].parts",
        "64",
    ),
    "long text": (conversation((USER, "x" * 1001)), "messages[0].parts[0].text", "1,000 characters"),
    "long text in all": (
        conversation((USER, "x" * 600), (ASSISTANT, "y"), (USER, "z" * 400)),
        "messages[2].parts[0].text",
        "1,000 characters",
    ),
    "NUL": (conversation((USER, "a\0b")), "messages[0].parts[0].text", "U+0000"),
    "empty picture": (with_image(), "messages[0].parts[1].image", "empty"),
    "large picture": (with_image(data=b"x" * 2001), "messages[0].parts[1].image", "2,000 bytes"),
    "17 pictures": (
        one(lambda r: [r.messages[0].parts.add(image=assistant_pb2.ImagePart(data=b"x")) for _ in range(17)]),
        "messages[0].parts[17].image",
        "16 pictures",
    ),
    "picture of the system": (
        Request(
            messages=[
                assistant_pb2.Message(
                    role=SYSTEM, parts=[assistant_pb2.Part(image=assistant_pb2.ImagePart(data=b"x"))]
                ),
                assistant_pb2.Message(role=USER, parts=[assistant_pb2.Part(text="x")]),
            ]
        ),
        "messages[0].parts[0].image",
        "text alone",
    ),
    "window without width": (
        with_image(data=b"x", window=common_pb2.Window(center=1)),
        "messages[0].parts[1].image.window.width",
        "above 0",
    ),
    "window at infinity": (
        with_image(data=b"x", window=common_pb2.Window(center=math.inf, width=1)),
        "messages[0].parts[1].image.window.center",
        "finite",
    ),
    "mode": (conversation((USER, "x"), mode=17), "mode", "OUTPUT_MODE_TEXT"),
    "priority": (conversation((USER, "x"), priority=-1), "priority", "PRIORITY_STAT"),
    "image format": (conversation((USER, "x"), image_format=99), "image_format", "IMAGE_FORMAT_PNG"),
    "no new tokens": (conversation((USER, "x"), max_new_tokens=0), "max_new_tokens", "from 1 to 65,536"),
    "huge new tokens": (conversation((USER, "x"), max_new_tokens=2**32 - 1), "max_new_tokens", "65,536"),
    "17 new pictures": (
        conversation((USER, "x"), mode=common_pb2.OUTPUT_MODE_INTERLEAVED, max_images=17),
        "max_images",
        "from 0 to 16",
    ),
    "pictures in text": (conversation((USER, "x"), max_images=1), "max_images", "text alone"),
    "no picture in image mode": (
        conversation((USER, "x"), mode=common_pb2.OUTPUT_MODE_IMAGE, max_images=0),
        "max_images",
        "must be 1",
    ),
    "top_logprobs": (conversation((USER, "x"), top_logprobs=21), "top_logprobs", "from 0 to 20"),
    "retention": (conversation((USER, "x"), retention_days=0), "retention_days", "from 1 to 30"),
    "small pictures": (conversation((USER, "x"), image_size=15), "image_size", "from 16 to 2,048"),
    "five stops": (conversation((USER, "x"), stop=list("abcde")), "stop", "at most 4"),
    "empty stop": (conversation((USER, "x"), stop=["a", ""]), "stop[1]", "1 to 64"),
    "long stop": (conversation((USER, "x"), stop=["a" * 65]), "stop[0]", "1 to 64"),
    "stop with NUL": (conversation((USER, "x"), stop=["\0"]), "stop[0]", "U+0000"),
    "request id": (
        conversation((USER, "x"), context=common_pb2.RequestContext(request_id="Jane Doe")),
        "context.request_id",
        "64 characters",
    ),
}
for name, value, limit in (
    ("temperature", -0.1, "from 0 to 2"),
    ("temperature", math.nan, "from 0 to 2"),
    ("temperature", math.inf, "from 0 to 2"),
    ("temperature", 1e300, "from 0 to 2"),
    ("top_p", 0, "more than 0 up to 1"),
    ("top_p", 1.01, "more than 0 up to 1"),
    ("top_k", 65537, "from 0 to 65,536"),
    ("repetition_penalty", 0.4, "from 0.5 to 5"),
    ("image_temperature", math.nan, "from 0 to 2"),
    ("image_top_p", -1, "more than 0 up to 1"),
    ("guidance_text", 20.5, "from 0 to 20"),
    ("guidance_image", -math.inf, "from 0 to 20"),
):
    BAD[f"{name} {value}"] = (sampling(**{name: value}), f"sampling.{name}", limit)


@pytest.mark.parametrize("name", GOOD)
def test_good_request_passes(name: str) -> None:
    check_generate(GOOD[name], LIMITED)


@pytest.mark.parametrize("name", BAD)
def test_bad_request_is_refused_with_field_and_limit(name: str) -> None:
    request, field, limit = BAD[name]
    with pytest.raises(InvalidInput) as caught:
        check_generate(request, LIMITED)
    assert caught.value.field == field
    assert limit in caught.value.message


def test_sizes_have_their_own_status() -> None:
    for name in ("long text", "large picture"):
        with pytest.raises(PayloadTooLarge):
            check_generate(BAD[name][0], LIMITED)


def test_unknown_model_is_named_as_such() -> None:
    with pytest.raises(ModelNotFound) as caught:
        check_generate(conversation((USER, "x"), model="gpt-4o"), LIMITED)
    error: MedMaxError = caught.value
    assert (error.field, error.http_status) == ("model", 404)
