"""A transform, SQL or Python, and what it is allowed to be and to return."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import duckdb
import pyarrow as pa

from airflow_incremental.core.errors import IncrementalError, TransformError
from airflow_incremental.core.plan import Plan
from airflow_incremental.engines.filters import quote
from airflow_incremental.engines.relations import PLAN_RANGES
from airflow_incremental.engines.worker import TransformInterrupted, Worker

#: DuckDB types that have a meaning in Arrow that keeps their values.
_STORABLE = {
    "boolean", "tinyint", "smallint", "integer", "bigint", "hugeint", "utinyint", "usmallint", "uinteger", "ubigint",
    "float", "double", "decimal", "varchar", "blob", "date", "time", "timestamp", "timestamp_s", "timestamp_ms",
    "timestamp_ns", "timestamp with time zone", "uuid", "enum", "struct", "list", "array", "map", "null",
}  # fmt: skip
_UNKNOWN_TABLE = re.compile(r"Table with name (\S+) does not exist")

#: SQL text, or a function ``f(relations, plan)``.
Transform: TypeAlias = str | Callable[..., Any]


def produce(
    worker: Worker, transform: Transform, sources: Sequence[str], plan: Plan
) -> duckdb.DuckDBPyRelation | pa.RecordBatchReader:
    """Run a callable, or bind SQL without running it: rows in Arrow, or a relation that is run when it is read.

    A callable runs in the caller's thread (what it uses may be bound to it), its relations in the engine's connection.

    :param sources: names that are bound in the worker's connection.
    :raises TransformError: see :class:`~airflow_incremental.engines.duckdb.DuckDBEngine`.
    """
    if isinstance(transform, str):
        return worker.call(_query, worker.con, transform, sources)
    relations = {name: worker.con.query(f"SELECT * FROM {quote(name)}") for name in (*sources, PLAN_RANGES)}  # noqa: S608
    return _call(worker, transform, relations, plan)


def _query(con: duckdb.DuckDBPyConnection, sql: str, sources: Sequence[str]) -> duckdb.DuckDBPyRelation:
    try:
        statements = con.extract_statements(sql)
    except duckdb.Error as error:
        raise translate(error, sources) from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        kinds = ", ".join(s.type.name for s in statements) or "no statement"
        raise TransformError(
            f"the transform's SQL is {kinds}",
            expected="one SELECT (or WITH ... SELECT) statement",
            hint="return the rows; the session writes them. A PIVOT must name its columns with IN (...)",
        )
    try:
        relation = con.query(statements[0].query)
    except duckdb.Error as error:
        raise translate(error, sources) from error
    check_types(relation)
    return relation


def _call(
    worker: Worker, transform: Callable[..., Any], relations: Mapping[str, duckdb.DuckDBPyRelation], plan: Plan
) -> duckdb.DuckDBPyRelation | pa.RecordBatchReader:
    name = getattr(transform, "__name__", repr(transform))
    try:
        result = transform(relations, plan)
    except IncrementalError:
        raise
    except Exception as error:
        if worker.stopped:
            raise TransformInterrupted(f"the transform {name} was stopped before it ended") from error
        raise TransformError(
            f"{type(error).__name__}: {error}, raised in the transform {name}",
            expected="a function (relations, plan) that returns rows",
            hint="see the traceback of the cause above",
        ) from error
    if isinstance(result, pa.Table):
        return result.to_reader()
    if isinstance(result, pa.RecordBatchReader):
        return result
    if isinstance(result, duckdb.DuckDBPyRelation):
        check_types(result)
        return result
    raise TransformError(
        f"the transform {name} returned {type(result).__name__}",
        expected="a pyarrow Table, a pyarrow RecordBatchReader or a DuckDB relation",
        hint="return pa.Table.from_pandas(df, preserve_index=False) for pandas, df.to_arrow() for polars",
    )


def check_types(relation: duckdb.DuckDBPyRelation) -> None:
    """Refuse columns whose values Arrow would change without a word, such as a time with zone or a bit string."""
    wrong = [
        f"{name} {kind}" for name, kind in zip(relation.columns, relation.types, strict=True) if not _storable(kind)
    ]
    if wrong:
        raise TransformError(
            f"the transform returns {', '.join(wrong)}, which no Iceberg type can hold",
            expected="types an Iceberg table can hold",
            hint="CAST them, for example to VARCHAR, BIGINT or TIMESTAMPTZ",
        )


def _storable(kind: Any) -> bool:
    if kind.id not in _STORABLE:
        return False
    if kind.id in ("struct", "list", "array", "map"):
        return all(_storable(child) for _, child in kind.children if not isinstance(child, int))
    return True


def translate(error: Exception, sources: Sequence[str]) -> TransformError:
    """Return DuckDB's error in the words of this package: its own message first, then what can be done."""
    text = str(error).strip()
    if isinstance(error, duckdb.InterruptException):
        return TransformInterrupted("the transform was stopped before it ended", hint="retry the task")
    if isinstance(error, (duckdb.OutOfMemoryException, duckdb.IOException)):
        return TransformInterrupted(
            text, hint="see that files and disk are there and that memory_limit fits the machine, then retry the task"
        )
    known = ", ".join([*sources, PLAN_RANGES])
    unknown = _UNKNOWN_TABLE.search(text)
    if unknown:
        return TransformError(
            f"{text.splitlines()[0]}",
            expected=f"one of the names this transform can read: {known}",
            hint=f"declare {unknown[1]!r} in sources, or correct the name",
        )
    return TransformError(text, hint=f"correct the transform; it can read {known}")


def order_terms(relation: duckdb.DuckDBPyRelation, order_by: Sequence[str]) -> str:
    """Return the SQL of an order: columns, or ``hour(column)``, ``day(column)``, ``month(column)``, ``year(column)``.

    :raises TransformError: the transform returns no such column.
    """
    found = []
    for item in order_by:
        unit, column = None, item
        match = re.fullmatch(r"(hour|day|month|year)\((.+)\)", item)
        if match and item not in relation.columns:
            unit, column = match[1], match[2]
        if column not in relation.columns:
            raise TransformError(
                f"the transform returns no column {column!r}",
                expected=f"a column to order by; it returns {relation.columns}",
            )
        found.append(quote(column) if unit is None else f"date_trunc('{unit}', {quote(column)})")
    return ", ".join(found)
