"""Callers that go on asking while things break, at moments of a Poisson process."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from loadtests.chaos.account import Call
from loadtests.clients import CLIENTS, Client, Watch
from loadtests.scenarios.asks import Asker
from loadtests.stack import Target

OPEN_LIMIT = 64
FIRST_SEED = 1_000_000


@dataclass
class Caller:
    """Asks `rate` times a second over REST and gRPC in turn, each request once and with a seed of its own.

    Attributes:
        most: requests in all.
        begun: when it began to ask.
    """

    target: Target
    mix: dict[str, float]
    rate: float
    timeout_s: float
    most: int
    seed: int
    calls: list[Call] = field(default_factory=list)
    begun: float = 0.0
    _ended: threading.Event = field(default_factory=threading.Event)
    _futures: list[Future[None]] = field(default_factory=list)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """While the block runs; afterwards every request has ended."""
        clients = {name: make(self.target, self.timeout_s) for name, make in CLIENTS.items()}
        with ThreadPoolExecutor(OPEN_LIMIT) as pool:
            asking = threading.Thread(target=self._ask_on, args=(pool, clients))
            asking.start()
            try:
                yield
            finally:
                self._ended.set()
                asking.join()
        for client in clients.values():
            client.close()
        for future in self._futures:
            future.result()  # a fault of the caller itself

    def _ask_on(self, pool: ThreadPoolExecutor, clients: dict[str, Client]) -> None:
        asker, moments = Asker(self.mix, self.seed), random.Random(self.seed)
        self.begun = due = time.monotonic()
        for number in range(self.most):
            due += moments.expovariate(self.rate)
            ask = replace(asker.next(), seed=FIRST_SEED + number)
            if self._ended.wait(max(0.0, due - time.monotonic())):
                return
            protocol = list(clients)[number % len(clients)]
            self._futures.append(pool.submit(self._call, ask, protocol, clients[protocol], due))

    def _call(self, ask: Any, protocol: str, client: Client, due: float) -> None:
        watch = Watch(due)
        try:
            client.ask(ask, watch)
        finally:
            self.calls.append(Call(ask.seed, watch.sample(ask, protocol, self.begun)))

    def answered_since(self, moment: float) -> int:
        """Requests due after `moment` (of `time.monotonic`) that were answered."""
        return sum(
            call.sample.answered and self.begun + call.sample.due_s >= moment for call in list(self.calls)
        )
