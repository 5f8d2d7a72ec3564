"""Plays the gateway of a cluster that is not there: answers, and metrics of requests that come before every scrape.

So what is measured does not depend on how busy the machine is. The counters are those of `services.metrics`, written by its own code.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from services import metrics
from services.errors import InternalError, InvalidInput
from tests.support.http_server import serving

BETWEEN_SCRAPES = 40  # requests


@dataclass
class Gateway:
    """
    Attributes:
        serving: the checkpoint that answers now.
        failing, mistaken: share of requests that fail by a defect, and by the caller's fault, by checkpoint.
        first_token_s: by checkpoint; 0.05 otherwise.
        quiet: nobody asks.
    """

    serving: Callable[[], str]
    url: str = ""
    failing: dict[str, float] = field(default_factory=dict)
    mistaken: dict[str, float] = field(default_factory=dict)
    first_token_s: dict[str, float] = field(default_factory=dict)
    quiet: bool = False
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    def ask(self) -> None:
        """One request."""
        now = self.serving()
        drawn = self.chance.random()
        with (
            contextlib.suppress(InternalError, InvalidInput),
            metrics.track("gateway", "CreateChatCompletion"),
        ):
            if drawn < self.failing.get(now, 0):
                raise InternalError("a defect")
            if drawn < self.mistaken.get(now, 0):
                raise InvalidInput("a caller's mistake")
            metrics.FIRST_TOKEN.observe(self.first_token_s.get(now, 0.05))

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        if path == "/metrics":
            for _ in range(0 if self.quiet else BETWEEN_SCRAPES):
                self.ask()
            return 200, metrics.render()
        if path == "/v1/chat/completions":
            return 200, {"system_fingerprint": digest(self.serving())}
        return 404, {}


def digest(checkpoint: str) -> str:
    """Stands for the digest of a checkpoint that is not there."""
    return hashlib.sha256(checkpoint.encode()).hexdigest()


@contextmanager
def gateway(now: Callable[[], str]) -> Iterator[Gateway]:
    """A running one."""
    made = Gateway(now)
    with serving(made.answer) as made.url:
        yield made
