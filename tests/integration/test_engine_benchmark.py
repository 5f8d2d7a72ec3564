"""The engine benchmark as a whole, on a tiny checkpoint: what it writes, not how fast anything is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtests.engine import client
from loadtests.engine.__main__ import main
from loadtests.engine.client import Kind
from tests.support.benchmark import RATIO, ROW
from tests.support.tiny import tiny_checkpoint


@pytest.mark.slow
def test_a_run_measures_us_and_transformers_and_reports_who_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = Kind("vllm", tmp_path / "bin" / "python", "no environment .venv-vllm; make bench-peers")
    monkeypatch.setitem(client.KINDS, "vllm", absent)
    directory = tiny_checkpoint(tmp_path, max_position_embeddings=512)
    out, picture = tmp_path / "out.json", tmp_path / "out.png"
    main(
        [
            *("--quick", "--threads", "1", "--rounds", "1", "--callers", "2"),
            *("--checkpoint", str(directory), "--cache", str(tmp_path / "cache")),
            *(
                "--engines",
                "ours",
                "transformers-generate",
                "transformers-guided",
                "vllm",
                "--works",
                "text",
                "questions",
                "pictures",
            ),
            *("--json", str(out), "--plot", str(picture)),
        ]
    )
    values = json.loads(out.read_text())
    assert set(values) == {"machine", "versions", "rows", "ratios"}
    assert all(list(row) == ROW for row in values["rows"])
    assert all(list(ratio) == RATIO for ratio in values["ratios"])
    rows = {(row["work"], row["callers"], row["engine"]): row for row in values["rows"]}
    assert set(rows) == {
        ("text", 2, "ours"),
        ("text", 2, "transformers-generate"),
        ("text", 2, "vllm"),
        ("questions", 10, "ours"),
        ("questions", 10, "ours-serial"),
        ("pictures", 1, "ours"),
        ("pictures", 8, "ours"),
        ("pictures", 8, "ours-serial"),
        ("pictures", 1, "transformers-guided"),
        ("pictures", 8, "transformers-guided"),
    }
    for (work, _, engine), row in rows.items():
        ran = engine != "vllm"
        assert row["runs"] == int(ran)
        assert (row["output_tokens_per_s"] is not None) == ran
        assert (row["pictures_per_s"] is not None) == (work == "pictures")
        assert row["goodput_rps"] is None
    compared = {(ratio["work"], ratio["ours_over"]) for ratio in values["ratios"]}
    assert compared == {
        ("text", "transformers-generate"),
        ("questions", "ours-serial"),
        ("questions", "one question, prompt tokens read"),
        ("pictures", "ours-serial"),
        ("pictures", "transformers-guided"),
    }
    assert "not run: no environment" in values["versions"]["vllm"]
    assert "not run" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")
