"""Batches to data files: nothing lost on the way, whole partitions where they fit, memory bounded by the budget."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.conversions import from_bytes
from pyiceberg.expressions import EqualTo, IsNull
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import (
    DoubleType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
)

from airflow_incremental.core.errors import TableError, TransformError
from airflow_incremental.core.ranges import UTC, EventRanges, TimeRange
from airflow_incremental.iceberg.writer import RowCheck, Written, partition_order, write
from tests.support.tables import make_table, repartition, sql_catalog
from tests.support.types import EVERY_TYPE, every_type_rows

T0 = dt.datetime(2024, 1, 1, tzinfo=UTC)
MIB = 2**20


@pytest.fixture
def catalog(tmp_path: Path) -> SqlCatalog:
    return sql_catalog(tmp_path)


def events(catalog: SqlCatalog, *partition_by: tuple[str, str], **properties: str) -> Table:
    schema = Schema(
        NestedField(1, "at", TimestamptzType()), NestedField(2, "part", StringType()), NestedField(3, "n", LongType())
    )
    table = catalog.create_table("raw.events", schema, properties=properties)
    repartition(table, partition_by)
    return catalog.load_table("raw.events")


def rows_of(table: Table, rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=table.schema().as_arrow())


def write_all(table: Table, rows: pa.Table, *, chunk: int = 1000, **options: Any) -> Written:
    options = {"write_id": uuid.uuid4(), "check": None, **options}
    return write(table, rows.to_reader(max_chunksize=chunk), **options)


def commit(table: Table, written: Written) -> Table:
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as snapshot:
        for file in written.files:
            snapshot.append_data_file(file)
    return table


@pytest.mark.parametrize("budget", [1, 1000, 64 * MIB])
def test_every_type_survives(catalog: SqlCatalog, budget: int) -> None:
    """In the files, that is: pyiceberg's scan reads a null list of structs as an empty one."""
    table = catalog.create_table("raw.types", EVERY_TYPE)
    rows = every_type_rows(table.schema().as_arrow())
    written = write_all(table, rows, chunk=2, budget_bytes=budget)
    assert written.rows == 3
    files = [pq.ParquetFile(f.file_path.removeprefix("file://")) for f in written.files]
    for i, column in enumerate(rows.columns):
        assert [v for f in files for v in f.read().column(i).to_pylist()] == column.to_pylist()
    scanned = commit(table, written).scan().to_arrow().sort_by("big")
    assert scanned.drop_columns(["points"]).equals(rows.drop_columns(["points"]))


def test_nulls_and_empties_stay_apart_at_every_depth(catalog: SqlCatalog) -> None:
    struct = StructType(NestedField(3, "a", LongType()))
    deep = StructType(NestedField(9, "in", ListType(10, struct, element_required=False)))
    schema = Schema(
        NestedField(1, "l", ListType(2, struct, element_required=False)),
        NestedField(4, "m", MapType(5, StringType(), 6, struct, value_required=False)),
        NestedField(8, "d", ListType(11, deep, element_required=False)),
    )
    table = catalog.create_table("raw.nested", schema)
    values = [
        {"l": None, "m": None, "d": None},
        {"l": [], "m": [], "d": []},
        {"l": [None, {"a": None}], "m": [("k", None)], "d": [None, {"in": None}]},
        {"l": [{"a": 1}], "m": [("k", {"a": None})], "d": [{"in": []}, {"in": [None, {"a": 1}]}]},
    ]
    (file,) = write_all(table, rows_of(table, values), chunk=3).files
    assert pq.ParquetFile(file.file_path.removeprefix("file://")).read().to_pylist() == values


def test_files_carry_field_ids_and_names_that_avro_allows(catalog: SqlCatalog) -> None:
    schema = Schema(
        NestedField(1, "odd name.x'", LongType()), NestedField(2, "s", StructType(NestedField(3, "1 b", LongType())))
    )
    table = catalog.create_table("raw.odd", schema)
    rows = rows_of(table, [{"odd name.x'": 1, "s": {"1 b": 2}}])
    (file,) = write_all(table, rows).files
    found = pq.read_schema(file.file_path.removeprefix("file://"))
    table.append(rows)
    (other,) = [task.file for task in table.scan().plan_files()]
    assert found.equals(pq.read_schema(other.file_path.removeprefix("file://")), check_metadata=True)
    assert found.names == ["odd_x20name_x2Ex_x27", "s"]


def test_files_are_described_as_pyiceberg_describes_its_own(catalog: SqlCatalog) -> None:
    table = events(catalog, ("identity", "part"), ("hour", "at"))
    rows = rows_of(table, [{"at": T0 + n * dt.timedelta(minutes=7), "part": f"p{n % 2}", "n": n} for n in range(30)])
    ours = write_all(table, rows).files
    table.append(rows)
    theirs = [task.file for task in table.scan().plan_files()]

    def described(file: DataFile) -> dict[str, Any]:
        names = ("content", "file_format", "record_count", "column_sizes", "value_counts", "null_value_counts")
        names += ("nan_value_counts", "lower_bounds", "upper_bounds", "split_offsets", "file_size_in_bytes", "spec_id")
        return {"partition": tuple(file.partition), **{n: getattr(file, n) for n in names}}

    assert sorted(map(described, ours), key=str) == sorted(map(described, theirs), key=str)


VALUES = ["a/b 1", "007", "null", "", "x=y&z", "ü%2F", "[1]*?", None]


@pytest.mark.parametrize("budget", [1, 500, MIB])
def test_partition_values_survive(catalog: SqlCatalog, budget: int) -> None:
    table = events(catalog, ("identity", "part"), ("day", "at"))
    rows = rows_of(
        table,
        [
            {"at": None if n % 5 == 0 else T0 + n * dt.timedelta(hours=7), "part": VALUES[n % len(VALUES)], "n": n}
            for n in range(80)
        ],
    )
    written = write_all(table, rows, chunk=7, budget_bytes=budget)
    commit(table, written)
    assert table.scan().to_arrow().sort_by("n").equals(rows)
    for value in VALUES:
        wanted = IsNull("part") if value is None else EqualTo("part", value)
        assert (
            table.scan(wanted).to_arrow().column("n").to_pylist().sort()
            == [n for n in range(80) if VALUES[n % len(VALUES)] == value].sort()
        )
    for file in written.files:
        assert file.record_count > 0
        assert file.spec_id == table.metadata.default_spec_id


def test_file_names_hold_the_write_and_never_repeat(catalog: SqlCatalog) -> None:
    table = events(catalog, ("identity", "part"))
    rows = rows_of(table, [{"at": T0, "part": f"p{n % 3}", "n": n} for n in range(300)])
    write_id = uuid.uuid4()
    written = write_all(table, rows, chunk=10, budget_bytes=500, write_id=write_id)
    paths = [f.file_path for f in written.files]
    assert len(paths) > 3
    assert len(set(paths)) == len(paths)
    assert all(str(write_id) in Path(p).name for p in paths)
    assert written.bytes == sum(Path(p.removeprefix("file://")).stat().st_size for p in paths)


def test_nothing_to_write_writes_nothing(catalog: SqlCatalog, tmp_path: Path) -> None:
    table = events(catalog, ("identity", "part"))
    assert write_all(table, rows_of(table, [])) == Written(files=(), rows=0, bytes=0)
    empty = pa.RecordBatchReader.from_batches(
        table.schema().as_arrow(), [pa.RecordBatch.from_pylist([], schema=table.schema().as_arrow())]
    )
    assert write(table, empty, write_id=uuid.uuid4(), check=None).files == ()
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize("chunk", [1, 13, 10_000])
def test_a_partition_is_one_file_where_rows_are_ordered_and_it_fits(catalog: SqlCatalog, chunk: int) -> None:
    table = events(catalog, ("day", "at"), ("identity", "part"))
    assert partition_order(table) == ("day(at)", "part")
    rows = rows_of(
        table,
        [
            {"at": T0 + dt.timedelta(days=d, hours=n % 24), "part": part, "n": n}
            for d in range(10)
            for part in ("a", "b", None)
            for n in range(40)
        ],
    )
    written = write_all(table, rows, chunk=chunk, budget_bytes=rows.nbytes // 7)
    assert len(written.files) == 30
    assert {f.record_count for f in written.files} == {40}


def test_a_partition_larger_than_the_budget_is_cut(catalog: SqlCatalog) -> None:
    table = events(catalog, ("identity", "part"))
    rows = rows_of(table, [{"at": T0, "part": "a" if n < 900 else "b", "n": n} for n in range(1000)])
    written = write_all(table, rows, chunk=10, budget_bytes=rows.nbytes // 5)
    assert 5 <= len(written.files) <= 7
    assert commit(table, written).scan().to_arrow().sort_by("n").equals(rows)


def test_order_leaves_out_what_an_engine_cannot_compute(catalog: SqlCatalog) -> None:
    schema = Schema(
        NestedField(1, "ts", TimestampType()),
        NestedField(2, "id", LongType()),
        NestedField(3, "place", StructType(NestedField(4, "country", StringType()))),
        NestedField(5, "name", StringType()),
    )
    table = catalog.create_table("raw.odd", schema)
    repartition(
        table,
        [
            ("bucket[4]", "id"),
            ("month", "ts"),
            ("truncate[1]", "name"),
            ("identity", "place.country"),
        ],
    )
    assert partition_order(table) == ("month(ts)",)
    rows = rows_of(
        table,
        [
            {"ts": dt.datetime(2024, 1 + n % 3, 1), "id": n % 7, "place": {"country": f"c{n % 2}"}, "name": f"{n % 3}x"}  # noqa: DTZ001
            for n in range(200)
        ],
    )
    written = write_all(table, rows, chunk=20, budget_bytes=1000)
    assert commit(table, written).scan().to_arrow().num_rows == written.rows == 200


#: Buffers may outlive a test, and never the pool they came from.
_POOLS: list[pa.MemoryPool] = []


def peak_of(table: Table, reader: pa.RecordBatchReader, budget: int) -> int:
    """Return the most Arrow memory a write held at once."""
    before = pa.default_memory_pool()
    counted = pa.proxy_memory_pool(before)
    _POOLS.append(counted)
    pa.set_memory_pool(counted)
    try:
        write(table, reader, write_id=uuid.uuid4(), check=None, budget_bytes=budget)
    finally:
        pa.set_memory_pool(before)
    return int(counted.max_memory())


@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])
def test_memory_follows_the_budget_and_not_the_output(catalog: SqlCatalog, *, ordered: bool) -> None:
    table = events(catalog, ("identity", "part"))
    schema = table.schema().as_arrow()
    rows, parts, budget = 50_000, 20, 8 * MIB
    times = pa.repeat(pa.scalar(T0, schema.field("at").type), rows)
    mixed = pa.array([f"p{n % parts}" for n in range(rows)], schema.field("part").type)

    numbers = pa.array(range(rows), pa.int64())

    def batches(count: int) -> Iterator[pa.RecordBatch]:
        for i in range(count):
            names = pa.repeat(pa.scalar(f"p{i * parts // count}", mixed.type), rows) if ordered else mixed
            yield pa.record_batch([times, names, numbers], schema=schema)

    assert 60 * next(batches(1)).nbytes > 9 * budget
    assert peak_of(table, pa.RecordBatchReader.from_batches(schema, batches(60)), budget) < 4 * budget


def test_one_huge_batch_is_written_in_pieces(catalog: SqlCatalog) -> None:
    table = events(catalog)
    rows = rows_of(table, [{"at": T0, "part": "x" * 50, "n": n} for n in range(20_000)])
    assert len(rows.to_batches()) == 1
    written = write_all(table, rows, chunk=10**6, budget_bytes=rows.nbytes // 10)
    assert 9 <= len(written.files) <= 11
    assert commit(table, written).scan().to_arrow().sort_by("n").equals(rows)


@pytest.mark.parametrize("mode", ["none", "counts", "truncate(16)", None])
def test_bounds_of_the_event_time_are_kept_whatever_the_table_asks_for(catalog: SqlCatalog, mode: str | None) -> None:
    properties = (
        {} if mode is None else {"write.metadata.metrics.default": mode, "write.metadata.metrics.column.at": mode}
    )
    table = events(catalog, **properties)
    times = [T0, T0 + dt.timedelta(microseconds=1)]
    rows = rows_of(table, [{"at": t, "part": "p", "n": 1} for t in times] + [{"at": None, "part": "p", "n": 2}])
    everything = RowCheck(event_time="at", ranges=None)
    (file,) = write_all(table, rows, check=everything).files
    ends = [from_bytes(TimestamptzType(), bounds[1]) for bounds in (file.lower_bounds, file.upper_bounds)]
    assert ends == [int(t.timestamp() * 1_000_000) for t in times]
    assert file.null_value_counts[1] == 1
    assert table.properties == {**properties, **table.properties}
    if mode == "none":
        assert 2 not in file.null_value_counts


def test_progress_is_told_after_every_round(catalog: SqlCatalog) -> None:
    table = events(catalog)
    rows = rows_of(table, [{"at": T0, "part": "p", "n": n} for n in range(1000)])
    told: list[tuple[int, int]] = []
    written = write_all(
        table, rows, chunk=100, budget_bytes=rows.nbytes // 4, on_progress=lambda *seen: told.append(seen)
    )
    assert len(told) >= 4
    assert told == sorted(told)
    assert told[-1] == (written.rows, written.bytes)


def test_another_format_is_refused(catalog: SqlCatalog) -> None:
    table = events(catalog, **{"write.format.default": "orc"})
    with pytest.raises(TableError, match="the target asks for files of format 'orc'"):
        write_all(table, rows_of(table, []))


def test_rows_in_no_partition_are_missed(catalog: SqlCatalog) -> None:
    table = catalog.create_table("raw.floats", Schema(NestedField(1, "x", DoubleType())))
    repartition(table, [("identity", "x")])
    rows = rows_of(table, [{"x": 1.0}, {"x": float("nan")}])
    with pytest.raises(TransformError, match="look for NaN in the columns the target is partitioned by"):
        write_all(table, rows)


def test_a_row_outside_stops_the_write(catalog: SqlCatalog) -> None:
    table = make_table(catalog, partition_by=[("hour", "ts")])
    hour = TimeRange(T0, T0 + dt.timedelta(hours=1))
    check = RowCheck(event_time="ts", ranges=EventRanges((hour,)))
    rows = rows_of(table, [{"id": n, "ts": (T0 + n * dt.timedelta(minutes=1)).replace(tzinfo=None)} for n in range(60)])
    assert write_all(table, rows, check=check).rows == 60
    late = rows_of(table, [{"id": 61, "ts": hour.end.replace(tzinfo=None)}])
    with pytest.raises(TransformError, match="1 rows"):
        write_all(table, pa.concat_tables([rows, late]), check=check)
