"""The tables of the review loop. They refer to the interactions, whose migrations come first."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "review_annotators",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("specialities", sa.JSON(), nullable=False),
        sa.Column("adjudicator", sa.Boolean(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("max_open", sa.Integer(), nullable=False),
        sa.Column("max_daily", sa.Integer(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_review_annotators"),
    )
    op.create_table(
        "review_audit",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("who", sa.String(64), nullable=False),
        sa.Column("what", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(128), nullable=False),
        sa.Column("before", sa.JSON(), nullable=False),
        sa.Column("after", sa.JSON(), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_review_audit"),
    )
    op.create_index("ix_review_audit_subject", "review_audit", ["subject"])
    op.create_table(
        "review_audit_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_review_audit_head"),
    )
    op.create_table(
        "review_calibrations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("made_at", TIME, nullable=False),
        sa.Column("method", sa.String(32), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("ece", sa.Float(53), nullable=True),
        sa.Column("verdicts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_review_calibrations"),
    )
    op.create_table(
        "review_cursors",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_review_cursors"),
    )
    op.create_table(
        "review_events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("project", sa.Integer(), nullable=False),
        sa.Column("task", sa.Integer(), nullable=True),
        sa.Column("annotation", sa.Integer(), nullable=True),
        sa.Column("received_at", TIME, nullable=False),
        sa.Column("arrivals", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.String(64), nullable=False),
        sa.Column("processed_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_review_events"),
    )
    op.create_index("ix_review_events_key", "review_events", ["key"], unique=True)
    op.create_index("ix_review_events_processed_at_id", "review_events", ["processed_at", "id"])
    op.create_table(
        "review_items",
        sa.Column("key", sa.String(80), nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("interaction_id", sa.String(36), nullable=True),
        sa.Column("reason", sa.String(16), nullable=False),
        sa.Column("speciality", sa.String(64), nullable=False),
        sa.Column("modality", sa.String(64), nullable=False),
        sa.Column("task", sa.String(32), nullable=False),
        sa.Column("model_id", sa.String(64), nullable=False),
        sa.Column("risk", sa.Float(53), nullable=False),
        sa.Column("weight", sa.Float(53), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("since", TIME, nullable=False),
        sa.Column("because", sa.String(16), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("rank", sa.SmallInteger(), nullable=False),
        sa.Column("wanted", sa.Integer(), nullable=False),
        sa.Column("taken", sa.Integer(), nullable=False),
        sa.Column("deciding", sa.Integer(), nullable=False),
        sa.Column("ls_project", sa.Integer(), nullable=True),
        sa.Column("ls_task", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["interaction_id"],
            ["interactions.id"],
            name="fk_review_items_interaction_id_interactions",
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("key", name="pk_review_items"),
    )
    op.create_index("ix_review_items_created_at", "review_items", ["created_at"])
    op.create_index("ix_review_items_digest", "review_items", ["digest"])
    op.create_index("ix_review_items_interaction_id", "review_items", ["interaction_id"])
    op.create_index(
        "ix_review_items_ls_project_ls_task", "review_items", ["ls_project", "ls_task"], unique=True
    )
    op.create_index("ix_review_items_state_kind", "review_items", ["state", "kind"])
    op.create_index("ix_review_items_state_since_key", "review_items", ["state", "since", "key"])
    op.create_index(
        "ix_review_items_state_speciality_rank_created_at",
        "review_items",
        ["state", "speciality", "rank", "created_at"],
    )
    op.create_table(
        "review_pictures",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("used_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_review_pictures"),
    )
    op.create_table(
        "review_steps",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("until", TIME, nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("finished_at", TIME, nullable=True),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("error", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_review_steps"),
    )
    op.create_table(
        "review_versions",
        sa.Column("id", sa.String(128), nullable=False),
        sa.Column("what", sa.String(16), nullable=False),
        sa.Column("parent", sa.String(128), nullable=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("scores", sa.JSON(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("decided_at", TIME, nullable=True),
        sa.Column("audit_number", sa.Integer(), nullable=False),
        sa.Column("audit_hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_review_versions"),
    )
    op.create_index("ix_review_versions_what_created_at", "review_versions", ["what", "created_at"])
    op.create_table(
        "review_annotations",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("item", sa.String(80), nullable=False),
        sa.Column("annotator", sa.String(64), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Column("recorded_at", TIME, nullable=False),
        sa.Column("seconds", sa.Float(53), nullable=False),
        sa.Column("adjudication", sa.Boolean(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("deleted_at", TIME, nullable=True),
        sa.Column("verdict", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["annotator"], ["review_annotators.id"], name="fk_review_annotations_annotator_review_annotators"
        ),
        sa.ForeignKeyConstraint(
            ["item"], ["review_items.key"], name="fk_review_annotations_item_review_items"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_review_annotations"),
    )
    op.create_index("ix_review_annotations_annotator", "review_annotations", ["annotator"])
    op.create_index("ix_review_annotations_item", "review_annotations", ["item"])
    op.create_index("ix_review_annotations_recorded_at", "review_annotations", ["recorded_at"])
    op.create_table(
        "review_contents",
        sa.Column("item", sa.String(80), nullable=False),
        sa.Column("interaction_id", sa.String(36), nullable=True),
        sa.Column("document", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("report", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["interaction_id"],
            ["interactions.id"],
            name="fk_review_contents_interaction_id_interactions",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["item"], ["review_items.key"], name="fk_review_contents_item_review_items"),
        sa.PrimaryKeyConstraint("item", name="pk_review_contents"),
    )
    op.create_index("ix_review_contents_interaction_id", "review_contents", ["interaction_id"])
    op.create_table(
        "review_gold",
        sa.Column("item", sa.String(80), nullable=False),
        sa.Column("verdict", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["item"], ["review_items.key"], name="fk_review_gold_item_review_items"),
        sa.PrimaryKeyConstraint("item", name="pk_review_gold"),
    )
    op.create_table(
        "review_judgements",
        sa.Column("item", sa.String(80), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("made_at", TIME, nullable=False),
        sa.Column("agreement", sa.Float(53), nullable=True),
        sa.Column("adjudicated", sa.Boolean(), nullable=False),
        sa.Column("decision", sa.String(16), nullable=True),
        sa.Column("annotations", sa.JSON(), nullable=False),
        sa.Column("verdict", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["item"], ["review_items.key"], name="fk_review_judgements_item_review_items"
        ),
        sa.PrimaryKeyConstraint("item", "number", name="pk_review_judgements"),
    )
    op.create_index("ix_review_judgements_made_at", "review_judgements", ["made_at"])
    op.create_table(
        "review_reservations",
        sa.Column("item", sa.String(80), nullable=False),
        sa.Column("annotator", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("until", TIME, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["annotator"], ["review_annotators.id"], name="fk_review_reservations_annotator_review_annotators"
        ),
        sa.ForeignKeyConstraint(
            ["item"], ["review_items.key"], name="fk_review_reservations_item_review_items"
        ),
        sa.PrimaryKeyConstraint("item", "annotator", name="pk_review_reservations"),
    )
    op.create_index("ix_review_reservations_annotator_state", "review_reservations", ["annotator", "state"])
    op.create_index("ix_review_reservations_state_until", "review_reservations", ["state", "until"])
    op.create_table(
        "review_version_items",
        sa.Column("version", sa.String(128), nullable=False),
        sa.Column("item", sa.String(80), nullable=False),
        sa.ForeignKeyConstraint(
            ["item"], ["review_items.key"], name="fk_review_version_items_item_review_items"
        ),
        sa.ForeignKeyConstraint(
            ["version"], ["review_versions.id"], name="fk_review_version_items_version_review_versions"
        ),
        sa.PrimaryKeyConstraint("version", "item", name="pk_review_version_items"),
    )
    op.create_index("ix_review_version_items_item", "review_version_items", ["item"])
    op.create_table(
        "review_annotation_versions",
        sa.Column("annotation", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Column("recorded_at", TIME, nullable=False),
        sa.Column("verdict", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["annotation"],
            ["review_annotations.id"],
            name="fk_review_annotation_versions_annotation_review_annotations",
        ),
        sa.PrimaryKeyConstraint("annotation", "version", name="pk_review_annotation_versions"),
    )
    op.create_table(
        "review_item_pictures",
        sa.Column("item", sa.String(80), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(
            ["item"],
            ["review_contents.item"],
            name="fk_review_item_pictures_item_review_contents",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["sha256"], ["review_pictures.sha256"], name="fk_review_item_pictures_sha256_review_pictures"
        ),
        sa.PrimaryKeyConstraint("item", "sha256", name="pk_review_item_pictures"),
    )
    op.create_index("ix_review_item_pictures_sha256", "review_item_pictures", ["sha256"])
    head = sa.table("review_audit_head", sa.column("id"), sa.column("number"), sa.column("hash"))
    op.execute(head.insert().values(id=1, number=0, hash="0" * 64))


def downgrade() -> None:
    for table in (
        "review_item_pictures",
        "review_annotation_versions",
        "review_version_items",
        "review_reservations",
        "review_judgements",
        "review_gold",
        "review_contents",
        "review_annotations",
        "review_versions",
        "review_steps",
        "review_pictures",
        "review_items",
        "review_events",
        "review_cursors",
        "review_calibrations",
        "review_audit_head",
        "review_audit",
        "review_annotators",
    ):
        op.drop_table(table)
