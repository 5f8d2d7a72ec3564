"""Quilt-VQA (Seyfioglu et al. 2023): questions from lectures on histopathology.

The rows of `question_type` open: questions with an answer in words, at most 60 new tokens; the published measure is a judge's verdict. The prompt is the row's own, after the picture (as published).

A row:

    task_name      quilt_vqa
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
COLUMN = "Quilt-O"
PUBLISHED = {
    "Chameleon-7B": 15.3,
    "GPT-4o": 36.1,
    "HuatuoGPT-V-7B": 22.2,
    "MedMax-7B": 26.0,
}
MAX_NEW_TOKENS = 60


def wants(row: Row) -> bool:
    """Whether the row belongs here."""
    return row.task_name == "quilt_vqa" and row.question_type == "open"


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
