"""A Ray node leaves the cluster: its replica moves, and what its replica and its proxy are at is finished."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# In a process of its own: Ray reads its environment once, and nodes of others may run on this machine.
SCRIPT = """
import concurrent.futures, json, subprocess, sys, time
import httpx, ray
from ray import serve
from ray.cluster_utils import Cluster
from services.deployments.cluster import free_port

PORT = free_port("127.0.0.1")  # of every proxy: on one machine they share it
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
leaving = cluster.add_node(num_cpus=1)
ray.init(cluster.address, log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": PORT, "location": "EveryNode", "keep_alive_timeout_s": 600})

@serve.deployment(num_replicas=2, max_ongoing_requests=1, graceful_shutdown_timeout_s=60,
                  ray_actor_options={"num_cpus": 1})
class Slow:
    async def __call__(self, request) -> str:
        return await self.wait(float(request.query_params["seconds"]))

    async def wait(self, seconds: float) -> str:
        import asyncio
        await asyncio.sleep(seconds)
        return ray.get_runtime_context().get_node_id()

handle = serve.run(Slow.bind())

def ask(client, seconds):
    return client.get(f"http://127.0.0.1:{PORT}/?seconds={seconds}")

def through(node):
    '''A client whose connection is at this node's proxy, which prefers the replica beside it.'''
    while True:
        client = httpx.Client(timeout=200, trust_env=False, limits=httpx.Limits(max_connections=1))
        try:
            if {ask(client, 0).text for _ in range(3)} == {node.node_id}:
                return client
        except httpx.TransportError:
            pass
        time.sleep(0.1)  # the second proxy starts a moment after the first

def leave(*arguments):
    return subprocess.run([sys.executable, "-m", "services.deployments.leave", *arguments],
                          capture_output=True, text=True)

several = leave("--seconds", "5")
here = [through(leaving), through(leaving)]
threads = concurrent.futures.ThreadPoolExecutor(16)
# Both through the proxy of the node that leaves. Its replica takes one; the longer one goes to the other node's.
short = threads.submit(ask, here[0], 4)
time.sleep(1)
long = threads.submit(ask, here[1], SECONDS)
time.sleep(1)
third = cluster.add_node(num_cpus=1)
gone = threads.submit(leave, "--seconds", "150", "--node-id", leaving.node_id)
asked = []
while not gone.done():
    asked.append(threads.submit(lambda: handle.wait.remote(0).result()))
    time.sleep(0.5)
given = [short.done(), long.done()]
answers = [short.result(), long.result()]
after = [each.result() for each in [handle.wait.remote(0.5) for _ in range(4)]]
print("FOUND" + json.dumps({
    "several": [several.returncode, several.stderr.strip()],
    "left": [gone.result().returncode, gone.result().stderr],
    "given": given,
    "two": [each.status_code for each in answers],
    "by": ["leaving" if each.text == leaving.node_id else "other" for each in answers],
    "meanwhile": len([each.result() for each in asked]),
    "after": sorted({{leaving.node_id: "leaving", third.node_id: "third"}.get(each, "head") for each in after}),
}), flush=True)
serve.shutdown()
ray.shutdown()
cluster.shutdown()
"""
SECONDS = 16


@pytest.mark.slow
def test_a_node_that_leaves_finishes_its_answers_and_hands_its_replicas_on(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT.replace("SECONDS", str(SECONDS)))],
        cwd=ROOT,
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # every process of Ray on loopback
            "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "1",  # 30 by default
            "RAY_raylet_start_wait_time_s": "240",
        },
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    lines = [line for line in run.stdout.splitlines() if line.startswith("FOUND")]
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(lines[0].removeprefix("FOUND"))
    assert found["several"] == [1, "error: several Ray nodes run here; name one with --node-id"]
    assert found["left"] == [0, ""]
    assert found["two"] == [200, 200], "answers that were at work are given"
    assert found["by"] == ["leaving", "other"], (
        "the proxy of the node that left was at the second, its replica was not"
    )
    assert found["given"] == [True, True], "it waited for its proxy, too"
    assert found["meanwhile"] > 5, "and none of these failed"
    assert found["after"] == ["head", "third"], "the replica has moved"


def test_where_no_ray_node_runs_it_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "services.deployments.leave", "--seconds", "1", "--node-id", "0" * 56]
    run = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    assert (run.returncode, run.stderr) == (1, b"error: no such Ray node runs here\n")
