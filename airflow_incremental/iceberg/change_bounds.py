"""The least and the greatest values of columns among changed rows, for predicates that follow what changed.

Taken from the bounds in manifests, as Netflix's incremental processing takes its range parameters, so they may be wider than the
rows (text is cut short in manifests) and never narrower. Where a manifest does not tell, the columns are read.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask, Table
from pyiceberg.types import (
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    NestedField,
    StringType,
    TimestampType,
    TimestamptzType,
)
from pyiceberg.utils.datetime import days_to_date, micros_to_timestamp, micros_to_timestamptz

from airflow_incremental.core.errors import TableError
from airflow_incremental.core.ranges import EventRanges
from airflow_incremental.iceberg.bounds import EventColumn
from airflow_incremental.iceberg.keys import bounds_of
from airflow_incremental.iceberg.lineage import SnapshotIndex
from airflow_incremental.iceberg.reads import schema_at
from airflow_incremental.iceberg.rows import row_batches
from airflow_incremental.iceberg.scan import live_tasks

_ORDERED = (
    IntegerType,
    LongType,
    FloatType,
    DoubleType,
    DecimalType,
    DateType,
    TimestampType,
    TimestamptzType,
    StringType,
)

Bounds = Mapping[str, list[Any] | None]


def change_bounds(table: Table, schema: Schema, columns: Sequence[str], tasks: Sequence[FileScanTask]) -> Bounds:
    """Return column -> least and greatest value in some files, as numbers or ISO text; None if there is no value.

    :raises TableError: there is no such column, or its values have no order that all engines share.
    """
    fields = [_field(table, schema, name) for name in columns]
    try:
        found = {f.name: _from_manifests([t.file for t in tasks], f) for f in fields}
        silent = [f for f in fields if found[f.name] is _UNTOLD]
        if silent:
            found.update(_from_rows(table, silent, tasks))
    except (OverflowError, ValueError) as error:
        raise TableError(
            f"bounds are asked for of columns {', '.join(columns)} of {'.'.join(table.name())}, and one of them holds a date or "
            f"time that cannot be written as one ({error})",
            expected="dates and times in the years 1 to 9999",
            hint="leave such columns out of change_bounds, or correct the values",
        ) from error
    return {name: None if ends is None else [_plain(ends[0]), _plain(ends[1])] for name, ends in found.items()}


def range_bounds(
    table: Table, snapshot_id: int | None, columns: Sequence[str], *, event_time: str | None, keep: EventRanges | None
) -> Bounds:
    """Return the same of the files of a snapshot that may hold rows of some event times; None takes them all."""
    schema = schema_at(table, snapshot_id)
    snapshot = SnapshotIndex(table.metadata).get(snapshot_id)
    column = None if event_time is None else EventColumn.of(table, event_time, schema=schema)
    tasks = [] if snapshot is None else live_tasks(table, snapshot, column=column, keep=keep)
    return change_bounds(table, schema, columns, tasks)


#: Bounds that manifests do not tell.
_UNTOLD: tuple[Any, Any] = (None, None)


def _field(table: Table, schema: Schema, name: str) -> NestedField:
    field = next((f for f in schema.fields if f.name == name), None)
    if field is None:
        raise TableError(
            f"the source {'.'.join(table.name())} has no column {name!r}, whose bounds are asked for",
            expected=f"columns of the source: {', '.join(f.name for f in schema.fields)}",
            hint="correct change_bounds",
        )
    if not isinstance(field.field_type, _ORDERED):
        raise TableError(
            f"bounds are asked for of column {name!r} of {'.'.join(table.name())}, which is of type {field.field_type}",
            expected="numbers, text, dates or times",
            hint="leave the column out of change_bounds",
        )
    return field


def _from_manifests(files: Sequence[DataFile], field: NestedField) -> tuple[Any, Any] | None:
    lows, highs = [], []
    for file in files:
        if file.record_count and (file.null_value_counts or {}).get(field.field_id) == file.record_count:
            continue
        ends = bounds_of(file, field)
        if ends is None:
            return _UNTOLD
        lows.append(ends[0])
        highs.append(ends[1])
    return (_value(field, min(lows)), _value(field, max(highs))) if lows else None


def _from_rows(
    table: Table, fields: Sequence[NestedField], tasks: Sequence[FileScanTask]
) -> dict[str, tuple[Any, Any] | None]:
    found: dict[str, tuple[Any, Any] | None] = dict.fromkeys((f.name for f in fields), None)
    for batch in row_batches(table, Schema(*fields), tasks):
        for name, before in found.items():
            column = batch.column(name)
            if pa.types.is_floating(column.type):
                column = column.filter(pc.invert(pc.is_nan(column)))
            ends = pc.min_max(column).as_py()
            if ends["min"] is not None:
                low, high = before or (ends["min"], ends["max"])
                found[name] = min(low, ends["min"]), max(high, ends["max"])
    return found


def _value(field: NestedField, value: Any) -> Any:
    """Return a bound as Python knows it: manifests count days and microseconds since 1970."""
    if isinstance(field.field_type, DateType):
        return days_to_date(value)
    if isinstance(field.field_type, TimestampType):
        return micros_to_timestamp(value)
    return micros_to_timestamptz(value) if isinstance(field.field_type, TimestamptzType) else value


def _plain(value: Any) -> Any:
    if isinstance(value, (dt.date, dt.datetime)):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no number for it, and XComs are sent as JSON
    return str(value) if isinstance(value, Decimal) else value
