"""Pictures drawn from captions: figures of biomedical papers (PMC-OA).

Rows with `task_name` image_generation and `question_type` pmc_oa: the prompt is the caption, the answer one picture. The published
measure is the cosine of picture and caption under BiomedCLIP (there on the first 100 rows, here on all). FID and KID
compare with the rows' pictures; on phantoms the analyser reads the findings from the drawn pixels.

A row:

    task_name      image_generation
    question_type  pmc_oa
    prompt         a chest radiograph with a small left mass
    answer         This chest radiograph shows a small left mass.
    image_path     images/1.png

The answer is not read; `image_path` names the true picture, for FID and KID, and may be missing.
"""

from __future__ import annotations

from evaluation.suite.example import Question, Row, Truth

VERSION = 1
FAMILY = "image_generation"
SCORERS = ("clip_text_image", "phantom_picture", "fid", "kid")
COLUMN = ""
PUBLISHED: dict[str, float] = {}


def wants(row: Row) -> bool:
    """Whether the row belongs here."""
    return row.task_name == "image_generation" and row.question_type == "pmc_oa"


def ask(row: Row) -> Question:
    """The caption. The picture's codes are drawn with the model's own sampling, under a seed that follows from the row."""
    return Question(
        parts=(row.prompt,),
        mode="image",
        seed=int(row.id[:8], 16),
    )


def truth(row: Row) -> Truth:
    """The caption, and the true picture where the row has one."""
    return Truth(
        row.answer,
        question=row.prompt,
        picture=row.picture,
        phantom=row.phantom,
        topic=str((row.phantom or {}).get("modality", "")),
    )
