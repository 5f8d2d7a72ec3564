"""The three services behind plain gRPC servers give the assistant what they give it in process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.checkpoint import open_checkpoint
from services.config import Settings
from services.decoder.servicer import ImageDecoderServicer
from services.errors import DeadlineExceeded, InvalidImage, Unavailable
from services.gateway.assistant import Assistant
from services.llm.servicer import LanguageModelServicer
from services.pb.medmax.v1 import assistant_pb2, common_pb2
from services.rpc import RemoteDecoder, RemoteLanguageModel, RemoteTokenizer, Server
from services.tokenizer.servicer import ImageTokenizerServicer
from tests.support.pictures import encode, noise
from tests.support.tiny import tiny_checkpoint


@pytest.fixture
async def assistants(tmp_path: Path) -> AsyncIterator[tuple[Assistant, Assistant, Server]]:
    settings = Settings(
        checkpoint=tiny_checkpoint(tmp_path, max_position_embeddings=512), store=False, threads=1
    )
    checkpoint = open_checkpoint(settings.checkpoint)
    servicers = {
        "tokenizer": ImageTokenizerServicer.from_settings(settings),
        "llm": LanguageModelServicer.from_settings(settings),
        "decoder": ImageDecoderServicer.from_settings(settings),
    }
    server = await Server(servicers, "127.0.0.1", 0, settings).start()
    local = Assistant.from_checkpoint(settings, checkpoint, *servicers.values(), None)
    remote = Assistant.from_checkpoint(
        settings,
        checkpoint,
        RemoteTokenizer(server.address, settings),
        RemoteLanguageModel(server.address, settings),
        RemoteDecoder(server.address, settings),
        None,
    )
    yield local, remote, server
    await remote.close()
    await server.stop(0)


def _request(picture: bytes, **fields: object) -> assistant_pb2.GenerateRequest:
    parts = [
        assistant_pb2.Part(image=assistant_pb2.ImagePart(data=picture)),
        assistant_pb2.Part(text="And now?"),
    ]
    return assistant_pb2.GenerateRequest(
        messages=[assistant_pb2.Message(role=assistant_pb2.ROLE_USER, parts=parts)],
        sampling=common_pb2.Sampling(temperature=0, image_temperature=0, seed=1),
        **fields,
    )


async def _answer(assistant: Assistant, request: assistant_pb2.GenerateRequest) -> tuple[str, list[bytes]]:
    events = [event async for event in assistant.generate(request, "local")]
    return "".join(event.text.text for event in events), [
        event.image.data for event in events if event.image.data
    ]


@pytest.mark.parametrize("mode", [common_pb2.OUTPUT_MODE_TEXT, common_pb2.OUTPUT_MODE_IMAGE])
async def test_the_answer_is_the_same(assistants, mode: int) -> None:
    local, remote, _ = assistants
    request = _request(
        encode(noise()), mode=mode, max_new_tokens=12 if mode == common_pb2.OUTPUT_MODE_TEXT else None
    )
    there = await _answer(remote, request)
    assert there == await _answer(local, request)
    assert there != ("", [])


async def test_errors_are_the_same(assistants) -> None:
    for assistant in assistants[:2]:
        with pytest.raises(InvalidImage) as caught:
            await _answer(assistant, _request(b"no picture"))
        assert caught.value.field.startswith("messages[0].parts[0]")


async def test_the_deadline_holds_over_the_hop(assistants) -> None:
    request = _request(
        encode(noise()), mode=common_pb2.OUTPUT_MODE_IMAGE, context=common_pb2.RequestContext(timeout_ms=1)
    )
    with pytest.raises(DeadlineExceeded):
        await _answer(assistants[1], request)


async def test_a_service_that_went_away_is_unavailable(assistants) -> None:
    _, remote, server = assistants
    await remote.check_health()
    await server.stop(0)
    with pytest.raises(Unavailable):
        await remote.check_health()
    with pytest.raises(Unavailable):
        await _answer(remote, _request(encode(noise()), context=common_pb2.RequestContext(timeout_ms=5000)))
