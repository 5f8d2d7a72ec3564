"""The review loop's state: everything that its steps know of each other."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Engine

from annotation.store.annotations import Annotations
from annotation.store.audit import Audit
from annotation.store.candidates import Candidates
from annotation.store.figures import Figures
from annotation.store.inbox import Inbox
from annotation.store.items import Items
from annotation.store.judgements import Judgements
from annotation.store.ledger import Ledger, utc_now
from annotation.store.progress import Progress
from annotation.store.resamples import Resamples
from annotation.store.retention import Retention
from annotation.store.schema import item_pictures, pictures
from annotation.store.versions import Versions
from services.config import Settings
from services.interactions.database import History, connect, database_url, guarded, migrate
from services.interactions.pictures import PictureStore
from services.interactions.shelf import Shelf

REVIEW = History("annotation.store:migrations", "review_version")


class ReviewStore:
    """One process's view of the review loop's database, which is the interactions' own.

    Any number of processes and threads may use it at once. Methods block; call them from a thread where an event
    loop runs. All raise `Unavailable` where the database or the object store is out of reach.

    Attributes:
        candidates: interactions that may be routed.
        items: from routed to published, and withdrawn.
        inbox: what the webhook said.
        annotations, judgements: what experts said, and what it comes to.
        versions: of data sets and models.
        figures: counts for budgets and `status`.
        resamples: how far answers drawn anew agree.
        progress: cursors, steps, calibration.
        retention: what must go.
        audit: who did what.
    """

    def __init__(self, engine: Engine, files: PictureStore, clock: Callable[[], datetime] = utc_now) -> None:
        self.engine = engine
        self.ledger = Ledger(engine, clock)
        shelf = Shelf(engine, files, pictures, item_pictures)
        self.candidates = Candidates(self.ledger)
        self.resamples = Resamples(self.ledger)
        self.items = Items(self.ledger, shelf)
        self.inbox = Inbox(self.ledger)
        self.annotations = Annotations(self.ledger)
        self.judgements = Judgements(self.ledger, self.items, self.annotations)
        self.versions = Versions(self.ledger)
        self.figures = Figures(self.ledger)
        self.progress = Progress(self.ledger)
        self.retention = Retention(self.ledger, shelf, self.versions)
        self.audit = Audit(engine)

    @classmethod
    def open(cls, settings: Settings, clock: Callable[[], datetime] = utc_now) -> ReviewStore:
        """Connect, and bring the database's schema, the interactions' part first, to the newest version.

        Raises:
            ConfigurationError: an address is wrong, or the database was written by a newer program.
            Unavailable: the database or the object store is out of reach.
        """
        files = PictureStore.open(settings, prefix="review")
        with guarded():
            engine = connect(database_url(settings))
        try:
            migrate(engine)
            migrate(engine, REVIEW)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine, files, clock)

    def close(self) -> None:
        """Release the connections."""
        self.engine.dispose()
