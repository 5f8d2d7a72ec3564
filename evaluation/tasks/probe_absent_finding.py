"""Questions about the side, size or number of a finding that the picture does not show.

The right answer says that there is none; a model that names a side makes the finding up. Rows with `task_name` phantom_probe and `question_type` absent_finding, made from
phantoms by `medmax eval make-phantom-data`; their truth is exact.

A row:

    task_name      phantom_probe
    question_type  absent_finding
    prompt         Which side is the mass on?
    answer         there is no mass
    image_path     images/1.png
"""

from __future__ import annotations

from evaluation.suite.example import Question, Row, Truth

VERSION = 1
FAMILY = "probe"
SCORERS = ("vqa_match",)
COLUMN = ""
PUBLISHED: dict[str, float] = {}
MAX_NEW_TOKENS = 60


def wants(row: Row) -> bool:
    """Whether the row belongs here."""
    return row.task_name == "phantom_probe" and row.question_type == "absent_finding"


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
        row.answer,
        question=row.prompt,
        picture=row.picture,
        phantom=row.phantom,
        reads="exact",
        topic=str(shown.get("modality", "")),
        group=str(shown.get("group", "")),
    )
