"""What the commands of the load tests have in common on their command lines."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from loadtests.engine.machine import Meter, machine
from loadtests.samples import Objective
from loadtests.stack import Target, grpc_address, http_address, own_stack

LOOK_S = 2.0
err = Console(stderr=True, highlight=False)


def bounded(low: float, high: float, kind: type[float] | type[int] = float) -> Any:
    """An argument's number. Raises: argparse.ArgumentTypeError: none, or outside the limits."""

    def convert(value: str) -> float:
        try:
            number = kind(value)
        except ValueError:
            raise argparse.ArgumentTypeError("must be a number") from None
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"must be {low:g} to {high:g}")
        return number

    return convert


def parser(doc: str | None, http: bool = True) -> argparse.ArgumentParser:
    """A parser with the options of every load test.

    Args:
        http: does the test go over HTTP, too?
    """
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if http:
        made.add_argument("--http", type=http_address, help="HTTP address of a running stack on loopback")
    made.add_argument(
        "--grpc", type=grpc_address, help="its gRPC address, HOST:PORT; default: a stack of our own"
    )
    made.add_argument("--seed", type=bounded(0, 2**31, int), default=0)
    made.add_argument("--timeout", type=bounded(0.1, 600), default=60.0, help="seconds for one request")
    made.add_argument("--out", type=Path, help="write the report as JSON to this file")
    made.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return made


def add_objective(made: argparse.ArgumentParser) -> None:
    """Options of an `Objective`."""
    plain, group = Objective(), made.add_argument_group("objective of an answer")
    group.add_argument(
        "--first", type=bounded(0, 600), default=plain.first_s, help="seconds to the first text"
    )
    group.add_argument("--token", type=bounded(0, 600), default=plain.token_s, help="seconds between tokens")
    group.add_argument("--total", type=bounded(0, 600), default=plain.total_s, help="seconds to the end")
    group.add_argument(
        "--share", type=bounded(0, 1), default=plain.share, help="of answers that must be good"
    )


def objective(arguments: argparse.Namespace) -> Objective:
    return Objective(arguments.first, arguments.token, arguments.total, arguments.share)


@contextmanager
def target(
    made: argparse.ArgumentParser, arguments: argparse.Namespace, **environment: str
) -> Iterator[Target]:
    """The stack that is named, or one of our own for as long as the block."""
    if bool(arguments.http) != bool(arguments.grpc):
        made.error("give --http and --grpc, or neither")
    if arguments.http:
        yield Target(arguments.http, arguments.grpc)
        return
    err.print("starting the stack …")
    with own_stack(**environment) as served:
        yield served.target


@contextmanager
def noted(report: dict[str, Any]) -> Iterator[None]:
    """Adds to `report` what the block ran on, and how many of its cores others kept busy before and after.

    Not meanwhile: Ray does not wait for its processes, so their time cannot be told from that of others.
    """
    report["machine"] = machine(int(os.environ.get("MEDMAX_THREADS", 0)))
    before = _others()
    yield
    report["machine"]["cores_busy_around"] = round((before + _others()) / 2, 2)


def _others() -> float:
    meter = Meter(set())
    time.sleep(LOOK_S)
    return meter.cores()


def publish(arguments: argparse.Namespace, report: dict[str, Any], *tables: Table) -> None:
    """To the file that is named, and to stdout: JSON, or the tables."""
    text = json.dumps(report, indent=2)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n")
    if arguments.json:
        print(text)
        return
    for table in tables:
        Console().print(table)


def figures_table(title: str, summary: dict[str, Any]) -> Table:
    """A summary by kind, times in seconds."""
    table = Table(
        "kind",
        "due",
        "failed",
        "first p50/p90/p99",
        "token p50/p90",
        "total p50/p90/p99",
        "goodput",
        "budget used",
        title=title,
    )

    def cell(found: dict[str, float] | None, *names: str) -> str:
        return " / ".join(f"{found[name]:.3g}" for name in names) if found else "–"

    for name, part in {**summary["kinds"], "all": summary["all"]}.items():
        table.add_row(
            name,
            str(part["due"]),
            str(sum(part["failed"].values())),
            cell(part["first_s"], "p50", "p90", "p99"),
            cell(part["token_s"], "p50", "p90"),
            cell(part["total_s"], "p50", "p90", "p99"),
            f"{part['goodput']:.1%}",
            f"{part['error_budget_used']:.0%}",
        )
    return table
