"""What the steps work with, opened when it is first needed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from annotation.assign import Annotator, Crew, Desk
from annotation.core import Kind
from annotation.loop.secret import Secrets
from annotation.loop.settings import ReviewSettings
from annotation.store import ReviewStore
from annotation.store.ledger import utc_now
from services.config import Settings
from services.errors import ConfigurationError, Unavailable
from services.interactions import InteractionStore

if TYPE_CHECKING:
    from annotation.deid import Deidentifier
    from annotation.labelstudio.client import LabelStudio
    from annotation.labelstudio.pictures import PictureLinks
    from annotation.loop.drafts import Drafts
    from services.pb.medmax.v1 import assistant_pb2


class Loop:
    """One process's view of the review loop. Steps in several threads may share it.

    Args:
        settings: of the review.
        base: of the installation: database, object store, data folder, checkpoint.
        public_url: where Label Studio and browsers find this process, where the settings do not say it.
    """

    def __init__(
        self,
        settings: ReviewSettings,
        base: Settings,
        clock: Callable[[], datetime] = utc_now,
        public_url: str = "",
    ) -> None:
        self.settings, self.base, self.clock = settings, base, clock
        self.public_url = (settings.labelstudio.public_url or public_url).rstrip("/")
        self.hook_url = (settings.labelstudio.hook_url or self.public_url).rstrip("/")
        self.store = ReviewStore.open(base, clock)
        self.secrets = Secrets.of(settings, base.data_dir)
        self.crew = Crew(self.store.ledger)
        self.stopping = threading.Event()
        self._lock = threading.RLock()
        # Of its own: making projects may wait for a Label Studio that is slow.
        self._studio_lock = threading.RLock()
        self._has_projects = False
        self._studio: LabelStudio | None = None
        self._deidentifier: Deidentifier | None = None
        self._drafts: Drafts | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            if self._studio is not None:
                self._studio.connection.close()
            if self._drafts is not None:
                self._drafts.close()
            if "interactions" in self.__dict__:
                self.interactions.close()
            self.store.close()

    @cached_property
    def interactions(self) -> InteractionStore:
        return InteractionStore.open(self.base)

    def interaction(self, id: str) -> assistant_pb2.Interaction:
        """With its pictures' bytes. Raises: NotFound where it expired or is gone."""
        return asyncio.run(self.interactions.get(id, None, include_images=True))

    @property
    def desk(self) -> Desk:
        return Desk(self.store.ledger, self.settings.assign)

    @property
    def has_studio(self) -> bool:
        return bool(self.settings.labelstudio.url)

    @property
    def studio(self) -> LabelStudio:
        """Raises: ConfigurationError where no address or token is given."""
        from annotation.labelstudio import templates
        from annotation.labelstudio.client import LabelStudio
        from annotation.labelstudio.projects import Hook

        own = self.settings.labelstudio
        with self._studio_lock:
            if self._studio is None:
                if not own.url:
                    raise ConfigurationError("is not set", field="review.labelstudio.url")
                if not own.token.get_secret_value():
                    raise ConfigurationError("is not set", field="review.labelstudio.token")
                hook = None
                if self.hook_url:
                    hook = Hook(f"{self.hook_url}/labelstudio/webhook", self.secrets.webhook)
                self._studio = LabelStudio(
                    own.url,
                    own.token,
                    hook=hook,
                    reviewers=self.settings.judge.reviewers,
                    configs=own.configs or templates.FOLDER,
                    timeout_s=own.timeout_s,
                )
            return self._studio

    @property
    def ready_studio(self) -> LabelStudio:
        """Its projects known, made by one thread alone. Raises what Label Studio answers, too."""
        with self._studio_lock:
            studio = self.studio
            if not self._has_projects:
                studio.ensure_projects()
                self._has_projects = True
            return studio

    @property
    def links(self) -> PictureLinks:
        """Raises: ConfigurationError where it is not known where browsers find this process."""
        from annotation.labelstudio.pictures import PictureLinks

        if not self.public_url:
            raise ConfigurationError(
                "is not set, so experts' browsers would find no pictures",
                field="review.labelstudio.public_url",
            )
        return PictureLinks(self.public_url, self.secrets.pictures, self.settings.labelstudio.picture_days)

    @property
    def deidentifier(self) -> Deidentifier:
        """With a reader of text on pictures. Raises: ConfigurationError where the extra `deid` is not installed."""
        from annotation.deid import Deidentifier, RapidReader

        with self._lock:
            if self._deidentifier is None:
                self._deidentifier = Deidentifier(
                    RapidReader(), allowed=frozenset(self.settings.allowed_words)
                )
            return self._deidentifier

    @property
    def drafts(self) -> Drafts:
        """Raises: Unavailable where the settings name no assistant."""
        from annotation.loop.drafts import Drafts

        with self._lock:
            if self._drafts is None:
                if not self.settings.assistant.url:
                    raise Unavailable("no assistant is set", field="review.assistant.url")
                self._drafts = Drafts(self.settings.assistant, self.base)
            return self._drafts

    @property
    def adjudicators(self) -> frozenset[str]:
        """Of the settings and of the crew."""
        crew = {each.id for each in self.crew.all() if each.adjudicator}
        return self.settings.judge.adjudicators | crew

    @property
    def folder(self) -> Path:
        """Of trainings, evaluations and models."""
        return self.base.data_dir / "review"

    @property
    def datasets(self) -> Path:
        return self.settings.dataset.root or self.base.data_dir / "datasets"

    @property
    def checkpoint(self) -> Path:
        """The model in service: the one promoted last, else the installation's."""
        serving = self.store.versions.serving()
        return Path(serving.path) if serving is not None else self.base.checkpoint

    def setup(self) -> dict[str, int]:
        """Enrol the experts of the settings, and make the projects; their numbers by kind."""
        known = {each.id: each for each in self.crew.all()}
        for expert in self.settings.experts:
            wanted = Annotator(**expert.model_dump())
            if known.get(wanted.id) != wanted:
                self.crew.put(wanted)
        if not self.has_studio:
            return {}
        return {kind.value: self.ready_studio.project(kind).id for kind in Kind}
