"""Runs the migrations on the connection, and in the transaction, that `database.migrate` hands over."""

from alembic import context

from annotation.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
    target_metadata=metadata,
    compare_type=True,
)
context.run_migrations()
