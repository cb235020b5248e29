"""The tables of the store, and what each column means. Comments are stored in PostgreSQL, and docs/store.md is made of them.

Order is what everything rests on. An identity column of PostgreSQL numbers rows before they are committed, so a reader that keeps
"the greatest number seen" loses rows that commit late. Here each name of a signal is a row of its own, which an emit locks and
counts up: ``seq`` is without gaps, and whoever sees a signal sees all earlier ones of its name.

Names begin with ``incremental_``, so that the database may be one that others use, too, such as Airflow's own.

Times are UTC; SQLite keeps them as text of ISO 8601, see ``Moment``.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.dialects import postgresql

from airflow_incremental.core.ranges import UTC
from airflow_incremental.core.signals import NAME_LIMIT

#: Of the tables: the number of the newest migration.
VERSION = "0006"

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Moment(TypeDecorator[dt.datetime]):
    """A point in time, in UTC: ``timestamptz`` in PostgreSQL, text that sorts in SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> Any:
        """Return what the database stores."""
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def process_result_value(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:  # noqa: ARG002
        """Return a time in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


#: A whole number that SQLite can count up by itself.
Number = BigInteger().with_variant(Integer, "sqlite")
#: Text that is compared by code points, whatever the database's locale.
Ordered = Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
Json = JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
Name = String(NAME_LIMIT)
#: What Airflow calls things.
Airflow = String(512)


def _task(*, of: str) -> list[Column[Any]]:
    """Return the columns that name a task of Airflow; empty where it was none."""
    return [
        Column("deployment", Airflow, nullable=False, server_default="", comment=f"Airflow deployment of {of}"),
        Column("dag_id", Airflow, nullable=False, server_default="", comment=f"DAG of {of}"),
        Column("run_id", Airflow, nullable=False, server_default="", comment=f"run of {of}"),
        Column("task_id", Airflow, nullable=False, server_default="", comment=f"task of {of}"),
        Column(
            "map_index", Integer, nullable=False, server_default="-1", comment="its map index, -1 if it is not mapped"
        ),
        Column("try_number", Integer, nullable=False, server_default="0", comment="its try"),
    ]


store = Table(
    "incremental_store",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False, comment="always 1"),
    Column("store_id", String(32), nullable=False, comment="random; tells two stores apart"),
    Column("created_at", Moment, nullable=False, comment="when the store was made"),
    comment="One row: which store this is. It travels with every wait and emit.",
)

signal_name = Table(
    "incremental_signal_name",
    metadata,
    Column("id", Number, primary_key=True, comment="of the name"),
    Column("name", Name, nullable=False, unique=True, comment="of signals, such as the identifier of a table"),
    Column(
        "last_seq",
        BigInteger,
        nullable=False,
        comment="seq of the name's newest signal; emits lock this row and count it up",
    ),
    comment="Names of signals, and how many of each there were.",
)

signal_kind = Table(
    "incremental_signal_kind",
    metadata,
    Column("name_id", Number, ForeignKey(signal_name.c.id), primary_key=True, comment="the signal's name"),
    Column("param", Name, primary_key=True, comment="name of a parameter"),
    Column(
        "kind", String(16), nullable=False, comment="string, integer, date or timestamp: as its first signal had it"
    ),
    comment="The one kind each parameter of a signal has.",
)

signal = Table(
    "incremental_signal",
    metadata,
    Column("name_id", Number, ForeignKey(signal_name.c.id), primary_key=True, comment="its name"),
    Column(
        "seq", BigInteger, primary_key=True, autoincrement=False, comment="its place among those of its name, from 1"
    ),
    Column(
        "identity",
        String(NAME_LIMIT),
        nullable=False,
        comment="what makes it one fact: session id, request id, or a hash",
    ),
    Column("params", Json, nullable=False, comment="parameters, as JSON; dates and timestamps as {kind: text}"),
    Column("payload", Json, comment="free JSON of the emitter; not searched"),
    Column("created_at", Moment, nullable=False, comment="when it was emitted"),
    Column("source", String(64), nullable=False, comment="who emitted it: task, session, cli, ..."),
    *_task(of="the emitter"),
    UniqueConstraint("name_id", "identity"),
    Index(None, "dag_id", "run_id"),
    Index(None, "created_at"),
    comment="Signals: named facts. Emitting one twice is one row.",
)

signal_param = Table(
    "incremental_signal_param",
    metadata,
    Column("name_id", Number, primary_key=True, comment="the signal's name"),
    Column("seq", BigInteger, primary_key=True, autoincrement=False, comment="the signal's seq"),
    Column("param", Name, primary_key=True, comment="name of the parameter"),
    Column(
        "value",
        Ordered,
        nullable=False,
        comment="its value: s, i, d or t for the kind, then text that sorts as values do",
    ),
    ForeignKeyConstraint(
        ["name_id", "seq"], ["incremental_signal.name_id", "incremental_signal.seq"], ondelete="CASCADE"
    ),
    Index(None, "name_id", "param", "value", "seq"),
    comment="Parameters of signals, to be searched by value.",
)

wait = Table(
    "incremental_wait",
    metadata,
    Column(
        "id",
        String(32),
        primary_key=True,
        comment="of the wait; the same for all tries of a task until it is cleared",
    ),
    Column("dependencies", Json, nullable=False, comment="the signals that are waited for, with conditions and joins"),
    Column("state", String(16), nullable=False, comment="open, released, bypassed, timed_out or canceled"),
    Column("opened_at", Moment, nullable=False, comment="since when it waits"),
    Column(
        "gives_up_at", Moment, comment="when its time is over, at the latest; null if a version before 0004 opened it"
    ),
    Column("closed_at", Moment, comment="when it ended"),
    Column("closed_by", Airflow, comment="of a bypass: who"),
    Column("reason", Text, comment="of a bypass: why"),
    *_task(of="the waiting task"),
    Index(None, "dag_id", "run_id"),
    Index(None, "state"),
    comment="Steps that wait, or waited, for signals.",
)

wait_signal = Table(
    "incremental_wait_signal",
    metadata,
    Column("wait_id", String(32), ForeignKey(wait.c.id, ondelete="CASCADE"), primary_key=True, comment="the wait"),
    Column("position", Integer, primary_key=True, autoincrement=False, comment="which of its dependencies"),
    Column("name_id", Number, nullable=False, comment="name of the signal that released it"),
    Column("seq", BigInteger, nullable=False, comment="seq of that signal"),
    ForeignKeyConstraint(["name_id", "seq"], ["incremental_signal.name_id", "incremental_signal.seq"]),
    Index(None, "name_id", "seq"),
    comment="Which signals released which waits.",
)

subscription = Table(
    "incremental_subscription",
    metadata,
    Column("id", Number, primary_key=True, comment="of the subscription"),
    Column("name", Name, nullable=False, unique=True, comment="what its author calls it"),
    Column("dependencies", Json, nullable=False, comment="the signals it asks for, with conditions and joins"),
    Column(
        "state",
        String(16),
        nullable=False,
        comment="open, or closed by a person; then it keeps no signals",
    ),
    Column("created_at", Moment, nullable=False, comment="when it was first seen"),
    Column("polled_at", Moment, nullable=False, comment="when a triggerer last looked for it, to the minute"),
    Column("matches", BigInteger, nullable=False, comment="how many matches it has had"),
    comment="Who starts runs on signals.",
)

checkpoint = Table(
    "incremental_checkpoint",
    metadata,
    Column(
        "subscription_id", Number, ForeignKey(subscription.c.id, ondelete="CASCADE"), primary_key=True, comment="whose"
    ),
    Column("position", Integer, primary_key=True, autoincrement=False, comment="which of its dependencies"),
    Column(
        "signal", Name, nullable=False, comment="name of the signal; one that was never emitted yet is no signal_name"
    ),
    Column("seq", BigInteger, nullable=False, comment="signals up to this one were looked at"),
    comment="How far each subscription has looked, per dependency.",
)

candidate = Table(
    "incremental_candidate",
    metadata,
    Column(
        "subscription_id", Number, ForeignKey(subscription.c.id, ondelete="CASCADE"), primary_key=True, comment="whose"
    ),
    Column(
        "position", Integer, primary_key=True, autoincrement=False, comment="which of its dependencies the signal fits"
    ),
    Column("name_id", Number, nullable=False, comment="name of the signal"),
    Column("seq", BigInteger, primary_key=True, autoincrement=False, comment="seq of the signal"),
    Column(
        "join_value",
        Ordered,
        nullable=False,
        comment="JSON of the encoded values of the join's parameters, or its hash",
    ),
    ForeignKeyConstraint(["name_id", "seq"], ["incremental_signal.name_id", "incremental_signal.seq"]),
    Index("ix_incremental_candidate_join", "subscription_id", "join_value", "position", "seq"),
    comment="Signals that were looked at, fit, and wait for their partners.",
)

match = Table(
    "incremental_match",
    metadata,
    Column("id", String(32), primary_key=True, comment="of the match; events carry it"),
    Column(
        "subscription_id", Number, ForeignKey(subscription.c.id, ondelete="CASCADE"), nullable=False, comment="whose"
    ),
    Column("number", BigInteger, nullable=False, comment="which of the subscription's matches, from 1"),
    Column("matched_at", Moment, nullable=False, comment="when it was found"),
    Column("announced_at", Moment, comment="when a triggerer had handed its event to Airflow"),
    Column("claimed_at", Moment, comment="when a run took it"),
    *_task(of="the run that took it"),
    UniqueConstraint("subscription_id", "number"),
    Index(None, "dag_id", "run_id"),
    comment="Sets of signals that fit a subscription; each starts work once.",
)

match_signal = Table(
    "incremental_match_signal",
    metadata,
    Column("match_id", String(32), ForeignKey(match.c.id, ondelete="CASCADE"), primary_key=True, comment="the match"),
    Column("position", Integer, primary_key=True, autoincrement=False, comment="which of the dependencies"),
    Column("name_id", Number, nullable=False, comment="name of the signal"),
    Column("seq", BigInteger, nullable=False, comment="seq of the signal"),
    ForeignKeyConstraint(["name_id", "seq"], ["incremental_signal.name_id", "incremental_signal.seq"]),
    Index(None, "name_id", "seq"),
    comment="Which signals make up which matches.",
)

process = Table(
    "incremental_process",
    metadata,
    Column("iceberg_conn_id", Airflow, primary_key=True, comment="Airflow connection of the catalog"),
    Column("target", Airflow, primary_key=True, comment="identifier of the table it writes"),
    Column("process", Airflow, primary_key=True, comment="its name"),
    Column("mode", String(16), nullable=False, comment="append, overwrite, stateful or merge"),
    Column("session", String(64), comment="its last published session"),
    Column("snapshot_id", BigInteger, comment="the target's snapshot that it published"),
    Column("complete_through", Moment, comment="event time (exclusive) up to which the target is complete"),
    Column("processed_through", Moment, comment="event time (exclusive) up to which a stateful target is computed"),
    Column(
        "watermark",
        Json,
        comment="current watermark: source -> position consumed (snapshot, sequence, committed, uuid)",
    ),
    Column("previous_watermark", Json, comment="the one before the last publish"),
    Column("published_at", Moment, comment="when the last session was published"),
    Column("updated_at", Moment, nullable=False, comment="when this row was written"),
    comment="Processes and how far they are. (Psyberg's high watermark table.)",
)

session = Table(
    "incremental_session",
    metadata,
    Column("session", String(64), primary_key=True, comment="its id"),
    Column("iceberg_conn_id", Airflow, nullable=False, comment="Airflow connection of the catalog"),
    Column("target", Airflow, nullable=False, comment="identifier of the table it writes"),
    Column("process", Airflow, nullable=False, comment="whose session"),
    Column("mode", String(16), nullable=False, comment="append, overwrite, stateful or merge"),
    Column(
        "kind",
        String(16),
        nullable=False,
        comment="load, positions, reload or restatement; by hand: rollback, set or reset",
    ),
    Column("state", String(16), nullable=False, comment="planned, loaded, audited, published, failed or ended"),
    Column("reason", Text, comment="why there is a session, in a sentence"),
    Column("error", Text, comment="of a failed one: what was said last"),
    Column("plan", Json, comment="the whole plan, as the lock held it"),
    Column("ranges", Json, comment="event times computed, as a list of 'start/end' (half-open, UTC)"),
    Column("late_ranges", Json, comment="the part of them below what was already complete"),
    Column("chunks", Integer, comment="chunks or steps its work is computed in; null if at once"),
    Column("chunks_done", Integer, comment="how many of them were computed when that was looked at last"),
    Column("rows", BigInteger, comment="rows written"),
    Column("late_rows", BigInteger, comment="source rows below what was already complete"),
    Column("quarantined_rows", BigInteger, comment="rows put aside"),
    Column("verdict", String(16), comment="of the audits: passed, warned, failed or none"),
    Column("snapshot_id", BigInteger, comment="the target's snapshot that it published"),
    Column("complete_through", Moment, comment="event time (exclusive) up to which the target is complete by it"),
    Column("watermark", Json, comment="watermark it publishes: source -> position"),
    Column("previous_watermark", Json, comment="watermark it started from"),
    Column("planned_at", Moment, comment="when it was planned"),
    Column("loaded_at", Moment, comment="when its rows were sealed"),
    Column("audited_at", Moment, comment="when its audits were done"),
    Column("published_at", Moment, comment="when it was published"),
    Column(
        "rebuilt",
        Boolean,
        nullable=False,
        comment="made from the table, so some columns are not known",
    ),
    Column("updated_at", Moment, nullable=False, comment="when this row was written"),
    *_task(of="the session"),
    Index(None, "process", "planned_at"),
    Index(None, "dag_id", "run_id"),
    comment="Sessions: what each load read, wrote and found. (Psyberg's session table.)",
)
