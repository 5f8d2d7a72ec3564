"""One scenario against a stack on loopback: latencies, goodput under an objective, error budget used.

    python -m loadtests.scenarios vqa --rate 2 --seconds 30
    python -m loadtests.scenarios day --radiologists 20 --compress 1440     # 24 hours in a minute

chat: a question on a report, in a dialogue. vqa: on a film. drawing: a picture from a description. interleaved: text
and a picture. mixed: all of them. day: mixed, over 24 hours with a morning peak. Without addresses it starts a stack of its own. Half
of the requests go over REST, half over gRPC, unless --protocol says otherwise.
"""

from __future__ import annotations

from loadtests.scenarios.drive import MAX_COUNT, run  # first: see there

# isort: split
import sys
from dataclasses import asdict
from typing import Any

from loadtests.clients import CLIENTS
from loadtests.samples import summary
from loadtests.scenarios import options
from loadtests.scenarios.asks import DAY, MIXES
from loadtests.scenarios.plans import constant_rate, day

MAX_SECONDS = 8 * 3600


def main() -> int:
    parser = options.parser(__doc__)
    parser.add_argument("scenario", choices=(*MIXES, DAY))
    parser.add_argument("--protocol", choices=(*CLIENTS, "both"), default="both")
    parser.add_argument(
        "--rate", type=options.bounded(0.01, 1000), default=1.0, help="requests a second, but for day"
    )
    parser.add_argument("--seconds", type=options.bounded(1, MAX_SECONDS), default=30.0, help="but for day")
    parser.add_argument("--count", type=options.bounded(1, MAX_COUNT, int), default=MAX_COUNT)
    parser.add_argument(
        "--radiologists", type=options.bounded(1, 5000, int), default=20, help="at the day's peak"
    )
    parser.add_argument(
        "--per-hour", type=options.bounded(0.01, 1000), default=6.0, help="questions a radiologist and hour"
    )
    parser.add_argument(
        "--compress", type=options.bounded(3, 86400), default=1440.0, help="how much faster the day passes"
    )
    parser.add_argument("--samples", action="store_true", help="put every request into the report")
    options.add_objective(parser)
    arguments = parser.parse_args()
    if arguments.scenario == DAY:
        plan = day(arguments.radiologists, arguments.per_hour, arguments.compress)
    else:
        plan = constant_rate(arguments.rate, arguments.seconds)
    protocols = tuple(CLIENTS) if arguments.protocol == "both" else (arguments.protocol,)
    report: dict[str, Any] = {"scenario": arguments.scenario, "plan": asdict(plan)}
    with options.noted(report), options.target(parser, arguments) as target:
        options.err.print(f"{plan.expected:.0f} requests to expect in {plan.seconds:.0f} s …")
        try:
            samples = run(
                target,
                plan,
                MIXES["mixed" if arguments.scenario == DAY else arguments.scenario],
                protocols,
                seed=arguments.seed,
                count=arguments.count,
                timeout_s=arguments.timeout,
            )
        except RuntimeError as error:
            options.err.print(str(error))
            return 1
    report |= summary(samples, options.objective(arguments), plan.seconds)
    if arguments.samples:
        report["samples"] = [asdict(sample) for sample in samples]
    title = f"{arguments.scenario}, seconds from the moment a request was due"
    options.publish(arguments, report, options.figures_table(title, report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
