"""Files whose columns are not what the table says, and which files an engine may open itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import (
    DecimalType,
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
from airflow_incremental.iceberg.columns import ColumnReader, FileColumns, identity_positions, local_path, plain_in
from tests.support.tables import append, at, live_files, make_table


def with_ids(**columns: tuple[int, pa.DataType]) -> pa.Schema:
    return pa.schema([pa.field(n, t, metadata={"PARQUET:field_id": str(i)}) for n, (i, t) in columns.items()])


@pytest.fixture
def table(catalog: Catalog) -> Table:
    found = make_table(catalog)
    append(found, (1, at(0)))
    return found.refresh()


def read(table: Table, physical: pa.Schema) -> FileColumns:
    return ColumnReader(table).of_schema(physical, "file.parquet")


def test_local_paths() -> None:
    assert local_path("file:///data/a b/x=1%2F2.parquet") == "/data/a b/x=1%2F2.parquet"
    assert local_path("file:/data/x.parquet") == "/data/x.parquet"
    assert local_path("/data/x.parquet") == "/data/x.parquet"
    assert local_path("s3://bucket/x.parquet") is None


def test_a_file_of_the_table_is_the_tables(table: Table) -> None:
    (file,) = live_files(table)
    columns = ColumnReader(table).of_file(file.file_path)
    assert columns.has_ids
    assert [columns.name_of(i) for i in (1, 2, 3, 4)] == ["id", "ts", "name", None]
    assert plain_in(columns, table.schema(), file, {})


def test_files_written_alike_are_worked_out_once(table: Table) -> None:
    reader = ColumnReader(table)
    physical = with_ids(id=(1, pa.int64()))
    assert reader.of_schema(physical, "a") is reader.of_schema(physical, "b")
    assert reader.of_schema(with_ids(id=(1, pa.int32())), "c") is not reader.of_schema(physical, "a")


@pytest.mark.parametrize(
    ("physical", "what"),
    [
        (with_ids(id=(1, pa.int64()), ts=(9, pa.timestamp("us"))), "has its column 'ts' under field id 9"),
        (with_ids(name=(1, pa.int64()), id=(3, pa.string())), "has its column 'name' under field id 1"),
        (with_ids(a=(11, pa.int64()), b=(12, pa.int64())), r"has field ids \[11, 12\], none of which the table knows"),
        (pa.schema([("id", pa.int64())]), "cannot be matched with the table's columns"),
    ],
)
def test_files_of_other_tables_are_refused_by_name(table: Table, physical: pa.Schema, what: str) -> None:
    with pytest.raises(TableError, match=rf"data file file\.parquet of table raw\.events {what}"):
        read(table, physical)


def test_columns_may_have_any_name_they_ever_had(table: Table) -> None:
    for old, new in (("name", "label"), ("ts", "name"), ("label", "ts")):
        with table.update_schema() as update:
            update.rename_column(old, new)
    (file,) = live_files(table.refresh())
    columns = ColumnReader(table).of_file(file.file_path)
    assert columns.name_of(2) == "ts"
    assert columns.name_of(3) == "name"


def test_a_column_dropped_and_added_again_is_another_one(table: Table) -> None:
    with table.update_schema() as update:
        update.delete_column("name")
    with table.update_schema() as update:
        update.add_column("name", StringType())
    (file,) = live_files(table.refresh())
    columns = ColumnReader(table).of_file(file.file_path)
    assert columns.name_of(3) == "name"
    assert columns.name_of(4) is None
    assert plain_in(columns, table.schema(), file, {})


def test_names_that_avro_does_not_take(catalog: Catalog, tmp_path: Path) -> None:
    del tmp_path
    schema = Schema(NestedField(1, "the id", LongType()), NestedField(2, "ts", TimestampType()))
    table = catalog.create_table("raw.odd", schema=schema)
    table.append(pa.table({"the id": [1], "ts": pa.array([at(0)], pa.timestamp("us"))}))
    (file,) = live_files(table)
    assert ColumnReader(table).of_file(file.file_path).name_of(1) == "the_x20id"


def test_names_of_a_mapping(catalog: Catalog, tmp_path: Path) -> None:
    mapping = '[{"field-id":1,"names":["id","key"]}]'
    table = make_table(catalog, properties={"schema.name-mapping.default": mapping})
    append(table, (1, at(0)))
    path = tmp_path / "plain.parquet"
    pq.write_table(pa.table({"key": [1]}), path)
    columns = ColumnReader(table).of_file(f"file://{path}")
    assert (columns.has_ids, columns.name_of(1)) == (False, "key")
    assert not plain_in(columns, table.schema(), live_files(table.refresh())[0], {})


STRUCT = StructType(NestedField(11, "a", LongType(), required=False))
WIDER = StructType(NestedField(11, "a", LongType(), required=False), NestedField(12, "b", LongType(), required=False))


@pytest.mark.parametrize(
    ("stored", "wanted", "plain"),
    [
        (pa.int32(), IntegerType(), True),
        (pa.int32(), LongType(), True),
        (pa.float32(), FloatType(), True),
        (pa.float32(), DoubleType(), True),
        (pa.decimal128(5, 2), DecimalType(9, 2), True),
        (pa.string(), StringType(), True),
        (pa.large_string(), StringType(), True),
        (pa.timestamp("us"), TimestampType(), True),
        # Physical forms that need Iceberg's rules to come out right.
        (pa.timestamp("ms"), TimestampType(), False),
        (pa.timestamp("us", "UTC"), TimestampType(), False),
        (pa.decimal128(9, 2), DecimalType(5, 2), False),
        (pa.decimal128(5, 1), DecimalType(9, 2), False),
    ],
)
def test_which_physical_types_an_engine_may_read(
    catalog: Catalog, stored: pa.DataType, wanted: Any, *, plain: bool
) -> None:
    schema = Schema(NestedField(1, "id", wanted, required=False))
    table = catalog.create_table("raw.typed", schema=schema)
    file = live_files(_some_table(catalog))[0]
    assert plain_in(read(table, with_ids(id=(1, stored))), schema, file, {}) is plain


def _some_table(catalog: Catalog) -> Table:
    table = make_table(catalog, "raw.some")
    append(table, (1, at(0)))
    return table.refresh()


def test_nested_columns_must_not_have_evolved(catalog: Catalog) -> None:
    def schema(struct: StructType) -> Schema:
        return Schema(
            NestedField(1, "s", struct, required=False),
            NestedField(2, "l", ListType(21, LongType(), element_required=False), required=False),
            NestedField(3, "m", MapType(31, StringType(), 32, LongType(), value_required=False), required=False),
        )

    table = catalog.create_table("raw.nested", schema=schema(STRUCT))
    rows = pa.table({"s": [{"a": 1}], "l": [[1]], "m": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64()))})
    table.append(rows)
    (file,) = live_files(table)
    columns = ColumnReader(table).of_file(file.file_path)
    assert columns.has_ids
    assert plain_in(columns, table.schema(), file, {})
    with table.update_schema() as update:
        update.add_column(("s", "b"), LongType())
    assert not plain_in(columns, table.refresh().schema(), file, {})


def test_missing_columns(catalog: Catalog, table: Table) -> None:
    (file,) = live_files(table)
    columns = read(table, with_ids(id=(1, pa.int64()), ts=(2, pa.timestamp("us"))))
    assert plain_in(columns, table.schema(), file, {})
    required = Schema(NestedField(1, "id", LongType()), NestedField(9, "must", LongType(), required=True))
    assert not plain_in(columns, required, file, {})
    # The value of an identity partition may stand in the partition tuple only.
    by_name = make_table(catalog, "raw.by_name", partition_by=[("identity", "name")])
    append(by_name, (1, at(0)))
    (partitioned,) = live_files(by_name.refresh())
    positions = identity_positions(by_name)
    assert positions[partitioned.spec_id] == {3: 0}
    columns = read(by_name, with_ids(id=(1, pa.int64()), ts=(2, pa.timestamp("us"))))
    assert not plain_in(columns, by_name.schema(), partitioned, positions[partitioned.spec_id])
