"""Negated questions: "Is there no mass?", whose answer is the opposite of the plain question's.

A model that hears the finding and not the negation is wrong on every one. Rows with `task_name` phantom_probe and `question_type` negated, made from
phantoms by `medmax eval make-phantom-data`; their truth is exact.

A row:

    task_name      phantom_probe
    question_type  negated
    prompt         Is there no mass?
    answer         no
    image_path     images/1.png
"""

from __future__ import annotations

from evaluation.suite.example import Question, Row, Truth

VERSION = 1
FAMILY = "probe"
SCORERS = ("closed_rule",)
COLUMN = ""
PUBLISHED: dict[str, float] = {}
MAX_NEW_TOKENS = 1


def wants(row: Row) -> bool:
    """Whether the row belongs here."""
    return row.task_name == "phantom_probe" and row.question_type == "negated"


def ask(row: Row) -> Question:
    """The picture, then the question; greedy."""
    return Question(
        parts=(row.need_picture(), row.prompt),
        mode="text",
        max_new_tokens=MAX_NEW_TOKENS,
    )


def truth(row: Row) -> Truth:
    """The answer that the drawn findings give."""
    shown = row.phantom or {}
    return Truth(
        row.need_answer("yes", "no"),
        question=row.prompt,
        picture=row.picture,
        phantom=row.phantom,
        reads="exact",
        topic=str(shown.get("modality", "")),
        group=str(shown.get("group", "")),
    )
