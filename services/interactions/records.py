"""An `Interaction` message as a row of the database and pictures beside it, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import RowMapping

from services.interactions.ids import check_id, new_interaction_id
from services.interactions.pictures import digest
from services.interactions.tasks import modality_of, task_of
from services.pb.medmax.v1 import assistant_pb2, common_pb2


def as_time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)


def as_timestamp(time: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


def images(interaction: assistant_pb2.Interaction) -> Iterator[assistant_pb2.ImagePart]:
    """Every picture of the prompt, then of the answer."""
    for parts in (*(message.parts for message in interaction.prompt), interaction.output):
        for part in parts:
            if part.WhichOneof("part") == "image":
                yield part.image


def derived(interaction: assistant_pb2.Interaction) -> dict[str, Any]:
    """The columns by which answers are chosen for review, so that choosing reads no body."""
    confidence = interaction.text_confidence
    drawn = [part.image.confidence for part in interaction.output if part.HasField("image")]
    return {
        "picture_logprob": min((each.mean_logprob for each in drawn if each.tokens), default=None),
        "characters": sum(len(part.text) for part in interaction.output),
        "min_logprob": confidence.min_logprob if confidence.tokens else None,
        "mean_entropy": confidence.mean_entropy if confidence.tokens else None,
        "tokens": confidence.tokens,
        "prompt_images": sum(
            part.HasField("image") for message in interaction.prompt for part in message.parts
        ),
        "output_images": len(drawn),
        "task": task_of(interaction),
        "modality": modality_of(interaction),
        "digest": content_digest(interaction),
    }


def content_digest(interaction: assistant_pb2.Interaction) -> str:
    """128 bits, hex, of who said what: equal where question, pictures (by their SHA-256) and answer are."""
    answer = assistant_pb2.Message(role=assistant_pb2.ROLE_ASSISTANT, parts=interaction.output)
    said = [
        [
            message.role,
            *(part.text if part.HasField("text") else [part.image.sha256] for part in message.parts),
        ]
        for message in (*interaction.prompt, answer)
    ]
    return digest(json.dumps(said).encode())[:32]


@dataclass(frozen=True)
class Record:
    """What goes to the database (`row`) and to the object store (`pictures`, by SHA-256)."""

    row: dict[str, Any]
    pictures: dict[str, bytes]

    @classmethod
    def of(cls, interaction: assistant_pb2.Interaction, retention_days: int) -> Record:
        """Fills in what is unset: the id, the time, and the end `retention_days` later, which is also the latest.

        Raises:
            InvalidInput: the id is none of ours.
            ValueError: a picture without bytes.
        """
        message = assistant_pb2.Interaction()
        message.CopyFrom(interaction)
        message.ClearField("feedback")
        message.id = check_id(message.id, field="id") if message.id else new_interaction_id()
        if not message.HasField("created_at"):
            message.created_at.CopyFrom(as_timestamp(datetime.now(UTC)))
        created = as_time(message.created_at)
        latest = created + timedelta(days=retention_days)
        expires = min(latest, as_time(message.expires_at)) if message.HasField("expires_at") else latest
        message.expires_at.CopyFrom(as_timestamp(expires))

        pictures: dict[str, bytes] = {}
        for image in images(message):
            if not image.data:
                raise ValueError("a picture without bytes")
            image.sha256 = digest(image.data)
            pictures[image.sha256] = image.data
            image.ClearField("data")
        confidence = message.text_confidence
        row = {
            "id": message.id,
            "created_at": created,
            "expires_at": expires,
            "caller": message.caller,
            "model_id": message.model.id,
            "model_digest": message.model.digest,
            "mode": common_pb2.OutputMode.Name(message.mode).removeprefix("OUTPUT_MODE_").lower(),
            "reason": common_pb2.FinishReason.Name(message.reason).removeprefix("FINISH_REASON_").lower(),
            "consent_training": message.consent_training,
            "mean_logprob": confidence.mean_logprob if confidence.tokens else None,
            **derived(message),
            "total_ms": message.latency.total_ms,
            "body": MessageToDict(message, preserving_proto_field_name=True),
        }
        return cls(row, pictures)


def to_interaction(body: dict[str, Any], feedback: list[RowMapping]) -> assistant_pb2.Interaction:
    """The message that was saved, its pictures without bytes, and the feedback on it."""
    message = ParseDict(body, assistant_pb2.Interaction(), ignore_unknown_fields=True)
    for row in feedback:
        message.feedback.append(
            assistant_pb2.Feedback(
                id=row["id"],
                created_at=as_timestamp(row["created_at"]),
                caller=row["caller"],
                rating=row["rating"],
                flag=row["flag"],
                comment=row["comment"],
                corrected_text=row["corrected_text"],
            )
        )
    return message
