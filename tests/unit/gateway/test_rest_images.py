"""The images dialect."""

from __future__ import annotations

import base64
import io
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

URL = "/v1/images/generations"


def test_openai_client_draws(client: openai.OpenAI) -> None:
    reply: Any = client.images.generate(
        model="medmax-phantom", prompt="A fundus with drusen.", n=3, size="96x96", output_format="jpeg"
    )
    assert (reply.output_format, reply.size, len(reply.data)) == ("jpeg", "96x96", 3)
    assert reply.usage.output_tokens_details.image_tokens == 3 * 16
    assert len({image.interaction_id for image in reply.data}) == 3
    for image in reply.data:
        opened = Image.open(io.BytesIO(base64.b64decode(image.b64_json)))
        assert (opened.format, opened.size) == ("JPEG", (96, 96))
        assert image.synthetic is True


def test_seed_gives_the_same_pictures_again_and_counts_up(client: openai.OpenAI) -> None:
    def draw(n: int, seed: int) -> list[Any]:
        reply = client.images.generate(prompt="x", n=n, response_format="b64_json", extra_body={"seed": seed})
        return [(image.seed, image.b64_json) for image in reply.data or []]  # type: ignore[attr-defined]

    assert draw(2, 7) == draw(1, 7) + draw(1, 8)


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"response_format": "url"}, "response_format", "'b64_json'"),
        ({"n": 5}, "n", "less than or equal to 4"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"size": "1024x512"}, "size", "square"),
        ({"size": "8x8"}, "size", "16x16 to 2048x2048"),
        ({"size": "4096x4096"}, "size", "16x16 to 2048x2048"),
        ({"size": "big"}, "size", ""),
        ({"prompt": ""}, "prompt", "at least 1"),
        ({"prompt": "  "}, "prompt", "empty"),
        ({"prompt": "z" * 600}, "prompt", "at most 494"),
        ({"quality": "hd"}, "quality", "'auto'"),
        ({"style": "vivid"}, "style", "not supported"),
        ({"background": "transparent"}, "background", "'opaque'"),
        ({"stream": True}, "stream", "not supported"),
        ({"partial_images": 2}, "partial_images", "not supported"),
        ({"output_format": "svg"}, "output_format", "'webp'"),
        ({"output_compression": 50}, "output_compression", "not supported"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
        ({"temperature": 1}, "temperature", "unknown field"),
        ({"image_temperature": 3}, "image_temperature", "less than or equal to 2"),
    ],
)
def test_bad_field_is_named_with_its_limit(
    http: httpx.Client, fields: dict[str, Any], field: str, said: str
) -> None:
    reply = http.post(URL, json={"prompt": "x", **fields})
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == field
    assert said in reply.json()["error"]["message"]


def test_harmless_fields_are_accepted(http: httpx.Client) -> None:
    body = {
        "prompt": "x",
        "user": "u",
        "quality": "auto",
        "background": "opaque",
        "moderation": "low",
        "stream": False,
        "partial_images": 0,
        "size": "auto",
    }
    assert http.post(URL, json=body).status_code == 200
