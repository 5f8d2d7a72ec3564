"""Locust users that ask at random moments and never wait for an answer.

A Locust user waits for its answer before it asks again, so a slow server is asked less, and its worst moments are
measured least (coordinated omission). Here a user is a *Poisson source*: it asks at moments drawn beforehand, each
request in a greenlet of its own, and a request's latency counts from its moment. n sources of rate r are one source of
rate n·r, so Locust's number of users is the arrival rate, and its shapes work as usual.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gevent
from gevent.pool import Pool
from locust import LoadTestShape, User, constant, task

from loadtests.clients import LATE, Client, Watch
from loadtests.samples import OPEN_LIMIT, SHED, Sample
from loadtests.scenarios.asks import Ask
from loadtests.scenarios.plans import Plan


@dataclass
class Test:
    """What all sources of one run share.

    Attributes:
        rate: requests a second of one source.
        seconds: after which nothing is due any more.
        asks: what is asked, in turn; from the start again where they run out.
        clients: by protocol, used in turn.
        count: requests that may be sent in all.
    """

    rate: float
    seconds: float
    asks: Sequence[Ask]
    clients: dict[str, Client]
    count: int
    seed: int = 0
    samples: list[Sample] = field(default_factory=list)
    start: float = field(default_factory=time.monotonic)
    pool: Pool = field(default_factory=Pool)
    on_sample: Callable[[Sample], None] = lambda sample: None
    _number: Any = field(default_factory=itertools.count)
    _sources: Any = field(default_factory=itertools.count)
    _open: dict[int, tuple[Ask, str, Watch]] = field(default_factory=dict)

    __test__ = False

    def randomness(self) -> random.Random:
        """Of one more source."""
        return random.Random(f"{self.seed} {next(self._sources)}")

    def send(self, due: float) -> None:
        """One request, in a greenlet of its own; none when the time or the number is used up."""
        if due - self.start >= self.seconds or (number := next(self._number)) >= self.count:
            return
        ask = self.asks[number % len(self.asks)]
        protocol = list(self.clients)[number % len(self.clients)]
        if len(self.pool) >= OPEN_LIMIT:
            self._note(Watch(due, code=SHED).sample(ask, protocol, self.start))
            return
        self.pool.spawn(self._ask, number, ask, protocol, due)

    def _ask(self, number: int, ask: Ask, protocol: str, due: float) -> None:
        watch = Watch(due)
        self._open[number] = (ask, protocol, watch)
        self.clients[protocol].ask(ask, watch)
        if self._open.pop(number, None):
            self._note(watch.sample(ask, protocol, self.start))

    def finish(self, patience_s: float) -> None:
        """Waits for what is open; what is not answered then has failed."""
        self.pool.join(timeout=patience_s)
        while self._open:
            _, (ask, protocol, watch) = self._open.popitem()
            watch.code = LATE
            self._note(watch.sample(ask, protocol, self.start))
        self.pool.kill(block=False)

    def _note(self, sample: Sample) -> None:
        self.samples.append(sample)
        self.on_sample(sample)


class Source(User):  # type: ignore[misc]
    """A Poisson source. `environment.test` is the `Test` it belongs to."""

    abstract = True
    wait_time = constant(0)
    test: Test

    def on_start(self) -> None:
        self._random, self._due = self.test.randomness(), time.monotonic()

    @task
    def arrive(self) -> None:
        """Waits for the next moment and asks; a moment that has passed already is asked about at once."""
        self._due += self._random.expovariate(self.test.rate)
        gevent.sleep(max(0.0, self._due - time.monotonic()))
        self.test.send(self._due)


def shape(plan: Plan) -> LoadTestShape:
    """Locust's shape of a plan."""

    class Planned(LoadTestShape):  # type: ignore[misc]
        def tick(self) -> tuple[int, float] | None:
            sources = plan.sources(self.get_run_time())
            return None if sources is None else (sources, 100.0)

    return Planned()
