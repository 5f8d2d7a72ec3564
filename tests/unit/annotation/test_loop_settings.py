"""Settings of the review loop: a file, the environment, and errors that name the field."""

from __future__ import annotations

from pathlib import Path

import pytest

from annotation.loop.secret import FILE, Secrets
from annotation.loop.settings import ReviewSettings, load_review
from services.errors import ConfigurationError
from tests.unit.annotation.loop_samples import loop_in


def written(folder: Path, text: str) -> Path:
    path = folder / "review.yaml"
    path.write_text(text)
    return path


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "routing: {per_day: 10, random_share: 0.5}\nlabelstudio: {url: 'http://a:1'}\n")
    monkeypatch.setenv("MEDMAX_REVIEW_ROUTING__PER_DAY", "20")
    monkeypatch.setenv("MEDMAX_REVIEW_LABELSTUDIO__TOKEN", "secret-token")
    settings = load_review(path)
    assert (settings.routing.per_day, settings.routing.random_share) == (20, 0.5)
    assert settings.labelstudio.url == "http://a:1"
    assert settings.labelstudio.token.get_secret_value() == "secret-token"
    assert "secret-token" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("routing: {per_day: -1}", "review.routing.per_day"),
        ("experts: [{id: '7'}, {id: 'not an id'}]", "review.experts.1.id"),
        ("labelstudio: {webhook_secret: kurz}", "review.labelstudio.webhook_secret"),
        ("secret: short", "review.secret"),
        ("evaluation: [{data: a, phantom_seed: 1}]", "review.evaluation.0"),
        ("judge: {reviewers: 0}", "review.judge.reviewers"),
        ("nonsense: 1", "review.nonsense"),
        ("promote: {budgets: {vqa: 2}}", "review.promote.budgets.vqa"),
        ("- a list", "--config"),
        ("a: [", "--config"),
    ],
)
def test_what_is_wrong_is_named_and_not_quoted(tmp_path: Path, text: str, field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_review(written(tmp_path, text))
    assert caught.value.field == field
    assert "kurz" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_review(tmp_path / "none.yaml")


def test_the_secret_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    first = Secrets.of(ReviewSettings(), tmp_path)
    assert Secrets.of(ReviewSettings(), tmp_path) == first
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0
    assert len({first.webhook, first.pictures, first.drafts}) == 3
    assert Secrets.of(ReviewSettings(secret="0123456789abcdef"), tmp_path).key != first.key


def test_a_speciality_is_the_first_that_fits() -> None:
    settings = ReviewSettings(
        specialities=[
            {"name": "chest", "modalities": ["chest_xray"]},
            {"name": "drawing", "tasks": ["image_generation"]},
        ]
    )
    assert settings.speciality("chest_xray", "image_generation") == "chest"
    assert settings.speciality("mri", "image_generation") == "drawing"
    assert settings.speciality("mri", "vqa") == "general"


def test_label_studio_and_browsers_may_find_the_controller_under_different_addresses(tmp_path: Path) -> None:
    given = {"url": "http://studio:8080", "token": "t", "public_url": "https://review.example/"}
    for hook_url, expected in (("", "https://review.example"), ("http://review:9090/", "http://review:9090")):
        loop = loop_in(tmp_path / expected[7:].strip("/"), labelstudio={**given, "hook_url": hook_url})
        try:
            assert loop.hook_url == expected
            assert loop.public_url == "https://review.example"
        finally:
            loop.close()
