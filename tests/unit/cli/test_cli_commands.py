"""Every command's help, errors, exit status and `--json`, without a model."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.checkpoint import open_checkpoint
from services.commands.checks import Check, run_all
from services.interactions import InteractionStore
from services.interactions.database import newest_revision
from services.interactions.records import as_timestamp
from tests.support.tiny import tiny_checkpoint
from tests.unit.cli.medmax import medmax
from tests.unit.interactions.samples import PROMPT_PICTURE, interaction, settings_in

NOWHERE = "http://127.0.0.1:9"  # the discard port; nobody listens


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("ask",),
        ("draw",),
        ("chat",),
        ("doctor",),
        ("interactions",),
        ("interactions", "purge"),
        ("interactions", "show"),
    ],
    ids=" ".join,
)
def test_help_says_how_to_use_it(tmp_path: Path, command: tuple[str, ...]) -> None:
    result = medmax(tmp_path, *command, "--help")
    assert result.status == 0
    assert "Usage: medmax" in result.out
    assert len(command) == 0 or command == ("interactions",) or "--json" in result.out


def test_help_names_every_command_and_imports_no_framework(tmp_path: Path) -> None:
    program = (
        "import sys; sys.argv = ['medmax', '--help']\n"
        "from services.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('LOADED', sorted({'torch', 'ray', 'sqlalchemy', 'fastapi', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    for name in ("ask", "chat", "doctor", "draw", "eval", "interactions", "serve", "train"):
        assert f" {name} " in done.stdout
    assert "LOADED []" in done.stdout


def test_help_is_quick(tmp_path: Path) -> None:
    medmax(tmp_path, "--help")
    start = time.process_time()
    used_before = os.times().children_user
    medmax(tmp_path, "--help")
    assert os.times().children_user - used_before + time.process_time() - start < 1.5


def test_version_is_printed(tmp_path: Path) -> None:
    result = medmax(tmp_path, "--version")
    assert result.status == 0
    number = result.out.split()[1]
    assert medmax(tmp_path, "--version", "--json").document == {"version": number}


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("ask",),
        ("ask", "no-such-file.png", "What is shown?"),
        ("ask", "film.png", " "),
        ("draw", "", "-o", "film2.png"),
        ("ask", "film.png", "What?", "--window", "40"),
        ("ask", "film.png", "What?", "--window", "40,-1"),
        ("ask", "film.png", "What?", "--temperature", "9"),
        ("ask", "film.png", "What?", "--nonsense"),
        ("draw", "A film"),
        ("draw", "A film", "-o", "film.gif"),
        ("draw", "A film", "-o", "no/such/folder/film.png"),
        ("draw", "A film", "-o", "film2.png", "--size", "9"),
        ("chat", "no-such-file.png"),
        ("interactions", "show"),
        ("doctor", "extra"),
    ],
    ids=" ".join,
)
def test_wrong_usage_has_status_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "film.png").write_bytes(b"film")
    result = medmax(tmp_path, *arguments, "--json")
    assert result.status == 2
    assert result.document["error"]["code"] == "usage"
    assert result.document["error"]["message"]


def test_wrong_usage_is_told_to_people_on_stderr(tmp_path: Path) -> None:
    result = medmax(tmp_path, "ask", "no-such-file.png", "What is shown?")
    assert result.status == 2
    assert result.out == ""
    assert "no-such-file.png" in result.err


def test_a_command_that_cannot_be_loaded_says_so(tmp_path: Path) -> None:
    package = tmp_path / "broken-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[medmax.commands]\nshine = no_such_module:app\n")
    result = medmax(tmp_path, "shine", PYTHONPATH=str(tmp_path))
    assert result.status == 1
    assert "`shine` cannot be loaded from no_such_module:app" in result.err
    document = medmax(tmp_path, "shine", "--json", PYTHONPATH=str(tmp_path)).document
    assert document["error"]["code"] == "configuration_error"
    assert "shine" in medmax(tmp_path, "--help", PYTHONPATH=str(tmp_path)).out


def test_a_command_of_another_package_is_found_and_runs(tmp_path: Path) -> None:
    package = tmp_path / "shiny-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: shiny\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[medmax.commands]\nshine = shiny_cli:app\n")
    (tmp_path / "shiny_cli.py").write_text(
        '"""Makes things shine."""\nimport typer\nfrom services.errors import NotFound\n'
        "app = typer.Typer()\n"
        "@app.command()\ndef shoes(as_json: bool = typer.Option(False, '--json')) -> None:\n"
        "    raise NotFound('no shoes', field='shoes')\n"
        "@app.command()\ndef stars() -> None:\n    print('bright')\n"
    )
    assert "Makes things shine." in medmax(tmp_path, "--help", PYTHONPATH=str(tmp_path)).out
    assert medmax(tmp_path, "shine", "stars", PYTHONPATH=str(tmp_path)).out == "bright\n"
    failed = medmax(tmp_path, "shine", "shoes", "--json", PYTHONPATH=str(tmp_path))
    assert failed.status == 1
    assert failed.document == {"error": {"code": "not_found", "message": "no shoes", "field": "shoes"}}


@pytest.mark.parametrize(
    "command", [("ask", "film.png", "What?"), ("draw", "A film", "-o", "new.png"), ("chat",)]
)
def test_a_server_that_was_asked_for_and_does_not_answer_fails(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "film.png").write_bytes(b"film")
    result = medmax(tmp_path, *command, "--server", NOWHERE, "--json")
    assert result.status == 1
    error = result.document["error"]
    assert (error["code"], error["field"]) == ("unavailable", "--server")
    assert NOWHERE in error["message"]
    assert not (tmp_path / "new.png").exists()


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    for command in (("ask", "film.png", "What?"), ("interactions", "purge")):
        (tmp_path / "film.png").write_bytes(b"film")
        result = medmax(tmp_path, *command, "--json", MEDMAX_RETENTION_DAYS="-1")
        assert result.status == 1
        assert result.document["error"]["field"] == "MEDMAX_RETENTION_DAYS"


class TestInteractions:
    @pytest.fixture
    def stored(self, tmp_path: Path) -> list[str]:
        """Two interactions, of which the first has expired, in the default place below `tmp_path`."""
        store = InteractionStore.open(settings_in(tmp_path))
        long_ago = as_timestamp(datetime.now(UTC) - timedelta(days=31))
        ids = [
            asyncio.run(store.save(interaction(pictures=(b"old",), created_at=long_ago))),
            asyncio.run(store.save(interaction("There is a [bold] nodule.", pictures=(b"new",)))),
        ]
        store.close()
        return ids

    def test_purge_counts_then_deletes(self, tmp_path: Path, stored: list[str]) -> None:
        counted = medmax(tmp_path, "interactions", "purge", "--dry-run", "--json")
        assert counted.document["interactions"] == 1
        assert counted.document["dry_run"] is True
        purged = medmax(tmp_path, "interactions", "purge", "--json")
        assert (purged.status, purged.document["interactions"]) == (0, 1)
        assert "deleted: 0 interactions" in medmax(tmp_path, "interactions", "purge").out

    def test_show_prints_text_pictures_and_caller(self, tmp_path: Path, stored: list[str]) -> None:
        people = medmax(tmp_path, "interactions", "show", stored[1])
        assert people.status == 0
        assert "There is a [bold] nodule." in people.out
        assert "radiology" in people.out
        document = medmax(
            tmp_path, "interactions", "show", stored[1], "--json", "--pictures", "films"
        ).document
        assert document["id"] == stored[1]
        assert document["output"][0]["text"] == "There is a [bold] nodule."
        saved = {(tmp_path / path).read_bytes() for path in document["saved"]}
        assert saved == {PROMPT_PICTURE, b"new"}

    def test_show_of_an_expired_or_senseless_id_fails(self, tmp_path: Path, stored: list[str]) -> None:
        expired = medmax(tmp_path, "interactions", "show", stored[0], "--json")
        assert (expired.status, expired.document["error"]["code"]) == (1, "not_found")
        senseless = medmax(tmp_path, "interactions", "show", "x", "--json")
        assert (senseless.status, senseless.document["error"]["field"]) == (1, "interaction_id")

    def test_a_database_out_of_reach_is_said_without_its_password(self, tmp_path: Path) -> None:
        address = "postgresql://medmax:secret@127.0.0.1:1/medmax"
        result = medmax(tmp_path, "interactions", "purge", MEDMAX_DATABASE_URL=address)
        assert result.status == 1
        assert "out of reach" in result.err
        assert "secret" not in result.err


class TestDoctor:
    @pytest.fixture(autouse=True)
    def _clean(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in os.environ if name.startswith("MEDMAX_")]:
            monkeypatch.delenv(name)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MEDMAX_HTTP_PORT", free_port())
        monkeypatch.setenv("MEDMAX_GRPC_PORT", free_port())

    def checks(self) -> dict[str, Check]:
        checks = {check.name: check for check in run_all()}
        assert all(check.status == "ok" or check.mend for check in checks.values())
        return checks

    def test_it_changes_nothing(self, tmp_path: Path) -> None:
        checks = self.checks()
        assert list(tmp_path.iterdir()) == []
        well = (
            "Python",
            "PyTorch",
            "Ray",
            "configuration",
            "REST port",
            "gRPC port",
            "database",
            "object store",
        )
        assert [checks[name].status for name in well] == ["ok"] * len(well)

    def test_a_taken_port_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.socket() as rest, socket.socket() as grpc:
            for name, taken in (("MEDMAX_HTTP_PORT", rest), ("MEDMAX_GRPC_PORT", grpc)):
                taken.bind(("127.0.0.1", 0))
                taken.listen()
                monkeypatch.setenv(name, str(taken.getsockname()[1]))
            checks = self.checks()
        assert checks["REST port"].status == checks["gRPC port"].status == "fail"
        assert "MEDMAX_HTTP_PORT" in checks["REST port"].mend

    def test_a_checkpoint_is_compared_with_its_provenance(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        directory = tiny_checkpoint(tmp_path)
        monkeypatch.setenv("MEDMAX_CHECKPOINT", str(directory))
        provenance = directory / "provenance.json"
        written = json.loads(provenance.read_text())
        digest = open_checkpoint(directory).digest
        for stated, status in ((digest, "ok"), ("0" * 64, "fail"), (None, "warn")):
            provenance.write_text(json.dumps({**written, "digest": stated}))
            assert self.checks()["checkpoint"].status == status
        (directory / "tokenizer.json").unlink()
        assert self.checks()["checkpoint"].status == "fail"

    def test_a_database_in_use_is_well_and_one_of_the_future_fails(self, tmp_path: Path) -> None:
        store = InteractionStore.open(settings_in(tmp_path))
        checks = self.checks()
        assert checks["database"].status == checks["object store"].status == "ok"
        assert f"schema {newest_revision()}" in checks["database"].detail
        with store.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        store.close()
        assert self.checks()["database"].status == "fail"

    def test_a_database_out_of_reach_fails_without_its_password(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MEDMAX_DATABASE_URL", "postgresql://medmax:secret@127.0.0.1:1/medmax")
        check = self.checks()["database"]
        assert check.status == "fail"
        assert "secret" not in check.detail

    def test_wrong_settings_are_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MEDMAX_API_KEYS", "a b:key")
        keys = self.checks()["configuration"]
        assert keys.status == "fail"
        assert "MEDMAX_API_KEYS" in keys.detail
        monkeypatch.setenv("MEDMAX_THREADS", "many")
        assert self.checks()["configuration"].detail.startswith("MEDMAX_THREADS")

    def test_one_port_for_rest_and_grpc_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MEDMAX_GRPC_PORT", os.environ["MEDMAX_HTTP_PORT"])
        assert self.checks()["configuration"].detail.startswith("MEDMAX_GRPC_PORT: must differ")

    def test_a_misspelt_variable_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.checks()["variables"].status == "ok"
        monkeypatch.setenv("MEDMAX_LLM__MIN_REPLICAS", "1")
        monkeypatch.setenv("MEDMAX_API_KEY", "secret")
        monkeypatch.setenv("MEDMAX_API_KEYZ", "name:secret")
        check = self.checks()["variables"]
        assert (check.status, check.detail) == ("warn", "not read: MEDMAX_API_KEYZ")

    def test_a_data_folder_below_a_file_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("MEDMAX_DATA_DIR", str(tmp_path / "file" / "data"))
        checks = self.checks()
        assert checks["database"].status == checks["object store"].status == "fail"
        assert "MEDMAX_DATA_DIR" in checks["database"].mend

    def test_a_service_elsewhere_that_is_silent_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MEDMAX_LLM_ADDRESS", f"127.0.0.1:{free_port()}")
        check = self.checks()["services elsewhere"]
        assert (check.status, "MEDMAX_LLM_ADDRESS" in check.mend) == ("fail", True)

    def test_people_get_lines_with_advice(self, tmp_path: Path) -> None:
        people = medmax(tmp_path, "doctor", MEDMAX_CHECKPOINT=str(tmp_path / "none"))
        assert people.status == 1
        assert "fail  checkpoint" in people.out
        assert "→ set MEDMAX_CHECKPOINT" in people.out
