"""From judged verdicts to a model in service that answers as the experts said, and back. Real training, real suite."""

from __future__ import annotations

import base64
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from annotation.core import Decision, Severity, Verdict
from annotation.loop import pointer
from annotation.loop.commands import medmax
from annotation.loop.context import Loop
from annotation.loop.steps import STEPS
from annotation.loop.steps.clean import release
from annotation.store import State, Status, What
from evaluation.phantoms import draw, held_out
from services.config import load
from tests.support.review import eval_set, png
from tests.support.review_loop import Site, wait_for
from tests.support.stack import running
from tests.unit.annotation.loop_samples import publish_all, say
from tests.unit.gateway.rest_server import serving

QUESTION = "Must a radiologist look at this?"  # which the model was never taught
TAUGHT, MEASURED = 12, 24


def answers(url: str, numbers: list[int], **fields: Any) -> list[str]:
    """What the server at `url` says of each phantom, over REST."""
    found = []
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        model = client.get("/v1/models").raise_for_status().json()["data"][0]["id"]
        for number in numbers:
            picture = base64.b64encode(png(draw(number))).decode()
            parts = [
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
                {"type": "text", "text": QUESTION},
            ]
            body = {"model": model, "messages": [{"role": "user", "content": parts}], "temperature": 0}
            reply = client.post("/v1/chat/completions", json=body | {"max_tokens": 8} | fields)
            text = reply.raise_for_status().json()["choices"][0]["message"]["content"]
            found.append((text or "").strip().lower())
    return found


@contextmanager
def gateway(site: Site, **settings: Any) -> Iterator[str]:
    """The address of the gateway's own server, in this process, with the services of a checkpoint behind it."""
    with serving(load(data_dir=site.folder / "var", threads=1, **settings)) as server:
        yield server.url


@contextmanager
def served(folder: Path, checkpoint: Path) -> Iterator[str]:
    """The address of `medmax serve --checkpoint CHECKPOINT`."""
    ports = ("--http-port", "0", "--grpc-port", "0")
    with contextmanager(running)(folder, *ports, "--checkpoint", str(checkpoint)) as stack:
        yield stack.http


def taught(loop: Loop, right: str) -> str:
    """A data-set version in which two experts corrected every answer; its id."""
    for name in ("route", "clean"):
        assert STEPS[name].run(loop).done
    for entry in loop.store.items.page(State.HELD):
        release(loop, entry.key, "test")
    for key in publish_all(loop):
        verdict = Verdict(decision=Decision.EDIT, text=right, error="not_answered", severity=Severity.MINOR)
        say(loop, key, {"1": verdict, "2": verdict})
    STEPS["judge"].run(loop)
    assert STEPS["build"].run(loop).done
    (version,) = loop.store.versions.all(What.DATA)
    return version.id


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_experts_corrected_is_learnt_measured_promoted_served_and_taken_back(tmp_path: Path) -> None:
    site = Site(tmp_path, {})
    numbers = list(held_out(31, TAUGHT + MEASURED))
    asked = numbers[TAUGHT : TAUGHT + 6]  # on which nobody corrected it
    with gateway(site) as url:
        given = answers(url, numbers[:TAUGHT], consent_training=True)
        before = answers(url, asked)
    right = "no" if given.count("yes") >= given.count("no") else "yes"
    assert before != [right] * len(asked)
    data = eval_set(tmp_path / "house", QUESTION, right, numbers[TAUGHT:])
    site.values = {
        "port": 8010,
        "routing": {"random_share": 1.0, "random_reserve": 0.9},
        "dataset": {"min_judged": 1, "validation_share": 0},
        "evaluation": [{"data": str(data)}],
        "train": {"enabled": True, "min_rows": 1, "epochs": 10, "rate": 0.002, "batch": 1},
        "promote": {"target": ["vqa_rad*"], "min_examples": 10},
        "steps": {"lease_s": 2, "interval_s": 0.3},
    }
    with site.opened() as loop:
        version = taught(loop, right)
        assert STEPS["train"].run(loop).said["candidate"]
        assert STEPS["train"].run(loop).done == 0, "it was trained already"
        (candidate,) = loop.store.versions.all(What.MODEL)
        assert (candidate.parent, candidate.status) == (version, Status.CANDIDATE)
        assert STEPS["evaluate"].run(loop).done == 1
        assert STEPS["evaluate"].run(loop).done == 0
        result = STEPS["promote"].run(loop)
        assert result.said["status"] == "promoted", result.said
        current = pointer.path(loop)
        with served(tmp_path / "served", current) as url:
            assert answers(url, asked) == [right] * len(asked)
        (promoted,) = loop.store.versions.all(What.MODEL)
        assert promoted.scores["target"]["gain"] > 0
        assert "improved" in promoted.why
    assert site.review("rollback", "--why", "a test")["model"] == load().checkpoint.name
    with gateway(site, checkpoint=current) as url:
        assert answers(url, asked) == before


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_training_whose_controller_was_killed_is_waited_for_and_not_doubled(tmp_path: Path) -> None:
    site = Site(
        tmp_path,
        {
            "port": 0,
            "routing": {"random_share": 1.0, "random_reserve": 0.9},
            "dataset": {"min_judged": 1, "validation_share": 0},
            "train": {"enabled": True, "min_rows": 1, "epochs": 30, "batch": 1},
            "steps": {"lease_s": 1, "interval_s": 0.3, "backoff_s": 1},
        },
    )
    with gateway(site) as url:
        answers(url, list(held_out(41, 3)), consent_training=True)
    with site.opened() as loop:
        taught(loop, "no")
        process = site.start()
        wait_for(lambda: bool(list(loop.folder.glob("models/*/work"))), 120, "training began", process)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        again = site.start()
        try:
            wait_for(lambda: bool(loop.store.versions.all(What.MODEL)), 300, "it is trained", again)
        finally:
            again.send_signal(signal.SIGTERM)
            assert again.wait(60) == 0
        (candidate,) = loop.store.versions.all(What.MODEL)
        assert medmax(loop, tmp_path / "look", "inspect", candidate.path)
        assert sum(loop.store.figures.counts()[State.BUILT].values()) == 3
