"""Dockerfiles and the compose file: few rules, each with its reason."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import compose_spec
import dockerfile
import pytest
import yaml

from tests.support.chart import CHART, ROOT

FILES = sorted((ROOT / "docker").glob("Dockerfile.*"))
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())


@pytest.fixture(params=FILES, ids=lambda file: file.name)
def commands(request: pytest.FixtureRequest) -> tuple[dockerfile.Command, ...]:
    """A Dockerfile's instructions, read by Docker's own parser."""
    found: tuple[dockerfile.Command, ...] = dockerfile.parse_file(str(request.param))
    return found


def _arguments(commands: tuple[dockerfile.Command, ...]) -> dict[str, str]:
    pairs = (each.value[0].partition("=") for each in commands if each.cmd.upper() == "ARG")
    return {name: value.strip('"') for name, _, value in pairs}


def _stages(commands: tuple[dockerfile.Command, ...]) -> list[list[dockerfile.Command]]:
    stages: list[list[dockerfile.Command]] = []
    for each in commands:
        if each.cmd.upper() == "FROM":
            stages.append([])
        if stages:
            stages[-1].append(each)
    return stages


def test_bases_have_a_version(commands: tuple[dockerfile.Command, ...]) -> None:
    given = _arguments(commands)
    for stage in _stages(commands):
        image = re.sub(r"\$\{(\w+)\}", lambda name: given[name[1]], stage[0].value[0])
        tag = image.rpartition("/")[2].partition(":")[2]
        assert re.search(r"\d+\.\d+", tag), image


def test_what_builds_is_not_shipped(commands: tuple[dockerfile.Command, ...]) -> None:
    build, run = _stages(commands)
    assert build[0].value[1:] == ("AS", "build")
    assert not [each for each in run if each.cmd.upper() == "RUN" and re.search(r"pip|apt", each.value[0])]
    assert [
        each for each in run if each.cmd.upper() == "COPY" and any("--from=build" in f for f in each.flags)
    ]


def test_the_image_runs_as_the_charts_user(commands: tuple[dockerfile.Command, ...]) -> None:
    users = [each.value[0] for each in _stages(commands)[-1] if each.cmd.upper() == "USER"]
    assert users[-1] == f"{VALUES['runAsUser']}:{VALUES['runAsGroup']}"


def test_entry_and_command_are_lists(commands: tuple[dockerfile.Command, ...]) -> None:
    # In the shell's form the shell gets the signals, and the program is killed without a word.
    for each in commands:
        if each.cmd.upper() in {"ENTRYPOINT", "CMD"}:
            assert each.json, each.original


def test_versions_are_pinned_and_nothing_is_added_from_afar(commands: tuple[dockerfile.Command, ...]) -> None:
    for each in commands:
        text = " ".join(each.value)
        assert each.cmd.upper() != "ADD"
        assert "curl" not in text
        assert "--trusted-host" not in text
        for install in re.findall(r"pip install[^&|]*", text) if each.cmd.upper() == "RUN" else ():
            assert "-c constraints.txt" in install or "--no-deps" in install, install


def test_packages_come_before_sources(commands: tuple[dockerfile.Command, ...]) -> None:
    order = [each.original for each in _stages(commands)[0]]
    packages = next(i for i, text in enumerate(order) if "requirements.txt" in text)
    sources = next(i for i, text in enumerate(order) if text.startswith("COPY services"))
    assert packages < sources


def test_what_is_copied_reaches_the_builder(commands: tuple[dockerfile.Command, ...]) -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for each in commands:
        if (each.cmd.upper() == "COPY" and not each.flags) or any("chmod" in flag for flag in each.flags):
            for source in each.value[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{Path(source).parts[0]}" in ignored, source


def test_caches_are_where_a_read_only_root_lets_them_be(commands: tuple[dockerfile.Command, ...]) -> None:
    text = " ".join(" ".join(each.value) for each in _stages(commands)[-1] if each.cmd.upper() == "ENV")
    assert "NUMBA_CACHE_DIR /tmp/numba" in text


def test_rays_version_is_one_everywhere() -> None:
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )["ray"]
    assert VALUES["ray"]["version"] == pinned
    assert f"rayproject/ray:{pinned}-py311" in (ROOT / "docker/Dockerfile.gpu").read_text()


def test_the_requirements_are_the_projects() -> None:
    command = [sys.executable, str(ROOT / "docker" / "requirements.py")]
    found = subprocess.run([*command, "train"], capture_output=True, text=True, check=True).stdout
    assert "torch==2.13.0" in found
    assert "peft" in found
    unknown = subprocess.run([*command, "nonsense"], capture_output=True, text=True, check=False)
    assert unknown.returncode
    assert "nonsense" in unknown.stderr


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return found


def test_the_compose_file_follows_the_specification() -> None:
    options = compose_spec.PyOptions(apply_merge=True)
    # Compose puts variables in before it reads the file.
    text = re.sub(
        r"\$\{\w+:(?:-([^}]*)|\?[^}]*)\}", lambda found: found[1] or "x", (ROOT / "compose.yaml").read_text()
    )
    assert "${" not in text
    options.from_yaml(text).validate()
    with pytest.raises(ValueError, match="memroy"):
        options.from_yaml(text.replace("memory:", "memroy:"))


def test_compose_services_are_locked_down(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["healthcheck"]["test"], name
        assert {"cpus", "memory", "pids"} == set(service["deploy"]["resources"]["limits"]), name
        assert re.search(r":\d+\.\d+", service["image"]), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert str(service.get("user", "1")).split(":")[0] != "0", name


def test_compose_asks_for_secrets_and_holds_none(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for variable, value in service["environment"].items():
            if re.search(r"PASSWORD|KEYS", variable):
                assert str(value).startswith("${"), f"{name}: {variable}"


def test_compose_and_chart_run_the_same_images(compose: dict[str, Any]) -> None:
    charts = {
        f"{each['repository']}:{each['tag']}"
        for name, each in VALUES["image"].items()
        if isinstance(each, dict)
    }
    assert {service["image"] for service in compose["services"].values()} <= charts
