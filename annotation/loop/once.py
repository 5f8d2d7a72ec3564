"""Steps by hand."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from datetime import timedelta

from annotation.loop.context import Loop
from annotation.loop.result import Result
from annotation.loop.steps import STEPS
from services.errors import MedMaxError


def once(loop: Loop, names: Iterable[str]) -> dict[str, Result]:
    """A pass of each of the steps, in this order, each under its lease; for the command line.

    Raises:
        MedMaxError: what a step raises.
    """
    holder, lease = f"{os.getpid()}-{secrets.token_hex(4)}", timedelta(seconds=loop.settings.steps.lease_s)
    found: dict[str, Result] = {}
    for name in names:
        if not loop.store.progress.begin(name, holder, lease):
            found[name] = Result(said={"busy": "another controller is at this step"})
            continue
        result = Result()
        error = ""
        try:
            result = found[name] = STEPS[name].run(loop)
        except MedMaxError as failure:
            error = failure.code
            raise
        finally:
            loop.store.progress.finish(
                name, holder, result.done, sum(result.failed.values()), error or result.error
            )
    return found
