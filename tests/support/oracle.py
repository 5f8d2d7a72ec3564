"""Scripted models behind a real OpenAI-compatible endpoint: one that reads answers from the truth, and judges.

The oracle is wrong on every fourth example of a task, so that every score can be predicted by arithmetic.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from evaluation.phantoms import draw
from evaluation.scorers.rules import normalise
from evaluation.suite.data import EvalData
from evaluation.suite.survey import Example, examples
from evaluation.tasks import all_tasks
from tests.support.http_server import serving

WRONG_EVERY = 4
SURE, UNSURE = 0.9, 0.6  # confidence of right and of wrong answers


@dataclass
class Oracle:
    """What it will say to each question, and what it was asked.

    Attributes:
        failing: tasks whose questions get a 400.
        delay_s: before every answer.
        asked: questions by how often they came.
    """

    data: Path
    failing: frozenset[str] = frozenset()
    delay_s: float = 0.0
    digest: str = "oracle-weights"
    asked: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.down = False
        self._replies: dict[str, tuple[str, dict[str, Any]]] = {}
        place: dict[str, int] = defaultdict(int)
        for example in examples(EvalData.find(self.data), all_tasks(), None):
            assert isinstance(example, Example), example
            name = example.task.name
            right = place[name] % WRONG_EVERY != 0
            place[name] += 1
            parts = [
                part.read_bytes() if isinstance(part, Path) else part.encode()
                for part in example.question.parts
            ]
            # Two descriptions may be the same words; the seed follows from the row.
            parts.append(str(example.question.seed).encode())
            self._replies[_key(parts)] = (name, _reply(example, right))

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        if path == "/v1/models":
            return 200, {"data": [{"id": "oracle"}]}
        parts = [_decoded(part) for part in body["messages"][0]["content"]]
        key = _key([*parts, str(body["seed"]).encode()])
        with self._lock:
            self.asked[key] += 1
        time.sleep(self.delay_s)
        if self.down:
            return 503, {"error": {"message": "down", "code": "unavailable", "param": None}}
        task, message = self._replies[key]
        assert body["temperature"] == 0
        if task in self.failing:
            return 400, {"error": {"message": "no", "code": "context_overflow", "param": "messages"}}
        sure = message.get("sure")
        return 200, {
            "model": "oracle",
            "system_fingerprint": self.digest,
            "choices": [{"message": message, "finish_reason": "stop"}],
            "confidence": {"mean_logprob": math.log(sure), "tokens": 1} if sure else None,
        }


def _key(parts: list[bytes]) -> str:
    return hashlib.sha256(b"\0".join(sorted(hashlib.sha256(part).digest() for part in parts))).hexdigest()


def _decoded(part: dict[str, Any]) -> bytes:
    if part["type"] == "text":
        return str(part["text"]).encode()
    return base64.b64decode(part["image_url"]["url"].partition(",")[2])


def _reply(example: Example, right: bool) -> dict[str, Any]:
    task, truth = example.task, example.truth
    text = truth.text if right else {"yes": "no", "no": "yes", "A": "B"}.get(truth.text, "A")
    if task.family in ("captioning", "mm_out", "visual_chat") and not right:
        text = "Quite another thing."
    message: dict[str, Any] = {"content": text, "sure": SURE if right else UNSURE}
    if task.family in ("image_generation", "mm_out"):
        url = "data:image/png;base64," + base64.b64encode(_picture(example, right)).decode()
        message |= {
            "images": [{"image_url": {"url": url}}],
            "parts": [{"type": "text", "text": text}, {"type": "image", "index": 0}],
        }
        if task.family == "image_generation":
            message |= {"content": None, "parts": [{"type": "image", "index": 0}], "sure": None}
    return message


def _picture(example: Example, right: bool) -> bytes:
    """The row's picture; or one in which none of the findings is right."""
    assert example.row.picture is not None
    if right:
        return example.row.picture.read_bytes()
    shown = example.row.phantom
    assert shown is not None
    from evaluation.phantoms import CATALOGUE, Finding

    # A finding where there is none, nothing where there is one.
    wrong = [] if shown["findings"] else [Finding(CATALOGUE[shown["modality"]].kinds[0].name)]
    file = io.BytesIO()
    Image.fromarray(draw(shown["seed"], shown["modality"], wrong).picture).save(file, "PNG")
    return file.getvalue()


@contextmanager
def oracle(data: Path, **changes: Any) -> Iterator[tuple[str, Oracle]]:
    model = Oracle(data, **changes)
    with serving(model.answer) as url:
        yield url, model


Mood = Literal["honest", "status", "hang", "nonsense", "no_json"]


@contextmanager
def judge(mood: Mood) -> Iterator[tuple[str, Counter[str]]]:
    """A judge that compares texts after normalisation, or one that is broken in the way that `mood` says."""
    seen: Counter[str] = Counter()

    def answer(path: str, body: Any) -> tuple[int, Any]:
        assert path == "/v1/chat/completions"
        assert body["temperature"] == 0
        seen["asked"] += 1
        if mood == "status":
            return 500, {"error": {"message": "down"}}
        if mood == "hang":
            time.sleep(3)
            return 200, {}
        if mood == "no_json":
            return 200, b"<html>"
        said = "I would rather not say." if mood == "nonsense" else _verdict(body["messages"][0]["content"])
        return 200, {"choices": [{"message": {"content": said}}]}

    with serving(answer) as url:
        yield f"{url}/v1", seen


def _verdict(prompt: str) -> str:
    if "[Assistant 1]" in prompt:
        first = prompt.partition("[Assistant 1]\n")[2].partition("\n[End")[0]
        second = prompt.partition("[Assistant 2]\n")[2].partition("\n[End")[0]
        return f"8 {8 if normalise(first) == normalise(second) else 2}\nBecause."
    lines = dict(line.split(": ", 1) for line in prompt.splitlines() if ": " in line)
    same = normalise(lines["Reference"]) == normalise(lines["Answer"])
    return f"Correctness: {int(same)}"


def rows_of(data: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (data / "eval_data.jsonl").read_text().splitlines()]
