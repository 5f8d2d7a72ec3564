"""Fine-tuning as people run it: the command, a kill in the middle, two workers, bulk tokenization before it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file

from tests.support.instructions import picture, write_data
from tests.support.tiny import tiny_checkpoint
from tests.unit.cli.medmax import Result
from tests.unit.cli.medmax import medmax as run

COMMON = ("--base", "tiny", "--rank", "4", "--rate", "1e-2", "--batch", "2", "--length", "128", "--holdout", "0",
          "--precision", "float32", "--device", "cpu", "--json")  # fmt: skip


def medmax(folder: Path, *arguments: str, **environment: str) -> Result:
    return run(folder, *arguments, timeout=280, **environment)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lora")
    tiny_checkpoint(path, max_position_embeddings=256)
    file = write_data(path, 12)
    with file.open("a") as stream:
        stream.write("{broken\n")
    return path


def adapter(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / name / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def straight(folder: Path) -> dict[str, torch.Tensor]:
    result = medmax(
        folder, "train", "lora", "--data", "rows.jsonl", "--out", "straight", "--epochs", "6", *COMMON
    )
    assert result.status == 0, result.err
    assert "learning" in result.err
    assert result.document["left_out"]["not_json"]["first"][0]["row"] == "rows.jsonl:13"
    assert result.document["rows"]["learnt"] == 12
    return adapter(folder, "straight")


@pytest.mark.slow
def test_a_run_killed_in_the_middle_goes_on_from_its_last_save(
    folder: Path, straight: dict[str, torch.Tensor]
) -> None:
    arguments = [
        "train",
        "lora",
        "--data",
        "rows.jsonl",
        "--out",
        "killed",
        "--epochs",
        "6",
        "--save-every",
        "3",
        *COMMON,
    ]
    log = folder / "killed.work" / "log.jsonl"
    with (folder / "killed.err").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.cli", *arguments], cwd=folder, stdout=errors, stderr=errors,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    try:
        limit = time.monotonic() + 200
        while not (log.exists() and len(log.read_text().splitlines()) >= 5):
            assert process.poll() is None, (folder / "killed.err").read_text()
            assert time.monotonic() < limit
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    saved = torch.load(folder / "killed.work" / "state.pt", weights_only=True)["step"]
    reached = len(log.read_text().splitlines())
    assert 0 < saved <= reached < saved + 4
    assert not (folder / "killed").exists()
    result = medmax(folder, *arguments)
    assert result.status == 0, result.err
    found = adapter(folder, "killed")
    assert all(torch.equal(found[name], straight[name]) for name in straight)
    steps = [json.loads(line)["step"] for line in (folder / "killed" / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, result.document["steps"] + 1))


@pytest.mark.slow
def test_two_workers_learn_what_one_does(folder: Path, straight: dict[str, torch.Tensor]) -> None:
    result = medmax(
        folder,
        "train",
        "lora",
        "--data",
        "rows.jsonl",
        "--out",
        "two",
        "--epochs",
        "6",
        "--workers",
        "2",
        *COMMON,
    )
    assert result.status == 0, result.err
    assert result.document["workers"] == 2
    assert "learning" in result.err
    found = adapter(folder, "two")
    for name, tensor in straight.items():
        assert torch.allclose(found[name], tensor, atol=2e-4), name


@pytest.mark.slow
def test_merge_and_ask_the_merged_model(folder: Path, straight: dict[str, torch.Tensor]) -> None:
    merged = medmax(
        folder, "train", "merge", "--base", "tiny", "--adapter", "straight", "--out", "merged", "--json"
    )
    assert merged.status == 0, merged.err
    assert len(merged.document["digest"]) == 64
    picture(folder / "p.png", 3)
    asked = medmax(
        folder, "ask", "p.png", "Is it?", "--local", "--json", MEDMAX_CHECKPOINT="merged", MEDMAX_STORE="0"
    )
    assert asked.status == 0, asked.err
    again = medmax(
        folder, "train", "merge", "--base", "tiny", "--adapter", "straight", "--out", "merged", "--json"
    )
    assert again.status == 1
    assert "exists" in again.document["error"]["message"]


@pytest.mark.slow
def test_a_data_set_is_tokenized_in_shards_that_train_reads(
    folder: Path, straight: dict[str, torch.Tensor]
) -> None:
    arguments = (
        "tokenize-dataset",
        "rows.jsonl",
        "--out",
        "shards",
        "--shard-rows",
        "5",
        "--checkpoint",
        "tiny",
        "--json",
    )
    first = medmax(folder, *arguments)
    assert first.status == 0, first.err
    assert (first.document["rows"], first.document["failed"], first.document["shards_written"]) == (12, 1, 3)
    assert first.document["left_out"]["not_json"]["first"][0]["row"] == "rows.jsonl:13"
    kept = (folder / "shards" / "part-00000.parquet").stat().st_mtime_ns
    (folder / "shards" / "part-00001.parquet").unlink()  # as a kill leaves it
    again = medmax(folder, *arguments)
    assert (again.document["rows"], again.document["shards_written"]) == (12, 1)
    assert (folder / "shards" / "part-00000.parquet").stat().st_mtime_ns == kept
    rows = [
        row
        for file in sorted((folder / "shards").glob("*.parquet"))
        for row in parquet.read_table(file).to_pylist()
    ]
    assert all(row["tokens"][0] == 0 and row["tokens"][-1] == 2 for row in rows)
    result = medmax(
        folder, "train", "lora", "--data", "shards", "--out", "from-shards", "--epochs", "1", *COMMON
    )
    assert result.status == 0, result.err
    assert result.document["rows"]["learnt"] == 12
    other = medmax(folder, *arguments[:5], "7", *arguments[6:])
    assert other.status == 1
    assert other.document["error"]["field"] == "--out"


@pytest.mark.slow
def test_a_folder_of_pictures_is_tokenized_and_failures_are_counted(folder: Path) -> None:
    pictures = folder / "pictures"
    for number in range(5):
        picture(pictures / f"{number % 2}" / f"{number}.png", number)
    (pictures / "0" / "bad.png").write_text("no picture")
    result = medmax(
        folder, "tokenize-dataset", "pictures", "--out", "codes", "--checkpoint", "tiny", "--json"
    )
    assert result.status == 0, result.err
    assert (result.document["rows"], result.document["failed"]) == (5, 1)
    assert result.document["left_out"]["bad_picture"]["first"][0]["row"] == "0/bad.png"
    found = parquet.read_table(folder / "codes" / "part-00000.parquet").to_pylist()
    alone = medmax(folder, "tokenize", "pictures/0/0.png", "--checkpoint", "tiny", "--json")
    assert (
        next(row for row in found if row["image_path"] == "0/0.png")["image_tokens"]
        == alone.document["codes"]
    )
    strict = medmax(
        folder,
        "tokenize-dataset",
        "pictures",
        "--out",
        "strict",
        "--checkpoint",
        "tiny",
        "--strict",
        "--json",
    )
    assert strict.status == 1
    assert strict.document["error"]["field"] == "0/bad.png"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("train", "lora", "--out", "x"), 2, "--data, --preferences"),
        (("train", "lora", "--out", "x", "--data", "none.jsonl", "--base", "tiny"), 1, "no such file"),
        (
            ("train", "lora", "--out", "x", "--data", "rows.jsonl", "--base", "tiny", "--strict"),
            1,
            "not_json",
        ),
        (
            ("train", "lora", "--out", "x", "--data", "rows.jsonl", "--base", "tiny", "--length", "5000"),
            1,
            "context",
        ),
        (("train", "lora", "--out", "tiny", "--data", "rows.jsonl", "--base", "tiny"), 1, "exists"),
        (("train", "merge", "--adapter", "none", "--out", "x", "--base", "tiny"), 1, "missing"),
        (("tokenize-dataset", "none", "--out", "x"), 2, "no such file"),
    ],
)
def test_misuse_is_explained(folder: Path, arguments: tuple[str, ...], status: int, words: str) -> None:
    result = medmax(folder, *arguments, "--json")
    assert (result.status, words in json.dumps(result.document)) == (status, True), result.out + result.err
