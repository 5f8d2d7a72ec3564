"""Render k8s/ from the chart: a kustomize base, an overlay for each of the chart's examples, and two examples alone.

    python scripts/render_manifests.py [--check]

An overlay holds what its example adds, deletes and changes, as patches of the base; `--check` fails where a file is
not what the chart renders now.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import helm_python
import yaml

ROOT = Path(__file__).resolve().parent.parent
CHART, OUT = ROOT / "helm" / "medmax", ROOT / "k8s"
NAME = NAMESPACE = "medmax"
WRITTEN = "# Written by scripts/render_manifests.py from helm/medmax; change the chart instead.\n"
# Of Helm alone; and a test hook that would run once, at once.
HELM_LABELS = {"app.kubernetes.io/managed-by", "helm.sh/chart"}
BLOCK_AT = 120

Object = dict[str, Any]
Key = tuple[str, str, str]


class Dumper(yaml.SafeDumper):
    """Long texts as blocks, lists indented as Kubernetes' own examples have them, no anchors."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
        return super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Dumper.add_representer(str, _text)


def dump(*objects: Any) -> str:
    """Objects as one YAML stream."""
    return WRITTEN + yaml.dump_all(objects, Dumper=Dumper, sort_keys=False, width=BLOCK_AT)


def render(values: Object) -> dict[Key, Object]:
    """The chart's objects by kind and name, without what belongs to Helm."""
    texts = helm_python.Chart.load(str(CHART)).render(values, name=NAME, namespace=NAMESPACE)
    found: dict[Key, Object] = {}
    for path, text in sorted(texts.items()):
        for each in yaml.load_all(text, yaml.CSafeLoader) if path.endswith(".yaml") else ():
            if not each or "helm.sh/hook" in each["metadata"].get("annotations", {}):
                continue
            metadata = each["metadata"]
            metadata["labels"] = {k: v for k, v in metadata["labels"].items() if k not in HELM_LABELS}
            if metadata.get("annotations", {}).pop("helm.sh/resource-policy", None):
                metadata["annotations"] = metadata["annotations"] or None
                metadata = each["metadata"] = {k: v for k, v in metadata.items() if v is not None}
            found[each["apiVersion"], each["kind"], metadata["name"]] = each
    return dict(sorted(found.items()))


def changes(old: Any, new: Any, path: str = "") -> list[Object]:
    """JSON patch (RFC 6902) that makes `new` of `old`; lists of another length are replaced whole."""
    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        out: list[Object] = []
        for key in [*old, *(key for key in new if key not in old)]:
            place = f"{path}/{str(key).replace('~', '~0').replace('/', '~1')}"
            if key not in new:
                out.append({"op": "remove", "path": place})
            elif key not in old:
                out.append({"op": "add", "path": place, "value": new[key]})
            else:
                out += changes(old[key], new[key], place)
        return out
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            each
            for i, pair in enumerate(zip(old, new, strict=True))
            for each in changes(*pair, f"{path}/{i}")
        ]
    return [{"op": "replace", "path": path, "value": new}]


def overlay(base: dict[Key, Object], wanted: dict[Key, Object]) -> tuple[list[Object], list[Object]]:
    """Objects that an overlay adds, and the `patches` of its kustomization."""
    patches: list[Object] = []
    for key, old in base.items():
        if key not in wanted:
            place = {name: old["metadata"][name] for name in ("name", "namespace") if name in old["metadata"]}
            gone = {"$patch": "delete", "apiVersion": key[0], "kind": key[1], "metadata": place}
            patches.append({"patch": yaml.dump(gone, sort_keys=False)})
        elif operations := changes(old, wanted[key]):
            group, _, version = key[0].rpartition("/")
            target = ({"group": group} if group else {}) | {
                "version": version,
                "kind": key[1],
                "name": key[2],
            }
            text = yaml.dump(operations, Dumper=Dumper, sort_keys=False, width=BLOCK_AT)
            patches.append({"target": target, "patch": text})
    return [each for key, each in wanted.items() if key not in base], patches


def files() -> dict[Path, str]:
    """Path below k8s/ → content."""
    base = render({})
    kinds = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    out = {
        Path("base/medmax.yaml"): dump(*base.values()),
        Path("base/kustomization.yaml"): dump(
            {**kinds, "namespace": NAMESPACE, "resources": ["medmax.yaml"]}
        ),
    }
    for file in sorted((CHART / "values").glob("*.yaml")):
        wanted = render(yaml.safe_load(file.read_text()))
        added, patches = overlay(base, wanted)
        folder = Path("overlays", file.stem)
        resources = ["../../base", *(["added.yaml"] if added else [])]
        out[folder / "kustomization.yaml"] = dump({**kinds, "resources": resources, "patches": patches})
        if added:
            out[folder / "added.yaml"] = dump(*added)
        if file.stem == "laptop-kind":
            service = next(each for key, each in wanted.items() if key[1] == "RayService")
            out[Path("examples/rayservice.yaml")] = dump(service)
            cluster = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": service["metadata"]}
            out[Path("examples/raycluster.yaml")] = dump(
                {**cluster, "spec": service["spec"]["rayClusterConfig"]}
            )
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file differs")
    check = parser.parse_args().check
    wanted = files()
    there = {path.relative_to(OUT) for path in OUT.rglob("*.yaml")}
    wrong = sorted(there - wanted.keys())
    for path, text in wanted.items():
        file = OUT / path
        if not file.exists() or file.read_text() != text:
            wrong.append(path)
            if not check:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
    for path in there - wanted.keys() if not check else ():
        (OUT / path).unlink()
    if wrong and check:
        print(f"not as the chart renders: {', '.join(map(str, wrong))}; run make manifests", file=sys.stderr)
    return 1 if wrong and check else 0


if __name__ == "__main__":
    sys.exit(main())
