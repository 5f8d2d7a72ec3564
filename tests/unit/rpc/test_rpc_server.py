"""A real server on a free port, and the clients that look like the services."""

import asyncio
import gc
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from services import errors
from services.config import Settings
from services.pb.medmax.v1 import common_pb2, decoder_pb2, llm_pb2, tokenizer_pb2, tokenizer_pb2_grpc
from services.rpc import RemoteDecoder, RemoteLanguageModel, RemoteTokenizer, Server

SETTINGS = Settings(request_timeout_s=5)


class Tokenizer:
    """Echoes facts about the call; the picture's bytes choose what happens."""

    def __init__(self) -> None:
        self.healthy = True
        self.closed = False

    async def Tokenize(self, request, context=None):
        if request.image == b"bad":
            raise errors.InvalidImage("no picture", field="image")
        if request.image == b"busy":
            raise errors.Overloaded("queue full", retry_after_s=3)
        if request.image == b"bug":
            raise KeyError("patient Müller")
        if request.image == b"slow":
            await asyncio.sleep(60)
        return tokenizer_pb2.TokenizeResponse(
            content_sha256=str(request.context.timeout_ms), source_width=len(request.image)
        )

    async def check_health(self):
        if not self.healthy:
            raise errors.Unavailable("sick")

    async def close(self):
        self.closed = True


class LanguageModel:
    """Streams numbers until closed."""

    def __init__(self) -> None:
        self.running = 0

    async def Generate(self, request, context=None) -> AsyncIterator[llm_pb2.LanguageModelEvent]:
        self.running += 1
        try:
            for number in range(10_000):
                if request.max_new_tokens and number == request.max_new_tokens:
                    raise errors.ContextOverflow("full", field="prompt_ids")
                yield llm_pb2.LanguageModelEvent(text=llm_pb2.TextSpan(text=str(number)))
                await asyncio.sleep(0.005)
        finally:
            self.running -= 1

    async def check_health(self):
        return None

    async def close(self):
        return None


@pytest.fixture
async def stack():
    tokenizer, llm = Tokenizer(), LanguageModel()
    server = await Server({"tokenizer": tokenizer, "llm": llm}, "127.0.0.1", 0, SETTINGS).start()
    yield server, tokenizer, llm
    await server.stop(0)


async def test_a_remote_service_answers_as_the_local_one(stack) -> None:
    server, _, _ = stack
    remote = RemoteTokenizer(server.address, SETTINGS)
    response = await remote.Tokenize(tokenizer_pb2.TokenizeRequest(image=b"x" * (5 << 20)))
    assert response.source_width == 5 << 20
    await remote.close()


@pytest.mark.parametrize(
    ("image", "cls", "field", "retry"),
    [
        (b"bad", errors.InvalidImage, "image", None),
        (b"busy", errors.Overloaded, None, 3),
        (b"bug", errors.InternalError, None, None),
    ],
)
async def test_errors_arrive_as_themselves(stack, image, cls, field, retry) -> None:
    remote = RemoteTokenizer(stack[0].address, SETTINGS)
    with pytest.raises(cls) as caught:
        await remote.Tokenize(tokenizer_pb2.TokenizeRequest(image=image))
    assert (caught.value.field, caught.value.retry_after_s) == (field, retry)
    assert "Müller" not in str(caught.value)
    await remote.close()


async def test_the_callers_deadline_reaches_the_method_and_ends_the_call(stack) -> None:
    remote = RemoteTokenizer(stack[0].address, SETTINGS)
    response = await remote.Tokenize(tokenizer_pb2.TokenizeRequest(image=b"x"))
    assert 0 < int(response.content_sha256) <= 5100  # gRPC rounds deadlines up
    request = tokenizer_pb2.TokenizeRequest(image=b"slow", context=common_pb2.RequestContext(timeout_ms=100))
    with pytest.raises(errors.DeadlineExceeded):
        await remote.Tokenize(request)
    await remote.close()


async def test_an_error_in_mid_stream_follows_the_events_before_it(stack) -> None:
    remote = RemoteLanguageModel(stack[0].address, SETTINGS)
    events = remote.Generate(llm_pb2.LanguageModelGenerateRequest(max_new_tokens=3))
    seen = [(await anext(events)).text.text for _ in range(3)]
    with pytest.raises(errors.ContextOverflow) as caught:
        await anext(events)
    assert seen == ["0", "1", "2"]
    assert caught.value.field == "prompt_ids"
    await remote.close()


async def test_closing_the_stream_cancels_the_work(stack) -> None:
    server, _, llm = stack
    remote = RemoteLanguageModel(server.address, SETTINGS)
    events = remote.Generate(llm_pb2.LanguageModelGenerateRequest())
    await anext(events)
    assert llm.running == 1
    gc.disable()  # so that only closing can end it
    try:
        await events.aclose()
        for _ in range(100):
            if llm.running == 0:
                break
            await asyncio.sleep(0.02)
    finally:
        gc.enable()
    assert llm.running == 0
    await remote.close()


async def test_nobody_listening_is_unavailable() -> None:
    remote = RemoteDecoder("127.0.0.1:1", SETTINGS)
    with pytest.raises(errors.Unavailable):
        await remote.Decode(decoder_pb2.DecodeRequest(context=common_pb2.RequestContext(timeout_ms=3000)))
    with pytest.raises(errors.Unavailable):
        await remote.check_health()
    await remote.close()


async def test_health_follows_the_service(stack) -> None:
    server, tokenizer, _ = stack
    remote = RemoteTokenizer(server.address, SETTINGS)
    await remote.check_health()
    tokenizer.healthy = False
    with pytest.raises(errors.Unavailable):
        await remote.check_health()
    await RemoteLanguageModel(server.address, SETTINGS).check_health()
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        whole = await stub.Check(health_pb2.HealthCheckRequest())
        assert whole.status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="nonsense"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    await remote.close()


async def test_reflection_lists_the_services(stack) -> None:
    def names() -> set[str]:
        with grpc.insecure_channel(stack[0].address) as channel:
            return set(ProtoReflectionDescriptorDatabase(channel).get_services())

    assert {
        "medmax.v1.ImageTokenizer",
        "medmax.v1.LanguageModel",
        "grpc.health.v1.Health",
    } <= await asyncio.to_thread(names)


async def test_a_taken_port_is_named(stack) -> None:
    port = int(stack[0].address.rsplit(":", 1)[1])
    with pytest.raises(errors.ConfigurationError, match=str(port)):
        await Server({"tokenizer": Tokenizer()}, "127.0.0.1", port, SETTINGS).start()


async def test_a_wrong_key_is_refused_everywhere_but_in_health() -> None:
    def authenticate(metadata) -> None:
        if ("authorization", "Bearer right") not in list(metadata):
            raise errors.Unauthenticated("no key")

    server = await Server(
        {"tokenizer": Tokenizer(), "llm": LanguageModel()}, "127.0.0.1", 0, SETTINGS, authenticate
    ).start()
    try:
        outsider = RemoteTokenizer(server.address, SETTINGS)
        await outsider.check_health()
        with pytest.raises(errors.Unauthenticated):
            await outsider.Tokenize(tokenizer_pb2.TokenizeRequest(image=b"x"))
        with pytest.raises(errors.Unauthenticated):
            await anext(
                RemoteLanguageModel(server.address, SETTINGS).Generate(llm_pb2.LanguageModelGenerateRequest())
            )
        insider = RemoteTokenizer(server.address, Settings(service_key="right"))
        assert (await insider.Tokenize(tokenizer_pb2.TokenizeRequest(image=b"x"))).source_width == 1
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = tokenizer_pb2_grpc.ImageTokenizerStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Tokenize(tokenizer_pb2.TokenizeRequest())
            assert dict(caught.value.trailing_metadata())["medmax-code"] == "unauthenticated"
    finally:
        await server.stop(0)


async def test_stopping_releases_the_servicers() -> None:
    tokenizer = Tokenizer()
    server = await Server({"tokenizer": tokenizer}, "127.0.0.1", 0, SETTINGS).start()
    await server.stop(0)
    assert tokenizer.closed
