"""`medmax rollout` on this machine: files between it and the stack, whose half a script plays here.

Ray Serve itself is asked in `tests/e2e/test_rollout_local.py`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from services import cli
from services.deployments.processes import this
from services.deployments.redeploy import Desk, Observed, Wanted
from services.rollout.record import Phase

PORT = 8123
QUICK = ("--health-only", "--settle-s", "0.2", "--window-s", "0.2", "--poll-s", "0.05", "--baseline-s", "0")


def play(desk: Desk, stop: threading.Event) -> None:
    """A stack that deploys everything but what is named `none`."""
    seen = Observed(*this(), generation=1, deployments={"llm": "HEALTHY"})
    while not stop.wait(0.02):
        wanted = desk.wanted()
        if wanted is None or wanted.generation == seen.generation:
            continue
        refused = "no such folder" if wanted.checkpoint.endswith("none") else ""
        for deployments in ({"llm": "UPDATING"}, {"llm": "HEALTHY"}):
            seen = replace(seen, generation=wanted.generation, deployments=deployments, refused=refused)
            desk.observe(seen)
            time.sleep(0.05)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setenv("MEDMAX_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("MEDMAX_HTTP_PORT", str(PORT))
    monkeypatch.setattr("services.rollout.probe.Probe.digest", lambda self: "a" * 64)
    made, stop = Desk(tmp_path, PORT), threading.Event()
    made.want(Wanted(1, "", "/models/old", "medmax-phantom"), instead_of=None)
    made.observe(Observed(*this(), generation=1, deployments={"llm": "HEALTHY"}))
    thread = threading.Thread(target=play, args=(made, stop))
    thread.start()
    yield made
    stop.set()
    thread.join()


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, object]]:
    status = cli._run(["rollout", *arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_the_stack_is_told_and_its_answer_decides(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    status, ended = run(capsys, "start", "--model", "/models/new", *QUICK)
    assert (status, ended["outcome"], ended["reason"]) == (0, Phase.PROMOTED, "on health alone, as asked")
    status, ended = run(capsys, "start", "--model", "/models/none", *QUICK)
    assert (status, ended["outcome"]) == (1, Phase.ROLLED_BACK)
    assert ended["reason"] == "the stack refuses it: no such folder"
    wanted = desk.wanted()
    assert wanted is not None
    assert (wanted.checkpoint, wanted.generation) == ("/models/new", 4)
    assert run(capsys, "start", "--model", "/models/new", *QUICK) == (0, {"outcome": "unchanged"})


def test_only_a_rayservice_has_images(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = run(capsys, "plan", "--model", "/models/new", "--image", "llm=x:1")
    assert (status, said["error"]["field"]) == (1, "image")  # type: ignore[index]


def test_a_stack_that_is_gone_is_not_changed(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.observe(replace(desk.observed() or Observed(0, 0, 0), started=1))  # another process with its id
    status, said = run(capsys, "start", "--model", "/models/new", *QUICK)
    assert (status, said["error"]["code"]) == (1, "not_found")  # type: ignore[index]
    assert "start it, name its address with --gateway" in said["error"]["message"]  # type: ignore[index]


def test_the_files_are_their_owners_alone(desk: Desk) -> None:
    assert desk.folder.stat().st_mode & 0o077 == 0
    for file in desk.folder.glob("*.json"):
        assert file.stat().st_mode & 0o077 == 0, file.name
