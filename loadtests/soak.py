"""A steady load for a long time: memory of every process, drift of latencies, errors.

    python -m loadtests.soak --minutes 60 --rate 1

Runs a stack of its own on loopback. Memory is each kind's resident memory, in MiB; its growth is the slope of a line
over the second half, in which caches are warm. Drift is the median latency of the last tenth over that of the first.
"""

from __future__ import annotations

from loadtests.scenarios.drive import run  # first: see there

# isort: split
import argparse
import sys
import time
from pathlib import Path
from typing import Any

import gevent
from rich.table import Table

from loadtests.clients import CLIENTS
from loadtests.drift import Reading, drift, growth, memory
from loadtests.samples import summary
from loadtests.scenarios import options
from loadtests.scenarios.asks import MIXES
from loadtests.scenarios.plans import constant_rate
from loadtests.stack import Served, own_stack


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=options.bounded(0.1, 480), default=30.0)
    parser.add_argument("--rate", type=options.bounded(0.01, 1000), default=1.0, help="requests a second")
    parser.add_argument("--scenario", choices=tuple(MIXES), default="mixed")
    parser.add_argument(
        "--every", type=options.bounded(0.5, 600), default=5.0, help="seconds between readings"
    )
    parser.add_argument(
        "--timeout", type=options.bounded(0.1, 600), default=60.0, help="seconds for one request"
    )
    parser.add_argument("--seed", type=options.bounded(0, 2**31, int), default=0)
    parser.add_argument("--out", type=Path, help="write the report as JSON to this file")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options.add_objective(parser)
    arguments = parser.parse_args()
    plan = constant_rate(arguments.rate, 60 * arguments.minutes)
    report: dict[str, Any] = {"scenario": arguments.scenario, "rate": arguments.rate}
    readings: list[Reading] = []

    def read(served: Served) -> None:
        begun = time.monotonic()
        while True:
            readings.append((time.monotonic() - begun, memory(served)))
            gevent.sleep(arguments.every)

    with options.noted(report):
        options.err.print("starting the stack …")
        with own_stack() as served:
            reader = gevent.spawn(read, served)
            try:
                samples = run(
                    served.target,
                    plan,
                    MIXES[arguments.scenario],
                    tuple(CLIENTS),
                    seed=arguments.seed,
                    timeout_s=arguments.timeout,
                )
            except RuntimeError as error:
                options.err.print(str(error))
                return 1
            finally:
                reader.kill()
    report |= summary(samples, options.objective(arguments), plan.seconds)
    report["latency_drift"] = drift(samples, plan.seconds)
    kinds = sorted({kind for _, found in readings for kind in found})
    report["memory_mib"] = {
        kind: {
            "first": round(held[0], 1),
            "last": round(held[-1], 1),
            "most": round(max(held), 1),
            "growth_per_hour": growth(readings, kind),
        }
        for kind in kinds
        if (held := [found[kind] for _, found in readings if kind in found])
    }
    table = Table("process", "first MiB", "last MiB", "most MiB", "growth MiB/h", title="memory")
    for kind, found in report["memory_mib"].items():
        slope = found["growth_per_hour"]
        cells = f"{found['first']:.0f}", f"{found['last']:.0f}", f"{found['most']:.0f}"
        table.add_row(kind, *cells, "–" if slope is None else f"{slope:+.0f}")
    shown = report["latency_drift"]
    name = f"{arguments.minutes:g} minutes; latency drift {'–' if shown is None else f'{shown:.2f}'}"
    options.publish(arguments, report, options.figures_table(name, report), table)
    return 0 if not report["all"]["failed"] else 1


if __name__ == "__main__":
    sys.exit(main())
