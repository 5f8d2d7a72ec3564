"""The store of interactions, as the gateway uses it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import Engine, insert, select, text
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import IntegrityError

from services.config import Settings
from services.errors import InvalidInput, NotFound, Unavailable
from services.interactions import purge
from services.interactions.database import THREADS, connect, database_url, guarded, migrate, transaction
from services.interactions.ids import check_id, new_feedback_id
from services.interactions.pictures import PictureStore
from services.interactions.records import Record, images, to_interaction
from services.interactions.schema import feedback, interaction_pictures, interactions, pictures
from services.interactions.shelf import Shelf
from services.pb.medmax.v1 import assistant_pb2

log = logging.getLogger(__name__)
T = TypeVar("T")

MAX_COMMENT_CHARS = 4_000
MAX_CORRECTED_CHARS = 16_000


class InteractionStore:
    """Saves interactions so that what was acknowledged outlives any process, once each.

    An instance serves one process and may be used from any task; several processes may share the database and
    the object store. The asynchronous methods run on a few threads of their own. All raise `Unavailable` where
    the database or the object store is out of reach.
    """

    def __init__(self, engine: Engine, picture_store: PictureStore, retention_days: int) -> None:
        self.engine = engine
        self.pictures = picture_store
        self.shelf = Shelf(engine, picture_store, pictures, interaction_pictures)
        self._retention_days = retention_days
        self._upsert = postgresql_insert if engine.dialect.name == "postgresql" else sqlite_insert
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="interactions")

    @classmethod
    def open(cls, settings: Settings) -> InteractionStore:
        """Connect, and bring the database's schema to the newest version.

        Raises:
            ConfigurationError: an address is wrong, or the database was written by a newer program.
            Unavailable: the database or the object store is out of reach.
        """
        picture_store = PictureStore.open(settings)
        with guarded():
            engine = connect(database_url(settings))
        try:
            migrate(engine)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine, picture_store, settings.retention_days)

    async def save(self, interaction: assistant_pb2.Interaction) -> str:
        """Store `interaction`, whose pictures carry their bytes, and return its id: on disk when this returns.

        Unset id, time and expiry are filled in; expiry is at most the installation's. Saving the same id again
        changes nothing.
        """
        return await self._run(self._save, interaction)

    def _save(self, interaction: assistant_pb2.Interaction) -> str:
        record = Record.of(interaction, self._retention_days)
        digests = self.shelf.keep(record.pictures)
        with transaction(self.engine) as connection:
            connection.execute(self._upsert(interactions).values(record.row).on_conflict_do_nothing())
            if digests:
                links = [{"interaction_id": record.row["id"], "sha256": each} for each in digests]
                connection.execute(self._upsert(interaction_pictures).values(links).on_conflict_do_nothing())
        return str(record.row["id"])

    async def get(
        self, interaction_id: str, caller: str | None, include_images: bool = False
    ) -> assistant_pb2.Interaction:
        """The interaction with its feedback; pictures have their bytes only with `include_images`.

        Args:
            caller: who asks; None is the operator, who may see everybody's.

        Raises:
            NotFound: no such interaction of this caller, or it has expired.
            InvalidInput: `interaction_id` is no such id.
        """
        return await self._run(self._get, interaction_id, caller, include_images)

    def _get(
        self, interaction_id: str, caller: str | None, include_images: bool
    ) -> assistant_pb2.Interaction:
        check_id(interaction_id)
        with transaction(self.engine, write=False) as connection:
            body = connection.scalar(
                select(interactions.c.body).where(*self._visible(interaction_id, caller))
            )
            if body is None:
                raise _not_found()
            rows = connection.execute(
                select(feedback).where(feedback.c.interaction_id == interaction_id).order_by(feedback.c.id)
            )
            message = to_interaction(body, list(rows.mappings()))
        if include_images:
            for image in images(message):
                image.data = self.pictures.read(image.sha256)
        return message

    @staticmethod
    def _visible(interaction_id: str, caller: str | None) -> list[Any]:
        conditions = [interactions.c.id == interaction_id, interactions.c.expires_at > datetime.now(UTC)]
        return conditions if caller is None else [*conditions, interactions.c.caller == caller]

    async def add_feedback(self, request: assistant_pb2.SubmitFeedbackRequest, caller: str) -> str:
        """Add one record of feedback and return its id.

        Raises:
            NotFound: no such interaction of this caller, or it has expired.
            InvalidInput: nothing said, a rating outside 1 to 5, or a text over its limit.
        """
        _check_feedback(request)
        return await self._run(self._add_feedback, request, caller)

    def _add_feedback(self, request: assistant_pb2.SubmitFeedbackRequest, caller: str) -> str:
        row = {
            "id": new_feedback_id(),
            "interaction_id": request.interaction_id,
            "created_at": datetime.now(UTC),
            "caller": caller,
            "rating": request.rating if request.HasField("rating") else None,
            "flag": request.flag,
            "comment": request.comment,
            "corrected_text": request.corrected_text,
        }
        with transaction(self.engine) as connection:
            found = connection.scalar(
                select(interactions.c.id).where(*self._visible(request.interaction_id, caller))
            )
            if found is None:
                raise _not_found()
            try:
                connection.execute(insert(feedback).values(row))
            except IntegrityError:
                # Purged between the two statements.
                raise _not_found() from None
        return str(row["id"])

    def purge(self, now: datetime | None = None, *, dry_run: bool = False) -> purge.PurgeReport:
        """Delete what has expired by `now` (aware; default: this moment) and pictures that nothing refers to.

        With `dry_run`, only count.
        """
        now = now or datetime.now(UTC)
        if dry_run:
            return purge.count(self.engine, now)
        return purge.purge(self.engine, self.shelf, now)

    async def check_health(self) -> None:
        """Raises: Unavailable where the database or the object store does not answer."""
        await self._run(self._check_health)

    def _check_health(self) -> None:
        with transaction(self.engine, write=False) as connection:
            connection.execute(text("SELECT 1 FROM interactions WHERE id = ''"))
        self.pictures.check()

    def close(self) -> None:
        """Finish what is being saved, then release the connections."""
        self._threads.shutdown(wait=True)
        self.engine.dispose()

    async def _run(self, function: Callable[..., T], *arguments: Any) -> T:
        # When the caller goes away, a save that has begun still ends by itself.
        try:
            future = asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)
        except RuntimeError:
            raise Unavailable("the interaction store is closed") from None
        return await future


def _not_found() -> NotFound:
    return NotFound("no such interaction, or it was deleted", field="interaction_id")


def _check_feedback(request: assistant_pb2.SubmitFeedbackRequest) -> None:
    check_id(request.interaction_id)
    if request.HasField("rating") and not 1 <= request.rating <= 5:
        raise InvalidInput("must be 1 to 5", field="rating")
    for field, limit in (("comment", MAX_COMMENT_CHARS), ("corrected_text", MAX_CORRECTED_CHARS)):
        value = getattr(request, field)
        if len(value) > limit:
            raise InvalidInput(f"at most {limit:,} characters", field=field)
        if "\0" in value:
            raise InvalidInput("must not hold the character U+0000", field=field)
    if not (request.HasField("rating") or request.flag or request.comment or request.corrected_text):
        raise InvalidInput("give at least one of rating, flag, comment, corrected_text", field="rating")
