"""Running a suite: what DuckDB is proven to find alike is found in the one pass, the rest by Great Expectations itself."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pyarrow as pa

from airflow_incremental.audits.base import Audit
from airflow_incremental.audits.columns import resolve
from airflow_incremental.audits.compile import Measure, measures
from airflow_incremental.audits.elsewhere import read_here
from airflow_incremental.audits.expectations.condition import columns_of_condition
from airflow_incremental.audits.expectations.expectation import Expectation
from airflow_incremental.audits.expectations.fast import compiled
from airflow_incremental.audits.expectations.imports import import_great_expectations
from airflow_incremental.audits.expectations.kinds import NEEDS_ORDER, NEEDS_SQL, OF_COLUMNS
from airflow_incremental.audits.expectations.outcome import outcome_of
from airflow_incremental.audits.expectations.parse import columns_named
from airflow_incremental.audits.expectations.quiet import quiet
from airflow_incremental.audits.expectations.suite import Expectations
from airflow_incremental.audits.forms import validate_audits
from airflow_incremental.audits.offenders import Predicate, predicates
from airflow_incremental.audits.scope import Scope, results
from airflow_incremental.audits.spark_sql import SparkSql
from airflow_incremental.audits.sql import DuckDBSql, Sql
from airflow_incremental.audits.subject import Subject
from airflow_incremental.core.audit import AuditResult
from airflow_incremental.core.errors import ArgumentError, AuditFailed
from airflow_incremental.core.literals import is_template

log = logging.getLogger(__name__)


def with_suites(audits: Iterable[Audit | Mapping[str, Any]], *, contexts: bool = True) -> tuple[Audit, ...]:
    """Return the audits of one load, those of suites with the suite they name.

    :param contexts: whether those in a Great Expectations context are looked up too, which takes seconds.
    :raises ArgumentError: one is none, or two results would share a name.
    :raises AuditFailed: a Great Expectations context does not hold the suite.
    """
    found = validate_audits(audits)
    _refuse_templates(found)
    read = [_with_suite(a, contexts=contexts) if isinstance(a, Expectations) else a for a in found]
    for named, whole in zip(found, read, strict=True):
        if whole.puts_aside and not named.puts_aside:  # the process has to know before it opens a session
            raise AuditFailed(
                f"the suite of audit {named.name!r} is to put rows aside, which is only found when it is looked up",
                expected="a load that knows of its quarantine when the DAG is parsed",
                hint="give the suite as a file or as its JSON, or all of it the severity, with severity='quarantine'",
            )
    return validate_audits(read)


def _refuse_templates(audits: Sequence[Audit]) -> None:
    """Refuse what is checked no sooner than it is rendered: nothing would be judged, or what is found would block nothing.

    :raises ArgumentError: always for one of these.
    """
    for audit in audits:
        for argument in ("severity", "over", "suite"):
            given = getattr(audit, argument, None)
            if is_template(given):
                raise ArgumentError(
                    f"{argument} of audit {audit.name!r} is {given!r}, a template that nobody has rendered",
                    expected="what it stands for",
                    hint="templates are for operators, which render them when the task runs",
                )


def check_suites(audits: Sequence[Audit], schema: pa.Schema) -> None:
    """See whether Great Expectations can run what of the suites is left to it, before there is anything to load in vain.

    :raises AuditFailed: it cannot.
    """
    left = [both for a in audits if isinstance(a, Expectations) for both in _split(a, schema, DuckDBSql())[1]]
    for expectation, reason in left:
        _refuse(expectation, reason)
    if left:
        with quiet():
            _gx().check([expectation for expectation, _ in left], schema)


@measures.register
def _(audit: Expectations, schema: pa.Schema, sql: Sql) -> tuple[Measure, ...]:
    fast, left = _split(audit, schema, sql)
    if sql.engine == "duckdb":  # elsewhere it is left to DuckDB first
        for expectation, reason in left:
            _refuse(expectation, reason)
    return fast


@read_here.register
def _(audit: Expectations, schema: pa.Schema, prefix: str) -> Sequence[tuple[str, str]]:
    left = _split(audit, schema, SparkSql(prefix=prefix))[1]
    return [(expectation.name, reason) for expectation, reason in left]


@predicates.register
def _(audit: Expectations, scope: Scope) -> Mapping[str, Predicate]:
    """Return nothing for what Great Expectations had to decide: its rows are not those DuckDB would pick."""
    return {
        m.name: Predicate(offends=m.offends, values=m.values)
        for m in scope.measured[audit.name]
        if m.offends is not None and not scope.found[m.name].undecided
    }


@results.register
def _(audit: Expectations, scope: Scope) -> tuple[AuditResult, ...]:
    undecided = {m.name: scope.found[m.name].undecided for m in scope.measured[audit.name]}
    measured = {m.name: m for m in scope.measured[audit.name] if not undecided[m.name]}
    found: dict[str, AuditResult] = {}
    left = []
    for e in audit.expectations:
        if e.name not in measured:
            left.append(e)
            continue
        result = scope.result_of(measured[e.name])
        found[e.name] = outcome_of(
            e,
            success=result.passed,
            result=result.full or {},
            over=scope.over,
            path=result.path,
            rows=scope.total,
            samples=result.samples,
            wanted=scope.samples,
        )
    if left:
        with quiet():
            validations = _gx().evaluate(left, scope.rows, samples=scope.samples)
        for e, validation in zip(left, validations, strict=True):
            judged = outcome_of(
                e,
                success=validation.success,
                result=validation.result,
                over=scope.over,
                path="gx",
                rows=scope.total,
                samples=validation.samples,
                wanted=scope.samples,
            )
            if e.severity == "quarantine" and not judged.passed:
                why = f"{judged.message}; none is put aside, because DuckDB cannot tell which: {undecided[e.name]}"
                judged = attrs.evolve(judged, message=why)
            found[e.name] = judged
    return tuple(found[e.name] for e in audit.expectations)


def _with_suite(audit: Expectations, *, contexts: bool) -> Expectations:
    if audit.context_root_dir is None:
        return audit.with_file([Path.cwd()])
    if not contexts:
        return audit
    root = Path(audit.context_root_dir)
    if not (root / "great_expectations.yml").is_file():  # Great Expectations would make a new project there
        raise AuditFailed(
            f"the folder {audit.context_root_dir!r} of audit {audit.name!r} is no Great Expectations context",
            expected="a folder with a great_expectations.yml, on the machine the task runs on",
            hint="a project keeps it in its folder 'gx'",
        )
    with quiet():
        return audit.with_suite(_gx().suite_of_context(str(audit.suite), str(root)))


def _split(
    audit: Expectations, schema: pa.Schema, sql: Sql
) -> tuple[tuple[Measure, ...], list[tuple[Expectation, str]]]:
    """Return what is measured in SQL, and what is left to Great Expectations with the reason why."""
    fast, left = [], []
    for i, expectation in enumerate(audit.expectations):
        _check_columns(expectation, schema)
        found = (
            compiled(expectation, schema, sql.part(f"e{i}")) if audit.engine == "auto" else "engine='gx' asks for it"
        )
        if isinstance(found, Measure):
            fast.append(found)
        else:
            left.append((expectation, found))
    return tuple(fast), left


def _check_columns(expectation: Expectation, schema: pa.Schema) -> None:
    if expectation.type not in OF_COLUMNS:
        condition = expectation.kwargs.get("row_condition")
        # Of a text it is not known what is a column; Great Expectations tries it on no rows.
        more = () if isinstance(condition, str) else columns_of_condition(condition, schema.names)
        for column in (*columns_named(expectation.kwargs), *(more or ())):
            resolve(schema, column, audit=expectation.name)


def _refuse(expectation: Expectation, reason: str) -> None:
    """Refuse what Great Expectations could not judge either.

    :raises AuditFailed: always when it is one of these.
    """
    if expectation.type in NEEDS_ORDER:
        found = "asks whether values rise or fall from row to row, and the rows of a table have no order"
        hint = "use an SqlCheck that orders them: lag(x) OVER (ORDER BY ...)"
    elif expectation.type in NEEDS_SQL:
        found = f"runs on databases only in Great Expectations, and not in DuckDB here: {reason}"
        hint = "use an SqlCheck in its place"
    elif expectation.severity == "quarantine":
        found = f"is to put rows aside, and only those found in DuckDB can be, which it is not: {reason}"
        hint = "give it another severity, or use an audit such as NotNull, AcceptedValues or Between"
    else:
        return
    raise AuditFailed(
        f"expectation {expectation.name!r} ({expectation.type}) {found}",
        expected="expectations that can be judged over the rows of a session",
        hint=hint,
    )


def _gx() -> ModuleType:
    """Import what runs Great Expectations."""
    with quiet():
        import_great_expectations()
        from airflow_incremental.audits.expectations import gx
    return gx


def build_data_docs(audits: Sequence[Audit], subject: Subject, found: Sequence[AuditResult]) -> None:
    """Build the data docs that suites ask for; they say nothing that the results do not, so no session fails for want of them.

    :param found: the results as they are reported.
    """
    by_name = {result.name: result for result in found}
    for audit in audits:
        if not isinstance(audit, Expectations) or audit.data_docs is None:
            continue
        with quiet():
            import_great_expectations()
            from airflow_incremental.audits.expectations.docs import build_docs

            try:
                page = build_docs(audit, subject, [by_name[name] for name in audit.result_names])
            except Exception as error:  # noqa: BLE001  whatever it is, its message may quote a value
                log.warning("could not build the data docs of audit %r: %s", audit.name, type(error).__name__)
            else:
                log.info("data docs of audit %r: %s", audit.name, page)
