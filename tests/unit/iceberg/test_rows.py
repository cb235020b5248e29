"""Rows of files, read by field id: what is null stays null, what is deleted is gone, what has evolved is found."""

from __future__ import annotations

import datetime as dt
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import orc
from pyiceberg.catalog import Catalog
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.manifest import DataFile, FileFormat
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.types import (
    DateType,
    DoubleType,
    FloatType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
)

from airflow_incremental.core.errors import TableError
from airflow_incremental.iceberg.rows import row_batches
from airflow_incremental.iceberg.scan import row_deletes
from airflow_incremental.iceberg.writer import write
from tests.support.tables import (
    append,
    at,
    commit_snapshot,
    delete_rows_by_position,
    head,
    live_entries,
    live_files,
    make_table,
    rename_column,
    sql_catalog,
)
from tests.support.types import EVERY_TYPE, every_type_rows
from tests.unit.audits.test_failing import everything_said

STRUCT = StructType(NestedField(3, "a", IntegerType()))
NESTED = Schema(
    NestedField(1, "l", ListType(2, STRUCT, element_required=False)),
    NestedField(
        4, "m", MapType(5, StringType(), 6, StructType(NestedField(7, "a", IntegerType())), value_required=False)
    ),
    NestedField(8, "s", StructType(NestedField(9, "d", ListType(10, StructType(NestedField(11, "a", IntegerType())))))),
)
MAPPING = '[{"field-id": 1, "names": ["id"]}, {"field-id": 2, "names": ["ts"]}, {"field-id": 3, "names": ["name"]}]'


def fill(table: Table, rows: pa.Table, *, chunk: int = 1000) -> DataFile:
    """Write rows into one file of a table, past pyiceberg's projection, and commit it."""
    reader = pa.RecordBatchReader.from_batches(rows.schema, iter(rows.to_batches(max_chunksize=chunk)))
    (file,) = write(table, reader, write_id=uuid.uuid4(), check=None).files
    commit_snapshot(table, Operation.APPEND, added=[file])
    table.refresh()
    return file


def read(table: Table, schema: Schema | None = None) -> pa.Table:
    """Read all live rows."""
    deletes = row_deletes(table, head(table))
    tasks = [
        deletes.task(e.data_file, e.sequence_number or 0)
        for _, e in live_entries(table)
        if e.data_file.content.value == 0
    ]
    return row_batches(table, schema or table.schema(), tasks).read_all()


_struct = st.none() | st.fixed_dictionaries({"a": st.none() | st.integers(0, 3)})
_rows = st.fixed_dictionaries(
    {
        "l": st.none() | st.lists(_struct, max_size=3),
        "m": st.none() | st.dictionaries(st.sampled_from("kx"), _struct, max_size=2).map(lambda d: list(d.items())),
        "s": st.none()
        | st.fixed_dictionaries(
            {"d": st.none() | st.lists(st.fixed_dictionaries({"a": st.integers(0, 3)}), max_size=2)}
        ),
    }
)


@settings(max_examples=30)
@given(st.lists(_rows, min_size=1, max_size=8), st.integers(1, 9), st.data())
def test_nested_values_and_nulls_with_deletes(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], chunk: int, data: st.DataObject
) -> None:
    table = sql_catalog(tmp_path_factory.mktemp("nested")).create_table("raw.nested", _with_id(NESTED))
    values = [{"id": i, **row} for i, row in enumerate(rows)]
    fill(
        table,
        pa.Table.from_pylist(values, schema=schema_to_pyarrow(table.schema(), include_field_ids=False)),
        chunk=chunk,
    )
    gone = data.draw(st.sets(st.integers(0, len(rows) - 1)))
    if gone:
        delete_rows_by_position(table, gone)
    with table.update_schema() as update:
        update.add_column(("l", "element", "b"), LongType())
        update.update_column(("m", "value", "a"), LongType())

    def evolved(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "l": row["l"] and [e and {**e, "b": None} for e in row["l"]]}

    found = read(table.refresh())
    assert found.schema.equals(schema_to_pyarrow(table.schema(), include_field_ids=False))
    assert found.to_pylist() == [evolved(v) for v in values if v["id"] not in gone]


def _with_id(schema: Schema) -> Schema:
    return Schema(NestedField(100, "id", LongType()), *schema.fields)


def test_every_type(catalog: Catalog) -> None:
    table = catalog.create_table("raw.types", EVERY_TYPE)
    rows = every_type_rows(schema_to_pyarrow(table.schema(), include_field_ids=False))
    fill(table, rows)
    assert read(table).equals(rows)


@settings(max_examples=15)
@given(st.sets(st.integers(0, 199), min_size=1))
def test_deleted_positions(tmp_path_factory: pytest.TempPathFactory, gone: set[int]) -> None:
    table = make_table(sql_catalog(tmp_path_factory.mktemp("deletes")))
    append(table, *((n, at(n)) for n in range(200)))
    delete_rows_by_position(table, gone)
    delete_rows_by_position(table, sorted(gone)[::2], bounds=False)
    assert read(table.refresh()).column("id").to_pylist() == [n for n in range(200) if n not in gone]


def test_renamed_added_widened_and_dropped_columns(catalog: Catalog) -> None:
    schema = Schema(
        NestedField(1, "id", IntegerType()), NestedField(2, "x", FloatType()), NestedField(3, "old", StringType())
    )
    table = catalog.create_table("raw.evolving", schema)
    types = schema_to_pyarrow(table.schema(), include_field_ids=False)
    fill(table, pa.table({"id": [1, None], "x": [0.5, None], "old": ["a", "b"]}, schema=types))
    with table.update_schema() as update:
        update.update_column("id", LongType())
        update.update_column("x", DoubleType())
        update.add_column("new", DateType())
        update.delete_column("old")
    rename_column(table, "id", "key")
    assert read(table.refresh()).to_pylist() == [
        {"key": 1, "x": 0.5, "new": None},
        {"key": None, "x": None, "new": None},
    ]
    assert read(table, Schema(table.schema().find_field("new"))).to_pylist() == [{"new": None}] * 2


def test_a_value_may_stand_in_the_partition_only(catalog: Catalog, tmp_path: Path) -> None:
    table = make_table(
        catalog, partition_by=[("identity", "name")], properties={"schema.name-mapping.default": MAPPING}
    )
    append(table, (1, at(0)))
    (like,) = live_files(table.refresh())
    path = tmp_path / "without.parquet"
    pq.write_table(pa.table({"id": [7, 8]}), path)
    like[1] = f"file://{path}"
    found = row_batches(table, table.schema(), [FileScanTask(like)]).read_all().to_pylist()
    assert found == [{"id": 7, "ts": None, "name": "row 1"}, {"id": 8, "ts": None, "name": "row 1"}]


def test_a_required_column_that_is_not_there(catalog: Catalog) -> None:
    table = make_table(catalog)
    append(table, (1, at(0)))
    required = Schema(NestedField(9, "must", LongType(), required=True))
    with pytest.raises(
        TableError, match=r"column 'must' of data file .* the file does not have it, and it is required"
    ):
        row_batches(table.refresh(), required, [FileScanTask(f) for f in live_files(table)]).read_all()


def test_values_that_do_not_fit(catalog: Catalog) -> None:
    table = make_table(catalog)
    append(table, (1, at(0)))
    wrong = Schema(NestedField(3, "name", TimestampType()))
    with pytest.raises(TableError, match=r"column 'name' of data file .* cannot be read as timestamp") as caught:
        row_batches(table.refresh(), wrong, [FileScanTask(f) for f in live_files(table)]).read_all()
    assert "row 1" not in everything_said(caught.value), "a value of a row"


def test_orc_and_what_is_beyond_microseconds(catalog: Catalog, tmp_path: Path) -> None:
    table = make_table(catalog, properties={"schema.name-mapping.default": MAPPING})
    append(table, (1, at(5)))
    (like,) = live_files(table.refresh())
    times = pa.array([dt.datetime(2024, 1, 1), None]).cast(pa.timestamp("ns"))  # noqa: DTZ001
    rows = pa.table({"id": [7, 8], "ts": times, "name": ["x", "y"]})
    orc.write_table(rows, tmp_path / "file.orc")
    like[1], like[2] = f"file://{tmp_path}/file.orc", FileFormat.ORC
    found = row_batches(table, table.schema(), [FileScanTask(like)]).read_all()
    assert found.to_pylist() == [{"id": 7, "ts": at(0), "name": "x"}, {"id": 8, "ts": None, "name": "y"}]
    like[2] = FileFormat.AVRO
    with pytest.raises(TableError, match="is of format"):
        row_batches(table, table.schema(), [FileScanTask(like)]).read_all()


def test_one_batch_at_a_time(catalog: Catalog) -> None:
    table = make_table(catalog)
    append(table, *((n, at(0)) for n in range(3)))
    append(table, *((n, at(0)) for n in range(3, 5)))
    tasks = [FileScanTask(f) for f in live_files(table.refresh())]
    with row_batches(table, table.schema(), tasks) as reader:
        assert sorted(b.num_rows for b in reader) == [2, 3]
