"""What choosing answers for review needs of an interaction, as columns; filled in from the bodies there are."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_BATCH = 500


def _columns() -> list[sa.Column]:
    return [
        sa.Column("min_logprob", sa.Float(53), nullable=True),
        sa.Column("mean_entropy", sa.Float(53), nullable=True),
        sa.Column("picture_logprob", sa.Float(53), nullable=True),
        sa.Column("tokens", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("characters", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("prompt_images", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("output_images", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("task", sa.String(32), nullable=False, server_default=""),
        sa.Column("modality", sa.String(32), nullable=False, server_default=""),
        sa.Column("digest", sa.String(32), nullable=False, server_default=""),
    ]


def upgrade() -> None:
    for column in _columns():
        op.add_column("interactions", column)
    _fill_in(op.get_bind())


def _fill_in(connection: sa.Connection) -> None:
    from services.interactions.records import derived, to_interaction

    names = [column.name for column in _columns()]
    table = sa.table("interactions", sa.column("id"), sa.column("body", sa.JSON), *_columns())
    update = (
        sa.update(table)
        .where(table.c.id == sa.bindparam("of"))
        .values({name: sa.bindparam(f"new_{name}") for name in names})
    )
    last = ""
    while True:
        page = connection.execute(
            sa.select(table.c.id, table.c.body).where(table.c.id > last).order_by(table.c.id).limit(_BATCH)
        ).all()
        if not page:
            return
        last = page[-1].id
        rows = []
        for row in page:
            values = derived(to_interaction(row.body, []))
            rows.append({"of": row.id, **{f"new_{name}": values[name] for name in names}})
        connection.execute(update, rows)


def downgrade() -> None:
    for column in _columns():
        op.drop_column("interactions", column.name)
