"""Spark and this package put the same row into the same partition, and each finds what the other has put there."""

from __future__ import annotations

import datetime as dt
import decimal
import itertools
import uuid
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.expressions import EqualTo, IsNull
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import parse_transform
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FixedType,
    FloatType,
    IcebergType,
    IntegerType,
    LongType,
    NestedField,
    StringType,
    TimestampType,
    TimestamptzType,
    UUIDType,
)

from tests.spark.support.catalogs import SharedCatalog
from tests.spark.support.spark_process import SparkProcess
from tests.spark.test_types import write_own
from tests.support.tables import live_files

UTC = dt.timezone.utc
_BEFORE_1970 = dt.datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
_IN_2024 = dt.datetime(2024, 2, 29, 23, 30, 0, 1, tzinfo=UTC)
#: Type -> two values that go wrong most easily; each column has a null as well.
VALUES: dict[IcebergType, tuple[Any, Any]] = {
    BooleanType(): (True, False),
    IntegerType(): (2 - 2**31, 17),  # less cannot be truncated within its type
    LongType(): (2 - 2**63, 2**40),
    FloatType(): (-1.5, 0.25),
    DoubleType(): (-1e-300, 0.1),
    DecimalType(9, 2): (decimal.Decimal("-0.05"), decimal.Decimal("1234567.89")),
    DecimalType(38, 10): (decimal.Decimal("-1234567890123456789012345678.0123456789"), decimal.Decimal("0.0000000001")),
    DateType(): (dt.date(1969, 12, 31), dt.date(2024, 2, 29)),
    TimestampType(): (_BEFORE_1970.replace(tzinfo=None), _IN_2024.replace(tzinfo=None)),
    TimestamptzType(): (_BEFORE_1970, _IN_2024),
    StringType(): ("a/b 1=ü%😀", ""),
    UUIDType(): (uuid.UUID(int=5), uuid.UUID(int=2**128 - 1)),
    FixedType(3): (b"\x00\xff/", b"abc"),
    BinaryType(): (b"\xff\xfe\x00", b"four"),
}
#: Without identity of uuid, double and fixed, and truncate of binary: tables that are so partitioned are refused.
_IDENTITY = tuple(t for t in VALUES if not isinstance(t, (UUIDType, DoubleType, FixedType)))
_HASHED = tuple(t for t in VALUES if not isinstance(t, (BooleanType, FloatType, DoubleType)))
_CUT = (IntegerType(), LongType(), DecimalType(9, 2), DecimalType(38, 10), StringType())
_DAYS, _HOURS = (DateType(), TimestampType(), TimestamptzType()), (TimestampType(), TimestamptzType())


def make_table(catalog: SharedCatalog, fields: Iterable[tuple[str, IcebergType]]) -> Table:
    """Create a table with one column and one partition field on it for each transform and type."""
    fields = list(fields)
    columns = [NestedField(1, "n", LongType()), *(NestedField(i, f"c{i}", t) for i, (_, t) in enumerate(fields, 2))]
    opened = catalog.load()
    table = opened.create_table("raw.parts", Schema(*columns))
    with table.update_spec() as update:
        for i, (transform, _) in enumerate(fields, 2):
            update.add_field(f"c{i}", parse_transform(transform), f"p{i}")
    return opened.load_table("raw.parts")


def rows_for(table: Table) -> pa.Table:
    """Return a row of first values, one of second values, and one of nulls."""
    schema = table.schema().as_arrow()
    rows: list[dict[str, Any]] = [{"n": n} for n in range(3)]
    for field in table.schema().fields[1:]:
        for row, value in zip(rows, (*VALUES[field.field_type], None), strict=True):
            row[field.name] = value.bytes if isinstance(value, uuid.UUID) else value
    return pa.Table.from_pylist(rows, schema=schema)


def partitions(table: Table) -> Counter[tuple[Any, ...]]:
    """Return the partition tuples of the live files."""
    return Counter(tuple(f.partition[i] for i in range(len(f.partition))) for f in live_files(table.refresh()))


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([("identity", t) for t in _IDENTITY], id="identity"),
        pytest.param([("bucket[1000]", t) for t in _HASHED], id="bucket"),
        pytest.param([("truncate[3]", t) for t in _CUT], id="truncate"),
        pytest.param(
            [*itertools.product(["year", "month", "day"], _DAYS), *itertools.product(["hour"], _HOURS)], id="times"
        ),
    ],
)
def test_partition_values_are_the_same(
    spark: SparkProcess, jdbc_catalog: SharedCatalog, fields: list[tuple[str, IcebergType]]
) -> None:
    table = make_table(jdbc_catalog, fields)
    rows = rows_for(table)
    write_own(table, rows)
    ours = partitions(table)
    assert len(ours) == 3
    # Spark puts its copy of each row into the partition where the row already is.
    spark.sql(jdbc_catalog, "INSERT INTO raw.parts SELECT * FROM raw.parts")
    assert partitions(table) == Counter({tuple_: 2 * n for tuple_, n in ours.items()})
    # Each finds both copies by every column alone: a wrong value would hide one.
    for field in table.schema().fields[1:]:
        if isinstance(field.field_type, UUIDType):
            continue  # pyiceberg cannot compare them
        for n, value in enumerate((*VALUES[field.field_type], None)):
            found = table.scan(IsNull(field.name) if value is None else EqualTo(field.name, value)).to_arrow()
            assert found["n"].to_pylist() == [n, n], (field, value)
    for n in range(3):
        conditions = [
            f"{f.name} <=> (SELECT max(x.{f.name}) FROM raw.parts.snapshot_id_{_first(table)} x WHERE x.n = {n})"
            for f in table.schema().fields[1:]
        ]
        listed = ", ".join(f"(SELECT count(*) FROM raw.parts WHERE {c}) AS n{i}" for i, c in enumerate(conditions))
        assert set(spark.sql(jdbc_catalog, f"SELECT {listed}").to_pylist()[0].values()) == {2}


def _first(table: Table) -> int:
    return min(table.metadata.snapshots, key=lambda s: s.sequence_number or 0).snapshot_id
