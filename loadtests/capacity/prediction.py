"""Measured requests in simulated time, and how far the two are apart."""

from __future__ import annotations

from typing import Any

from loadtests.capacity.device import Device, Work
from loadtests.capacity.simulator import Replicas, Simulation
from loadtests.samples import Sample, spread


def predict(device: Device, measured: list[Sample]) -> list[Sample]:
    """The same requests in simulated time."""
    arrivals = sorted(
        (
            (
                sample.due_s,
                Work(
                    sample.kind,
                    sample.new_films,
                    sample.prompt_tokens,
                    sample.tokens,
                    sample.pictures,
                ),
            )
            for sample in measured
        ),
        key=lambda arrival: arrival[0],
    )
    return Simulation(device, Replicas()).run(arrivals)


def compare(rate: float, measured: list[Sample], predicted: list[Sample]) -> dict[str, Any]:
    """p50 and p90 of both, and predicted over measured."""
    row: dict[str, Any] = {"rate": rate, "answers": len(measured)}
    for name in ("first_s", "total_s"):
        real = spread(getattr(sample, name) for sample in measured) or {}
        model = spread(getattr(sample, name) for sample in predicted) or {}
        row[name] = {
            each: {
                "measured": real[each],
                "predicted": model[each],
                "ratio": round(model[each] / real[each], 2),
            }
            for each in ("p50", "p90")
            if real.get(each)
        }
    return row
