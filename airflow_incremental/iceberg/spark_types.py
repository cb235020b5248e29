"""Columns of a table as Spark names their types: what Iceberg's own Spark catalog makes of them."""

from __future__ import annotations

from pyiceberg.schema import Schema
from pyiceberg.table import Table
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
    ListType,
    LongType,
    MapType,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    UUIDType,
)

from airflow_incremental.core.errors import TableError
from airflow_incremental.iceberg.bounds import EventColumn

_PRIMITIVE: dict[type[IcebergType], str] = {
    BooleanType: "boolean",
    IntegerType: "int",
    LongType: "bigint",
    FloatType: "float",
    DoubleType: "double",
    DateType: "date",
    TimestampType: "timestamp_ntz",
    TimestamptzType: "timestamp",
    StringType: "string",
    UUIDType: "string",
    FixedType: "binary",
    BinaryType: "binary",
}


def spark_columns(table: Table, schema: Schema) -> list[list[str]]:
    """Return the name and the Spark type of each column, as a DDL string.

    :raises TableError: Spark has no type for one.
    """
    return [[f.name, _spark_type(f.field_type, table, f.name)] for f in schema.fields]


def spark_type(table: Table, schema: Schema, column: str) -> str:
    """Return the Spark type of a column.

    :raises TableError: there is none.
    """
    return _spark_type(schema.find_field(column).field_type, table, column)


def spark_event_time(table: Table, schema: Schema, name: str) -> tuple[str, str] | tuple[None, None]:
    """Return what an event-time column is called in a schema, and its type: ``date``, ``timestamp`` or (with zone) ``timestamptz``.

    :param name: as the column is declared; it may have had another name under the schema, or not have been there.
    :raises TableError: there is no such column, or it is of another type.
    """
    column = EventColumn.of(table, name, schema=schema)
    field = next((f for f in schema.fields if f.field_id == column.field_id), None)
    return (None, None) if field is None else (field.name, str(field.field_type))


def _spark_type(kind: IcebergType, table: Table, column: str) -> str:
    if isinstance(kind, DecimalType):
        return f"decimal({kind.precision},{kind.scale})"
    if isinstance(kind, StructType):
        fields = (f"{_quoted(f.name)}:{_spark_type(f.field_type, table, column)}" for f in kind.fields)
        return f"struct<{','.join(fields)}>"
    if isinstance(kind, ListType):
        return f"array<{_spark_type(kind.element_type, table, column)}>"
    if isinstance(kind, MapType):
        return f"map<{_spark_type(kind.key_type, table, column)},{_spark_type(kind.value_type, table, column)}>"
    found = _PRIMITIVE.get(type(kind))
    if found is None:
        raise TableError(
            f"column {column!r} of table {'.'.join(table.name())} has a part of type {kind}, for which Spark has no type: it "
            "cannot load the table",
            expected="columns that Spark can read: all of Iceberg's types but time",
            hint="change the column in the table (microseconds of the day as long), or run this process on DuckDB",
        )
    return found


def _quoted(name: str) -> str:
    return f"`{name.replace('`', '``')}`"
