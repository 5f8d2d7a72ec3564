"""The tables. Times are UTC; `migrations/` must arrive at exactly this (a test compares them)."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, in UTC on the way in and on the way out, also where the database knows no zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# JSON and not JSONB: PostgreSQL's JSONB refuses U+0000, which a prompt may hold.
interactions = Table(
    "interactions",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("caller", String(128), nullable=False),
    Column("model_id", String(64), nullable=False),
    Column("model_digest", String(64), nullable=False),
    Column("mode", String(32), nullable=False),
    Column("reason", String(32), nullable=False),
    Column("consent_training", Boolean, nullable=False),
    # e raised to it is the confidence of the answer's text; null where there is no text.
    Column("mean_logprob", Float(53), nullable=True),
    # The columns below are in `body` as well: choosing among a hundred thousand must not read bodies.
    # The defaults are for programs of before version 0002 that still write during an update.
    Column("min_logprob", Float(53), nullable=True),
    Column("mean_entropy", Float(53), nullable=True),
    # Of the least likely generated picture; null where there is none.
    Column("picture_logprob", Float(53), nullable=True),
    Column("tokens", Integer, nullable=False, server_default="0"),
    Column("characters", Integer, nullable=False, server_default="0"),
    Column("prompt_images", Integer, nullable=False, server_default="0"),
    Column("output_images", Integer, nullable=False, server_default="0"),
    # By the rules of `services.interactions.tasks`.
    Column("task", String(32), nullable=False, server_default=""),
    Column("modality", String(32), nullable=False, server_default=""),
    # The same for the same question and answer.
    Column("digest", String(32), nullable=False, server_default=""),
    Column("total_ms", Float(53), nullable=False),
    # Everything else of `medmax.v1.Interaction`, in protobuf's JSON; pictures by their SHA-256 alone.
    Column("body", JSON, nullable=False),
    Index(None, "expires_at"),
    Index(None, "created_at"),
)

pictures = Table(
    "pictures",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("bytes", Integer, nullable=False),
    # A picture without an interaction is kept for a while after this: its interaction may be on the way.
    Column("used_at", UtcDateTime, nullable=False),
)

interaction_pictures = Table(
    "interaction_pictures",
    metadata,
    Column("interaction_id", ForeignKey(interactions.c.id, ondelete="CASCADE"), primary_key=True),
    Column("sha256", ForeignKey(pictures.c.sha256), primary_key=True),
    Index(None, "sha256"),
)

feedback = Table(
    "feedback",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("interaction_id", ForeignKey(interactions.c.id, ondelete="CASCADE"), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("caller", String(128), nullable=False),
    Column("rating", Integer, nullable=True),
    Column("flag", Boolean, nullable=False),
    Column("comment", Text, nullable=False),
    Column("corrected_text", Text, nullable=False),
    Index(None, "interaction_id"),
)
