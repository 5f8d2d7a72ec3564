"""The columns by which answers are chosen for review."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import select

from services.interactions.database import INTERACTIONS, connect, database_url, migrate, transaction
from services.interactions.records import Record, content_digest
from services.interactions.schema import interactions
from services.interactions.tasks import TASKS, modality_of, task_of
from services.pb.medmax.v1 import assistant_pb2, common_pb2
from tests.unit.interactions.samples import interaction, settings_in

USER, ASSISTANT = assistant_pb2.ROLE_USER, assistant_pb2.ROLE_ASSISTANT


def asked(
    *questions: str, picture: bool = True, answer: str = "Yes.", drawn: int = 0
) -> assistant_pb2.Interaction:
    message = assistant_pb2.Interaction(mode=common_pb2.OUTPUT_MODE_INTERLEAVED)
    for number, question in enumerate(questions):
        if number:
            message.prompt.add(role=ASSISTANT).parts.add(text="I see.")
        turn = message.prompt.add(role=USER)
        if picture and not number:
            turn.parts.add().image.data = b"film"
        turn.parts.add(text=question)
    if answer:
        message.output.add(text=answer)
    for _ in range(drawn):
        message.output.add().image.data = b"drawn"
    return message


@pytest.mark.parametrize(
    ("message", "task"),
    [
        (asked("Is there an effusion?"), "vqa"),
        (asked("Is the report right that there is an effusion?"), "vqa"),
        (asked("Is there an effusion?", "On which side?"), "visual_chat"),
        (asked("What is pneumonia?", picture=False), "visual_chat"),
        (asked("Describe this picture."), "captioning"),
        (asked("Hello.", "Please write a short radiology report."), "report_understanding"),
        (asked("Give the findings and the impression."), "report_understanding"),
        (asked("Draw a chest x-ray.", picture=False, answer="", drawn=1), "image_generation"),
        (asked("Explain and draw.", picture=False, drawn=2), "multimodal_generation"),
        (assistant_pb2.Interaction(), "visual_chat"),
    ],
)
def test_the_task_follows_from_pictures_and_words(message: assistant_pb2.Interaction, task: str) -> None:
    assert task_of(message) == task
    assert task in TASKS


@pytest.mark.parametrize(
    ("words", "modality"),
    [
        ("Is this chest X-ray normal?", "chest_xray"),
        ("A CXR of today.", "chest_xray"),
        ("Is there a fracture in this radiograph?", "xray"),
        ("abdominal CT with contrast", "abdominal_ct"),
        ("CT of the foot", "ct"),
        ("Brain MRI, T1", "brain_mri"),
        ("What does this fundus photograph show?", "fundus"),
        ("H&E stain", "histology"),
        ("Is the reaction normal?", ""),
    ],
)
def test_the_modality_is_what_the_users_words_say(words: str, modality: str) -> None:
    assert modality_of(asked(words)) == modality


def test_the_digest_is_of_what_was_asked_and_answered_alone() -> None:
    def digest(**fields: object) -> str:
        record = Record.of(interaction(**fields), 30)  # type: ignore[arg-type]
        return str(record.row["digest"])

    assert digest() == digest(caller="pathology")
    assert len({digest(), digest(answer="No."), digest(pictures=(b"a",)), digest(pictures=(b"b",))}) == 4
    moved = asked("a b", answer="c")
    moved.output.add(text="d")
    assert content_digest(moved) != content_digest(asked("a b", answer="cd"))


def test_an_update_fills_the_columns_of_interactions_that_are_there(tmp_path: Path) -> None:
    engine = connect(database_url(settings_in(tmp_path)))
    migrate(engine, revision="0001")
    records = [Record.of(interaction(f"answer {n}", pictures=(b"drawn",) * (n % 2)), 30) for n in range(600)]
    new = {"min_logprob", "mean_entropy", "picture_logprob", "tokens", "characters", "prompt_images"}
    new |= {"output_images", "task", "modality", "digest"}
    old = [{name: value for name, value in each.row.items() if name not in new} for each in records]
    with transaction(engine) as connection:
        connection.execute(interactions.insert(), old)
    migrate(engine)
    with transaction(engine, write=False) as connection:
        rows = connection.execute(select(interactions).order_by(interactions.c.id)).mappings().all()
    assert [dict(row) for row in rows] == [each.row for each in sorted(records, key=lambda r: r.row["id"])]
    with transaction(engine) as connection:
        config = INTERACTIONS.config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
    migrate(engine)
    engine.dispose()
