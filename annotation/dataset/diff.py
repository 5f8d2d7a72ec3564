"""What differs between two versions, by interaction."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge
from itertools import groupby
from typing import Any

from annotation.dataset.versions import ALL, Version, file_name

Records = tuple[tuple[str, dict[str, Any]], ...]
"""(name of the file, record without the version's name)."""


@dataclass(frozen=True)
class Change:
    """One interaction. `what`: added, removed or changed; `before`, `after`: the records that only one side has."""

    interaction: str
    what: str
    before: Records
    after: Records

    def to_json(self) -> dict[str, Any]:
        sides = {"before": self.before, "after": self.after}
        shown = {side: [{"file": f, "record": r} for f, r in records] for side, records in sides.items()}
        return {"interaction": self.interaction, "change": self.what, **shown}


def diff(a: Version, b: Version) -> Iterator[Change]:
    """From `a` to `b`, in order of the interaction. One interaction at a time is in memory."""
    both = merge(
        ((interaction, 0, records) for interaction, records in _interactions(a)),
        ((interaction, 1, records) for interaction, records in _interactions(b)),
        key=lambda entry: entry[:2],
    )
    for interaction, sides in groupby(both, key=lambda entry: entry[0]):
        found = {side: records for _, side, records in sides}
        before, after = found.get(0, ()), found.get(1, ())
        only_before = tuple(entry for entry in before if entry not in after)
        only_after = tuple(entry for entry in after if entry not in before)
        if only_before or only_after:
            what = "added" if not before else "removed" if not after else "changed"
            yield Change(interaction, what, only_before, only_after)


def text(changes: Iterator[Change]) -> Iterator[str]:
    """As lines: `+` and `-` before each record, `~` before an interaction that changed."""
    signs = {"added": "+", "removed": "-", "changed": "~"}
    for change in changes:
        yield f"{signs[change.what]} {change.interaction}"
        for sign, records in (("-", change.before), ("+", change.after)):
            for file, record in records:
                shown = {
                    name: value for name, value in record.items() if name not in ("provenance", "tokens")
                }
                yield f"    {sign} {file} {json.dumps(shown, ensure_ascii=False)}"


def _interactions(version: Version) -> Iterator[tuple[str, Records]]:
    streams = [_of_file(version, file, split) for file, split in ALL]
    entries = merge(*streams, key=lambda entry: entry[0])
    for interaction, group in groupby(entries, key=lambda entry: entry[0]):
        yield interaction, tuple(entry[1:] for entry in group)


def _of_file(version: Version, file: str, split: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    name = file_name(file, split)
    for record in version.records(file, split):
        record["provenance"]["dataset_version"] = None
        yield record["provenance"]["interaction"], name, record
