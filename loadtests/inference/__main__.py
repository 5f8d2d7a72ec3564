"""Load on the Open Inference Protocol's front of tokenizer or decoder, by tritonclient and by NVIDIA's perf_analyzer.

    python -m loadtests.inference --model decoder --rate 20 --seconds 30
    python -m loadtests.inference --model tokenizer --concurrency 8 --batch 4 --grpc 127.0.0.1:9000

--rate asks at random moments and does not wait for answers; --concurrency callers wait for theirs. Without an address it
starts a stack of its own, whose tokenizer keeps no picture's codes. perf_analyzer runs afterwards, where there is one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tritonclient.grpc as triton
from rich.table import Table
from tritonclient.utils import InferenceServerException

from loadtests.inference import drive, perf_analyzer
from loadtests.inference.payloads import DISTINCT, MODELS, payloads
from loadtests.scenarios import options
from loadtests.stack import own_stack

MAX_SECONDS = 3600
MAX_COUNT = 200_000


@contextmanager
def _address(arguments: argparse.Namespace) -> Iterator[str]:
    if arguments.grpc:
        yield arguments.grpc
        return
    options.err.print("starting the stack …")
    with own_stack(MEDMAX_TOKENIZER_CACHE_BYTES="0") as served:
        yield served.grpc


def _measure(arguments: argparse.Namespace, address: str, program: perf_analyzer.Found) -> dict[str, Any]:
    model, batch, seconds = arguments.model, arguments.batch, arguments.seconds
    with triton.InferenceServerClient(address) as client:
        given = payloads(client, model, arguments.seed)
    requests = given.requests(batch)
    drive.warm_up(address, model, requests, arguments.timeout)
    limits = {"seconds": seconds, "count": arguments.count, "timeout_s": arguments.timeout}
    options.err.print(f"{model}: tritonclient, at most {seconds:g} s …")
    if arguments.rate is not None:
        samples = drive.at_rate(address, model, requests, rate=arguments.rate, seed=arguments.seed, **limits)
    else:
        samples = drive.at_concurrency(address, model, requests, callers=arguments.concurrency, **limits)
    ours = drive.figures(samples, batch)
    if program.missing:
        options.err.print(f"without perf_analyzer: {program.missing}")
        return {"tritonclient": ours, "perf_analyzer": {"missing": program.missing}}
    # It cannot count its requests, so it gets the time that so many take.
    per_s = arguments.rate or ours["answered_per_s"] or 1.0
    seconds = min(seconds, arguments.count / per_s)
    options.err.print(f"{model}: perf_analyzer {program.version}, {seconds:.3g} s …")
    load = {"rate": arguments.rate, "callers": arguments.concurrency}
    try:
        theirs = perf_analyzer.run(program, address, given, batch=batch, seconds=seconds, **load)
    except RuntimeError as error:
        options.err.print(str(error), markup=False)
        theirs = {"error": str(error)}
    return {"tritonclient": ours, "perf_analyzer": {"version": program.version, **theirs}}


def _table(report: dict[str, Any]) -> Table:
    load = f"{report['rate']:g} a second" if report["rate"] else f"{report['concurrency']} callers"
    title = f"{report['model']}, batches of {report['batch']}, {load}; seconds"
    table = Table("by", "answered", "failed", "requests/s", "pictures/s", "total p50/p90/p99", title=title)
    for name in ("tritonclient", "perf_analyzer"):
        part = report[name]
        if "total_s" not in part:
            table.add_row(name, "–", "–", "–", "–", "not run" if "missing" in part else "failed")
            continue
        total = part["total_s"]
        spread = " / ".join(f"{total[each]:.3g}" for each in ("p50", "p90", "p99")) if total else "–"
        failed = str(sum(part["failed"].values())) if "failed" in part else "–"
        rates = (f"{part[each]:g}" for each in ("answered_per_s", "pictures_per_s"))
        table.add_row(name, str(part["answered"]), failed, *rates, spread)
    return table


def main() -> int:
    parser = options.parser(__doc__, http=False)
    parser.add_argument("--model", choices=MODELS, required=True)
    load = parser.add_mutually_exclusive_group()
    load.add_argument("--rate", type=options.bounded(0.1, 1000), help="requests a second")
    load.add_argument(
        "--concurrency", type=options.bounded(1, 256, int), default=4, help="callers; default: 4"
    )
    parser.add_argument(
        "--batch", type=options.bounded(1, DISTINCT, int), default=1, help="pictures of a request"
    )
    parser.add_argument("--seconds", type=options.bounded(1, MAX_SECONDS), default=30.0)
    parser.add_argument("--count", type=options.bounded(1, MAX_COUNT, int), default=MAX_COUNT)
    parser.add_argument(
        "--perf-analyzer", type=Path, help="the program; default: scripts/setup_triton.sh's, or on PATH"
    )
    arguments = parser.parse_args()
    program = perf_analyzer.find(arguments.perf_analyzer)
    if arguments.perf_analyzer and program.missing:
        parser.error(f"--perf-analyzer: {program.missing}")
    report: dict[str, Any] = {
        "model": arguments.model,
        "batch": arguments.batch,
        "rate": arguments.rate,
        "concurrency": None if arguments.rate else arguments.concurrency,
        "seconds": arguments.seconds,
        "distinct_pictures": DISTINCT,
        "stack": "running" if arguments.grpc else "own",
    }
    with options.noted(report), _address(arguments) as address:
        try:
            report |= _measure(arguments, address, program)
        except (RuntimeError, InferenceServerException) as error:
            options.err.print(str(error), markup=False)
            return 1
    options.publish(arguments, report, _table(report))
    return int("error" in report["perf_analyzer"])


if __name__ == "__main__":
    sys.exit(main())
