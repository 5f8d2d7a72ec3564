"""Breaks a real stack while callers ask, and counts answers lost or stored twice: none of those accepted may be.

    python -m loadtests.chaos                                  # every fault, PostgreSQL, some eight minutes
    python -m loadtests.chaos --database sqlite --only disk    # SQLite and pictures on a disk that is full

Faults, one after another: SIGKILL to every process of a kind (each deployment's replicas, Serve's proxy and controller);
SIGSTOP, and SIGCONT after some seconds; the disk of the pictures full (a tmpfs of 16 MiB, which needs root); the
database's connections cut, or stalled (PostgreSQL behind a TCP port of ours). A request is accepted when its caller has
the id of its interaction. Everything is on loopback and ends after --minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from rich.table import Table

from loadtests.chaos.account import balance, read_store
from loadtests.chaos.caller import Caller
from loadtests.chaos.faults import PROCESSES, Database, Fault, FullDisk, Kill, Pause, strike
from loadtests.chaos.wire import Wire
from loadtests.review_database import own_database
from loadtests.scenarios import options
from loadtests.scenarios.asks import MIXES
from loadtests.stack import Served, own_stack
from services import config

HEALED = 3
"""Requests due after a fault that must be answered before the next one."""
MOST = 5000
DISK = "16m"
KINDS = ("database", "disk", "pause", "kill")


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A file system of its own at `folder`; None where none may be mounted."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=700", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def wired_database() -> Iterator[tuple[Wire, str]]:
    """A PostgreSQL of our own behind a wire, and its address without the wire."""
    with own_database() as address:
        wire = Wire(parse_qs(urlsplit(address).query)["unix_sock"][0])
        try:
            yield wire, address
        finally:
            wire.close()


def chosen(
    served: Served, wire: Wire | None, disk: Path | None, only: list[str], kinds: list[str], pause_s: float
) -> list[Fault]:
    """The faults of a run, in order."""
    faults: list[Fault] = []
    if "database" in only and wire is not None:
        faults += [Database(wire, "cut"), Database(wire, "stalled", 20.0)]
    if "disk" in only and disk is not None:
        faults.append(FullDisk(disk))
    if "pause" in only:
        faults += [Pause(served, kind, pause_s) for kind in kinds]
    if "kill" in only:
        faults += [Kill(served, kind) for kind in kinds]
    return faults


def undergo(faults: list[Fault], caller: Caller, limit: float, heal_s: float) -> list[dict[str, Any]]:
    """Every fault in turn, each after the stack has healed from the one before; when each was, and what it took.

    Ends early, with what there is, at Ctrl-C, or where a fault finds nothing to break.
    """
    log: list[dict[str, Any]] = []
    if not _healed(caller, time.monotonic(), limit, heal_s):
        raise RuntimeError("the stack does not answer")
    for fault in faults:
        begun = time.monotonic()
        try:
            strike(fault)
            ended = time.monotonic()
            healed = _healed(caller, ended, limit, heal_s)
        except (KeyboardInterrupt, RuntimeError) as error:
            # What was promised until then is accounted for all the same.
            options.err.print(f"{fault.name}: ended early, {error or type(error).__name__}")
            break
        entry = {"fault": fault.name, "begun_s": begun, "ended_s": ended, "healed_s": healed}
        log.append(entry)
        options.err.print(
            f"{fault.name}: " + (f"healed after {healed - ended:.1f} s" if healed else "NOT HEALED")
        )
        if not healed:
            break
    return log


def _healed(caller: Caller, since: float, limit: float, heal_s: float) -> float | None:
    """When as many requests as it takes, due after `since`, had been answered; None = not in time."""
    limit = min(limit, since + heal_s)
    while caller.answered_since(since) < HEALED:
        if time.monotonic() > limit:
            return None
        time.sleep(0.2)
    return time.monotonic()


def tell(log: list[dict[str, Any]], caller: Caller) -> list[dict[str, Any]]:
    """For each fault: how long it took to heal, and what became of the requests due meanwhile."""
    rows = []
    for entry in log:
        over = entry["healed_s"] or time.monotonic()
        during = [
            call.sample
            for call in caller.calls
            if entry["begun_s"] <= caller.begun + call.sample.due_s <= over
        ]
        rows.append(
            {
                "fault": entry["fault"],
                "lasted_s": round(entry["ended_s"] - entry["begun_s"], 1),
                "healed_after_s": round(over - entry["ended_s"], 1) if entry["healed_s"] else None,
                "due": len(during),
                "answered": sum(sample.answered for sample in during),
                "failed": dict(Counter(sample.code for sample in during if not sample.answered)),
            }
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--kinds", nargs="+", choices=PROCESSES, default=list(PROCESSES), help="of processes")
    parser.add_argument("--database", choices=("postgres", "sqlite"), default="postgres")
    parser.add_argument("--rate", type=options.bounded(0.1, 20), default=2.0, help="requests a second")
    parser.add_argument("--pause", type=options.bounded(0.1, 120), default=6.0, help="seconds of a pause")
    parser.add_argument(
        "--heal", type=options.bounded(1, 3600), default=150.0, help="seconds until all must be well again"
    )
    parser.add_argument(
        "--minutes", type=options.bounded(0.5, 120), default=15.0, help="for all faults together"
    )
    parser.add_argument(
        "--request-timeout", type=options.bounded(1, 120), default=30.0, help="the server's, in s"
    )
    parser.add_argument("--seed", type=options.bounded(0, 2**31, int), default=0)
    parser.add_argument("--out", type=Path, help="write the report as JSON to this file")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    arguments = parser.parse_args()
    report: dict[str, Any] = {"database": arguments.database, "not_tried": []}
    with ExitStack() as block:
        block.enter_context(options.noted(report))
        folder = Path(
            block.enter_context(tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True))
        )
        disk = block.enter_context(small_disk(folder)) if "disk" in arguments.only else None
        if "disk" in arguments.only and disk is None:
            report["not_tried"].append("disk: no file system may be mounted here")
        environment = {
            "MEDMAX_REQUEST_TIMEOUT_S": str(arguments.request_timeout),
            "MEDMAX_OBJECT_STORE": str(folder / "pictures"),
            "MEDMAX_DATABASE_URL": f"sqlite:///{folder / 'store.sqlite3'}",
        }
        wire, direct = None, environment["MEDMAX_DATABASE_URL"]
        if arguments.database == "postgres":
            wire, direct = block.enter_context(wired_database())
            environment["MEDMAX_DATABASE_URL"] = f"postgresql://postgres@127.0.0.1:{wire.port}/postgres"
        elif "database" in arguments.only:
            report["not_tried"].append("database: SQLite has no connection to cut")
        options.err.print("starting the stack …")
        served = block.enter_context(own_stack(**environment))
        caller = Caller(
            served.target,
            dict(MIXES["mixed"]),
            arguments.rate,
            arguments.request_timeout + 15,
            MOST,
            arguments.seed,
        )
        faults = chosen(served, wire, disk, arguments.only, arguments.kinds, arguments.pause)
        with caller.asking():
            limit = time.monotonic() + 60 * arguments.minutes
            log = undergo(faults, caller, limit, arguments.heal)
        settings = config.load(database_url=direct, object_store=environment["MEDMAX_OBJECT_STORE"])
        told = [call.sample.interaction for call in caller.calls if call.sample.interaction]
        account = balance(caller.calls, *asyncio.run(read_store(settings, told)))
    report |= {"faults": tell(log, caller), "calls": len(caller.calls), "account": asdict(account)}
    healed = len(log) == len(faults) and all(entry["healed_s"] for entry in log)
    report["clean"] = account.clean and healed
    table = Table("fault", "due", "answered", "failed", "healed after s", title=_verdict(report))
    for row in report["faults"]:
        failed = ", ".join(f"{count} {code}" for code, count in row["failed"].items())
        table.add_row(row["fault"], str(row["due"]), str(row["answered"]), failed, str(row["healed_after_s"]))
    options.publish(arguments, report, table)
    return 0 if report["clean"] else 1


def _verdict(report: dict[str, Any]) -> str:
    account = report["account"]
    return (
        f"{report['calls']} calls, {account['accepted']} accepted, {len(account['lost'])} of them lost, "
        f"{len(account['doubled'])} stored twice, {len(account['unexplained'])} failures without a reason"
    )


if __name__ == "__main__":
    sys.exit(main())
