"""Carries a roll-out through its phases, from wherever it stands.

    baseline ─► applying ─► starting ─► watching ─► promoted
                   │            └──────────┴─────► returning ─► rolled back | aborted | failed
                   └─► superseded

Every phase is written down before its work begins, and the work of each can be repeated: whoever finds an unfinished
roll-out goes on with it.
"""

from __future__ import annotations

import time

from services.errors import Unavailable
from services.rollout.evidence import Evidence
from services.rollout.keeping import Keeper
from services.rollout.measured import Measured
from services.rollout.record import Phase, Rollout
from services.rollout.target import ATTEMPTS, Conflict, State, Taken, Target

POLL_S = 5.0
RETURN_S = (
    1800.0  # at least, for the former version to be ready again: nothing better is to be done meanwhile
)


class Conductor:
    """Conducts one roll-out at a time on `target`.

    Args:
        evidence: what the version's requests and answers say.
        poll_s: longest time between two looks.
    """

    def __init__(self, target: Target, keeper: Keeper, evidence: Evidence, poll_s: float = POLL_S) -> None:
        self._target, self._keeper, self._evidence = target, keeper, evidence
        self._poll_s = poll_s
        self._say, self._note, self._tick = keeper.say, keeper.note, keeper.tick

    def start(self, rollout: Rollout) -> Rollout:
        """Begins `rollout`, or goes on with the same where an unfinished one is found; returns it at its end.

        Raises:
            Taken: another roll-out is at work, or waits for somebody to go on with it.
            Unavailable: the target stayed out of reach; the roll-out stands where it was.
        """
        with self._keeper.holding():
            return self._run(self._keeper.begin(rollout))

    def resume(self) -> Rollout:
        """Goes on with the unfinished roll-out, or returns the last one. Raises: as `start`; NotFound: none."""
        current = self._keeper.current()
        if current.phase.over:
            return current
        with self._keeper.holding():
            return self._run(self._keeper.current())

    def abort(self, by: str, why: str) -> Rollout:
        """Returns to the former version. Where another process conducts the roll-out, it does so; this one waits.

        Raises:
            NotFound: there is no roll-out.
            InvalidInput: it is over.
        """
        self._keeper.ask_abort(by, why)
        while True:
            try:
                return self.resume()
            except Taken:
                time.sleep(min(1.0, self._poll_s))

    def _run(self, rollout: Rollout) -> Rollout:
        steps = {
            Phase.BASELINE: self._measure,
            Phase.APPLYING: self._change,
            Phase.STARTING: self._await_ready,
            Phase.WATCHING: self._watch,
            Phase.RETURNING: self._return,
        }
        while not rollout.phase.over:
            rollout = steps[rollout.phase](rollout)
        return rollout

    def _measure(self, rollout: Rollout) -> Rollout:
        limits = rollout.limits
        if limits.baseline_s and self._evidence.measures:
            self._say(f"measuring {rollout.old} for {limits.baseline_s:g} s")
            mark, until = self._evidence.mark(), time.time() + limits.baseline_s
            while (left := until - time.time()) > 0 and not self._tick(rollout).abort:
                time.sleep(min(self._poll_s, left))
            rollout.baseline = self._evidence.since(mark)
            self._say(f"before: {rollout.baseline}")
            if (bad := limits.breach(rollout.baseline, None)) and not rollout.force:
                return self._note(rollout, Phase.FAILED, "failed", f"nothing changed; before it began, {bad}")
        if self._tick(rollout).abort:
            return self._note(rollout, Phase.ABORTED, "aborted", f"nothing changed; {_wish(rollout)}")
        return self._note(rollout, Phase.APPLYING)

    def _change(self, rollout: Rollout) -> Rollout:
        for _ in range(ATTEMPTS):
            if self._tick(rollout).abort:
                return self._go_back(rollout, _wish(rollout))
            state = self._target.read()
            if not self._target.holds(state, rollout.change):
                if not self._target.holds(state, rollout.undo):
                    return self._superseded(rollout, state)
                try:
                    state = self._target.apply(state, rollout.change, rollout.id)
                except Conflict:
                    continue
            rollout.changed, rollout.generation = time.time(), state.generation
            self._say(f"changed to {rollout.new}; waiting for it to become ready")
            return self._note(rollout, Phase.STARTING, "applied")
        raise Unavailable(f"{self._target.name} changes all the time; try again")

    def _await_ready(self, rollout: Rollout) -> Rollout:
        limits, told = rollout.limits, ""
        steady, broken = _Lasting(), _Lasting()
        while True:
            if self._tick(rollout).abort:
                return self._go_back(rollout, _wish(rollout))
            state = self._target.read()
            if not self._target.holds(state, rollout.change):
                return self._superseded(rollout, state)
            detail = state.detail
            moved = not rollout.change.new_cluster or not state.ready or state.cluster != rollout.cluster
            if steady.seconds((state.ready or state.taking) and moved) >= limits.settle_s:
                detail = self._evidence.doubt(rollout.new)
                if not detail:
                    took = time.time() - rollout.changed
                    self._say(f"ready after {took:.0f} s; watching for {limits.window_s:g} s")
                    return self._note(rollout, Phase.WATCHING, "ready")
            if broken.seconds(bool(state.failed)) >= limits.settle_s:
                return self._go_back(rollout, state.failed)
            if detail != told:
                self._say(detail)
                told = detail
            if time.time() - rollout.changed > limits.ready_s:
                return self._go_back(rollout, f"not ready within {limits.ready_s:g} s: {detail}")
            self._target.wait(
                state, self._poll_s if detail != state.detail else steady.pause(self._poll_s, limits.settle_s)
            )

    def _watch(self, rollout: Rollout) -> Rollout:
        limits, mark, blind = rollout.limits, None, ""
        begun, sick = time.time(), _Lasting()
        while True:
            if self._tick(rollout).abort:
                return self._go_back(rollout, _wish(rollout))
            state = self._target.read()
            if not self._target.holds(state, rollout.change):
                return self._superseded(rollout, state)
            try:
                mark = self._evidence.mark() if mark is None else mark
                rollout.measured, blind = self._evidence.since(mark), ""
            except Unavailable as error:
                blind = f"its requests cannot be measured: {error}"
            if rollout.measured and (bad := limits.breach(rollout.measured, rollout.baseline)):
                return self._go_back(rollout, bad)
            ill = bool(state.failed) or not state.taking
            if sick.seconds(ill) > limits.settle_s:
                return self._go_back(
                    rollout, f"was ready and is not any more: {state.failed or state.detail}"
                )
            left = limits.window_s - (time.time() - begun)
            if left <= 0 and state.ready and not blind and not ill:
                return self._judge(rollout)
            if left <= -limits.ready_s:
                return self._go_back(
                    rollout, blind or f"not wholly ready {limits.ready_s:g} s later: {state.detail}"
                )
            self._target.wait(state, max(0.05, min(self._poll_s, left)) if left > 0 else self._poll_s)

    def _judge(self, rollout: Rollout) -> Rollout:
        found, limits = rollout.measured or Measured(), rollout.limits
        if not self._evidence.measures:
            return self._note(rollout, Phase.PROMOTED, "promoted", "on health alone, as asked")
        if found.requests < limits.min_requests:
            few = f"{found.requests:,.0f} requests in {limits.window_s:g} s, {limits.min_requests:,} decide"
            if limits.undecided == "rollback":
                return self._go_back(rollout, f"too few to judge: {few}")
            return self._note(rollout, Phase.PROMOTED, "promoted", f"on health alone: {few}")
        return self._note(rollout, Phase.PROMOTED, "promoted", str(found))

    def _return(self, rollout: Rollout) -> Rollout:
        limits, told, steady = rollout.limits, "", _Lasting()
        budget = max(limits.ready_s, RETURN_S)
        while True:
            state = self._target.read()
            self._tick(rollout)
            if not self._target.holds(state, rollout.undo):
                if not self._target.holds(state, rollout.change):
                    return self._superseded(rollout, state)
                try:
                    state = self._target.apply(state, rollout.undo, rollout.id)
                except Conflict:
                    continue
            if steady.seconds(state.ready) >= limits.settle_s and state.ready:
                end, what = (
                    (Phase.ABORTED, "aborted") if rollout.abort else (Phase.ROLLED_BACK, "rolled back")
                )
                return self._note(rollout, end, what, rollout.reason)
            if state.detail != told:
                self._say(f"returning to {rollout.old}: {state.detail}")
                told = state.detail
            if time.time() - rollout.since > budget:
                late = f"and {rollout.old} is not ready after {budget:g} s: {state.detail}"
                return self._note(rollout, Phase.FAILED, "failed", f"{rollout.reason}; {late}")
            self._target.wait(state, steady.pause(self._poll_s, limits.settle_s))

    def _go_back(self, rollout: Rollout, reason: str) -> Rollout:
        self._say(f"going back: {reason}")
        return self._note(rollout, Phase.RETURNING, "going back", reason)

    def _superseded(self, rollout: Rollout, state: State) -> Rollout:
        what = f"somebody else changed it to {state.version}; left as it is"
        return self._note(rollout, Phase.SUPERSEDED, "superseded", what)


class _Lasting:
    """For how long something has been so without a break."""

    def __init__(self) -> None:
        self._since: float | None = None

    def seconds(self, so: bool) -> float:
        """Seconds so far; -1 while it is not so."""
        if not so:
            self._since = None
            return -1.0
        self._since = time.monotonic() if self._since is None else self._since
        return time.monotonic() - self._since

    def pause(self, longest: float, wanted: float) -> float:
        """How long to wait, at most `longest`, until it may have been so for `wanted` seconds."""
        if self._since is None:
            return longest
        return max(0.05, min(longest, wanted - (time.monotonic() - self._since)))


def _wish(rollout: Rollout) -> str:
    wish = rollout.abort or {}
    return f"{wish.get('by', 'somebody')} wanted it back" + (f": {wish['why']}" if wish.get("why") else "")
