"""A stored interaction as an item for experts, as it was said: patients' words and pictures are still in it."""

from __future__ import annotations

import io
import logging

import pydicom

from annotation.core import Item, Kind, Part, Picture, Reason, Turn
from annotation.store.candidates import KINDS
from services.errors import InvalidInput
from services.interactions.tasks import modality_of, task_of
from services.pb.medmax.v1 import assistant_pb2

# pydicom's log lines and warnings quote values of the file.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)

_DICOM = {
    "CT": "ct",
    "MR": "mri",
    "CR": "xray",
    "DX": "xray",
    "RG": "xray",
    "US": "ultrasound",
    "OP": "fundus",
    "OPT": "fundus",
    "SM": "histology",
    "ES": "endoscopy",
}
_BY_REGION = {
    ("xray", "CHEST"): "chest_xray",
    ("ct", "ABDOMEN"): "abdominal_ct",
    ("mri", "BRAIN"): "brain_mri",
    ("mri", "HEAD"): "brain_mri",
}


def to_item(
    interaction: assistant_pb2.Interaction,
    *,
    speciality: str = "general",
    risk: float = 0.0,
    reason: Reason = Reason.RANDOM,
    kind: Kind | None = None,
) -> Item:
    """The item that an interaction is, its pictures with their bytes.

    Task and modality are found by rule, from the users' words and from DICOM headers; the kind follows from the task.
    A display window that was asked for with a DICOM picture is not kept.

    Args:
        interaction: as `InteractionStore.get` gives it with `include_images`.
        kind: instead of the task's own.

    Raises:
        InvalidInput: a picture without bytes, or nothing was asked or answered.
    """
    dialogue = tuple(Turn(_ROLES[message.role], _parts(message.parts)) for message in interaction.prompt)
    answer = _parts(interaction.output)
    if not dialogue or not answer:
        raise InvalidInput("an interaction without a question or an answer", field="interaction")
    task = task_of(interaction)
    return Item(
        id=interaction.id,
        kind=kind or KINDS[task],
        dialogue=dialogue,
        answer=answer,
        task=task,
        modality=modality_of(interaction) or _modality(dialogue),
        speciality=speciality,
        model_id=interaction.model.id,
        model_digest=interaction.model.digest,
        risk=risk,
        reason=reason,
    )


_ROLES = {
    assistant_pb2.ROLE_SYSTEM: "system",
    assistant_pb2.ROLE_USER: "user",
    assistant_pb2.ROLE_ASSISTANT: "assistant",
    assistant_pb2.ROLE_UNSPECIFIED: "user",
}


def _parts(parts: object) -> tuple[Part, ...]:
    found: list[Part] = []
    for part in parts:  # type: ignore[attr-defined]
        if part.WhichOneof("part") == "image":
            if not part.image.data:
                raise InvalidInput("a picture without bytes", field="interaction")
            found.append(Picture(part.image.sha256, part.image.data, part.image.synthetic))
        elif part.text:
            found.append(part.text)
    return tuple(found)


def _modality(dialogue: tuple[Turn, ...]) -> str:
    """From the first DICOM header that tells; the rest of the file is not read."""
    for turn in dialogue:
        for part in turn.parts:
            if isinstance(part, Picture) and part.data is not None and part.data[128:132] == b"DICM":
                modality, region = _header(part.data)
                if modality in _DICOM:
                    return _BY_REGION.get((_DICOM[modality], region), _DICOM[modality])
    return ""


def _header(data: bytes) -> tuple[str, str]:
    try:
        header = pydicom.dcmread(
            io.BytesIO(data), stop_before_pixels=True, specific_tags=["Modality", "BodyPartExamined"]
        )
        return str(header.get("Modality", "")), str(header.get("BodyPartExamined", "")).upper()
    except Exception:  # pydicom meets hostile bytes with exceptions of every type; the gateway read this file
        return "", ""
