"""Alembic's versions of the schema. Applied by `services.interactions.database.migrate`."""
