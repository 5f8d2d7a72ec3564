"""Recall and precision of de-identification on planted identifiers, by category.

    python scripts/deid_score.py                 both halves of the templates, 500 cases
    python scripts/deid_score.py --half held_out --json

`removed`: the identifier is gone. `held`: it is still there, and its item is held. `leaked`: it would have been sent.
Recall is removed / planted. Precision is the share of what the rules found that overlaps something planted.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.deid_score import BANKS, Score, score  # the banks are test data


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--half", choices=["both", *BANKS], default="both", help="of the templates and values"
    )
    parser.add_argument("--cases", type=int, default=250, help="a half")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pictures", action=argparse.BooleanOptionalAction, default=True, help="with OCR")
    parser.add_argument(
        "--show", action="store_true", help="print what leaked and false alarms: all of it is made up"
    )
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    total = Score()
    start = time.monotonic()
    for name in BANKS if chosen.half == "both" else [chosen.half]:
        score(BANKS[name], chosen.seed, chosen.cases, total, pictures=chosen.pictures)
    if chosen.json:
        print(json.dumps(total.record() | {"seconds": round(time.monotonic() - start, 1)}))
        return 0
    _print(total)
    if chosen.show:
        print(*(f"leaked   {line}" for line in total.leaks), sep="\n")
        print(*(f"alarm    {line}" for line in total.alarms), sep="\n")
        print(*(f"held     {line}" for line in total.held_reasons), sep="\n")
    return 0


def _print(total: Score) -> None:
    table = Table("category", *(["planted", "removed", "held", "leaked", "recall", "found", "precision"]))
    for row in total.rows():
        cells = [row["category"], *(str(row[k]) for k in ("planted", "removed", "held", "leaked"))]
        table.add_row(*cells, _share(row["recall"]), str(row["found"]), _share(row["precision"]))
    Console().print(table)
    for name, value in total.record()["clean"].items():
        print(f"{name}: {value}")


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(main())
