"""A token bucket per key."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from services.errors import RateLimited


@dataclass
class _Bucket:
    tokens: float
    filled_at: float


class RateLimiter:
    """Lets each caller make `per_minute` requests per minute, as many at once after a pause of a minute.

    Buckets live in this process: with several gateway replicas a key gets up to that rate from each.

    Args:
        per_minute: 0 = no limit.
        clock: seconds, monotonic.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, caller: str) -> None:
        """Counts one request.

        Raises:
            RateLimited: the bucket is empty; `retry_after_s` tells when it no longer is.
        """
        if not self._per_minute:
            return
        now = self._clock()
        bucket = self._buckets.setdefault(caller, _Bucket(float(self._per_minute), now))
        gained = (now - bucket.filled_at) * self._per_minute / 60
        bucket.tokens = min(float(self._per_minute), bucket.tokens + gained)
        bucket.filled_at = now
        if bucket.tokens < 1:
            raise RateLimited(
                f"at most {self._per_minute:,} requests per minute with this key",
                retry_after_s=(1 - bucket.tokens) * 60 / self._per_minute,
            )
        bucket.tokens -= 1
