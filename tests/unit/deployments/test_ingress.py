"""The gateway's replica, without Ray."""

from io import BytesIO
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from services.config import Settings
from services.decoder.servicer import ImageDecoderServicer
from services.deployments.ingress import GatewayReplica
from services.errors import ModelNotFound, RateLimited, Unauthenticated, Unavailable
from services.pb.inference import grpc_service_pb2 as pb
from services.pb.medmax.v1 import tokenizer_pb2
from services.rpc import Server
from services.tokenizer.servicer import ImageTokenizerServicer
from tests.support.pictures import encode, noise
from tests.support.tiny import tiny_checkpoint


class Replica(GatewayReplica):
    def __del__(self) -> None:
        """Ray awaits the one above; Python would not."""


async def test_a_lost_database_does_not_have_the_replica_restarted(tmp_path: Path) -> None:
    elsewhere = {f"{name}_address": "127.0.0.1:1" for name in ("tokenizer", "llm", "decoder")}
    replica = Replica(Settings(checkpoint=tiny_checkpoint(tmp_path), data_dir=tmp_path / "data", **elsewhere))
    store = replica._assistant.backends.store
    assert store is not None
    store.engine.dispose()
    for file in (tmp_path / "data").glob("medmax.sqlite3*"):
        file.unlink()
    (tmp_path / "data" / "medmax.sqlite3").mkdir()
    with pytest.raises(Unavailable):
        await store.check_health()
    await replica.check_health()
    await replica._assistant.close()


class Call:
    """What Serve hands a gRPC method besides the request."""

    def __init__(self, **metadata: str) -> None:
        self._metadata = tuple(metadata.items())
        self.status: tuple[object, str] | None = None
        self._code: object = None

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("request_id", "serve-7"),)

    def set_code(self, code: object) -> None:
        self._code = code

    def set_details(self, details: str) -> None:
        self.status = (self._code, details)


async def test_the_open_inference_protocol_reaches_the_services_behind_the_gateway(tmp_path: Path) -> None:
    model = tiny_checkpoint(tmp_path)
    behind = Settings(checkpoint=model, threads=1)
    tokenizer = ImageTokenizerServicer.from_settings(behind)
    decoder = ImageDecoderServicer.from_settings(behind)
    server = await Server({"tokenizer": tokenizer, "decoder": decoder}, "127.0.0.1", 0, behind).start()
    settings = Settings(
        checkpoint=model,
        store=False,
        api_keys=("ward:right",),
        requests_per_minute=3,
        tokenizer_address=server.address,
        llm_address="127.0.0.1:1",
        decoder_address=server.address,
    )
    replica, call = Replica(settings), Call(authorization="Bearer right")
    try:
        request = pb.ModelInferRequest(model_name="tokenizer", raw_input_contents=[])
        tensor = request.inputs.add(name="FILE", datatype="BYTES", shape=[1, 1])
        tensor.contents.bytes_contents.append(encode(noise()))
        codes = await replica.ModelInfer(request, call)
        own = await tokenizer.Tokenize(tokenizer_pb2.TokenizeRequest(image=encode(noise())))
        assert codes.raw_output_contents[0] == np.asarray(own.codes.codes, "<i4").tobytes()
        request = pb.ModelInferRequest(model_name="decoder", raw_input_contents=codes.raw_output_contents)
        request.inputs.add(name="CODES", datatype="INT32", shape=[1, 16])
        pixels, file = (await replica.ModelInfer(request, call)).raw_output_contents
        picture = Image.open(BytesIO(file[4:]))
        assert picture.tobytes() == pixels
        assert (await replica.ServerLive(pb.ServerLiveRequest(), call)).live
        assert (await replica.ServerReady(pb.ServerReadyRequest(), call)).ready
        assert (await replica.ModelReady(pb.ModelReadyRequest(name="decoder"), call)).ready
        assert (await replica.ModelConfig(pb.ModelConfigRequest(name="decoder"), call)).config.max_batch_size
        stats = await replica.ModelStatistics(pb.ModelStatisticsRequest(name="decoder"), call)
        assert stats.model_stats[0].inference_count == 1
        with pytest.raises(ModelNotFound):
            await replica.ModelMetadata(pb.ModelMetadataRequest(name="llm"), call)
        assert call.status is not None
        assert call.status[0] is grpc.StatusCode.NOT_FOUND
        with pytest.raises(Unauthenticated):
            await replica.ServerMetadata(pb.ServerMetadataRequest(), Call())
        await replica.ModelInfer(request, call)
        with pytest.raises(RateLimited):
            await replica.ModelInfer(request, call)
        # Questions count against no rate.
        assert (await replica.ServerMetadata(pb.ServerMetadataRequest(), call)).name == "medmax"
    finally:
        await replica._assistant.close()
        await server.stop(0)
