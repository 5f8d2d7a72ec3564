"""`medmax eval` as people run it: killed and resumed, in process, over REST and over gRPC."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import uvicorn

from evaluation.suite.example import Question
from evaluation.suite.models import connect
from evaluation.suite.phantom_data import write_phantom_data
from services.config import load
from services.gateway.local import local_assistant
from services.gateway.rest import create_app
from services.gateway.servicer import AssistantServicer
from services.pb.medmax.v1 import assistant_pb2_grpc
from services.rpc.interceptor import ErrorInterceptor
from tests.support.oracle import oracle
from tests.support.tiny import tiny_checkpoint
from tests.unit.cli.medmax import medmax

ROOT = Path(__file__).parents[2]
PARALLEL = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suite") / "data"
    write_phantom_data(folder, 5, 12)
    return folder


def test_killed_in_the_middle_and_resumed_nothing_is_evaluated_twice(tmp_path: Path, data: Path) -> None:
    run, families = tmp_path / "run", "closed,open,probe"
    arguments = [
        "eval",
        "suite",
        "--data",
        str(data),
        "--run",
        str(run),
        "--tasks",
        families,
        "--parallel",
        str(PARALLEL),
    ]
    with oracle(data, delay_s=0.03) as (url, model):
        command = [sys.executable, "-m", "services.cli", *arguments, "--model", url, "--json"]
        kills = 0
        for wanted in (20, 60):
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            until = time.monotonic() + 100
            while sum(model.asked.values()) < wanted and process.poll() is None and time.monotonic() < until:
                time.sleep(0.005)
            assert process.poll() is None, process.communicate()
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
            kept = len((run / "answers.jsonl").read_bytes().splitlines())
            assert kept >= wanted - PARALLEL * 2
        ended = medmax(tmp_path, *arguments, "--model", url, "--json", PYTHONPATH=str(ROOT))
        assert ended.status == 0, ended.err
        again = sum(model.asked.values())
        resumed = medmax(tmp_path, *arguments, "--model", url, "--json", PYTHONPATH=str(ROOT))
    total = 12 * (5 + 4) + 12 * 5  # contradictions come in pairs
    assert ended.document["complete"]
    ids = Counter((r["task"], r["id"]) for r in _lines(run / "answers.jsonl"))
    assert len(ids) == total
    assert set(ids.values()) == {1}
    scored = Counter((r["task"], r["id"], r["scorer"]) for r in _lines(run / "scores.jsonl"))
    assert set(scored.values()) == {1}
    # What was on its way when the process died had to be asked again, and nothing else.
    assert total <= again <= total + kills * PARALLEL
    assert sum(model.asked.values()) == again
    assert resumed.document["results"] == ended.document["results"]
    (closed,) = [r for r in ended.document["results"] if r["task"] == "slake_closed"]
    assert closed["value"] == 0.75
    assert {"task", "metric", "scorer", "version", "n", "failed", "value", "stderr", "ci95"} <= closed.keys()
    assert json.loads((run / "results.json").read_text())["results"] == ended.document["results"]
    assert (run / "report.html").read_text().startswith("<!doctype html>")


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_commands_from_data_to_comparison(tmp_path: Path) -> None:
    made = medmax(
        tmp_path, "eval", "make-phantom-data", "--out", "data", "--count", "1", "--seed", "9", "--json"
    )
    assert made.status == 0, made.err
    assert made.document["rows"] == 12 + 6 + 2 + 5
    with oracle(tmp_path / "data") as (url, _):
        asked = medmax(
            tmp_path,
            "eval",
            "suite",
            "--data",
            "data",
            "--model",
            url,
            "--run",
            "run",
            "--tasks",
            "mcq,mm_out",
        )
    assert asked.status == 0, asked.err
    assert "not run: judge_relative" in asked.out
    compared = medmax(tmp_path, "eval", "compare", "run", "run", "--page", "page.html", "--json")
    assert [entry["p"] for entry in compared.document["compared"]] == [1.0] * 5
    assert (tmp_path / "page.html").exists()
    report = medmax(tmp_path, "eval", "report", "run", "--json")
    assert report.document["complete"]
    assert medmax(tmp_path, "eval", "report", "data", "--json").status == 1
    for arguments in (
        ["--data", "nowhere"], ["--data", "data", "--tasks", "none"], ["--data", "data", "--model", "nowhere"],
        ["--data", "data", "--model", "http://127.0.0.1:9"],
    ):  # fmt: skip
        failed = medmax(tmp_path, "eval", "suite", *arguments, "--json")
        assert failed.status == 1
        assert failed.document["error"]["message"]
    assert medmax(tmp_path, "eval", "suite", "--data", "data", "--judge-url", "http://x").status == 2


async def test_in_process_rest_and_grpc_give_the_same_answers(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tiny_checkpoint(tmp_path, max_position_embeddings=512)
    monkeypatch.setenv("MEDMAX_THREADS", "1")
    monkeypatch.setenv("MEDMAX_API_KEY", "a key")
    settings = load(checkpoint=checkpoint, data_dir=tmp_path / "data", threads=1, api_keys="tests:a key")
    picture = next((data / "images").iterdir())
    questions = [
        Question((picture, "What is this?"), max_new_tokens=8),
        Question(("Draw it.",), mode="image", seed=5),
        Question(("Explain and draw.",), mode="interleaved", max_new_tokens=60, seed=6),
    ]
    async with local_assistant(settings) as assistant:
        config = uvicorn.Config(create_app(assistant, settings), port=0, log_level="error")
        web = uvicorn.Server(config)
        serving = asyncio.create_task(web.serve())
        while not web.started:
            await asyncio.sleep(0.01)
        port = web.servers[0].sockets[0].getsockname()[1]
        rpc = grpc.aio.server(interceptors=[ErrorInterceptor(None)])
        assistant_pb2_grpc.add_AssistantServicer_to_server(AssistantServicer(assistant), rpc)
        rpc_port = rpc.add_insecure_port("127.0.0.1:0")
        await rpc.start()
        found = []
        for address in (str(checkpoint), f"http://127.0.0.1:{port}", f"grpc://127.0.0.1:{rpc_port}"):
            async with connect(address) as model:
                found.append([await model.answer(question) for question in questions])
        await rpc.stop(1)
        web.should_exit = True
        await serving
    here, rest, over_grpc = (
        [(a.text.split(), a.pictures, a.digest, a.model) for a in answers] for answers in found
    )
    assert here == rest == over_grpc
    assert found[0][1].pictures
    assert found[0][0].confidence == pytest.approx(found[1][0].confidence, rel=1e-4)
