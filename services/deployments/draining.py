"""Going down without cutting anyone off: new requests are refused while those at work finish.

Serve's own shutdown ends its proxies first. So the stack raises a flag that the proxies and the gateway see, waits for
the last answer, and only then lets Serve go.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from services import metrics
from services.errors import Unavailable

POLL_S = 0.1
RETRY_AFTER_S = 5.0


def check() -> None:
    """Raises: Unavailable once the stack is going down."""
    flag = _flag()
    if flag is not None and flag.exists():
        raise Unavailable("the service is going down; try again", retry_after_s=RETRY_AFTER_S)


def drain(limit_s: float, hurry: threading.Event) -> None:
    """Raises the flag and waits until the gateway has no request, `limit_s` is over or `hurry` is set."""
    flag = _flag()
    if flag is None:
        return
    flag.touch()
    limit = time.monotonic() + limit_s
    while metrics.ongoing("gateway") > 0 and time.monotonic() < limit and not hurry.wait(POLL_S):
        continue


def _flag() -> Path | None:
    folder = os.environ.get(metrics.METRICS_DIR)
    return Path(folder, "draining") if folder else None
