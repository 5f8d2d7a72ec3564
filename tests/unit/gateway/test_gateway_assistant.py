"""The assistant on the real services, in process."""

from __future__ import annotations

import asyncio
import hashlib
import io
import time
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image
from rest_server import picture

from services.config import Settings
from services.errors import (
    ContextOverflow,
    DeadlineExceeded,
    InvalidImage,
    InvalidInput,
    ModelNotFound,
    NotFound,
    Unavailable,
)
from services.gateway.assistant import Assistant
from services.gateway.local import local_assistant
from services.pb.medmax.v1 import assistant_pb2, common_pb2, decoder_pb2, llm_pb2

INTERLEAVED = common_pb2.OUTPUT_MODE_INTERLEAVED
IMAGE = common_pb2.OUTPUT_MODE_IMAGE


def asking(text: str = "hello", *pictures: bytes, **fields: Any) -> assistant_pb2.GenerateRequest:
    fields.setdefault("max_new_tokens", 30)
    request = assistant_pb2.GenerateRequest(**fields)
    message = request.messages.add(role=assistant_pb2.ROLE_USER)
    for data in pictures:
        message.parts.add(image=assistant_pb2.ImagePart(data=data))
    message.parts.add(text=text)
    return request


async def run(assistant: Assistant, request: assistant_pb2.GenerateRequest) -> list[Any]:
    return [event async for event in assistant.generate(request, "tester")]


def kinds(events: list[Any]) -> list[str]:
    """Kinds of the events in order, neighbouring texts as one."""
    found: list[str] = []
    for event in events:
        kind = event.WhichOneof("event")
        if kind != "text" or found[-1:] != ["text"]:
            found.append(kind)
    return found


def content(events: list[Any]) -> str:
    """Text and the pictures' digests; how text is cut into events depends on timing."""
    return "".join(e.text.text if e.HasField("text") else f"<{e.image.sha256}>" for e in events[:-1])


async def test_text_answer_ends_with_a_finish_that_names_a_stored_interaction(assistant: Assistant) -> None:
    events = await run(assistant, asking("hello", picture()))
    assert kinds(events) == ["text", "finish"]
    finish = events[-1].finish
    assert finish.usage.prompt_image_tokens == 16
    assert 0 < finish.latency.first_token_ms <= finish.latency.total_ms
    assert len(finish.model.digest) == 64

    stored = await assistant.get_interaction(
        assistant_pb2.GetInteractionRequest(interaction_id=finish.interaction_id, include_images=True),
        "tester",
    )
    assert "".join(part.text for part in stored.output) == "".join(e.text.text for e in events)
    assert stored.prompt[0].parts[0].image.data == picture()
    assert stored.prompt[0].parts[0].image.mime_type == "image/png"
    assert (stored.prompt[0].parts[0].image.width, stored.caller) == (24, "tester")
    assert stored.sampling.seed == finish.usage.seed
    assert stored.sampling.guidance_text == assistant.model.generation.guidance_text
    assert stored.usage == finish.usage


async def test_image_answer_is_one_marked_picture_and_no_text(assistant: Assistant) -> None:
    request = asking("draw", mode=IMAGE, image_format=common_pb2.IMAGE_FORMAT_JPEG, image_size=40)
    events = await run(assistant, request)
    assert kinds(events) == ["image", "finish"]
    image = events[0].image
    assert (image.mime_type, image.width, image.height, image.synthetic) == ("image/jpeg", 40, 40, True)
    assert image.sha256 == hashlib.sha256(image.data).hexdigest()
    assert image.confidence.tokens == 16
    assert Image.open(io.BytesIO(image.data)).size == (40, 40)


class SlowDecoder:
    """The real decoder, each picture after a pause: the first one longest."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder
        self.begun: list[float] = []

    async def Decode(self, request: decoder_pb2.DecodeRequest) -> decoder_pb2.DecodeResponse:
        self.begun.append(time.monotonic())
        await asyncio.sleep(0.3 / len(self.begun))
        return await self._decoder.Decode(request)


async def test_text_never_overtakes_a_picture_that_is_still_being_decoded(assistant: Assistant) -> None:
    spans: list[str] = []
    llm: Any = assistant.backends.llm

    class Recorded:
        async def Generate(self, request: Any) -> Any:
            async for event in llm.Generate(request):
                spans.append(event.WhichOneof("event"))
                yield event

    decoder = SlowDecoder(assistant.backends.decoder)
    assistant.backends = replace(assistant.backends, llm=Recorded(), decoder=decoder)  # type: ignore[arg-type]
    for seed in range(1, 20):
        spans.clear()
        decoder.begun.clear()
        request = asking("draw two", mode=INTERLEAVED, max_images=2, max_new_tokens=120)
        request.sampling.seed = seed
        events = await run(assistant, request)
        if spans.count("image") == 2 and "text" in spans[spans.index("image") :]:
            break
    else:
        pytest.fail("no seed gave two pictures with text")
    assert [event.WhichOneof("event") for event in events] == spans
    # Both were being decoded at the same time.
    assert decoder.begun[1] - decoder.begun[0] < 0.3
    stored = await assistant.get_interaction(
        assistant_pb2.GetInteractionRequest(interaction_id=events[-1].finish.interaction_id), "tester"
    )
    said = [event for event in events[:-1] if event.HasField("image") or event.text.text]
    assert [part.WhichOneof("part") for part in stored.output] == kinds(said)


async def test_same_seed_gives_the_same_answer(assistant: Assistant) -> None:
    request = asking("again", sampling=common_pb2.Sampling(seed=2**64 - 1, temperature=1.5))
    first, second = await run(assistant, request), await run(assistant, request)
    assert content(first) == content(second)
    assert first[-1].finish.usage.seed == 2**64 - 1
    assert first[-1].finish.interaction_id != second[-1].finish.interaction_id


class RecordingStore:
    """Wraps the real store and says what happened when."""

    def __init__(self, store: Any, log: list[str], failure: Exception | None = None) -> None:
        self._store, self._log, self._failure = store, log, failure

    async def save(self, interaction: assistant_pb2.Interaction) -> str:
        if self._failure:
            raise self._failure
        stored: str = await self._store.save(interaction)
        self._log.append("stored")
        return stored

    def close(self) -> None:
        self._store.close()


async def test_interaction_is_stored_before_finish_is_sent(assistant: Assistant) -> None:
    log: list[str] = []
    store: Any = RecordingStore(assistant.backends.store, log)
    assistant.backends = replace(assistant.backends, store=store)
    async for event in assistant.generate(asking(), "tester"):
        log.append(event.WhichOneof("event") or "")
    assert log[-2:] == ["stored", "finish"]


@pytest.mark.parametrize("failure", [Unavailable("the database is out of reach"), OSError("disk full")])
async def test_failure_to_store_fails_the_request(assistant: Assistant, failure: Exception) -> None:
    store: Any = RecordingStore(assistant.backends.store, [], failure)
    assistant.backends = replace(assistant.backends, store=store)
    seen = []

    async def read() -> None:
        async for event in assistant.generate(asking(), "tester"):
            seen.append(event.WhichOneof("event"))

    with pytest.raises(Unavailable):
        await read()
    assert "finish" not in seen


async def test_nothing_is_stored_when_the_request_says_so(assistant: Assistant) -> None:
    events = await run(assistant, asking(store=False))
    assert events[-1].finish.interaction_id == ""


async def test_request_cannot_override_an_installation_that_stores_nothing(settings: Settings) -> None:
    closed = settings.model_copy(update={"store": False})
    async with local_assistant(closed) as assistant:
        events = await run(assistant, asking(store=True))
        assert events[-1].finish.interaction_id == ""
        with pytest.raises(NotFound, match="stores no interactions"):
            await assistant.get_interaction(assistant_pb2.GetInteractionRequest(interaction_id="x"), "tester")
    assert not settings.data_dir.exists()


async def test_another_callers_interaction_is_not_found(assistant: Assistant) -> None:
    events = await run(assistant, asking())
    request = assistant_pb2.GetInteractionRequest(interaction_id=events[-1].finish.interaction_id)
    with pytest.raises(NotFound):
        await assistant.get_interaction(request, "somebody-else")


async def test_retention_of_the_request_counts_up_to_the_installations(assistant: Assistant) -> None:
    events = await run(assistant, asking(retention_days=3))
    stored = await assistant.get_interaction(
        assistant_pb2.GetInteractionRequest(interaction_id=events[-1].finish.interaction_id), "tester"
    )
    kept = stored.expires_at.ToDatetime() - stored.created_at.ToDatetime()
    assert kept.days == 3
    with pytest.raises(InvalidInput, match="retention_days: must be a number from 1 to 30"):
        await run(assistant, asking(retention_days=31))


def endless(long_prompt: str) -> assistant_pb2.GenerateRequest:
    greedy = common_pb2.Sampling(temperature=0, repetition_penalty=1)
    return asking(long_prompt, max_new_tokens=500, sampling=greedy)


async def idle(assistant: Assistant) -> None:
    llm: Any = assistant.backends.llm
    async with asyncio.timeout(10):
        while (stats := llm.engine.stats()).active or stats.waiting:
            await asyncio.sleep(0.01)
    llm.engine.check_integrity()


async def test_closing_the_answer_frees_the_engines_work(assistant: Assistant, long_prompt: str) -> None:
    async with aclosing(assistant.generate(endless(long_prompt), "tester")) as events:  # type: ignore[type-var]
        await anext(events)
        llm: Any = assistant.backends.llm
        assert llm.engine.stats().active
    await idle(assistant)


async def test_cancelling_the_task_frees_the_engines_work(assistant: Assistant, long_prompt: str) -> None:
    task = asyncio.create_task(run(assistant, endless(long_prompt)))
    llm: Any = assistant.backends.llm
    while not llm.engine.stats().active:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await idle(assistant)


async def test_deadline_ends_the_work_everywhere(assistant: Assistant, long_prompt: str) -> None:
    request = endless(long_prompt)
    request.context.timeout_ms = 60
    with pytest.raises(DeadlineExceeded, match="time ran out"):
        await run(assistant, request)
    await idle(assistant)


class Endless:
    """A language model that never answers."""

    async def Generate(self, request: llm_pb2.LanguageModelGenerateRequest) -> Any:
        self.timeout_ms = request.context.timeout_ms
        await asyncio.sleep(60)
        yield llm_pb2.LanguageModelEvent()


async def test_a_service_that_hangs_does_not_outlast_the_deadline(assistant: Assistant) -> None:
    endless = Endless()
    assistant.backends = replace(assistant.backends, llm=endless)  # type: ignore[arg-type]
    with pytest.raises(DeadlineExceeded):
        await run(assistant, asking(context=common_pb2.RequestContext(timeout_ms=50)))
    assert 0 < endless.timeout_ms <= 50


class Dying:
    """A language model that loses its process after some text."""

    async def Generate(self, request: llm_pb2.LanguageModelGenerateRequest) -> Any:
        yield llm_pb2.LanguageModelEvent(text=llm_pb2.TextSpan(text="No"))


async def test_stream_that_stops_short_is_an_error_and_is_not_stored(assistant: Assistant) -> None:
    log: list[str] = []
    store: Any = RecordingStore(assistant.backends.store, log)
    assistant.backends = replace(assistant.backends, llm=Dying(), store=store)  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match="stopped before"):
        await run(assistant, asking())
    assert log == []


class OtherDecoder:
    """A decoder of another checkpoint."""

    async def Decode(self, request: decoder_pb2.DecodeRequest) -> decoder_pb2.DecodeResponse:
        raise InvalidInput("4; must be 32", field="codes.height")


async def test_decoder_of_another_model_is_not_the_callers_fault(assistant: Assistant) -> None:
    assistant.backends = replace(assistant.backends, decoder=OtherDecoder())  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match="another model"):
        await run(assistant, asking(mode=IMAGE))
    await idle(assistant)


async def test_bad_picture_is_refused_under_its_path(assistant: Assistant) -> None:
    request = asking("which?", picture(), b"no picture at all")
    with pytest.raises(InvalidImage) as caught:
        await run(assistant, request)
    assert caught.value.field == "messages[0].parts[1].image"


async def test_window_on_an_eight_bit_picture_is_refused_under_its_path(assistant: Assistant) -> None:
    request = asking("which?", picture())
    request.messages[0].parts[0].image.window.width = 10
    with pytest.raises(InvalidInput) as caught:
        await run(assistant, request)
    assert caught.value.field == "messages[0].parts[0].image.window"


async def test_too_long_a_prompt_says_how_much_fits(assistant: Assistant) -> None:
    with pytest.raises(ContextOverflow, match=r"the text alone has 6\d\d"):
        await run(assistant, asking("z" * 600))
    with pytest.raises(ContextOverflow, match=r"16 pictures of 18.*with this text 11 pictures fit"):
        await run(assistant, asking("z" * 300, *[picture()] * 16))


async def test_image_mode_needs_room_for_one_picture(assistant: Assistant) -> None:
    with pytest.raises(InvalidInput, match="max_new_tokens: must be at least 18"):
        await run(assistant, asking("draw", mode=IMAGE, max_new_tokens=17))
    with pytest.raises(ContextOverflow):
        await run(assistant, asking("z" * 500, mode=IMAGE))


async def test_unknown_model_is_not_found(assistant: Assistant) -> None:
    with pytest.raises(ModelNotFound, match="medmax-phantom is served"):
        await run(assistant, asking(model="gpt-4o"))
    assert kinds(await run(assistant, asking(model="medmax-phantom"))) == ["text", "finish"]


async def test_many_requests_at_once_all_get_their_own_answers(assistant: Assistant) -> None:
    def request(i: int) -> assistant_pb2.GenerateRequest:
        made = asking(f"question {i}", picture(shade=i), mode=INTERLEAVED, max_new_tokens=60)
        made.sampling.seed = i
        return made

    alone = [await run(assistant, request(i)) for i in range(4)]
    together = await asyncio.gather(*(run(assistant, request(i)) for i in range(4)))

    assert [content(events) for events in alone] == [content(events) for events in together]


async def test_health_is_that_of_every_service(assistant: Assistant) -> None:
    await assistant.check_health()
    await assistant.backends.decoder.close()
    with pytest.raises(Unavailable):
        await assistant.check_health()
