"""SLAKE (Liu et al. 2021), the English part: questions about radiographs, CT and MRI with labelled regions.

The rows of `question_type` open: questions with an answer in words, at most 60 new tokens; the published measure is a judge's verdict. The prompt is the row's own, after the picture (as published).

A row:

    task_name      slake
    question_type  open
    prompt         Which side is the effusion on?
    answer         left
    image_path     images/1.png
"""

from __future__ import annotations

from evaluation.suite.example import Question, Row, Truth

VERSION = 1
FAMILY = "open"
SCORERS = ("judge_correct", "vqa_match")
COLUMN = "SLAKE-O"
PUBLISHED = {
    "Chameleon-7B": 5.3,
    "GPT-4o": 63.7,
    "HuatuoGPT-V-7B": 53.3,
    "MedMax-7B": 82.2,
}
MAX_NEW_TOKENS = 60


def wants(row: Row) -> bool:
    """Whether the row belongs here."""
    return row.task_name == "slake" and row.question_type == "open"


def ask(row: Row) -> Question:
    """The picture, then the question; greedy."""
    return Question(
        parts=(row.need_picture(), row.prompt),
        mode="text",
        max_new_tokens=MAX_NEW_TOKENS,
    )


def truth(row: Row) -> Truth:
    """The right answer in words."""
    return Truth(
        row.answer,
        question=row.prompt,
        picture=row.picture,
        phantom=row.phantom,
        topic=str((row.phantom or {}).get("topic", "")),
    )
