"""Runs the audits that are functions of one's own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from airflow_incremental.audits.elsewhere import read_here
from airflow_incremental.audits.python import Finding, PythonCheck
from airflow_incremental.audits.query import ENVIRONMENT, attempt, origin, plain
from airflow_incremental.audits.scope import Scope, results
from airflow_incremental.core.audit import AuditIncomplete, AuditResult
from airflow_incremental.core.errors import AuditFailed


@read_here.register
def _(audit: PythonCheck, schema: pa.Schema, prefix: str) -> Sequence[tuple[str, str]]:
    del schema, prefix
    return [(audit.name, "it is a function in Python")]


_EXPECTED = "True or False, the offending rows as a relation or an Arrow table, or a Finding"


@results.register
def _(audit: PythonCheck, scope: Scope) -> tuple[AuditResult, ...]:
    # In the caller's thread, which an exception such as Airflow's timeout can end whatever the function is doing.
    outcome = attempt(lambda: _finding(audit, scope))
    if isinstance(outcome, Exception):
        what = f"the function {audit.calls} of audit {audit.name!r} stopped with {origin(outcome)}"
        if isinstance(outcome, ENVIRONMENT):
            raise AuditIncomplete(what, expected="a function that runs to its end", hint="retry the task")
        raise AuditFailed(
            f"{what} (its message is left out because it can quote values of rows)",
            expected="a function that returns what it found",
            hint="return False or the offending rows instead of raising, and try the function on the audited snapshot",
        )
    finding, picked = outcome
    return (
        AuditResult(
            name=audit.name,
            severity=audit.severity,
            passed=finding.passed,
            offending=finding.offending,
            checked=scope.total,
            message=finding.message,
            samples=picked,
            kind=audit.type,
            over=scope.over,
            path="python",
            observed=finding.observed,
        ),
    )


def _finding(audit: PythonCheck, scope: Scope) -> tuple[Finding, tuple[Mapping[str, Any], ...]]:
    if audit.function is None:
        raise AuditFailed(
            f"audit {audit.name!r} has lost its function {audit.calls}", expected="audits from validate_audits"
        )
    said = audit.function(scope.rows.con.sql("SELECT * FROM rows"), scope.subject)
    if isinstance(said, Finding):
        _check(said, audit)
        return said, ()
    if isinstance(said, bool):
        return Finding(passed=said, message=f"{audit.calls} returned {said}"), ()
    if isinstance(said, duckdb.DuckDBPyRelation):
        ((offending,),) = said.aggregate("count(*)").fetchall()
        picked = said.limit(scope.samples).to_arrow_table() if scope.samples else None
    elif isinstance(said, pa.Table):
        offending, picked = said.num_rows, said.slice(0, scope.samples)
    else:
        raise AuditFailed(
            f"the function {audit.calls} of audit {audit.name!r} returned a {type(said).__name__}",
            expected=_EXPECTED,
            hint="a function that returns nothing does not pass; write return",
        )
    samples = () if picked is None else tuple({k: plain(v) for k, v in row.items()} for row in picked.to_pylist())
    message = f"{audit.calls} over {scope.total:,} rows returned {offending:,}"
    return Finding(passed=offending == 0, message=message, offending=offending), samples


def _check(said: Finding, audit: PythonCheck) -> None:
    """Refuse a finding that would pass because it is not what it looks like, or that nobody could keep.

    :raises AuditFailed: always when it is one of these; the error holds no value, which may be a row's.
    """
    wrong = [
        f"{name} of type {type(value).__name__}"
        for name, value, fits in (
            ("passed", said.passed, isinstance(said.passed, bool)),
            ("message", said.message, isinstance(said.message, str)),
            ("offending", said.offending, type(said.offending) is int and said.offending >= 0),
            ("observed", said.observed, _is_json(said.observed)),
        )
        if not fits
    ]
    if wrong:
        raise AuditFailed(
            f"the function {audit.calls} of audit {audit.name!r} returned a Finding with {', '.join(wrong)}",
            expected="passed=True or False, a text as message, offending as an int of 0 or more, and observed as a JSON value",
            hint="convert them with bool(), str(), int() or float(); JSON has no NaN and no infinity",
        )


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
