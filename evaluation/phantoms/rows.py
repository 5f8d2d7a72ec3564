"""Instruction rows about phantoms in the MedMax schema, in all six of its task families."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evaluation.phantoms.catalogue import CATALOGUE
from evaluation.phantoms.core import Truth
from evaluation.phantoms.language import caption, describe, impression, ordered, pick, report, subject
from evaluation.phantoms.questions import (
    ATTRIBUTES,
    Question,
    balanced,
    closed_questions,
    even_answers,
    mcq_questions,
    open_questions,
)

IMAGE = "<image>"
END_OF_TURN = "<reserved08706>"
FAMILIES = (
    "vqa",
    "captioning",
    "report_understanding",
    "visual_chat",
    "image_generation",
    "multimodal_generation",
)

Turn = tuple[str, str]
"""What the user says and what the assistant answers; `<image>` stands for the phantom's picture."""


@dataclass(frozen=True)
class Row:
    """One instruction row. `turns` and `text` say the same; the MedMax schema keeps `text`."""

    task: str
    turns: tuple[Turn, ...]
    seed: int
    question_type: str | None = None
    answer: str | None = None
    image_path: str | None = None
    tokens: tuple[int, ...] | None = None
    source: str = "phantom"
    credential: bool = False

    @property
    def text(self) -> str:
        return END_OF_TURN.join(part for turn in self.turns for part in turn)

    def record(self) -> dict[str, Any]:
        """The row as a JSON record."""
        record = asdict(self)
        record["text"] = self.text
        return record


def with_picture(text: str, rng: np.random.Generator) -> str:
    """A user's turn about the picture, which comes before the text as a rule."""
    return f"{text}{IMAGE}" if rng.random() < 0.15 else f"{IMAGE}{text}"


def typed(text: str, rng: np.random.Generator) -> str:
    """The text as somebody in a hurry types it, one time in six: small letters, no question mark."""
    if rng.random() < 1 / 6:
        text = text[0].lower() + text[1:]
    return text.rstrip("?.") if rng.random() < 1 / 8 and "\n" not in text else text


def captioning(phantom: Truth, rng: np.random.Generator) -> Turn:
    asked = (
        "Describe this image.",
        "Describe this picture.",
        "Write a caption for this image.",
        "What do you see?",
    )
    return pick(rng, asked), caption(phantom)


def report_writing(phantom: Truth, rng: np.random.Generator) -> Turn:
    return pick(rng, ("Write a report for this image.", "Report this image.")), report(phantom, rng)


def report_question(phantom: Truth, rng: np.random.Generator) -> Turn:
    """A report and a question that it answers."""
    modality = CATALOGUE[phantom.modality]
    pool: list[tuple[str, str]] = [
        ("What is the impression?", impression(phantom)),
        ("What is abnormal?", impression(phantom)),
        ("Which modality was used?", modality.name),
        ("Summarize the report.", caption(phantom)),
    ]
    kind = modality.kinds[int(rng.integers(len(modality.kinds)))]
    pool.append((f"Does the report mention {kind.name}?", "yes" if phantom.finding(kind.name) else "no"))
    for finding in ordered(modality, phantom.findings):
        if finding.side:
            pool.append((f"Which side is the {finding.kind} on?", finding.side))
        if finding.size:
            pool.append((f"What size is the {finding.kind}?", finding.size))
    question, answer = pool[int(rng.integers(len(pool)))]
    body = (
        report(phantom, rng).rsplit(" Impression:", 1)[0]
        if "impression" in question
        else report(phantom, rng)
    )
    return f"{body}\n{question}", answer


def any_question(phantom: Truth, rng: np.random.Generator) -> Question:
    """One question of any type."""
    ask = (closed_questions, open_questions, mcq_questions)[int(rng.choice(3, p=(0.4, 0.35, 0.25)))]
    return balanced(ask(phantom, rng), rng)


def dialogue(phantom: Truth, rng: np.random.Generator, turns: int) -> tuple[Turn, ...]:
    """A chat of `turns` turns about one picture, which is in the first; mostly questions of all types."""
    result: list[Turn] = []
    for index in range(turns):
        draw = rng.random()
        if draw < 0.10:
            user, assistant = captioning(phantom, rng)
        elif draw < 0.13:
            user, assistant = report_writing(phantom, rng)
        else:
            question = any_question(phantom, rng)
            user, assistant = question.text, question.answer
        user = typed(user, rng)
        result.append((with_picture(user, rng) if index == 0 else user, assistant))
    return tuple(result)


def single_turns(phantom: Truth, rng: np.random.Generator, count: int) -> list[Turn]:
    """`count` turns about the picture that do not depend on each other, one caption among them; no `<image>` in their text.

    Half are multiple-choice, a third closed with even answers, the rest open. Half ask about a finding's side, size or
    number, where there is one: what is learnt last.
    """
    pools = (closed_questions(phantom, rng), open_questions(phantom, rng), mcq_questions(phantom, rng))
    turns: list[Turn] = [captioning(phantom, rng)]
    while len(turns) < count:
        kind = int(rng.choice(3, p=(0.35, 0.15, 0.5)))
        pool: Sequence[Question] = pools[kind]
        if rng.random() < 0.5:
            pool = [question for question in pool if question.topic in ATTRIBUTES] or pool
        question = (even_answers if kind == 0 else balanced)(pool, rng)
        turns.append((question.text, question.answer))
    return [(typed(asked, rng), answer) for asked, answer in turns]


def image_generation(phantom: Truth, rng: np.random.Generator) -> Turn:
    return typed(describe(phantom, rng), rng), IMAGE


def multimodal_generation(phantom: Truth, rng: np.random.Generator) -> Turn:
    """A request for an explanation with a picture: text, picture, text."""
    modality = CATALOGUE[phantom.modality]
    meanings = [modality.kind(finding.kind).meaning for finding in ordered(modality, phantom.findings)]
    before = " ".join(meanings) or f"A normal {modality.name} shows the {modality.organ} with no abnormality."
    wanted = subject(modality, phantom.findings, rng)
    asked = (
        f"Explain {wanted} with an example picture.",
        f"Explain {wanted} and draw it.",
        f"Teach me about {wanted} with text and a picture.",
    )
    return pick(rng, asked), f"{before}{IMAGE}{caption(phantom)}"


def rows(phantom: Truth, rng: np.random.Generator) -> list[Row]:
    """One row of every family (VQA: one of each type; report understanding: with and without picture)."""
    made: list[Row] = []
    for ask in (closed_questions, open_questions, mcq_questions):
        question = balanced(ask(phantom, rng), rng)
        turn = (with_picture(typed(question.text, rng), rng), question.answer)
        made.append(Row("vqa", (turn,), phantom.seed, question.type, question.answer))
    asked, answer = captioning(phantom, rng)
    made.append(Row("captioning", ((with_picture(asked, rng), answer),), phantom.seed))
    asked, answer = report_question(phantom, rng)
    made.append(Row("report_understanding", ((asked, answer),), phantom.seed))
    made.append(Row("report_understanding", ((f"{IMAGE}{asked}", answer),), phantom.seed))
    made.append(Row("visual_chat", dialogue(phantom, rng, int(rng.integers(4, 9))), phantom.seed))
    made.append(Row("image_generation", (image_generation(phantom, rng),), phantom.seed))
    made.append(Row("multimodal_generation", (multimodal_generation(phantom, rng),), phantom.seed))
    return made


def texts(made: Sequence[Row]) -> list[str]:
    """The rows' text without pictures, for building a vocabulary."""
    return [part.replace(IMAGE, " ") for row in made for turn in row.turns for part in turn]
