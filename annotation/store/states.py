"""The states of an item and the moves between them."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

import grpc

from services.errors import MedMaxError


class State(StrEnum):
    ROUTED = "routed"  # chosen; nothing of it has been copied yet
    HELD = "held"  # de-identification was in doubt; waits for a person
    CLEANED = "cleaned"  # de-identified, ready to be published
    PUBLISHED = "published"  # a task in Label Studio that lacks verdicts
    COLLECTED = "collected"  # enough verdicts, or new ones; waits to be judged
    ADJUDICATION = "adjudication"  # the experts disagree; waits for an adjudicator
    JUDGED = "judged"  # has a verdict that counts
    BUILT = "built"  # is in a data-set version
    WITHDRAWN = "withdrawn"  # what it said is deleted


class Because(StrEnum):
    """Why an item was withdrawn."""

    DELETED = "deleted"  # a person deleted its task
    EXPIRED = "expired"  # its interaction has been kept long enough, or is gone
    CONSENT = "consent"  # consent to training was withdrawn
    REFUSED = "refused"  # a person decided so, for instance of a held one


_S = State
MOVES: dict[State, frozenset[State]] = {
    _S.ROUTED: frozenset({_S.CLEANED, _S.HELD, _S.WITHDRAWN}),
    _S.HELD: frozenset({_S.CLEANED, _S.WITHDRAWN}),
    _S.CLEANED: frozenset({_S.PUBLISHED, _S.HELD, _S.WITHDRAWN}),
    _S.PUBLISHED: frozenset({_S.COLLECTED, _S.WITHDRAWN}),
    # Back to published where one more expert is wanted.
    _S.COLLECTED: frozenset({_S.JUDGED, _S.ADJUDICATION, _S.PUBLISHED, _S.WITHDRAWN}),
    _S.ADJUDICATION: frozenset({_S.COLLECTED, _S.JUDGED, _S.WITHDRAWN}),
    # Back to collected where an expert changed a verdict afterwards.
    _S.JUDGED: frozenset({_S.BUILT, _S.COLLECTED, _S.WITHDRAWN}),
    _S.BUILT: frozenset({_S.COLLECTED, _S.WITHDRAWN}),
    _S.WITHDRAWN: frozenset(),
}


class NotAllowed(MedMaxError):
    """The item's state does not allow this, or somebody changed the item meanwhile: read it again, then decide."""

    code: ClassVar[str] = "conflict"
    http_status: ClassVar[int] = 409
    grpc_status: ClassVar[grpc.StatusCode] = grpc.StatusCode.ABORTED


def check_move(now: State, to: State) -> bool:
    """Whether there is something to do: False where the item is there already.

    Raises:
        NotAllowed: `MOVES` has no such move.
    """
    if now is to:
        return False
    if to not in MOVES[now]:
        raise NotAllowed(f"an item that is {now} cannot become {to}", field="state")
    return True
