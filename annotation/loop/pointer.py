"""`current`: a link to the checkpoint in service, which `medmax serve --checkpoint …/current` serves."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from annotation.loop.context import Loop
from services.errors import CheckpointError, Unavailable

CURRENT = "current"
ROLLED_OUT = "promote.rolled_out"
_LIMIT_S = 3600


def path(loop: Loop) -> Path:
    return loop.folder / CURRENT


def follow(loop: Loop) -> bool:
    """Let `current` name the model that the database says is in service; True where it named another one.

    Raises:
        CheckpointError: that model's folder is gone.
    """
    target = loop.checkpoint.absolute()
    if not target.is_dir():
        raise CheckpointError(f"the checkpoint in service, {target.name}, is not there")
    link = path(loop)
    if link.is_symlink() and Path(os.readlink(link)) == target:
        return False
    link.parent.mkdir(parents=True, exist_ok=True)
    part = link.with_name(f"{CURRENT}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    part.symlink_to(target)
    part.replace(link)  # at once: whoever opens it finds the old one or the new one
    return True


def roll_out(loop: Loop) -> bool:
    """Run the settings' command where what is in service was not rolled out yet; True where it ran.

    Raises:
        Unavailable: it failed or took over an hour; the step runs it again.
    """
    command, target = loop.settings.promote.roll_out, str(loop.checkpoint.absolute())
    known = loop.store.progress.cursor(ROLLED_OUT)
    if known == target or (known is None and loop.store.versions.serving() is None):
        return False
    if command:
        environment = {**os.environ, "MEDMAX_CHECKPOINT": str(path(loop).absolute())}
        try:
            done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL, timeout=_LIMIT_S, check=False)  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"the command of roll-out failed: {type(error).__name__}") from None
        if done.returncode:
            raise Unavailable(f"the command of roll-out ended with status {done.returncode}")
    loop.store.progress.set_cursor(ROLLED_OUT, target)
    return bool(command)
