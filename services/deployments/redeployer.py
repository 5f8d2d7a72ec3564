"""The stack's half of a roll-out on one machine: it deploys what is wanted and writes down what Serve makes of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from pydantic import ValidationError

from services.checkpoint import open_checkpoint
from services.config import Settings
from services.deployments.processes import this
from services.deployments.redeploy import Desk, Observed, Wanted
from services.errors import MedMaxError
from services.llm.load import open_adapters

log = logging.getLogger(__name__)
STATUS_S = 1.0


def deploy(settings: Settings) -> None:
    """Gives Serve the application; returns before it is up. Replicas of an earlier one are replaced in place."""
    from ray import serve

    from services.app import APPLICATION, build

    serve.run_many(
        [serve.RunTarget(build(settings), name=APPLICATION, route_prefix="/")],
        wait_for_ingress_deployment_creation=False,
        wait_for_applications_running=False,
    )


class Redeployer:
    """
    Args:
        settings: the stack's own, with its ports.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = self._deployed = settings
        self._desk = Desk(settings.data_dir, settings.http_port)
        self._observed = Observed(*this(), generation=0)
        self._looked = 0.0
        self._off = False

    def begin(self) -> None:
        """Writes down what is served now, in place of what an earlier stack was told."""
        self._trying(self._begin)

    def step(self) -> None:
        """Deploys what is wanted where that changed; a look at Serve once a second."""
        if not self._off:
            self._trying(self._step)

    def _trying(self, work: Callable[[], None]) -> None:
        """Serving goes on where the data folder cannot be written; roll-outs end then."""
        try:
            work()
        except OSError as error:
            self._off = True
            log.warning(
                "the model cannot be changed while this serves: %s below MEDMAX_DATA_DIR", error.strerror
            )

    def _begin(self) -> None:
        settings, before = self._settings, self._desk.wanted()
        vqgan = str(settings.vqgan.resolve()) if settings.vqgan else ""
        generation = before.generation + 1 if before else 1
        wanted = Wanted(generation, "", str(settings.checkpoint.resolve()), settings.model_id, vqgan)
        self._desk.want(wanted, instead_of=None)
        self._observed.generation = generation
        self._look(force=True)

    def _step(self) -> None:
        wanted = self._desk.wanted()
        if wanted is not None and wanted.generation != self._observed.generation:
            self._act(wanted)
        self._look()

    def _act(self, wanted: Wanted) -> None:
        refused = ""
        try:
            settings = self._settings_for(wanted)
            checkpoint = open_checkpoint(settings.checkpoint, settings.vqgan)
            if settings.adapters and not settings.llm_address:
                open_adapters(settings, checkpoint)
            if settings != self._deployed:  # Serve would replace every replica by one that is the same
                self._deployed = settings
                deploy(settings)
        except MedMaxError as error:
            refused = str(error)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            refused = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        if refused:
            log.warning("a change of the model was refused: %s", refused)
        self._observed = replace(self._observed, generation=wanted.generation, refused=refused)
        self._look(force=True)

    def _settings_for(self, wanted: Wanted) -> Settings:
        change = {"checkpoint": wanted.checkpoint, "model_id": wanted.model_id, "vqgan": wanted.vqgan or None}
        settings = Settings(**{**self._settings.model_dump(), **change})
        start = self._settings
        unchanged = (start.checkpoint.resolve(), start.model_id, start.vqgan and start.vqgan.resolve())
        same = (settings.checkpoint, settings.model_id, settings.vqgan) == unchanged
        return start if same else settings

    def _look(self, force: bool = False) -> None:
        """Writes down Serve's status where it changed."""
        from ray import serve
        from ray.exceptions import RayError

        from services.app import APPLICATION

        if not force and time.monotonic() - self._looked < STATUS_S:
            return
        self._looked = time.monotonic()
        try:
            application = serve.status().applications.get(APPLICATION)
        except (RayError, TimeoutError) as error:
            log.warning("Serve does not tell its status: %s", type(error).__name__)
            return
        seen = replace(
            self._observed,
            status=str(getattr(application, "status", "NOT_STARTED")).rpartition(".")[2],
            message=str(getattr(application, "message", ""))[:1000],
            deployments={
                str(name): str(each.status).rpartition(".")[2]
                for name, each in (application.deployments.items() if application else ())
            },
        )
        if seen != self._observed or force:
            self._observed = seen
            self._desk.observe(seen)
