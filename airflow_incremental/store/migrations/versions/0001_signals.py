"""The first tables: signals, waits and subscriptions."""

from __future__ import annotations

import datetime as dt
import secrets

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from airflow_incremental.store.schema import Moment

revision = "0001"
down_revision = None

MOMENT = Moment()
NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
ORDERED = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
NAME = sa.String(256)
AIRFLOW = sa.String(512)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "incremental_signal_name",
        sa.Column("id", NUMBER, nullable=False, comment="of the name"),
        sa.Column("name", NAME, nullable=False, comment="of signals, such as the identifier of a table"),
        sa.Column(
            "last_seq",
            sa.BigInteger(),
            nullable=False,
            comment="seq of the name's newest signal; emits lock this row and count it up",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_incremental_signal_name"),
        sa.UniqueConstraint("name", name="uq_incremental_signal_name_name"),
        comment="Names of signals, and how many of each there were.",
    )
    op.create_table(
        "incremental_store",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False, comment="always 1"),
        sa.Column("store_id", sa.String(length=32), nullable=False, comment="random; tells two stores apart"),
        sa.Column("created_at", MOMENT, nullable=False, comment="when the store was made"),
        sa.PrimaryKeyConstraint("id", name="pk_incremental_store"),
        comment="One row: which store this is. It travels with every wait and emit.",
    )
    op.create_table(
        "incremental_subscription",
        sa.Column("id", NUMBER, nullable=False, comment="of the subscription"),
        sa.Column("name", NAME, nullable=False, comment="what its author calls it"),
        sa.Column("dependencies", JSON, nullable=False, comment="the signals it asks for, with conditions and joins"),
        sa.Column(
            "state",
            sa.String(length=16),
            nullable=False,
            comment="open, or closed by a person; then it keeps no signals",
        ),
        sa.Column("created_at", MOMENT, nullable=False, comment="when it was first seen"),
        sa.Column("polled_at", MOMENT, nullable=False, comment="when a triggerer last looked for it, to the minute"),
        sa.Column("matches", sa.BigInteger(), nullable=False, comment="how many matches it has had"),
        sa.PrimaryKeyConstraint("id", name="pk_incremental_subscription"),
        sa.UniqueConstraint("name", name="uq_incremental_subscription_name"),
        comment="Who starts runs on signals.",
    )
    op.create_table(
        "incremental_wait",
        sa.Column(
            "id",
            sa.String(length=32),
            nullable=False,
            comment="of the wait; the same for all tries of a task in one clear of its run",
        ),
        sa.Column(
            "dependencies", JSON, nullable=False, comment="the signals that are waited for, with conditions and joins"
        ),
        sa.Column(
            "state", sa.String(length=16), nullable=False, comment="open, released, bypassed, timed_out or canceled"
        ),
        sa.Column("opened_at", MOMENT, nullable=False, comment="since when it waits"),
        sa.Column("closed_at", MOMENT, nullable=True, comment="when it ended"),
        sa.Column("closed_by", AIRFLOW, nullable=True, comment="of a bypass: who"),
        sa.Column("reason", sa.Text(), nullable=True, comment="of a bypass: why"),
        sa.Column(
            "deployment", AIRFLOW, server_default="", nullable=False, comment="Airflow deployment of the waiting task"
        ),
        sa.Column("dag_id", AIRFLOW, server_default="", nullable=False, comment="DAG of the waiting task"),
        sa.Column("run_id", AIRFLOW, server_default="", nullable=False, comment="run of the waiting task"),
        sa.Column("task_id", AIRFLOW, server_default="", nullable=False, comment="task of the waiting task"),
        sa.Column(
            "map_index",
            sa.Integer(),
            server_default="-1",
            nullable=False,
            comment="its map index, -1 if it is not mapped",
        ),
        sa.Column("try_number", sa.Integer(), server_default="0", nullable=False, comment="its try"),
        sa.PrimaryKeyConstraint("id", name="pk_incremental_wait"),
        comment="Steps that wait, or waited, for signals.",
    )
    op.create_index("ix_incremental_wait_dag_id_run_id", "incremental_wait", ["dag_id", "run_id"], unique=False)
    op.create_index("ix_incremental_wait_state", "incremental_wait", ["state"], unique=False)
    op.create_table(
        "incremental_checkpoint",
        sa.Column("subscription_id", NUMBER, nullable=False, comment="whose"),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False, comment="which of its dependencies"),
        sa.Column(
            "signal",
            NAME,
            nullable=False,
            comment="name of the signal; one that was never emitted yet is no signal_name",
        ),
        sa.Column("seq", sa.BigInteger(), nullable=False, comment="signals up to this one were looked at"),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["incremental_subscription.id"],
            name="fk_incremental_checkpoint_subscription_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("subscription_id", "position", name="pk_incremental_checkpoint"),
        comment="How far each subscription has looked, per dependency.",
    )
    op.create_table(
        "incremental_match",
        sa.Column("id", sa.String(length=32), nullable=False, comment="of the match; events carry it"),
        sa.Column("subscription_id", NUMBER, nullable=False, comment="whose"),
        sa.Column("number", sa.BigInteger(), nullable=False, comment="which of the subscription's matches, from 1"),
        sa.Column("matched_at", MOMENT, nullable=False, comment="when it was found"),
        sa.Column("announced_at", MOMENT, nullable=True, comment="when a triggerer had handed its event to Airflow"),
        sa.Column("claimed_at", MOMENT, nullable=True, comment="when a run took it"),
        sa.Column(
            "deployment",
            AIRFLOW,
            server_default="",
            nullable=False,
            comment="Airflow deployment of the run that took it",
        ),
        sa.Column("dag_id", AIRFLOW, server_default="", nullable=False, comment="DAG of the run that took it"),
        sa.Column("run_id", AIRFLOW, server_default="", nullable=False, comment="run of the run that took it"),
        sa.Column("task_id", AIRFLOW, server_default="", nullable=False, comment="task of the run that took it"),
        sa.Column(
            "map_index",
            sa.Integer(),
            server_default="-1",
            nullable=False,
            comment="its map index, -1 if it is not mapped",
        ),
        sa.Column("try_number", sa.Integer(), server_default="0", nullable=False, comment="its try"),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["incremental_subscription.id"],
            name="fk_incremental_match_subscription_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_incremental_match"),
        sa.UniqueConstraint("subscription_id", "number", name="uq_incremental_match_subscription_id_number"),
        comment="Sets of signals that fit a subscription; each starts work once.",
    )
    op.create_index("ix_incremental_match_dag_id_run_id", "incremental_match", ["dag_id", "run_id"], unique=False)
    op.create_table(
        "incremental_signal",
        sa.Column("name_id", NUMBER, nullable=False, comment="its name"),
        sa.Column(
            "seq",
            sa.BigInteger(),
            autoincrement=False,
            nullable=False,
            comment="its place among those of its name, from 1",
        ),
        sa.Column(
            "identity", NAME, nullable=False, comment="what makes it one fact: session id, request id, or a hash"
        ),
        sa.Column("params", JSON, nullable=False, comment="parameters, as JSON; dates and timestamps as {kind: text}"),
        sa.Column("payload", JSON, nullable=True, comment="free JSON of the emitter; not searched"),
        sa.Column("created_at", MOMENT, nullable=False, comment="when it was emitted"),
        sa.Column("source", sa.String(length=64), nullable=False, comment="who emitted it: task, session, cli, ..."),
        sa.Column(
            "deployment", AIRFLOW, server_default="", nullable=False, comment="Airflow deployment of the emitter"
        ),
        sa.Column("dag_id", AIRFLOW, server_default="", nullable=False, comment="DAG of the emitter"),
        sa.Column("run_id", AIRFLOW, server_default="", nullable=False, comment="run of the emitter"),
        sa.Column("task_id", AIRFLOW, server_default="", nullable=False, comment="task of the emitter"),
        sa.Column(
            "map_index",
            sa.Integer(),
            server_default="-1",
            nullable=False,
            comment="its map index, -1 if it is not mapped",
        ),
        sa.Column("try_number", sa.Integer(), server_default="0", nullable=False, comment="its try"),
        sa.ForeignKeyConstraint(["name_id"], ["incremental_signal_name.id"], name="fk_incremental_signal_name_id"),
        sa.PrimaryKeyConstraint("name_id", "seq", name="pk_incremental_signal"),
        sa.UniqueConstraint("name_id", "identity", name="uq_incremental_signal_name_id_identity"),
        comment="Signals: named facts. Emitting one twice is one row.",
    )
    op.create_index("ix_incremental_signal_created_at", "incremental_signal", ["created_at"], unique=False)
    op.create_index("ix_incremental_signal_dag_id_run_id", "incremental_signal", ["dag_id", "run_id"], unique=False)
    op.create_table(
        "incremental_signal_kind",
        sa.Column("name_id", NUMBER, nullable=False, comment="the signal's name"),
        sa.Column("param", NAME, nullable=False, comment="name of a parameter"),
        sa.Column(
            "kind",
            sa.String(length=16),
            nullable=False,
            comment="string, integer, date or timestamp: as its first signal had it",
        ),
        sa.ForeignKeyConstraint(["name_id"], ["incremental_signal_name.id"], name="fk_incremental_signal_kind_name_id"),
        sa.PrimaryKeyConstraint("name_id", "param", name="pk_incremental_signal_kind"),
        comment="The one kind each parameter of a signal has.",
    )
    op.create_table(
        "incremental_candidate",
        sa.Column("subscription_id", NUMBER, nullable=False, comment="whose"),
        sa.Column(
            "position",
            sa.Integer(),
            autoincrement=False,
            nullable=False,
            comment="which of its dependencies the signal fits",
        ),
        sa.Column("name_id", NUMBER, nullable=False, comment="name of the signal"),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False, comment="seq of the signal"),
        sa.Column("join_value", ORDERED, nullable=False, comment="JSON of the encoded values of the join's parameters"),
        sa.ForeignKeyConstraint(
            ["name_id", "seq"],
            ["incremental_signal.name_id", "incremental_signal.seq"],
            name="fk_incremental_candidate_name_id_seq",
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["incremental_subscription.id"],
            name="fk_incremental_candidate_subscription_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("subscription_id", "position", "seq", name="pk_incremental_candidate"),
        comment="Signals that were looked at, fit, and wait for their partners.",
    )
    op.create_index(
        "ix_incremental_candidate_join",
        "incremental_candidate",
        ["subscription_id", "join_value", "position", "seq"],
        unique=False,
    )
    op.create_table(
        "incremental_match_signal",
        sa.Column("match_id", sa.String(length=32), nullable=False, comment="the match"),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False, comment="which of the dependencies"),
        sa.Column("name_id", NUMBER, nullable=False, comment="name of the signal"),
        sa.Column("seq", sa.BigInteger(), nullable=False, comment="seq of the signal"),
        sa.ForeignKeyConstraint(
            ["match_id"], ["incremental_match.id"], name="fk_incremental_match_signal_match_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["name_id", "seq"],
            ["incremental_signal.name_id", "incremental_signal.seq"],
            name="fk_incremental_match_signal_name_id_seq",
        ),
        sa.PrimaryKeyConstraint("match_id", "position", name="pk_incremental_match_signal"),
        comment="Which signals make up which matches.",
    )
    op.create_index(
        "ix_incremental_match_signal_name_id_seq", "incremental_match_signal", ["name_id", "seq"], unique=False
    )
    op.create_table(
        "incremental_signal_param",
        sa.Column("name_id", NUMBER, nullable=False, comment="the signal's name"),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False, comment="the signal's seq"),
        sa.Column("param", NAME, nullable=False, comment="name of the parameter"),
        sa.Column(
            "value",
            ORDERED,
            nullable=False,
            comment="its value: s, i, d or t for the kind, then text that sorts as values do",
        ),
        sa.ForeignKeyConstraint(
            ["name_id", "seq"],
            ["incremental_signal.name_id", "incremental_signal.seq"],
            name="fk_incremental_signal_param_name_id_seq",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("name_id", "seq", "param", name="pk_incremental_signal_param"),
        comment="Parameters of signals, to be searched by value.",
    )
    op.create_index(
        "ix_incremental_signal_param_name_id_param_value_seq",
        "incremental_signal_param",
        ["name_id", "param", "value", "seq"],
        unique=False,
    )
    op.create_table(
        "incremental_wait_signal",
        sa.Column("wait_id", sa.String(length=32), nullable=False, comment="the wait"),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False, comment="which of its dependencies"),
        sa.Column("name_id", NUMBER, nullable=False, comment="name of the signal that released it"),
        sa.Column("seq", sa.BigInteger(), nullable=False, comment="seq of that signal"),
        sa.ForeignKeyConstraint(
            ["name_id", "seq"],
            ["incremental_signal.name_id", "incremental_signal.seq"],
            name="fk_incremental_wait_signal_name_id_seq",
        ),
        sa.ForeignKeyConstraint(
            ["wait_id"], ["incremental_wait.id"], name="fk_incremental_wait_signal_wait_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("wait_id", "position", name="pk_incremental_wait_signal"),
        comment="Which signals released which waits.",
    )
    op.create_index(
        "ix_incremental_wait_signal_name_id_seq", "incremental_wait_signal", ["name_id", "seq"], unique=False
    )
    op.bulk_insert(
        sa.table(
            "incremental_store",
            sa.column("id", sa.Integer),
            sa.column("store_id", sa.String),
            sa.column("created_at", MOMENT),
        ),
        [{"id": 1, "store_id": secrets.token_hex(16), "created_at": dt.datetime.now(dt.timezone.utc)}],
    )
