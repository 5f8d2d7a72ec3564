"""Reading a whole data set once: what can be used, what cannot and why, and how rows share sequences."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.checkpoint import Checkpoint
from services.config import Settings
from services.errors import InvalidInput
from services.tokenizer.tokenizer import ImageTokenizer
from tests.support.instructions import EOT, picture, write_data, write_lines
from training.rows.pack import pack
from training.rows.pictures import CodeCache, Pictures, encoder_digest
from training.rows.sequence import SequenceMaker
from training.rows.source import open_source
from training.rows.survey import Reader, Survey, survey
from training.rows.trouble import Reason, Unusable


@pytest.fixture
def pictures(tmp_path: Path, tiny: Path, checkpoint: Checkpoint) -> Pictures:
    return Pictures(
        tmp_path, Settings(checkpoint=tiny), CodeCache(tmp_path / "c.sqlite3", encoder_digest(checkpoint))
    )


def read(
    file: Path, checkpoint: Checkpoint, pictures: Pictures, strict: bool = False, holdout: float = 0.0
) -> Survey:
    maker = SequenceMaker(
        checkpoint.vocabulary, checkpoint.codes_per_image, checkpoint.config.context, pictures.codes
    )
    return survey(Reader(open_source(file), maker), holdout, 0, strict, file.parent / "survey.npz")


def test_malformed_rows_are_counted_and_named_and_the_rest_is_used(
    tmp_path: Path, checkpoint: Checkpoint, pictures: Pictures
) -> None:
    (tmp_path / "text.png").write_text("no picture")
    picture(tmp_path / "good.png", 1)
    good = {"text": f"<image>Q{EOT}a", "image_path": "good.png"}
    rows = [
        good,
        "{not json",
        {**good, "image_path": "gone.png"},
        {"text": f"<image>Q{EOT}a", "image_tokens": [99] * 16},
        {"text": "no end of turn"},
        '{"text": "' + "x" * (10 << 20) + '"}',
        {**good, "image_path": "text.png"},
        {**good, "image_path": "../outside.png"},
        {**good, "image_path": "/etc/passwd"},
        {"text": f"<image>Q{EOT}a", "credential": True},
        good,
    ]
    found = read(write_lines(tmp_path / "rows.jsonl", rows), checkpoint, pictures)
    assert np.flatnonzero(found.length).tolist() == [0, 10]
    assert [(place, reason) for place, reason, _ in found.skipped.rows] == [
        ("rows.jsonl:2", Reason.NOT_JSON),
        ("rows.jsonl:3", Reason.MISSING_PICTURE),
        ("rows.jsonl:4", Reason.CODE_OUT_OF_RANGE),
        ("rows.jsonl:5", Reason.NO_END_OF_TURN),
        ("rows.jsonl:6", Reason.LINE_TOO_LONG),
        ("rows.jsonl:7", Reason.BAD_PICTURE),
        ("rows.jsonl:8", Reason.PICTURE_OUTSIDE),
        ("rows.jsonl:9", Reason.PICTURE_OUTSIDE),
        ("rows.jsonl:10", Reason.NEEDS_CREDENTIAL),
    ]
    assert found.skipped.to_json()[Reason.PICTURE_OUTSIDE]["count"] == 2
    listed = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert [item["row"] for item in listed] == [place for place, *_ in found.skipped.rows]


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path, tiny: Path) -> None:
    picture(tmp_path / "secret.png", 1)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(Unusable) as caught:
        Pictures(tmp_path / "data", Settings(checkpoint=tiny)).read("link.png")
    assert caught.value.reason == Reason.PICTURE_OUTSIDE


def test_strict_stops_at_the_first_row_with_its_line(
    tmp_path: Path, checkpoint: Checkpoint, pictures: Pictures
) -> None:
    file = write_lines(tmp_path / "rows.jsonl", [{"text": f"Q{EOT}a"}, {"text": "none"}, "{"])
    with pytest.raises(InvalidInput) as caught:
        read(file, checkpoint, pictures, strict=True)
    assert caught.value.field == "rows.jsonl:2"
    assert read(file, checkpoint, pictures).skipped.counts == {"no_end_of_turn": 1, "not_json": 1}
    with pytest.raises(InvalidInput):  # also where the result is kept
        read(file, checkpoint, pictures, strict=True)


def test_a_data_set_for_another_model_says_so(
    tmp_path: Path, checkpoint: Checkpoint, pictures: Pictures
) -> None:
    rows = [{"tokens": [0, 8197, *range(4, 1028), 8196, 9000, 8710, 9001, 2]}] * 3
    with pytest.raises(InvalidInput, match="another model's"):
        read(write_lines(tmp_path / "rows.jsonl", rows), checkpoint, pictures)


def test_pictures_are_encoded_once_and_as_the_service_does(
    tmp_path: Path, tiny: Path, checkpoint: Checkpoint, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = picture(tmp_path / "a.png", 5)
    codes = pictures.codes("a.png")
    copy = tmp_path / "copy.png"
    copy.write_bytes(file.read_bytes())
    again = Pictures(
        tmp_path, Settings(checkpoint=tiny), CodeCache(tmp_path / "c.sqlite3", encoder_digest(checkpoint))
    )
    with monkeypatch.context() as patch:
        patch.setattr(ImageTokenizer, "load", lambda settings: pytest.fail("encoded again"))
        assert again.codes("copy.png").tolist() == codes.tolist()
    pictures.close()

    import asyncio

    async def serve() -> list[int]:
        tokenizer = ImageTokenizer.load(Settings(checkpoint=tiny))
        tokens = await tokenizer.tokenize(file.read_bytes())
        await tokenizer.close()
        return tokens.codes.tolist()

    assert asyncio.run(serve()) == codes.tolist()


def test_rows_about_one_picture_are_held_out_together(
    tmp_path: Path, checkpoint: Checkpoint, pictures: Pictures
) -> None:
    for number in range(30):
        picture(tmp_path / f"{number}.png", number)
    rows = [{"text": f"<image>Q{i}{EOT}a", "image_path": f"{i % 30}.png"} for i in range(90)]
    held = read(write_lines(tmp_path / "rows.jsonl", rows), checkpoint, pictures, holdout=0.3).held
    assert held.reshape(3, 30).any(0).tolist() == held.reshape(3, 30).all(0).tolist()
    assert 0 < held.sum() < 60


def test_a_kept_survey_serves_until_the_data_changes(
    tmp_path: Path, checkpoint: Checkpoint, pictures: Pictures
) -> None:
    file = write_data(tmp_path, 6)
    first = read(file, checkpoint, pictures)
    (tmp_path / "images" / "0a.png").unlink()
    assert read(file, checkpoint, pictures).length.tolist() == first.length.tolist()
    file.write_bytes(file.read_bytes() + b"{}\n")
    os.utime(file, (1, 1))
    changed = read(file, checkpoint, pictures)
    assert (len(changed.length), changed.skipped.counts) == (7, {"bad_field": 1, "missing_picture": 1})


@given(st.lists(st.integers(1, 50), min_size=1, max_size=300), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_packs_hold_every_row_once_and_never_too_much(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = np.array(lengths, np.int32)
    packs = pack(rng.permutation(len(sizes)), sizes, 50, rng)
    members = [packs[i] for i in range(len(packs))]
    assert sorted(row for rows in members for row in rows) == list(range(len(sizes)))
    totals = [int(sizes[rows].sum()) for rows in members]
    assert max(totals) <= 50
    assert sum(total <= 25 for total in totals) <= 1  # two of them would have shared a pack
