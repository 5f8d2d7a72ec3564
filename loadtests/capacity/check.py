"""Predicts latencies, measures them, and tells by how much the simulator was wrong.

    python -m loadtests.capacity.check --device device.json --rates 0.5,1,2 --seconds 30 --http … --grpc …

The simulator gets the moments and the work of the very requests that were measured, so that what differs is its model
of the machine, not chance; the device file comes from an earlier run. Failed requests are left out on both sides.
"""

from __future__ import annotations

from loadtests.scenarios.drive import run  # first: see there

# isort: split
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from loadtests.capacity.device import read
from loadtests.capacity.prediction import compare, predict
from loadtests.saturation import rates
from loadtests.scenarios import options
from loadtests.scenarios.asks import MIXES
from loadtests.scenarios.plans import constant_rate


def main() -> int:
    parser = options.parser(__doc__)
    parser.add_argument("--device", type=Path, required=True)
    parser.add_argument("--scenario", choices=tuple(MIXES), default="mixed")
    parser.add_argument("--rates", type=rates, default=[0.5, 1, 2])
    parser.add_argument("--seconds", type=options.bounded(1, 600), default=30.0, help="of each rate")
    arguments = parser.parse_args()
    try:
        device = read(arguments.device)
    except ValueError as error:
        parser.error(str(error))
    report: dict[str, Any] = {
        "device": device.device,
        "conditions": device.conditions,
        "rates": [],
        "samples": [],
    }
    with options.noted(report), options.target(parser, arguments) as target:
        for number, rate in enumerate(arguments.rates):
            plan = constant_rate(rate, arguments.seconds)
            try:
                samples = run(
                    target,
                    plan,
                    MIXES[arguments.scenario],
                    ("grpc",),
                    seed=arguments.seed + number,
                    timeout_s=arguments.timeout,
                    warm_up=0 if number else 6,
                )
            except RuntimeError as error:
                options.err.print(str(error))
                return 1
            answered = [sample for sample in samples if sample.answered]
            if answered:
                row = compare(rate, answered, predict(device, answered))
                report["rates"].append({**row, "failed": len(samples) - len(answered)})
                report["samples"].append([asdict(sample) for sample in answered])
            options.err.print(f"{rate:g}/s measured")
    table = Table(
        "per s", "answers", "figure", "measured s", "predicted s", "predicted / measured", title=device.device
    )
    for row in report["rates"]:
        for name in ("first_s", "total_s"):
            for each, found in row[name].items():
                cells = f"{found['measured']:.3f}", f"{found['predicted']:.3f}", f"{found['ratio']:.2f}"
                table.add_row(f"{row['rate']:g}", str(row["answers"]), f"{name[:-2]} {each}", *cells)
    options.publish(arguments, report, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
