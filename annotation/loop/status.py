"""Where the review loop stands: what `medmax review status` and the status page show."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from annotation.agreement.reliability import Reliability
from annotation.assign import Crew
from annotation.core import Decision, Kind
from annotation.loop.cursors import ODDITIES, PROJECTS, RECONCILED
from annotation.loop.steps.judge import standings_of
from annotation.store import ReviewStore, State, Version, What
from annotation.store.figures import WAITING, Throughput
from annotation.store.progress import Step

DAYS = 14


@dataclass(frozen=True)
class Expert:
    """One annotator; `accuracy` and `gold` by kind where gold tasks were done."""

    id: str
    active: bool
    adjudicator: bool
    held: int
    today: int
    done: int
    minutes: float
    accuracy: dict[str, float]
    gold: dict[str, int]
    unreliable: tuple[str, ...]


@dataclass(frozen=True)
class Status:
    """
    Attributes:
        states: items by state and kind.
        oldest: since when the longest waiting item of a state waits.
        agreement: mean share of pairs of experts that agree, by the day of judgement.
        acceptance: decisions by modality.
        projects: what Label Studio's projects are, by kind; empty before the first look.
        reconciled: when all of Label Studio was looked at last.
        calibration: of risks: verdicts, ECE, when.
    """

    made_at: datetime
    states: dict[State, dict[Kind, int]]
    oldest: dict[State, datetime]
    throughput: dict[date, Throughput]
    agreement: dict[date, float]
    acceptance: dict[str, dict[Decision, int]]
    data: list[Version]
    models: list[Version]
    experts: list[Expert]
    steps: dict[str, Step]
    inbox: tuple[int, int]
    projects: dict[str, str]
    oddities: dict[str, int]
    reconciled: datetime | None
    calibration: dict[str, Any] | None
    sizes: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, store: ReviewStore) -> Status:
        """Counts, no item is read."""
        figures, progress = store.figures, store.progress
        looked = progress.cursor(RECONCILED)
        fitted = progress.calibration()
        data = store.versions.all(What.DATA, 20)
        return cls(
            made_at=store.ledger.clock(),
            states=figures.counts(),
            oldest=figures.oldest(),
            throughput=figures.throughput(DAYS),
            agreement=figures.agreement(DAYS),
            acceptance=figures.decisions(),
            data=data,
            models=store.versions.all(What.MODEL, 20),
            experts=_experts(store),
            steps=progress.steps(),
            inbox=figures.inbox(),
            projects=progress.cursor(PROJECTS) or {},
            oddities=progress.cursor(ODDITIES) or {},
            reconciled=None if looked is None else datetime.fromisoformat(looked),
            calibration=None
            if fitted is None
            else {"verdicts": fitted.verdicts, "ece": fitted.ece, "made_at": fitted.made_at.isoformat()},
            sizes={version.id: store.versions.size(version.id) for version in data},
        )

    def waits(self, state: State) -> float | None:
        """Hours for which the state's oldest item waits."""
        since = self.oldest.get(state)
        return None if since is None else (self.made_at - since).total_seconds() / 3600

    @property
    def serving(self) -> Version | None:
        return next((each for each in self.models if each.status.value == "promoted"), None)

    @property
    def warnings(self) -> list[str]:
        """What a person should do something about, a sentence each."""
        found = [
            f"step {name}: {step.failed} items could not be brought on ({step.error})"
            if step.failed
            else f"step {name} failed and is tried again: {step.error}"
            for name, step in sorted(self.steps.items())
            if step.error
        ]
        found += [
            f"the Label Studio project for {kind} is {state}; nothing of it is published until that is mended"
            for kind, state in sorted(self.projects.items())
            if state != "current"
        ]
        if held := sum(self.states.get(State.HELD, {}).values()):
            found.append(f"{held} items are held: look at them with `medmax review held list`")
        if conflicts := sum(self.states.get(State.ADJUDICATION, {}).values()):
            found.append(f"{conflicts} items wait for an adjudicator")
            if not any(each.adjudicator and each.active for each in self.experts):
                found.append("nobody is an adjudicator: name one under `experts` in the settings")
        found += [
            f"expert {each.id} is unreliable at {', '.join(each.unreliable)}; those verdicts do not count"
            for each in self.experts
            if each.unreliable
        ]
        if self.inbox[1]:
            found.append(f"{self.inbox[1]} events of the webhook failed and are tried again")
        return found

    def to_json(self) -> dict[str, Any]:
        def by_day(values: dict[date, Any]) -> dict[str, Any]:
            return {day.isoformat(): value for day, value in values.items()}

        return {
            "made_at": self.made_at.astimezone(UTC).isoformat(),
            "warnings": self.warnings,
            "states": {
                state.value: {kind.value: n for kind, n in kinds.items()}
                for state, kinds in self.states.items()
            },
            "oldest_waiting": {
                state.value: since.astimezone(UTC).isoformat() for state, since in self.oldest.items()
            },
            "throughput": by_day({day: asdict(each) for day, each in self.throughput.items()}),
            "agreement": by_day(self.agreement),
            "acceptance": {
                modality or "unknown": {decision.value: n for decision, n in counts.items()}
                for modality, counts in self.acceptance.items()
            },
            "data_versions": [_version(each) | {"items": self.sizes.get(each.id, 0)} for each in self.data],
            "model_versions": [_version(each) for each in self.models],
            "experts": [asdict(each) for each in self.experts],
            "steps": {
                name: {
                    "running": bool(step.holder) and step.until > self.made_at,
                    "finished_at": step.finished_at.isoformat() if step.finished_at else None,
                    "done": step.done,
                    "failed": step.failed,
                    "error": step.error,
                }
                for name, step in sorted(self.steps.items())
            },
            "inbox": {"waiting": self.inbox[0], "failed": self.inbox[1]},
            "labelstudio": {
                "projects": self.projects,
                "oddities": self.oddities,
                "reconciled": self.reconciled.isoformat() if self.reconciled else None,
            },
            "calibration": self.calibration,
        }


def _version(version: Version) -> dict[str, Any]:
    return {
        "id": version.id,
        "status": version.status.value,
        "parent": version.parent,
        "created_at": version.created_at.isoformat(),
        "decided_at": version.decided_at.isoformat() if version.decided_at else None,
        "why": version.why,
        "scores": version.scores,
        "path": version.path,
    }


def _experts(store: ReviewStore) -> list[Expert]:
    loads = store.figures.workloads()
    # Gold alone: no ordinary item is read.
    standing: Reliability = standings_of(store, recent=0)
    found = []
    for each in Crew(store.ledger).all():
        load = loads.get(each.id)
        kinds = {kind: standing.of(each.id, kind) for kind in Kind}
        seen = {kind: of for kind, of in kinds.items() if of.gold.total}
        found.append(
            Expert(
                each.id,
                each.active,
                each.adjudicator,
                load.held if load else 0,
                load.today if load else 0,
                load.done if load else 0,
                round(load.seconds / 60, 1) if load else 0.0,
                {kind.value: round(of.mean, 3) for kind, of in seen.items()},
                {kind.value: of.gold.total for kind, of in seen.items()},
                tuple(kind.value for kind, of in kinds.items() if of.unreliable),
            )
        )
    return found


__all__ = ["DAYS", "WAITING", "Expert", "Status"]
