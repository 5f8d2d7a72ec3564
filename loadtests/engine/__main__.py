"""Our engine against every peer that is installed: the same work, in turns, on the same machine.

    python -m loadtests.engine [--quick] [--json FILE] [--plot FILE.png] [--docs]

Text goes to every engine; questions on a picture, guided pictures and mixed arrivals, which no peer can do, to ours
and to ours serving one request at a time, as the reference does. Guided pictures are also drawn with transformers' decoder,
stepped by hand, one at a time. vLLM needs an environment of its own: make bench-peers.
--quick takes under five minutes on two cores, everything some hours.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from loadtests.engine import docs, machine, report
from loadtests.engine.client import KINDS as ENGINES
from loadtests.engine.client import ROOT
from loadtests.engine.measure import QUIET_CORES, Plan, measure
from loadtests.engine.models import NAMES, SHAPES, prepare
from loadtests.engine.results import Results
from loadtests.engine.works import KINDS, OURS, QUESTIONS, Work

err = Console(stderr=True)
PAGE = ROOT / "docs" / "benchmarks.md"


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("--quick", action="store_true", help="few loads, small models, short answers")
    out.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    out.add_argument("--plot", type=Path, metavar="FILE.png", help="draw them")
    out.add_argument("--docs", action="store_true", help="rewrite the section in docs/benchmarks.md")
    out.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    out.add_argument("--models", nargs="+", choices=NAMES, help="default: all; with --quick all but 110m")
    out.add_argument(
        "--works", nargs="+", choices=KINDS, help="default: all; with --quick some for phantom alone"
    )
    out.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    out.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, help="of every engine; default: all cores"
    )
    out.add_argument("--callers", nargs="+", type=int, help="loads of text; default: 1 8 32 128, or 1 8 32")
    out.add_argument("--rounds", type=int, help="of each work; default: 3, or 2")
    out.add_argument(
        "--patience", type=float, default=30.0, help="seconds for each model to wait for others and repeat"
    )
    out.add_argument("--cache", type=Path, default=ROOT / "var" / "bench-engine", help="for the checkpoints")
    out.add_argument("--checkpoint", type=Path, help="measure this one in place of the models")
    return out


def plan_of(arguments: argparse.Namespace, model: str) -> Plan:
    """What is measured of one model."""
    quick = arguments.quick
    callers = arguments.callers or ((1, 8, 32) if quick else (1, 8, 32, 128))
    loads = {"text": callers, "questions": (QUESTIONS,), "pictures": (1, 8), "mixed": (0,)}
    # A picture of 1024 codes takes too long for the short form.
    default = ("text", "questions") if quick and model in SHAPES else KINDS
    kinds = [kind for kind in arguments.works or default if kind == "text" or OURS in arguments.engines]
    return Plan(
        works=[Work(kind, load) for kind in kinds for load in loads[kind]],
        engines=arguments.engines,
        dtype=arguments.dtype,
        threads=arguments.threads,
        new_tokens=64 if quick else 256,
        rounds=arguments.rounds or (2 if quick else 3),
        mixed_rounds=1 if quick else 3,
        window_s=5.0 if quick else 60.0,
        trials=4 if quick else 8,
        logs=arguments.cache / "logs",
        patience_s=arguments.patience,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    given = parser().parse_args(arguments)
    facts, versions = machine.machine(given.threads), machine.versions()
    results, watch, start = Results(given.dtype), machine.Watch(), time.monotonic()

    def say(what: str) -> None:
        err.print(f"{time.monotonic() - start:5.0f} s  {what}", highlight=False)

    default = ("phantom", "8.8m") if given.quick else NAMES
    names = given.models or default
    if given.checkpoint is not None:
        names = (given.checkpoint.name,)
    for name in names:
        plan = plan_of(given, name)
        measure(plan, prepare(name, given.cache, given.checkpoint), results, versions, say)
        facts["cores_busy_elsewhere"] = watch.cores_busy_elsewhere()
        if given.json is not None:
            told = results.to_json(facts, versions | results.failures(versions))
            given.json.write_text(json.dumps(told, indent=2) + "\n")
    versions |= results.failures(versions)
    if facts["cores_busy_elsewhere"] > QUIET_CORES:
        err.print(
            f"[yellow]other processes kept {facts['cores_busy_elsewhere']} cores busy: measure again[/]"
        )
    title = f"{plan.threads} threads, {plan.dtype}, {plan.new_tokens} new tokens, {facts['processor']}"
    Console(width=None if sys.stdout.isatty() else 200).print(report.table(results, title))
    if given.plot is not None:
        from loadtests.engine.plot import plot

        plot(results, given.plot, title)
    if given.docs:
        command = shlex.join(["python", "-m", "loadtests.engine", *(arguments or sys.argv[1:])])
        docs.rewrite(PAGE, docs.section(results, facts, versions, command))


if __name__ == "__main__":
    main()
