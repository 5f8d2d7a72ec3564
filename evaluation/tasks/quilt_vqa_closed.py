"""Quilt-VQA (Seyfioglu et al. 2023): questions from lectures on histopathology.

The rows of `question_type` closed: yes/no questions, one new token. The prompt is the row's own, after the picture (as published).

A row:

    task_name      quilt_vqa
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
COLUMN = "Quilt-C"
PUBLISHED = {
    "Chameleon-7B": 71.4,
    "GPT-4o": 44.6,
    "HuatuoGPT-V-7B": 55.7,
    "MedMax-7B": 61.2,
}
MAX_NEW_TOKENS = 1


def wants(row: Row) -> bool:
    """Whether the row belongs here."""
    return row.task_name == "quilt_vqa" and row.question_type == "closed"


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
