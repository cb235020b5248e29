"""Which rows of a batch lie in given event-time ranges and in a scope."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from airflow_incremental.core.ranges import UTC, EventRanges
from airflow_incremental.core.tables import ScopeValue

Scope = Mapping[str, Sequence[ScopeValue]] | None


def in_ranges(column: pa.Array | pa.ChunkedArray, ranges: EventRanges) -> Any:
    """Return a boolean array that says of each event time whether it is in ``ranges``, which start and end on whole hours.

    Dates count as their midnight and timestamps without zone as UTC. Only the distinct hours are compared one by one, so the cost
    does not grow with the number of ranges.
    """
    hours = pc.floor_temporal(column, unit="hour") if pa.types.is_timestamp(column.type) else column
    wanted = [h for h in pc.unique(hours).to_pylist() if ranges.contains(_utc(h))]
    return pc.is_in(hours, value_set=pa.array(wanted, type=hours.type))


def in_scope(batch: pa.RecordBatch | pa.Table, scope: Scope) -> Any:
    """Return a boolean array that says of each row whether it has one of the scope's values in every scope column."""
    found = pa.repeat(pa.scalar(value=True), batch.num_rows)
    for column, values in (scope or {}).items():
        found = pc.and_(found, has_value(batch.column(column), values))
    return found


def has_value(array: pa.Array | pa.ChunkedArray, values: Sequence[ScopeValue]) -> Any:
    """Return a boolean array that says of each value whether a scope lists it; dates are listed as text."""
    return pc.is_in(array, value_set=pa.array(list(values)).cast(array.type))


def inside(batch: pa.RecordBatch | pa.Table, event_time: str | None, ranges: EventRanges, scope: Scope) -> Any:
    """Return a boolean array that says of each row whether it is in the ranges and in the scope."""
    found = in_scope(batch, scope)
    if event_time is None or ranges.is_everything:
        return found
    return pc.and_(found, in_ranges(batch.column(event_time), ranges))


def _utc(value: dt.date | dt.datetime | None) -> dt.datetime | None:
    if value is None:
        return None
    if not isinstance(value, dt.datetime):
        return dt.datetime(value.year, value.month, value.day, tzinfo=UTC)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
