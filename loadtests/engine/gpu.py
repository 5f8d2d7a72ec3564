"""A random Chameleon of 7B parameters in bfloat16 on one GPU; `gpu.sh` runs it.

    python -m loadtests.engine.gpu [--json FILE] [--shape 7b|tiny] [--device cuda|cpu]

Writes no checkpoint: weights are made while they are loaded. `tiny` on a CPU only tries the program.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from loadtests.engine.engines.ours import Ours, settings_for
from loadtests.engine.figures import percentile, tokens_per_s
from loadtests.engine.jobs import Job, Options, Outcome
from loadtests.engine.noise import HEAD, Shape, random_checkpoint
from loadtests.engine.works import Prompts
from services.config import Device

SHAPES = {
    "7b": Shape(hidden=4096, inner=11008, layers=32, heads=32, vocabulary=65536),
    "tiny": Shape(hidden=64, inner=96, layers=2, heads=2, vocabulary=512, codes=64, grid=4, context=512),
}
BATCHES, NEW_TOKENS, ROUNDS = (1, 8, 32, 64), 256, 3
DECODE_AIM, GUIDED_AIM = 1.25, 1.15
_COPY_BYTES, _COPIES = 4 << 30, 10


def copy_bandwidth(device: str, size: int) -> float:
    """Bytes that a copy on the device reads and writes in a second: the best of some copies of `size` bytes."""
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def once() -> float:
        _synchronize(device)
        start = time.perf_counter()
        target.copy_(source)
        _synchronize(device)
        return time.perf_counter() - start

    return 2 * size / min(once() for _ in range(_COPIES))


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def measure(shape: Shape, device: str) -> dict[str, Any]:
    """Every figure, times in milliseconds and sizes in bytes."""
    bandwidth = copy_bandwidth(device, _COPY_BYTES if device == "cuda" else 64 << 20)
    checkpoint = random_checkpoint(shape, torch.bfloat16)
    rows = max(BATCHES)
    options = Options("", "", "bfloat16", torch.get_num_threads(), rows, rows * (64 + NEW_TOKENS))
    engine = Ours(checkpoint, settings_for(checkpoint, options, Device(device)))
    # A token reads every weight but the embedding, of which it reads one row.
    read = sum(
        2 * torch.Size(size).numel() for name, size in shape.config.shapes().items() if "embed" not in name
    )
    read_ms = read / bandwidth * 1000

    def runs(make: Any) -> list[Outcome]:
        engine.run(make(0))
        return [engine.run(make(round_)) for round_ in range(1, ROUNDS + 1)]

    def text(round_: int, callers: int) -> Job:
        prompts = Prompts(checkpoint, (round_, callers))
        return Job([prompts.text(NEW_TOKENS) for _ in range(callers)])

    def picture(round_: int, guidance: float) -> Job:
        return Job([replace(Prompts(checkpoint, (round_, 0)).picture(), guidance=guidance)])

    rates: dict[int, float] = {}
    step_ms = 0.0
    for callers in BATCHES:
        outcomes = runs(lambda round_, callers=callers: text(round_, callers))
        rates[callers] = statistics.median(map(tokens_per_s, outcomes))
        if callers == 1:
            gaps = [gap for outcome in outcomes for sample in outcome.samples for gap in sample.gaps_ms]
            step_ms = percentile(gaps, 0.5) or 0.0
    guided, unguided = (
        statistics.median(outcome.wall_s for outcome in runs(lambda round_, g=g: picture(round_, g))) * 1000
        for g in (3.0, 1.0)
    )
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
    engine.close()
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "torch": torch.__version__,
        "parameters": sum(torch.Size(size).numel() for size in shape.config.shapes().values()),
        "head_bytes": 2 * torch.Size(shape.config.shapes()[HEAD]).numel(),
        "copy_bytes_per_s": bandwidth,
        "weights_read_once_ms": read_ms,
        "decode_step_ms": step_ms,
        "decode_over_read": step_ms / read_ms,
        "decode_aim": DECODE_AIM,
        "guided_picture_ms": guided,
        "unguided_picture_ms": unguided,
        "guided_over_unguided": guided / unguided,
        "guided_aim": GUIDED_AIM,
        "tokens_per_s": rates,
        "peak_memory_bytes": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    given = parser.parse_args()
    text = json.dumps(measure(SHAPES[given.shape], given.device), indent=2)
    print(text)
    if given.json is not None:
        given.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
