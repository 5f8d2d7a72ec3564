"""Routing and status of the review loop over many interactions in PostgreSQL.

    python -m loadtests.review_store [--count N] [--database URL] [--json]

Without an address it starts a PostgreSQL of its own. The database must be empty: it is filled with a fifth of N, then N
interactions (default 100,000), one in a hundred of them flagged. Routing plans and decides over all of them, with the default
policy; then every other interaction becomes an item in some state, and `status` is asked. Times are seconds of one
pass, on a warm cache. `commands` are whole processes: with 0 candidates that is their start (imports, opening the
database), and what they take beyond that is the work. Their peak memory beyond that with 0 is `memory_growth_mb`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from annotation.core import Kind
from annotation.loop.context import Loop
from annotation.loop.settings import ReviewSettings
from annotation.loop.status import Status
from annotation.loop.steps import route
from annotation.routing.risk import Outcome, fit
from annotation.store.progress import Calibration
from loadtests.review_database import fill, make_items, own_database
from services import config

VERDICTS = 1_000  # that the fitted calibration rests on
T = TypeVar("T")

# `medmax`, which tells at its end how much memory it had at most. (Its parent cannot know: Linux counts the parent's own
# memory before the program is loaded.)
_MEDMAX = """
import atexit, re, runpy, sys
def peak():
    found = re.search("VmHWM:\\\\s+(\\\\d+) kB", open("/proc/self/status").read())
    print("peak_kb", found[1], file=sys.stderr)
atexit.register(peak)
sys.argv[0] = "medmax"
runpy.run_module("services.cli", run_name="__main__")
"""


def timed(do: Callable[[], T]) -> tuple[float, T]:
    begin = time.perf_counter()
    found = do()
    return round(time.perf_counter() - begin, 3), found


def command(base: config.Settings, *arguments: str) -> tuple[dict[str, float], dict[str, Any]]:
    """`medmax review ARGUMENTS --json` as a process: its seconds and peak memory, and what it says."""
    own = {"MEDMAX_DATABASE_URL": base.database_url, "MEDMAX_DATA_DIR": str(base.data_dir)}
    line = [sys.executable, "-c", _MEDMAX, "review", *arguments, "--json"]
    took, done = timed(
        lambda: subprocess.run(line, env=os.environ | own, capture_output=True, text=True, check=True)
    )
    peak = int(done.stderr.rpartition("peak_kb ")[2])
    return {"s": took, "peak_mb": round(peak / 1024, 1)}, json.loads(done.stdout)


def calibrate(loop: Loop) -> None:
    """Put a calibration in force, fitted on made-up verdicts that are worse where the score is higher."""
    draws = np.random.default_rng(0).random((VERDICTS, 2)).tolist()
    model = fit(
        Outcome(f"int_{number}", Kind.CHAT, score, score < chance, 1.0)
        for number, (score, chance) in enumerate(draws)
    )
    parameters = model.model_dump(mode="json")
    loop.store.progress.calibrate(Calibration(loop.clock(), "isotonic", parameters, None, VERDICTS))


def measure(base: config.Settings, count: int) -> dict[str, Any]:
    steps: dict[str, dict[str, float]] = {}
    with Loop(ReviewSettings(), base) as loop:
        command(base, "status")  # compiles what Python compiles once
        steps["status, 0 items"], _ = command(base, "status")
        there = 0
        for some in (0, count // 5, count):
            fill(loop.store, some, there)
            there = some
            steps[f"route --dry-run, {some} candidates"], plan = command(base, "route", "--dry-run")
        route.plan(loop)  # compiles the statements
        plan_s, (made, _) = timed(lambda: route.plan(loop))
        looked_at = len(made.sent) + len(made.withheld)
        assert plan["sent"] == len(made.sent)
        calibrate(loop)
        fitted_s, _ = timed(lambda: route.plan(loop))
        run_s, ran = timed(lambda: route.run(loop))
        again_s, _ = timed(lambda: route.run(loop))
        steps[f"route, {count - ran.done} candidates"], _ = command(base, "route")
        make_items(loop.store)
        status_s, status = timed(lambda: Status.of(loop.store))
        items = sum(sum(kinds.values()) for kinds in status.states.values())
        steps[f"status, {items} items"], _ = command(base, "status")
        nothing_s, (made, _) = timed(lambda: route.plan(loop))
    peaks = [one["peak_mb"] for name, one in steps.items() if "--dry-run" in name]
    return {
        "candidates": looked_at,
        "plan_s": plan_s,
        "plan_fitted_s": fitted_s,
        "run_s": run_s,
        "routed": ran.done,
        "run_again_s": again_s,
        "items": items,
        "status_s": status_s,
        "left": len(made.withheld),
        "nothing_left_s": nothing_s,
        "memory_growth_mb": {
            str(count // 5): round(peaks[1] - peaks[0], 1),
            str(count): round(peaks[2] - peaks[0], 1),
        },
        "commands": steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--database", help="postgresql://… of an empty database")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    def run(address: str) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            return measure(config.load(data_dir=Path(folder), database_url=address), arguments.count)

    if arguments.database:
        figures = run(arguments.database)
    else:
        print("starting PostgreSQL …", file=sys.stderr)
        with own_database() as address:
            figures = run(address)
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            for part, of in value.items() if isinstance(value, dict) else [("", value)]:
                print(f"{f'{name} {part}':>48}  {of}")


if __name__ == "__main__":
    main()
