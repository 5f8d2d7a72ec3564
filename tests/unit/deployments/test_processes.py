"""Finding and ending processes below this one."""

import os
import subprocess
import sys

from services.deployments.processes import descendants, end

TREE = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
print(child.pid, flush=True)
sys.stdin.read()
"""


def test_grandchildren_are_found_and_ended() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", TREE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    grandchild = int(parent.stdout.readline())
    found = {process for process in descendants() if process.pid in {parent.pid, grandchild}}
    assert len(found) == 2
    assert descendants(parent.pid) == {process for process in found if process.pid == grandchild}
    assert sorted(end(found, 0.1)) == sorted([parent.pid, grandchild])
    parent.wait()
    assert end(found, 1.0) == [], "those gone are not killed again"
    assert os.getpid() not in {process.pid for process in descendants()}
