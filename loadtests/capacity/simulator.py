"""The stack in simulated time: gateway, tokenizer, language model with autoscaling, decoder."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy

from loadtests.capacity.cores import Cores
from loadtests.capacity.device import Device, Work
from loadtests.capacity.engine import Engine, Sequence
from loadtests.samples import Sample


@dataclass(frozen=True)
class Replicas:
    """How many of each service. The language model's grow and shrink by Ray Serve's rule where least and most differ.

    Attributes:
        llm, most: of the language model, at the start (and least) and at most.
        target: ongoing requests a replica that autoscaling aims at.
        up_s, down_s: how long it waits before it starts, and before it stops replicas.
        look_back_s: over which it averages.
        tokenizer, decoder: of those.
    """

    llm: int = 1
    most: int = 0
    target: float = 8.0
    up_s: float = 5.0
    down_s: float = 60.0
    look_back_s: float = 30.0
    tokenizer: int = 1
    decoder: int = 1


@dataclass
class Simulation:
    """One run.

    Attributes:
        seed: of what is drawn from the device's observations.
        history: (time, replicas that serve, replicas wanted), once a second, where they may change.
    """

    device: Device
    replicas: Replicas
    seed: int = 0
    env: simpy.Environment = field(default_factory=simpy.Environment)
    samples: list[Sample] = field(default_factory=list)
    history: list[tuple[float, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        device, env = self.device, self.env
        self._rng = np.random.default_rng([self.seed, 13])
        self._cores = Cores(env, device.cores) if device.cores else None
        self._engines = [Engine(env, device, self._cores) for _ in range(self.replicas.llm)]
        self._starting = 0
        self._tokenizer = simpy.Resource(env, self.replicas.tokenizer)
        self._decoder = simpy.Resource(env, self.replicas.decoder)

    def run(self, arrivals: Iterable[tuple[float, Work]]) -> list[Sample]:
        """Answers requests at the given times, in their order, until the last is answered."""
        scaling = self.env.process(self._scale()) if self.replicas.most > self.replicas.llm else None
        self.env.run(until=self.env.process(self._arrive(arrivals)))
        if scaling is not None:
            scaling.interrupt()
        return self.samples

    @property
    def llm_utilisation(self) -> float:
        """Share of the time in which the engines of the start were stepping."""
        engines = self._engines[: self.replicas.llm]
        return sum(engine.busy_s for engine in engines) / (len(engines) * self.env.now or 1.0)

    def _arrive(self, arrivals: Iterable[tuple[float, Work]]) -> Iterator[Any]:
        open_requests = []
        for at, work in arrivals:
            yield self.env.timeout(max(0.0, at - self.env.now))
            open_requests.append(self.env.process(self._answer(work)))
        yield self.env.all_of(open_requests)

    def _answer(self, work: Work) -> Iterator[Any]:
        device, begun = self.device, self.env.now
        before, after = device.overheads[int(self._rng.integers(len(device.overheads)))]
        yield from self._take(None, before)
        for _ in range(work.films):
            yield from self._take(self._tokenizer, device.tokenize_s)
        sequence = Sequence.of(work, device, self.env)
        engine = min((each for each in self._engines if not each.leaving), key=lambda each: each.ongoing)
        engine.submit(sequence)
        yield sequence.done
        first = sequence.first_s if work.text_tokens else None
        for _ in range(work.pictures):
            yield from self._take(self._decoder, device.decode_s)
        first = self.env.now if first is None else first
        between = None
        if work.text_tokens > 1 and not work.pictures and sequence.first_s is not None:
            between = (self.env.now - sequence.first_s) / (work.text_tokens - 1)
        yield from self._take(None, after)
        self.samples.append(
            Sample(
                work.kind,
                "simulated",
                begun,
                0.0,
                first - begun,
                self.env.now - begun,
                work.text_tokens,
                between,
                prompt_tokens=work.prompt_tokens,
                pictures=work.pictures,
            )
        )

    def _take(self, service: simpy.Resource | None, seconds: float) -> Iterator[Any]:
        """A stretch of work of a service, on a core where those are shared."""
        if not seconds:
            return
        if service is not None:
            with service.request() as turn:
                yield turn
                yield from self._take(None, seconds)
        elif self._cores is not None:
            yield from self._cores.work(seconds)
        else:
            yield self.env.timeout(seconds)

    def _scale(self) -> Iterator[Any]:
        """Ray Serve's rule: ongoing requests over the target, averaged, once a decision has stood for long enough."""
        plan = self.replicas
        seen: deque[float] = deque(maxlen=max(1, round(plan.look_back_s)))
        above = below = 0
        try:
            while True:
                yield self.env.timeout(1.0)
                serving = [engine for engine in self._engines if not engine.leaving]
                seen.append(sum(engine.ongoing for engine in self._engines))
                wanted = math.ceil(sum(seen) / len(seen) / plan.target)
                wanted = min(max(wanted, plan.llm), plan.most)
                now = len(serving) + self._starting
                above, below = (above + 1, 0) if wanted > now else (0, below + 1 if wanted < now else 0)
                if above > plan.up_s:
                    for _ in range(wanted - now):
                        self._starting += 1
                        self.env.process(self._start())
                    above = 0
                elif below > plan.down_s:
                    for engine in sorted(serving, key=lambda each: each.ongoing)[: len(serving) - wanted]:
                        engine.leaving = True
                    below = 0
                self.history.append((self.env.now, len(serving), wanted))
        except simpy.Interrupt:
            return

    def _start(self) -> Iterator[Any]:
        yield self.env.timeout(self.device.start_s)
        self._starting -= 1
        self._engines.append(Engine(self.env, self.device, self._cores))


def poisson(
    device: Device, mix: Mapping[str, float], rate: float, seconds: float, seed: int
) -> list[tuple[float, Work]]:
    """Moments of a Poisson process and what is asked at each, drawn from what was observed of its kind.

    Raises:
        ValueError: a kind of the mix was never observed on the device.
    """
    rng = np.random.default_rng([seed, 11])
    if missing := sorted(kind for kind, share in mix.items() if share and not device.of_kind(kind)):
        raise ValueError(f"{device.device} was not calibrated with {', '.join(missing)}")
    pools = {kind: device.of_kind(kind) for kind in mix}
    kinds, shares = list(mix), np.array(list(mix.values()), dtype=float)
    moments = np.sort(rng.uniform(0, seconds, rng.poisson(rate * seconds)))
    drawn = rng.choice(len(kinds), len(moments), p=shares / shares.sum())
    return [
        (float(at), (pool := pools[kinds[each]])[int(rng.integers(len(pool)))])
        for at, each in zip(moments, drawn, strict=True)
    ]
