"""From a column's name, or the dotted path of a struct's field, to SQL that reads exactly that column.

The Arrow schema of the read decides what there is, not DuckDB: DuckDB folds upper and lower case, Iceberg does not.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import pyarrow as pa

from airflow_incremental.audits.sql import DuckDBSql, Sql
from airflow_incremental.core.errors import AuditFailed

_LISTED = 40


@attrs.frozen
class Column:
    """A column an audit names: its path, the SQL expression that reads it, and its Arrow type."""

    path: str
    sql: str
    type: Any


def resolve(schema: pa.Schema, path: str, *, audit: str, sql: Sql | None = None) -> Column:
    """Find the column ``path`` names.

    :param audit: name of the audit that asks, for the message.
    :param sql: writes the SQL that reads it; default is for DuckDB.
    :raises AuditFailed: if there is none, several, or one that DuckDB cannot tell from another: an audit of another
        column than the author meant must not pass.
    """
    found = list(_matches([schema.field(i) for i in range(len(schema.names))], path, None, sql or DuckDBSql()))
    if len(found) == 1 and found[0][1] is None:
        return found[0][0]
    if not found:
        known = list(_paths(schema))
        more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
        near = difflib.get_close_matches(path, known, n=1)
        raise AuditFailed(
            f"audit {audit!r} names the column {path!r}, which the written rows do not have",
            expected=f"one of {', '.join(known[:_LISTED])}{more}",
            hint=(f"did you mean {near[0]!r}? " if near else "")
            + "correct the audit; elements of lists and maps can only be reached by an SqlCheck",
        )
    if len(found) > 1:
        raise AuditFailed(
            f"audit {audit!r} names the column {path!r}, which is both a name with a dot in it and a field of a struct",
            expected="a path that can be read in one way",
            hint="use an SqlCheck, or rename one of the columns",
        )
    raise AuditFailed(
        f"audit {audit!r} names the column {path!r}, which differs from {found[0][1]!r} only in upper and lower case",
        expected="names that differ in more than that, because DuckDB takes them for one column",
        hint="rename one of the columns in the target",
    )


def _matches(
    fields: Sequence[pa.Field], path: str, parent: str | None, writer: Sql
) -> Iterable[tuple[Column, str | None]]:
    """Yield every reading of ``path``, each with the sibling that DuckDB would confuse one of its steps with."""
    for field in fields:
        rest = None if path == field.name else path.removeprefix(f"{field.name}.")
        if rest == path:
            continue
        sql = writer.quote(field.name) if parent is None else writer.field(parent, field.name)
        twin = next((f.name for f in fields if f is not field and f.name.casefold() == field.name.casefold()), None)
        if rest is None:
            yield Column(path, sql, field.type), twin
        elif pa.types.is_struct(field.type):
            for column, inner in _matches(_children(field.type), rest, sql, writer):
                yield attrs.evolve(column, path=path), twin or inner


def _children(struct: pa.StructType) -> list[pa.Field]:
    return [struct.field(i) for i in range(struct.num_fields)]


def _paths(fields: Iterable[pa.Field], prefix: str = "") -> Iterable[str]:
    for field in fields:
        yield prefix + field.name
        if pa.types.is_struct(field.type):
            yield from _paths(_children(field.type), f"{prefix}{field.name}.")
