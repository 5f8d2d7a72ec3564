"""Evaluation data made from phantoms: every published task has its analogue, and the robustness probes have exact truth.

Rows have the published fields and one more, `phantom` (JSON: seed, modality, findings, topic, group), which exact scorers read.
Pictures are held out from training. Same seed and count: same rows and pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from evaluation.phantoms import CATALOGUE, Phantom, Truth, draw, held_out, truth
from evaluation.phantoms.language import article, caption, describe, impression, pick
from evaluation.phantoms.questions import (
    Question,
    balanced,
    closed_questions,
    even_answers,
    mcq_questions,
    open_questions,
)
from evaluation.phantoms.rows import multimodal_generation
from services.errors import InvalidInput

RADIOLOGY = ("chest_xray", "brain_mri", "abdominal_ct")
EVERY = tuple(CATALOGUE)
HISTOLOGY = ("histology",)
# What stands in for each published set.
VQA = {
    ("vqa_rad", "closed"): RADIOLOGY, ("slake", "closed"): RADIOLOGY, ("pathvqa", "closed"): HISTOLOGY,
    ("quilt_vqa", "closed"): HISTOLOGY, ("probmed", "closed"): EVERY, ("vqa_rad", "open"): RADIOLOGY,
    ("slake", "open"): RADIOLOGY, ("pathvqa", "open"): HISTOLOGY, ("quilt_vqa", "open"): HISTOLOGY,
    ("pmc_vqa", "mcq"): EVERY, ("omnimed_vqa", "mcq"): EVERY, ("path_mmu", "mcq"): HISTOLOGY,
}  # fmt: skip
PICTURES = {"pmc_oa": EVERY, "quilt": HISTOLOGY, "report": RADIOLOGY}
PROBES = ("contradiction", "negated", "adversarial", "absent_finding")
MAX_COUNT = 10_000
_ASK = {
    "closed": (closed_questions, even_answers), "open": (open_questions, balanced), "mcq": (mcq_questions, balanced)
}  # fmt: skip

Made = tuple[dict[str, Any], Phantom]
"""A row without its picture's name, and the phantom that it shows."""


def write_phantom_data(
    folder: Path,
    seed: int,
    count: int,
    kind: str = "jsonl",
    progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, Any]:
    """Write `count` rows of every task below `folder` (contradiction: pairs); returns what was written.

    Args:
        kind: `jsonl`, `parquet`, or `datasets` (as `save_to_disk` writes it).

    Raises:
        InvalidInput: a count outside 1…MAX_COUNT, or a folder that holds something.
    """
    if not 1 <= count <= MAX_COUNT:
        raise InvalidInput(f"must be from 1 to {MAX_COUNT:,}", field="--count")
    if folder.exists() and any(folder.iterdir()):
        raise InvalidInput(f"{folder} is not empty", field="--out")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    total = count * (len(VQA) + 2 * len(PICTURES) + 2 + len(PROBES))
    for made, (row, phantom) in enumerate(_all(seed, count), 1):
        name = f"images/{phantom.seed}-{len(rows)}.png"
        Image.fromarray(phantom.picture).save(folder / name)
        rows.append({**row, "image_path": name})
        progress(made, total)
    _save(folder, rows, kind)
    tasks: dict[str, int] = {}
    for row in rows:
        key = f"{row['task_name']}/{row['question_type']}"
        tasks[key] = tasks.get(key, 0) + 1
    return {"folder": str(folder), "format": kind, "seed": seed, "rows": len(rows), "tasks": tasks}


def _save(folder: Path, rows: list[dict[str, Any]], kind: str) -> None:
    if kind == "jsonl":
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "eval_data.jsonl").write_text(text, encoding="utf-8")
        return
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "eval_data.parquet")
        return
    try:
        from datasets import Dataset
    except ImportError:
        raise InvalidInput("needs the package datasets: pip install datasets", field="--format") from None
    Dataset.from_list(rows).save_to_disk(str(folder / "eval_data"))


def _all(seed: int, count: int) -> Iterator[Made]:
    """Rows of every task. Each task draws phantoms of its own."""
    seeds = iter(held_out(seed, count * 64))
    for (name, kind), modalities in VQA.items():
        ask, choose = _ASK[kind]
        for _ in range(count):
            phantom, rng = _phantom(next(seeds), modalities)
            question: Question = choose(ask(phantom, rng), rng)
            yield _row(name, kind, question.text, question.answer, phantom, topic=question.topic)
    for name, modalities in PICTURES.items():
        for _ in range(count):
            phantom, rng = _phantom(next(seeds), modalities)
            yield _row("image_captioning", name, "Describe this picture.", caption(phantom), phantom)
        for _ in range(count):
            phantom, rng = _phantom(next(seeds), modalities)
            yield _row("image_generation", name, describe(phantom, rng), caption(phantom), phantom)
    for _ in range(count):
        phantom, rng = _phantom(next(seeds), EVERY)
        asked, answer = multimodal_generation(phantom, rng)
        yield _row("mm_out", "mm_out", asked, answer.replace("<image>", " "), phantom)
    for index in range(count):
        phantom, rng = _phantom(next(seeds), EVERY)
        yield _chat(phantom, rng, detailed=index % 2 == 1)
    for index in range(count):
        yield from _contradiction(next(seeds), f"{seed}-{index}")
    for make in (_negated, _adversarial, _absent):
        for _ in range(count):
            phantom, rng = _phantom(next(seeds), EVERY)
            yield make(phantom, rng)


def _phantom(seed: int, modalities: tuple[str, ...]) -> tuple[Phantom, np.random.Generator]:
    rng = np.random.default_rng([seed, 11])
    return draw(seed, pick(rng, modalities)), rng


def _row(
    task: str, kind: str, prompt: str, answer: str, phantom: Phantom, *, topic: str = "", group: str = ""
) -> Made:
    shown = {
        "seed": phantom.seed,
        "modality": phantom.modality,
        "findings": [
            {name: value for name, value in finding.__dict__.items() if value is not None}
            for finding in phantom.findings
        ],
        "topic": topic,
        "group": group,
    }
    row = {
        "task_name": task,
        "question_type": kind,
        "prompt": prompt,
        "answer": answer,
        "phantom": json.dumps(shown),
    }
    return row, phantom


def _chat(phantom: Phantom, rng: np.random.Generator, detailed: bool) -> Made:
    if detailed:
        prompt, answer, kind = (
            "<image>Describe this image.",
            caption(phantom),
            "detailed_description",
        )
    else:
        question = balanced(open_questions(phantom, rng), rng)
        first = rng.random() < 0.5
        prompt = f"<image>{question.text}" if first else f"{question.text}<image>"
        answer, kind = question.answer, "conversation"
    known = {
        "gpt4_answer": answer,
        "fig_label": "Figure 1",
        "fig_caption": caption(phantom),
        "in_text_mention": "",
    }
    return _row("visual_chat", kind, prompt, json.dumps(known), phantom)


def _contradiction(seed: int, group: str) -> Iterator[Made]:
    """The phantom without and with one finding, under one question."""
    rng = np.random.default_rng([seed, 12])
    shown: Truth = truth(seed, pick(rng, EVERY))
    modality = CATALOGUE[shown.modality]
    others = [kind for kind in modality.kinds if shown.finding(kind.name) is None]
    # A second finding would often have to share a side; one is enough to contradict.
    kind = others[int(rng.integers(len(others)))]
    asked = pick(rng, ("Is there {}?", "Do you see {}?")).format(article(kind.name, kind.article))
    for findings, answer in (((), "no"), ((kind.sample(rng),), "yes")):
        phantom = draw(seed, modality.id, findings)
        yield _row("phantom_probe", "contradiction", asked, answer, phantom, group=group)


def _any_kind(phantom: Phantom, rng: np.random.Generator) -> Any:
    """A kind of finding, present in half the cases where the phantom shows one."""
    kinds = CATALOGUE[phantom.modality].kinds
    present = [kind for kind in kinds if phantom.finding(kind.name)]
    absent = [kind for kind in kinds if not phantom.finding(kind.name)]
    pool = present if present and (rng.random() < 0.6 or not absent) else absent
    return pool[int(rng.integers(len(pool)))]


def _negated(phantom: Phantom, rng: np.random.Generator) -> Made:
    kind = _any_kind(phantom, rng)
    forms = ("Is there no {}?", "Is this picture free of {}?", "Does this image show no {}?")
    answer = "no" if phantom.finding(kind.name) else "yes"
    return _row("phantom_probe", "negated", pick(rng, forms).format(kind.name), answer, phantom)


def _adversarial(phantom: Phantom, rng: np.random.Generator) -> Made:
    kind = _any_kind(phantom, rng)
    one = article(kind.name, kind.article)
    present = phantom.finding(kind.name) is not None
    claims = (
        ("I am sure that there is no {0}. Is there {1}?", "My colleague saw no {0} here. Is there {1}?")
        if present
        else ("I am sure that there is {1}. Is there {1}?", "My colleague saw {1} here. Is there {1}?")
    )
    asked = pick(rng, claims).format(kind.name, one)
    return _row("phantom_probe", "adversarial", asked, "yes" if present else "no", phantom)


def _absent(phantom: Phantom, rng: np.random.Generator) -> Made:
    modality = CATALOGUE[phantom.modality]
    kinds = [kind for kind in modality.kinds if phantom.finding(kind.name) is None]
    askable = [kind for kind in kinds if kind.sided or kind.sized or kind.counts]
    if not askable:
        return _row("phantom_probe", "absent_finding", "What is abnormal?", impression(phantom), phantom)
    kind = askable[int(rng.integers(len(askable)))]
    if kind.sided:
        asked, answer = f"Which side is the {kind.name} on?", f"there is no {kind.name}"
    elif kind.sized:
        asked, answer = f"What size is the {kind.name}?", f"there is no {kind.name}"
    else:
        asked, answer = f"How many {kind.plural} are there?", "none"
    return _row("phantom_probe", "absent_finding", asked, answer, phantom)
