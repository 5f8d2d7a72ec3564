"""Rises the arrival rate step by step to find the knee: the last rate at which goodput is at least 95 %.

    python -m loadtests.saturation --scenario mixed --rates 1,2,4,8 --seconds 20 --plot out/knee.png

Each step is a test of its own that begins when the one before is answered. It ends after two bad steps, or the last.
"""

from __future__ import annotations

from loadtests.scenarios.drive import run  # first: see there

# isort: split
import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from loadtests.clients import CLIENTS
from loadtests.samples import Step, goodput, knee, summary
from loadtests.scenarios import options
from loadtests.scenarios.asks import MIXES
from loadtests.scenarios.plans import constant_rate

MAX_STEPS = 20
BAD_STEPS = 2


def rates(value: str) -> list[float]:
    """Rising numbers. Raises: argparse.ArgumentTypeError."""
    convert = options.bounded(0.01, 1000)
    found = [convert(part) for part in value.split(",")]
    if not 1 <= len(found) <= MAX_STEPS or sorted(set(found)) != found:
        raise argparse.ArgumentTypeError(f"must be 1 to {MAX_STEPS} rising numbers")
    return found


def plot(path: Path, report: dict[str, Any]) -> None:
    """Goodput and latency over the rate."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    steps = report["steps"]
    at = [step["rate"] for step in steps]
    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(7, 6), layout="constrained")
    above.plot(at, [100 * step["all"]["goodput"] for step in steps], marker="o")
    above.axhline(100 * report["share"], color="grey", linestyle=":", label=f"{report['share']:.0%}")
    above.set_ylabel("goodput, % of requests due")
    above.set_ylim(0, 105)
    for name in ("p50", "p90", "p99"):
        spread = [(step["all"]["total_s"] or {}).get(name) for step in steps]
        below.plot(at, [float("nan") if each is None else each for each in spread], marker="o", label=name)
    below.set_ylabel("end to end, s")
    below.set_xlabel("requests due per second")
    below.set_yscale("log")
    if report["knee"]:
        for axes in (above, below):
            axes.axvline(report["knee"]["rate"], color="tab:red", linestyle="--", label="knee")
    above.legend(loc="lower left")
    below.legend(loc="upper left")
    above.set_title(
        f"{report['scenario']}: {report['machine']['cores']} cores for load and stack, others kept "
        f"{report['machine']['cores_busy_around']} busy"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = options.parser(__doc__)
    parser.add_argument("--scenario", choices=tuple(MIXES), default="mixed")
    parser.add_argument(
        "--rates", type=rates, default=[1, 2, 4, 6, 8, 12, 16], help="requests a second, rising"
    )
    parser.add_argument("--seconds", type=options.bounded(1, 600), default=20.0, help="of one step")
    parser.add_argument("--goodput", type=options.bounded(0, 1), default=0.95, help="what a good step has")
    parser.add_argument("--plot", type=Path, help="draw it into this PNG file")
    options.add_objective(parser)
    arguments = parser.parse_args()
    objective = options.objective(arguments)
    report: dict[str, Any] = {"scenario": arguments.scenario, "share": arguments.goodput, "steps": []}
    steps: list[Step] = []
    with options.noted(report), options.target(parser, arguments) as target:
        for number, rate in enumerate(arguments.rates):
            plan = constant_rate(rate, arguments.seconds)
            try:
                samples = run(
                    target,
                    plan,
                    MIXES[arguments.scenario],
                    tuple(CLIENTS),
                    seed=arguments.seed + number,
                    timeout_s=arguments.timeout,
                    warm_up=0 if number else 6,
                )
            except RuntimeError as error:
                options.err.print(str(error))
                return 1
            if not samples:  # a low rate and a short time
                continue
            steps.append(Step(rate, goodput(samples, objective)))
            report["steps"].append({"rate": rate, **summary(samples, objective, plan.seconds)})
            options.err.print(f"{rate:g}/s: {steps[-1].goodput:.1%} good of {len(samples)}")
            if len(steps) >= BAD_STEPS and all(
                step.goodput < arguments.goodput for step in steps[-BAD_STEPS:]
            ):
                break
    found = knee(steps, arguments.goodput)
    report["knee"] = asdict(found) if found else None
    if arguments.plot:
        plot(arguments.plot, report)
    where = f"{found.rate:g} requests a second" if found else f"below {arguments.rates[0]:g}"
    table = Table(
        "due per s", "goodput", "good per s", "total p50", "total p90", "total p99", title=f"knee: {where}"
    )
    for step in report["steps"]:
        total = step["all"]["total_s"] or {}
        cells = [f"{total[name]:.3g}" if name in total else "–" for name in ("p50", "p90", "p99")]
        table.add_row(
            f"{step['all']['due_per_s']:.2f}",
            f"{step['all']['goodput']:.1%}",
            f"{step['all']['goodput_per_s']:.2f}",
            *cells,
        )
    options.publish(arguments, report, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
