"""A real Triton server runs the tokenizer and the decoder, and the services use it in place of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc.aio as client
from PIL import Image
from tritonclient.utils import InferenceServerException

from services.config import Backend, Settings
from services.decoder.servicer import ImageDecoderServicer
from services.errors import ConfigurationError, Unavailable
from services.pb.medmax.v1 import common_pb2, decoder_pb2, tokenizer_pb2
from services.tokenizer.servicer import ImageTokenizerServicer
from tests.support.pictures import encode, noise
from tests.support.stack import checkpoint
from tests.support.tiny import tiny_checkpoint
from tests.support.triton import Triton, installation, running

pytestmark = pytest.mark.timeout(600)  # a start loads torch twice

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "pictures"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Triton]:
    installation()
    folder = tmp_path_factory.mktemp("triton")
    command = ["-m", "services.cli", "triton", "--out", str(folder / "models"), "--checkpoint", str(model)]
    written = subprocess.run([sys.executable, *command, "--json"], check=True, capture_output=True)
    assert json.loads(written.stdout)["models"] == ["tokenizer", "decoder"]
    with running(folder / "models", folder) as server:
        yield server


Pair = tuple[ImageTokenizerServicer, ImageDecoderServicer]


@pytest.fixture
async def here(model: Path) -> AsyncIterator[Pair]:
    settings = Settings(checkpoint=model, threads=1)
    pair = ImageTokenizerServicer.from_settings(settings), ImageDecoderServicer.from_settings(settings)
    yield pair
    for service in pair:
        await service.close()


def at(triton: Triton, model: Path) -> Settings:
    return Settings(
        checkpoint=model,
        threads=1,
        tokenizer_backend=Backend.TRITON,
        tokenizer_triton_address=triton.address,
        decoder_backend=Backend.TRITON,
        decoder_triton_address=triton.address,
        triton_retries=1,
    )


@pytest.fixture
async def there(triton: Triton, model: Path) -> AsyncIterator[Pair]:
    settings = at(triton, model)
    pair = ImageTokenizerServicer.from_settings(settings), ImageDecoderServicer.from_settings(settings)
    yield pair
    for service in pair:
        await service.close()


def pictures() -> list[bytes]:
    shipped = sorted(EXAMPLES.glob("*.png"))[:2]
    return [*(path.read_bytes() for path in shipped), encode(noise(90, 130)), encode(noise(200, 96, seed=1))]


async def test_the_services_answer_with_triton_as_without(here: Pair, there: Pair) -> None:
    for picture in pictures():
        request = tokenizer_pb2.TokenizeRequest(image=picture)
        ours, theirs = await here[0].Tokenize(request), await there[0].Tokenize(request)
        assert theirs == ours
        drawing = decoder_pb2.DecodeRequest(codes=ours.codes)
        drawn = [await pair[1].Decode(drawing) for pair in (here, there)]
        assert drawn[0].model == drawn[1].model
        assert apart(*(answer.image for answer in drawn)) <= 1


def apart(one: bytes, other: bytes) -> int:
    """Grey levels by which two pictures differ at most."""
    pixels = [np.asarray(Image.open(BytesIO(data)), np.int16) for data in (one, other)]
    assert pixels[0].shape == pixels[1].shape
    return int(np.abs(pixels[0] - pixels[1]).max())


async def test_clients_of_triton_get_files_and_batches_answered(triton: Triton, here: Pair) -> None:
    batch = pictures()
    expected = [
        list((await here[0].Tokenize(tokenizer_pb2.TokenizeRequest(image=picture))).codes.codes)
        for picture in batch
    ]
    async with client.InferenceServerClient(triton.address) as connected:
        given = client.InferInput("FILE", [len(batch), 1], "BYTES")
        given.set_data_from_numpy(np.array([[picture] for picture in batch], object))
        codes = (await connected.infer("tokenizer", [given])).as_numpy("CODES")
        assert codes.tolist() == expected
        given = client.InferInput("CODES", list(codes.shape), "INT32")
        given.set_data_from_numpy(codes)
        answer = await connected.infer("decoder", [given])
        files, pixels = answer.as_numpy("FILE"), answer.as_numpy("PIXELS")
        for row, (file,), picture in zip(codes, files, pixels, strict=True):
            rows, columns = here[1].decoder.grid
            grid = common_pb2.ImageCodes(codes=row.tolist(), height=rows, width=columns)
            own = (await here[1].Decode(decoder_pb2.DecodeRequest(codes=grid))).image
            assert apart(file, own) <= 1
            assert apart(encode(picture), own) <= 1


async def test_faults_are_named_and_the_model_goes_on(triton: Triton) -> None:
    async with client.InferenceServerClient(triton.address) as connected:
        given = client.InferInput("FILE", [1, 1], "BYTES")
        given.set_data_from_numpy(np.array([[b"no picture"]], object))
        with pytest.raises(InferenceServerException) as caught:
            await connected.infer("tokenizer", [given])
        assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
        assert "inputs[FILE][0]" in caught.value.message()
        given.set_data_from_numpy(np.array([[pictures()[0]]], object))
        assert (await connected.infer("tokenizer", [given])).as_numpy("CODES").shape[0] == 1


async def test_a_repository_of_another_checkpoint_is_found_out(triton: Triton, tmp_path: Path) -> None:
    settings = at(triton, tiny_checkpoint(tmp_path))
    tokenizer = ImageTokenizerServicer.from_settings(settings)
    with pytest.raises(ConfigurationError, match="another checkpoint"):
        await tokenizer.Tokenize(tokenizer_pb2.TokenizeRequest(image=encode(noise())))
    await tokenizer.close()


async def test_z_triton_may_go(triton: Triton, there: Pair) -> None:
    # Last: it stops the server that the tests above share.
    for service in there:
        await service.check_health()
    triton.stop()
    for service in there:
        with pytest.raises(Unavailable):
            await service.check_health()
    with pytest.raises(Unavailable):
        await there[0].Tokenize(tokenizer_pb2.TokenizeRequest(image=encode(noise(seed=9))))
