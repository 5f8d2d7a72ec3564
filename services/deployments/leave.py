"""Takes this Ray node out of service without cutting anyone off: what a pod runs before it is ended.

    python -m services.deployments.leave --seconds 300

Ray is told that the node goes away. Serve then starts replacements elsewhere, sends new requests there, and lets
the replicas here finish theirs. Returns once none is left, or when the time is over.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from services.deployments.processes import Process, named

REPLICA = "ray::ServeReplica"  # how Ray titles the process of a replica
POLL_S = 0.5


def leave(seconds: float, node_id: str = "") -> bool:
    """Drains a node of Ray; True once the replicas of this machine (pod) are gone, False when `seconds` are over.

    Args:
        node_id: Ray's, hex; empty = this machine's node.

    Raises:
        RuntimeError: Ray refused; the message is Ray's.
    """
    limit = time.monotonic() + seconds
    leaving = replicas()
    told = subprocess.run(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "drain-node"),
            *("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "its pod ends"),
            *("--deadline-remaining-seconds", str(round(seconds))),
            *(("--node-id", node_id) if node_id else ()),
        ],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    if told.returncode:
        raise RuntimeError(f"Ray did not let this node leave: {told.stderr.strip()[-500:]}")
    while leaving & replicas():
        if time.monotonic() > limit:
            return False
        time.sleep(POLL_S)
    return True


def replicas() -> set[Process]:
    """Replicas of Ray Serve in this pod (this machine, outside of one)."""
    return named(REPLICA)


def main() -> None:
    """Exit status 0 when every replica left in time, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m services.deployments.leave", description=__doc__)
    parser.add_argument("--seconds", type=float, required=True, help="time that may be taken")
    try:
        left = leave(parser.parse_args().seconds)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        raise SystemExit(f"error: {error}") from None
    raise SystemExit(0 if left else 1)


if __name__ == "__main__":
    main()
