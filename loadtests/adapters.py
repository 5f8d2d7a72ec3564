"""What adapters add to a step: pictures without guidance, all rows the base's, under one adapter, and under several.

    python -m loadtests.adapters [--checkpoint DIR] [--rank 16] [--adapters 4] [--json]

The adapters are random; what they cost does not depend on what they hold.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from services.checkpoint import Checkpoint, open_checkpoint
from services.checkpoint.adapter import TARGETS
from services.config import SHIPPED_MODEL, Settings
from services.llm.engine import Engine
from services.llm.request import GenerationRequest, OutputMode, SamplingRequest
from training.lora.adapter import write_adapter
from training.lora.recipe import Recipe

ROWS, ROUNDS = (1, 8, 32), 3
SAMPLING = SamplingRequest(image_temperature=0, guidance_text=1, guidance_image=1)


def random_adapter(folder: Path, base: Checkpoint, rank: int, seed: int) -> Path:
    """An adapter of every projection, in the folder `folder`."""
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in base.config.shapes().items():
        if name.split(".")[-2] in TARGETS:
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            tensors[f"{stem}.lora_A.weight"] = torch.randn(rank, shape[1], generator=random) * 0.01
            tensors[f"{stem}.lora_B.weight"] = torch.randn(shape[0], rank, generator=random) * 0.01
    write_adapter(folder, Recipe(rank=rank), tensors, {"base": {"digest": base.digest}}, {})
    return folder


def step_ms(engine: Engine, base: Checkpoint, rows: int, adapters: Sequence[str]) -> float:
    """Milliseconds of a step in which `rows` pictures get a code each, under `adapters` in turn."""
    prompt = [base.vocabulary.bos, base.vocabulary.end_of_turn]
    asked = [
        GenerationRequest(prompt, OutputMode.IMAGE, sampling=SAMPLING, adapter=adapters[row % len(adapters)])
        for row in range(rows)
    ]
    before, start = engine.stats().steps, time.perf_counter()
    engine.generate_batch(asked)
    return 1000 * (time.perf_counter() - start) / (engine.stats().steps - before)


def measure(checkpoint: Path, rank: int, count: int, threads: int) -> list[dict[str, Any]]:
    """Medians, the three kinds in turn in each round."""
    base = open_checkpoint(checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        names = [f"a{number}" for number in range(count)]
        folders = {
            name: random_adapter(Path(folder, name), base, rank, seed) for seed, name in enumerate(names)
        }
        engine = Engine(base, Settings(threads=threads, adapters=folders))
    kinds = {
        "base": [""],
        "one adapter": names[:1],
        f"{count} adapters": names,
        "base and one": ["", names[0]],
    }
    found = []
    try:
        for rows in ROWS:
            step_ms(engine, base, rows, names)  # warm up
            rounds = [
                {kind: step_ms(engine, base, rows, which) for kind, which in kinds.items()}
                for _ in range(ROUNDS)
            ]
            for kind in kinds:
                times = [one[kind] for one in rounds]
                ratios = [one[kind] / one["base"] for one in rounds]
                found.append(
                    {
                        "rows": rows,
                        "kind": kind,
                        "step_ms": round(statistics.median(times), 3),
                        "ratio": round(statistics.median(ratios), 2),
                    }
                )
    finally:
        engine.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED_MODEL)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--adapters", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.checkpoint, options.rank, options.adapters, options.threads)
    if options.json:
        print(json.dumps(found))
        return
    for entry in found:
        print(
            f"{entry['rows']:>3} rows  {entry['kind']:<14} {entry['step_ms']:>8.3f} ms  {entry['ratio']:.2f}x"
        )


if __name__ == "__main__":
    main()
