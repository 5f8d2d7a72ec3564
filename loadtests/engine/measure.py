"""Rounds of every work, the engines taking turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from loadtests.engine import works
from loadtests.engine.client import NotRun, Worker
from loadtests.engine.figures import meets
from loadtests.engine.jobs import Job, Objective, Options, Outcome
from loadtests.engine.machine import Meter, wait_quiet
from loadtests.engine.models import Model
from loadtests.engine.results import Cell, Results
from loadtests.engine.search import Search
from loadtests.engine.works import GUIDED, ONE, OURS, SERIAL, Work
from services.checkpoint import Checkpoint

WARM_UP_TOKENS = 8
QUIET_CORES = 0.15  # that others may keep busy


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: of every work but mixed; of mixed `mixed_rounds`.
        window_s, trials: arrivals of one mixed trial last so long, and so many rates are tried in a round at most.
        logs: folder for what the workers print.
        patience_s: jobs during which others kept the machine busy are repeated, as long as this is not used up.
    """

    works: Sequence[Work]
    engines: Sequence[str]
    dtype: str
    threads: int
    new_tokens: int
    rounds: int
    mixed_rounds: int
    window_s: float
    trials: int
    logs: Path
    patience_s: float = 60.0
    objective: Objective = field(default_factory=Objective)


Say = Callable[[str], None]
"""Tells whoever watches what goes on."""


def measure(plan: Plan, model: Model, results: Results, versions: dict[str, str], say: Say) -> None:
    """Measure one model into `results`, and the engines' versions into `versions`."""
    checkpoint = model.checkpoint
    rows, tokens = works.rows_and_tokens(plan.works, plan.new_tokens, checkpoint)
    options = Options(str(model.own), str(model.hugging_face), plan.dtype, plan.threads, rows, tokens)
    say(f"{model.name}: loading {', '.join(plan.engines)}")
    with _workers(plan, model.name, options) as (workers, absent):
        versions |= {name: worker.version for name, worker in workers.items()}
        patience_s = plan.patience_s
        for work in plan.works:
            for name in works.engines_for(work.kind, plan.engines):
                results.cell(work, model.name, name).not_run = absent.get(name, "")
            measurement = _Measurement(
                plan, model.name, checkpoint, workers, absent, results, say, patience_s
            )
            if work.kind == "mixed":
                measurement.mixed(work)
            else:
                measurement.rounds(work)
            patience_s = measurement.patience_s


@contextmanager
def _workers(plan: Plan, model: str, options: Options) -> Iterator[tuple[dict[str, Worker], dict[str, str]]]:
    """Workers by name, all loaded at the same time; and why the others are absent."""
    workers: dict[str, Worker] = {}
    absent: dict[str, str] = {}
    try:
        for name in plan.engines:
            try:
                worker = Worker(name, plan.logs / f"{name}-{model}.log")
            except NotRun as why:
                absent[name] = str(why)
                continue
            workers[name] = worker
            worker.load(options)
        for name, worker in list(workers.items()):
            try:
                worker.wait_loaded()
            except NotRun as why:
                absent[name] = str(why)
                workers.pop(name).close()
        yield workers, absent
    finally:
        for worker in workers.values():
            worker.close()


@dataclass
class _Measurement:
    plan: Plan
    model: str
    checkpoint: Checkpoint
    workers: dict[str, Worker]
    absent: dict[str, str]
    results: Results
    say: Say
    patience_s: float

    def cell(self, work: Work, engine: str) -> Cell:
        return self.results.cell(work, self.model, engine)

    def rounds(self, work: Work) -> None:
        """Text on every engine; questions and pictures on ours, together and one at a time; pictures on one peer too."""
        self._run_all(work, -1, WARM_UP_TOKENS)
        for round_ in range(self.plan.rounds):
            self.say(f"{self.model}: {work.title}, round {round_ + 1} of {self.plan.rounds}")
            for engine, outcome in self._run_all(work, round_, self.plan.new_tokens):
                self.cell(work, engine).outcomes[round_] = outcome

    def _run_all(self, work: Work, round_: int, new_tokens: int) -> list[tuple[str, Outcome]]:
        """Who ran, and how; another engine goes first each round. A round below zero warms up."""

        def jobs_of(attempt: int) -> Mapping[str, Job]:
            number = max(round_, 0) + (round_ < 0) * 1_000_000 + attempt * 1_000
            return works.jobs(work, self.checkpoint, new_tokens, number)

        jobs = jobs_of(0)
        able = works.engines_for(work.kind, self.plan.engines)
        if work.kind == "text":
            turns = [(name, name, OURS) for name in able]
        elif round_ < 0:
            turns = [(ONE, name, OURS) for name in able]
        else:
            turns = [(label, label if label == GUIDED else OURS, label) for label in jobs]
            turns = [turn for turn in turns if turn[1] in able]
        shift = max(round_, 0) % len(turns)
        outcomes = []
        for label, name, which in turns[shift:] + turns[:shift]:

            def job_of(attempt: int, which: str = which) -> Job:
                job = jobs_of(attempt)[which]
                return _first(job) if round_ < 0 and work.kind == "pictures" else job

            outcome = self._run(work, label, name, job_of)
            if outcome is not None:
                outcomes.append((label, outcome))
        return outcomes

    def _run(self, work: Work, label: str, name: str, job_of: Callable[[int], Job]) -> Outcome | None:
        """Runs the job, another for each attempt. None where the worker is gone, or fails now."""
        if name not in self.workers:
            self.cell(work, label).not_run = self.absent.get(name, "not asked for")
            return None
        try:
            return self._run_undisturbed(work, label, name, job_of)
        except NotRun as why:
            self.absent[name] = self.cell(work, label).not_run = f"{work.title}: {why}"
            self.workers.pop(name).close()
            return None

    def _run_undisturbed(self, work: Work, label: str, name: str, job_of: Callable[[int], Job]) -> Outcome:
        """Again, where others kept the machine busy, while there is patience; else the cell says so.

        With other prompts each time: those of the last are in the engine's cache.
        """
        attempt = 0
        while True:
            job = job_of(attempt)
            meter = Meter({worker.session for worker in self.workers.values()})
            start = time.monotonic()
            outcome = self.workers[name].run(job)
            others = meter.cores()
            if others <= QUIET_CORES:
                return outcome
            if self.patience_s <= 0:
                if label != ONE:
                    self.cell(work, label).note = f"others kept {others:.1f} cores busy"
                return outcome
            self.patience_s -= time.monotonic() - start + wait_quiet(QUIET_CORES, self.patience_s)
            attempt += 1

    def mixed(self, work: Work) -> None:
        """The highest rate of arrivals that meets the objective, together and one at a time."""
        warm = self._run(work, OURS, OURS, lambda attempt: works.samples_of_each(self.checkpoint))
        if warm is None:
            return
        alone_s = warm.wall_s / len(warm.samples)
        starts = {OURS: 2 / alone_s, SERIAL: 0.5 / alone_s}
        for round_, label in itertools.product(range(self.plan.mixed_rounds), (OURS, SERIAL)):
            search = Search(starts[label], trials=self.plan.trials)
            cell = self.cell(work, label)
            cell.goodput[round_] = 0.0
            in_flight, fresh = (1 if label == SERIAL else 0), itertools.count()
            while not search.done:
                rate = search.rate
                job_of = partial(self._arrivals, rate, round_, fresh, in_flight)
                outcome = self._run(work, label, OURS, job_of)
                if outcome is None:
                    return
                met = meets(outcome, self.plan.objective)
                self.say(f"{self.model}: mixed, {label}, {rate:.2f}/s {'met' if met else 'missed'}")
                if met and rate > search.best:
                    cell.outcomes[round_] = outcome
                    cell.goodput[round_] = len(outcome.samples) / outcome.wall_s
                search.record(met)
            if search.best and not search.bounded:
                cell.note = "the highest rate tried still met"

    def _arrivals(self, rate: float, round_: int, fresh: Iterator[int], in_flight: int, attempt: int) -> Job:
        plan, numbers = self.plan, (round_, next(fresh))
        return works.arrivals(self.checkpoint, rate, plan.window_s, numbers, plan.objective, in_flight)


def _first(job: Job) -> Job:
    return Job(job.requests[:1])
