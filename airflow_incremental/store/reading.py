"""Rows of the store, as the values that people and triggers get."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, Select, Table, select, tuple_

from airflow_incremental.core.signal_values import read_value
from airflow_incremental.core.signals import Emitter, Signal
from airflow_incremental.store.schema import signal, signal_name

#: Values in one ``IN``: SQLite's builds differ in how many parameters they take.
CHUNK = 500
T = TypeVar("T")


def chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut a sequence into pieces that fit into one statement."""
    for start in range(0, len(values), CHUNK):
        yield values[start : start + CHUNK]


def select_signals(*more: Any) -> Select[Any]:
    """Return the query of all signals; ``more`` are columns that the caller needs besides."""
    return select(signal, signal_name.c.name.label("signal_name"), *more).join_from(
        signal, signal_name, signal.c.name_id == signal_name.c.id
    )


def read_signal(row: Row[Any]) -> Signal:
    """Read a row of ``select_signals``."""
    return Signal(
        name=row.signal_name,
        seq=row.seq,
        identity=row.identity,
        params={key: read_value(value, what=f"parameter {key!r}") for key, value in row.params.items()},
        payload=row.payload,
        created_at=row.created_at,
        emitter=read_emitter(row, source=row.source),
    )


def read_emitter(row: Row[Any], *, source: str = "task") -> Emitter:
    """Read the columns that name a task."""
    return Emitter(
        source=source,
        deployment=row.deployment,
        dag_id=row.dag_id,
        run_id=row.run_id,
        task_id=row.task_id,
        map_index=row.map_index,
        try_number=row.try_number,
    )


def is_task(table: Table, task: Emitter) -> list[Any]:
    """Return the conditions that a row names a task, whichever try of it."""
    return [
        table.c.deployment == task.deployment,
        table.c.dag_id == task.dag_id,
        table.c.run_id == task.run_id,
        table.c.task_id == task.task_id,
        table.c.map_index == task.map_index,
    ]


def one_signal(conn: Connection, name_id: int, identity: str) -> Signal:
    """Return the signal that has an identity among those of its name."""
    return read_signal(
        conn.execute(select_signals().where(signal.c.name_id == name_id, signal.c.identity == identity)).one()
    )


def signals_at(conn: Connection, places: Collection[tuple[int, int]]) -> dict[tuple[int, int], Signal]:
    """Return the signals at places (name id, seq), by place."""
    if not places:
        return {}
    rows = conn.execute(select_signals().where(tuple_(signal.c.name_id, signal.c.seq).in_(list(places))))
    return {(row.name_id, row.seq): read_signal(row) for row in rows}
