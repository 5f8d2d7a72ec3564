"""The load test of the Open Inference Protocol: both ways to ask, and perf_analyzer's figures."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton

from loadtests.inference import drive, perf_analyzer
from loadtests.inference.payloads import LOW_CODES, Payloads, payloads
from loadtests.samples import SHED, Sample
from services.config import Settings
from services.inference.servicer import InferenceServicer
from services.rpc.server import Server
from tests.unit.inference.conftest import Front

CSV = (
    "Request Rate,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,Server Compute Input,"
    "Server Compute Infer,Server Compute Output,Client Recv,p50 latency,p90 latency,p95 latency,p99 latency,"
    "Avg latency,request/response,response wait\n"
    "20,32.1598,17,3560,120,116,58195,68,4,51297,122537,134630,160514,61963,21,61903\n"
)
SAID = "Request Rate: 20 inference requests per seconds\n  Client: \n    Request count: 58\n"


async def made(front: Front, model: str) -> Payloads:
    def ask() -> Payloads:
        with triton.InferenceServerClient(front.address) as client:
            return payloads(client, model, seed=3, distinct=6)

    return await asyncio.to_thread(ask)


@pytest.mark.parametrize("model", ["tokenizer", "decoder"])
async def test_callers_that_wait_are_all_answered(front: Front, model: str) -> None:
    given = await made(front, model)
    requests = given.requests(2)
    assert len(requests) == 3
    await asyncio.to_thread(drive.warm_up, front.address, model, requests, 30)
    samples = await asyncio.to_thread(
        drive.at_concurrency, front.address, model, requests, callers=3, seconds=20, count=12, timeout_s=30
    )
    report = drive.figures(samples, batch=2)
    assert (report["due"], report["answered"], report["failed"]) == (12, 12, {})
    assert report["pictures_per_s"] == pytest.approx(2 * report["answered_per_s"], abs=0.002)
    assert 0 < report["total_s"]["p50"] <= report["total_s"]["p99"]


async def test_requests_at_a_rate_do_not_wait_and_count_from_when_they_were_due(front: Front) -> None:
    given = await made(front, "decoder")
    requests = given.requests(1)
    many = {"rate": 400.0, "seconds": 10.0, "count": 40, "timeout_s": 30.0}
    samples = await asyncio.to_thread(drive.at_rate, front.address, "decoder", requests, **many)
    assert len(samples) == 40
    assert all(sample.answered for sample in samples)
    due = sorted(sample.due_s for sample in samples)
    assert due[-1] < 1.0, "the moments do not depend on the answers"
    assert all(sample.total_s > sample.late_s >= 0 for sample in samples)


async def test_time_ends_both(front: Front) -> None:
    requests = (await made(front, "decoder")).requests(1)
    limits = {"seconds": 0.3, "count": 10_000, "timeout_s": 30.0}
    waiting = await asyncio.to_thread(
        drive.at_concurrency, front.address, "decoder", requests, callers=2, **limits
    )
    free = await asyncio.to_thread(drive.at_rate, front.address, "decoder", requests, rate=50.0, **limits)
    assert waiting
    assert max(sample.due_s for sample in waiting + free) < 0.3


async def test_failures_are_counted_by_their_code(front: Front) -> None:
    given = await made(front, "decoder")
    wrong = Payloads("decoder", "CODES", "INT32", [row + 10_000 for row in given.rows]).requests(1)
    with pytest.raises(RuntimeError, match=r"does not answer: .*inputs\[CODES\]\[0\]"):
        await asyncio.to_thread(drive.warm_up, front.address, "decoder", wrong, 30)
    mixed = [*given.requests(1)[:1], *wrong[:1]]
    for asked in (
        lambda: drive.at_rate(front.address, "decoder", mixed, rate=100.0, seconds=5, count=6, timeout_s=30),
        lambda: drive.at_concurrency(
            front.address, "decoder", mixed, callers=1, seconds=5, count=6, timeout_s=30
        ),
    ):
        report = drive.figures(await asyncio.to_thread(asked), 1)
        assert (report["answered"], report["failed"]) == (3, {"invalid_argument": 3})


async def test_codes_are_those_of_pictures_where_a_tokenizer_is_there(
    front: Front, settings: Settings
) -> None:
    files, codes = await made(front, "tokenizer"), await made(front, "decoder")
    drawn = {tuple(row.tolist()) for row in codes.rows}
    assert max(max(row) for row in drawn) >= LOW_CODES
    servicer = InferenceServicer.local(settings, front.decoder)
    alone = await Server({"inference": servicer}, "127.0.0.1", 0, settings).start()
    try:
        low = await made(Front(front.tokenizer, front.decoder, servicer, alone), "decoder")
    finally:
        await alone.stop(1)
    assert {row.shape for row in low.rows} == {row.shape for row in codes.rows}
    assert max(int(row.max()) for row in low.rows) < LOW_CODES
    assert len(set(files.rows)) == 6, "no picture is asked about twice in a round"


async def test_perf_analyzer_gets_the_same_rows(front: Front) -> None:
    files, codes = await made(front, "tokenizer"), await made(front, "decoder")
    sent = [base64.b64decode(each["FILE"]["b64"]) for each in files.document()["data"]]
    # Its length, four little-endian bytes, stands before each element.
    assert [(int.from_bytes(each[:4], "little"), each[4:]) for each in sent] == [
        (len(row), row) for row in files.rows
    ]
    assert codes.document()["data"][0] == {
        "CODES": {"content": codes.rows[0].tolist(), "shape": [len(codes.rows[0])]}
    }


def test_its_report_has_our_names_and_units() -> None:
    assert perf_analyzer.parse(CSV, SAID, batch=2) == {
        "answered": 58,
        "answered_per_s": 16.08,
        "pictures_per_s": 32.16,
        "total_s": {"p50": 0.051297, "p90": 0.122537, "p95": 0.13463, "p99": 0.160514, "mean": 0.061963},
        "server_s": {"queue": 0.00012, "compute": 0.058195},
        "kept_rate": True,
    }
    late = SAID + "[WARNING] Perf Analyzer was not able to keep up with the desired request rate."
    assert not perf_analyzer.parse(CSV, late, 1)["kept_rate"]


@pytest.mark.parametrize(
    "report",
    ["", CSV.splitlines()[0], CSV + CSV.splitlines()[1], CSV.replace("p90 latency", "p91"), "a,b\n1,2\n"],
)
def test_a_report_that_is_not_one_measurement_is_refused(report: str) -> None:
    with pytest.raises(RuntimeError, match="perf_analyzer reported"):
        perf_analyzer.parse(report, SAID, 1)


def test_its_absence_is_said(tmp_path: Path) -> None:
    broken = tmp_path / "perf_analyzer"
    broken.write_text("#!/bin/sh\necho 'libb64.so.0d: cannot open shared object file' >&2\nexit 127\n")
    broken.chmod(0o755)
    assert "libb64.so.0d" in perf_analyzer.find(broken).missing
    assert "cannot be started" in perf_analyzer.find(tmp_path / "none").missing
    command = [sys.executable, "-m", "loadtests.inference", "--model", "decoder"]
    done = subprocess.run([*command, "--perf-analyzer", str(broken)], capture_output=True, text=True)
    assert done.returncode == 2
    assert "libb64.so.0d" in done.stderr


async def test_our_figures_stay_where_perf_analyzer_fails(front: Front, tmp_path: Path) -> None:
    failing = tmp_path / "perf_analyzer"
    failing.write_text(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'Perf Analyzer Version 2.0' && exit\necho 'no such luck' >&2\nexit 1\n"
    )
    failing.chmod(0o755)
    command = [sys.executable, "-m", "loadtests.inference", "--model", "decoder", "--grpc", front.address]
    command += ["--seconds", "1", "--count", "4", "--json", "--perf-analyzer", str(failing)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["tritonclient"]["answered"] == 4
    assert "no such luck" in report["perf_analyzer"]["error"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--grpc", "10.0.0.1:9000"], "--grpc"),
        (["--rate", "5", "--concurrency", "2"], "--concurrency"),
        (["--rate", "1e9"], "--rate"),
        (["--seconds", "1e9"], "--seconds"),
        (["--count", "0"], "--count"),
        (["--batch", "65"], "--batch"),
        (["--http", "http://127.0.0.1:8000"], "--http"),
    ],
)
def test_what_is_out_of_bounds_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    from loadtests.inference.__main__ import main

    monkeypatch.setattr(sys, "argv", ["inference", "--model", "decoder", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert named in capsys.readouterr().err


def test_a_request_that_was_not_sent_counts_as_failed() -> None:
    shed: Any = Sample("decoder", "tritonclient", 0.0, 0.1, None, 0.1, code=SHED)
    report = drive.figures([shed], 1)
    assert (report["due"], report["answered"], report["failed"]) == (1, 0, {SHED: 1})
    assert report["total_s"] is None
    assert drive.figures([], 1)["answered_per_s"] == 0
