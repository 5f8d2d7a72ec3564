"""A node leaves the cluster: its replica moves, and what it is at is finished."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# In a process of its own: Ray reads its environment once.
SCRIPT = """
import os, threading, time
import ray
from ray import serve
from ray.cluster_utils import Cluster
from services.deployments.leave import leave, replicas

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
first = cluster.add_node(num_cpus=1)
ray.init(cluster.address, log_to_driver=False)

@serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": 1}, graceful_shutdown_timeout_s=60)
class Slow:
    async def __call__(self, seconds: float) -> str:
        import asyncio
        await asyncio.sleep(seconds)
        return ray.get_runtime_context().get_node_id()

handle = serve.run(Slow.bind(), route_prefix=None)
assert handle.remote(0).result() == first.node_id
assert len(replicas()) == 1
cluster.add_node(num_cpus=1)
os.environ["RAY_ADDRESS"] = cluster.address  # as KubeRay sets it
long = handle.remote(20)
time.sleep(1)
took, begun = [], time.monotonic()

def ask():
    while not took:
        handle.remote(0).result()
        time.sleep(0.1)

asking = threading.Thread(target=ask)
asking.start()
gone = leave(150, first.node_id)
took.append(time.monotonic() - begun)
asking.join()
print("gone", gone)
print("waited for the answer", took[0] > 5)
print("answered by the node that left", long.result() == first.node_id)
print("moved", handle.remote(0).result() != first.node_id)
serve.shutdown()
ray.shutdown()
cluster.shutdown()
"""


def test_a_node_that_leaves_finishes_its_answers_and_hands_its_replicas_on(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)],
        cwd=ROOT,
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "PYTHONPATH": str(ROOT),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
            "RAY_raylet_start_wait_time_s": "240",
        },
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    assert found.stdout.splitlines()[-4:] == [
        "gone True",
        "waited for the answer True",
        "answered by the node that left True",
        "moved True",
    ]
