"""The review loop's settings in the chart's values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import helm_python
import pytest
import yaml
from pydantic import BaseModel

from annotation.loop.settings import ReviewSettings, load_review
from tests.support.chart import CHART, Object, of_kind, pod_spec, render, settings_file

WHOLE: Object = {
    "labelstudio": {"reconcile_minutes": 2.5, "picture_days": 90},
    "routing": {"per_day": 100_000, "random_share": 0.02},
    "train": {"enabled": True, "rate": 5e-5},
    "specialities": [{"name": "ct", "modalities": ["ct"]}],
    "allowed_words": ["on", "1e3", "<b>: # &x"],
    "promote": {"target": ["slake*"], "budgets": {"vqa_*": 1e-7}},
    "evaluation": [{"phantom_seed": 7}],
}


def test_values_are_the_settings_that_a_file_of_their_own_would_give(tmp_path: Path) -> None:
    values = {"review": {"enabled": True, "config": WHOLE}}
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(WHOLE))
    assert load_review(settings_file(render(values), tmp_path)) == load_review(own)


def test_changed_settings_start_the_controller_anew() -> None:
    def checksum(per_day: int) -> str:
        config = {"routing": {"per_day": per_day}}
        (found,) = of_kind(render({"review": {"enabled": True, "config": config}}), "Deployment")
        return str(found["spec"]["template"]["metadata"]["annotations"]["checksum/config"])

    assert checksum(1) == checksum(1)
    assert checksum(1) != checksum(2)


def _fields(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Every setting, and whether it is a secret."""
    for name, field in model.model_fields.items():
        text = repr(field.annotation)
        inner = [
            each
            for each in (field.annotation, *get_args(field.annotation))
            if isinstance(each, type) and issubclass(each, BaseModel)
        ]
        yield (*path, name), "SecretStr" in text
        for each in inner:
            yield from _fields(each, (*path, name))


def test_every_secret_of_the_settings_is_refused_and_nothing_else_is() -> None:
    secrets = {path for path, secret in _fields(ReviewSettings) if secret}
    assert {("secret",), ("labelstudio", "token"), ("assistant", "key")} < secrets
    for path, secret in _fields(ReviewSettings):
        value: Any = {} if path == ("labelstudio",) else "x"
        for name in reversed(path):
            value = {name: value}
        message = _refusal(value)
        assert (f"review.config.{'.'.join(path)}: is a secret" in message) == secret, message
        assert ("is a secret" in message) == secret, message


def _refusal(config: Object) -> str:
    """What Helm says against the settings; empty where it takes them."""
    try:
        render({"review": {"enabled": True, "config": config}})
    except helm_python.HelmError as error:
        return str(error)
    return ""


def test_a_secret_in_a_list_is_refused_too() -> None:
    config = {"experts": [{"id": "2"}, {"id": "3", "api_token": "x"}]}
    with pytest.raises(helm_python.HelmError, match=r"review\.config\.experts\.1\.api_token: is a secret"):
        render({"review": {"enabled": True, "config": config}})


def test_the_schema_knows_every_section() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    config = schema["properties"]["review"]["properties"]["config"]
    assert config["additionalProperties"] is False
    assert set(config["properties"]) == set(ReviewSettings.model_fields)


def test_secrets_and_operators_reach_the_controller() -> None:
    objects = render(
        {
            "review": {"enabled": True, "existingSecret": "mine"},
            "settings": {"operators": ["chief", "ward"]},
        }
    )
    (container,) = pod_spec(objects, "Deployment", "medmax-review")["containers"]
    assert {"secretRef": {"name": "mine"}} in container["envFrom"]
    assert {"name": "MEDMAX_OPERATORS", "value": "chief,ward"} in container["env"]
    assert not [each for each in container["env"] if each["name"] == "MEDMAX_REVIEW_CONFIG"]
