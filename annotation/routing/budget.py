"""What is left of a day's budgets."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter

from annotation.core import Kind, Reason
from annotation.routing.policy import RoutingPolicy


class Room:
    """One part (a field of `Parts`) of all budgets: the day's, the kinds', the specialities'.

    Args:
        reasons: what uses this part; what was sent today for them is taken off.
    """

    def __init__(
        self,
        policy: RoutingPolicy,
        part: str,
        today: Mapping[tuple[Reason, Kind, str], int],
        *reasons: Reason,
    ) -> None:
        size = attrgetter(part)
        self.day: int = size(policy.parts(policy.per_day))
        self.kind: dict[Kind, int] = {kind: size(policy.parts(n)) for kind, n in policy.per_kind.items()}
        self.speciality: dict[str, int] = {
            name: size(policy.parts(n)) for name, n in policy.per_speciality.items()
        }
        for (reason, kind, speciality), count in today.items():
            if reason in reasons:
                self.take(kind, speciality, count)

    def fits(self, kind: Kind, speciality: str) -> bool:
        return self.day > 0 and self.kind.get(kind, 1) > 0 and self.speciality.get(speciality, 1) > 0

    def take(self, kind: Kind, speciality: str, count: int = 1) -> None:
        self.day -= count
        if kind in self.kind:
            self.kind[kind] -= count
        if speciality in self.speciality:
            self.speciality[speciality] -= count
