"""Write helm/medmax/README.md from the comments of values.yaml.

python scripts/chart_readme.py [--check]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parent.parent / "helm" / "medmax"
README = CHART / "README.md"


def rows(text: str) -> Iterator[tuple[str, str, str]]:
    """Path, default and comment of every value of a values file.

    A comment holds for the lines below it up to the next one. What stands in one line, or has no comment inside, is one
    row.
    """
    lines = text.splitlines()

    def walk(node: yaml.MappingNode, path: str, inherited: str) -> Iterator[tuple[str, str, str]]:
        before = ""
        for key, value in node.value:
            own = _comment(lines, key.start_mark.line)
            # A comment goes on for neighbours without one.
            before = own or (before if _follows(lines, key.start_mark.line) else "") or inherited
            name = f"{path}{key.value}"
            if isinstance(value, yaml.MappingNode) and not value.flow_style:
                last = value.value[-1][1].start_mark.line
                described = any(line.strip().startswith("#") for line in lines[value.start_mark.line : last])
                if own and described:
                    yield name, "", own
                yield from walk(value, f"{name}.", "" if described else before)
            else:
                yield name, json.dumps(_value(value)), before

    root = yaml.compose(text, yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    yield from walk(root, "", "")


def _value(node: yaml.Node) -> Any:
    return yaml.safe_load(yaml.serialize(node))


def _comment(lines: list[str], line: int) -> str:
    """The comment right above a line."""
    found: list[str] = []
    while line and lines[line - 1].strip().startswith("#"):
        line -= 1
        found.insert(0, lines[line].strip().lstrip("#").strip())
    return " ".join(found)


def _follows(lines: list[str], line: int) -> bool:
    return bool(lines[line - 1].strip())


def readme() -> str:
    """The README as it should be."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    text = (CHART / "values.yaml").read_text()
    examples = []
    for file in sorted((CHART / "values").glob("*.yaml")):
        head = [line.lstrip("# ") for line in file.read_text().splitlines() if line.startswith("#")]
        examples.append(f"| [{file.stem}](values/{file.name}) | {' '.join(_first(file, head))} |")
    table = [
        f"| `{name}` | {f'`{value}`' if value else ''} | {_cell(comment)} |"
        for name, value, comment in rows(text)
    ]
    return "\n".join(
        [
            "<!-- Written by scripts/chart_readme.py from values.yaml; change that instead. -->",
            f"# {chart['name']} {chart['version']}",
            "",
            f"{chart['description']}. Not a medical device. How to install it: [docs/install.md](../../docs/install.md).",
            "",
            f"Kubernetes {chart['kubeVersion']}, KubeRay 1.7. Quantities are Kubernetes', times are seconds.",
            "",
            "## Examples",
            "",
            "| values file | for |",
            "|---|---|",
            *examples,
            "",
            "## Values",
            "",
            "| value | default | meaning |",
            "|---|---|---|",
            *table,
            "",
        ]
    )


def _first(file: Path, comments: list[str]) -> list[str]:
    """The comment at a file's top."""
    count = next(i for i, line in enumerate(file.read_text().splitlines()) if not line.startswith("#"))
    return comments[:count]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    wanted = readme()
    if "--check" in sys.argv[1:]:
        if not README.exists() or README.read_text() != wanted:
            print("helm/medmax/README.md is not what values.yaml says; run make manifests", file=sys.stderr)
            return 1
        return 0
    README.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
