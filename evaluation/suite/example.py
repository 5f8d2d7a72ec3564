"""What passes between data, tasks, models and scorers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from services.errors import InvalidInput

Mode = Literal["text", "image", "interleaved"]


@dataclass(frozen=True)
class Row:
    """One row of the evaluation data, checked.

    Attributes:
        place: file and line (JSONL) or row number, for messages.
        id: digest of the row's content, with a count where the same row comes twice.
        picture: file below the data folder; None where the row names none.
        phantom: exact truth of a phantom's picture (`evaluation.suite.phantom_data`), in rows made from phantoms alone.
    """

    place: str
    id: str
    task_name: str
    question_type: str
    prompt: str
    answer: str
    picture: Path | None = None
    phantom: Mapping[str, Any] | None = None

    def need_picture(self) -> Path:
        """The picture's file. Raises: InvalidInput where the row has none."""
        if self.picture is None:
            raise InvalidInput("this task needs a picture", field="image_path")
        return self.picture

    def need_answer(self, *allowed: str) -> str:
        """The one of `allowed` that the answer is, letter case and outer white space aside. Raises: InvalidInput."""
        given = self.answer.strip().casefold()
        for known in allowed:
            if given == known.casefold():
                return known
        raise InvalidInput(f"must be one of {', '.join(allowed)}", field="answer")


@dataclass(frozen=True)
class Question:
    """What the model is asked, greedily.

    Attributes:
        parts: texts, and files of pictures, in order.
        max_new_tokens: longest answer; None: what the context leaves.
        seed: for pictures, which the model draws with its own sampling.
    """

    parts: tuple[str | Path, ...]
    mode: Mode = "text"
    max_new_tokens: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Truth:
    """What an answer is compared with.

    Attributes:
        text: the right answer, or the reference answer.
        question: as a judge or a similarity model sees it.
        picture: the file of the row's picture.
        reads: how a phantom's answer is read: `exact`, or as a `caption`.
        topic: what the question is about, for tables.
        group: examples that belong together (a pair).
    """

    text: str
    question: str = ""
    context: str = ""
    picture: Path | None = None
    phantom: Mapping[str, Any] | None = None
    reads: str = "caption"
    topic: str = ""
    group: str = ""


@dataclass(frozen=True)
class Answer:
    """What the model said.

    Attributes:
        pictures: files, as they came.
        confidence: geometric mean of the text tokens' probabilities; None where the model does not say.
    """

    text: str = ""
    pictures: tuple[bytes, ...] = ()
    confidence: float | None = None
    model: str = ""
    digest: str = ""
    finish: str = ""
    latency_ms: float = 0.0


@dataclass(frozen=True)
class Score:
    """One example under one scorer: a value, or the reason that there is none.

    Attributes:
        failure: short stable name (`unparseable`, `no_picture`, `judge_unreachable`).
        detail: a sentence for people.
        note: what the scorer wants to keep (a judge's words, cut).
    """

    value: float | None
    failure: str = ""
    detail: str = ""
    note: str = ""


@dataclass
class Counted:
    """Bad rows by reason, and the first of them by name."""

    total: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    named: list[str] = field(default_factory=list)

    def add(self, place: str, reason: str, detail: str) -> None:
        self.total += 1
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        if len(self.named) < 50:
            self.named.append(f"{place}: {detail}")

    def to_json(self) -> dict[str, Any]:
        return {"total": self.total, "reasons": dict(sorted(self.reasons.items())), "named": self.named}
