"""PathVQA (He et al. 2020): questions about pictures from pathology textbooks and a digital library.

The rows of `question_type` open: questions with an answer in words, at most 60 new tokens; the published measure is a judge's verdict. The prompt is the row's own, after the picture (as published).

A row:

    task_name      pathvqa
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
COLUMN = "Path-O"
PUBLISHED = {
    "Chameleon-7B": 18.0,
    "GPT-4o": 9.1,
    "HuatuoGPT-V-7B": 6.0,
    "MedMax-7B": 40.6,
}
MAX_NEW_TOKENS = 60


def wants(row: Row) -> bool:
    """Whether the row belongs here."""
    return row.task_name == "pathvqa" and row.question_type == "open"


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
