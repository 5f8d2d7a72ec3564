"""What the figures were taken on and with."""

from __future__ import annotations

import os
import platform
import re
import resource
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from loadtests.engine.client import ROOT

_PACKAGES = ("torch", "transformers", "numba", "numpy")


def machine(threads: int) -> dict[str, Any]:
    """Processor, cores, memory in GiB, system, threads given to every engine, and load average before the first round."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "threads": threads,
        "load_average_1m": round(os.getloadavg()[0], 2),
    }


class Watch:
    """How busy other processes kept the machine meanwhile."""

    def __init__(self) -> None:
        self._start, self._busy, self._own = time.monotonic(), _busy_s(), _own_s()

    def cores_busy_elsewhere(self) -> float:
        """Cores, on average since the start; ask once the workers have ended, since only then is their time known."""
        elapsed = time.monotonic() - self._start
        others = (_busy_s() - self._busy) - (_own_s() - self._own)
        return round(max(0.0, others / elapsed), 2)


class Meter:
    """How many cores others keep busy while workers run; others slow engines that spin far more than ours."""

    def __init__(self, sessions: set[int]) -> None:
        """sessions: of the workers."""
        self._sessions = sessions
        self._start, self._busy, self._own = time.monotonic(), _busy_s(), self._own_s()

    def cores(self) -> float:
        """On average since the start."""
        elapsed = max(time.monotonic() - self._start, 0.01)
        return max(0.0, (_busy_s() - self._busy - self._own_s() + self._own) / elapsed)

    def _own_s(self) -> float:
        own = resource.getrusage(resource.RUSAGE_SELF)
        return own.ru_utime + own.ru_stime + sum(map(self._process_s, Path("/proc").glob("[0-9]*/stat")))

    def _process_s(self, stat: Path) -> float:
        try:
            # The second field is a name in parentheses, which may hold blanks.
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        mine = int(fields[3]) in self._sessions
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK") if mine else 0.0


def wait_quiet(limit_cores: float, patience_s: float) -> float:
    """Wait until others keep at most so many cores busy, but no longer than that; how long it took, in seconds."""
    start = time.monotonic()
    while (spent := time.monotonic() - start) < patience_s:
        meter = Meter(set())
        time.sleep(1.0)
        if meter.cores() <= limit_cores:
            break
    return spent


def _busy_s() -> float:
    """Seconds that all cores together have worked; 0 where the system does not tell."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system, _, _, irq, softirq = map(int, stat.read_text().split(maxsplit=8)[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    """Seconds that this process and those that it has waited for have worked."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def versions() -> dict[str, str]:
    """Of Python, of the packages that ours runs on, and the commit."""
    found = {"python": platform.python_version(), "commit": _commit()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    fields = {key: match[1] for key in ("model name", "cpu family", "model") if (match := _field(text, key))}
    name = fields.get("model name", platform.processor() or platform.machine())
    if "cpu family" in fields:
        name += f" (family {fields['cpu family']}, model {fields['model']})"
    flags = _field(text, "flags")
    wide = [
        flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_tile") if flags and flag in flags[1].split()
    ]
    return f"{name}, {' '.join(wide)}" if wide else name


def _field(text: str, name: str) -> re.Match[str] | None:
    return re.search(rf"^{name}\s*:\s*(.+)$", text, re.MULTILINE)


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
