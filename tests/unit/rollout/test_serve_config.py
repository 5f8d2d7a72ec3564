"""The text of a Serve config file, of which nothing but the model changes."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from services.errors import ConfigurationError, InvalidInput
from services.rollout.serve_config import version_in, with_version
from services.rollout.version import Version

TEXT = """\
# kept by the ward
applications:
  - name: other
    import_path: x:y
    args: {checkpoint: /models/elsewhere, model_id: other}
  - name: medmax   # ours
    import_path: services.app:from_config
    args:
      model_id: medmax-7b
      checkpoint: "/models/a: b"  # fetched
      device: cuda
    deployments:
      - {name: llm, max_ongoing_requests: 64}
"""
NAMES = st.from_regex(r"[A-Za-z0-9._/-]{1,64}", fullmatch=True)
PATHS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=60)


def test_the_version_is_read() -> None:
    assert version_in(TEXT, "medmax") == Version("/models/a: b", "medmax-7b")


def test_everything_else_stays_as_it_is_written() -> None:
    made = with_version(TEXT, "medmax", Version("/models/new", "medmax-7b"))
    assert made == TEXT.replace('"/models/a: b"', "/models/new")


def test_a_vqgan_comes_and_goes() -> None:
    there = with_version(TEXT, "medmax", Version("/models/new", "medmax-7b", "/models/new/vqgan.ckpt"))
    assert "      vqgan: /models/new/vqgan.ckpt\n" in there
    assert version_in(there, "medmax").vqgan == "/models/new/vqgan.ckpt"
    assert with_version(there, "medmax", version_in(TEXT, "medmax")) == TEXT


@settings(max_examples=40, deadline=None)
@given(NAMES, PATHS, PATHS | st.just(""))
def test_any_version_can_be_written_and_read_back(model_id: str, checkpoint: str, vqgan: str) -> None:
    version = Version(checkpoint, model_id, vqgan)
    made = with_version(TEXT, "medmax", version)
    assert version_in(made, "medmax") == version
    rest, before = yaml.safe_load(made), yaml.safe_load(TEXT)
    for each in (rest, before):
        for name in ("model_id", "checkpoint", "vqgan"):
            each["applications"][1]["args"].pop(name, None)
    assert rest == before
    assert version_in(with_version(made, "medmax", version_in(TEXT, "medmax")), "medmax") == version_in(
        TEXT, "medmax"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a list",
        "applications: 3",
        "applications: [{name: medmax}]",
        "applications: [{name: medmax, args: {model_id: x}}]",
        "applications: [{name: medmax, args: {model_id: 7, checkpoint: /m}}]",
        "applications: [{name: other, args: {model_id: x, checkpoint: /m}}]",
        "a: [",
        "a: !!python/object:os.system {}",
    ],
)
def test_a_text_that_names_no_model_is_refused_with_the_field(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"spec\.serveConfigV2"):
        version_in(text, "medmax")


def test_arguments_that_cannot_be_edited_in_place_are_refused_rather_than_damaged() -> None:
    text = (
        "applications:\n  - name: medmax\n    args: &a {model_id: x, checkpoint: /m}\n    user_config: *a\n"
    )
    with pytest.raises(ConfigurationError, match="one a line"):
        with_version(text, "medmax", Version("/n", "x"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("checkpoint", ""),
        ("checkpoint", "/a\nmodel_id: evil"),
        ("checkpoint", "x" * 1025),
        ("model_id", "two words"),
        ("digest", "ABC"),
    ],
)
def test_a_hostile_version_is_refused_with_its_field(field: str, value: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        Version(**{"checkpoint": "/m", "model_id": "x", field: value})
    assert raised.value.field == field
