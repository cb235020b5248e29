"""The SQL of changed rows: what came less what went, so that rows of a rewritten file that stayed the same do not count."""

from __future__ import annotations

from collections.abc import Mapping

from airflow_incremental.core.reads import SourceRead
from airflow_incremental.engines.filters import quote

_TIMES = "__incremental_times"
#: Column that says of a changed row whether it came (``insert``) or went (``delete``), as Spark's changelog views name it.
CHANGE_TYPE = "_change_type"


def changed_query(added: SourceRead, removed: SourceRead) -> str:
    """Return the SQL of the rows that are in one of two reads and not in the other, each with how often: above zero, it came.

    Equal rows cancel each other out one by one; nulls are equal, and so are NaNs.
    """
    columns = ", ".join(quote(c) for c in added.schema.names)
    if not removed.parts:
        return f"SELECT {columns}, 1 AS {_TIMES} FROM {quote(added.name)}"  # noqa: S608
    return (
        f"SELECT {columns}, sum({_TIMES}) AS {_TIMES} FROM ("  # noqa: S608
        f"SELECT {columns}, 1 AS {_TIMES} FROM {quote(added.name)} UNION ALL "
        f"SELECT {columns}, -1 FROM {quote(removed.name)}) GROUP BY {columns} HAVING sum({_TIMES}) <> 0"
    )


def changes_query(added: SourceRead, removed: SourceRead) -> str:
    """Return the SQL of the changed rows, each as often as it came or went, with its ``_change_type``."""
    columns = ", ".join(quote(c) for c in added.schema.names)
    if not removed.parts:
        return f"SELECT {columns}, 'insert' AS {CHANGE_TYPE} FROM {quote(added.name)}"  # noqa: S608
    return (
        f"SELECT {columns}, {CHANGE_TYPE} FROM (SELECT {columns}, "  # noqa: S608
        f"CASE WHEN {_TIMES} > 0 THEN 'insert' ELSE 'delete' END AS {CHANGE_TYPE}, unnest(range(abs({_TIMES})::BIGINT)) "
        f"FROM ({changed_query(added, removed)}))"
    )


def keys_query(added: SourceRead, removed: SourceRead, columns: Mapping[str, str]) -> str:
    """Return the SQL of the distinct keys of changed rows.

    Rows without a whole key belong to no target row. New ones are refused by the plan; those that went may be older than the
    process.

    :param columns: name in the result -> column of the reads.
    """
    wanted = ", ".join(f"{quote(column)} AS {quote(name)}" for name, column in columns.items())
    whole = " AND ".join(f"{quote(column)} IS NOT NULL" for column in columns.values())
    return f"SELECT DISTINCT {wanted} FROM ({changed_query(added, removed)}) WHERE {whole}"  # noqa: S608
