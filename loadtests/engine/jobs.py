"""What is asked of a worker process and what it answers, as JSON; the standard library alone, for every environment."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Protocol, Self


@dataclass(frozen=True)
class Options:
    """What a worker loads.

    Attributes:
        own, hugging_face: the same checkpoint in our layout and in Hugging Face's.
        dtype: "float32" or "bfloat16".
        rows: sequences, guidance companions included, that one step must hold.
        tokens: positions that all sequences together take at most.
    """

    own: str
    hugging_face: str
    dtype: str
    threads: int
    rows: int
    tokens: int


@dataclass(frozen=True)
class Request:
    """One answer, greedy for text, sampled for a picture.

    Attributes:
        new_tokens: exactly so many are drawn; of no meaning for a picture.
        picture: a picture rather than text.
        guidance: weight of the prompt in a picture; 1 = unguided.
        arrival_s: seconds after the job's start.
    """

    prompt: list[int]
    new_tokens: int = 0
    picture: bool = False
    guidance: float = 3.0
    arrival_s: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Objective:
    """What 99 % of first tokens, and of gaps between tokens, must keep, in milliseconds."""

    ttft_ms: float = 2000.0
    itl_ms: float = 100.0


@dataclass(frozen=True)
class Job:
    """Requests of one round.

    Attributes:
        in_flight: requests that the engine has at once; 0 = as they arrive.
        give_up: end as soon as this objective can no longer be met.
    """

    requests: list[Request]
    in_flight: int = 0
    give_up: Objective | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        limit = values["give_up"]
        requests = [Request(**request) for request in values["requests"]]
        return cls(requests, values["in_flight"], Objective(**limit) if limit else None)


@dataclass
class Sample:
    """One answer, times in milliseconds.

    Attributes:
        ttft_ms: from the request's arrival to its first token (of a picture: its first code).
        gaps_ms: between pieces of text as they come; of a picture, whose codes come at once, their mean pace.
        tokens: all that were drawn, codes included.
    """

    ttft_ms: float
    gaps_ms: list[float]
    tokens: int
    pictures: int = 0


@dataclass
class Outcome:
    """A job's samples.

    Attributes:
        wall_s: from the first request's arrival to the last answer's end.
        read_tokens: tokens that the model read; None where the engine does not tell.
        complete: False where the worker gave up.
    """

    wall_s: float
    samples: list[Sample] = field(default_factory=list)
    read_tokens: int | None = None
    complete: bool = True

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        samples = [Sample(**sample) for sample in values["samples"]]
        return cls(values["wall_s"], samples, values["read_tokens"], values["complete"])


class Engine(Protocol):
    """One loaded model."""

    version: str

    def run(self, job: Job) -> Outcome: ...

    def close(self) -> None: ...


def stepwise(start: float, stamps: list[list[float]]) -> list[Sample]:
    """Samples of text answers from the times, in seconds, at which their tokens came."""
    return [
        Sample(
            ttft_ms=(times[0] - start) * 1000,
            gaps_ms=[(after - before) * 1000 for before, after in pairwise(times)],
            tokens=len(times),
        )
        for times in stamps
    ]


def texts_at_once(job: Job) -> int:
    """New tokens of a job whose requests all come at once and want equally long texts, as peers serve.

    Raises:
        ValueError: the job is another.
    """
    lengths = {request.new_tokens for request in job.requests}
    if len(lengths) != 1 or job.in_flight or any(r.picture or r.arrival_s for r in job.requests):
        raise ValueError("peers run text requests that come at once")
    return lengths.pop()
