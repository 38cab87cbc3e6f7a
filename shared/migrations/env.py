"""Alembic's entry: it runs on the connection, and inside the transaction, that `run` gives it."""

from alembic import context

context.configure(**context.config.attributes["keeper"])
context.run_migrations()
