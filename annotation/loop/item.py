"""A stored interaction as an item for experts, before de-identification."""

from __future__ import annotations

from collections.abc import Iterable

from annotation.core import Item, Part, Picture, Turn
from annotation.store import Entry
from services.interactions.pictures import digest
from services.pb.medmax.v1 import assistant_pb2

_ROLES = {
    assistant_pb2.ROLE_SYSTEM: "system",
    assistant_pb2.ROLE_USER: "user",
    assistant_pb2.ROLE_ASSISTANT: "assistant",
}
_NUMBERS = {name: number for number, name in _ROLES.items()}


def item_of(
    interaction: assistant_pb2.Interaction, entry: Entry, alternatives: tuple[tuple[Part, ...], ...] = ()
) -> Item:
    """What `entry` asks experts about. Pictures must have their bytes."""
    return Item(
        id=entry.id,
        kind=entry.kind,
        dialogue=dialogue_of(interaction),
        answer=_parts(interaction.output),
        alternatives=alternatives,
        task=entry.task or "vqa",
        modality=entry.modality,
        speciality=entry.speciality,
        model_id=interaction.model.id,
        model_digest=interaction.model.digest,
        risk=entry.risk,
        reason=entry.reason,
    )


def dialogue_of(interaction: assistant_pb2.Interaction) -> tuple[Turn, ...]:
    """Everything up to and with the last question."""
    return tuple(
        Turn(_ROLES.get(message.role, "user"), _parts(message.parts)) for message in interaction.prompt
    )


def _parts(parts: Iterable[assistant_pb2.Part]) -> tuple[Part, ...]:
    made: list[Part] = []
    for part in parts:
        if part.WhichOneof("part") == "image":
            data = part.image.data
            made.append(Picture(digest(data), data, part.image.synthetic))
        elif part.text:
            made.append(part.text)
    return tuple(made)


def request_of(dialogue: Iterable[Turn], temperature: float, seed: int) -> assistant_pb2.GenerateRequest:
    """The last question, asked anew; nothing of it is stored as an interaction."""
    request = assistant_pb2.GenerateRequest(store=False)
    for turn in dialogue:
        message = request.messages.add(role=_NUMBERS[turn.role])
        for part in turn.parts:
            if isinstance(part, str):
                message.parts.add(text=part)
            else:
                message.parts.add(image=assistant_pb2.ImagePart(data=part.data or b""))
    request.sampling.temperature = temperature
    request.sampling.seed = seed
    return request
