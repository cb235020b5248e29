"""Run by Alembic, on the connection that ``migrating`` holds its lock on."""

from __future__ import annotations

from alembic import context

from airflow_incremental.store.migrating import VERSION_TABLE
from airflow_incremental.store.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()
