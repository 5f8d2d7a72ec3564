"""How many replicas of the language model, and GPUs, so many radiologists need at an objective.

    python -m loadtests.capacity --device h100.json --radiologists 40 --per-hour 6 --first 2 --total 20 --share 0.99

Simulates the busiest hour with one replica, two, and so on, until enough answers are good with each of three random
seeds. The device file comes from `python -m loadtests.capacity.calibrate` on the machine in question: without one of a
GPU there is no answer about GPUs. On a device whose services share its cores, whole machines are counted, among
which callers are spread at random.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from loadtests.capacity.device import Device, read
from loadtests.capacity.simulator import Replicas, Simulation, poisson
from loadtests.samples import Objective, Sample, goodput, spread
from loadtests.scenarios import options
from loadtests.scenarios.asks import MIXES

SEEDS = 3
MOST_REQUESTS = 50_000


def simulate(
    device: Device, mix: dict[str, float], number: int, rate: float, seconds: float, seed: int
) -> tuple[list[Sample], float]:
    """Answers of `number` replicas (machines, where services share their cores), and how busy the engines were."""
    if device.cores is not None:
        simulation = Simulation(device, Replicas())
        samples = simulation.run(poisson(device, mix, rate / number, seconds, seed))
    else:
        # One tokenizer and one decoder a replica, so that these are not what lacks.
        plan = Replicas(llm=number, tokenizer=number, decoder=number)
        simulation = Simulation(device, plan)
        samples = simulation.run(poisson(device, mix, rate, seconds, seed))
    return samples, simulation.llm_utilisation


def enough(
    device: Device,
    mix: dict[str, float],
    rate: float,
    objective: Objective,
    seconds: float,
    most: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Figures for one replica, two, …, the last of which is enough unless it is `most`."""
    tried: list[dict[str, Any]] = []
    for number in range(1, most + 1):
        runs = [simulate(device, mix, number, rate, seconds, seed + each) for each in range(SEEDS)]
        samples = [sample for run, _ in runs for sample in run]
        good = min(goodput(run, objective) for run, _ in runs)
        tried.append(
            {
                "replicas": number,
                "gpus": number * device.gpus,
                "goodput": round(good, 4),
                "first_s": spread(sample.first_s for sample in samples),
                "total_s": spread(sample.total_s for sample in samples),
                "engine_busy": round(sum(busy for _, busy in runs) / SEEDS, 3),
                "enough": good >= objective.share,
            }
        )
        if tried[-1]["enough"]:
            break
    return tried


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", type=Path, required=True, help="device file of the machine in question")
    parser.add_argument("--radiologists", type=options.bounded(1, 100_000, int), required=True)
    parser.add_argument(
        "--per-hour", type=options.bounded(0.01, 1000), default=6.0, help="questions of one, at the peak"
    )
    parser.add_argument("--scenario", choices=tuple(MIXES), default="mixed")
    parser.add_argument("--minutes", type=options.bounded(1, 240), default=60.0, help="simulated")
    parser.add_argument("--most", type=options.bounded(1, 256, int), default=32, help="replicas to try")
    parser.add_argument("--seed", type=options.bounded(0, 2**31, int), default=0)
    parser.add_argument("--out", type=Path, help="write the report as JSON to this file")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options.add_objective(parser)
    arguments = parser.parse_args()
    rate = arguments.radiologists * arguments.per_hour / 3600
    if rate * arguments.minutes * 60 > MOST_REQUESTS:
        parser.error(f"at most {MOST_REQUESTS:,} requests are simulated; lower --minutes")
    try:
        device = read(arguments.device)
        poisson(device, MIXES[arguments.scenario], 0.0, 1.0, 0)
    except ValueError as error:
        parser.error(str(error))
    objective = options.objective(arguments)
    tried = enough(
        device,
        dict(MIXES[arguments.scenario]),
        rate,
        objective,
        60 * arguments.minutes,
        arguments.most,
        arguments.seed,
    )
    unit = "machines" if device.cores else "replicas"
    answer = tried[-1] if tried[-1]["enough"] else None
    report = {
        "device": device.device,
        "conditions": device.conditions,
        "rate_per_s": round(rate, 4),
        "objective": objective.__dict__,
        "unit": unit,
        "answer": answer,
        "tried": tried,
    }
    said = (
        f"{answer['replicas']} {unit}, {answer['gpus']} GPUs"
        if answer
        else f"not with {arguments.most} {unit}"
    )
    table = Table(
        unit,
        "GPUs",
        "goodput",
        "first p50/p90",
        "total p50/p90",
        "engine busy",
        title=f"{said} ({device.device})",
    )
    for row in tried:
        first, total = row["first_s"] or {}, row["total_s"] or {}
        table.add_row(
            str(row["replicas"]),
            str(row["gpus"]),
            f"{row['goodput']:.2%}",
            " / ".join(f"{value:.3g}" for value in list(first.values())[:2]),
            " / ".join(f"{value:.3g}" for value in list(total.values())[:2]),
            f"{row['engine_busy']:.0%}",
        )
    options.publish(arguments, report, table)
    return 0 if answer else 1


if __name__ == "__main__":
    sys.exit(main())
