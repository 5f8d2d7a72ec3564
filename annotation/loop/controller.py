"""Keeps all steps going, and serves what Label Studio and browsers call, in one process.

Each step has a thread's worth of time, a lease in the database, so that two controllers do not do it at once, and a
wait of its own after failures, so that the others go on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import uvicorn

from annotation.loop import metrics
from annotation.loop.context import Loop
from annotation.loop.faults import point
from annotation.loop.result import Result
from annotation.loop.server import create_app
from annotation.loop.steps import STEPS, Step
from services.errors import MedMaxError

SERVER_THREADS = 8

log = logging.getLogger(__name__)


@dataclass
class Controller:
    """
    Attributes:
        loop: what the steps work with; its `stopping` ends them.
        names: of the steps to keep going.
        holder: this process's name in leases.
        until_idle: end once a pass of every step found nothing to do.
    """

    loop: Loop
    names: tuple[str, ...] = tuple(STEPS)
    holder: str = field(default_factory=lambda: f"{os.getpid()}-{secrets.token_hex(4)}")
    until_idle: bool = False
    _wake: dict[str, asyncio.Event] = field(default_factory=dict)
    _idle: set[str] = field(default_factory=set)

    def run(self, listener: socket.socket | None = None) -> None:
        """Until SIGTERM, Ctrl-C or, with `until_idle`, until nothing is left to do. Blocks.

        Args:
            listener: a bound socket for the webhook and the pages; None serves nothing.
        """
        for name in self.names:
            STEPS[name].load()  # what is not installed must show now, not at the first item
        asyncio.run(self._run(listener))

    async def _run(self, listener: socket.socket | None) -> None:
        events = asyncio.get_running_loop()
        # A thread for every step, its heartbeat, and what the server reads and writes meanwhile.
        events.set_default_executor(ThreadPoolExecutor(2 * len(self.names) + SERVER_THREADS))
        self._wake = {name: asyncio.Event() for name in self.names}
        done = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            with suppress(NotImplementedError, RuntimeError, ValueError):  # not in a thread
                events.add_signal_handler(number, done.set)

        def woken() -> None:
            if "collect" in self._wake:
                events.call_soon_threadsafe(self._wake["collect"].set)

        server = _Server(create_app(self.loop, woken)) if listener is not None else None
        work = [asyncio.create_task(self._keep(STEPS[name], done), name=name) for name in self.names]
        if server is not None:
            work.append(asyncio.create_task(server.serve(sockets=[listener] if listener else None)))
        ended = asyncio.create_task(done.wait())
        try:
            # A step ends only by a defect of ours, which must be seen.
            await asyncio.wait([*work, ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.loop.stopping.set()
            done.set()
            for event in self._wake.values():
                event.set()
            if server is not None:
                server.should_exit = True
            await asyncio.gather(*work)
            ended.cancel()

    async def _keep(self, step: Step, done: asyncio.Event) -> None:
        settings = self.loop.settings.steps
        failures = 0
        while not done.is_set():
            begun = time.monotonic()
            result = await self._pass(step)
            metrics.note(step.name, time.monotonic() - begun, result)
            if result is None:
                failures, wait = 0, min(settings.interval_s, settings.lease_s / 2)
            elif result.said.get("error"):
                failures += 1
                wait = min(settings.backoff_s, settings.interval_s * 2 ** min(failures, 12))
            else:
                failures, wait = 0, step.interval_s(settings)
                if result.done:
                    for name in step.wakes:
                        if name in self._wake:
                            self._wake[name].set()
                    if result.left and not step.seldom:
                        wait = 0.0
            self._note_idle(step, result, done)
            await self._rest(step, wait)

    def _note_idle(self, step: Step, result: Result | None, done: asyncio.Event) -> None:
        if not self.until_idle:
            return
        if result is not None and not result.done and not result.said.get("error"):
            self._idle.add(step.name)
            if self._idle >= set(self.names):
                done.set()
        else:
            self._idle.clear()

    async def _rest(self, step: Step, wait: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake[step.name].wait(), wait)
        self._wake[step.name].clear()

    async def _pass(self, step: Step) -> Result | None:
        """One pass under the step's lease; None where another controller has it. Errors become `said["error"]`."""
        progress, lease = self.loop.store.progress, timedelta(seconds=self.loop.settings.steps.lease_s)
        try:
            if not await asyncio.to_thread(progress.begin, step.name, self.holder, lease):
                return None
            point(f"{step.name}.begun")
            beat = asyncio.create_task(self._beat(step))
            try:
                result = await asyncio.to_thread(one_pass, self.loop, step)
            finally:
                beat.cancel()
                with suppress(asyncio.CancelledError):
                    await beat
            point(f"{step.name}.ended")
            await asyncio.to_thread(
                progress.finish,
                step.name,
                self.holder,
                result.done,
                sum(result.failed.values()),
                str(result.said.get("error") or result.error),
            )
            return result
        except MedMaxError as error:  # the database itself
            log.warning("step %s: %s", step.name, error.code)
            return Result(said={"error": error.code})

    async def _beat(self, step: Step) -> None:
        """Prolongs the lease for as long as the pass takes."""
        lease_s = self.loop.settings.steps.lease_s
        while True:
            await asyncio.sleep(lease_s / 3)
            with suppress(MedMaxError):  # tried again a third of a lease later
                await asyncio.to_thread(
                    self.loop.store.progress.begin, step.name, self.holder, timedelta(seconds=lease_s)
                )


def one_pass(loop: Loop, step: Step) -> Result:
    """One pass of a step; what it raises becomes `said["error"]` and, for people, a line of the log."""
    try:
        return step.run(loop)
    except MedMaxError as error:
        if not loop.stopping.is_set():
            log.warning("step %s: %s", step.name, error)
        return Result(said={"error": error.code})
    except Exception as error:
        # A defect: its message may quote what it worked on, so only its kind and place are told.
        log.error("step %s: %s at %s", step.name, type(error).__name__, _place(error))
        return Result(said={"error": f"unforeseen_{type(error).__name__}"[:64]})


def _place(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return (
        "?" if trace is None else f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
    )


class _Server(uvicorn.Server):
    """Leaves signals to the controller."""

    def __init__(self, app: Any) -> None:
        super().__init__(
            uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=5)
        )

    def capture_signals(self) -> Any:
        from contextlib import nullcontext

        return nullcontext()
