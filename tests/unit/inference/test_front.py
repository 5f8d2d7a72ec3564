"""The Open Inference Protocol front over a real port, called with `tritonclient`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

import grpc.aio
import numpy as np
import pytest
import tritonclient.grpc as sync_client
import tritonclient.grpc.aio as client
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from PIL import Image
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException

from services.config import Settings
from services.decoder.marking import is_synthetic
from services.errors import Unauthenticated
from services.inference.servicer import InferenceServicer
from services.pb.inference import grpc_service_pb2 as pb
from services.pb.inference import grpc_service_pb2_grpc as stubs
from services.pb.medmax.v1 import common_pb2, decoder_pb2, tokenizer_pb2
from services.rpc.server import Server
from tests.support.pictures import encode, noise
from tests.unit.inference.conftest import Front


@pytest.fixture
async def triton(front: Front) -> AsyncIterator[client.InferenceServerClient]:
    async with client.InferenceServerClient(front.address) as connected:
        yield connected


@pytest.fixture
async def stub(front: Front) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(front.address) as channel:
        yield stubs.GRPCInferenceServiceStub(channel)


def given(name: str, array: Any) -> client.InferInput:
    datatype = {"O": "BYTES", "u": "UINT8", "i": "INT32"}[array.dtype.kind]
    tensor = client.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def files(*pictures: Any) -> Any:
    return np.array([[encode(picture)] for picture in pictures], object)


async def codes_of(front: Front, picture: Any) -> list[int]:
    request = tokenizer_pb2.TokenizeRequest(image=encode(picture))
    return list((await front.tokenizer.Tokenize(request)).codes.codes)


def test_names_and_numbers_are_the_protocol_s() -> None:
    published = {
        name: message
        for module in (service_pb2, model_config_pb2)
        for name, message in module.DESCRIPTOR.message_types_by_name.items()
    }

    def same(ours: Any, theirs: Any) -> None:
        for field in ours.fields:
            other = theirs.fields_by_name[field.name]
            assert (field.number, field.type, field.is_repeated) == (
                other.number,
                other.type,
                other.is_repeated,
            )
            assert (field.containing_oneof is None) == (other.containing_oneof is None)
        for nested in ours.nested_types:
            same(nested, theirs.nested_types_by_name[nested.name])
        for kind in ours.enum_types:
            assert (
                kind.values_by_number.keys() <= theirs.enum_types_by_name[kind.name].values_by_number.keys()
            )

    for name, message in pb.DESCRIPTOR.message_types_by_name.items():
        same(message, published[name])
    for value in pb.DataType.items():
        assert value in model_config_pb2.DataType.items()
    service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
        theirs = service.methods_by_name[method.name]
        assert method.input_type.full_name == theirs.input_type.full_name
        assert method.output_type.full_name == theirs.output_type.full_name


async def test_it_says_what_it_serves(triton: client.InferenceServerClient) -> None:
    assert await triton.is_server_live()
    assert await triton.is_server_ready()
    assert await triton.is_model_ready("tokenizer")
    assert await triton.is_model_ready("decoder", "1")
    assert not await triton.is_model_ready("decoder", "2")
    assert not await triton.is_model_ready("llm")
    assert (await triton.get_server_metadata()).name == "medmax"
    tokenizer = await triton.get_model_metadata("tokenizer", as_json=True)
    assert [(tensor["name"], tensor["datatype"]) for tensor in tokenizer["inputs"]] == [
        ("FILE", "BYTES"),
        ("PIXELS", "UINT8"),
    ]
    decoder = await triton.get_model_metadata("decoder")
    assert [list(tensor.shape) for tensor in decoder.inputs] == [[-1, 16]]
    assert [list(tensor.shape) for tensor in decoder.outputs] == [[-1, 8, 8, 3], [-1, 1]]
    config = (await triton.get_model_config("tokenizer")).config
    assert config.max_batch_size == 4
    assert len(config.parameters["digest"].string_value) == 64


async def test_files_and_pixels_give_the_tokenizer_s_codes(
    front: Front, triton: client.InferenceServerClient
) -> None:
    pictures = [noise(seed=seed) for seed in range(3)]
    expected = [await codes_of(front, picture) for picture in pictures]
    for tensor in (given("FILE", files(*pictures)), given("PIXELS", np.stack(pictures))):
        answer = await triton.infer("tokenizer", [tensor], request_id="series-7")
        assert answer.as_numpy("CODES").dtype == np.int32
        assert answer.as_numpy("CODES").tolist() == expected
        response = answer.get_response()
        assert (response.id, response.model_version) == ("series-7", "1")
        assert response.parameters["digest"].string_param == front.tokenizer.tokenizer.digest


async def test_codes_give_the_decoder_s_pictures(front: Front, triton: client.InferenceServerClient) -> None:
    codes = np.stack([np.arange(16, dtype=np.int32), np.arange(16, 32, dtype=np.int32)])
    every = await triton.infer("decoder", [given("CODES", codes)])
    alone = await triton.infer(
        "decoder", [given("CODES", codes)], outputs=[client.InferRequestedOutput("PIXELS")]
    )
    assert alone.as_numpy("FILE") is None
    assert np.array_equal(alone.as_numpy("PIXELS"), every.as_numpy("PIXELS"))
    for row, pixels, file in zip(codes, every.as_numpy("PIXELS"), every.as_numpy("FILE"), strict=True):
        grid = common_pb2.ImageCodes(codes=row.tolist(), height=4, width=4)
        expected = await front.decoder.Decode(decoder_pb2.DecodeRequest(codes=grid))
        assert file[0] == expected.image
        assert np.array_equal(pixels, np.asarray(Image.open(BytesIO(expected.image))))
        assert is_synthetic(file[0])
    assert alone.get_response().parameters["synthetic"].bool_param


async def test_typed_contents_are_read_as_raw_ones_are(front: Front, stub: Any) -> None:
    picture = noise(9, 10)
    expected = await codes_of(front, picture)
    request = pb.ModelInferRequest(model_name="tokenizer")
    tensor = request.inputs.add(name="FILE", datatype="BYTES", shape=[1, 1])
    tensor.contents.bytes_contents.append(encode(picture))
    answer = await stub.ModelInfer(request)
    assert np.frombuffer(answer.raw_output_contents[0], "<i4").tolist() == expected
    request = pb.ModelInferRequest(model_name="tokenizer")
    tensor = request.inputs.add(name="PIXELS", datatype="UINT8", shape=[1, 9, 10, 3])
    tensor.contents.uint_contents.extend(picture.ravel().tolist())
    assert (await stub.ModelInfer(request)).raw_output_contents == answer.raw_output_contents
    request = pb.ModelInferRequest(model_name="decoder", outputs=[{"name": "PIXELS"}])
    tensor = request.inputs.add(name="CODES", datatype="INT32", shape=[1, 16])
    tensor.contents.int_contents.extend(range(16))
    assert len((await stub.ModelInfer(request)).raw_output_contents[0]) == 8 * 8 * 3


async def test_the_synchronous_client_works_as_well(front: Front) -> None:
    import asyncio

    def ask() -> Any:
        with sync_client.InferenceServerClient(front.address) as connected:
            tensor = sync_client.InferInput("FILE", [1, 1], "BYTES")
            tensor.set_data_from_numpy(files(noise()))
            return connected.infer("tokenizer", [tensor]).as_numpy("CODES")

    assert (await asyncio.to_thread(ask)).tolist() == [await codes_of(front, noise())]


async def test_statistics_count_answers_and_refusals(triton: client.InferenceServerClient) -> None:
    await triton.infer("tokenizer", [given("FILE", files(noise(), noise(seed=1)))])
    with pytest.raises(InferenceServerException):
        await triton.infer("tokenizer", [given("FILE", np.array([[b"no picture"]], object))])
    (tokenizer,) = (await triton.get_inference_statistics("tokenizer")).model_stats
    assert (tokenizer.inference_count, tokenizer.execution_count) == (2, 1)
    assert (tokenizer.inference_stats.success.count, tokenizer.inference_stats.fail.count) == (1, 1)
    assert tokenizer.inference_stats.success.ns >= tokenizer.inference_stats.compute_infer.ns > 0
    both = (await triton.get_inference_statistics()).model_stats
    assert {stats.name: stats.execution_count for stats in both} == {"tokenizer": 1, "decoder": 0}


async def test_a_picture_s_fault_names_its_place_in_the_batch(
    front: Front, triton: client.InferenceServerClient
) -> None:
    batch = np.array([[encode(noise())], [b"no picture"]], object)
    with pytest.raises(InferenceServerException) as caught:
        await triton.infer("tokenizer", [given("FILE", batch)])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert caught.value.message().startswith("inputs[FILE][1]: ")
    codes = np.full((1, 16), 32, np.int32)
    for outputs in (None, [client.InferRequestedOutput("PIXELS")]):
        for wrong in (codes, -codes):
            with pytest.raises(InferenceServerException, match=r"inputs\[CODES\]\[0\]"):
                await triton.infer("decoder", [given("CODES", wrong)], outputs=outputs)
    assert (await triton.infer("decoder", [given("CODES", codes - 1)])).as_numpy("PIXELS") is not None


async def test_what_perf_analyzer_adds_to_every_request_is_taken(stub: Any) -> None:
    request = pb.ModelInferRequest(model_name="decoder", outputs=[{"name": "PIXELS"}])
    request.inputs.add(name="CODES", datatype="INT32", shape=[1, 16])
    request.raw_input_contents.append(bytes(64))
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    assert len((await stub.ModelInfer(request)).raw_output_contents) == 1


async def test_a_deadline_is_kept(front: Front, triton: client.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException) as caught:
        await triton.infer("tokenizer", [given("FILE", files(noise(400, 400)))], timeout=1)
    assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    with pytest.raises(InferenceServerException) as caught:
        await triton.infer("tokenizer", [given("FILE", files(noise(401, 400)))], client_timeout=0.001)
    assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    assert (await triton.infer("tokenizer", [given("FILE", files(noise()))], client_timeout=60)).as_numpy(
        "CODES"
    ).shape == (1, 16)


async def test_a_closed_service_is_not_ready(front: Front, triton: client.InferenceServerClient) -> None:
    await front.decoder.close()
    assert await triton.is_server_live()
    assert not await triton.is_server_ready()
    assert not await triton.is_model_ready("decoder")
    assert await triton.is_model_ready("tokenizer")
    with pytest.raises(InferenceServerException) as caught:
        await triton.infer("decoder", [given("CODES", np.zeros((1, 16), np.int32))])
    assert caught.value.status() == "StatusCode.UNAVAILABLE"


async def test_reflection_knows_the_protocol(front: Front) -> None:
    async with grpc.aio.insecure_channel(front.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.GRPCInferenceService"),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="medmax.v1.ImageTokenizer"),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="nobody.Knows"),
        ]
        answers = [answer async for answer in stub.ServerReflectionInfo(iter(asked))]
    names = {service.name for service in answers[0].list_services_response.service}
    assert {"inference.GRPCInferenceService", "medmax.v1.ImageTokenizer"} <= names
    assert answers[1].file_descriptor_response.file_descriptor_proto
    assert answers[2].file_descriptor_response.file_descriptor_proto
    assert answers[3].error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


async def test_a_key_is_needed_where_keys_are_on(front: Front, settings: Settings) -> None:
    def deny(metadata: Any) -> None:
        if ("authorization", "Bearer right") not in tuple(metadata):
            raise Unauthenticated("no key")

    servicer = InferenceServicer.local(settings, front.tokenizer)
    server = await Server({"inference": servicer}, "127.0.0.1", 0, settings, deny).start()
    try:
        async with client.InferenceServerClient(server.address) as triton:
            for ask in (triton.get_server_metadata, triton.get_inference_statistics):
                with pytest.raises(InferenceServerException) as caught:
                    await ask()
                assert caught.value.status() == "StatusCode.UNAUTHENTICATED"
            headers = {"authorization": "Bearer right"}
            answer = await triton.infer("tokenizer", [given("FILE", files(noise()))], headers=headers)
            assert answer.as_numpy("CODES").shape == (1, 16)
    finally:
        await server.stop(0)
