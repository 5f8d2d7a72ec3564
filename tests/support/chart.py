"""The chart as Helm renders it, once per values file."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "medmax"
VALUES = {"default": None} | {file.stem: file for file in sorted((CHART / "values").glob("*.yaml"))}
CRD = ROOT.parent / "shared" / "crds" / "rayservices.yaml"

Object = dict[str, Any]


@functools.cache
def chart() -> helm_python.Chart:
    return helm_python.Chart.load(str(CHART))


def read(name: str) -> Object:
    """The values of an example."""
    file = VALUES[name]
    found: Object = yaml.safe_load(file.read_text()) if file else {}
    return found


def render(values: Object, name: str = "medmax") -> list[Object]:
    """Objects of a release in the namespace `medmax`; Helm checks the schema first."""
    texts = chart().render(values, name=name, namespace="medmax")
    manifests = (text for path, text in sorted(texts.items()) if path.endswith(".yaml"))
    return [each for text in manifests for each in yaml.load_all(text, yaml.CSafeLoader) if each]


@functools.cache
def rendered(name: str) -> list[Object]:
    """As `render`, of an example; do not change it."""
    return render(read(name))


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    return [each for each in objects if each["kind"] in kinds]


def title(each: Object) -> str:
    return f"{each['kind']}/{each['metadata']['name']}"


def pod_templates(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Name and template (metadata, spec) of every pod that the objects lead to."""
    for each in objects:
        if each["kind"] == "Pod":
            yield title(each), each
        elif each["kind"] in {"Deployment", "StatefulSet", "Job"}:
            yield title(each), each["spec"]["template"]
        elif each["kind"] == "CronJob":
            yield title(each), each["spec"]["jobTemplate"]["spec"]["template"]
        elif each["kind"] == "RayService":
            cluster = each["spec"]["rayClusterConfig"]
            yield f"{title(each)}/head", cluster["headGroupSpec"]["template"]
            for group in cluster["workerGroupSpecs"]:
                yield f"{title(each)}/{group['groupName']}", group["template"]


def pod_spec(objects: list[Object], kind: str, name: str) -> Object:
    """Specification of the pods of one Deployment or CronJob."""
    (found,) = [each for each in of_kind(objects, kind) if each["metadata"]["name"] == name]
    spec = found["spec"]["jobTemplate"]["spec"] if kind == "CronJob" else found["spec"]
    return spec["template"]["spec"]  # type: ignore[no-any-return]


def containers(template: Object) -> list[Object]:
    spec = template["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def serve_config(objects: list[Object]) -> Object:
    """The Serve config file in the RayService."""
    found: Object = yaml.safe_load(of_kind(objects, "RayService")[0]["spec"]["serveConfigV2"])
    return found


def merge(base: Object, over: Object) -> Object:
    """`base` with the values of `over`, deeply."""
    out = dict(base)
    for key, value in over.items():
        out[key] = (
            merge(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
        )
    return out


def settings_file(objects: list[Object], folder: Path) -> Path:
    """The settings file that the controller's pod finds under MEDMAX_REVIEW_CONFIG."""
    pod = pod_spec(objects, "Deployment", "medmax-review")
    (container,) = pod["containers"]
    (path,) = [Path(each["value"]) for each in container["env"] if each["name"] == "MEDMAX_REVIEW_CONFIG"]
    (mount,) = [each for each in container["volumeMounts"] if Path(each["mountPath"]) == path.parent]
    assert mount["readOnly"] is True
    (volume,) = [each for each in pod["volumes"] if each["name"] == mount["name"]]
    name = volume["configMap"]["name"]
    (config,) = [each for each in of_kind(objects, "ConfigMap") if each["metadata"]["name"] == name]
    file = folder / path.name
    file.write_text(config["data"][path.name])
    return file
