"""The decoder and its servicer: pixels, validation, batching, shutting down."""

from __future__ import annotations

import asyncio
import time
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from services.checkpoint import open_checkpoint
from services.config import Settings
from services.deadline import Deadline
from services.decoder.decoder import ImageDecoder
from services.decoder.files import FileOptions, Format
from services.decoder.marking import is_synthetic
from services.decoder.servicer import ImageDecoderServicer
from services.errors import DeadlineExceeded, InvalidInput, Overloaded, Unavailable
from services.pb.medmax.v1 import common_pb2, decoder_pb2
from services.vqgan import load_vqgan

CODES = np.arange(16, dtype=np.int64)


def request(**changes: Any) -> decoder_pb2.DecodeRequest:
    codes = common_pb2.ImageCodes(codes=CODES.tolist(), height=4, width=4)
    return decoder_pb2.DecodeRequest(**{"codes": codes, **changes})


async def test_pixels_are_the_vqgan_s_cut_off_to_whole_levels(
    decoder: ImageDecoder, tiny_settings: Settings
) -> None:
    file = await decoder.decode(CODES)
    vqgan = load_vqgan(open_checkpoint(tiny_settings.checkpoint), encoder=False)
    values = vqgan.decode(torch.from_numpy(CODES)[None])[0].permute(1, 2, 0).numpy()
    expected = np.floor((values + 1) / 2 * 255).astype(np.uint8)
    assert np.array_equal(np.asarray(Image.open(BytesIO(file.data))), expected)
    assert expected.std() > 0


async def test_a_picture_does_not_depend_on_company(decoder: ImageDecoder) -> None:
    rows = [np.roll(CODES, shift) for shift in range(10)]
    together = await asyncio.gather(*(decoder.decode(row) for row in rows))
    for row, file in zip(rows, together, strict=True):
        assert (await decoder.decode(row)).data == file.data


@pytest.mark.parametrize("codes", [CODES[:15], np.append(CODES, 0), CODES[:0], CODES - 1, CODES + 17])
async def test_wrong_codes_are_refused_with_their_field(decoder: ImageDecoder, codes: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        await decoder.decode(codes)
    assert caught.value.field == "codes.codes"
    assert "16" in caught.value.message or "31" in caught.value.message
    assert (await decoder.decode(CODES)).width == 8


async def test_time_that_ran_out_is_an_error(decoder: ImageDecoder) -> None:
    with pytest.raises(DeadlineExceeded):
        await decoder.decode(CODES, None, Deadline(time.monotonic() - 1))


async def test_too_many_pictures_at_once_are_refused(tiny_settings: Settings) -> None:
    scale = tiny_settings.decoder.model_copy(update={"max_queued_requests": 2})
    decoder = ImageDecoder.load(tiny_settings.model_copy(update={"decoder": scale}))
    results = await asyncio.gather(*(decoder.decode(CODES) for _ in range(40)), return_exceptions=True)
    assert any(isinstance(result, Overloaded) for result in results)
    assert any(not isinstance(result, BaseException) for result in results)
    assert (await decoder.decode(CODES)).width == 8
    await decoder.close()


async def test_closing_finishes_what_was_accepted(tiny_settings: Settings) -> None:
    decoder = ImageDecoder.load(tiny_settings)
    await decoder.check_health()
    running = [asyncio.create_task(decoder.decode(CODES)) for _ in range(5)]
    await asyncio.sleep(0)
    await decoder.close()
    assert [file.width for file in await asyncio.gather(*running)] == [8] * 5
    with pytest.raises(Unavailable):
        await decoder.decode(CODES)
    with pytest.raises(Unavailable):
        await decoder.check_health()


@pytest.mark.parametrize(
    ("number", "mime_type", "name"),
    [(0, "image/png", "PNG"), (1, "image/png", "PNG"), (2, "image/jpeg", "JPEG"), (3, "image/webp", "WEBP")],
)
async def test_servicer_answers_in_the_contract_s_terms(
    tiny_settings: Settings, number: int, mime_type: str, name: str
) -> None:
    servicer = ImageDecoderServicer.from_settings(tiny_settings)
    response = await servicer.Decode(request(format=number, quality=80, size=64, visible_mark=True))
    image = Image.open(BytesIO(response.image))
    assert (image.format, image.size, response.mime_type) == (name, (64, 64), mime_type)
    assert (response.width, response.height) == (64, 64)
    assert is_synthetic(response.image)
    assert response.model.id == tiny_settings.model_id
    assert response.model.digest == open_checkpoint(tiny_settings.checkpoint).digest
    assert response.model.digest.encode() in response.image
    await servicer.check_health()
    await servicer.close()


async def test_servicer_uses_the_model_s_own_size_unless_told(tiny_settings: Settings) -> None:
    servicer = ImageDecoderServicer.from_settings(tiny_settings)
    response = await servicer.Decode(request())
    assert (response.width, response.height, response.mime_type) == (8, 8, "image/png")
    await servicer.close()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"codes": common_pb2.ImageCodes(codes=[0] * 15, height=4, width=4)}, "codes.codes"),
        ({"codes": common_pb2.ImageCodes(codes=[32] * 16, height=4, width=4)}, "codes.codes"),
        ({"codes": common_pb2.ImageCodes(codes=[2**32 - 1] * 16, height=4, width=4)}, "codes.codes"),
        ({"codes": common_pb2.ImageCodes(codes=[0] * 16, height=2, width=8)}, "codes.height"),
        ({"codes": common_pb2.ImageCodes(codes=[0] * 16, height=4, width=5)}, "codes.width"),
        ({"codes": common_pb2.ImageCodes()}, "codes.height"),
        ({"format": 9}, "format"),
        ({"quality": 0}, "quality"),
        ({"quality": 101}, "quality"),
        ({"size": 0}, "size"),
        ({"size": 4_000_000_000}, "size"),
    ],
)
async def test_servicer_refuses_bad_input_by_field_and_goes_on(
    tiny_settings: Settings, changes: dict[str, Any], field: str
) -> None:
    servicer = ImageDecoderServicer.from_settings(tiny_settings)
    with pytest.raises(InvalidInput) as caught:
        await servicer.Decode(request(**changes))
    assert caught.value.field == field
    assert (await servicer.Decode(request())).image
    await servicer.close()


async def test_cancelled_callers_leave_the_decoder_working(decoder: ImageDecoder) -> None:
    options = FileOptions(Format.JPEG)
    running = [asyncio.create_task(decoder.decode(CODES, options)) for _ in range(10)]
    await asyncio.sleep(0)
    for task in running[::2]:
        task.cancel()
    results = await asyncio.gather(*running, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in results] == [True, False] * 5
    await decoder.check_health()
