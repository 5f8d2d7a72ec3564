"""What one back-up holds, as the archive keeps it. Read strictly: an archive may come from anywhere."""

from __future__ import annotations

from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from services.errors import InvalidInput

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]{0,62}$")]


def _below(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        raise ValueError("must be a path below the data folder")
    return path


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Content(Part):
    """Bytes in pieces, each a blob by its digest.

    Attributes:
        bytes: of all pieces together.
    """

    bytes: int = Field(ge=0)
    blobs: tuple[Sha256, ...]


class File(Part):
    """A file below the data folder."""

    path: Annotated[str, StringConstraints(max_length=4096), AfterValidator(_below)]
    content: Content


class Table(Part):
    """Rows of a PostgreSQL table in its own COPY format."""

    name: Name
    columns: tuple[Name, ...]
    content: Content


class Manifest(Part):
    """
    Attributes:
        revisions: of the schema, by the table that the database keeps each in.
        tables: PostgreSQL, in an order in which they can be filled.
        sqlite: the database's file.
        pictures: digests by the part of the object store they are in ("" or "review").
        missing: pictures that rows need and that were missing or damaged when the back-up was made.
        data_dir: MEDMAX_DATA_DIR then; paths of versions in the database begin with it.
        outside: versions whose folders were not below it, or not there.
    """

    format: Literal["medmax-backup-1"] = "medmax-backup-1"
    made_at: datetime
    program: Annotated[str, StringConstraints(max_length=64)]
    revisions: dict[Name, Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,32}$")]]
    tables: tuple[Table, ...] = ()
    sqlite: Content | None = None
    pictures: dict[Literal["", "review"], tuple[Sha256, ...]]
    missing: tuple[Sha256, ...] = ()
    data_dir: Annotated[str, StringConstraints(max_length=4096)]
    files: tuple[File, ...] = ()
    outside: tuple[str, ...] = ()

    def parts(self) -> list[tuple[str, tuple[str, ...]]]:
        """Everything in it by a name for people, with its blobs; pictures apart."""
        named = [(f"table {each.name}", each.content.blobs) for each in self.tables]
        if self.sqlite is not None:
            named.append(("SQLite database", self.sqlite.blobs))
        return named + [(f"file {each.path}", each.content.blobs) for each in self.files]

    def blobs(self) -> set[str]:
        """Every blob that it needs and that was there when it was made."""
        needed = {blob for _, blobs in self.parts() for blob in blobs}
        return needed | {each for digests in self.pictures.values() for each in digests} - set(self.missing)

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Raises: InvalidInput where it is none, or one of another program's version."""
        try:
            return cls.model_validate_json(data)
        except ValueError:  # pydantic's words would quote it
            raise InvalidInput(
                "the back-up's manifest is none that this version can read", field="archive"
            ) from None
