"""Candidates → plan. Four passes, each over its own part of the budgets, so that none displaces another:

1. **Random share**: who is in it is decided by a keyed hash of the interaction's id alone, before risk and flags. If its part
   of a budget runs out, the lowest hashes stay; in a cell (kind, speciality) these are a simple random sample of
   its members, and each stands for members / covered of them (`Placement.weight`).
2. **Flags**, callers taking turns, so that one who flags everything does not push out the others.
3. **Risk**, strata (modality, task) taking turns, the riskiest of each first.
4. **Gold**, as many as makes its share of what was sent today in each cell.

A pure function: the order of candidates does not matter, and the same call decides the same. It works on columns (`pool`):
an object is made of a candidate when it is sent or looked at, and what no budget is left for is not looked at one by one.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from math import floor

import numpy as np

from annotation.core import Kind, Reason
from annotation.routing.budget import Room
from annotation.routing.draw import Draws
from annotation.routing.plan import Candidate, Placement, Plan, Spent, Why
from annotation.routing.policy import RiskRule, RoutingPolicy
from annotation.routing.pool import Mask, Places, Pool, microseconds
from annotation.routing.withheld import NUMBER, Withheld
from services.errors import InvalidInput

_OPEN, _SENT = -1, -2  # where a number of WHYS stands for the others


def choose(
    candidates: Iterable[Candidate] | Pool, spent: Spent, policy: RoutingPolicy, key: bytes, now: datetime
) -> Plan:
    """
    Args:
        key: the installation's secret; see `draw.Draws`.
        now: aware; its UTC day is the budgets'.

    Raises:
        InvalidInput: an item comes twice, or a number is out of range; the message names the field.
        ConfigurationError: the key is too short or too long.
    """
    pool = candidates if isinstance(candidates, Pool) else Pool.of(candidates)
    return _Run(pool, spent, policy, key, now).plan()


class _Run:
    """Candidates are their places in the pool, whose order is that of id and kind: sorting stably breaks ties by these."""

    def __init__(self, pool: Pool, spent: Spent, policy: RoutingPolicy, key: bytes, now: datetime) -> None:
        if now.tzinfo is None:
            raise InvalidInput("needs a time zone", field="now")
        self.pool, self.spent, self.policy, self.now = pool, spent, policy, now
        self.day = now.astimezone(UTC).date().isoformat()
        self.draw, self.turn, self.order = (Draws(key, name) for name in ("random share", "turns", "order"))
        self.digests = dict(spent.digests)
        self.draws = np.ones(len(pool))
        self.fates = np.full(len(pool), _OPEN, dtype=np.int8)  # a number of WHYS, or the two above
        self.reasons: dict[int, Reason] = {}  # of what is sent
        self.weights: dict[int, float] = {}
        self.drawn = np.zeros(len(pool), dtype=np.bool_)  # members that were not sent
        self.flagged = pool.mask(lambda like: like.flagged)
        self.uncovered: dict[tuple[Kind, str], int] = {}

    def plan(self) -> Plan:
        pool = self.pool
        gold = pool.mask(lambda like: like.gold)
        self._leave_out(gold)
        ordinary = self._open(~gold)
        self.draws[ordinary] = self.draw.all(pool.ids[place] for place in ordinary)
        self._random(ordinary)
        self._flags(self._open(self.flagged & ~gold))
        self._risk(self._open(~gold))
        self._gold(self._open(gold))
        order = sorted(self.reasons, key=lambda place: (self.order(pool.ids[place]), place))
        withheld = np.flatnonzero(self.fates >= 0)
        return Plan(
            self.policy,
            self.now,
            tuple(self._sent(place) for place in order),
            Withheld(pool, withheld, self.fates, self.digests, self.weights, self.draws),
            frozenset((pool.ids[place], pool.kind(place)) for place in np.flatnonzero(self.drawn).tolist()),
            self.uncovered,
        )

    def _leave_out(self, gold: Mask) -> None:
        pool, age = self.pool, timedelta(days=self.policy.max_age_days)
        # The first that applies, so in reverse.
        self._withhold(~gold & (pool.created < microseconds(self.now - age)), Why.TOO_OLD)
        self._withhold(~gold & ~pool.mask(lambda like: like.consent), Why.NO_CONSENT)
        self._withhold(pool.mask(lambda like: like.held), Why.HELD)
        self._withhold(pool.places(self.spent.sent), Why.ALREADY_SENT)

    def _random(self, candidates: Places) -> None:
        members = candidates[self.draws[candidates] < self.policy.random_share]
        members = members[~np.isin(members, self.pool.places(self.spent.drawn))]
        members = members[np.argsort(self.draws[members], kind="stable")]
        room = Room(self.policy, "random", self.spent.today, Reason.RANDOM)
        total: Counter[tuple[Kind, str]] = Counter()
        covered: dict[tuple[Kind, str], list[int]] = {}
        full: set[tuple[Kind, str]] = set()
        for one in members.tolist():
            cell = self.pool.cell(one)
            total[cell] += 1
            duplicate = self._duplicate(one)
            fits = not duplicate and room.fits(*cell)
            if not fits:
                self.drawn[one] = True
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
        sent = {cell for cell, ones in covered.items() if any(one in self.reasons for one in ones)}
        covered = {cell: ones for cell, ones in covered.items() if cell in sent or cell not in full}
        self.weights = {one: total[cell] / len(ones) for cell, ones in covered.items() for one in ones}
        self.uncovered = {cell: count for cell, count in total.items() if cell not in covered}

    def _flags(self, candidates: Places) -> None:
        room = Room(self.policy, "flags", self.spent.today, Reason.FLAG)
        both = Room(self.policy, "rest", self.spent.today, Reason.FLAG, Reason.RISK)

        def send(one: int) -> bool:
            cell = self.pool.cell(one)
            if self._duplicate(one) or not (room.fits(*cell) and both.fits(*cell)):
                return False  # not placed yet where the budget is used up: its risk may still send it
            room.take(*cell)
            both.take(*cell)
            self._send(one, Reason.FLAG)
            return True

        self._in_turns(candidates, lambda like: (like.caller,), send, lambda: room.day > 0 and both.day > 0)

    def _risk(self, candidates: Places) -> None:
        today = Counter(dict(self.spent.today))
        today.update(
            (Reason.FLAG, *self.pool.cell(one)) for one, why in self.reasons.items() if why is Reason.FLAG
        )
        room = Room(self.policy, "rest", today, Reason.FLAG, Reason.RISK)
        top = self.policy.risk_rule is RiskRule.TOP
        left = self.policy.risk_top - sum(n for (why, *_), n in today.items() if why is Reason.RISK)
        risky = self._risky(candidates)
        self._leave(candidates[~risky], Why.BELOW_THRESHOLD)

        def send(one: int) -> bool:
            nonlocal left
            cell = self.pool.cell(one)
            if self._duplicate(one):
                return False
            if not room.fits(*cell):
                self.fates[one] = NUMBER[Why.BUDGET]
                return False
            room.take(*cell)
            left -= 1
            self._send(one, Reason.RISK)
            return True

        self._in_turns(
            candidates[risky],
            lambda like: (like.modality, like.task),
            send,
            lambda: room.day > 0 and not (top and left <= 0),
        )
        rest = candidates[self.fates[candidates] == _OPEN]
        self._leave(rest, Why.BELOW_THRESHOLD if top and left <= 0 else Why.BUDGET)

    def _risky(self, candidates: Places) -> Mask:
        if self.policy.risk_rule is RiskRule.THRESHOLD:
            return self.pool.risk[candidates] >= self.policy.risk_threshold
        if self.policy.risk_rule is RiskRule.MISS_RATE:
            return self.pool.missed[candidates] > self.policy.miss_rate
        return np.ones(len(candidates), dtype=np.bool_)

    def _gold(self, candidates: Places) -> None:
        room = Room(self.policy, "gold", self.spent.today, Reason.GOLD)
        others: Counter[tuple[Kind, str]] = Counter()
        given: Counter[tuple[Kind, str]] = Counter()
        for (reason, kind, speciality), count in self.spent.today.items():
            (given if reason is Reason.GOLD else others)[kind, speciality] += count
        others.update(self.pool.cell(one) for one in self.reasons)
        share, ids = self.policy.gold_share, self.pool.ids
        for one in sorted(candidates.tolist(), key=lambda one: (self.order(self.day + ids[one]), one)):
            cell = self.pool.cell(one)
            # Rounded by a draw a day, so that small cells get gold on some days rather than never.
            want = floor(others[cell] * share / (1 - share) + self.turn("gold/".join((self.day, *cell))))
            if not others[cell] or given[cell] >= want or not room.fits(*cell):
                self.fates[one] = NUMBER[Why.GOLD_NOT_NEEDED]
                continue
            room.take(*cell)
            given[cell] += 1
            self._send(one, Reason.GOLD)

    def _in_turns(
        self,
        candidates: Places,
        stratum: Callable[[Candidate], tuple[str, ...]],
        send: Callable[[int], bool],
        going: Callable[[], bool],
    ) -> None:
        """Each stratum in turn sends its riskiest that can be sent, while it is `going`; which begins changes from day to day."""
        pool, (names, numbers) = self.pool, self.pool.labels(stratum)
        columns = (self.draws, -pool.score, -pool.risk, numbers)
        ordered = candidates[np.lexsort([column[candidates] for column in columns])]
        ends = np.searchsorted(numbers[ordered], np.arange(len(names) + 1))
        turns = sorted(
            range(len(names)), key=lambda n: (self.turn("\0".join((self.day, *names[n]))), names[n])
        )
        queues = deque(map(int, ordered[ends[n] : ends[n + 1]]) for n in turns)
        while queues and going():
            queue = queues.popleft()
            if any(map(send, queue)):  # stops at the first that is sent
                queues.append(queue)

    def _duplicate(self, one: int) -> bool:
        """Whether what it asks and answers was sent; it is placed as a duplicate then."""
        digest = self.pool.digests[one]
        found = bool(digest) and (self.pool.kind(one), digest) in self.digests
        if found:
            self.fates[one] = NUMBER[Why.DUPLICATE]
        return found

    def _send(self, one: int, reason: Reason) -> None:
        self.fates[one], self.reasons[one] = _SENT, reason
        if self.pool.digests[one] and reason is not Reason.GOLD:
            self.digests[self.pool.kind(one), self.pool.digests[one]] = self.pool.ids[one]

    def _sent(self, one: int) -> Placement:
        weight, draw = self.weights.get(one, 0.0), float(self.draws[one])
        return Placement(self.pool[one], self.reasons[one], None, "", weight, draw)

    def _open(self, of: Mask) -> Places:
        return np.flatnonzero((self.fates == _OPEN) & of)

    def _withhold(self, which: Mask | list[int], why: Why) -> None:
        self.fates[which] = NUMBER[why]

    def _leave(self, which: Places, why: Why) -> None:
        """Withhold what is no duplicate because of `why`, or for want of budget what has another claim to be sent."""
        claim = self.flagged[which] | self.drawn[which]
        self.fates[which] = np.where(claim, NUMBER[Why.BUDGET], NUMBER[why])
        known, digests = {digest for _, digest in self.digests}, self.pool.digests
        for one in which.tolist():
            if digests[one] in known:
                self._duplicate(one)
