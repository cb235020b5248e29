"""The SQL that makes a state of rows: those in a scope, and of each key the latest."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

import pyarrow as pa

from airflow_incremental.core.stateful import STATE, State
from airflow_incremental.core.tables import ScopeValue
from airflow_incremental.engines.filters import quote


def state_query(
    state: State, schema: pa.Schema, event_time: str, scope: Mapping[str, Sequence[ScopeValue]] | None
) -> str:
    """Return the SQL that makes the state of the rows called ``state``: those in scope, and of each key the latest."""
    query = f"SELECT * FROM {STATE}"  # noqa: S608
    wanted = [_one_of(column, values) for column, values in (scope or {}).items()]
    if wanted:
        query += f" WHERE {' AND '.join(wanted)}"
    if state.kind == "latest_by":
        # Of several rows at the latest time always the same one, whatever order they come in.
        rest = [f.name for f in schema if f.name not in (*state.keys, event_time) and not pa.types.is_nested(f.type)]
        order = ", ".join(f"{quote(c)} DESC NULLS LAST" for c in (event_time, *rest))
        keys = ", ".join(quote(k) for k in state.keys)
        query += f" QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {order}) = 1"
    return query


def _one_of(column: str, values: Sequence[ScopeValue]) -> str:
    known = ", ".join(_literal(v) for v in values if v is not None)
    parts = [f"{quote(column)} IN ({known})"] if known else []
    if None in values:
        parts.append(f"{quote(column)} IS NULL")
    return f"({' OR '.join(parts)})"


def _literal(value: ScopeValue) -> str:
    if isinstance(value, (bool, int)):
        return str(value)
    text = str(value).replace("'", "''")
    return f"DATE '{text}'" if isinstance(value, dt.date) else f"'{text}'"
