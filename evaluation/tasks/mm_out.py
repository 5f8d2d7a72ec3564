"""Interleaved answers: text with a picture in it.

Rows with `task_name` mm_out: the prompt is text alone, the answer a reference text, `image_path` a reference picture. Published: at
most 1024 new tokens; a judge's relative mark of the text, and the cosine of the drawn and the reference picture under
BiomedCLIP over the answers that hold a picture. A picture's codes count as tokens here, and a picture of the 7B model takes
1026: so that text and a picture fit, both are given room.

A row:

    task_name      mm_out
    question_type  mm_out
    prompt         Explain a pneumothorax with an example picture.
    answer         A pneumothorax is air between the lung and the chest wall.
    image_path     images/1.png
"""

from __future__ import annotations

from evaluation.suite.example import Question, Row, Truth

VERSION = 1
FAMILY = "mm_out"
SCORERS = ("judge_relative", "clip_image_image", "phantom_picture", "phantom_answer")
COLUMN = ""
PUBLISHED: dict[str, float] = {}
TEXT_TOKENS = 1024
PICTURE_TOKENS = 1026


def wants(row: Row) -> bool:
    """Whether the row belongs here."""
    return row.task_name == "mm_out"


def ask(row: Row) -> Question:
    """The prompt; text greedy, pictures by the model's own sampling under a seed that follows from the row."""
    return Question(
        parts=(row.prompt,),
        mode="interleaved",
        max_new_tokens=TEXT_TOKENS + PICTURE_TOKENS,
        seed=int(row.id[:8], 16),
    )


def truth(row: Row) -> Truth:
    """The reference text and picture."""
    return Truth(
        row.answer,
        question=row.prompt,
        picture=row.picture,
        phantom=row.phantom,
        reads="caption",
        topic=str((row.phantom or {}).get("modality", "")),
    )
