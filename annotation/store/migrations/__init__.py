"""Alembic's versions of the review loop's tables. Applied by `services.interactions.database.migrate`."""
