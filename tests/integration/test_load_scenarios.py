"""Load scenarios against a real stack, as an operator runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from loadtests.stack import ROOT, Served, own_stack
from tests.support.stack import wait_until

PAUSE_S = 3.0
WARM_UP = 6


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with own_stack() as stack:
        yield stack


def scenario(served: Served, *arguments: str) -> subprocess.Popen[str]:
    addresses = ["--http", served.http, "--grpc", served.grpc]
    command = [sys.executable, "-m", "loadtests.scenarios", *arguments, *addresses, "--samples", "--json"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def report(process: subprocess.Popen[str]) -> dict[str, Any]:
    text, _ = process.communicate(timeout=200)
    assert process.returncode == 0
    return json.loads(text)


@pytest.mark.slow
def test_a_day_in_ten_seconds_is_answered_over_rest_and_grpc(served: Served) -> None:
    day = report(scenario(served, "day", "--radiologists", "4", "--per-hour", "1", "--compress", "8640"))
    assert day["all"]["failed"] == {}
    assert set(day["protocols"]) == {"rest", "grpc"}
    assert {"vqa", "chat"} <= set(day["kinds"])
    assert day["kinds"]["vqa"]["first_s"]["p50"] <= day["kinds"]["vqa"]["total_s"]["p50"]
    stored = served.stored_ids()
    assert all(sample["interaction"] in stored for sample in day["samples"])
    assert all(sample["server_ms"]["total_ms"] > 0 for sample in day["samples"])
    drawn = [sample for sample in day["samples"] if sample["kind"] == "drawing"]
    assert all(sample["pictures"] == 1 and sample["image_tokens"] > 0 for sample in drawn)


@pytest.mark.slow
def test_a_stall_is_in_the_latency_of_every_request_that_was_due_meanwhile(served: Served) -> None:
    """A generator that waits for its answers would have sent one request, and measured one long one."""
    before = len(served.stored_ids())
    process = scenario(served, "chat", "--rate", "5", "--seconds", "8")
    wait_until(lambda: len(served.stored_ids()) > before + WARM_UP + 3, 120, "the test itself has begun")
    (gateway,) = served.replicas("gateway")
    os.kill(gateway, signal.SIGSTOP)
    time.sleep(PAUSE_S)
    os.kill(gateway, signal.SIGCONT)
    stalled = report(process)
    held_up = [sample["due_s"] for sample in stalled["samples"] if sample["total_s"] > 1.0]
    assert len(held_up) >= 4
    assert max(held_up) - min(held_up) > 1.0
    assert max(sample["late_s"] for sample in stalled["samples"]) < 1.0
