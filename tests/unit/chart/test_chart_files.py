"""What is written from the chart is in step with it, and documents name things that exist."""

from __future__ import annotations

import copy
import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.support.chart import CHART, ROOT, VALUES, Object, read, rendered

K8S = ROOT / "k8s"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


manifests, documented = script("render_manifests"), script("chart_readme")


def test_the_readme_is_what_the_values_say() -> None:
    assert (CHART / "README.md").read_text() == documented.readme(), "run make manifests"


def test_every_value_is_explained() -> None:
    found = list(documented.rows((CHART / "values.yaml").read_text()))
    assert len(found) > 150
    assert not [name for name, _, meaning in found if not meaning]
    leaves = {name for name, default, _ in found if default}
    assert {"services.llm.gpus", "model.cache.size", "database.bundled.password", "runAsUser"} <= leaves


def test_the_manifests_are_what_the_chart_renders() -> None:
    wanted = manifests.files()
    assert {path.relative_to(K8S) for path in K8S.rglob("*.yaml")} == set(wanted), "run make manifests"
    for path, text in wanted.items():
        assert (K8S / path).read_text() == text, f"{path}: run make manifests"


@pytest.mark.parametrize("name", sorted(set(VALUES) - {"default"}))
def test_an_overlay_makes_its_example_of_the_base(name: str) -> None:
    """Reads the committed files as kustomize does."""
    built = {_key(each): each for each in _load(K8S / "base" / "medmax.yaml")}
    folder = K8S / "overlays" / name
    (kustomization,) = _load(folder / "kustomization.yaml")
    for patch in kustomization["patches"]:
        body = yaml.safe_load(patch["patch"])
        if isinstance(body, dict):
            assert body["$patch"] == "delete"
            del built[_key(body)]
        else:
            target = patch["target"]
            version = "/".join(filter(None, (target.get("group"), target["version"])))
            key = version, target["kind"], target["name"]
            built[key] = _patched(built[key], body)
    for file in kustomization["resources"][1:]:
        built |= {_key(each): each for each in _load(folder / file)}
    assert built == manifests.render(read(name))


def _load(file: Path) -> list[Object]:
    return list(yaml.load_all(file.read_text(), yaml.CSafeLoader))


def _key(each: Object) -> tuple[str, str, str]:
    return each["apiVersion"], each["kind"], each["metadata"]["name"]


def _patched(value: Any, operations: list[Object]) -> Any:
    """RFC 6902, the three operations that overlays use."""
    value = copy.deepcopy(value)
    for each in operations:
        *path, last = [
            part.replace("~1", "/").replace("~0", "~") for part in each["path"].split("/")[1:]
        ] or [""]
        if not last and not path:
            value = each["value"]
            continue
        node = value
        for part in path:
            node = node[int(part)] if isinstance(node, list) else node[part]
        place: Any = int(last) if isinstance(node, list) else last
        if each["op"] == "remove":
            del node[place]
        else:
            assert isinstance(node, list) or (place in node) == (each["op"] == "replace")
            node[place] = each["value"]
    return value


_JSON = st.recursive(
    st.integers(0, 3) | st.text("a~/", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("ab~/", min_size=1, max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(old=_JSON, new=_JSON)
def test_patches_lead_from_any_object_to_any_other(old: Any, new: Any) -> None:
    assert _patched(old, manifests.changes(old, new)) == new


@pytest.mark.parametrize("name", ["rayservice", "raycluster"])
def test_the_examples_are_the_laptops(name: str) -> None:
    (found,) = _load(K8S / "examples" / f"{name}.yaml")
    service = next(each for each in rendered("laptop-kind") if each["kind"] == "RayService")
    spec = service["spec"] if name == "rayservice" else service["spec"]["rayClusterConfig"]
    assert found["spec"] == spec


@pytest.mark.parametrize(
    "file",
    [
        "docs/install.md",
        "docs/operations.md",
        "k8s/README.md",
        *sorted(f"docs/runbooks/{f.name}" for f in (ROOT / "docs/runbooks").glob("*.md")),
    ],
)
def test_values_and_files_that_documents_name_exist(file: str) -> None:
    text = (ROOT / file).read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        if link != "rollout.md":  # comes with `medmax rollout`; this line goes then
            assert ((ROOT / file).parent / link).exists(), link
    known = {name for name, _, _ in documented.rows((CHART / "values.yaml").read_text())}
    settings = yaml.safe_load((CHART / "values.schema.json").read_text())["properties"]["settings"][
        "properties"
    ]
    tops = set(yaml.safe_load((CHART / "values.yaml").read_text()))
    for name in re.findall(r"`([a-zA-Z]+(?:\.[a-zA-Z_]+)+)[:`]", text):
        if name.split(".")[0] in tops and "NAME" not in name:
            assert (
                name in known
                or any(each.startswith(f"{name}.") for each in known)
                or name.removeprefix("settings.") in settings
            ), name
    for example in re.findall(r"values/([a-z0-9-]+)\.yaml", text):
        assert example in VALUES
