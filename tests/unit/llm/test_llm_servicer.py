from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.checkpoint import Checkpoint
from services.config import Settings
from services.errors import CheckpointError, DeadlineExceeded, InvalidInput, Unavailable
from services.llm.engine import Engine
from services.llm.servicer import LanguageModelServicer
from services.pb.medmax.v1 import common_pb2, llm_pb2
from tests.support.tiny import CODES_PER_IMAGE, GRID, tiny_checkpoint

Request = llm_pb2.LanguageModelGenerateRequest


@pytest.fixture
def servicer(engine: Engine) -> LanguageModelServicer:
    return LanguageModelServicer(engine, Settings(model_id="tiny"))


def ask(checkpoint: Checkpoint, **fields: object) -> llm_pb2.LanguageModelGenerateRequest:
    v = checkpoint.vocabulary
    return Request(prompt_ids=[v.bos, *v.encode("is it?"), v.end_of_turn], **fields)


async def events(stream: AsyncIterator[llm_pb2.LanguageModelEvent]) -> list[llm_pb2.LanguageModelEvent]:
    return [event async for event in stream]


async def test_a_picture_comes_as_codes_of_the_grid_and_one_finish_ends_the_stream(
    servicer: LanguageModelServicer, checkpoint: Checkpoint
) -> None:
    request = ask(checkpoint, mode=common_pb2.OUTPUT_MODE_IMAGE, sampling=common_pb2.Sampling(seed=9))
    picture, finish = await events(servicer.Generate(request))
    assert (picture.image.codes.height, picture.image.codes.width) == (GRID, GRID)
    assert len(picture.image.codes.codes) == CODES_PER_IMAGE
    assert picture.image.confidence.tokens == CODES_PER_IMAGE
    assert picture.image.confidence.mean_logprob < 0
    assert finish.finish.reason == common_pb2.FINISH_REASON_STOP
    assert finish.finish.usage.images == 1
    assert finish.finish.usage.seed == 9
    assert finish.finish.model == common_pb2.ModelVersion(id="tiny", digest=checkpoint.digest)
    assert finish.finish.text_confidence.tokens == 0


async def test_text_comes_with_ids_and_logprobs_where_asked(
    servicer: LanguageModelServicer, checkpoint: Checkpoint
) -> None:
    request = ask(checkpoint, max_new_tokens=6, top_logprobs=2, sampling=common_pb2.Sampling(temperature=0))
    *text, finish = await events(servicer.Generate(request))
    ids = [i for event in text for i in event.text.token_ids]
    entries = [entry for event in text for entry in event.text.logprobs]
    assert [entry.token_id for entry in entries] == ids
    assert all(len(entry.top) == 2 for entry in entries)
    assert finish.finish.text_confidence.tokens == len(ids)


async def test_unset_differs_from_zero(servicer: LanguageModelServicer, checkpoint: Checkpoint) -> None:
    image = common_pb2.OUTPUT_MODE_IMAGE

    async def codes(sampling: common_pb2.Sampling) -> list[int]:
        answer = await events(servicer.Generate(ask(checkpoint, mode=image, sampling=sampling)))
        return list(answer[0].image.codes.codes)

    unset = await codes(common_pb2.Sampling(seed=3))
    assert unset == await codes(common_pb2.Sampling(seed=3, image_temperature=0.7))
    assert unset != await codes(common_pb2.Sampling(seed=3, image_temperature=0))
    with pytest.raises(InvalidInput) as caught:
        await events(servicer.Generate(ask(checkpoint, max_new_tokens=0)))
    assert caught.value.field == "max_new_tokens"


@pytest.mark.parametrize("field", ["mode", "priority"])
async def test_an_unknown_enum_value_is_refused_by_name(
    servicer: LanguageModelServicer, checkpoint: Checkpoint, field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await events(servicer.Generate(ask(checkpoint, **{field: 77})))
    assert caught.value.field == field


async def test_the_timeout_of_the_context_is_kept(
    servicer: LanguageModelServicer, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = servicer.engine._scheduler.step
    monkeypatch.setattr(servicer.engine._scheduler, "step", lambda: (time.sleep(0.01), step()))
    context = common_pb2.RequestContext(timeout_ms=50)
    request = ask(checkpoint, context=context, mode=common_pb2.OUTPUT_MODE_IMAGE)
    with pytest.raises(DeadlineExceeded):
        await events(servicer.Generate(request))


async def test_closing_the_iterator_cancels_the_work(
    servicer: LanguageModelServicer, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = servicer.engine._scheduler.step
    monkeypatch.setattr(servicer.engine._scheduler, "step", lambda: (time.sleep(0.01), step()))
    before = servicer.engine.stats().failed
    request = ask(checkpoint, sampling=common_pb2.Sampling(temperature=2, top_p=1, seed=1))
    stream = servicer.Generate(request)
    await anext(stream)
    await stream.aclose()
    for _ in range(200):
        if not servicer.engine.stats().active:
            break
        await asyncio.sleep(0.01)
    assert servicer.engine.stats().active == 0
    assert servicer.engine.stats().failed == before + 1


async def test_from_settings_to_close(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path)
    with pytest.raises(CheckpointError):
        LanguageModelServicer.from_settings(Settings(checkpoint=tmp_path / "nowhere"))
    servicer = LanguageModelServicer.from_settings(Settings(checkpoint=path, threads=1))
    await servicer.check_health()
    await servicer.close()
    with pytest.raises(Unavailable):
        await servicer.check_health()


async def test_previews_and_callers_travel_and_are_checked(
    servicer: LanguageModelServicer, checkpoint: Checkpoint
) -> None:
    drawn = ask(checkpoint, mode=common_pb2.OUTPUT_MODE_IMAGE, preview_codes=8, caller="ward-3")
    preview, picture, _ = await events(servicer.Generate(drawn))
    assert (preview.preview.height, preview.preview.width) == (GRID, GRID)
    assert list(preview.preview.codes) == list(picture.image.codes.codes)[:8]
    for field, wrong in (("caller", "x" * 65), ("caller", "Erika Mustermann"), ("preview_codes", 65536)):
        with pytest.raises(InvalidInput) as caught:
            await events(servicer.Generate(ask(checkpoint, **{field: wrong})))
        assert caught.value.field == field
        assert "Erika" not in str(caught.value)
