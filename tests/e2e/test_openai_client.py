"""The `openai` client works unchanged."""

import base64
import io

import openai
import pytest
from PIL import Image

from tests.support.stack import Served

MODEL = "medmax-phantom"


@pytest.fixture
def client(stack: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{stack.http}/v1", api_key="none", max_retries=0, timeout=60)


def _ask(picture: bytes) -> list:
    url = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    return [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": url}},
                {"type": "text", "text": "Is there a nodule?"},
            ],
        }
    ]


def test_chat_about_a_picture(client: openai.OpenAI, png: bytes) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=_ask(png), max_tokens=8, seed=1)
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage.prompt_tokens > 16
    assert 1 <= answer.usage.completion_tokens <= 8


def test_streamed_chat_is_the_same_answer(client: openai.OpenAI, png: bytes) -> None:
    asked = {"model": MODEL, "messages": _ask(png), "max_tokens": 8, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == (whole.choices[0].message.content or "")
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_a_generated_picture_is_a_picture(client: openai.OpenAI) -> None:
    answer = client.images.generate(model=MODEL, prompt="a chest radiograph", response_format="b64_json")
    picture = Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json)))
    picture.load()
    assert picture.format == "PNG"


def test_models_lists_the_served_one(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]


def test_an_unknown_model_is_404(client: openai.OpenAI, png: bytes) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-none", messages=_ask(png))
    assert caught.value.code == "model_not_found"


def test_unsupported_fields_are_refused_by_name(client: openai.OpenAI, png: bytes) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=_ask(png), tools=[tool])
    assert caught.value.param == "tools"


def test_bad_bytes_are_refused_with_the_pictures_place(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=_ask(b"no picture"))
    assert caught.value.code == "invalid_image"
    assert caught.value.param.startswith("messages[0].content[0]")
