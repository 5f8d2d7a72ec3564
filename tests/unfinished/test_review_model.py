"""From judged verdicts to a model in service that answers as the experts said, and back. Real training, real suite."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

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
from services.gateway.local import local_assistant
from services.pb.medmax.v1 import assistant_pb2, common_pb2
from tests.support.review import png
from tests.support.review_loop import Site, wait_for
from tests.unit.annotation.loop_samples import publish_all, say

QUESTION = "Must a radiologist look at this?"  # which the model was never taught
TAUGHT, MEASURED = 12, 24


def request(number: int, **fields: Any) -> assistant_pb2.GenerateRequest:
    parts = [
        assistant_pb2.Part(image=assistant_pb2.ImagePart(data=png(draw(number)))),
        assistant_pb2.Part(text=QUESTION),
    ]
    message = assistant_pb2.Message(role=assistant_pb2.ROLE_USER, parts=parts)
    return assistant_pb2.GenerateRequest(
        messages=[message],
        mode=common_pb2.OUTPUT_MODE_TEXT,
        max_new_tokens=8,
        sampling=common_pb2.Sampling(temperature=0.0),
        **fields,
    )


def answers(site: Site, checkpoint: Path | None, numbers: list[int], **fields: Any) -> list[str]:
    """Of the model at `checkpoint`, or of the installation's."""
    settings = load(data_dir=site.folder / "var", **({"checkpoint": checkpoint} if checkpoint else {}))

    async def run() -> list[str]:
        async with local_assistant(settings) as assistant:
            found = []
            for number in numbers:
                text = ""
                async for event in assistant.generate(request(number, **fields), "radiology"):
                    text += event.text.text if event.HasField("text") else ""
                found.append(text.strip().lower())
            return found

    return asyncio.run(run())


def eval_set(folder: Path, right: str, numbers: list[int]) -> Path:
    """In the published form: the question on pictures that nobody taught."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in numbers:
        (folder / "images" / f"{number}.png").write_bytes(png(draw(number)))
        row = {"task_name": "vqa_rad", "question_type": "closed", "prompt": QUESTION, "answer": right}
        rows.append({**row, "image_path": f"images/{number}.png"})
    (folder / "eval_data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


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
    before = answers(site, None, numbers[:TAUGHT], consent_training=True)
    right = "no" if before.count("yes") >= before.count("no") else "yes"
    data = eval_set(tmp_path / "house", right, numbers[TAUGHT:])
    site.values = {
        "port": 8010,
        "routing": {"random_share": 1.0, "random_reserve": 0.9},
        "dataset": {"min_judged": 1, "validation_share": 0},
        "evaluation": [{"data": str(data)}],
        "train": {"enabled": True, "min_rows": 1, "epochs": 20, "rate": 0.002, "batch": 1},
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
        asked = numbers[TAUGHT : TAUGHT + 6]
        assert answers(site, current, asked) == [right] * len(asked)
        assert answers(site, None, asked) != [right] * len(asked)
        (promoted,) = loop.store.versions.all(What.MODEL)
        assert promoted.scores["target"]["gain"] > 0
        assert "improved" in promoted.why
    assert site.review("rollback", "--why", "a test")["model"] == load().checkpoint.name
    assert answers(site, current, asked) == answers(site, None, asked)


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
    answers(site, None, list(held_out(41, 3)), consent_training=True)
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
