"""How far answers that were drawn anew agree with the first one."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "review_resamples",
        sa.Column("interaction_id", sa.String(36), nullable=False),
        sa.Column("agreement", sa.Float(53), nullable=True),
        sa.Column("drawn", sa.Integer(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["interaction_id"],
            ["interactions.id"],
            name="fk_review_resamples_interaction_id_interactions",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("interaction_id", name="pk_review_resamples"),
    )


def downgrade() -> None:
    op.drop_table("review_resamples")
