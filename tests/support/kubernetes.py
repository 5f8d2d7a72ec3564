"""Strict validation of Kubernetes objects without a cluster."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import kubernetes_validate
import yaml

from tests.support.chart import CRD

SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
VERSIONS = [f"1.{minor}" for minor in range(29, 38)]
DEFINITIONS = "_definitions.json"

Object = dict[str, Any]


@functools.cache
def _definitions(version: str) -> jsonschema_rs.Registry:
    found = json.loads((_folder(version) / DEFINITIONS).read_text())
    return jsonschema_rs.Registry([(f"file:///api/{DEFINITIONS}", found)])


def _folder(version: str) -> Path:
    return SCHEMAS / f"v{version}.0-local-strict"


@functools.cache
def _validator(version: str, kind: str, api_version: str) -> jsonschema_rs.Draft202012Validator | None:
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    file = _folder(version) / f"{kind.lower()}-{group}.json"
    if not file.exists():
        return None
    schema = {**json.loads(file.read_text()), "$id": f"file:///api/{file.name}"}
    return jsonschema_rs.Draft202012Validator(schema, registry=_definitions(version))


def complaints(each: Object, version: str) -> list[str]:
    """What the API server of a version would say of a built-in object; unknown fields count.

    Raises:
        LookupError: the version has no such kind.
    """
    validator = _validator(version, each["kind"], each["apiVersion"])
    if validator is None:
        raise LookupError(f"{each['apiVersion']} {each['kind']} in {version}")
    return _texts(validator, each)


@functools.cache
def _rayservice() -> jsonschema_rs.Draft202012Validator:
    versions = yaml.load(CRD.read_text(), yaml.CSafeLoader)["spec"]["versions"]
    served = next(each for each in versions if each["name"] == "v1")
    schema = _strict(served["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema_rs.Draft202012Validator(schema)


def rayservice_complaints(each: Object) -> list[str]:
    """What KubeRay's own schema says of a RayService; unknown fields count."""
    return _texts(_rayservice(), each)


def _strict(schema: Any) -> Any:
    """An OpenAPI schema in which a field that is not named is an error, as `kubectl` treats it."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _strict(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("anyOf", None)
        made["type"] = ["integer", "string"]
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


def _texts(validator: Any, each: Object) -> list[str]:
    return [
        f"{'.'.join(map(str, error.instance_path))}: {error.message[:300]}"
        for error in validator.iter_errors(each)
    ]
