"""Several workers through Ray Train: a group of processes on this machine, or on a cluster that shares the job's folders."""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from services.errors import MedMaxError, Unavailable
from training.failures import take_failure, write_failure
from training.lora.recipe import Job
from training.lora.state import LOG

_POLL_S = 0.3
_TRIES = 2


@contextmanager
def ray_for(cpus: int) -> Iterator[Any]:
    """The cluster that RAY_ADDRESS names; else a Ray of this machine's own, on loopback, gone at the end."""
    own = not os.environ.get("RAY_ADDRESS")
    if own:
        os.environ.update(
            RAY_USAGE_STATS_ENABLED="0",
            RAY_AUTH_MODE="token",
            RAY_AUTH_TOKEN=secrets.token_hex(32),
            RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",  # every process of it binds to loopback
        )
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if own:
        quiet |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": 100 << 20}
    ray.init(address="local" if own else None, **quiet)
    try:
        yield ray
    finally:
        ray.shutdown()


def learn_with_workers(job: Job, tell: Callable[[dict[str, Any]], None]) -> None:
    """All steps that are left, shared by `job.workers` processes; a group that loses one starts again from the last save.

    Raises:
        MedMaxError: what a worker raised.
        Unavailable: workers went away more often than is tried again.
    """
    with ray_for(job.workers + 1):
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        gpu = job.device == "cuda"
        trainer = TorchTrainer(
            _worker,
            train_loop_config={"work": str(job.work)},
            scaling_config=ScalingConfig(num_workers=job.workers, use_gpu=gpu),
            run_config=RunConfig(
                name="ray", storage_path=str(job.work), failure_config=FailureConfig(max_failures=_TRIES)
            ),
            torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        )
        shutil.rmtree(job.work / "ray", ignore_errors=True)  # of a run that was stopped
        failure = job.work / "failure.json"
        failure.unlink(missing_ok=True)
        with _following(job.work / LOG, tell):
            try:
                trainer.fit()
            except Exception as error:  # of Ray's many kinds
                if (known := take_failure(failure)) is not None:
                    raise known from None
                cause = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
                raise Unavailable(f"the workers failed {_TRIES + 1} times: {cause}") from error
        if (known := take_failure(failure)) is not None:
            raise known


def _worker(config: dict[str, Any]) -> None:
    """In a process of Ray Train, whose process group is up."""
    from services.llm.group import TorchGroup
    from training.lora.run import learn_as

    work = Path(config["work"])
    try:
        learn_as(Job.read(work), TorchGroup())
    except MedMaxError as error:
        # Trying again would not help. Every rank meets it, or waits for one that did until its exchange fails.
        write_failure(work / "failure.json", error)
        raise


@contextmanager
def _following(log: Path, tell: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Tells every new line of the log while it lasts."""
    done = threading.Event()
    position = log.stat().st_size if log.exists() else 0

    def follow() -> None:
        nonlocal position
        while True:
            last = done.wait(_POLL_S)
            size = log.stat().st_size if log.exists() else 0
            position = min(position, size)  # a group that starts again takes lines back
            if size > position:
                with log.open("rb") as file:
                    file.seek(position)
                    whole = file.read(size - position).rpartition(b"\n")[0]
                for line in whole.splitlines():
                    tell(json.loads(line))
                position += len(whole) + bool(whole)
            if last:
                return

    thread = threading.Thread(target=follow, name="training log")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
