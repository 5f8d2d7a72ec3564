"""Measured requests in simulated time, and how far the two are apart."""

from __future__ import annotations

from typing import Any

from loadtests.capacity.device import Device, Work
from loadtests.capacity.simulator import Replicas, Simulation
from loadtests.samples import Sample, spread


def predict(device: Device, measured: list[Sample]) -> list[Sample]:
    """The same requests in simulated time."""
    arrivals = sorted(
        ((sample.due_s, Work.of(sample)) for sample in measured),
        key=lambda arrival: arrival[0],
    )
    return Simulation(device, Replicas()).run(arrivals)


def compare(rate: float, measured: list[Sample], predicted: list[Sample]) -> dict[str, Any]:
    """p50 and p90 of both, and predicted over measured; of the first token over the answers that have text.

    A drawing's first part is its end: with one request in ten a drawing, a ninetieth percentile over all would be now the
    one kind and now the other.
    """
    row: dict[str, Any] = {"rate": rate, "answers": len(measured)}
    for name in ("first_s", "total_s"):
        real, model = (
            spread(
                getattr(sample, name) for sample in samples if name == "total_s" or sample.kind != "drawing"
            )
            or {}
            for samples in (measured, predicted)
        )
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
