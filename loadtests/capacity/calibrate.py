"""Measures a running stack and writes the device file that the simulator reads.

    python -m loadtests.capacity.calibrate --device "2 cores of …" --conditions "quiet" --cores 2 --out device.json
    python -m loadtests.capacity.calibrate --device "one H100" --gpus 1 --http … --grpc … --out h100.json

Callers wait for their answers here, on purpose: n of them drawing keep n pictures' rows in each step, which gives a
step's time over its rows. Single requests of the mixed scenario, one after another with pauses as between those of
people, give all else. The gateway's own account of each answer (`Latency`) tells the services' times apart.
"""

from __future__ import annotations

from loadtests.scenarios.drive import cooperate  # first: see there

# isort: split
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np

from loadtests.capacity.fit import fit
from loadtests.clients import GrpcClient, Watch
from loadtests.samples import Sample
from loadtests.scenarios import options
from loadtests.scenarios.asks import MIXES, Ask, Asker
from loadtests.stack import Target

PAUSES_S = (0.05, 0.5)
"""Without one, whatever serves the next request has not gone to sleep, which makes it faster than it will be."""


def one(client: GrpcClient, ask: Ask) -> Sample:
    """One answer. Raises: RuntimeError: there was none."""
    watch = Watch(time.monotonic())
    client.ask(ask, watch)
    sample = watch.sample(ask, "grpc", watch.due)
    if not sample.answered:
        raise RuntimeError(f"a request failed with {sample.code}; calibrate a stack that answers")
    return sample


def drawings(client: GrpcClient, callers: int, rounds: int, seed: int) -> list[Sample]:
    """`rounds` times `callers` pictures, so many at a time."""
    asker = Asker(MIXES["drawing"], seed)
    with ThreadPoolExecutor(callers) as pool:
        return list(pool.map(lambda ask: one(client, ask), [asker.next() for _ in range(callers * rounds)]))


def measure(
    target: Target, crowd: Sequence[int], rounds: int, singles: int, seed: int, timeout_s: float
) -> Any:
    """Drawings by number of callers, and single requests; a warm-up before."""
    cooperate()
    client = GrpcClient(target, timeout_s)
    try:
        asker = Asker(MIXES["mixed"], seed)
        for kind in ("vqa", "chat", "drawing", "interleaved"):
            one(client, replace(Asker(MIXES[kind], seed + 9).next()))
        crowds = {}
        for callers in crowd:
            crowds[callers] = drawings(client, callers, rounds, seed + callers)
            options.err.print(f"{callers} drawn at a time")
        found = []
        for pause in np.random.default_rng(seed).uniform(*PAUSES_S, singles):
            time.sleep(pause)
            found.append(one(client, asker.next()))
        return crowds, found
    finally:
        client.close()


def main() -> int:
    parser = options.parser(__doc__)
    parser.add_argument("--device", required=True, help="its name")
    parser.add_argument("--conditions", required=True, help="when, and what else ran")
    parser.add_argument("--gpus", type=options.bounded(0, 64, int), default=0, help="of one llm replica")
    parser.add_argument(
        "--cores", type=options.bounded(1, 1024, int), help="that all services share; default: own"
    )
    parser.add_argument(
        "--max-batch", type=options.bounded(1, 4096, int), default=32, help="MEDMAX_MAX_BATCH"
    )
    parser.add_argument(
        "--picture-rows", type=options.bounded(1, 3, int), default=2, help="2 with guidance on text"
    )
    parser.add_argument(
        "--start-seconds", type=options.bounded(0, 7200), default=60.0, help="of a new replica"
    )
    parser.add_argument("--rounds", type=options.bounded(1, 50, int), default=8, help="of each crowd")
    parser.add_argument(
        "--singles", type=options.bounded(8, 2000, int), default=60, help="requests one by one"
    )
    arguments = parser.parse_args()
    if not arguments.out:
        parser.error("--out names the device file")
    rows = arguments.max_batch // arguments.picture_rows
    crowd = [callers for callers in (1, 2, 4, 8) if callers <= rows] or [1]
    note: dict[str, Any] = {}
    with options.noted(note), options.target(parser, arguments) as target:
        try:
            crowds, singles = measure(
                target, crowd, arguments.rounds, arguments.singles, arguments.seed, arguments.timeout
            )
        except RuntimeError as error:
            options.err.print(str(error))
            return 1
    busy = note["machine"]["cores_busy_around"]
    device = fit(
        crowds,
        singles,
        arguments.picture_rows,
        {
            "device": arguments.device,
            "conditions": f"{arguments.conditions}; others kept {busy} cores busy",
            "gpus": arguments.gpus,
            "max_batch": arguments.max_batch,
            "start_s": arguments.start_seconds,
            "cores": arguments.cores,
        },
    )
    device.write(arguments.out)
    shown = {name: value for name, value in device.__dict__.items() if name not in ("works", "overheads")}
    shown["overhead_s"] = median(map(sum, device.overheads))
    shown["crowds_step_s"] = {
        callers: median(sample.server_ms["generate_ms"] for sample in samples) / 1000 / device.picture_tokens
        for callers, samples in crowds.items()
    }
    arguments.out = None  # the device file is there
    from rich.table import Table

    table = Table("measured", "value", title=arguments.device)
    for name, value in shown.items():
        table.add_row(name, f"{value:.6g}" if isinstance(value, float) else str(value))
    options.publish(arguments, shown, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
