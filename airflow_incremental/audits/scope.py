"""What an audit of one scope works with, once the pass over its rows is done: what was counted, and the rows for more.

Counted it may have been elsewhere, in Spark. Then the rows are only read here if there is more to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import singledispatch
from typing import Any

import attrs

from airflow_incremental.audits.base import Audit
from airflow_incremental.audits.checks import SqlCheck
from airflow_incremental.audits.compile import Counts, Measure
from airflow_incremental.audits.query import Rows
from airflow_incremental.audits.questions import Answered
from airflow_incremental.audits.subject import Subject
from airflow_incremental.core.audit import AuditResult, Over, Path


@attrs.frozen(kw_only=True)
class Scope:
    """The rows of one scope, and what the one pass over them found.

    :param over: which rows.
    :param open_rows: opens them on a connection, the first time it is called.
    :param total: how many there are.
    :param measured: the measures of each audit, by its name, for DuckDB.
    :param found: what each measure found, by the measure's name.
    :param answered: what of it was found in Spark.
    :param samples: how many offending rows each result may show.
    """

    subject: Subject
    over: Over
    open_rows: Callable[[], Rows]
    total: int
    measured: Mapping[str, tuple[Measure, ...]]
    found: Mapping[str, Counts]
    answered: Answered | None = None
    samples: int = 0

    @property
    def rows(self) -> Rows:
        """The rows on an open connection."""
        return self.open_rows()

    def result_of(self, m: Measure) -> AuditResult:
        """Return the result of one measure, with sample rows if they were asked for."""
        counts = self.found[m.name]
        picked: tuple[Mapping[str, Any], ...] = ()
        if self.samples and counts.offending and m.offends is not None:
            order = f" ORDER BY {', '.join(m.keys)}" if m.keys else ""  # duplicates next to each other
            sql = f"SELECT * FROM rows WHERE {m.offends}{order} LIMIT {self.samples}"  # noqa: S608
            picked = self.rows.samples(sql, m.values)
        return AuditResult(
            name=m.name,
            severity=m.severity,
            passed=counts.offending == 0 if counts.passed is None else counts.passed,
            offending=counts.offending,
            checked=counts.checked,
            message=counts.message,
            samples=picked,
            kind=m.kind,
            over=self.over,
            path="duckdb" if self.answered is None or m.name not in self.answered.found else "spark",
            observed=counts.observed,
            full=counts.full,
        )


@singledispatch
def results(audit: Audit, scope: Scope) -> tuple[AuditResult, ...]:
    """Return what an audit found: of its measures, unless its kind says otherwise."""
    return tuple(scope.result_of(m) for m in scope.measured[audit.name])


@results.register
def _(audit: SqlCheck, scope: Scope) -> tuple[AuditResult, ...]:
    picked: tuple[Mapping[str, Any], ...] = ()
    if scope.answered is not None:
        path: Path = "spark"
        offending = scope.answered.returned[audit.name]
    else:
        path, rows = "duckdb", scope.rows
        view = rows.view_of(audit)
        (offending,) = rows.one_row(f"SELECT count(*) FROM {view}", {}, audit=audit)  # noqa: S608
        if scope.samples and offending:
            picked = rows.samples(f"SELECT * FROM {view} LIMIT {scope.samples}", {}, audit=audit)  # noqa: S608
    return (
        AuditResult(
            name=audit.name,
            severity=audit.severity,
            passed=offending == 0,
            offending=offending,
            checked=scope.total,
            message=f"its query over {scope.total:,} rows returned {offending:,}",
            samples=picked,
            kind=audit.type,
            over=scope.over,
            path=path,
        ),
    )
