"""The columns of a DuckDB relation as an Iceberg table can hold them."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa

from airflow_incremental.core.errors import TransformError

#: DuckDB's simple types, and the Arrow type of the Iceberg column that holds their values.
#: HUGEINT is what ``sum()`` of integers returns; its values are checked when they are written.
_COLUMNS = {
    "boolean": pa.bool_(),
    "tinyint": pa.int32(),
    "smallint": pa.int32(),
    "integer": pa.int32(),
    "utinyint": pa.int32(),
    "usmallint": pa.int32(),
    "uinteger": pa.int64(),
    "bigint": pa.int64(),
    "hugeint": pa.int64(),
    "ubigint": pa.decimal128(20, 0),
    "float": pa.float32(),
    "double": pa.float64(),
    "varchar": pa.large_string(),
    "enum": pa.large_string(),
    "blob": pa.large_binary(),
    "uuid": pa.uuid(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "timestamp_s": pa.timestamp("us"),
    "timestamp_ms": pa.timestamp("us"),
    "timestamp_ns": pa.timestamp("us"),
    "timestamp with time zone": pa.timestamp("us", "UTC"),
    "null": pa.null(),
}
_UNTYPED = '"NULL"'


def columns_of(relation: duckdb.DuckDBPyRelation, *, typed: bool) -> pa.Schema:
    """Return the columns a table needs to hold a relation's rows.

    :param typed: a table is made of them: refuse columns without a type (a bare ``NULL``), which fit an existing column but cannot
        make one, and names that SQL takes for one another.
    :raises TransformError: a column has no type, or one whose values no Iceberg type keeps (a time with zone loses its
        zone on the way, a bit string becomes bytes); or a name is there twice.
    """
    names = [name.lower() for name in relation.columns]
    doubled = sorted({name for name in relation.columns if names.count(name.lower()) > 1})
    if typed and doubled:
        raise TransformError(
            f"the transform returns {', '.join(repr(d) for d in doubled)} more than once",
            expected="every column once, in whatever case",
            hint="name columns with AS",
        )
    found = {name: _arrow(kind) for name, kind in zip(relation.columns, relation.types, strict=True)}
    wrong = [
        f"{name} {kind}"
        for name, kind in zip(relation.columns, relation.types, strict=True)
        if found[name] is None or (typed and _UNTYPED in str(kind))
    ]
    if wrong:
        raise TransformError(
            f"the transform returns {', '.join(wrong)}",
            expected="columns of types an Iceberg table can hold",
            hint="CAST them, for example to VARCHAR, BIGINT or TIMESTAMPTZ",
        )
    return pa.schema([pa.field(name, kind) for name, kind in found.items()])


def _arrow(kind: Any) -> Any:
    """Return the Arrow type of a DuckDB type, or None if there is none."""
    if kind.id == "decimal":
        size = dict(kind.children)
        return pa.decimal128(size["precision"], size["scale"])
    if kind.id not in {"struct", "list", "array", "map"}:
        return _COLUMNS.get(kind.id)
    inner = {name: _arrow(child) for name, child in kind.children if kind.id != "array" or name == "child"}
    if None in inner.values():
        return None
    if kind.id == "struct":
        return pa.struct([pa.field(name, child) for name, child in inner.items()])
    return pa.map_(inner["key"], inner["value"]) if kind.id == "map" else pa.large_list(inner["child"])
