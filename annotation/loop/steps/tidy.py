"""What must go, goes: expired interactions' items, reservations that were held too long."""

from __future__ import annotations

from annotation.loop.context import Loop
from annotation.loop.result import Result


def run(loop: Loop) -> Result:
    """Withdraw, delete pictures that nothing needs, take reservations back."""
    swept = loop.store.retention.sweep()
    expired = loop.desk.expire()
    said = {"withdrawn": swept.withdrawn, "pictures": swept.pictures, "reservations_expired": expired}
    if swept.versions:
        said["versions_with_withdrawn"] = len(swept.versions)
    return Result(done=swept.withdrawn + expired, said=said)
