"""Takes this Ray node out of service without cutting anyone off: what a pod runs before it is ended.

    python -m services.deployments.leave --seconds 300

Ray is told that the node goes away. Serve then starts replacements of its replicas elsewhere, sends new requests there,
and lets the replicas and the proxy here finish theirs. Returns once none is left, or when the time is over.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass

from services.deployments.processes import Process, arguments, descendants, running

# How Ray titles the processes that requests pass through.
AT_WORK = ("ray::ServeReplica", "ray::ProxyActor")
POLL_S = 0.5


@dataclass(frozen=True)
class Node:
    """A Ray node on this machine, as its raylet's command line names it.

    Attributes:
        id: Ray's, hex.
        cluster: host:port of the cluster's head service.
    """

    raylet: Process
    id: str
    cluster: str

    @property
    def at_work(self) -> set[Process]:
        """Replicas and proxies of Ray Serve on this node; no other node's, which may share the machine."""
        below = descendants(self.raylet.pid)
        return {each for each in below if "".join(arguments(each)[:1]).startswith(AT_WORK)}

    @classmethod
    def find(cls, node_id: str = "") -> Node:
        """The node of this pod (this machine, outside of one).

        Args:
            node_id: Ray's, hex; needed where several nodes share the machine.

        Raises:
            RuntimeError: there is none, or there are several.
        """
        found = []
        for process in running():
            program, *rest = arguments(process) or [""]
            options = dict(each.removeprefix("--").split("=", 1) for each in rest if "=" in each)
            if program.endswith("/raylet") and node_id in {"", options.get("node_id")}:
                found.append(cls(process, options["node_id"], options["gcs-address"]))
        if not found:
            raise RuntimeError("no such Ray node runs here" if node_id else "no Ray node runs here")
        if len(found) > 1:
            raise RuntimeError("several Ray nodes run here; name one with --node-id")
        return found[0]


def leave(seconds: float, node_id: str = "") -> bool:
    """Drains the node; True once its replicas and proxy are gone, False when `seconds` are over.

    Args:
        node_id: Ray's, hex; empty = this machine's only node.

    Raises:
        RuntimeError: no such node, or Ray refused; the message is Ray's.
    """
    limit = time.monotonic() + seconds
    node = Node.find(node_id)
    told = subprocess.run(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "drain-node"),
            *("--address", node.cluster, "--node-id", node.id),
            *("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "its pod ends"),
            *("--deadline-remaining-seconds", str(round(seconds))),
        ],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    if told.returncode:
        raise RuntimeError(f"Ray did not let this node leave: {told.stderr.strip()[-500:]}")
    while node.at_work:
        if time.monotonic() > limit:
            return False
        time.sleep(POLL_S)
    return True


def main() -> None:
    """Exit status 0 when all that was at work left in time, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m services.deployments.leave", description=__doc__)
    parser.add_argument("--seconds", type=float, required=True, help="time that may be taken")
    parser.add_argument("--node-id", default="", help="Ray's; needed where several nodes share the machine")
    given = parser.parse_args()
    try:
        left = leave(given.seconds, given.node_id)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        raise SystemExit(f"error: {error}") from None
    if not left:
        raise SystemExit("error: the time is over and requests are still at work here")


if __name__ == "__main__":
    main()
