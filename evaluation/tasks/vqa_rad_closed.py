"""VQA-RAD (Lau et al. 2018): questions that clinicians asked about radiographs, CT and MRI.

The rows of `question_type` closed: yes/no questions, one new token. The prompt is the row's own, after the picture (as published).

A row:

    task_name      vqa_rad
    question_type  closed
    prompt         Is there a mass in the left lung?
    answer         no
    image_path     images/1.png
"""

from __future__ import annotations

from evaluation.suite.example import Question, Row, Truth

VERSION = 1
FAMILY = "closed"
SCORERS = ("closed_rule",)
COLUMN = "RAD-C"
PUBLISHED = {
    "Chameleon-7B": 48.6,
    "GPT-4o": 54.2,
    "HuatuoGPT-V-7B": 74.5,
    "MedMax-7B": 75.3,
}
MAX_NEW_TOKENS = 1


def wants(row: Row) -> bool:
    """Whether the row belongs here."""
    return row.task_name == "vqa_rad" and row.question_type == "closed"


def ask(row: Row) -> Question:
    """The picture, then the question; greedy."""
    return Question(
        parts=(row.need_picture(), row.prompt),
        mode="text",
        max_new_tokens=MAX_NEW_TOKENS,
    )


def truth(row: Row) -> Truth:
    """The right one of yes and no."""
    return Truth(
        row.need_answer("yes", "no"),
        question=row.prompt,
        picture=row.picture,
        phantom=row.phantom,
        topic=str((row.phantom or {}).get("topic", "")),
    )
