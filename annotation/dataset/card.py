"""The data-set card: what a version holds, where it comes from, what it must not be used for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from annotation.dataset.versions import ALL, DIGITS, FILES, file_name

_FACETS = ("kind", "task", "modality", "sent_because", "decision", "severity", "model")
LIMITS = """\
- Made from answers of one model: what it was asked, and where it erred, is not what medicine is like. Strata above show how it leans.
- Experts see what routing sends them. Only judgements with `sent_because: random` are an unbiased sample.
- Regions are boxes; of a brush stroke the box around it. Rows about missing findings exist for findings that are there, none for absent ones.
- Duplicates are found by spelling; two wordings of one question stay. Decontamination finds copies of pictures, not other pictures of the same patient.
- Text was checked for identifiers by rules, which miss some. Treat it as personal data until a person has looked.
- Not for diagnosis or treatment, and not to find out who somebody is."""


class Facts:
    """Counts over the judgements that gave a row."""

    def __init__(self) -> None:
        self._strata: dict[str, Counter[str]] = defaultdict(Counter)
        self._rules: Counter[str] = Counter()
        self._experts: Counter[int] = Counter()
        self._judgements = self._adjudicated = self._compared = 0
        self._agreement = 0.0

    def add(self, facts: dict[str, Any], written: Iterable[tuple[str, str]]) -> None:
        """`written`: (file, rule) of each record."""
        self._judgements += 1
        for facet in _FACETS:
            self._strata[facet][facts[facet]] += 1
        self._experts[facts["experts"]] += 1
        self._adjudicated += facts["adjudicated"]
        if facts["agreement"] is not None:
            self._compared += 1
            self._agreement += facts["agreement"]
        self._rules.update(f"{file}/{rule}" for file, rule in written)

    def to_json(self) -> dict[str, Any]:
        return {
            "judgements": self._judgements,
            "records": dict(sorted(self._rules.items())),
            "strata": {facet: dict(sorted(self._strata[facet].items())) for facet in _FACETS},
            "experts_a_judgement": {str(n): count for n, count in sorted(self._experts.items())},
            "agreement": {
                "judgements": self._compared,
                "mean": round(self._agreement / self._compared, 4) if self._compared else None,
                "adjudicated": self._adjudicated,
            },
        }


def card(manifest: dict[str, Any]) -> str:
    """Markdown with the front matter that the Hugging Face hub and `datasets` read."""
    policy, counts, facts = manifest["policy"], manifest["counts"], manifest["facts"]
    agreement, version = facts["agreement"], manifest["digest"][:DIGITS]
    mean = "" if agreement["mean"] is None else f", {agreement['mean']:.0%} of their pairs agree"
    return "\n".join(
        [
            f"---\n{yaml.safe_dump(_front(manifest), sort_keys=False, allow_unicode=True)}---",
            f"# {policy['name']} {version}\n",
            f"Instruction data from {facts['judgements']} judgements of experts on a biomedical assistant's answers.",
            f"Digest `{manifest['digest']}`, built {manifest['created_at']},"
            f" after {', '.join(parent[:DIGITS] for parent in manifest['parents']) or 'no other version'}.\n",
            _table("records", counts),
            _table("rule", facts["records"]),
            "## Strata\n",
            *(_table(facet.replace("_", " "), facts["strata"][facet]) for facet in _FACETS),
            "## Agreement\n",
            f"{agreement['judgements']} judgements by two or more experts{mean}; {agreement['adjudicated']} adjudicated.\n",
            _table("experts", facts["experts_a_judgement"]),
            "## Sources\n",
            "Interactions with the assistant (`provenance.model_version`), judged in Label Studio. Experts are numbers, never names.",
            f"\nKept for validation: {policy['validation_share']:.1%} of patients (of pictures where no patient is known), by hash.\n",
            "## Left out\n",
            _table("reason", manifest["dropped"]) or "Nothing.\n",
            "`dropped.jsonl` names every one. Checked against: "
            + ("; ".join(map(_source, manifest["evaluation"])) or "no evaluation set")
            + ".\n",
            f"## Licence and consent\n\nLicence: {policy['licence']}. {policy['consent']}\n",
            f"## Limits\n\n{LIMITS}\n",
        ]
    )


def _front(manifest: dict[str, Any]) -> dict[str, Any]:
    configs: dict[str, list[dict[str, str]]] = {file: [] for file in FILES}
    for file, split in ALL:
        name = file_name(file, split)
        if manifest["counts"][name]:
            configs[file].append({"split": split, "path": f"parquet/{Path(name).stem}.parquet"})
    return {
        "license": "other",
        "license_name": manifest["policy"]["licence"],
        "pretty_name": manifest["policy"]["name"],
        "tags": ["medical", "instruction-tuning", "human-feedback"],
        "configs": [
            {"config_name": file, "data_files": files, **({"default": True} if file == "rows" else {})}
            for file, files in configs.items()
            if files
        ],
    }


def _table(head: str, values: dict[str, int]) -> str:
    if not values:
        return ""
    lines = [f"| {_cell(name)} | {count:,} |" for name, count in values.items()]
    return "\n".join([f"| {head} | |", "|---|---:|", *lines, ""])


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _source(source: dict[str, Any]) -> str:
    unreadable = sum(source.get("unreadable", {}).values())
    lost = f", {unreadable} more unreadable" if unreadable else ""
    return f"{_cell(source['name'])} ({source['rows']} rows, {source['pictures']} pictures{lost})"
