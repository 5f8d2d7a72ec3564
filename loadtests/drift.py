"""What changes in a stack over a long time: memory by kind of process, latencies."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np

from loadtests.samples import Sample
from loadtests.stack import Served, title
from services.deployments.processes import descendants

PARTS = 10
Reading = tuple[float, dict[str, float]]
"""Seconds since the start, and MiB by kind of process."""


def kind_of(command: str) -> str:
    """What a process of a stack is, from its command line."""
    if found := re.match(r"ray::ServeReplica:medmax:(\w+)", command):
        return found[1]
    if found := re.match(r"ray::(?:SERVE_)?(ServeController|Proxy|PROXY|CONTROLLER)", command):
        return "controller" if "ontroller" in found[1].lower() else "proxy"
    for part in ("raylet/raylet", "gcs_server"):
        if part in command:
            return part.rpartition("/")[2]
    return "serve" if "services.cli" in command else "other"


def memory(served: Served) -> dict[str, float]:
    """Resident MiB of a stack's processes, by kind."""
    total: dict[str, float] = defaultdict(float)
    for pid in [served.process.pid, *(process.pid for process in descendants(served.process.pid))]:
        try:
            found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        except OSError:  # gone
            continue
        if found:
            total[kind_of(title(pid))] += int(found[1]) / 1024
    return dict(total)


def growth(readings: Sequence[Reading], kind: str) -> float | None:
    """MiB an hour over the second half; None with too few readings."""
    late = [(at, found[kind]) for at, found in readings[len(readings) // 2 :] if kind in found]
    if len(late) < 3:
        return None
    at, held = np.array(late).T
    return float(np.polyfit(at / 3600, held, 1)[0])


def drift(samples: Sequence[Sample], seconds: float) -> float | None:
    """Median end-to-end latency of the last tenth of the time over that of the first; None without answers in either."""
    parts: list[list[float]] = [[] for _ in range(PARTS)]
    for sample in samples:
        if sample.answered:
            parts[min(PARTS - 1, int(sample.due_s / seconds * PARTS))].append(sample.total_s)
    return median(parts[-1]) / median(parts[0]) if parts[0] and parts[-1] else None
