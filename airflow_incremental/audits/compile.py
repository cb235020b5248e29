"""From audits to what has to be counted and measured, so that one pass over the rows answers all of them.

A *measure* is one audit, or one expectation of a suite, as SQL over the relation ``rows``: aggregates that each return
one value, and a predicate that is true for offending rows (what sample rows are picked by, and rows put aside). It is
written for DuckDB or for Spark; what it finds is the same.
"""

# ruff: noqa: ARG001  # all measures are called alike
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import singledispatch
from typing import Any

import attrs
import pyarrow as pa

from airflow_incremental.audits.base import Audit
from airflow_incremental.audits.checks import NotNull, RowCount, Unique
from airflow_incremental.audits.columns import Column, resolve
from airflow_incremental.audits.comparisons import AcceptedValues, Between
from airflow_incremental.audits.domains import Domain, domain_of
from airflow_incremental.audits.sql import DuckDBSql, Inexact, Sql
from airflow_incremental.audits.statistics import ColumnRange, NullFraction
from airflow_incremental.audits.values import Value, kind_of, show
from airflow_incremental.core.audit import Severity
from airflow_incremental.core.errors import AuditFailed

_SHOWN = 5
_SHOWN_LENGTH = 40


@attrs.frozen(kw_only=True)
class Counts:
    """What a measure found: rows looked at, rows offending, and how to say it.

    :param passed: whether that is as it should be; None if it is when no row offends.
    :param observed: what was measured, as a JSON value.
    :param full: what else is kept of it.
    :param undecided: why these rows cannot be judged this way after all; then nothing else in here counts, and the audit
        has to be run in its other way.
    """

    checked: int
    offending: int
    message: str
    passed: bool | None = None
    observed: Any = None
    full: Mapping[str, Any] | None = None
    undecided: str = ""


@attrs.frozen(kw_only=True)
class Measure:
    """One audit, or one expectation of a suite, as SQL.

    :param name: of its result; no two measures of a run share one.
    :param kind: of its result.
    :param severity: of its result.
    :param aggregates: expressions over ``rows``; they come back as Arrow's Python values.
    :param read: makes counts of the total number of rows and the aggregates' values.
    :param offends: predicate that is true for offending rows; None if no single row offends.
    :param values: values of the parameters named in the SQL, by name; no two measures of a run share a name.
    :param keys: for what is to be unique: SQL of the columns of its key; rows with a null among them have none. The first
        two aggregates are the rows that have a key and the different keys. ``read`` takes one more value: the rows whose
        key is not theirs alone, which is only worth another look at the rows when the aggregates say that there are some.
    """

    name: str
    kind: str
    severity: Severity
    aggregates: tuple[str, ...]
    read: Callable[[int, Sequence[Any]], Counts]
    offends: str | None
    values: Mapping[str, Any] = attrs.field(factory=dict)
    keys: tuple[str, ...] = ()


def measures_of(
    audits: Sequence[Audit], schema: pa.Schema, sql: type[Sql] = DuckDBSql
) -> dict[str, tuple[Measure, ...]]:
    """Return what is measured for each audit over rows of ``schema``, by the audit's name; nothing is read.

    Given the target's schema, a plan can tell before it loads anything that an audit will not fit.

    :param sql: for whom it is written. What has no exact SQL there is left out.
    :raises AuditFailed: if an audit names an unknown column, or one of a type its values cannot be compared with.
    """
    return {a.name: _exact(a, schema, sql(prefix=f"a{i}")) for i, a in enumerate(audits)}


def _exact(audit: Audit, schema: pa.Schema, sql: Sql) -> tuple[Measure, ...]:
    try:
        return measures(audit, schema, sql)
    except Inexact:
        return ()


def _measure(audit: Audit, **what: Any) -> Measure:
    return Measure(name=audit.name, kind=audit.type, severity=audit.severity, **what)


def _where(predicate: str) -> str:
    return f"count(*) FILTER (WHERE {predicate})"


@singledispatch
def measures(audit: Audit, schema: pa.Schema, sql: Sql) -> tuple[Measure, ...]:
    """Return what of an audit is found in the one pass over rows of ``schema``; nothing for one that is run in its own way.

    :param sql: writes its SQL.
    :raises AuditFailed: if it does not fit the rows: an unknown column, or one of a type its values cannot be
        compared with.
    :raises Inexact: there is no SQL that finds exactly that.
    """
    return ()


@measures.register
def _(audit: NotNull, schema: pa.Schema, sql: Sql) -> tuple[Measure, ...]:
    columns = [resolve(schema, path, audit=audit.name, sql=sql) for path in audit.columns]
    offends = " OR ".join(f"{c.sql} IS NULL" for c in columns)

    def read(total: int, counts: Sequence[int]) -> Counts:
        each = (
            f" ({', '.join(f'{c.path}: {n:,}' for c, n in zip(columns, counts[1:], strict=True))})"
            if counts[1:]
            else ""
        )
        return Counts(checked=total, offending=counts[0], message=f"{counts[0]:,} of {total:,} rows are null{each}")

    alone = tuple(_where(f"{c.sql} IS NULL") for c in columns) if len(columns) > 1 else ()
    return (_measure(audit, aggregates=(_where(offends), *alone), read=read, offends=offends),)


@measures.register
def _(audit: Unique, schema: pa.Schema, sql: Sql) -> tuple[Measure, ...]:
    columns = [resolve(schema, path, audit=audit.name, sql=sql) for path in audit.columns]
    keys = tuple(c.sql for c in columns)
    present = " AND ".join(f"{k} IS NOT NULL" for k in keys)
    key = sql.key(keys, [c.type for c in columns])

    def read(total: int, counts: Sequence[int]) -> Counts:
        checked, _, shared = counts
        left_out = f" ({total - checked:,} with a null in it not looked at)" if total > checked else ""
        message = f"{shared:,} of {checked:,} rows share their key with another row{left_out}"
        return Counts(checked=checked, offending=shared, message=message)

    distinct = f"count(DISTINCT {key}) FILTER (WHERE {present})"
    several = f"SELECT {key} FROM {sql.rows} WHERE {present} GROUP BY {', '.join(keys)} HAVING count(*) > 1"  # noqa: S608
    offends = f"{present} AND {key} IN ({several})"
    return (_measure(audit, aggregates=(_where(present), distinct), read=read, offends=offends, keys=keys),)


@measures.register
def _(audit: AcceptedValues, schema: pa.Schema, sql: Sql) -> tuple[Measure, ...]:
    column = resolve(schema, audit.column, audit=audit.name, sql=sql)
    domain = comparable(audit, column, audit.values[0])
    # There may be no member: then no value of the column can be one of the accepted ones.
    accepted = sql.among(column.sql, domain.members(audit.values), domain.sql)
    other = f"({column.sql} IS NOT NULL AND NOT ({accepted}))"
    offends = other if audit.allow_null else f"({column.sql} IS NULL OR {other})"
    listed = ", ".join(_cut(show(v)) for v in audit.values[:_SHOWN])
    listed += f" and {len(audit.values) - _SHOWN} more" if len(audit.values) > _SHOWN else ""

    def read(total: int, counts: Sequence[int]) -> Counts:
        checked = counts[1] if audit.allow_null else total
        return Counts(
            checked=checked, offending=counts[0], message=f"{counts[0]:,} of {checked:,} rows are none of {listed}"
        )

    present = _where(f"{column.sql} IS NOT NULL")
    return (_measure(audit, aggregates=(_where(offends), present), read=read, offends=offends, values=sql.values),)


@measures.register
def _(audit: Between, schema: pa.Schema, sql: Sql) -> tuple[Measure, ...]:
    column = resolve(schema, audit.column, audit=audit.name, sql=sql)
    bounds = [b for b in (audit.min, audit.max) if b is not None]
    domain = comparable(audit, column, bounds[0])
    left, right = audit.inclusive in ("both", "left"), audit.inclusive in ("both", "right")
    inside: list[str] = []
    for bound, compare, round_up, never in (
        (audit.min, ">=" if left else ">", left, math.inf),
        (audit.max, "<=" if right else "<", not right, -math.inf),
    ):
        if bound is None:
            continue
        value = domain.bound(bound, round_up=round_up)
        if isinstance(value, float) and math.isinf(value):
            inside.append("FALSE" if value == never else "TRUE")
        else:
            inside.append(f"{column.sql} {compare} {sql.value(value, domain.sql)}")
    outside = f"NOT ({' AND '.join(inside)})"
    if domain.is_float:  # to DuckDB NaN is greater than any number, so a lower bound alone would let it pass
        outside = f"({sql.is_nan(column.sql)} OR {outside})"

    def read(_total: int, counts: Sequence[int]) -> Counts:
        offending, checked = counts
        message = f"{offending:,} of {checked:,} rows are not {'in ' if len(bounds) > 1 else ''}{audit.interval}"
        return Counts(checked=checked, offending=offending, message=message)

    offends = f"({column.sql} IS NOT NULL AND {outside})"
    present = _where(f"{column.sql} IS NOT NULL")
    return (_measure(audit, aggregates=(_where(offends), present), read=read, offends=offends, values=sql.values),)


@measures.register
def _(audit: RowCount, schema: pa.Schema, sql: Sql) -> tuple[Measure, ...]:
    def read(total: int, _counts: Sequence[int]) -> Counts:
        low, high = audit.min or 0, total if audit.max is None else audit.max
        expected = " and ".join(
            f"{word} {bound:,}"
            for word, bound in (("at least", audit.min), ("at most", audit.max))
            if bound is not None
        )
        off = max(low - total, total - high, 0)
        return Counts(checked=total, offending=off, message=f"{total:,} rows, expected {expected}", observed=total)

    return (_measure(audit, aggregates=(), read=read, offends=None),)


@measures.register
def _(audit: NullFraction, schema: pa.Schema, sql: Sql) -> tuple[Measure, ...]:
    column = resolve(schema, audit.column, audit=audit.name)
    if pa.types.is_nested(column.type):
        raise AuditFailed(
            f"audit {audit.name!r} asks for the nulls of {column.path!r} of type {column.type}, of which files keep no count",
            expected="a column that is no list, map or struct",
            hint="use NotNull, or name a field of the struct",
        )
    return ()


@measures.register
def _(audit: ColumnRange, schema: pa.Schema, sql: Sql) -> tuple[Measure, ...]:
    column = resolve(schema, audit.column, audit=audit.name)
    comparable(audit, column, next(b for b in (audit.min, audit.max) if b is not None))
    return ()


def comparable(audit: Audit, column: Column, value: Value) -> Domain:
    """Return the values of the column, once it is sure that the audit's can be compared with them.

    :raises AuditFailed: they cannot.
    """
    domain, given = domain_of(column.type), kind_of(value)
    if domain is not None and domain.kind is given:
        return domain
    raise AuditFailed(
        f"audit {audit.name!r} compares the column {column.path!r} of type {column.type} with {given.value}",
        expected="a column of booleans, numbers, strings, dates or timestamps" if domain is None else domain.kind.value,
        hint="correct the values of the audit, or use an SqlCheck with a cast",
    )


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_LENGTH else text[:_SHOWN_LENGTH] + "..."
