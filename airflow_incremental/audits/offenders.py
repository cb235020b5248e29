"""Which rows offend the audits that put rows aside: the place of each in the session's files, and what it offends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import singledispatch
from typing import Any

import attrs
import pyarrow as pa

from airflow_incremental.audits.base import Audit
from airflow_incremental.audits.scope import Scope
from airflow_incremental.core.audit import AuditResult
from airflow_incremental.core.reads import PlacedFile
from airflow_incremental.engines.filters import quote
from airflow_incremental.engines.places import FILE, POSITION, bind_places

_PLACED = "incremental_placed"


@attrs.frozen(kw_only=True)
class Offenders:
    """The rows to be put aside.

    :param names: of the audits they offend.
    :param rows: one row for each: the number of its file, its position there, and for each name whether it offends that.
    :param counts: name -> rows that offend it, rows it looked at.
    """

    names: tuple[str, ...]
    rows: pa.Table = attrs.field(eq=False, repr=False)
    counts: Mapping[str, tuple[int, int]]


@attrs.frozen(kw_only=True)
class Predicate:
    """What is true for the offending rows of one result, as SQL over ``rows`` with the values of its parameters."""

    offends: str
    values: Mapping[str, Any] = attrs.field(factory=dict)


@singledispatch
def predicates(audit: Audit, scope: Scope) -> Mapping[str, Predicate]:
    """Return how the offending rows of an audit's results are told from the rest, by the result's name."""
    return {
        m.name: Predicate(offends=m.offends, values=m.values)
        for m in scope.measured[audit.name]
        if m.offends is not None
    }


def find_offenders(
    audits: Sequence[Audit],
    scope: Scope,
    found: Sequence[AuditResult],
    files: Callable[[], Sequence[PlacedFile]],
) -> Offenders | None:
    """Return the rows that offend audits with severity ``quarantine``; None if there are none, or one cannot tell its own.

    :param scope: the session's rows, still open.
    :param found: the results over them.
    :param files: gives the session's files; the rows are told by their numbers in this order.
    :raises AuditIncomplete: the rows could not be read again.
    """
    told = {name: p for audit in audits if audit.puts_aside for name, p in predicates(audit, scope).items()}
    wanted = [r for r in found if r.severity == "quarantine" and not r.passed]
    if not wanted or any(r.name not in told for r in wanted):
        return None
    rows, names = scope.rows, tuple(r.name for r in wanted)
    rows.guarded(lambda: bind_places(rows.con, _PLACED, rows.read, files()), doing="open the written rows file by file")
    flags = [f"coalesce({told[name].offends}, false)" for name in names]
    listed = ", ".join(f"{flag} AS r{at}" for at, flag in enumerate(flags))
    sql = (
        f"SELECT {quote(FILE)} AS file, {quote(POSITION)} AS position, {listed} FROM {_PLACED} "  # noqa: S608
        f"WHERE {' OR '.join(flags)} ORDER BY file, position"
    )
    values = {key: value for name in names for key, value in told[name].values.items()}
    return Offenders(
        names=names,
        rows=rows.guarded(
            lambda: rows.con.sql(sql, params=values or None).to_arrow_table(), doing="find the offending rows"
        ),
        counts={r.name: (r.offending, r.checked) for r in wanted},
    )
