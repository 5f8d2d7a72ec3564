"""The tables of the review loop, in the database of the interactions. Times are UTC; `migrations/` must arrive
at exactly this (a test compares them)."""

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
)

from services.interactions.schema import UtcDateTime, interactions
from services.interactions.schema import metadata as interactions_metadata

metadata = MetaData(naming_convention=interactions_metadata.naming_convention)

# Never deleted, so that an interaction is sent once and the audit's items can be looked up; what an item says
# is in `contents`, `annotations` and `judgements`, and goes when it is withdrawn.
items = Table(
    "review_items",
    metadata,
    Column("key", String(80), primary_key=True),  # `kind:id`
    Column("id", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    # Null for gold items, and once the interaction is purged.
    Column("interaction_id", ForeignKey(interactions.c.id, ondelete="SET NULL"), nullable=True),
    Column("reason", String(16), nullable=False),
    Column("speciality", String(64), nullable=False),
    Column("modality", String(64), nullable=False),
    Column("task", String(32), nullable=False),
    Column("model_id", String(64), nullable=False),
    Column("risk", Float(53), nullable=False),
    Column("weight", Float(53), nullable=False),  # interactions of the random share that it stands for
    Column("state", String(16), nullable=False),
    Column("since", UtcDateTime, nullable=False),  # in this state
    Column("because", String(16), nullable=False),  # withdrawn alone
    Column("revision", Integer, nullable=False),  # counts changes of state and evidence
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("digest", String(64), nullable=False),  # equal for duplicates; empty where unknown
    Column("rank", SmallInteger, nullable=False),  # experts get lower ones first
    Column("wanted", Integer, nullable=False),  # experts
    Column("taken", Integer, nullable=False),  # experts who hold it or are done with it
    Column("deciding", Integer, nullable=False),  # adjudicators who hold it or are done with it
    Column("ls_project", Integer, nullable=True),
    Column("ls_task", Integer, nullable=True),
    Index(None, "interaction_id"),
    Index(None, "state", "kind"),
    Index(None, "state", "since", "key"),
    Index(None, "state", "speciality", "rank", "created_at"),
    Index(None, "created_at"),
    Index(None, "ls_project", "ls_task", unique=True),
    Index(None, "digest"),
)

# Goes with its interaction, also where the one who purges knows nothing of reviews.
contents = Table(
    "review_contents",
    metadata,
    Column("item", ForeignKey(items.c.key), primary_key=True),
    Column("interaction_id", ForeignKey(interactions.c.id, ondelete="CASCADE"), nullable=True),
    Column("document", JSON(none_as_null=True), nullable=True),  # the cleaned item; null while held
    Column("report", JSON, nullable=False),  # what de-identification removed
    Index(None, "interaction_id"),
)

# Of answers that wait to be routed: how many of those drawn anew agree with them.
resamples = Table(
    "review_resamples",
    metadata,
    Column("interaction_id", ForeignKey(interactions.c.id, ondelete="CASCADE"), primary_key=True),
    Column("agreement", Float(53), nullable=True),  # share, 0 to 1; null where none could be drawn
    Column("drawn", Integer, nullable=False),
    Column("made_at", UtcDateTime, nullable=False),
)

# Apart from the items, so that no export of items can hold the right answers.
gold = Table(
    "review_gold",
    metadata,
    Column("item", ForeignKey(items.c.key), primary_key=True),
    Column("verdict", JSON, nullable=False),
)

pictures = Table(
    "review_pictures",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("bytes", Integer, nullable=False),
    Column("used_at", UtcDateTime, nullable=False),
)

item_pictures = Table(
    "review_item_pictures",
    metadata,
    Column("item", ForeignKey(contents.c.item, ondelete="CASCADE"), primary_key=True),
    Column("sha256", ForeignKey(pictures.c.sha256), primary_key=True),
    Index(None, "sha256"),
)

# What Label Studio's webhook said: its numbers, never its texts. Processing reads the annotation itself.
events = Table(
    "review_events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", String(200), nullable=False),
    Column("action", String(64), nullable=False),
    Column("project", Integer, nullable=False),
    Column("task", Integer, nullable=True),
    Column("annotation", Integer, nullable=True),
    Column("received_at", UtcDateTime, nullable=False),
    Column("arrivals", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("error", String(64), nullable=False),  # an error code of the last attempt
    Column("processed_at", UtcDateTime, nullable=True),
    Index(None, "key", unique=True),
    Index(None, "processed_at", "id"),
)

annotators = Table(
    "review_annotators",
    metadata,
    Column("id", String(64), primary_key=True),  # Label Studio's user id
    Column("specialities", JSON, nullable=False),
    Column("adjudicator", Boolean, nullable=False),
    Column(
        "active", Boolean, nullable=False
    ),  # gets items; somebody who only appeared in Label Studio does not
    Column("max_open", Integer, nullable=False),
    Column("max_daily", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

expert_annotations = Table(
    "review_annotations",
    metadata,
    Column("id", String(64), primary_key=True),  # `project:annotation`
    Column("item", ForeignKey(items.c.key), nullable=False),
    Column("annotator", ForeignKey(annotators.c.id), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("seconds", Float(53), nullable=False),
    Column("adjudication", Boolean, nullable=False),
    Column("version", Integer, nullable=False),
    Column("deleted_at", UtcDateTime, nullable=True),
    Column("verdict", JSON(none_as_null=True), nullable=True),  # null once the item is withdrawn
    Index(None, "item"),
    Index(None, "annotator"),
    Index(None, "recorded_at"),
)

annotation_versions = Table(
    "review_annotation_versions",
    metadata,
    Column("annotation", ForeignKey(expert_annotations.c.id), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("verdict", JSON(none_as_null=True), nullable=True),
)

reservations = Table(
    "review_reservations",
    metadata,
    Column("item", ForeignKey(items.c.key), primary_key=True),
    Column("annotator", ForeignKey(annotators.c.id), primary_key=True),
    Column("role", String(16), nullable=False),  # review | adjudicate
    Column("state", String(16), nullable=False),  # held | done | released | expired
    Column("until", UtcDateTime, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Index(None, "state", "until"),
    Index(None, "annotator", "state"),
)

judgements = Table(
    "review_judgements",
    metadata,
    Column("item", ForeignKey(items.c.key), primary_key=True),
    Column("number", Integer, primary_key=True),  # the highest counts
    Column("made_at", UtcDateTime, nullable=False),
    Column("agreement", Float(53), nullable=True),
    Column("adjudicated", Boolean, nullable=False),
    Column("decision", String(16), nullable=True),  # null where the kind asks none
    Column("annotations", JSON, nullable=False),  # ids and versions it was made from
    Column("verdict", JSON(none_as_null=True), nullable=True),  # null once the item is withdrawn
    Index(None, "made_at"),
)

versions = Table(
    "review_versions",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("what", String(16), nullable=False),  # data | model
    Column("parent", String(128), nullable=True),
    Column("status", String(16), nullable=False),
    Column("scores", JSON, nullable=False),
    Column("why", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("decided_at", UtcDateTime, nullable=True),
    # The audit as it stood then: a version on disk that names it proves that nothing before was changed.
    Column("audit_number", Integer, nullable=False),
    Column("audit_hash", String(64), nullable=False),
    Index(None, "what", "created_at"),
)

version_items = Table(
    "review_version_items",
    metadata,
    Column("version", ForeignKey(versions.c.id), primary_key=True),
    Column("item", ForeignKey(items.c.key), primary_key=True),
    Index(None, "item"),
)

audit = Table(
    "review_audit",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", UtcDateTime, nullable=False),
    Column("who", String(64), nullable=False),
    Column("what", String(32), nullable=False),
    Column("subject", String(128), nullable=False),  # an item, an annotator, a version
    Column("before", JSON, nullable=False),
    Column("after", JSON, nullable=False),
    Column("hash", String(64), nullable=False),  # over this row and the hash before it
    Index(None, "subject"),
)

# One row: the newest entry. Writers lock it, so the chain has no forks.
audit_head = Table(
    "review_audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("number", Integer, nullable=False),
    Column("hash", String(64), nullable=False),
)

calibrations = Table(
    "review_calibrations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("made_at", UtcDateTime, nullable=False),
    Column("method", String(32), nullable=False),
    Column("parameters", JSON, nullable=False),
    Column("ece", Float(53), nullable=True),
    Column("verdicts", Integer, nullable=False),  # that it was fitted on
)

cursors = Table(
    "review_cursors",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", JSON, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)

steps = Table(
    "review_steps",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("holder", String(64), nullable=False),  # empty: nobody is at it
    Column("until", UtcDateTime, nullable=False),  # the holder's lease
    Column("started_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime, nullable=True),
    Column("done", Integer, nullable=False),  # by the last run that finished
    Column("failed", Integer, nullable=False),
    Column("error", String(64), nullable=False),  # an error code
)
