"""NVIDIA's perf_analyzer on the same requests, and its figures in the form of ours."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from loadtests.inference.payloads import Payloads
from loadtests.stack import ROOT

NAME = "perf_analyzer"
TRIALS = 3
"""Measurements that it averages, each a third of the time."""
UNSTABLE = 999
"""By how many per cent they may differ: the spread is in the figures, and no run goes on until it is small."""
LIMIT_S = 120
PERCENTILES = ("p50", "p90", "p95", "p99")


@dataclass(frozen=True)
class Found:
    """A program that starts, or why there is none (`missing`)."""

    path: str = ""
    version: str = ""
    missing: str = ""


def find(given: Path | None = None) -> Found:
    """The program: the one given, else the one that scripts/setup_triton.sh made ready, else one on PATH."""
    made = ROOT / os.environ.get("MEDMAX_TRITON_VENV", ".venv-triton") / "bin" / NAME
    # The wheel of tritonclient puts one beside this Python, which wants libraries that the wheel lacks.
    beside = Path(sys.executable).with_name(NAME)
    path = given or next((each for each in (made, Path(shutil.which(NAME) or beside)) if each.exists()), None)
    if path is None:
        return Found(missing=f"{NAME} is not on PATH; scripts/setup_triton.sh installs it")
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=LIMIT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Found(missing=f"{path} cannot be started: {type(error).__name__}")
    said = (done.stdout + done.stderr).strip()
    version = re.search(r"Perf Analyzer Version (\d[\w.]*)", said)
    if done.returncode or not version:
        return Found(
            missing=f"{path} does not start ({said[-300:]}); scripts/setup_triton.sh brings what it needs"
        )
    return Found(str(path), version[1])


def run(
    program: Found,
    address: str,
    given: Payloads,
    *,
    batch: int,
    seconds: float,
    rate: float | None = None,
    callers: int = 1,
) -> dict[str, Any]:
    """Its figures over some `seconds`.

    Args:
        rate: requests a second at random moments; None = `callers` wait for their answers.

    Raises:
        RuntimeError: it failed, did not end in time, or reported nothing.
    """
    with tempfile.TemporaryDirectory(prefix="perf-") as folder:
        data, report = Path(folder, "data.json"), Path(folder, "report.csv")
        data.write_text(json.dumps(given.document()))
        load = ["--concurrency-range", str(callers)]
        if rate is not None:
            load = ["--request-rate-range", f"{rate:g}", "--request-distribution", "poisson", "--async"]
        command = [
            *(program.path, "-i", "grpc", "-u", address, "-m", given.model, "-b", str(batch)),
            *("--input-data", str(data), "--measurement-interval", str(round(1000 * seconds / TRIALS))),
            *("--max-trials", str(TRIALS), "--stability-percentage", str(UNSTABLE)),
            *("-f", str(report), "--verbose-csv", *load),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=3 * seconds + LIMIT_S)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{NAME} did not end within {3 * seconds + LIMIT_S:.0f} s") from None
        if done.returncode or not report.exists():
            raise RuntimeError(f"{NAME} failed: {(done.stderr or done.stdout).strip()[-500:]}")
        return parse(report.read_text(), done.stdout, batch)


def parse(report: str, said: str, batch: int) -> dict[str, Any]:
    """Figures of its CSV report (`--verbose-csv`) and of what it said. Times in seconds.

    Raises:
        RuntimeError: the report has not one row, or lacks a column.
    """
    rows = list(csv.DictReader(StringIO(report)))
    if len(rows) != 1:
        raise RuntimeError(f"{NAME} reported {len(rows)} measurements in place of one")
    (row,) = rows
    try:
        pictures = float(row["Inferences/Second"])
        total = {name: _seconds(row[f"{name} latency"]) for name in PERCENTILES}
        total["mean"] = _seconds(row["Avg latency"])
        server = {"queue": _seconds(row["Server Queue"]), "compute": _seconds(row["Server Compute Infer"])}
    except (KeyError, TypeError, ValueError) as error:
        raise RuntimeError(f"{NAME} reported no such figure: {error}") from None
    answered = re.search(r"Request count: (\d+)", said)
    return {
        "answered": int(answered[1]) if answered else None,
        "answered_per_s": round(pictures / batch, 3),
        "pictures_per_s": round(pictures, 3),
        "total_s": total,
        "server_s": server,
        "kept_rate": "not able to keep up" not in said,
    }


def _seconds(microseconds: str) -> float:
    return round(float(microseconds) / 1e6, 6)
