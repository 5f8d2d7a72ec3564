"""Whatever an interaction holds, it comes back as it was."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.errors import InvalidInput
from services.interactions import InteractionStore, new_interaction_id
from services.interactions.records import Record, images
from services.pb.medmax.v1 import assistant_pb2, common_pb2
from tests.unit.interactions.samples import interaction, settings_in

texts = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=40)
doubles = st.floats(allow_nan=False)
seeds = st.integers(0, 2**64 - 1)
confidences = st.builds(
    common_pb2.Confidence,
    mean_logprob=doubles,
    min_logprob=doubles,
    mean_entropy=doubles,
    tokens=st.integers(0, 2**32 - 1),
)
windows = st.none() | st.builds(common_pb2.Window, center=doubles, width=doubles)
pictures = st.builds(
    assistant_pb2.ImagePart,
    data=st.binary(min_size=1, max_size=64),
    window=windows,
    mime_type=texts,
    synthetic=st.booleans(),
    confidence=st.none() | confidences,
)
parts = st.builds(assistant_pb2.Part, text=texts) | st.builds(assistant_pb2.Part, image=pictures)
messages = st.builds(
    assistant_pb2.Message,
    role=st.sampled_from(assistant_pb2.Role.values()),
    parts=st.lists(parts, max_size=3),
)
interactions = st.builds(
    assistant_pb2.Interaction,
    prompt=st.lists(messages, max_size=3),
    output=st.lists(parts, max_size=3),
    sampling=st.builds(common_pb2.Sampling, temperature=st.none() | doubles, seed=st.none() | seeds),
    mode=st.sampled_from(common_pb2.OutputMode.values()),
    reason=st.sampled_from(common_pb2.FinishReason.values()),
    usage=st.builds(common_pb2.Usage, prompt_tokens=st.integers(0, 2**32 - 1), seed=seeds),
    text_confidence=confidences,
    latency=st.builds(assistant_pb2.Latency, total_ms=doubles),
    consent_training=st.booleans(),
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(saved=interactions)
def test_any_interaction_comes_back_as_it_was(tmp_path: Path, saved: assistant_pb2.Interaction) -> None:
    store = InteractionStore.open(settings_in(tmp_path))
    saved.id, saved.caller = new_interaction_id(), "radiology"
    try:
        asyncio.run(store.save(saved))
        read = asyncio.run(store.get(saved.id, "radiology", include_images=True))
    finally:
        store.close()
    for image in images(read):
        image.sha256 = ""
    read.ClearField("created_at")
    read.ClearField("expires_at")
    assert read == saved


def test_what_goes_to_the_database_holds_no_picture() -> None:
    saved = interaction(pictures=(b"film",))
    saved.prompt[0].parts[0].image.sha256 = "f" * 64  # a claim is not believed
    record = Record.of(saved, retention_days=30)
    assert set(record.pictures.values()) == {b"film", saved.prompt[0].parts[0].image.data}
    kept = ParseDict(record.row["body"], assistant_pb2.Interaction())
    assert {image.sha256 for image in images(kept)} == record.pictures.keys()
    assert not any(image.data for image in images(kept))
    assert all(image.data for image in images(saved))


def test_an_id_of_another_kind_and_a_picture_without_bytes_are_refused() -> None:
    saved = interaction()
    saved.id = "int_7"
    with pytest.raises(InvalidInput) as refusal:
        Record.of(saved, retention_days=30)
    assert refusal.value.field == "id"
    with pytest.raises(ValueError, match="without bytes"):
        Record.of(interaction(pictures=(b"",)), retention_days=30)
