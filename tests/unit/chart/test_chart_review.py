"""The review loop's pod and the back-up's run the commands that there are, with settings that there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer

from annotation.backup.cli import app as backup
from annotation.loop.settings import load_review
from services.config import load
from tests.support.chart import merge, pod_spec, read, render, rendered, settings_file


def test_the_review_loop_s_variables_are_its_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (container,) = pod_spec(rendered("multi-gpu-tp4"), "Deployment", "medmax-review")["containers"]
    for variable in container["env"]:
        if variable["name"].startswith("MEDMAX_"):
            monkeypatch.setenv(variable["name"], str(variable.get("value", "name:from-a-secret-0123")))
    review = load_review(settings_file(rendered("multi-gpu-tp4"), tmp_path))
    assert review.labelstudio.url == "http://medmax-label-studio:8080"
    assert review.labelstudio.token.get_secret_value() == "name:from-a-secret-0123"
    assert (review.host, review.port) == ("0.0.0.0", 9090)
    assert review.labelstudio.public_url == "https://label.example.org"
    assert review.labelstudio.hook_url == "http://medmax-review:9090"
    assert review.routing.per_day == 200
    assert [each.id for each in review.experts if each.adjudicator] == ["4"]
    names = {variable["name"] for variable in container["env"]}
    strangers = [name for name in names if "LABEL_STUDIO" in name]
    assert strangers == [], "no setting is called so"
    monkeypatch.delenv("MEDMAX_DATABASE_URL")
    assert load().data_dir == Path("/data")
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert mounts["/data"] == "data", "data sets, models and the secret outlive the pod"


def test_the_review_loop_s_probes_ask_what_it_answers() -> None:
    import inspect

    from annotation.loop import server

    (container,) = pod_spec(rendered("multi-gpu-tp4"), "Deployment", "medmax-review")["containers"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert f'"{container[probe]["httpGet"]["path"]}"' in inspect.getsource(server)


def _options(arguments: list[str]) -> dict[str, Any]:
    assert arguments[0] == "backup"
    group: Any = typer.main.get_command(backup)
    create = group.commands[arguments[1]]
    found: dict[str, Any] = create.make_context("create", arguments[2:]).params
    return found


def test_label_studio_is_dumped_after_the_back_up() -> None:
    pod = pod_spec(rendered("multi-gpu-tp4"), "CronJob", "medmax-backup")
    (first,), (second,) = pod["initContainers"], pod["containers"]
    assert _options(first["args"]) == {"archive": "/backups/medmax", "keep_days": 14, "as_json": True}
    assert "pg_dump" in second["command"][-1]
    assert {"name": "backups", "mountPath": "/backups"} in second["volumeMounts"]


def test_a_back_up_to_a_bucket_needs_no_volume() -> None:
    pod = pod_spec(rendered("airgapped"), "CronJob", "medmax-backup")
    (container,) = pod["containers"]
    assert _options(container["args"])["archive"] == "s3://medmax-backups"
    assert "backups" not in {volume["name"] for volume in pod["volumes"]}


def test_a_back_up_reads_what_gateways_and_the_review_loop_write() -> None:
    values = merge(read("multi-gpu-tp4"), {"objectStore": {"kind": "volume"}})
    objects = render(values)
    pod = pod_spec(objects, "CronJob", "medmax-backup")
    claims = {
        each["name"]: each["persistentVolumeClaim"]["claimName"]
        for each in pod["volumes"]
        if "persistentVolumeClaim" in each
    }
    assert claims == {"data": "medmax-review", "pictures": "medmax-pictures", "backups": "medmax-backups"}
    mounts = {mount["mountPath"]: mount for mount in pod["initContainers"][0]["volumeMounts"]}
    assert mounts["/data"]["readOnly"] is True
