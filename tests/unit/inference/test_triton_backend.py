"""`backend: triton`: the services with their VQ-GAN elsewhere, here behind a front of our own on a real port.

`tests/integration/test_triton_server.py` has the same services in front of Triton itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from services import config
from services.config import Settings
from services.decoder.servicer import ImageDecoderServicer
from services.errors import (
    ConfigurationError,
    DeadlineExceeded,
    InternalError,
    InvalidImage,
    MedMaxError,
    Overloaded,
    Unavailable,
)
from services.inference.servicer import InferenceServicer
from services.pb.inference import grpc_service_pb2 as pb
from services.pb.medmax.v1 import common_pb2, decoder_pb2, tokenizer_pb2
from services.rpc.server import Server
from services.tokenizer.servicer import ImageTokenizerServicer
from tests.support.pictures import encode, noise
from tests.support.tiny import tiny_checkpoint
from tests.unit.inference.conftest import Front

CODES = common_pb2.ImageCodes(codes=list(range(16)), height=4, width=4)
PICTURE = tokenizer_pb2.TokenizeRequest(image=encode(noise()))
DRAWING = decoder_pb2.DecodeRequest(codes=CODES)


def elsewhere(settings: Settings, address: str, **changes: Any) -> Settings:
    return settings.model_copy(
        update={
            "tokenizer_backend": config.Backend.TRITON,
            "tokenizer_triton_address": address,
            "decoder_backend": config.Backend.TRITON,
            "decoder_triton_address": address,
            "triton_retries": 1,
            **changes,
        }
    )


Pair = tuple[ImageTokenizerServicer, ImageDecoderServicer]


def pair(settings: Settings) -> Pair:
    return ImageTokenizerServicer.from_settings(settings), ImageDecoderServicer.from_settings(settings)


@pytest.fixture
async def services(front: Front, settings: Settings) -> AsyncIterator[Pair]:
    both = pair(elsewhere(settings, front.address))
    yield both
    for service in both:
        await service.close()


async def outcome(work: Any) -> MedMaxError:
    with pytest.raises(MedMaxError) as caught:
        await work
    return caught.value


async def test_answers_are_those_of_the_torch_backend(front: Front, services: Pair) -> None:
    tokenizer, decoder = services
    requests = [tokenizer_pb2.TokenizeRequest(image=encode(noise(20, 31, seed=seed))) for seed in range(6)]
    there = await asyncio.gather(*(tokenizer.Tokenize(request) for request in requests))
    for request, answer in zip(requests, there, strict=True):
        here = await front.tokenizer.Tokenize(request)
        assert answer.codes == here.codes
        assert answer.model == here.model
        assert (answer.source_format, answer.source_width) == ("png", 31)
    assert (await tokenizer.Tokenize(requests[0])).cached
    marked = decoder_pb2.DecodeRequest(codes=CODES, visible_mark=True, size=64)
    for drawing in (DRAWING, marked):
        assert await decoder.Decode(drawing) == await front.decoder.Decode(drawing)


async def test_bad_input_goes_nowhere(front: Front, services: Pair) -> None:
    tokenizer, decoder = services
    assert isinstance(
        await outcome(tokenizer.Tokenize(tokenizer_pb2.TokenizeRequest(image=b"no picture"))), InvalidImage
    )
    wrong = common_pb2.ImageCodes(codes=[32] * 16, height=4, width=4)
    error = await outcome(decoder.Decode(decoder_pb2.DecodeRequest(codes=wrong)))
    assert error.field == "codes.codes"
    stats = (await front.servicer.ModelStatistics(pb.ModelStatisticsRequest())).model_stats
    assert [entry.inference_stats.fail.count for entry in stats] == [0, 0]


async def test_a_server_that_is_away_is_unavailable_and_may_come_back(
    front: Front, services: Pair, settings: Settings
) -> None:
    for service in services:
        await service.check_health()
    await front.server.stop(0)
    for service, request in zip(services, (PICTURE, DRAWING), strict=True):
        with pytest.raises(Unavailable):
            await service.check_health()
        method = service.Tokenize if isinstance(service, ImageTokenizerServicer) else service.Decode
        assert isinstance(await outcome(method(request)), Unavailable)
    again = pair(settings)
    host, _, port = front.address.rpartition(":")
    patient = pair(elsewhere(settings, front.address, triton_retries=20))
    waiting = asyncio.create_task(patient[0].Tokenize(PICTURE))
    await asyncio.sleep(0.5)
    server = await Server(
        {"inference": InferenceServicer.local(settings, *again)}, host, int(port), settings
    ).start()
    try:
        answer = await waiting
        assert answer.codes == (await again[0].Tokenize(PICTURE)).codes
        await patient[1].check_health()
    finally:
        await server.stop(0)
        for service in (*again, *patient):
            await service.close()


async def test_the_caller_s_deadline_ends_the_retries(settings: Settings) -> None:
    tokenizer, decoder = pair(elsewhere(settings, "127.0.0.1:1", triton_retries=20))
    begun = time.monotonic()
    context = common_pb2.RequestContext(timeout_ms=400)
    drawing = decoder_pb2.DecodeRequest(codes=CODES, context=context)
    assert isinstance(await outcome(decoder.Decode(drawing)), Unavailable | DeadlineExceeded)
    picture = tokenizer_pb2.TokenizeRequest(image=PICTURE.image, context=context)
    assert isinstance(await outcome(tokenizer.Tokenize(picture)), Unavailable | DeadlineExceeded)
    assert time.monotonic() - begun < 10
    await tokenizer.close()
    await decoder.close()


async def test_a_model_of_another_checkpoint_is_refused(
    front: Front, settings: Settings, tmp_path: Path
) -> None:
    other = elsewhere(settings, front.address, checkpoint=tiny_checkpoint(tmp_path, seed=1))
    for service, request in zip(pair(other), (PICTURE, DRAWING), strict=True):
        method = service.Tokenize if isinstance(service, ImageTokenizerServicer) else service.Decode
        error = await outcome(method(request))
        assert isinstance(error, ConfigurationError)
        assert "another checkpoint" in error.message
        assert str(error.field).endswith("_TRITON_MODEL")
        await service.close()


async def test_a_model_that_is_not_there_is_told(front: Front, settings: Settings) -> None:
    names = {"tokenizer_triton_model": "segmenter", "decoder_triton_model": "segmenter"}
    for service, request in zip(
        pair(elsewhere(settings, front.address, **names)), (PICTURE, DRAWING), strict=True
    ):
        with pytest.raises(Unavailable):
            await service.check_health()
        method = service.Tokenize if isinstance(service, ImageTokenizerServicer) else service.Decode
        assert isinstance(await outcome(method(request)), ConfigurationError)
        await service.close()


class Stranger:
    """A server of the protocol that answers whatever it is told to."""

    def __init__(self) -> None:
        self.response = pb.ModelInferResponse()
        self.failure: tuple[grpc.StatusCode, str] | None = None
        self.delay_s = 0.0
        self.calls = 0

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Any) -> pb.ModelInferResponse:
        self.calls += 1
        await asyncio.sleep(self.delay_s)
        if self.failure:
            await context.abort(*self.failure)
        return self.response

    def __getattr__(self, name: str) -> Any:
        async def unimplemented(request: Any, context: Any) -> None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not here")

        return unimplemented


@pytest.fixture
async def stranger(settings: Settings) -> AsyncIterator[tuple[Stranger, str]]:
    from services.pb.inference.grpc_service_pb2_grpc import add_GRPCInferenceServiceServicer_to_server

    server, servicer = grpc.aio.server(), Stranger()
    add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield servicer, f"127.0.0.1:{port}"
    await server.stop(0)


def codes(shape: list[int], raw: bytes, name: str = "CODES") -> pb.ModelInferResponse:
    outputs = [pb.ModelInferResponse.InferOutputTensor(name=name, datatype="INT32", shape=shape)]
    return pb.ModelInferResponse(outputs=outputs, raw_output_contents=[raw])


async def test_strange_answers_are_refused_and_plain_ones_taken(
    stranger: tuple[Stranger, str], settings: Settings
) -> None:
    server, address = stranger
    tokenizer, decoder = pair(elsewhere(settings, address))
    for response in (
        pb.ModelInferResponse(),
        codes([1, 16], bytes(64), "LOGITS"),
        codes([1, 15], bytes(60)),
        codes([2, 16], bytes(128)),
        codes([1, 16], bytes(60)),
        codes([1, 16], b"\xff" * 64),
        codes([1, 16], b"\x20\0\0\0" * 16),
    ):
        server.response = response
        assert isinstance(await outcome(tokenizer.Tokenize(PICTURE)), ConfigurationError)
        assert isinstance(await outcome(decoder.Decode(DRAWING)), ConfigurationError)
    server.response = codes([1, 16], b"\x1f\0\0\0" * 16)
    assert list((await tokenizer.Tokenize(PICTURE)).codes.codes) == [31] * 16
    await tokenizer.close()
    await decoder.close()


@pytest.mark.parametrize(
    ("status", "kind", "calls"),
    [
        (grpc.StatusCode.UNAVAILABLE, Unavailable, 2),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Overloaded, 1),
        (grpc.StatusCode.INVALID_ARGUMENT, ConfigurationError, 1),
        (grpc.StatusCode.NOT_FOUND, ConfigurationError, 1),
        (grpc.StatusCode.UNAUTHENTICATED, ConfigurationError, 1),
        (grpc.StatusCode.CANCELLED, Unavailable, 1),
        (grpc.StatusCode.INTERNAL, InternalError, 1),
    ],
)
async def test_failures_are_told_and_only_unavailability_is_tried_again(
    stranger: tuple[Stranger, str],
    settings: Settings,
    status: grpc.StatusCode,
    kind: type[MedMaxError],
    calls: int,
) -> None:
    server, address = stranger
    server.failure = (status, "x" * 5000)
    tokenizer, decoder = pair(elsewhere(settings, address))
    error = await outcome(decoder.Decode(DRAWING))
    assert isinstance(error, kind)
    assert len(str(error)) < 600
    assert server.calls == calls
    await tokenizer.close()
    await decoder.close()


async def test_a_slow_server_costs_its_time_limit_and_the_caller_s_own_is_kept(
    stranger: tuple[Stranger, str], settings: Settings
) -> None:
    server, address = stranger
    server.delay_s = 30
    tokenizer, decoder = pair(elsewhere(settings, address, triton_timeout_s=0.3))
    error = await outcome(decoder.Decode(DRAWING))
    assert isinstance(error, Unavailable)
    assert "MEDMAX_TRITON_TIMEOUT_S" in error.message
    hurried = decoder_pb2.DecodeRequest(codes=CODES, context=common_pb2.RequestContext(timeout_ms=100))
    assert isinstance(await outcome(decoder.Decode(hurried)), DeadlineExceeded)
    await tokenizer.close()
    await decoder.close()


async def test_no_more_calls_are_under_way_than_may_wait(
    stranger: tuple[Stranger, str], settings: Settings
) -> None:
    server, address = stranger
    server.delay_s = 0.5
    few = settings.decoder.model_copy(update={"max_queued_requests": 2})
    tokenizer, decoder = pair(elsewhere(settings, address, decoder=few))
    answers = await asyncio.gather(*(decoder.Decode(DRAWING) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(answer, Overloaded) for answer in answers) == 3
    assert server.calls == 2
    await tokenizer.close()
    await decoder.close()


@pytest.mark.parametrize("address", ["", "triton", "triton:", "http://triton:8001", "a b:1", "triton:8001/x"])
def test_an_address_that_is_none_is_refused_at_start(address: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        config.load(decoder_backend="triton", decoder_triton_address=address)
    assert caught.value.field == "MEDMAX_DECODER_TRITON_ADDRESS"


@pytest.mark.parametrize("address", ["triton:8001", "10.0.0.7:8001", "[::1]:8001", "triton.ns.svc:8001"])
def test_an_address_is_host_and_port(address: str) -> None:
    assert config.load(tokenizer_backend="triton", tokenizer_triton_address=address).tokenizer_triton_address
