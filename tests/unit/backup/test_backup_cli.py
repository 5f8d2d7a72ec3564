"""`medmax backup`: one JSON document, and a status that a job can turn red by."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from annotation.backup.cli import app
from services.interactions import InteractionStore
from tests.unit.backup.behaviour import save
from tests.unit.interactions.samples import settings_in


def test_every_command_prints_one_document_and_says_by_its_status_how_it_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_in(tmp_path)
    store = InteractionStore.open(settings)
    save(store, 2)
    store.close()
    archive = str(tmp_path / "archive")

    def medmax(*arguments: str, data: Path = settings.data_dir) -> tuple[int, dict[str, object]]:
        monkeypatch.setenv("MEDMAX_DATA_DIR", str(data))
        done = CliRunner().invoke(app, [*arguments, "--json"])
        return done.exit_code, json.loads(done.stdout)

    status, made = medmax("create", archive)
    assert (status, made["pictures"], made["missing"]) == (0, 5, [])
    assert medmax("list", archive) == (0, {"backups": [made["name"]]})
    assert medmax("verify", archive) == (0, {"backup": made["name"], "damaged": []})
    status, done = medmax("restore", archive, str(made["name"])[:10], data=tmp_path / "there")
    assert (status, done["name"], done["pictures"]) == (0, made["name"], 5)

    picture = next(path for path in (settings.data_dir / "pictures").glob("??/*"))
    picture.unlink()
    (tmp_path / "archive" / "blobs" / picture.name[:2] / picture.name).unlink()
    assert medmax("verify", archive) == (1, {"backup": made["name"], "damaged": [f"picture {picture.name}"]})
    status, lacking = medmax("create", archive)
    assert (status, lacking["missing"]) == (1, [picture.name])
    assert len(medmax("list", archive)[1]["backups"]) == 2  # type: ignore[arg-type]
