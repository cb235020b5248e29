"""The session log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from airflow_incremental.store.schema import Moment

revision = "0002"
down_revision = "0001"

MOMENT = Moment()
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
AIRFLOW = sa.String(512)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "incremental_process",
        sa.Column("iceberg_conn_id", AIRFLOW, nullable=False, comment="Airflow connection of the catalog"),
        sa.Column("target", AIRFLOW, nullable=False, comment="identifier of the table it writes"),
        sa.Column("process", AIRFLOW, nullable=False, comment="its name"),
        sa.Column("mode", sa.String(length=16), nullable=False, comment="append, overwrite, stateful or merge"),
        sa.Column("session", sa.String(length=64), nullable=True, comment="its last published session"),
        sa.Column("snapshot_id", sa.BigInteger(), nullable=True, comment="the target's snapshot that it published"),
        sa.Column(
            "complete_through",
            MOMENT,
            nullable=True,
            comment="event time (exclusive) up to which the target is complete",
        ),
        sa.Column(
            "processed_through",
            MOMENT,
            nullable=True,
            comment="event time (exclusive) up to which a stateful target is computed",
        ),
        sa.Column(
            "watermark",
            JSON,
            nullable=True,
            comment="current watermark: source -> position consumed (snapshot, sequence, committed, uuid)",
        ),
        sa.Column("previous_watermark", JSON, nullable=True, comment="the one before the last publish"),
        sa.Column("published_at", MOMENT, nullable=True, comment="when the last session was published"),
        sa.Column("updated_at", MOMENT, nullable=False, comment="when this row was written"),
        sa.PrimaryKeyConstraint("iceberg_conn_id", "target", "process", name="pk_incremental_process"),
        comment="Processes and how far they are. (Psyberg's high watermark table.)",
    )
    op.create_table(
        "incremental_session",
        sa.Column("session", sa.String(length=64), nullable=False, comment="its id"),
        sa.Column("iceberg_conn_id", AIRFLOW, nullable=False, comment="Airflow connection of the catalog"),
        sa.Column("target", AIRFLOW, nullable=False, comment="identifier of the table it writes"),
        sa.Column("process", AIRFLOW, nullable=False, comment="whose session"),
        sa.Column("mode", sa.String(length=16), nullable=False, comment="append, overwrite, stateful or merge"),
        sa.Column("kind", sa.String(length=16), nullable=False, comment="load, positions, reload or restatement"),
        sa.Column(
            "state",
            sa.String(length=16),
            nullable=False,
            comment="planned, loaded, audited, published, failed or ended",
        ),
        sa.Column("reason", sa.Text(), nullable=True, comment="why there is a session, in a sentence"),
        sa.Column("error", sa.Text(), nullable=True, comment="of a failed one: what was said last"),
        sa.Column("plan", JSON, nullable=True, comment="the whole plan, as the lock held it"),
        sa.Column(
            "ranges", JSON, nullable=True, comment="event times computed, as a list of 'start/end' (half-open, UTC)"
        ),
        sa.Column("late_ranges", JSON, nullable=True, comment="the part of them below what was already complete"),
        sa.Column("rows", sa.BigInteger(), nullable=True, comment="rows written"),
        sa.Column("late_rows", sa.BigInteger(), nullable=True, comment="source rows below what was already complete"),
        sa.Column("quarantined_rows", sa.BigInteger(), nullable=True, comment="rows put aside"),
        sa.Column(
            "verdict", sa.String(length=16), nullable=True, comment="of the audits: passed, warned, failed or none"
        ),
        sa.Column("snapshot_id", sa.BigInteger(), nullable=True, comment="the target's snapshot that it published"),
        sa.Column(
            "complete_through",
            MOMENT,
            nullable=True,
            comment="event time (exclusive) up to which the target is complete by it",
        ),
        sa.Column("watermark", JSON, nullable=True, comment="watermark it publishes: source -> position"),
        sa.Column("previous_watermark", JSON, nullable=True, comment="watermark it started from"),
        sa.Column("planned_at", MOMENT, nullable=True, comment="when it was planned"),
        sa.Column("loaded_at", MOMENT, nullable=True, comment="when its rows were sealed"),
        sa.Column("audited_at", MOMENT, nullable=True, comment="when its audits were done"),
        sa.Column("published_at", MOMENT, nullable=True, comment="when it was published"),
        sa.Column(
            "rebuilt", sa.Boolean(), nullable=False, comment="made from the table, so some columns are not known"
        ),
        sa.Column("updated_at", MOMENT, nullable=False, comment="when this row was written"),
        sa.Column(
            "deployment", AIRFLOW, server_default="", nullable=False, comment="Airflow deployment of the session"
        ),
        sa.Column("dag_id", AIRFLOW, server_default="", nullable=False, comment="DAG of the session"),
        sa.Column("run_id", AIRFLOW, server_default="", nullable=False, comment="run of the session"),
        sa.Column("task_id", AIRFLOW, server_default="", nullable=False, comment="task of the session"),
        sa.Column(
            "map_index",
            sa.Integer(),
            server_default="-1",
            nullable=False,
            comment="its map index, -1 if it is not mapped",
        ),
        sa.Column("try_number", sa.Integer(), server_default="0", nullable=False, comment="its try"),
        sa.PrimaryKeyConstraint("session", name="pk_incremental_session"),
        comment="Sessions: what each load read, wrote and found. (Psyberg's session table.)",
    )
    op.create_index("ix_incremental_session_dag_id_run_id", "incremental_session", ["dag_id", "run_id"], unique=False)
    op.create_index(
        "ix_incremental_session_process_planned_at", "incremental_session", ["process", "planned_at"], unique=False
    )
