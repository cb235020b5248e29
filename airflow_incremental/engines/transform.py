"""A transform, SQL or Python, and what it is allowed to be and to return."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import pyarrow as pa

from airflow_incremental.core.errors import IncrementalError, TransformError
from airflow_incremental.core.plan import Plan
from airflow_incremental.core.reads import INTERNAL_PREFIX, PLAN_RANGES, SourceRead
from airflow_incremental.engines.columns import columns_of
from airflow_incremental.engines.extras import Extras
from airflow_incremental.engines.filters import quote
from airflow_incremental.engines.relations import expired, local_path
from airflow_incremental.engines.worker import TransformInterrupted, Worker

_UNKNOWN_TABLE = re.compile(r"Table with name (\S+) does not exist")

#: SQL text, or a function ``f(relations, plan)``.
Transform: TypeAlias = str | Callable[..., Any]


class _Relations(dict[str, duckdb.DuckDBPyRelation]):
    """What a function is given: names and their rows; what is not bound yet is when it is asked for."""

    def __init__(self, worker: Worker, extras: Extras) -> None:
        super().__init__((name, _relation(worker, name)) for name in names(extras.reads))
        self._worker = worker
        self._extras = extras

    def __missing__(self, name: object) -> duckdb.DuckDBPyRelation:
        if isinstance(name, str) and self._worker.call(self._extras.bind, name):
            found = self[name] = _relation(self._worker, name)
            return found
        raise TransformError(
            f"the transform asks for the relation {name!r}",
            expected=f"one of the names this transform can read: {', '.join(self)}",
            hint=f"declare {name!r} in sources, or correct the name",
        )


def _relation(worker: Worker, name: str) -> duckdb.DuckDBPyRelation:
    return worker.con.query(f"SELECT * FROM {quote(name)}")  # noqa: S608


def produce(
    worker: Worker, transform: Transform, extras: Extras, plan: Plan
) -> duckdb.DuckDBPyRelation | pa.RecordBatchReader:
    """Run a callable, or bind SQL without running it: rows in Arrow, or a relation that is run when it is read.

    A callable runs in the caller's thread (what it uses may be bound to it), its relations in the engine's connection.

    :param extras: what is bound in the worker's connection, and what can be.
    :raises TransformError: see :class:`~airflow_incremental.engines.duckdb.DuckDBEngine`.
    """
    if isinstance(transform, str):
        worker.call(extras.bind_mentioned, transform)
        return worker.call(_query, worker.con, transform, extras.reads)
    return _call(worker, transform, _Relations(worker, extras), plan)


def _query(con: duckdb.DuckDBPyConnection, sql: str, reads: Sequence[SourceRead]) -> duckdb.DuckDBPyRelation:
    try:
        statements = con.extract_statements(sql)
    except duckdb.Error as error:
        raise translate(error, reads) from error
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
        raise translate(error, reads) from error
    columns_of(relation, typed=False)
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
        worker.check()
        raise failed(error, f"raised in the transform {name}") from error
    if isinstance(result, pa.Table):
        return result.to_reader()
    if isinstance(result, pa.RecordBatchReader):
        return result
    if isinstance(result, duckdb.DuckDBPyRelation):
        columns_of(result, typed=False)
        return result
    raise TransformError(
        f"the transform {name} returned {type(result).__name__}",
        expected="a pyarrow Table, a pyarrow RecordBatchReader or a DuckDB relation",
        hint="return pa.Table.from_pandas(df, preserve_index=False) for pandas, df.to_arrow() for polars",
    )


def failed(error: Exception, where: str) -> TransformError:
    """Return the error of a function of the author's that raised: its own error first.

    It may have failed for a reason that passes, such as a service it calls, so it is worth a retry.
    """
    found = TransformError(f"{type(error).__name__}: {error}, {where}", hint="see the traceback of the cause")
    found.retryable = True
    return found


def translate(error: Exception, reads: Sequence[SourceRead]) -> IncrementalError:
    """Return DuckDB's error in the words of this package: its own message first, then what can be done."""
    text = str(error).strip()
    known = ", ".join(names(reads))
    if isinstance(error, (duckdb.IOException, OSError)):
        gone = next(((r.name, p) for r in reads for part in r.parts for p in part.paths or () if not _exists(p)), None)
        if gone is not None:
            return expired(*gone)
    if isinstance(error, (duckdb.IOException, duckdb.OutOfMemoryException, OSError)):
        return TransformInterrupted(
            text, hint="see that memory_limit and the disk fit what the transform needs, then retry the task"
        )
    unknown = _UNKNOWN_TABLE.search(text)
    if unknown:
        return TransformError(
            text.splitlines()[0],
            expected=f"one of the names this transform can read: {known}",
            hint=f"declare {unknown[1]!r} in sources, or correct the name",
        )
    return TransformError(text, hint=f"correct the transform; it can read {known}")


def names(reads: Sequence[SourceRead]) -> list[str]:
    """Return every name a transform can read."""
    return [*(read.name for read in reads if not read.name.startswith(INTERNAL_PREFIX)), PLAN_RANGES]


def _exists(path: str) -> bool:
    return Path(local_path(path)).exists()


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
