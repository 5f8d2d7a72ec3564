"""Raises the load on `medmax serve`'s own stack and watches Serve start and stop replicas.

    python -m loadtests.autoscaling --plot docs/images/autoscaling.png

Three parts: calm, then `--rate` requests a second until tokenizer, llm and decoder each run `--most` replicas or
`--busy` seconds are over, then none until each is back at one. Delays are short, so that it fits in minutes; replicas
take a fraction of a CPU in Ray's books, so that several fit on a small machine. That shows the scaling, not a gain
in speed: replicas that share cores answer no more than one.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from loadtests.scenarios import options
from loadtests.scenarios.asks import MIXES
from loadtests.stack import OWN, ROOT
from services import config

SERVICES = ("tokenizer", "llm", "decoder")
CALM_RATE = 0.3
POLL_S = 1.0
# As a table in docs/load-tests.md says.
SCALES = {
    "tokenizer": {"target_ongoing_requests": 0.5},
    "llm": {"target_ongoing_requests": 2},
    "decoder": {"target_ongoing_requests": 0.3},
}
COMMON = {"num_cpus": 0.1, "upscale_delay_s": 2, "downscale_delay_s": 10}


@dataclass
class Watched:
    """What Serve said once a second.

    Attributes:
        moments: seconds since the start, requests due a second, and by service: replicas that run, and those that
            start or stop.
    """

    begun: float = field(default_factory=time.monotonic)
    moments: list[dict[str, Any]] = field(default_factory=list)

    def look(self, rate: float) -> dict[str, int]:
        """Replicas that run, by service."""
        from ray import serve

        from services.app import APPLICATION

        deployments = serve.status().applications[APPLICATION].deployments
        running, moving = {}, {}
        for name in SERVICES:
            states = {
                str(getattr(state, "value", state)): count
                for state, count in deployments[name].replica_states.items()
            }
            running[name] = states.get("RUNNING", 0)
            moving[name] = sum(states.values()) - running[name]
        at = round(time.monotonic() - self.begun, 1)
        self.moments.append({"at_s": at, "rate": rate, "running": running, "moving": moving})
        return running

    def until(self, rate: float, limit_s: float, wanted: Callable[[dict[str, int]], bool]) -> bool:
        """Looks until the replicas are as wanted, for `limit_s` at most; whether they came to be so."""
        limit = time.monotonic() + limit_s
        while time.monotonic() < limit:
            if wanted(self.look(rate)):
                return True
            time.sleep(POLL_S)
        return False


def load(stack: Any, scenario: str, rate: float, seconds: float, seed: int) -> subprocess.Popen[bytes]:
    """Asks in a process of its own; Locust and Ray do not share one."""
    command = [sys.executable, "-m", "loadtests.scenarios", scenario, "--json"]
    command += ["--rate", str(rate), "--seconds", str(seconds), "--seed", str(seed)]
    command += ["--http", stack.http_url, "--grpc", stack.grpc_address]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def plot(path: Path, report: dict[str, Any]) -> None:
    """Load above, replicas of each service below."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    moments = report["moments"]
    at = [moment["at_s"] for moment in moments]
    figure, axes = pyplot.subplots(
        4, 1, sharex=True, figsize=(8, 7), layout="constrained", height_ratios=[1, 1, 1, 1]
    )
    axes[0].step(at, [moment["rate"] for moment in moments], where="post", color="black")
    axes[0].set_ylabel("requests\ndue per s")
    axes[0].set_title(
        f"{report['machine']['cores']} shared cores, of which others kept "
        f"{report['machine']['cores_busy_elsewhere']} busy"
    )
    for axis, name in zip(axes[1:], SERVICES, strict=True):
        running = [moment["running"][name] for moment in moments]
        total = [moment["running"][name] + moment["moving"][name] for moment in moments]
        axis.fill_between(at, running, step="post", alpha=0.7, label="running")
        axis.fill_between(
            at, running, total, step="post", alpha=0.3, color="grey", label="starting or stopping"
        )
        axis.set_ylabel(f"{name}\nreplicas")
        axis.set_ylim(0, report["most"] + 1)
        axis.set_yticks(range(report["most"] + 2))
    axes[1].legend(loc="upper left", ncols=2)
    axes[-1].set_xlabel("seconds")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rate", type=options.bounded(0.1, 100), default=6.0, help="requests a second when busy"
    )
    parser.add_argument("--most", type=options.bounded(2, 8, int), default=2, help="replicas of each service")
    parser.add_argument(
        "--calm", type=options.bounded(1, 600), default=15.0, help="seconds of the first part"
    )
    parser.add_argument(
        "--busy", type=options.bounded(5, 1800), default=240.0, help="seconds of the second, at most"
    )
    parser.add_argument(
        "--down", type=options.bounded(5, 1800), default=180.0, help="seconds of the third, at most"
    )
    parser.add_argument("--scenario", choices=tuple(MIXES), default="mixed")
    parser.add_argument("--seed", type=options.bounded(0, 2**31, int), default=0)
    parser.add_argument("--plot", type=Path, help="draw it into this PNG file")
    parser.add_argument("--out", type=Path, help="write the report as JSON to this file")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    arguments = parser.parse_args()
    scales = {name: {**COMMON, **SCALES[name], "max_replicas": arguments.most} for name in SERVICES}
    report: dict[str, Any] = {"most": arguments.most, "rate": arguments.rate, "scales": scales}
    os.environ |= OWN
    with (
        options.noted(report),
        tempfile.TemporaryDirectory(prefix="load-", ignore_cleanup_errors=True) as folder,
    ):
        settings = config.load(http_port=0, grpc_port=0, data_dir=Path(folder), **scales)
        from services.deployments.stack import Stack

        with Stack(settings) as stack:
            for part in stack.start():
                options.err.print(f"{part} is up")
            watched = Watched()
            report["went_up"] = report["came_down"] = False
            calm = load(stack, arguments.scenario, CALM_RATE, arguments.calm, arguments.seed)
            watched.until(CALM_RATE, arguments.calm, lambda running: False)
            end(calm)
            if not stack.stopping:
                busy = load(stack, arguments.scenario, arguments.rate, arguments.busy, arguments.seed + 1)
                report["went_up"] = watched.until(
                    arguments.rate,
                    arguments.busy,
                    lambda running: stack.stopping or min(running.values()) >= arguments.most,
                )
                end(busy)
                report["came_down"] = watched.until(
                    0.0, arguments.down, lambda running: stack.stopping or max(running.values()) <= 1
                )
    report["moments"] = watched.moments
    if arguments.plot:
        plot(arguments.plot, report)
    table = Table("service", "least", "most", "at the end", title="replicas that ran")
    for name in SERVICES:
        counts = [moment["running"][name] for moment in watched.moments]
        table.add_row(name, str(min(counts)), str(max(counts)), str(counts[-1]))
    options.publish(arguments, report, table)
    return 0 if report["went_up"] and report["came_down"] else 1


if __name__ == "__main__":
    sys.exit(main())
