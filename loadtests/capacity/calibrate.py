"""Measures a running stack and writes the device file that the simulator reads.

    python -m loadtests.capacity.calibrate --device "2 cores of …" --conditions "quiet" --cores 2 --out device.json
    python -m loadtests.capacity.calibrate --device "one H100" --gpus 1 --http … --grpc … --out h100.json

Callers wait for their answers here, on purpose: n of them drawing keep n pictures' rows in each step, which gives a
step's time over its rows. Single requests of the mixed scenario, one after another, give all else. The gateway's own
account of each answer (`Latency`) tells the services' times apart.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np

from loadtests.capacity.device import Device, Work
from loadtests.clients import GrpcClient, Watch
from loadtests.engine.figures import percentile
from loadtests.samples import Sample
from loadtests.scenarios import options
from loadtests.scenarios.asks import MIXES, Ask, Asker
from loadtests.stack import Target


def one(client: GrpcClient, ask: Ask) -> Sample:
    """One answer. Raises: RuntimeError: there was none."""
    watch = Watch(time.monotonic())
    client.ask(ask, watch)
    sample = watch.sample(ask.kind, "grpc", watch.due)
    if not sample.answered:
        raise RuntimeError(f"a request failed with {sample.code}; calibrate a stack that answers")
    return sample


def drawings(client: GrpcClient, callers: int, rounds: int, seed: int) -> list[Sample]:
    """`rounds` times `callers` pictures, so many at a time."""
    asker = Asker(MIXES["drawing"], seed)
    with ThreadPoolExecutor(callers) as pool:
        return list(pool.map(lambda ask: one(client, ask), [asker.next() for _ in range(callers * rounds)]))


def line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Base and slope of the best line, neither below 0; a single point is all slope."""
    x, y = np.array(points, dtype=float).T
    if len(set(x)) < 2:
        return 0.0, float(np.mean(y / np.maximum(x, 1e-9)))
    slope, base = np.polyfit(x, y, 1)
    if base < 0:
        return 0.0, float(x @ y / (x @ x))
    return (float(np.mean(y)), 0.0) if slope < 0 else (float(base), float(slope))


def fit(
    crowds: dict[int, list[Sample]], singles: list[Sample], picture_rows: int, known: dict[str, Any]
) -> Device:
    """The device that explains the samples.

    Args:
        crowds: drawings by how many were drawn at a time.
        singles: one request at a time.
        known: the fields that no sample tells.
    """
    steps = []
    for callers, samples in crowds.items():
        tokens = median(sample.image_tokens for sample in samples)
        # The median, since in the first and the last picture of a crowd others are missing.
        steps.append(
            (
                callers * picture_rows,
                median(sample.server_ms["generate_ms"] for sample in samples) / 1000 / tokens,
            )
        )
    base, row = line(steps)
    texts = [sample for sample in singles if not sample.pictures and sample.tokens]
    first = [
        (sample.prompt_tokens, (sample.server_ms["first_token_ms"] - sample.server_ms["tokenize_ms"]) / 1000)
        for sample in texts
    ]
    to_first, prefill = line(first)
    outside = median(
        sample.total_s
        - sum(sample.server_ms[f"{part}_ms"] for part in ("tokenize", "generate", "decode")) / 1000
        for sample in singles
        if not sample.pictures
    )
    films = sorted(sample.server_ms["tokenize_ms"] / 1000 for sample in singles if sample.kind == "vqa")
    decodes = [
        sample.server_ms["decode_ms"] / sample.pictures / 1000 for sample in singles if sample.pictures
    ]
    return Device(
        step_base_s=base,
        step_row_s=row,
        prefill_token_s=prefill,
        # The way from the gateway to the engine and back is in the time to the first token.
        overhead_s=max(0.0, outside) + max(0.0, to_first - base - row),
        # Without the slowest twentieth; known films are among them as among the requests to come.
        tokenize_s=float(
            np.mean([each for each in films if each <= (percentile(films, 0.95) or 0.0)] or [0.0])
        ),
        decode_s=median(decodes) if decodes else 0.0,
        picture_tokens=round(
            median(sample.image_tokens / sample.pictures for samples in crowds.values() for sample in samples)
        ),
        picture_rows=picture_rows,
        works=tuple(
            Work(sample.kind, int(sample.kind == "vqa"), sample.prompt_tokens, sample.tokens, sample.pictures)
            for sample in singles
        ),
        **known,
    )


def measure(
    target: Target, crowd: Sequence[int], rounds: int, singles: int, seed: int, timeout_s: float
) -> Any:
    """Drawings by number of callers, and single requests; a warm-up before."""
    client = GrpcClient(target, timeout_s)
    try:
        asker = Asker(MIXES["mixed"], seed)
        for kind in ("vqa", "chat", "drawing", "interleaved"):
            one(client, replace(Asker(MIXES[kind], seed + 9).next()))
        crowds = {}
        for callers in crowd:
            crowds[callers] = drawings(client, callers, rounds, seed + callers)
            options.err.print(f"{callers} drawn at a time")
        return crowds, [one(client, asker.next()) for _ in range(singles)]
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
    parser.add_argument("--rounds", type=options.bounded(1, 50, int), default=3, help="of each crowd")
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
    shown = {name: value for name, value in device.__dict__.items() if name != "works"}
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
