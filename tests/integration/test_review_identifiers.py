"""Planted identifiers through the whole loop: none reaches Label Studio, logs, metrics, the status page or a data set.

MEDMAX_TEST_CASES is how many cases of tests/support/deid_cases.py are asked of the assistant. See docs/deidentification.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import html
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from annotation.core import Decision, Item, Kind, Part, Picture, Turn, Verdict
from annotation.dataset.versions import load as load_version
from annotation.deid import Cleaned
from annotation.labelstudio.http import Connection
from annotation.labelstudio.server import Server
from annotation.loop.context import Loop
from annotation.store import State
from services.config import Settings
from services.gateway.local import local_assistant
from services.pb.medmax.v1 import assistant_pb2, common_pb2
from tests.support.deid_cases import Case, cases, phantom
from tests.support.deid_score import BANKS, covered, remains
from tests.support.review import CALLER, submitted
from tests.support.review_loop import Panel, Site, count, entries, free_port, wait_for

CASES = int(os.environ.get("MEDMAX_TEST_CASES", "70"))
TELLING = 6
"""Characters from which an identifier is looked for word by word in whatever was written."""


@dataclass(frozen=True)
class Told:
    """A case, and the interaction it became."""

    id: str
    case: Case


def of_both_halves() -> list[Case]:
    return [case for bank in BANKS.values() for case in cases(bank, 3, CASES // len(BANKS))]


def request(case: Case, rng: np.random.Generator) -> assistant_pb2.GenerateRequest:
    """What a caller sends who knows nothing of de-identification."""
    asked = assistant_pb2.GenerateRequest(
        mode=common_pb2.OUTPUT_MODE_TEXT, consent_training=True, max_new_tokens=6
    )
    asked.sampling.temperature = 0.0
    turns: Iterable[Turn]
    if case.dataset is not None:
        # Large enough to be sent; the bank's own are 8 x 8.
        pixels = phantom(rng, 192)[..., 0].astype(np.uint16) * 16
        case.dataset.Rows, case.dataset.Columns = pixels.shape
        case.dataset.PixelData = pixels.tobytes()
        target = BytesIO()
        case.dataset.save_as(target, enforce_file_format=True)
        film = Picture(hashlib.sha256(target.getvalue()).hexdigest(), target.getvalue())
        turns = [Turn("user", (film, "Is there a mass?"))]
    else:
        assert case.item is not None
        turns = case.item.dialogue
        if case.kind == "dialogue":
            turns = [*turns, Turn("assistant", case.item.answer), Turn("user", ("Is that usual?",))]
    for turn in turns:
        role = assistant_pb2.ROLE_ASSISTANT if turn.role == "assistant" else assistant_pb2.ROLE_USER
        message = asked.messages.add(role=role)
        for part in turn.parts:
            if isinstance(part, Picture):
                message.parts.add(image=assistant_pb2.ImagePart(data=part.data or b""))
            else:
                message.parts.add(text=part)
    return asked


async def answered(settings: Settings, told: list[Case]) -> list[Told]:
    rng, found = np.random.default_rng(5), []
    async with local_assistant(settings) as assistant:
        for case in told:
            async for event in assistant.generate(request(case, rng), CALLER):
                if event.HasField("finish"):
                    found.append(Told(event.finish.interaction_id, case))
    return found


def everything_of(studio: Connection, loop: Loop) -> dict[str, Any]:
    """All that Label Studio holds of each interaction: the whole task as its API gives it."""
    return {
        entry.id: studio.get(f"/api/tasks/{entry.ls_task}/")
        for entry in entries(loop, *State)
        if entry.ls_task is not None
    }


def links(task: dict[str, Any]) -> list[str]:
    """Addresses of the pictures that the expert sees."""
    return sorted(set(map(html.unescape, re.findall(r'src=\\"([^"\\]+)', json.dumps(task["data"])))))


def uncovered(case: Case, data: bytes) -> list[str]:
    """Lines on a picture of which Label Studio gets the letters."""
    picture = Picture(hashlib.sha256(data).hexdigest(), data)
    shown: tuple[Part, ...] = (picture,)
    cleaned = Cleaned(Item("", Kind.CHAT, (Turn("user", shown),), ("",)), report=None, held=None)  # type: ignore[arg-type]
    gone = covered(case, cleaned)
    return [planted.text for planted, done in zip(case.planted, gone, strict=True) if not done]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_planted_identifier_leaves_by_any_way(
    tmp_path: Path, labelstudio_server: Server, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    caplog.set_level(logging.INFO)
    (expert,) = logins = Panel.enrol(labelstudio_server, ["ida"])
    here = Site(
        tmp_path,
        {
            "port": free_port(),
            "labelstudio": {
                "url": labelstudio_server.url,
                "token": labelstudio_server.admin.token.get_secret_value(),
            },
            "dataset": {"min_judged": 100_000, "validation_share": 0.2},  # built by hand
            "routing": {"random_share": 1.0, "random_reserve": 0.9, "per_day": 10_000},
            "judge": {"reviewers": 1, "careful_reviewers": 1},
            "steps": {"interval_s": 0.5, "route_interval_s": 2},
            "experts": [{"id": expert, "max_daily": 10_000, "max_open": 1000}],
        },
    )
    told = asyncio.run(answered(here.base, of_both_halves()))
    with here.opened() as loop:
        with here.running():
            wait_for(
                lambda: count(loop, *State) >= len({one.id for one in told}) * 0.5, 120, "they are routed"
            )
            waiting = (State.ROUTED, State.CLEANED)
            wait_for(lambda: not count(loop, *waiting), 1800, "all are cleaned and published")
            asker = Connection(labelstudio_server.url, logins[expert].token, timeout_s=60)
            admin = Connection(labelstudio_server.url, labelstudio_server.admin.token, timeout_s=60)
            with closing(asker), closing(admin):
                accept = Verdict(decision=Decision.ACCEPT)
                for entry in loop.store.items.page(State.PUBLISHED, limit=10_000):
                    body = {"result": submitted(accept, entry.kind), "lead_time": 5.0}
                    asker.post(f"/api/tasks/{entry.ls_task}/annotations/", body)
                wait_for(lambda: not count(loop, State.PUBLISHED, State.COLLECTED), 600, "all are judged")
                tasks = everything_of(admin, loop)
            url = f"http://127.0.0.1:{here.values['port']}"
            with httpx.Client(base_url=url, trust_env=False) as client:
                pages = [client.get(path).raise_for_status().text for path in ("/metrics", "/pages/review")]
                pictures = {
                    id: [client.get(link).raise_for_status().content for link in links(task)]
                    for id, task in tasks.items()
                }
            pages.append(json.dumps(here.review("status")))
        built = here.review("build")
        version = load_version(loop.datasets, built["version"])
        held = count(loop, State.HELD)
    rows: dict[str, str] = {}
    for file in ("rows", "preferences", "unpaired"):
        for split in ("train", "validation"):
            for record in version.records(file, split):
                id = record["provenance"]["interaction"]
                rows[id] = rows.get(id, "") + json.dumps(record, ensure_ascii=False)

    kinds = Counter(one.case.kind for one in told)
    shown = Counter(one.case.kind for one in told if pictures.get(one.id))
    assert shown["dicom"] >= 0.8 * kinds["dicom"]
    assert shown["picture"] >= 0.5 * kinds["picture"]
    # Most went all the way: what is held is not counted as a success.
    assert len(tasks) >= 0.8 * len(told), held
    assert len(rows) >= 0.5 * len(told)
    leaked: list[str] = []
    planted: Counter[str] = Counter()
    for one in told:
        task = json.dumps(tasks.get(one.id, {}).get("data"), ensure_ascii=False)
        for each in one.case.planted:
            planted[str(each.category)] += 1
            if one.case.kind != "picture":
                leaked += [f"task: {each}" for text in (task,) if remains(each, text)]
                leaked += [f"row: {each}" for text in (rows.get(one.id, ""),) if remains(each, text)]
        for data in pictures.get(one.id, ()):
            leaked += [f"picture: {each}" for each in one.case.planted if each.text.encode() in data]
            with Image.open(BytesIO(data)) as file:
                assert (file.format, {*file.info}) == ("PNG", set()), file.info
            if one.case.kind == "picture":
                leaked += [f"letters: {line}" for line in uncovered(one.case, data)]
    out, err = capfd.readouterr()
    written = {
        "logs": here.log.read_text() + caplog.text + out + err,
        "pages": "".join(pages),
        "data set": "".join(
            file.read_bytes().decode(errors="replace")
            for file in sorted(version.path.rglob("*"))
            if file.is_file()
        ),
        "Label Studio": json.dumps(tasks, ensure_ascii=False),
    }
    # "Parkinson" is a patient in one case and a disease in another, where it stays.
    terms = " ".join(term for one in told for term in one.case.survive)
    for place, text in written.items():
        leaked += [
            f"{place}: {each}"
            for one in told
            for each in one.case.planted
            if len(each.text) >= TELLING and each.text in text and each.text not in terms
        ]
    assert leaked == []
    assert len(planted) == 20, "of all categories"
    print(f"{CASES} cases ({dict(kinds)}), {planted.total()} identifiers: {len(tasks)} tasks, {held} held, "
          f"{len(rows)} items in {version.id}")  # fmt: skip
