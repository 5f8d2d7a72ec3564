"""Captions for radiology pictures with their reports.

Rows with `task_name` image_captioning and `question_type` report: the picture, then the published request. The published
measure is the cosine of picture and caption under BiomedCLIP; overlap with the reference is measured beside it, and on phantoms
the caption's slots are compared with the truth.

A row:

    task_name      image_captioning
    question_type  report
    prompt         Please describe this picture.
    answer         This chest radiograph shows a small left mass.
    image_path     images/1.png
"""

from __future__ import annotations

from evaluation.suite.example import Question, Row, Truth

VERSION = 1
FAMILY = "captioning"
SCORERS = ("clip_image_text", "phantom_answer", "rouge_l", "bleu", "radgraph", "chexbert")
COLUMN = ""
PUBLISHED: dict[str, float] = {}
PROMPT = "Please describe this picture."
MAX_NEW_TOKENS = 4096  # published; less where the context leaves less


def wants(row: Row) -> bool:
    """Whether the row belongs here."""
    return row.task_name == "image_captioning" and row.question_type == "report"


def ask(row: Row) -> Question:
    """The picture, then the published request; greedy. Rows of phantoms ask in their own words: a small model knows few."""
    return Question(
        parts=(row.need_picture(), row.prompt if row.phantom else PROMPT),
        mode="text",
        max_new_tokens=MAX_NEW_TOKENS,
    )


def truth(row: Row) -> Truth:
    """The reference caption, the picture, and what a phantom shows."""
    return Truth(
        row.answer,
        question=PROMPT,
        picture=row.picture,
        phantom=row.phantom,
        reads="caption",
        topic=str((row.phantom or {}).get("modality", "")),
    )
