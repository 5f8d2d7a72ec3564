"""The experiment of a broken slice, in small: rows, fine-tuning, merging, asking, the table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from evaluation.phantoms import truth
from scripts import slice_recovery
from scripts.slice_recovery import Scores, compare, markdown, write_rows
from tests.support.tiny import tiny_checkpoint
from training.phantom.without import topic_of

WANTED = ("chest_xray", "side")


def test_corrected_rows_are_about_the_slice_and_replayed_ones_are_not(tmp_path: Path) -> None:
    file = write_rows(tmp_path, WANTED, 9, 30, np.random.default_rng(0))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    about: dict[str, list[bool]] = {"phantom-corrected": [], "phantom-replay": []}
    for row in rows:
        seed = int(Path(row["image_path"]).stem)
        assert (tmp_path / row["image_path"]).is_file()
        drawing = row["text"].endswith("<image>")
        asked = {topic_of(user) for user in row["text"].split("<reserved08706>")[::2] if not drawing}
        about[row["source"]].append(truth(seed).modality == WANTED[0] and WANTED[1] in asked)
        assert row["source"] == "phantom-replay" or asked == {WANTED[1]}
    assert about == {"phantom-corrected": [True] * 9, "phantom-replay": [False] * 30}
    replayed = [row for row in rows if row["source"] == "phantom-replay"]
    assert sum(truth(int(Path(row["image_path"]).stem)).modality == WANTED[0] for row in replayed) >= 15


def test_the_table_says_whether_the_slice_came_back_and_what_was_lost() -> None:
    other = ("fundus", "count")
    full, broken, mended = Scores(), Scores(), Scores()
    full.of |= {WANTED: [1.0] * 10, other: [1.0] * 10}
    broken.of |= {WANTED: [0.0] * 10, other: [1.0] * 10}
    mended.of |= {WANTED: [1.0] * 10, other: [1.0] * 9 + [0.0]}
    result = compare(WANTED, full, broken, mended)
    assert (result["recovered"], result["others_kept"]) == (True, False)
    assert result["worst_other"]["gain"] == pytest.approx(-0.1)
    assert "| **chest_xray** | **side** | **10** | **100.0** | **0.0** | **100.0** |" in markdown(result)


@pytest.mark.slow
def test_the_whole_experiment_runs(tmp_path: Path) -> None:
    tiny = str(tiny_checkpoint(tmp_path, max_position_embeddings=512))
    result = slice_recovery.main(
        ["--slice", "chest_xray:side", "--full", tiny, "--broken", tiny, "--out", str(tmp_path / "out"), "--rows", "4",
         "--replay", "4", "--phantoms", "10", "--drawings", "4", "--epochs", "1"]
    )  # fmt: skip
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written["slices"] == result["slices"]
    assert {line["topic"] for line in written["slices"]} >= {"side", "caption", "drawing", "presence"}
    assert written["training"]["rows"]["read"] == 8
    assert "| modality | topic |" in (tmp_path / "out" / "results.md").read_text()
    again = slice_recovery.main(
        ["--slice", "chest_xray:side", "--full", tiny, "--broken", tiny, "--mended", str(tmp_path / "out" / "mended"),
         "--out", str(tmp_path / "again"), "--phantoms", "10", "--drawings", "4"]
    )  # fmt: skip
    assert again["slices"] == result["slices"]
    assert again["training"] is None
