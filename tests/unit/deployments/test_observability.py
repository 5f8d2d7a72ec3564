"""docs/observability.md names every metric that there is, as the code has it."""

from __future__ import annotations

import re

from prometheus_client import REGISTRY

from annotation.loop import metrics as review
from services import metrics
from services.config import ROOT

PAGE = ROOT / "docs" / "observability.md"


def rows() -> set[str]:
    """A row of the table for every metric of the services and of the review loop."""
    assert metrics.ENGINE
    found = set()
    for registry in (REGISTRY, review.OWN):
        for collector, names in registry._collector_to_names.items():
            for family in collector.collect():
                if family.name.startswith("medmax_"):
                    assert family.name in names
                    name = family.name + ("_total" if family.type == "counter" else "")
                    labels = ", ".join(f"`{label}`" for label in collector._labelnames)
                    found.add(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    for name, (meaning, labels) in review.GAUGES.items():
        found.add(f"| `{name}` | gauge | {', '.join(f'`{label}`' for label in labels)} | {meaning} |")
    return found


def test_the_page_tells_of_every_metric_and_of_no_other() -> None:
    told = set(re.findall(r"^\| `medmax_.*$", PAGE.read_text(), re.MULTILINE))
    assert told == rows()
