"""What Prometheus gets of the review loop: counts of the store, read when it asks, and what this controller does.

Labels are states, kinds, steps, codes and versions' ids: nothing of an item, an expert or a patient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client import Counter as Count
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from annotation.loop.result import Result
from annotation.store import ReviewStore, Version, What
from annotation.store.versions import Status

AGREEMENT_DAYS = 14
VERSIONS = 1000
PASS_BUCKETS = (0.01, 0.05, 0.2, 1, 5, 20, 60, 300, 1200, 3600, 14400)

OWN = CollectorRegistry()  # of this controller, from its start
PASSES = Count(
    "medmax_review_passes",
    "Passes of a step; outcome is ok, failed (of some items), error or busy (another controller is at it)",
    ["step", "outcome"],
    registry=OWN,
)
SECONDS = Histogram(
    "medmax_review_pass_seconds", "Duration of a step's passes", ["step"], buckets=PASS_BUCKETS, registry=OWN
)
DONE = Count(
    "medmax_review_step_items",
    "Items that a step brought on, or could not",
    ["step", "outcome"],
    registry=OWN,
)

# Of the store, whichever controller works on it: name → meaning and labels.
GAUGES: dict[str, tuple[str, list[str]]] = {
    "medmax_review_items": ("Items by state and kind", ["state", "kind"]),
    "medmax_review_oldest_seconds": ("For how long the longest waiting item of a state waits", ["state"]),
    "medmax_review_inbox_events": (
        "Events of the webhook that wait, and those of them that failed",
        ["state"],
    ),
    "medmax_review_decisions": ("Items by what was decided of them last", ["decision"]),
    "medmax_review_agreement": ("Mean agreement of experts on the latest day with judgements", []),
    "medmax_review_calibration_error": ("Expected calibration error of risks, by the fit in force", []),
    "medmax_review_versions": ("Versions of data and models", ["what", "status"]),
    "medmax_review_serving_info": ("1; the model that was promoted last, and its data", ["model", "data"]),
    "medmax_review_step_finished_timestamp_seconds": ("When a step's last pass ended", ["step"]),
    "medmax_review_step_failing": ("1 where a step's last pass failed as a whole or in some items", ["step"]),
    "medmax_review_step_left_behind": ("Items that a step's last pass could not bring on", ["step"]),
}


def note(step: str, seconds: float, result: Result | None) -> None:
    """Counts one pass; None = another controller has the step."""
    if result is None:
        PASSES.labels(step, "busy").inc()
        return
    failed = sum(result.failed.values())
    outcome = "error" if result.said.get("error") else "failed" if failed else "ok"
    PASSES.labels(step, outcome).inc()
    SECONDS.labels(step).observe(seconds)
    DONE.labels(step, "done").inc(result.done)
    DONE.labels(step, "failed").inc(failed)


def page(store: ReviewStore) -> bytes:
    """The scrape page. Blocks. Raises: Unavailable where the database is out of reach."""
    found = CollectorRegistry()
    # Read before anything is written, so that a database out of reach is an error and no half a page.
    families = list(_Counts(store).collect())
    found.register(_Given(families))
    return generate_latest(OWN) + generate_latest(found)


@dataclass(frozen=True, eq=False)
class _Given(Collector):
    families: list[GaugeMetricFamily]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield from self.families


@dataclass(frozen=True)
class _Counts:
    store: ReviewStore

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """No item is read."""
        figures, progress = self.store.figures, self.store.progress
        yield _gauge(
            "medmax_review_items",
            {(state, kind): n for state, kinds in figures.counts().items() for kind, n in kinds.items()},
        )
        now = self.store.ledger.clock()
        oldest = {(state,): (now - since).total_seconds() for state, since in figures.oldest().items()}
        yield _gauge("medmax_review_oldest_seconds", oldest)
        waiting, failed = figures.inbox()
        yield _gauge("medmax_review_inbox_events", {("waiting",): waiting, ("failed",): failed})
        decided = Counter[str]()
        for counts in figures.decisions().values():
            decided.update({decision.value: n for decision, n in counts.items()})
        yield _gauge("medmax_review_decisions", {(decision,): n for decision, n in decided.items()})
        agreement = figures.agreement(AGREEMENT_DAYS)
        yield _gauge("medmax_review_agreement", {(): agreement[max(agreement)]} if agreement else {})
        fitted = progress.calibration()
        error = fitted.ece if fitted is not None else None
        yield _gauge("medmax_review_calibration_error", {} if error is None else {(): error})
        versions = [version for what in What for version in self.store.versions.all(what, VERSIONS)]
        yield _gauge("medmax_review_versions", Counter((each.what, each.status) for each in versions))
        yield _gauge("medmax_review_serving_info", {_serving(each): 1 for each in versions if _serves(each)})
        steps = progress.steps().values()
        yield _gauge(
            "medmax_review_step_finished_timestamp_seconds",
            {(step.name,): step.finished_at.timestamp() for step in steps if step.finished_at},
        )
        yield _gauge("medmax_review_step_failing", {(step.name,): bool(step.error) for step in steps})
        yield _gauge("medmax_review_step_left_behind", {(step.name,): step.failed for step in steps})


def _serves(version: Version) -> bool:
    return version.what is What.MODEL and version.status is Status.PROMOTED


def _serving(version: Version) -> tuple[str, str]:
    return version.id, version.parent or ""


def _gauge(name: str, values: Mapping[Any, float]) -> GaugeMetricFamily:
    """Args: values: by tuples of the labels' values."""
    meaning, labels = GAUGES[name]
    family = GaugeMetricFamily(name, meaning, labels=labels)
    for label_values, value in values.items():
        family.add_metric([str(each) for each in label_values], float(value))
    return family
