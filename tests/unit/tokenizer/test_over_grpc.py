"""Tokenizer and decoder as plain gRPC servers: errors arrive whole, and the servers go on after bad input."""

from __future__ import annotations

from collections.abc import AsyncIterator
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from services.config import Settings
from services.decoder.servicer import ImageDecoderServicer
from services.errors import InvalidImage, InvalidInput, PayloadTooLarge
from services.pb.medmax.v1 import decoder_pb2, tokenizer_pb2
from services.rpc.client import RemoteDecoder, RemoteTokenizer
from services.rpc.server import Server
from services.tokenizer.servicer import ImageTokenizerServicer
from tests.support.pictures import dicom, encode, noise, png_header


@pytest.fixture
async def address(tiny_settings: Settings) -> AsyncIterator[str]:
    servicers = {
        "tokenizer": ImageTokenizerServicer.from_settings(tiny_settings),
        "decoder": ImageDecoderServicer.from_settings(tiny_settings),
    }
    server = await Server(servicers, "127.0.0.1", 0, tiny_settings).start()
    yield server.address
    await server.stop(1)


async def test_a_picture_goes_there_and_back(address: str, tiny_settings: Settings) -> None:
    tokenizer, decoder = RemoteTokenizer(address, tiny_settings), RemoteDecoder(address, tiny_settings)
    tokens = await tokenizer.Tokenize(tokenizer_pb2.TokenizeRequest(image=encode(noise())))
    answer = await decoder.Decode(decoder_pb2.DecodeRequest(codes=tokens.codes))
    assert Image.open(BytesIO(answer.image)).size == (8, 8)
    assert answer.model == tokens.model
    await tokenizer.close()
    await decoder.close()


async def test_refusals_keep_their_kind_and_field_and_the_server_goes_on(
    address: str, tiny_settings: Settings
) -> None:
    tokenizer, decoder = RemoteTokenizer(address, tiny_settings), RemoteDecoder(address, tiny_settings)
    good = tokenizer_pb2.TokenizeRequest(image=encode(noise()))
    codes = (await tokenizer.Tokenize(good)).codes
    bad: list[tuple[bytes, type[InvalidInput]]] = [
        (b"", InvalidImage),
        (b"no picture", InvalidImage),
        (good.image[:-40], InvalidImage),
        (png_header(50_000, 50_000), PayloadTooLarge),
        (bytes(2 << 20), PayloadTooLarge),
        (dicom(noise(channels=1), PixelData=None), InvalidImage),
        (dicom(np.zeros((16, 16), np.uint16), Rows=65535, Columns=65535), PayloadTooLarge),
    ]
    for data, kind in bad:
        with pytest.raises(kind) as caught:
            await tokenizer.Tokenize(tokenizer_pb2.TokenizeRequest(image=data))
        assert caught.value.field == "image"
        assert "Traceback" not in caught.value.message
        with pytest.raises(InvalidInput) as caught:
            await decoder.Decode(decoder_pb2.DecodeRequest(codes=codes, size=1 + len(data) % 15))
        assert caught.value.field == "size"
    assert (await tokenizer.Tokenize(good)).cached
    assert (await decoder.Decode(decoder_pb2.DecodeRequest(codes=codes))).image
    await tokenizer.check_health()
    await tokenizer.close()
    await decoder.close()
