"""The record of an answer: what was asked, with which values in force, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from services.gateway.validate import pictures
from services.interactions.ids import new_interaction_id
from services.pb.medmax.v1 import assistant_pb2, common_pb2, tokenizer_pb2

SOURCE_MIME = {"dicom": "application/dicom"}


def interaction(
    request: assistant_pb2.GenerateRequest,
    finish: assistant_pb2.GenerateFinish,
    *,
    caller: str,
    output: Sequence[assistant_pb2.Part],
    sources: Sequence[tokenizer_pb2.TokenizeResponse],
    sampling: common_pb2.Sampling,
    retention_days: int,
) -> assistant_pb2.Interaction:
    """A new interaction, pictures with their bytes.

    Args:
        sources: what the tokenizer read, one per picture of the prompt.
        sampling: values in force, but for the seed.
        retention_days: where the request does not say.
    """
    made = assistant_pb2.Interaction(
        id=new_interaction_id(),
        caller=caller,
        model=finish.model,
        prompt=request.messages,
        output=output,
        sampling=sampling,
        mode=request.mode or common_pb2.OUTPUT_MODE_TEXT,
        reason=finish.reason,
        usage=finish.usage,
        text_confidence=finish.text_confidence,
        latency=finish.latency,
        consent_training=request.consent_training,
    )
    made.sampling.seed = finish.usage.seed
    now = datetime.now(UTC)
    days = request.retention_days if request.HasField("retention_days") else retention_days
    made.created_at.FromDatetime(now)
    made.expires_at.FromDatetime(now + timedelta(days=days))
    for (_, image), source in zip(pictures(made.prompt), sources, strict=True):
        image.mime_type = SOURCE_MIME.get(source.source_format, f"image/{source.source_format}")
        image.width, image.height = source.source_width, source.source_height
        image.sha256 = source.content_sha256
        image.synthetic = False
        image.ClearField("confidence")
    return made
