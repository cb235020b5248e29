"""Rows of signals, as signals."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, select, tuple_

from airflow_incremental.core.signal_values import read_value
from airflow_incremental.core.signals import Emitter, Signal
from airflow_incremental.store.schema import signal, signal_name

_EMITTER = ("source", "deployment", "dag_id", "run_id", "task_id", "map_index", "try_number")


def signals() -> Select[Any]:
    """Return the query of signals with their names, to be narrowed."""
    return select(signal_name.c.name, signal).join_from(signal, signal_name, signal.c.name_id == signal_name.c.id)


def signal_of(found: RowMapping) -> Signal:
    """Return a row of ``signals`` as a signal."""
    return Signal(
        name=found["name"],
        seq=found["seq"],
        identity=found["identity"],
        params={key: read_value(value, what=key) for key, value in found["params"].items()},
        payload=found["payload"],
        created_at=found["created_at"],
        emitter=Emitter(**{name: found[name] for name in _EMITTER}),
    )


def one_signal(conn: Connection, name_id: int, identity: str) -> Signal:
    """Return the signal that has an identity among those of its name."""
    found = conn.execute(signals().where(signal.c.name_id == name_id, signal.c.identity == identity))
    return signal_of(found.mappings().one())


def signals_at(conn: Connection, places: Collection[tuple[int, int]]) -> dict[tuple[int, int], Signal]:
    """Return the signals at places (name id, seq), by place."""
    if not places:
        return {}
    rows = conn.execute(signals().where(tuple_(signal.c.name_id, signal.c.seq).in_(list(places)))).mappings()
    return {(row["name_id"], row["seq"]): signal_of(row) for row in rows}
