"""Items and verdicts as JSON. Pictures go by their SHA-256; the right verdict of a gold item never goes along."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from annotation.core import Decision, Item, Kind, Part, Picture, Reason, Region, Severity, Turn, Verdict

Json = dict[str, Any]


def item_to_json(item: Item) -> Json:
    """What the item says; `gold`, `reason`, `risk` and `speciality` are the store's own columns."""
    return {
        "id": item.id,
        "kind": item.kind.value,
        "dialogue": [{"role": turn.role, "parts": _parts(turn.parts)} for turn in item.dialogue],
        "answer": _parts(item.answer),
        "alternatives": [_parts(each) for each in item.alternatives],
        "task": item.task,
        "modality": item.modality,
        "model_id": item.model_id,
        "model_digest": item.model_digest,
        "patient": item.patient,
    }


def item_from_json(
    document: Json,
    *,
    speciality: str = "general",
    risk: float = 0.0,
    reason: Reason = Reason.RANDOM,
    pictures: Mapping[str, bytes] | None = None,
) -> Item:
    """The item; its pictures have their bytes where `pictures` (by SHA-256) holds them."""
    files = pictures or {}
    return Item(
        id=document["id"],
        kind=Kind(document["kind"]),
        dialogue=tuple(
            Turn(turn["role"], _from_parts(turn["parts"], files)) for turn in document["dialogue"]
        ),
        answer=_from_parts(document["answer"], files),
        alternatives=tuple(_from_parts(each, files) for each in document["alternatives"]),
        task=document["task"],
        modality=document["modality"],
        speciality=speciality,
        model_id=document["model_id"],
        model_digest=document["model_digest"],
        risk=risk,
        reason=reason,
        patient=document["patient"],
    )


def _parts(parts: tuple[Part, ...]) -> list[Any]:
    return [
        part if isinstance(part, str) else {"picture": part.sha256, "synthetic": part.synthetic}
        for part in parts
    ]


def _from_parts(parts: list[Any], files: Mapping[str, bytes]) -> tuple[Part, ...]:
    return tuple(
        part
        if isinstance(part, str)
        else Picture(part["picture"], files.get(part["picture"]), part["synthetic"])
        for part in parts
    )


def verdict_to_json(verdict: Verdict) -> Json:
    """Masks are base64."""
    document = asdict(verdict)
    for region, mask in zip(document["regions"], (each.mask for each in verdict.regions), strict=True):
        region["mask"] = None if mask is None else base64.b64encode(mask).decode()
    return document


def verdict_from_json(document: Json) -> Verdict:
    return Verdict(
        decision=None if document["decision"] is None else Decision(document["decision"]),
        text=document["text"],
        error=document["error"],
        severity=Severity(document["severity"]),
        missing=tuple(document["missing"]),
        realism=document["realism"],
        agreement=document["agreement"],
        ranking=tuple(document["ranking"]),
        regions=tuple(_region(each) for each in document["regions"]),
        comment=document["comment"],
    )


def _region(document: Json) -> Region:
    mask = document["mask"]
    return Region(**{**document, "mask": None if mask is None else base64.b64decode(mask)})
