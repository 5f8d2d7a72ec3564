"""How many ask at which time of a test: at a constant rate, or over a day with a morning peak."""

from __future__ import annotations

from dataclasses import dataclass

# Radiologists at work by the hour of the day, of ten: reading begins at seven, peaks at nine, and a few stay at night.
HOURS = (1, 1, 1, 1, 1, 1, 2, 5, 9, 10, 9, 7, 5, 6, 7, 6, 5, 4, 3, 2, 2, 1, 1, 1)


@dataclass(frozen=True)
class Plan:
    """How many sources there are at which time, for `seconds`.

    Attributes:
        levels: sources in each of as many equal parts of the time.
        rate: requests a second of one source.
    """

    seconds: float
    levels: tuple[int, ...]
    rate: float

    def sources(self, at_s: float) -> int | None:
        """At `at_s` seconds; None when the time is over."""
        if at_s >= self.seconds:
            return None
        return self.levels[int(at_s / self.seconds * len(self.levels))]

    @property
    def expected(self) -> float:
        """Requests to expect."""
        return sum(self.levels) / len(self.levels) * self.rate * self.seconds


SOURCES = 10


def constant_rate(rate: float, seconds: float) -> Plan:
    """`rate` requests a second throughout."""
    return Plan(seconds, (SOURCES,), rate / SOURCES)


def day(radiologists: int, per_hour: float, compress: float) -> Plan:
    """24 hours in `86400 / compress` seconds.

    Args:
        radiologists: at work at the peak.
        per_hour: questions that one of them asks in an hour of the day, which passes `compress` times as fast.
    """
    levels = tuple(max(1, round(radiologists * level / max(HOURS))) for level in HOURS)
    return Plan(86400 / compress, levels, per_hour / 3600 * compress)
