"""A bare store for tests of its parts: tables in a database, without migrations, and signals put there one after the other."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, update
from sqlalchemy.pool import StaticPool

from airflow_incremental.core.ranges import UTC
from airflow_incremental.core.signals import Emitter
from airflow_incremental.store.database import Store
from airflow_incremental.store.emitting import Emission, emit_on
from airflow_incremental.store.schema import metadata, signal

NOW = dt.datetime(2026, 1, 1, tzinfo=UTC)


def bare_store(url: str = "sqlite://") -> Engine:
    """Make the tables; transactions of SQLite begin IMMEDIATE and mind foreign keys."""
    more = {"poolclass": StaticPool} if url == "sqlite://" else {}
    engine = create_engine(url, **more)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _on_connect)
        event.listen(engine, "begin", _on_begin)
    metadata.create_all(engine)
    return engine


def as_store(engine: Engine) -> Store:
    """Return bare tables as a store."""
    return Store(engine=engine, store_id="bare", where=engine.dialect.name)


def _on_connect(connection: Any, _: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")


def _on_begin(conn: Connection) -> None:
    conn.exec_driver_sql("BEGIN IMMEDIATE")


def put(
    conn: Connection,
    name: str,
    params: Mapping[str, Any] | None = None,
    *,
    emitter: Emitter | None = None,
    at: dt.datetime = NOW,
) -> int:
    """Emit a signal, unless it is there; return its seq."""
    emitted = emit_on(conn, Emission.read(name, params, emitter=emitter or Emitter(source="cli")))
    if emitted.new:
        conn.execute(update(signal).where(signal.c.identity == emitted.signal.identity).values(created_at=at))
    return emitted.signal.seq


def a_run(run_id: str, *, try_number: int = 1) -> Emitter:
    """Name the first task of a run of the DAG that matches start."""
    return Emitter(source="task", dag_id="started", run_id=run_id, task_id="claim", try_number=try_number)
