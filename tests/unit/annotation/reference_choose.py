"""`annotation.routing.choose` one candidate at a time, as it was first written: slow, and plain enough to be believed."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from math import floor

from annotation.core import Kind, Reason
from annotation.routing.budget import Room
from annotation.routing.draw import Draws
from annotation.routing.plan import Candidate, Key, Placement, Plan, Spent, Why
from annotation.routing.policy import RiskRule, RoutingPolicy
from services.errors import InvalidInput


def choose(
    candidates: Iterable[Candidate], spent: Spent, policy: RoutingPolicy, key: bytes, now: datetime
) -> Plan:
    return _Run(spent, policy, key, now).plan(list(candidates))


class _Run:
    def __init__(self, spent: Spent, policy: RoutingPolicy, key: bytes, now: datetime) -> None:
        if now.tzinfo is None:
            raise InvalidInput("needs a time zone", field="now")
        self.spent, self.policy, self.now = spent, policy, now
        self.day = now.astimezone(UTC).date().isoformat()
        self.draw, self.turn, self.order = (Draws(key, name) for name in ("random share", "turns", "order"))
        self.digests = dict(spent.digests)
        self.draws: dict[str, float] = {}
        self.fates: dict[Key, Placement] = {}
        self.drawn: set[Key] = set()  # members that were not sent
        self.uncovered: dict[tuple[Kind, str], int] = {}

    def plan(self, candidates: Sequence[Candidate]) -> Plan:
        _check(candidates)
        open_ = [one for one in candidates if self._eligible(one)]
        ordinary = [one for one in open_ if not one.gold]
        self.draws = {one.id: self.draw(one.id) for one in ordinary}
        self._random(ordinary)
        self._flags([one for one in ordinary if one.flagged and (one.id, one.kind) not in self.fates])
        self._risk([one for one in ordinary if (one.id, one.kind) not in self.fates])
        self._gold([one for one in open_ if one.gold])
        placed = self.fates.values()
        sent = [one for one in placed if one.reason is not None]
        sent.sort(key=lambda one: (self.order(one.candidate.id), one.candidate.id, one.candidate.kind))
        withheld = [self.fates[key] for key in sorted(self.fates) if self.fates[key].reason is None]
        return Plan(
            self.policy, self.now, tuple(sent), tuple(withheld), frozenset(self.drawn), self.uncovered
        )

    def _eligible(self, one: Candidate) -> bool:
        why = None
        if (one.id, one.kind) in self.spent.sent:
            why = Why.ALREADY_SENT
        elif one.held:
            why = Why.HELD
        elif not one.gold and not one.consent:
            why = Why.NO_CONSENT
        elif not one.gold and self.now - one.created_at > timedelta(days=self.policy.max_age_days):
            why = Why.TOO_OLD
        if why is not None:
            self._withhold(one, why)
        return why is None

    def _random(self, candidates: Sequence[Candidate]) -> None:
        share, draws = self.policy.random_share, self.draws
        members = [
            one for one in candidates if draws[one.id] < share and (one.id, one.kind) not in self.spent.drawn
        ]
        members.sort(key=self._by_draw)
        room = Room(self.policy, "random", self.spent.today, Reason.RANDOM)
        total: Counter[tuple[Kind, str]] = Counter()
        covered: dict[tuple[Kind, str], list[Candidate]] = {}
        full: set[tuple[Kind, str]] = set()
        for one in members:
            cell = one.kind, one.speciality
            total[cell] += 1
            duplicate = self._duplicate(one)
            fits = not duplicate and room.fits(*cell)
            if not fits:
                self.drawn.add((one.id, one.kind))
            if not fits and not duplicate:
                full.add(cell)
                continue
            # Sampling a cell ends before the first that does not fit (k sent of n: inverse sampling, k / n is unbiased for
            # k ≥ 1). A duplicate past that is not there by its hash alone and stands for nothing.
            if cell not in full:
                covered.setdefault(cell, []).append(one)
            if fits:
                room.take(*cell)
                self._send(one, Reason.RANDOM)
        sent = {cell for cell, ones in covered.items() if any(self._is_sent(one) for one in ones)}
        covered = {cell: ones for cell, ones in covered.items() if cell in sent or cell not in full}
        for cell, ones in covered.items():
            for one in ones:
                fate = self.fates[one.id, one.kind]
                self.fates[one.id, one.kind] = fate._replace(weight=total[cell] / len(ones))
        self.uncovered = {cell: count for cell, count in total.items() if cell not in covered}

    def _flags(self, candidates: Sequence[Candidate]) -> None:
        room = Room(self.policy, "flags", self.spent.today, Reason.FLAG)
        both = Room(self.policy, "rest", self.spent.today, Reason.FLAG, Reason.RISK)

        def send(one: Candidate) -> bool:
            if self._duplicate(one) or not (
                room.fits(one.kind, one.speciality) and both.fits(one.kind, one.speciality)
            ):
                return False  # not placed yet where the budget is used up: its risk may still send it
            room.take(one.kind, one.speciality)
            both.take(one.kind, one.speciality)
            self._send(one, Reason.FLAG)
            return True

        self._in_turns(candidates, lambda one: (one.caller,), send)

    def _risk(self, candidates: Sequence[Candidate]) -> None:
        today = Counter(dict(self.spent.today))
        today.update(
            (Reason.FLAG, fate.candidate.kind, fate.candidate.speciality)
            for fate in self.fates.values()
            if fate.reason is Reason.FLAG
        )
        room = Room(self.policy, "rest", today, Reason.FLAG, Reason.RISK)
        top = self.policy.risk_rule is RiskRule.TOP
        left = self.policy.risk_top - sum(n for (why, *_), n in today.items() if why is Reason.RISK)
        risky = []
        for one in candidates:
            if self._risky(one):
                risky.append(one)
            elif not self._duplicate(one):
                unsent = one.flagged or (one.id, one.kind) in self.drawn
                self._withhold(one, Why.BUDGET if unsent else Why.BELOW_THRESHOLD)

        def send(one: Candidate) -> bool:
            nonlocal left
            if self._duplicate(one):
                return False
            if (top and left <= 0) or not room.fits(one.kind, one.speciality):
                unsent = one.flagged or (one.id, one.kind) in self.drawn
                below = top and left <= 0 and not unsent
                self._withhold(one, Why.BELOW_THRESHOLD if below else Why.BUDGET)
                return False
            room.take(one.kind, one.speciality)
            left -= 1
            self._send(one, Reason.RISK)
            return True

        self._in_turns(risky, lambda one: (one.modality, one.task), send)

    def _risky(self, one: Candidate) -> bool:
        if self.policy.risk_rule is RiskRule.THRESHOLD:
            return one.risk >= self.policy.risk_threshold
        if self.policy.risk_rule is RiskRule.MISS_RATE:
            return one.missed > self.policy.miss_rate
        return True

    def _gold(self, pool: Sequence[Candidate]) -> None:
        room = Room(self.policy, "gold", self.spent.today, Reason.GOLD)
        others: Counter[tuple[Kind, str]] = Counter()
        given: Counter[tuple[Kind, str]] = Counter()
        for (reason, kind, speciality), count in self.spent.today.items():
            (given if reason is Reason.GOLD else others)[kind, speciality] += count
        others.update(
            (fate.candidate.kind, fate.candidate.speciality) for fate in self.fates.values() if fate.reason
        )
        share = self.policy.gold_share
        for one in sorted(pool, key=lambda one: (self.order(self.day + one.id), one.id, one.kind)):
            cell = one.kind, one.speciality
            # Rounded by a draw a day, so that small cells get gold on some days rather than never.
            want = floor(others[cell] * share / (1 - share) + self.turn("gold/".join((self.day, *cell))))
            if not others[cell] or given[cell] >= want or not room.fits(*cell):
                self._withhold(one, Why.GOLD_NOT_NEEDED)
                continue
            room.take(*cell)
            given[cell] += 1
            self._send(one, Reason.GOLD)

    def _in_turns(
        self,
        candidates: Iterable[Candidate],
        stratum: Callable[[Candidate], tuple[str, ...]],
        send: Callable[[Candidate], bool],
    ) -> None:
        """Each stratum in turn sends its riskiest that can be sent; which begins changes from day to day."""
        strata: dict[tuple[str, ...], list[Candidate]] = {}
        for one in candidates:
            strata.setdefault(stratum(one), []).append(one)
        names = sorted(strata, key=lambda name: (self.turn("\0".join((self.day, *name))), name))
        queues = deque(deque(sorted(strata[name], key=self._by_risk)) for name in names)
        while queues:
            queue = queues.popleft()
            while queue and not send(queue.popleft()):
                pass
            if queue:
                queues.append(queue)

    def _duplicate(self, one: Candidate) -> bool:
        """Whether what it asks and answers was sent; it is placed as a duplicate then."""
        of = self.digests.get((one.kind, one.digest)) if one.digest else None
        if of is not None:
            self.fates[one.id, one.kind] = Placement(one, None, Why.DUPLICATE, of=of, draw=self.draws[one.id])
        return of is not None

    def _send(self, one: Candidate, reason: Reason) -> None:
        self.fates[one.id, one.kind] = Placement(one, reason, None, "", 0.0, self.draws.get(one.id, 1.0))
        if one.digest and not one.gold:
            self.digests[one.kind, one.digest] = one.id

    def _is_sent(self, one: Candidate) -> bool:
        return self.fates[one.id, one.kind].reason is not None

    def _withhold(self, one: Candidate, why: Why) -> None:
        self.fates[one.id, one.kind] = Placement(one, None, why, "", 0.0, self.draws.get(one.id, 1.0))

    def _by_draw(self, one: Candidate) -> tuple[float, str, Kind]:
        return self.draws[one.id], one.id, one.kind

    def _by_risk(self, one: Candidate) -> tuple[float, float, float, str, Kind]:
        return -one.risk, -one.score, self.draws[one.id], one.id, one.kind


def _check(candidates: Sequence[Candidate]) -> None:
    if len({(one.id, one.kind) for one in candidates}) < len(candidates):
        raise InvalidInput("an item comes twice", field="candidates.id")
    for one in candidates:
        if not (0 <= one.risk <= 1 and 0 <= one.score <= 1 and 0 <= one.missed <= 1):  # NaN fails too
            raise InvalidInput("must be 0 to 1", field="candidates.risk, score, missed")
        if one.created_at.tzinfo is None:
            raise InvalidInput("needs a time zone", field="candidates.created_at")
