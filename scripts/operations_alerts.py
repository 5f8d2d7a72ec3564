"""Write the table of alerts in docs/operations.md from the chart's rules and their runbooks.

python scripts/operations_alerts.py [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path

import helm_python
import yaml

ROOT = Path(__file__).resolve().parent.parent
PAGE, RUNBOOKS = ROOT / "docs" / "operations.md", ROOT / "docs" / "runbooks"
BEGIN, END = "<!-- alerts: written by scripts/operations_alerts.py -->\n", "<!-- end of alerts -->\n"
VALUES = {
    "monitoring": {"kind": "PodMonitor", "rules": {"enabled": True}},
    "review": {"enabled": True},
    "labelStudio": {"enabled": True, "existingSecret": "some", "database": {"existingSecret": "some"}},
}


def means(alert: str) -> str:
    """The runbook's paragraph on what the alert means."""
    text = (RUNBOOKS / f"{alert}.md").read_text()
    return " ".join(text.partition("## Means\n")[2].partition("\n## ")[0].split())


def table() -> str:
    rows = ["| alert | severity | after | means |", "|---|---|---|---|"]
    texts = helm_python.Chart.load(str(ROOT / "helm" / "medmax")).render(
        VALUES, name="medmax", namespace="medmax"
    )
    for path, text in sorted(texts.items()):
        for each in yaml.safe_load_all(text) if path.endswith("rules.yaml") else ():
            for rule in (rule for group in each["spec"]["groups"] for rule in group["rules"]):
                name = rule["alert"]
                after = {"0m": "at once"}.get(rule["for"], rule["for"])
                cells = (f"[{name}](runbooks/{name}.md)", rule["labels"]["severity"], after, means(name))
                rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def page() -> str:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


def main() -> int:
    wanted = page()
    if "--check" in sys.argv[1:]:
        if PAGE.read_text() != wanted:
            print("docs/operations.md does not list the chart's alerts; run make manifests", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
