"""Raises the load on `medmax serve`'s own stack and watches Serve start and stop replicas.

    python -m loadtests.autoscaling --plot docs/images/autoscaling.png

Four parts: calm; questions on films; drawings; calm again until every service is back at one replica, `--down` seconds
at most. Each service must run `--most` replicas once. Targets and delays are low, so that it fits in minutes and a small
model shows it; replicas take a fraction of a CPU in Ray's books, so that several fit on a small machine. That shows the
scaling, not a gain in speed: replicas that share cores answer no more than one.
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
from loadtests.stack import OWN, ROOT
from services import config

SERVICES = ("tokenizer", "llm", "decoder")
CALM_RATE = 0.3
POLL_S = 1.0
SCALES = {
    "tokenizer": {"target_ongoing_requests": 0.2},
    "llm": {"target_ongoing_requests": 1.5},
    "decoder": {"target_ongoing_requests": 0.2},
}
NAMES = {"mixed": "mixed", "vqa": "questions on films", "drawing": "drawings"}
COMMON = {"num_cpus": 0.1, "upscale_delay_s": 2, "downscale_delay_s": 20}


@dataclass
class Watched:
    """What Serve said once a second.

    Attributes:
        moments: seconds since the start, what is asked, requests due a second, and by service: replicas that run, and
            those that start or stop.
    """

    begun: float = field(default_factory=time.monotonic)
    moments: list[dict[str, Any]] = field(default_factory=list)

    def look(self, scenario: str, rate: float) -> dict[str, int]:
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
        self.moments.append(
            {"at_s": at, "scenario": scenario, "rate": rate, "running": running, "moving": moving}
        )
        return running

    def until(
        self, scenario: str, rate: float, limit_s: float, wanted: Callable[[dict[str, int]], bool]
    ) -> bool:
        """Looks until the replicas are as wanted, for `limit_s` at most; whether they came to be so."""
        limit = time.monotonic() + limit_s
        while time.monotonic() < limit:
            if wanted(self.look(scenario, rate)):
                return True
            time.sleep(POLL_S)
        return False

    def most(self, name: str) -> int:
        return max((moment["running"][name] for moment in self.moments), default=0)


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
    axes[0].set_ylim(0, 1.3 * max(moment["rate"] for moment in moments))
    begins = {moment["scenario"]: moment for moment in reversed(moments)}
    for scenario, moment in begins.items():
        axes[0].annotate(
            NAMES[scenario], (moment["at_s"], moment["rate"]), (3, 3), textcoords="offset points"
        )
    axes[0].set_title(
        f"{report['machine']['cores']} cores for load and stack, others kept "
        f"{report['machine']['cores_busy_around']} busy"
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
        "--films", type=options.bounded(0.1, 200), default=30.0, help="questions a second of the second part"
    )
    parser.add_argument(
        "--drawings", type=options.bounded(0.1, 100), default=7.0, help="a second of the third part"
    )
    parser.add_argument("--most", type=options.bounded(2, 8, int), default=2, help="replicas of each service")
    parser.add_argument(
        "--calm", type=options.bounded(1, 600), default=20.0, help="seconds of the first part"
    )
    parser.add_argument(
        "--busy", type=options.bounded(5, 1800), default=60.0, help="seconds of the second and of the third"
    )
    parser.add_argument(
        "--down", type=options.bounded(5, 1800), default=180.0, help="seconds of the fourth, at most"
    )
    parser.add_argument("--seed", type=options.bounded(0, 2**31, int), default=0)
    parser.add_argument("--plot", type=Path, help="draw it into this PNG file")
    parser.add_argument("--out", type=Path, help="write the report as JSON to this file")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    arguments = parser.parse_args()
    scales = {name: {**COMMON, **SCALES[name], "max_replicas": arguments.most} for name in SERVICES}
    report: dict[str, Any] = {"most": arguments.most, "scales": scales}
    stages = (
        ("mixed", CALM_RATE, arguments.calm),
        ("vqa", arguments.films, arguments.busy),
        ("drawing", arguments.drawings, arguments.busy),
    )
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
            report["came_down"] = False
            for number, (scenario, rate, seconds) in enumerate(stages):
                asking = load(stack, scenario, rate, seconds, arguments.seed + number)
                watched.until(scenario, rate, seconds, lambda running: stack.stopping)
                end(asking)
            asking = load(stack, "mixed", CALM_RATE, arguments.down, arguments.seed + len(stages))
            report["came_down"] = watched.until(
                "mixed",
                CALM_RATE,
                arguments.down,
                lambda running: stack.stopping or max(running.values()) <= 1,
            )
            end(asking)
    report["went_up"] = all(watched.most(name) >= arguments.most for name in SERVICES)
    report["moments"] = watched.moments
    if arguments.plot:
        plot(arguments.plot, report)
    table = Table("service", "least", "most", "at the end", title="replicas that ran")
    for name in SERVICES:
        counts = [moment["running"][name] for moment in watched.moments]
        table.add_row(name, str(min(counts)), str(watched.most(name)), str(counts[-1]))
    options.publish(arguments, report, table)
    return 0 if report["went_up"] and report["came_down"] else 1


if __name__ == "__main__":
    sys.exit(main())
