"""The review loop in tests: phantoms asked about, experts who follow a script, and the data that must come of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from annotation.core import Decision, Item, Kind, Picture, Reason, Severity, Verdict
from annotation.labelstudio import sentences
from evaluation.phantoms import Phantom, describe, draw, held_out
from evaluation.phantoms.language import caption
from evaluation.phantoms.questions import closed_questions, even_answers
from services.checkpoint.vocabulary import END_OF_TURN, PLACEHOLDER
from services.config import Settings
from services.gateway.local import local_assistant
from services.pb.medmax.v1 import assistant_pb2, common_pb2
from tests.support.labelstudio import choices, stars, texts

CALLER = "radiology"


@dataclass(frozen=True)
class Asked:
    """An interaction, and what an expert who knows the phantom would say of it.

    Attributes:
        answer: the model's text; empty for a drawing.
        right: what it should have been; empty for a drawing.
    """

    id: str
    kind: Kind
    question: str
    answer: str
    right: str

    @property
    def truth(self) -> Verdict:
        if self.kind is Kind.PICTURE:
            good = chance(self.id, "picture") < 0.5
            reject = Verdict(
                decision=Decision.REJECT,
                error="wrong_finding",
                severity=Severity.MINOR,
                realism=2,
                agreement=2,
            )
            return Verdict(decision=Decision.ACCEPT, realism=4, agreement=4) if good else reject
        if self.answer == self.right:
            return Verdict(decision=Decision.ACCEPT)
        return Verdict(
            decision=Decision.EDIT, text=self.right, error="wrong_finding", severity=Severity.MINOR
        )


def chance(*about: object) -> float:
    """A number in [0, 1) that is always the same for the same things."""
    return hashlib.sha256(repr(about).encode()).digest()[0] / 256


def png(phantom: Phantom) -> bytes:
    target = BytesIO()
    picture = Image.fromarray(phantom.picture)
    # As large as what hospitals send: smaller ones are held (annotation/deid/pictures.py).
    picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.LANCZOS).save(target, "PNG")
    return target.getvalue()


def ask(settings: Settings, count: int, seed: int = 9) -> list[Asked]:
    """`count` interactions of the three kinds that users make, answered by the real model and stored with consent."""
    return asyncio.run(_ask(settings, count, seed))


async def _ask(settings: Settings, count: int, seed: int) -> list[Asked]:
    async with local_assistant(settings) as assistant:
        wanted = [_request(draw(number), place) for place, number in enumerate(held_out(seed, count))]
        return [await _answered(assistant, *each) for each in wanted]


def _request(phantom: Phantom, place: int) -> tuple[assistant_pb2.GenerateRequest, Kind, str]:
    rng = np.random.default_rng([phantom.seed, 5])
    request = assistant_pb2.GenerateRequest(mode=common_pb2.OUTPUT_MODE_TEXT, consent_training=True)
    request.sampling.temperature = 0.0
    message = request.messages.add(role=assistant_pb2.ROLE_USER)
    kind = (Kind.CHAT, Kind.REPORT, Kind.PICTURE)[place % 3]
    if kind is Kind.PICTURE:
        request.mode = common_pb2.OUTPUT_MODE_IMAGE
        request.sampling.temperature = 0.7
        request.sampling.seed = phantom.seed % 2**32
        message.parts.add(text=describe(phantom, rng))
        return request, kind, ""
    request.max_new_tokens = 48
    message.parts.add(image=assistant_pb2.ImagePart(data=png(phantom)))
    if kind is Kind.CHAT:
        question = even_answers(closed_questions(phantom, rng), rng)
        message.parts.add(text=question.text)
        return request, kind, question.answer
    message.parts.add(text="Describe this image.")
    # The house wants more than the model was taught, so that some reports must be edited.
    more = " No other finding." if chance(phantom.seed, "house") < 0.6 else ""
    return request, kind, caption(phantom) + more


async def _answered(assistant: Any, request: Any, kind: Kind, right: str) -> Asked:
    answer, id = "", ""
    async for event in assistant.generate(request, CALLER):
        if event.HasField("text"):
            answer += event.text.text
        elif event.HasField("finish"):
            id = event.finish.interaction_id
    question = next(part.text for part in request.messages[0].parts if part.HasField("text"))
    return Asked(id, kind, question, answer, right)


def eval_set(folder: Path, question: str, answer: str, numbers: Iterable[int]) -> Path:
    """An evaluation set in the published form: one closed question on phantoms; its folder."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in numbers:
        image = f"images/{number}.png"
        (folder / image).write_bytes(png(draw(number)))
        row = {"task_name": "vqa_rad", "question_type": "closed", "prompt": question, "answer": answer}
        rows.append(json.dumps(row | {"image_path": image}) + "\n")
    (folder / "eval_data.jsonl").write_text("".join(rows))
    return folder


def gold(count: int, kinds: Iterable[Kind] = Kind) -> list[Item]:
    """Items whose right verdicts nobody can miss."""
    made = []
    for kind in kinds:
        for number in range(count):
            made.append(_gold(kind, number))
    return made


def _gold(kind: Kind, number: int) -> Item:
    from annotation.core import Turn

    phantom = draw(7_000_000 + 10 * number + list(Kind).index(kind))
    data = png(phantom)
    film = Picture(hashlib.sha256(data).hexdigest(), data, synthetic=kind is Kind.PICTURE)
    wrong = Verdict(decision=Decision.REJECT, error="other", severity=Severity.MINOR)
    match kind:
        case Kind.PREFERENCE:
            fields: dict[str, Any] = {
                "answer": ("A picture.",),
                "alternatives": (("A picture.",), ("No answer.",)),
                "gold": Verdict(ranking=(0, 1)),
            }
        case Kind.PICTURE:
            fields = {"answer": (film,), "gold": Verdict(decision=Decision.REJECT, error="other",
                      severity=Severity.MINOR, realism=1, agreement=1)}  # fmt: skip
        case _:
            fields = {"answer": ("This is a piano.",), "gold": wrong}
    shown = ("Draw it.",) if kind is Kind.PICTURE else (film, "What is it?")
    return Item(
        id=f"gold-{kind.value}-{number}",
        kind=kind,
        dialogue=(Turn("user", shown),),
        reason=Reason.GOLD,
        **fields,
    )


@dataclass
class Script:
    """What each expert says of each item.

    Attributes:
        good: experts who are right but for a known rate; never two of them wrong about one item.
        bad: experts who are always wrong.
        adjudicator: always right.
        asked, golden: what is known, by item's id.
    """

    good: list[str]
    bad: list[str]
    adjudicator: str
    asked: dict[str, Asked]
    golden: dict[str, Item]
    rate: float = 0.1
    preferred: dict[str, int] = field(default_factory=dict)

    def truth(self, id: str, kind: Kind) -> Verdict:
        if id in self.golden:
            found = self.golden[id].gold
            assert found is not None
            return found
        if kind is Kind.PREFERENCE:
            first = int(chance(id, "preferred") < 0.5)
            return Verdict(ranking=(first, 1 - first))
        return self.asked[id].truth

    def says(self, expert: str, id: str, kind: Kind) -> Verdict:
        right = self.truth(id, kind)
        errs = expert in self.bad
        if expert in self.good and id not in self.golden:
            place = chance(id, kind.value, "wrong") * len(self.good)
            errs = self.good[int(place)] == expert and place % 1 < self.rate * len(self.good)
        return wrong(right) if errs else right


def wrong(right: Verdict) -> Verdict:
    """Another verdict than this, as somebody gives it who did not look."""
    if right.ranking:
        return Verdict(ranking=tuple(reversed(right.ranking)))
    if right.decision is Decision.ACCEPT:
        return Verdict(decision=Decision.REJECT, error="other", severity=Severity.MINOR,
                       realism=1 if right.realism else None, agreement=1 if right.agreement else None)  # fmt: skip
    return Verdict(decision=Decision.ACCEPT, realism=5 if right.realism else None,
                   agreement=5 if right.agreement else None)  # fmt: skip


def submitted(verdict: Verdict, kind: Kind) -> list[dict[str, Any]]:
    """The verdict as Label Studio's editor sends it."""
    if kind is Kind.PREFERENCE:
        side = "left" if verdict.ranking[0] == 0 else "right"
        pair = {"from_name": "pair", "to_name": "first", "type": "pairwise", "value": {"selected": side}}
        return [choices("form", "pair"), pair]
    assert verdict.decision is not None
    result = [choices("decision", verdict.decision.value)]
    if verdict.realism and verdict.agreement:
        result += [stars("realism", verdict.realism), stars("agreement", verdict.agreement)]
    if verdict.text is not None:
        pieces = sentences.split(verdict.text)[0] if kind is Kind.REPORT else [verdict.text]
        result.append(texts("text", *pieces))
    if verdict.decision is not Decision.ACCEPT:
        result += [choices("error", verdict.error), choices("severity", verdict.severity.value)]
    return result


def expected(asked: Iterable[Asked]) -> dict[str, set[tuple[str, ...]]]:
    """The records of a data set by file, without the preferences' kind: what each must say, spelt by hand."""
    rows: set[tuple[str, ...]] = set()
    pairs: set[tuple[str, ...]] = set()
    unpaired: set[tuple[str, ...]] = set()
    for one in asked:
        verdict = one.truth
        if one.kind is Kind.PICTURE:
            if verdict.decision is Decision.ACCEPT:
                rows.add((one.id, "answer", f"{one.question}{END_OF_TURN}{PLACEHOLDER}"))
            else:
                unpaired.add((one.id, "rejection", one.question, PLACEHOLDER))
            continue
        question = f"{PLACEHOLDER}{one.question}"
        if verdict.decision is Decision.ACCEPT:
            rows.add((one.id, "answer", f"{question}{END_OF_TURN}{one.answer}"))
        else:
            rows.add((one.id, "correction", f"{question}{END_OF_TURN}{one.right}"))
            pairs.add((one.id, "correction", question, one.right, one.answer))
    return {"rows": rows, "preferences": pairs, "unpaired": unpaired}


def recorded(version: Any) -> dict[str, list[tuple[str, ...]]]:
    """The records of a version on disk, in the same form."""
    found: dict[str, list[tuple[str, ...]]] = {}
    fields = {
        "rows": ("text",),
        "preferences": ("prompt", "chosen", "rejected"),
        "unpaired": ("prompt", "completion"),
    }
    for file, names in fields.items():
        found[file] = [
            (
                record["provenance"]["interaction"],
                record["provenance"]["rule"],
                *(record[name] for name in names),
            )
            for split in ("train", "validation")
            for record in version.records(file, split)
        ]
    return found
