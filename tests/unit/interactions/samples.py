"""Interactions to store, and where to store them."""

from __future__ import annotations

import secrets
from pathlib import Path

from services.config import Settings, load
from services.interactions import new_interaction_id
from services.pb.medmax.v1 import assistant_pb2, common_pb2

PROMPT_PICTURE = b"the picture that was asked about"


def settings_in(folder: Path, **overrides: object) -> Settings:
    return load(data_dir=folder / "var", **overrides)


def interaction(
    answer: str = "There is a nodule in the left lung.",
    *,
    caller: str = "radiology",
    pictures: tuple[bytes, ...] = (),
    **fields: object,
) -> assistant_pb2.Interaction:
    """A question about one picture; the answer is text, then `pictures`."""
    message = assistant_pb2.Interaction(
        id=new_interaction_id(),
        caller=caller,
        model=common_pb2.ModelVersion(id="medmax-phantom", digest="ab" * 32),
        prompt=[
            assistant_pb2.Message(
                role=assistant_pb2.ROLE_USER,
                parts=[
                    assistant_pb2.Part(image=assistant_pb2.ImagePart(data=PROMPT_PICTURE)),
                    assistant_pb2.Part(text="What is shown? \u0000 \U0001fa7b"),
                ],
            )
        ],
        output=[assistant_pb2.Part(text=answer)],
        sampling=common_pb2.Sampling(temperature=0.7, seed=2**64 - 1),
        mode=common_pb2.OUTPUT_MODE_INTERLEAVED,
        reason=common_pb2.FINISH_REASON_STOP,
        usage=common_pb2.Usage(prompt_tokens=70, completion_tokens=9, seed=2**64 - 1),
        text_confidence=common_pb2.Confidence(
            mean_logprob=-0.1234567890123456, min_logprob=float("-inf"), mean_entropy=0.25, tokens=9
        ),
        latency=assistant_pb2.Latency(first_token_ms=3.5, total_ms=20.25),
        consent_training=True,
    )
    for data in pictures:
        message.output.append(
            assistant_pb2.Part(
                image=assistant_pb2.ImagePart(
                    data=data, mime_type="image/png", width=128, height=128, synthetic=True
                )
            )
        )
    for name, value in fields.items():
        getattr(message, name).CopyFrom(value)
    return message


def random_picture() -> bytes:
    return secrets.token_bytes(2048)
