"""Tensor parallelism: one process a rank, rank 0 in the engine's own process.

    rank 0 (engine) ──pipe: what to compute──► ranks 1…n-1 (`python -m services.llm.parallel`)
        └────────── torch.distributed: token ids, sums of partial results ──────────┘

A rank that dies breaks the next sum, or the health check where nothing runs: the engine then fails every caller, and
whoever runs the replica replaces it. Ranks whose rank 0 is gone end by themselves.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed

from services.checkpoint import Checkpoint
from services.checkpoint.adapter import Adapter
from services.errors import CheckpointError, ConfigurationError, MedMaxError, Unavailable
from services.llm.compute import Computer, Work
from services.llm.fused import forward_for
from services.llm.group import Group, TorchGroup
from services.llm.kv_cache import KVCache
from services.llm.load import load_state
from services.llm.runner import Runner
from services.llm.step import Chunk, Share, Step

log = logging.getLogger(__name__)

_START_S = 600
_SUM_S = 60
_END_S = 10
_GONE_S = 1


@dataclass(frozen=True)
class Part:
    """What every rank of a group builds its part of the model from."""

    checkpoint: Checkpoint
    size: int
    device: str
    dtype: torch.dtype
    places: int
    blocks: int
    threads: int
    touch: bool
    adapters: tuple[Adapter, ...] = ()

    def build(self, group: Group) -> tuple[Computer, KVCache]:
        """This rank's computer.

        Raises:
            CheckpointError: the weights are damaged, or do not divide among the ranks.
        """
        device = f"cuda:{group.rank}" if self.device == "cuda" else self.device
        state = load_state(self.checkpoint, device, self.dtype, group.rank, group.size)
        runner = Runner(self.checkpoint.config, state, group, self.adapters)
        cache = KVCache(runner.config, self.blocks, self.dtype, runner.device, group.size)
        if self.touch:
            cache.touch()
        forward = forward_for(runner, cache, self.threads, self.places)
        return Computer(runner, forward, self.checkpoint.vocabulary, self.places, self.threads), cache


class Team:
    """Rank 0's side: computes with the others. From one thread; `check` and `close` from any."""

    def __init__(self, part: Part) -> None:
        """Starts the other ranks and returns once every one has its weights.

        Raises:
            CheckpointError: as `Part.build`.
            ConfigurationError: this process has a process group already, or too few devices.
            Unavailable: a rank did not start.
        """
        if distributed.is_initialized():
            raise ConfigurationError("one engine of a process may be shared", field="MEDMAX_TENSOR_PARALLEL")
        if part.device == "cuda" and torch.cuda.device_count() < part.size:
            raise ConfigurationError(
                f"{torch.cuda.device_count()} CUDA devices are here, {part.size} needed",
                field="MEDMAX_TENSOR_PARALLEL",
            )
        self._workers: list[tuple[subprocess.Popen[bytes], Connection]] = []
        self._folder = tempfile.TemporaryDirectory(prefix="medmax-ranks-")
        try:
            meeting = Path(self._folder.name, "meeting").as_uri()
            for rank in range(1, part.size):
                self._workers.append(_start())
                self._workers[-1][1].send((rank, meeting, part))
            self.computer, self.cache = part.build(_join(part, 0, meeting))
            for _, pipe in self._workers:
                if not pipe.poll(_START_S):
                    raise Unavailable("a tensor-parallel rank did not start in time")
                failure = pipe.recv()
                if failure is not None:
                    raise failure
        except (EOFError, OSError, RuntimeError) as error:
            log.exception("a rank did not start")
            self.close()
            raise Unavailable("a tensor-parallel rank ended while starting") from error
        except MedMaxError:
            self.close()
            raise

    def __call__(self, work: Work) -> tuple[Tensor | None, Tensor | None]:
        """As `Computer.__call__`, on every rank.

        Raises:
            Unavailable: a rank is gone.
        """
        message = _packed(work)
        try:
            for _, pipe in self._workers:
                pipe.send(message)
            self.computer.runner.group.share(work.step.ids)
            return self.computer(work)
        except (OSError, RuntimeError) as error:
            # Its connections break a little before it can be seen to have ended.
            for process, _ in self._workers:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_GONE_S)
            self.check()
            raise error

    def check(self) -> None:
        """Raises: Unavailable where a rank is gone."""
        for process, _ in self._workers:
            if process.poll() is not None:
                raise Unavailable("a tensor-parallel rank has ended", retry_after_s=1.0)

    def close(self) -> None:
        """End the other ranks."""
        for _, pipe in self._workers:
            pipe.close()
        for process, _ in self._workers:
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._workers = []
        if distributed.is_initialized():
            distributed.destroy_process_group()
        self._folder.cleanup()


def _start() -> tuple[subprocess.Popen[bytes], Connection]:
    """A rank's process and the pipe to it."""
    with ExitStack() as stack:
        here, there = (stack.enter_context(end) for end in socket.socketpair())
        process = subprocess.Popen(
            [sys.executable, "-m", "services.llm.parallel", str(there.fileno())],
            pass_fds=(there.fileno(),),
            stdin=subprocess.DEVNULL,
            cwd=Path(__file__).resolve().parent.parent.parent,
        )
        return process, Connection(here.detach())


def _join(part: Part, rank: int, meeting: str) -> TorchGroup:
    # Ranks share one machine: nothing of theirs listens beyond it.
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, "lo")
    if part.device == "cuda":
        torch.cuda.set_device(rank)
    distributed.init_process_group(
        "nccl" if part.device == "cuda" else "gloo",
        init_method=meeting,
        rank=rank,
        world_size=part.size,
        timeout=timedelta(seconds=_SUM_S),
    )
    return TorchGroup()


def _packed(work: Work) -> tuple[Any, ...]:
    """Work without its token ids, which go from device to device."""
    step = work.step
    arrays = (step.rows, step.positions, step.tables, step.last, step.ends, work.text, work.codes)
    chunks = tuple((c.start, c.count, c.row, c.position) for c in step.chunks)
    shares = tuple((s.adapter, None if s.tokens is None else s.tokens.cpu().numpy()) for s in step.shares)
    return tuple(array.cpu().numpy() for array in arrays), step.singles, step.extent, chunks, shares


def _unpacked(message: tuple[Any, ...], group: Group, device: torch.device) -> Work:
    def tensor(array: Any) -> Tensor:
        return torch.from_numpy(np.array(array)).to(device)

    arrays, singles, extent, chunks, shares = message
    rows, positions, tables, last, ends, text, codes = map(tensor, arrays)
    step = Step(
        ids=group.share(torch.empty_like(rows)),
        rows=rows,
        positions=positions,
        tables=tables,
        singles=singles,
        extent=extent,
        chunks=tuple(Chunk(*chunk) for chunk in chunks),
        last=last,
        ends=ends,
        shares=tuple(Share(adapter, None if n is None else tensor(n)) for adapter, n in shares),
    )
    return Work(step, text, codes)


def follow(pipe: Connection) -> None:
    """A rank's life: builds its part, then computes what rank 0 says until rank 0 hangs up."""
    rank, meeting, part = pipe.recv()
    torch.set_num_threads(part.threads)
    try:
        computer, _ = part.build(group := _join(part, rank, meeting))
    except CheckpointError as error:
        pipe.send(error)
        return
    pipe.send(None)
    with torch.inference_mode():
        while True:
            try:
                message = pipe.recv()
            except (EOFError, ConnectionError):
                return
            computer(_unpacked(message, group, computer.runner.device))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    follow(Connection(int(sys.argv[1])))
