"""OmniMedVQA (Hu et al. 2024): multiple choice over many modalities and parts of the body.

The rows of `question_type` mcq: multiple choice, one new token, scored by the letter. The prompt is the row's own, after the picture (as published).

A row:

    task_name      omnimed_vqa
    question_type  mcq
    prompt         What does this image show?\nA) mass\nB) pneumothorax
    answer         B
    image_path     images/1.png
"""

from __future__ import annotations

from evaluation.suite.example import Question, Row, Truth

VERSION = 1
FAMILY = "mcq"
SCORERS = ("mcq_rule",)
COLUMN = "Omni"
PUBLISHED = {
    "Chameleon-7B": 45.7,
    "GPT-4o": 40.9,
    "HuatuoGPT-V-7B": 75.6,
    "MedMax-7B": 99.5,
}
MAX_NEW_TOKENS = 1


def wants(row: Row) -> bool:
    """Whether the row belongs here."""
    return row.task_name == "omnimed_vqa" and row.question_type == "mcq"


def ask(row: Row) -> Question:
    """The picture, then the question; greedy."""
    return Question(
        parts=(row.need_picture(), row.prompt),
        mode="text",
        max_new_tokens=MAX_NEW_TOKENS,
    )


def truth(row: Row) -> Truth:
    """The letter of the right option."""
    return Truth(
        row.need_answer("A", "B", "C", "D", "E"),
        question=row.prompt,
        picture=row.picture,
        phantom=row.phantom,
        topic=str((row.phantom or {}).get("topic", "")),
    )
