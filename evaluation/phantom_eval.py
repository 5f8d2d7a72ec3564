"""How well a served model reads and draws phantoms it never saw: the same path as a user's request takes.

Each phantom is asked one closed, one open and one multiple-choice question and for a caption, and a picture is
generated from a description of it, whose findings an analyser reads back from the pixels.
"""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from evaluation.phantoms import (
    Phantom,
    answer_matches,
    describe,
    draw,
    held_out,
    score_caption,
)
from evaluation.phantoms.analyser import analyse, findings_present
from evaluation.phantoms.language import caption
from evaluation.phantoms.questions import (
    balanced,
    closed_questions,
    even_answers,
    mcq_questions,
    open_questions,
)
from services.errors import MedMaxError
from services.gateway.assistant import Assistant
from services.pb.medmax.v1 import assistant_pb2, common_pb2

SCORES = ("vqa_closed", "vqa_open", "vqa_mcq", "caption_slots", "image_findings")
CALLER = "evaluation"
_CONCURRENT = 24
_CAPTION_REQUEST = "Describe this image."


@dataclass(frozen=True)
class Outcome:
    """One answer judged. `right` of `total` parts; a failed request is an outcome with its error, all wrong."""

    score: str
    seed: int
    modality: str
    topic: str
    asked: str
    expected: str
    answer: str
    right: int
    total: int
    error: str | None = None


@dataclass
class Report:
    """All outcomes of one run. Fractions are means over phantoms of right / total."""

    seed: int
    count: int
    outcomes: list[Outcome] = field(default_factory=list)
    analyser_right: int = 0

    def of(self, score: str, modality: str | None = None) -> list[Outcome]:
        return [o for o in self.outcomes if o.score == score and modality in (None, o.modality)]

    def fraction(self, score: str, modality: str | None = None) -> float | None:
        """Share of parts that are right; None where nothing was asked."""
        chosen = self.of(score, modality)
        total = sum(outcome.total for outcome in chosen)
        return sum(outcome.right for outcome in chosen) / total if total else None

    def stderr(self, score: str) -> float | None:
        """Standard error of `fraction`: a ratio estimate, phantoms being the independent units."""
        chosen = self.of(score)
        share = self.fraction(score)
        if share is None or len(chosen) < 2:
            return None
        mean_total = sum(outcome.total for outcome in chosen) / len(chosen)
        spread = sum((outcome.right - share * outcome.total) ** 2 for outcome in chosen) / (len(chosen) - 1)
        return math.sqrt(spread / len(chosen)) / mean_total

    def to_json(self) -> dict[str, Any]:
        modalities = sorted({outcome.modality for outcome in self.outcomes})
        truth = self.analyser_right / self.count
        return {
            "seed": self.seed,
            "count": self.count,
            "scores": {score: self.fraction(score) for score in SCORES},
            "stderr": {
                **{score: self.stderr(score) for score in SCORES},
                "analyser_on_truth": math.sqrt(truth * (1 - truth) / self.count),
            },
            "analyser_on_truth": truth,
            "per_modality": {
                modality: {score: self.fraction(score, modality) for score in SCORES}
                for modality in modalities
            },
            "counts": {score: len(self.of(score)) for score in SCORES},
            "failed": sum(outcome.error is not None for outcome in self.outcomes),
        }


def _png(phantom: Phantom) -> bytes:
    file = io.BytesIO()
    Image.fromarray(phantom.picture).save(file, "PNG")
    return file.getvalue()


@dataclass
class Reply:
    """An answer put together from its events."""

    text: str = ""
    pictures: list[bytes] = field(default_factory=list)


async def reply(assistant: Assistant, request: assistant_pb2.GenerateRequest) -> Reply:
    """The whole answer to a request. Raises what the assistant raises."""
    result = Reply()
    async for event in assistant.generate(request, CALLER):
        if event.HasField("text"):
            result.text += event.text.text
        elif event.HasField("image"):
            result.pictures.append(event.image.data)
    return result


def question_request(
    picture: bytes, question: str, max_new_tokens: int = 64
) -> assistant_pb2.GenerateRequest:
    """A greedy request for text about a picture (PNG bytes)."""
    parts = [
        assistant_pb2.Part(image=assistant_pb2.ImagePart(data=picture)),
        assistant_pb2.Part(text=question),
    ]
    return assistant_pb2.GenerateRequest(
        messages=[assistant_pb2.Message(role=assistant_pb2.ROLE_USER, parts=parts)],
        mode=common_pb2.OUTPUT_MODE_TEXT,
        max_new_tokens=max_new_tokens,
        sampling=common_pb2.Sampling(temperature=0.0),
        store=False,
    )


def drawing_request(
    description: str, seed: int, sampling: common_pb2.Sampling | None = None
) -> assistant_pb2.GenerateRequest:
    """A request for one picture, with the model's own sampling where none is given."""
    request = assistant_pb2.GenerateRequest(
        messages=[
            assistant_pb2.Message(role=assistant_pb2.ROLE_USER, parts=[assistant_pb2.Part(text=description)])
        ],
        mode=common_pb2.OUTPUT_MODE_IMAGE,
        sampling=sampling,
        store=False,
    )
    request.sampling.seed = seed
    return request


async def evaluate(
    assistant: Assistant,
    seed: int,
    count: int,
    scores: Sequence[str] = SCORES,
    sampling: common_pb2.Sampling | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Ask and judge. `sampling` replaces the model's own settings for pictures."""
    report = Report(seed, count)
    seeds = held_out(seed, count)
    gate = asyncio.Semaphore(_CONCURRENT)
    done = 0

    async def one(phantom_seed: int) -> None:
        nonlocal done
        async with gate:
            phantom = await asyncio.to_thread(draw, phantom_seed)
            report.analyser_right += _same(analyse(phantom.picture, phantom.modality), phantom)
            for outcome in [await judged for judged in _judgements(assistant, phantom, scores, sampling)]:
                report.outcomes.append(outcome)
            done += 1
            progress(done, count)

    await asyncio.gather(*(one(phantom_seed) for phantom_seed in seeds))
    report.outcomes.sort(key=lambda outcome: (outcome.seed, outcome.score))
    return report


def _same(found: Sequence[Any], phantom: Phantom) -> bool:
    return sorted(found, key=repr) == sorted(phantom.findings, key=repr)


def _judgements(
    assistant: Assistant, phantom: Phantom, scores: Sequence[str], sampling: common_pb2.Sampling | None
) -> list[Awaitable[Outcome]]:
    rng = np.random.default_rng([phantom.seed, 3])
    picture = _png(phantom)
    made: list[Awaitable[Outcome]] = []
    for score, ask, choose in (
        ("vqa_closed", closed_questions, even_answers),
        ("vqa_open", open_questions, balanced),
        ("vqa_mcq", mcq_questions, balanced),
    ):
        question = choose(ask(phantom, rng), rng)
        if score in scores:
            made.append(
                _judge(
                    assistant,
                    question_request(picture, question.text),
                    Outcome(
                        score,
                        phantom.seed,
                        phantom.modality,
                        question.topic,
                        question.text,
                        question.answer,
                        "",
                        0,
                        1,
                    ),
                    lambda got, question=question: (int(answer_matches(question, got.text)), 1, got.text),  # type: ignore[misc]
                )
            )
    wanted = describe(phantom, rng)
    if "caption_slots" in scores:
        blank = Outcome(
            "caption_slots", phantom.seed, phantom.modality, "caption", _CAPTION_REQUEST, caption(phantom), "",
            0, score_caption(caption(phantom), phantom)[1],
        )  # fmt: skip
        made.append(
            _judge(
                assistant,
                question_request(picture, _CAPTION_REQUEST),
                blank,
                lambda got: (*score_caption(got.text, phantom), got.text),
            )
        )
    if "image_findings" in scores:
        blank = Outcome(
            "image_findings", phantom.seed, phantom.modality, "drawing", wanted, str(phantom.findings), "",
            0, max(1, len(phantom.findings)),
        )  # fmt: skip
        made.append(
            _judge(
                assistant,
                drawing_request(wanted, phantom.seed % 2**32, sampling),
                blank,
                lambda got: _drawn(got, phantom),
            )
        )
    return made


def _drawn(got: Reply, phantom: Phantom) -> tuple[int, int, str]:
    with Image.open(io.BytesIO(got.pictures[0])) as picture:
        found = analyse(np.asarray(picture.convert("RGB")), phantom.modality)
    return *findings_present(phantom.findings, found), str(found)


async def _judge(
    assistant: Assistant,
    request: assistant_pb2.GenerateRequest,
    blank: Outcome,
    score: Callable[[Reply], tuple[int, int, str]],
) -> Outcome:
    values = {name: getattr(blank, name) for name in blank.__dataclass_fields__}
    try:
        right, total, answer = score(await reply(assistant, request))
    except MedMaxError as error:  # a failure is data: it counts as wrong and is reported
        return Outcome(**{**values, "error": str(error)})
    return Outcome(**{**values, "right": right, "total": total, "answer": answer})
