"""The review loop in tests: phantoms asked about, experts who follow a script, and the data that must come of it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
from collections.abc import AsyncIterable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np

from annotation.core import Decision, Item, Kind, Picture, Reason, Region, Severity, Turn, Verdict
from annotation.labelstudio import sentences
from evaluation.phantoms import Phantom, describe, draw, held_out
from evaluation.phantoms.language import caption
from evaluation.phantoms.questions import closed_questions, even_answers
from services.checkpoint.vocabulary import END_OF_TURN, PLACEHOLDER
from services.config import Settings
from services.gateway.local import local_assistant
from services.pb.medmax.v1 import assistant_pb2, assistant_pb2_grpc, common_pb2
from tests.support.labelstudio import choices, rectangle, stars, stroke, texts
from tests.support.review_films import chance, inside, marked, png

CALLER = "radiology"
HOUSE_QUESTION, HOUSE_ANSWER = "Must a radiologist look at this?", "yes"
"""The model was never taught to answer it, and mostly says no: what the house wants is learnt from corrections alone."""
TAG = os.urandom(3).hex()
"""Of gold items: Label Studio's database may be an older one, which has others' by the same ids."""


@dataclass(frozen=True)
class Asked:
    """An interaction, and what an expert who knows the phantom would say of it.

    Attributes:
        answer: the model's text; empty for a drawing.
        right: what it should have been; empty for a drawing, and where nothing could be saved of the answer.
        marks: what an expert marks on the film or the drawing; the picture's digest is left empty.
        missing: findings that an edited report lacks.
    """

    id: str
    kind: Kind
    question: str
    answer: str
    right: str
    marks: tuple[Region, ...] = ()
    missing: tuple[str, ...] = ()

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
                regions=self.marks,
            )
            return Verdict(decision=Decision.ACCEPT, realism=4, agreement=4) if good else reject
        if self.answer == self.right:
            return Verdict(decision=Decision.ACCEPT, regions=self.marks)
        if not self.right:
            return Verdict(decision=Decision.REJECT, error="not_answered", severity=Severity.MINOR)
        return Verdict(
            decision=Decision.EDIT,
            text=self.right,
            error="wrong_finding",
            severity=Severity.MINOR,
            missing=self.missing,
            regions=self.marks,
        )


def ask(settings: Settings, count: int, seed: int = 9, at: str = "") -> list[Asked]:
    """`count` interactions of the three kinds that users make, answered by the real model and stored with consent.

    Args:
        at: address of a running stack's gRPC; without one the assistant runs in this process.
    """
    wanted = [_request(draw(number), place) for place, number in enumerate(held_out(seed, count))]
    return asyncio.run(_ask(settings, wanted, at))


@dataclass(frozen=True)
class _Wanted:
    """A question, and what is known of it before it is answered."""

    request: assistant_pb2.GenerateRequest
    kind: Kind
    right: str = ""
    marks: tuple[Region, ...] = ()
    missing: tuple[str, ...] = ()


async def _ask(settings: Settings, wanted: list[_Wanted], at: str) -> list[Asked]:
    if at:
        async with grpc.aio.insecure_channel(at) as channel:
            generate = assistant_pb2_grpc.AssistantStub(channel).Generate
            return [await _answered(generate(each.request), each) for each in wanted]
    async with local_assistant(settings) as assistant:
        return [await _answered(assistant.generate(each.request, CALLER), each) for each in wanted]


def _request(phantom: Phantom, place: int) -> _Wanted:
    rng = np.random.default_rng([phantom.seed, 5])
    request = assistant_pb2.GenerateRequest(mode=common_pb2.OUTPUT_MODE_TEXT, consent_training=True)
    request.sampling.temperature = 0.0
    message = request.messages.add(role=assistant_pb2.ROLE_USER)
    kind = (Kind.CHAT, Kind.REPORT, Kind.PICTURE, Kind.CHAT)[place % 4]
    if kind is Kind.PICTURE:
        request.mode = common_pb2.OUTPUT_MODE_IMAGE
        request.sampling.temperature = 0.7
        request.sampling.seed = phantom.seed % 2**32
        message.parts.add(text=describe(phantom, rng))
        return _Wanted(request, kind, marks=(Region("", "wrong finding", 0.25, 0.3, 0.5, 0.4),))
    request.max_new_tokens = 48
    message.parts.add(image=assistant_pb2.ImagePart(data=png(phantom)))
    if kind is Kind.CHAT and place % 8 != 3:
        message.parts.add(text=HOUSE_QUESTION)
        return _Wanted(request, kind, HOUSE_ANSWER)
    if kind is Kind.CHAT:
        question = even_answers(closed_questions(phantom, rng), rng)
        message.parts.add(text=question.text)
        # The house wants whole sentences of some, and wants some not to be answered at all.
        manner = chance(phantom.seed, "manner")
        right = (
            "" if manner < 0.2 else f"The answer is {question.answer}." if manner < 0.5 else question.answer
        )
        return _Wanted(request, kind, right)
    message.parts.add(text="Describe this image.")
    # The house wants more than the model was taught, so that some reports must be edited.
    more = " No other finding." if chance(phantom.seed, "house") < 0.6 else ""
    missing = ("other finding",) if chance(phantom.seed, "missing") < 0.5 else ()
    return _Wanted(request, kind, caption(phantom) + more, marked(phantom), missing)


async def _answered(events: AsyncIterable[Any], wanted: _Wanted) -> Asked:
    answer, id = "", ""
    async for event in events:
        if event.HasField("text"):
            answer += event.text.text
        elif event.HasField("finish"):
            id = event.finish.interaction_id
    question = next(part.text for part in wanted.request.messages[0].parts if part.HasField("text"))
    return Asked(id, wanted.kind, question, answer, wanted.right, wanted.marks, wanted.missing)


def house_films(count: int, seed: int = 9) -> list[int]:
    """Numbers of the phantoms that `ask` asks the house's question about, in its order."""
    return [number for place, number in enumerate(held_out(seed, count)) if place % 4 == 0 or place % 8 == 7]


def answers(url: str, numbers: Iterable[int], **fields: Any) -> list[str]:
    """What the server at `url` answers to the house's question about each phantom, over REST."""
    found = []
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        model = client.get("/v1/models").raise_for_status().json()["data"][0]["id"]
        for number in numbers:
            picture = base64.b64encode(png(draw(number))).decode()
            parts = [
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
                {"type": "text", "text": HOUSE_QUESTION},
            ]
            body = {"model": model, "messages": [{"role": "user", "content": parts}], "temperature": 0}
            reply = client.post("/v1/chat/completions", json=body | {"max_tokens": 8} | fields)
            text = reply.raise_for_status().json()["choices"][0]["message"]["content"]
            found.append((text or "").strip().lower())
    return found


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
        id=f"gold-{TAG}-{kind.value}-{number}",
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
    if verdict.missing:
        result.append(choices("missing", *verdict.missing))
    for number, region in enumerate(verdict.regions):
        if region.mask is not None:
            result += stroke(f"mark-{number}", region.label, inside(region.mask))
        else:
            box = [100 * side for side in (region.x, region.y, region.width, region.height)]
            result += rectangle(f"mark-{number}", region.label, box)
    return result


def expected(asked: Iterable[Asked]) -> dict[str, set[tuple[str, ...]]]:
    """The records of a data set by file, without the preferences' kind: what each must say, spelt by hand."""
    rows: set[tuple[str, ...]] = set()
    pairs: set[tuple[str, ...]] = set()
    unpaired: set[tuple[str, ...]] = set()
    for one in asked:
        verdict = one.truth
        for region in verdict.regions:
            edges = (region.x, region.y, region.x + region.width, region.y + region.height)
            place = f"[{', '.join(str(round(1000 * edge)) for edge in edges)}]"
            drawn = one.kind is Kind.PICTURE
            where = f"Where {'does this generated picture show' if drawn else 'is'}: {region.label}?"
            what = f"What is {'wrong ' if drawn else ''}in the region {place}?"
            rows.add((one.id, "where", f"{PLACEHOLDER}{where}{END_OF_TURN}{place}"))
            rows.add((one.id, "what", f"{PLACEHOLDER}{what}{END_OF_TURN}{region.label}"))
        for finding in verdict.missing:
            lacks = f"{PLACEHOLDER}Which findings does this report lack?\n{one.answer}"
            rows.add((one.id, "missing", f"{lacks}{END_OF_TURN}{finding}"))
        if one.kind is Kind.PICTURE:
            if verdict.decision is Decision.ACCEPT:
                rows.add((one.id, "answer", f"{one.question}{END_OF_TURN}{PLACEHOLDER}"))
            else:
                unpaired.add((one.id, "rejection", one.question, PLACEHOLDER))
            continue
        question = f"{PLACEHOLDER}{one.question}"
        if verdict.decision is Decision.ACCEPT:
            rows.add((one.id, "answer", f"{question}{END_OF_TURN}{one.answer}"))
        elif verdict.decision is Decision.REJECT:
            unpaired.add((one.id, "rejection", question, one.answer))
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
