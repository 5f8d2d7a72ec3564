"""The tokenizer and its servicer: codes, cache, coalescing, limits, and that it goes on after bad input."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch

from services.checkpoint import open_checkpoint
from services.config import Settings
from services.deadline import Deadline
from services.errors import DeadlineExceeded, InvalidImage, InvalidInput, MedMaxError, Overloaded, Unavailable
from services.pb.medmax.v1 import common_pb2, tokenizer_pb2
from services.tokenizer import tokenizer as module
from services.tokenizer.preprocess import to_input, to_square
from services.tokenizer.servicer import ImageTokenizerServicer
from services.tokenizer.tokenizer import ImageTokenizer
from services.tokenizer.window import Window
from services.vqgan import load_vqgan
from tests.support.pictures import dicom, encode, noise


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Counts pictures read; `gate` holds them up."""
    seen: dict[str, Any] = {"count": 0, "gate": threading.Event()}
    seen["gate"].set()
    real = module.read_picture

    def counted(*args: Any) -> Any:
        seen["count"] += 1
        assert seen["gate"].wait(10)
        return real(*args)

    monkeypatch.setattr(module, "read_picture", counted)
    return seen


async def test_codes_are_the_encoder_s(tokenizer: ImageTokenizer, tiny_settings: Settings) -> None:
    pixels = noise(20, 31)
    tokens = await tokenizer.tokenize(encode(pixels))
    vqgan = load_vqgan(open_checkpoint(tiny_settings.checkpoint), decoder=False)
    expected = vqgan.encode(torch.from_numpy(to_input([to_square(pixels, 8)])))[0]
    assert tokens.codes.tolist() == expected.tolist()
    assert len(set(tokens.codes.tolist())) > 1
    assert (tokens.grid, tokens.format, tokens.width, tokens.height) == ((4, 4), "png", 31, 20)


async def test_lossless_formats_give_the_same_codes(tokenizer: ImageTokenizer) -> None:
    pixels = noise(20, 31)
    files = [
        encode(pixels),
        encode(pixels, "WEBP", lossless=True),
        encode(pixels, "TIFF", compression="tiff_lzw"),
        encode(pixels, "BMP"),
        dicom(pixels),
    ]
    codes = [(await tokenizer.tokenize(file)).codes.tolist() for file in files]
    assert all(other == codes[0] for other in codes)


async def test_codes_do_not_depend_on_company(tokenizer: ImageTokenizer) -> None:
    files = [encode(noise(20, 20, seed=seed)) for seed in range(12)]
    together = await asyncio.gather(*(tokenizer.tokenize(file) for file in files))
    tokenizer._cache = module.ByteCache(0)
    for file, tokens in zip(files, together, strict=True):
        assert np.array_equal((await tokenizer.tokenize(file)).codes, tokens.codes)


async def test_the_same_picture_is_answered_from_the_cache(
    tokenizer: ImageTokenizer, reads: dict[str, Any]
) -> None:
    data = encode(noise())
    first, second = await tokenizer.tokenize(data), await tokenizer.tokenize(data)
    assert (first.cached, second.cached, reads["count"]) == (False, True, 1)
    assert np.array_equal(first.codes, second.codes)
    assert first.content_sha256 == second.content_sha256 == hashlib.sha256(data).hexdigest()


async def test_another_window_is_another_picture(tokenizer: ImageTokenizer, reads: dict[str, Any]) -> None:
    data = dicom(np.arange(256, dtype=np.uint16).reshape(16, 16))
    first = await tokenizer.tokenize(data, Window(10, 20))
    second = await tokenizer.tokenize(data, Window(200, 20))
    assert reads["count"] == 2
    assert first.codes.tolist() != second.codes.tolist()
    assert (await tokenizer.tokenize(data, Window(10, 20))).cached


async def test_the_cache_keeps_its_byte_limit(tiny_settings: Settings, reads: dict[str, Any]) -> None:
    entry = 16 * 4 + module.ENTRY_BYTES
    tokenizer = ImageTokenizer.load(tiny_settings.model_copy(update={"tokenizer_cache_bytes": 3 * entry}))
    files = [encode(noise(seed=seed)) for seed in range(5)]
    for file in files:
        await tokenizer.tokenize(file)
    assert tokenizer._cache.bytes <= 3 * entry
    assert [(await tokenizer.tokenize(file)).cached for file in (files[4], files[3], files[2])] == [True] * 3
    assert not (await tokenizer.tokenize(files[0])).cached
    await tokenizer.close()


async def test_identical_requests_at_once_are_worked_on_once(
    tokenizer: ImageTokenizer, reads: dict[str, Any]
) -> None:
    data = encode(noise())
    results = await asyncio.gather(*(tokenizer.tokenize(data) for _ in range(20)))
    assert reads["count"] == 1
    assert all(np.array_equal(result.codes, results[0].codes) for result in results)


async def test_one_of_two_identical_callers_may_leave(
    tokenizer: ImageTokenizer, reads: dict[str, Any]
) -> None:
    reads["gate"].clear()
    data = encode(noise())
    leaving, staying = (asyncio.create_task(tokenizer.tokenize(data)) for _ in range(2))
    await asyncio.sleep(0.05)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    reads["gate"].set()
    assert (await staying).codes.size == 16
    assert reads["count"] == 1


async def test_a_caller_may_come_after_all_others_left(
    tokenizer: ImageTokenizer, reads: dict[str, Any]
) -> None:
    reads["gate"].clear()
    data = encode(noise())
    leaving = asyncio.create_task(tokenizer.tokenize(data))
    await asyncio.sleep(0.05)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    coming = asyncio.create_task(tokenizer.tokenize(data))
    await asyncio.sleep(0.01)
    reads["gate"].set()
    assert (await coming).codes.size == 16


async def test_a_refusal_reaches_every_identical_caller_and_is_not_cached(tokenizer: ImageTokenizer) -> None:
    for _ in range(2):
        results = await asyncio.gather(
            *(tokenizer.tokenize(b"no picture") for _ in range(3)), return_exceptions=True
        )
        assert all(isinstance(result, InvalidImage) for result in results)


async def test_a_bad_picture_does_not_fail_its_neighbours(tokenizer: ImageTokenizer) -> None:
    good = encode(noise())
    results = await asyncio.gather(
        tokenizer.tokenize(good), tokenizer.tokenize(good[:-30]), tokenizer.tokenize(encode(noise(seed=1))),
        return_exceptions=True,
    )  # fmt: skip
    assert [isinstance(result, InvalidImage) for result in results] == [False, True, False]


async def test_time_that_runs_out_is_an_error_and_the_tokenizer_goes_on(
    tokenizer: ImageTokenizer, reads: dict[str, Any]
) -> None:
    reads["gate"].clear()
    with pytest.raises(DeadlineExceeded):
        await tokenizer.tokenize(encode(noise()), None, Deadline(time.monotonic() + 0.03))
    reads["gate"].set()
    assert (await tokenizer.tokenize(encode(noise(seed=1)))).codes.size == 16


async def test_too_many_pictures_at_once_are_refused(tiny_settings: Settings, reads: dict[str, Any]) -> None:
    scale = tiny_settings.tokenizer.model_copy(update={"max_queued_requests": 3})
    tokenizer = ImageTokenizer.load(tiny_settings.model_copy(update={"tokenizer": scale}))
    reads["gate"].clear()
    running = [asyncio.create_task(tokenizer.tokenize(encode(noise(seed=seed)))) for seed in range(3)]
    await asyncio.sleep(0.05)
    with pytest.raises(Overloaded) as caught:
        await tokenizer.tokenize(encode(noise(seed=9)))
    assert "3" in caught.value.message
    reads["gate"].set()
    assert len(await asyncio.gather(*running)) == 3
    assert (await tokenizer.tokenize(encode(noise(seed=9)))).codes.size == 16
    await tokenizer.close()


async def test_closing_finishes_what_was_accepted(tiny_settings: Settings, reads: dict[str, Any]) -> None:
    tokenizer = ImageTokenizer.load(tiny_settings)
    await tokenizer.check_health()
    reads["gate"].clear()
    running = asyncio.create_task(tokenizer.tokenize(encode(noise())))
    await asyncio.sleep(0.05)
    closing = asyncio.create_task(tokenizer.close())
    await asyncio.sleep(0.01)
    with pytest.raises(Unavailable):
        await tokenizer.tokenize(encode(noise(seed=1)))
    reads["gate"].set()
    await closing
    assert (await running).codes.size == 16
    with pytest.raises(Unavailable):
        await tokenizer.check_health()


def test_a_tokenizer_serves_one_event_loop_after_another(tiny_settings: Settings) -> None:
    tokenizer = ImageTokenizer.load(tiny_settings)
    codes = [asyncio.run(tokenizer.tokenize(encode(noise(seed=seed)))).codes.size for seed in range(2)]
    assert codes == [16, 16]


async def test_servicer_answers_in_the_contract_s_terms(tiny_settings: Settings) -> None:
    servicer = ImageTokenizerServicer.from_settings(tiny_settings)
    data = encode(noise(20, 31), "TIFF")
    response = await servicer.Tokenize(tokenizer_pb2.TokenizeRequest(image=data))
    assert (response.codes.height, response.codes.width, len(response.codes.codes)) == (4, 4, 16)
    assert (response.source_format, response.source_width, response.source_height) == ("tiff", 31, 20)
    assert response.content_sha256 == hashlib.sha256(data).hexdigest()
    assert response.model.id == tiny_settings.model_id
    assert response.model.digest == open_checkpoint(tiny_settings.checkpoint).digest
    assert not response.cached
    again = await servicer.Tokenize(tokenizer_pb2.TokenizeRequest(image=data))
    assert again.cached
    await servicer.check_health()
    await servicer.close()


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (tokenizer_pb2.TokenizeRequest(), "image"),
        (tokenizer_pb2.TokenizeRequest(image=b"x" * 100), "image"),
        (tokenizer_pb2.TokenizeRequest(image=bytes(2 << 20)), "image"),
        (tokenizer_pb2.TokenizeRequest(image=encode(noise()), window=common_pb2.Window(center=1, width=2)), "window"),
        (tokenizer_pb2.TokenizeRequest(image=dicom(noise(channels=1)), window=common_pb2.Window(center=1)), "window.width"),
        (
            tokenizer_pb2.TokenizeRequest(image=dicom(noise(channels=1)), window=common_pb2.Window(center=float("nan"), width=2)),
            "window.center",
        ),
    ],
)  # fmt: skip
async def test_servicer_refuses_bad_input_by_field_and_goes_on(
    tiny_settings: Settings, request_: tokenizer_pb2.TokenizeRequest, field: str
) -> None:
    servicer = ImageTokenizerServicer.from_settings(tiny_settings)
    with pytest.raises(InvalidInput) as caught:
        await servicer.Tokenize(request_)
    assert caught.value.field == field
    assert (await servicer.Tokenize(tokenizer_pb2.TokenizeRequest(image=encode(noise())))).codes.codes
    await servicer.close()


async def test_servicer_keeps_the_caller_s_deadline(tiny_settings: Settings, reads: dict[str, Any]) -> None:
    servicer = ImageTokenizerServicer.from_settings(tiny_settings)
    reads["gate"].clear()
    request = tokenizer_pb2.TokenizeRequest(
        image=encode(noise()), context=common_pb2.RequestContext(timeout_ms=30)
    )
    with pytest.raises(MedMaxError) as caught:
        await servicer.Tokenize(request)
    assert caught.value.code == "deadline_exceeded"
    reads["gate"].set()
    await servicer.close()
