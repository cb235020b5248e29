"""Keys against the bounds of files and against rows: many give the same answers as few, and do not cost every batch anew."""

from __future__ import annotations

import datetime as dt
import itertools
import time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.conversions import to_bytes
from pyiceberg.manifest import DataFile
from pyiceberg.typedef import Record
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    FixedType,
    LongType,
    NestedField,
    PrimitiveType,
    StringType,
    TimestampType,
    TimeType,
)

from airflow_incremental.iceberg import keys as module
from airflow_incremental.iceberg.keys import KeyIndex, KeySet

#: Iceberg type, Arrow type, values in order.
KINDS: list[tuple[PrimitiveType, pa.DataType, list[Any]]] = [
    (LongType(), pa.int64(), [-(2**63), -1, 0, 2**63 - 1]),
    (StringType(), pa.large_string(), ["", "a", "a\x00", "a ", "é", "\U0001f600"]),
    (DateType(), pa.date32(), [dt.date(1, 1, 1), dt.date(1969, 12, 31), dt.date(1970, 1, 1), dt.date(9999, 12, 31)]),
    (
        TimestampType(),
        pa.timestamp("us"),
        [dt.datetime.fromisoformat(t) for t in ("0001-01-01", "1969-12-31 23:59:59.999999")],
    ),
    (TimeType(), pa.time64("us"), [dt.time(0), dt.time(23, 59, 59, 999999)]),
    (DecimalType(9, 2), pa.decimal128(38, 2), [Decimal("-9999999.99"), Decimal("0.00"), Decimal("0.01")]),
    (BooleanType(), pa.bool_(), [False, True]),
    (BinaryType(), pa.large_binary(), [b"", b"\x00", b"\xff"]),
    (FixedType(4), pa.binary(4), [b"\x00\x00\x00\x00", b"abcd", b"\xff\xff\xff\xff"]),
]
IDS = [str(kind) for kind, _, _ in KINDS]


def file_of(*bounds: tuple[PrimitiveType, Any, Any]) -> DataFile:
    """Return a file whose columns 1, 2, ... have bounds."""
    lower = {n: to_bytes(kind, low) for n, (kind, low, _) in enumerate(bounds, 1)}
    upper = {n: to_bytes(kind, high) for n, (kind, _, high) in enumerate(bounds, 1)}
    file = DataFile.from_args(partition=Record(), lower_bounds=lower, upper_bounds=upper)
    file.spec_id = 0
    return file


def index_of(keys: KeySet, *kinds: PrimitiveType) -> KeyIndex:
    fields = tuple(NestedField(n, f"k{n}", kind) for n, kind in enumerate(kinds, 1))
    rest = tuple(module._ordered(c) for c in keys.rows.columns[1:])
    return KeyIndex(fields=fields, first=keys.values[0], rest=rest, partitions={})


@pytest.mark.parametrize(("kind", "arrow", "values"), KINDS, ids=IDS)
def test_bounds_of_the_second_column_rule_files_out(kind: PrimitiveType, arrow: pa.DataType, values: list[Any]) -> None:
    keys = KeySet.of(pa.table({"k1": pa.array([1, 2]), "k2": pa.array([values[0], values[-1]], arrow)}))
    index = index_of(keys, LongType(), kind)
    for low, high in itertools.combinations_with_replacement(values, 2):
        first, second = low == values[0], high == values[-1]
        assert index.may_hold(file_of((LongType(), 0, 9), (kind, low, high))) == (first or second)
        assert index.may_hold(file_of((LongType(), 1, 1), (kind, low, high))) == first
        assert index.may_hold(file_of((LongType(), 2, 2), (kind, low, high))) == second
    assert not index.may_hold(file_of((LongType(), 3, 9), (kind, values[0], values[-1])))


@pytest.mark.parametrize("columns", [("k",), ("k", "n")])
@pytest.mark.parametrize(("_kind", "arrow", "values"), KINDS, ids=IDS)
def test_more_keys_than_rows(_kind: Any, arrow: pa.DataType, values: list[Any], columns: tuple[str, ...]) -> None:
    wanted = pa.table({"k": pa.array(values[1:], arrow), "n": pa.array([7] * len(values[1:]), pa.int64())})
    keys = KeySet.of(wanted.select(columns))
    given = pa.record_batch(
        {"k": pa.array([*values, None], arrow), "n": pa.array([7] * len(values) + [None], pa.int64())}
    )
    few = [given.slice(n, 1) for n in range(given.num_rows)]
    expected = [False, *([True] * (len(values) - 1)), False]
    assert keys.mask(given, columns).to_pylist() == expected
    many = KeySet.of(pa.concat_tables([keys.rows] * 3))
    assert [many.mask(row, columns)[0].as_py() for row in few] == expected


@pytest.mark.parametrize("columns", [("k",), ("k", "n")])
def test_many_keys_are_looked_into_once(columns: tuple[str, ...]) -> None:
    numbers = pa.array(range(0, 1_000_000, 2), pa.int64())
    keys = KeySet.of(pa.table({"k": numbers, "n": numbers}).select(columns))
    batch = pa.record_batch({"k": pa.array(range(100), pa.int64()), "n": pa.array(range(100), pa.int64())})
    assert keys.mask(batch, columns).to_pylist() == [n % 2 == 0 for n in range(100)]
    started = time.process_time()
    for _ in range(200):
        keys.mask(batch, columns)
    assert time.process_time() - started < 2, "with all keys hashed for every batch it takes ten seconds and more"
