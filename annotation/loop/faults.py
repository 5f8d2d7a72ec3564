"""Places at which a test kills the process: `MEDMAX_KILL_REVIEW_AT=publish.made:3` is the third time that it comes there."""

from __future__ import annotations

import os
import signal
from collections import Counter

VARIABLE = "MEDMAX_KILL_REVIEW_AT"
_passed: Counter[str] = Counter()


def point(name: str) -> None:
    """Ends the process as `kill -9` would, where the environment says so."""
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    place, _, number = wanted.partition(":")
    if place == name:
        _passed[name] += 1
        if _passed[name] == int(number or 1):
            os.kill(os.getpid(), signal.SIGKILL)
