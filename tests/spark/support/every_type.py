"""A table with a column of every type of Iceberg's format 2 that Spark has too, and rows that go wrong most easily."""

from __future__ import annotations

import datetime as dt
import decimal
import struct
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from pyiceberg.schema import Schema
from pyiceberg.types import (
    DecimalType,
    DoubleType,
    FloatType,
    ListType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
)

from tests.support.types import EVERY_TYPE, every_type_rows

#: Spark has no type for a time of day, and opens no table that has one.
SHARED_TYPES = Schema(
    *(f for f in EVERY_TYPE.fields if not isinstance(f.field_type, TimeType)),
    NestedField(101, "amount", DecimalType(18, 4)),
    NestedField(102, "wider", DecimalType(38, 10)),
    NestedField(103, "single_odd", FloatType()),
    NestedField(104, "double_odd", DoubleType()),
    NestedField(
        105,
        "deep",
        MapType(
            106,
            StringType(),
            107,
            ListType(
                108,
                StructType(
                    NestedField(109, "at", TimestampType()),
                    NestedField(110, "when", MapType(111, StringType(), 112, TimestamptzType(), value_required=False)),
                ),
                element_required=False,
            ),
            value_required=False,
        ),
    ),
)

_MOMENT = dt.datetime(2024, 3, 31, 1, 30, tzinfo=dt.timezone.utc)
_MORE: Sequence[Mapping[str, Any]] = (
    {
        "amount": decimal.Decimal("-99999999999999.9999"),
        "wider": decimal.Decimal("-9999999999999999999999999999.9999999999"),
        "single_odd": float("nan"),
        "double_odd": -0.0,
        "deep": [],
    },
    {
        "amount": decimal.Decimal("0.0001"),
        "wider": decimal.Decimal("0.0000000001"),
        "single_odd": float("-inf"),
        "double_odd": float("nan"),
        "deep": [
            ("", None),
            ("none", []),
            ("some", [None, {"at": _MOMENT.replace(tzinfo=None), "when": [("x", _MOMENT), ("y", None)]}]),
        ],
    },
    {"amount": None, "wider": None, "single_odd": None, "double_odd": None, "deep": None},
)


def shared_rows(schema: pa.Schema) -> pa.Table:
    """Return three rows: extremes, other extremes, and nulls throughout.

    :param schema: Arrow schema of a table created from ``SHARED_TYPES``.
    """
    names = [f.name for f in EVERY_TYPE.fields]
    old = pa.schema([schema.field(n) if n != "clock" else pa.field(n, pa.time64("us")) for n in names])
    more = pa.schema([schema.field(n) for n in _MORE[0]])
    added = pa.Table.from_pylist([dict(row) for row in _MORE], schema=more)
    rows = every_type_rows(old).drop_columns(["clock"])
    for field, column in zip(more, added.columns, strict=True):
        rows = rows.append_column(field, column)
    return rows.cast(schema)


def plain(table: pa.Table) -> list[dict[str, Any]]:
    """Return rows for a comparison that knows NaN and -0.0, and takes a UUID for its text, as Spark does; ordered by ``big``."""
    return sorted((_plain(row) for row in table.to_pylist()), key=lambda row: str(row.get("big")))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return "NaN" if value != value else struct.pack(">d", value)  # noqa: PLR0124  (what NaN is)
    return str(value) if isinstance(value, uuid.UUID) else value
