"""Runs one plan against a stack with Locust, headless."""

from __future__ import annotations

# Locust makes sockets and threads cooperative when it is imported, which must come before those who use them.
import locust  # noqa: F401

# isort: split
import math
import time
from collections.abc import Mapping

import grpc.experimental.gevent
from locust.env import Environment

from loadtests.clients import CLIENTS
from loadtests.samples import Sample
from loadtests.scenarios.asks import Asker
from loadtests.scenarios.plans import Plan
from loadtests.scenarios.sources import Source, Test, shape
from loadtests.stack import Target

MAX_COUNT = 200_000
PREPARED = 400
WARM_UP = 6
_prepared = False


def run(
    target: Target,
    plan: Plan,
    mix: Mapping[str, float],
    protocols: tuple[str, ...] = ("rest", "grpc"),
    *,
    seed: int = 0,
    count: int = MAX_COUNT,
    timeout_s: float = 60.0,
    warm_up: int = WARM_UP,
) -> list[Sample]:
    """The samples of one test, in the order in which they ended; returns when every request has ended.

    Args:
        count: requests at most.
        timeout_s: for one request.
        warm_up: requests before the test, one after another, that are not counted.

    Raises:
        RuntimeError: the stack answers none of the requests of the warm-up.
    """
    cooperate()
    expected = math.ceil(min(plan.expected * 1.5 + 10, count, PREPARED))
    asker = Asker(mix, seed)
    asks = [asker.next() for _ in range(expected)]
    clients = {name: CLIENTS[name](target, timeout_s) for name in protocols}
    try:
        if warm_up:
            before = Asker(mix, seed + 1)
            _warm_up(Test(1.0, math.inf, [before.next() for _ in range(warm_up)], clients, warm_up))
        test = Test(plan.rate, plan.seconds, asks, clients, count, seed)
        _locust(test, plan)
        # What is still open ends by its own time limit.
        test.finish(timeout_s + 5)
        return test.samples
    finally:
        for client in clients.values():
            client.close()


def cooperate() -> None:
    """Lets gRPC calls of this process's greenlets wait for one another."""
    global _prepared
    if not _prepared:
        grpc.experimental.gevent.init_gevent()
        _prepared = True


def _warm_up(test: Test) -> None:
    for _ in test.asks:
        test.send(time.monotonic())
        test.pool.join()
    if not any(sample.answered for sample in test.samples):
        raise RuntimeError(f"the stack does not answer: {test.samples[-1].code}")


def _locust(test: Test, plan: Plan) -> None:
    source = type("PlannedSource", (Source,), {"test": test, "abstract": False})
    environment = Environment(user_classes=[source], shape_class=shape(plan), catch_exceptions=False)
    runner = environment.create_local_runner()

    def tell(sample: Sample) -> None:
        environment.events.request.fire(
            request_type=sample.protocol,
            name=sample.kind,
            response_time=sample.total_s * 1000,
            response_length=0,
            context={},
            exception=None if sample.answered else RuntimeError(sample.code),
        )

    test.on_sample, test.start = tell, time.monotonic()
    runner.start_shape()
    try:
        runner.shape_greenlet.join(timeout=plan.seconds + 30)
    finally:
        runner.quit()
