"""Generated stubs, reflection and health against the Serve gRPC proxy."""

from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from services.pb.medmax.v1 import (
    assistant_pb2,
    assistant_pb2_grpc,
    common_pb2,
    decoder_pb2,
    decoder_pb2_grpc,
    llm_pb2,
    llm_pb2_grpc,
    tokenizer_pb2,
    tokenizer_pb2_grpc,
)
from tests.support.stack import Served

SERVICES = {
    "medmax.v1.Assistant",
    "medmax.v1.ImageTokenizer",
    "medmax.v1.LanguageModel",
    "medmax.v1.ImageDecoder",
    "grpc.health.v1.Health",
}


@pytest.fixture(scope="module")
def channel(stack: Served) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(stack.grpc) as opened:
        yield opened


def _question(png: bytes, **fields) -> assistant_pb2.GenerateRequest:
    parts = [
        assistant_pb2.Part(image=assistant_pb2.ImagePart(data=png)),
        assistant_pb2.Part(text="Which side?"),
    ]
    message = assistant_pb2.Message(role=assistant_pb2.ROLE_USER, parts=parts)
    return assistant_pb2.GenerateRequest(messages=[message], **fields)


def _trailing(error: grpc.RpcError) -> dict[str, str]:
    return dict(error.trailing_metadata() or ())


def test_the_assistant_streams_and_stores(channel: grpc.Channel, png: bytes) -> None:
    stub = assistant_pb2_grpc.AssistantStub(channel)
    events = list(stub.Generate(_question(png, max_new_tokens=6), timeout=60))
    assert [event.WhichOneof("event") for event in events][-1] == "finish"
    finish = events[-1].finish
    assert 1 <= finish.usage.completion_tokens <= 6
    stored = stub.GetInteraction(
        assistant_pb2.GetInteractionRequest(interaction_id=finish.interaction_id, include_images=True)
    )
    assert stored.prompt[0].parts[0].image.data == png
    feedback = stub.SubmitFeedback(
        assistant_pb2.SubmitFeedbackRequest(interaction_id=finish.interaction_id, rating=4)
    )
    assert feedback.feedback_id


def test_the_three_services_answer_directly(channel: grpc.Channel, png: bytes) -> None:
    tokens = tokenizer_pb2_grpc.ImageTokenizerStub(channel).Tokenize(tokenizer_pb2.TokenizeRequest(image=png))
    assert len(tokens.codes.codes) == tokens.codes.height * tokens.codes.width > 0
    picture = decoder_pb2_grpc.ImageDecoderStub(channel).Decode(decoder_pb2.DecodeRequest(codes=tokens.codes))
    assert picture.image.startswith(b"\x89PNG")
    request = llm_pb2.LanguageModelGenerateRequest(prompt_ids=[0], max_new_tokens=3)
    events = list(llm_pb2_grpc.LanguageModelStub(channel).Generate(request, timeout=60))
    assert events[-1].finish.usage.prompt_tokens == 1
    assert events[-1].finish.model.digest == tokens.model.digest


def test_a_unary_error_names_its_field(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        tokenizer_pb2_grpc.ImageTokenizerStub(channel).Tokenize(tokenizer_pb2.TokenizeRequest(image=b"no"))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert _trailing(caught.value)["medmax-code"] == "invalid_image"
    assert _trailing(caught.value)["medmax-field"] == "image"


def test_an_error_before_the_first_event_names_its_field(channel: grpc.Channel, png: bytes) -> None:
    request = _question(png, sampling=common_pb2.Sampling(temperature=-1))
    with pytest.raises(grpc.RpcError) as caught:
        list(assistant_pb2_grpc.AssistantStub(channel).Generate(request))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert _trailing(caught.value)["medmax-field"] == "sampling.temperature"
    assert "0" in caught.value.details()
    assert "Traceback" not in caught.value.details()


def test_an_error_of_the_language_model_reaches_its_direct_caller(channel: grpc.Channel) -> None:
    request = llm_pb2.LanguageModelGenerateRequest(prompt_ids=[1 << 30])
    with pytest.raises(grpc.RpcError) as caught:
        list(llm_pb2_grpc.LanguageModelStub(channel).Generate(request))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert _trailing(caught.value)["medmax-field"].startswith("prompt_ids")


def test_a_deadline_ends_the_stream(channel: grpc.Channel, png: bytes) -> None:
    request = _question(png, context=common_pb2.RequestContext(timeout_ms=1))
    with pytest.raises(grpc.RpcError) as caught:
        list(assistant_pb2_grpc.AssistantStub(channel).Generate(request))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert _trailing(caught.value)["medmax-code"] == "deadline_exceeded"


def test_an_unknown_interaction_is_not_found(channel: grpc.Channel) -> None:
    stub = assistant_pb2_grpc.AssistantStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetInteraction(assistant_pb2.GetInteractionRequest(interaction_id="int_" + "0" * 32))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_health_answers_for_the_whole_and_for_each_service(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for name in ["", *sorted(SERVICES - {"grpc.health.v1.Health"})]:
        answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, name
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="nonsense"), timeout=10)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=10)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


def test_reflection_describes_every_service(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert set(database.get_services()) >= SERVICES
    file = database.FindFileContainingSymbol("medmax.v1.Assistant")
    assert {method.name for method in file.service[0].method} == {
        "Generate",
        "SubmitFeedback",
        "GetInteraction",
    }
