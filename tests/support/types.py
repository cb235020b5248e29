"""One table with a column of every type Iceberg format 2 has, and rows with the values that get lost most easily."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from typing import Any

import pyarrow as pa
from pyiceberg.schema import Schema
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FixedType,
    FloatType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

UTC = dt.timezone.utc

EVERY_TYPE = Schema(
    NestedField(1, "flag", BooleanType()),
    NestedField(2, "small", IntegerType()),
    NestedField(3, "big", LongType()),
    NestedField(4, "single", FloatType()),
    NestedField(5, "double", DoubleType()),
    NestedField(6, "wide", DecimalType(38, 9)),
    NestedField(7, "price", DecimalType(9, 2)),
    NestedField(8, "day", DateType()),
    NestedField(9, "clock", TimeType()),
    NestedField(10, "local", TimestampType()),
    NestedField(11, "moment", TimestamptzType()),
    NestedField(12, "text", StringType()),
    NestedField(13, "key", UUIDType()),
    NestedField(14, "five", FixedType(5)),
    NestedField(15, "bytes", BinaryType()),
    NestedField(
        16,
        "place",
        StructType(
            NestedField(17, "lat", DoubleType()),
            NestedField(18, "tags", ListType(19, StringType(), element_required=False)),
        ),
    ),
    NestedField(20, "numbers", ListType(21, DecimalType(9, 2), element_required=False)),
    NestedField(22, "counts", MapType(23, StringType(), 24, LongType(), value_required=False)),
    NestedField(
        25,
        "points",
        ListType(26, StructType(NestedField(27, "at", TimestamptzType()), NestedField(28, "id", UUIDType()))),
    ),
    NestedField(29, "odd name.\"x'", StringType()),
)


def _uuid(n: int) -> bytes:
    return uuid.UUID(int=n).bytes


def every_type_rows(schema: pa.Schema) -> pa.Table:
    """Return three rows: extremes, the other extremes, and nulls throughout.

    :param schema: Arrow schema of a table created from ``EVERY_TYPE``, which has field ids of its own.
    """
    points = schema.field("points")
    rest = pa.schema([f for f in schema if f.name != "points"])
    rows = pa.Table.from_pylist(_rows(), schema=rest)
    # pyarrow makes no nested UUIDs from Python values.
    ids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([_uuid(5), None], pa.binary(16)))
    times = pa.array([dt.datetime(2024, 3, 31, 1, tzinfo=UTC), None], pa.timestamp("us", "UTC"))
    inner = pa.StructArray.from_arrays([times, ids], fields=list(points.type.value_type))
    offsets = pa.array([0, 0, 2, 2], pa.int64())
    lists = pa.LargeListArray.from_arrays(offsets, inner, type=points.type, mask=pa.array([False, False, True]))
    return rows.add_column(schema.get_field_index("points"), points, lists).cast(schema)


def _rows() -> list[dict[str, Any]]:
    low = {
        "flag": True,
        "small": -(2**31),
        "big": -(2**63),
        "single": 1.5,
        "double": -1e308,
        "wide": decimal.Decimal("-12345678901234567890123456789.123456789"),
        "price": decimal.Decimal("-9999999.99"),
        "day": dt.date(1, 1, 1),
        "clock": dt.time(0, 0),
        "local": dt.datetime(1600, 1, 1, 0, 0, 0, 1),  # noqa: DTZ001
        "moment": dt.datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        "text": "",
        "key": _uuid(0),
        "five": b"\x00\xff123",
        "bytes": b"",
        "place": {"lat": None, "tags": []},
        "numbers": [],
        "counts": [],
        "odd name.\"x'": "007",
    }
    high = {
        "flag": False,
        "small": 2**31 - 1,
        "big": 2**63 - 1,
        "single": float("inf"),
        "double": 0.1,
        "wide": decimal.Decimal("0.000000001"),
        "price": decimal.Decimal("0.10"),
        "day": dt.date(9999, 12, 31),
        "clock": dt.time(23, 59, 59, 999999),
        "local": dt.datetime(9999, 12, 31, 23, 59, 59, 999999),  # noqa: DTZ001
        "moment": dt.datetime(2262, 5, 1, 1, 1, 1, 1, tzinfo=UTC),
        "text": "é\x00\n\"'\\ %s {} 日本",
        "key": _uuid(2**128 - 1),
        "five": b"\xff" * 5,
        "bytes": bytes(range(256)),
        "place": {"lat": 1.25, "tags": ["a", None, ""]},
        "numbers": [decimal.Decimal("1.10"), None],
        "counts": [("a", 1), ("b", None)],
        "odd name.\"x'": "a/b 1",
    }
    return [low, high, dict.fromkeys(low)]
