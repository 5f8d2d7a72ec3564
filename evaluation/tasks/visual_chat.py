"""Free questions about a picture, judged against a stored answer.

Rows with `task_name` visual_chat. `question_type` detailed_description asks one fixed question; others ask the row's prompt, in which
`<image>` marks the picture's place (first unless it ends the prompt). `answer` is a record, as JSON or as a Python literal, with
`gpt4_answer` and what is known of the figure (`fig_label`, `fig_caption`, `in_text_mention`); plain text is taken as the
answer itself.

A row:

    task_name      visual_chat
    question_type  conversation
    prompt         <image>What is abnormal?
    answer         {'gpt4_answer': 'A mass.', 'fig_caption': 'Chest film with a mass.', …}
    image_path     images/1.png
"""

from __future__ import annotations

import ast
import json
from typing import Any

from evaluation.suite.example import Question, Row, Truth

VERSION = 1
FAMILY = "visual_chat"
SCORERS = ("judge_relative", "phantom_answer", "rouge_l")
COLUMN = ""
PUBLISHED: dict[str, float] = {}
MAX_NEW_TOKENS = 4096  # published; less where the context leaves less
DETAILED = "Analyze the image in a comprehensive and detailed manner."
IMAGE = "<image>"


def wants(row: Row) -> bool:
    """Whether the row belongs here."""
    return row.task_name == "visual_chat"


def ask(row: Row) -> Question:
    """Picture and question in the row's order; greedy. Rows of phantoms ask in their own words."""
    text, picture = row.prompt.replace(IMAGE, "").strip(), row.need_picture()
    if row.question_type == "detailed_description" and not row.phantom:
        return Question(parts=(picture, DETAILED), max_new_tokens=MAX_NEW_TOKENS)
    parts = (text, picture) if row.prompt.endswith(IMAGE) else (picture, text)
    return Question(parts=parts, max_new_tokens=MAX_NEW_TOKENS)


def truth(row: Row) -> Truth:
    """The stored answer, with what a judge may know of the figure."""
    record = _record(row.answer)
    known = [
        str(record[name]) for name in ("fig_label", "fig_caption", "in_text_mention") if record.get(name)
    ]
    described = row.question_type == "detailed_description"
    return Truth(
        str(record.get("gpt4_answer", row.answer)),
        question=row.prompt.replace(IMAGE, "").strip(),
        context="\n".join(known),
        picture=row.picture,
        phantom=row.phantom,
        reads="caption" if described else "exact",
        topic=row.question_type,
    )


def _record(answer: str) -> dict[str, Any]:
    """The answer's fields; none where it is plain text."""
    if not answer.lstrip().startswith("{"):
        return {}
    for read in (json.loads, ast.literal_eval):  # neither runs anything
        try:
            value = read(answer)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, dict):
            return value
    return {}
