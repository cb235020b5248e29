"""Types of columns as Spark names them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import ListType, LongType, MapType, NestedField, StringType, StructType, TimestampType, TimeType

from airflow_incremental.core.errors import TableError
from airflow_incremental.iceberg.spark_types import spark_columns, spark_event_time, spark_type
from tests.support.tables import make_table, rename_column, sql_catalog
from tests.support.types import EVERY_TYPE


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return make_table(sql_catalog(tmp_path))


def test_every_type_but_time_has_one(table: Table) -> None:
    fields = [f for f in EVERY_TYPE.fields if not isinstance(f.field_type, TimeType)]
    assert dict(spark_columns(table, Schema(*fields))) == {
        "flag": "boolean",
        "small": "int",
        "big": "bigint",
        "single": "float",
        "double": "double",
        "wide": "decimal(38,9)",
        "price": "decimal(9,2)",
        "day": "date",
        "local": "timestamp_ntz",
        "moment": "timestamp",
        "text": "string",
        "key": "string",
        "five": "binary",
        "bytes": "binary",
        "place": "struct<`lat`:double,`tags`:array<string>>",
        "numbers": "array<decimal(9,2)>",
        "counts": "map<string,bigint>",
        "points": "array<struct<`at`:timestamp,`id`:string>>",
        "odd name.\"x'": "string",
    }


def test_nested_types_and_odd_names(table: Table) -> None:
    inner = StructType(
        NestedField(11, "a`b c", LongType(), required=False),
        NestedField(12, "t", TimestampType(), required=False),
    )
    schema = Schema(
        NestedField(1, "l", ListType(2, inner, element_required=False), required=False),
        NestedField(
            3, "m", MapType(key_id=4, key_type=StringType(), value_id=5, value_type=LongType()), required=False
        ),
    )
    assert spark_columns(table, schema) == [
        ["l", "array<struct<`a``b c`:bigint,`t`:timestamp_ntz>>"],
        ["m", "map<string,bigint>"],
    ]
    assert spark_type(table, schema, "m") == "map<string,bigint>"


def test_time_is_refused_by_name(table: Table) -> None:
    schema = Schema(NestedField(1, "at", ListType(2, TimeType(), element_required=False), required=False))
    with pytest.raises(TableError, match=r"column 'at' of table raw.events has a part of type time"):
        spark_columns(table, schema)


def test_the_event_time_goes_by_its_name_under_the_schema(table: Table) -> None:
    before = table.schema()
    renamed = rename_column(table, "ts", "happened")
    assert spark_event_time(renamed, before, "happened") == ("ts", "timestamp")
    assert spark_event_time(renamed, renamed.schema(), "happened") == ("happened", "timestamp")
    without = Schema(before.fields[0])
    assert spark_event_time(renamed, without, "happened") == (None, None)
