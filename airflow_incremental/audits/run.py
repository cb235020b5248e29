"""Run audits over a sealed snapshot.

All that can be counted and measured is one SELECT over the relation ``rows``, so the rows are read once however many
audits there are, once for each scope. Only what few runs need costs another look: the size of groups of duplicates once
there are some, an ``SqlCheck`` of one's own, sample rows.

Audits that need no rows, because manifests or earlier results tell, are answered without a database. So are those that Spark
answers: the statement is run there, and the rows are only read here for what Spark cannot find.

An audit that cannot be run to its end raises; it never passes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, get_args

import attrs
import pyarrow as pa

from airflow_incremental.audits import functions as _functions  # noqa: F401  registers how functions are run
from airflow_incremental.audits.base import Audit
from airflow_incremental.audits.checks import SqlCheck
from airflow_incremental.audits.compile import Counts, Measure, measures_of
from airflow_incremental.audits.counting import counting, counts_of, shares, sharing, taken_apart
from airflow_incremental.audits.elsewhere import Ask, ask_all, say_read_here
from airflow_incremental.audits.expectations.audit import build_data_docs, check_suites, with_suites
from airflow_incremental.audits.findings import check_detectors
from airflow_incremental.audits.known import known_result
from airflow_incremental.audits.masks import masked_results
from airflow_incremental.audits.query import Rows
from airflow_incremental.audits.questions import Answered
from airflow_incremental.audits.scope import Scope, results
from airflow_incremental.audits.subject import ROWS, Subject
from airflow_incremental.audits.trend import Trend
from airflow_incremental.core.audit import AuditIncomplete, AuditReport, AuditResult, Over
from airflow_incremental.core.errors import IncrementalError, PlanExpired, TableError
from airflow_incremental.core.limits import check_samples
from airflow_incremental.core.reads import SourceRead
from airflow_incremental.engines.relations import open_connection
from airflow_incremental.engines.workdir import work_directory
from airflow_incremental.engines.worker import Worker

_FOLDERS = re.compile(r"\S*/")


def run_audits(
    audits: Sequence[Audit | Mapping[str, Any]],
    subject: Subject,
    *,
    samples: int = 0,
    memory_limit: str | None = None,
    work_dir: Path | None = None,
    look: Callable[[Scope, Sequence[AuditResult]], None] | None = None,
    earlier: Sequence[AuditResult] = (),
    ask: Ask | None = None,
) -> AuditReport:
    """Audit a sealed snapshot and report what was found.

    :param audits: the audits, or their serialised form; the report has their results in this order.
    :param subject: what they look at.
    :param samples: how many offending rows to put into each result. They may hold personal data and travel through
        XCom and logs, so the default is none; no message or error holds a value of a row either way.
    :param memory_limit: what DuckDB may use, such as ``"2GB"``; beyond it it spills to ``work_dir``.
    :param work_dir: where DuckDB's temporary files live while it runs; default is the system's.
    :param look: called with the session's rows, still open, and what was found over them.
    :param earlier: results that are not part of the report: a ``Trend`` may follow them, and what they found to be sensitive is
        masked.
    :param ask: asks Spark what it can tell, all at once; None asks DuckDB here.
    :returns: the report; failed audits do not raise here (see ``AuditReport.raise_if_failed``).
    :raises ArgumentError: for audits that are none or share a name.
    :raises AuditFailed: for an audit that does not fit the rows (unknown column, type that cannot be compared, broken
        SQL).
    :raises AuditIncomplete: when the rows could not be read to their end; a retry may succeed.
    """
    found = with_suites(audits)
    check_samples(samples)
    if not found:
        return AuditReport(snapshot_id=subject.snapshot_id, rows=None)
    taken: dict[str, tuple[AuditResult, ...]] = {}
    total = None
    asked = {} if ask is None else ask_all(found, subject.schema, ask)
    for over in get_args(Over):
        chosen = [audit for audit in found if audit.over == over and audit.reads_rows]
        if not chosen:
            continue
        with _rows_of(subject, over, memory_limit, work_dir) as (read, open_rows):
            answered = asked.get(over)
            # Before the rows are bound, which fails in worse words if audits do not fit them.
            measured = measures_of(chosen, read().schema if answered is None else subject.schema(over))
            scope = _counted(measured, subject, over, open_rows, answered=answered, samples=samples)
            count = scope.total
            taken.update({audit.name: results(audit, scope) for audit in chosen})
            if over == "rows" and look is not None:
                look(scope, [result for audit in chosen for result in taken[audit.name]])
        total = count if over == "rows" else total
    by_name = {r.name: r for r in [*earlier, *(r for each in taken.values() for r in each)]}
    # Trends last: they follow what the others found.
    for audit in sorted((a for a in found if not a.reads_rows), key=lambda a: isinstance(a, Trend)):
        result = by_name[audit.name] = _known(audit, subject, by_name)
        taken[audit.name] = (result,)
    reported = masked_results([result for audit in found for result in taken[audit.name]], earlier=earlier)
    build_data_docs(found, subject, reported)
    return AuditReport(
        snapshot_id=subject.snapshot_id,
        rows=subject.statistics("rows").total if total is None else total,
        results=reported,
    )


def _counted(
    measured: Mapping[str, tuple[Measure, ...]],
    subject: Subject,
    over: Over,
    open_rows: Callable[[], Rows],
    *,
    answered: Answered | None,
    samples: int,
) -> Scope:
    """Return a scope with all that is counted: here, but for what was answered by Spark."""
    known = {} if answered is None else answered.found
    here = [m for each in measured.values() for m in each if m.name not in known]
    if answered is None or here:
        total, counts = _count(open_rows(), here)
        _check_same(total, answered)
        known = {**known, **counts}
    else:
        total = answered.total
    return Scope(
        subject=subject,
        over=over,
        open_rows=open_rows,
        total=total,
        measured=measured,
        found=known,
        answered=answered,
        samples=samples,
    )


def _check_same(total: int, answered: Answered | None) -> None:
    if answered is not None and answered.total != total:
        raise AuditIncomplete(
            f"Spark counted {answered.total:,} rows, and here there are {total:,}",
            expected="the rows of one snapshot, whoever reads them",
            hint="retry the task; if it happens again, report it with the table's properties",
        )


@contextmanager
def _rows_of(
    subject: Subject, over: Over, memory_limit: str | None, work_dir: Path | None
) -> Iterator[tuple[Callable[[], SourceRead], Callable[[], Rows]]]:
    """Give what finds the rows of a scope, and what opens them, when it is called first; they are closed at the end."""
    with ExitStack() as stack:

        @cache
        def read() -> SourceRead:
            return _opened(subject, over)

        @cache
        def open_rows() -> Rows:
            found = read()
            worker = stack.enter_context(_connection(memory_limit, work_dir))
            rows = Rows(worker, attrs.evolve(found, name=ROWS))
            rows.bind()
            return rows

        yield read, open_rows


def _opened(subject: Subject, over: Over) -> SourceRead:
    """Return what audits of one scope look at; errors name files without their folders, which hold partition values.

    :raises AuditIncomplete: a file is gone.
    :raises TableError: the rows cannot be read as the table is.
    """
    refused: IncrementalError
    try:
        return subject.read(over)
    except PlanExpired as error:
        refused = AuditIncomplete(
            _FOLDERS.sub("", error.found),
            expected="files that stay as long as the session is open",
            hint="retry the task; if files are gone for good, abandon the session so that the next run plans anew",
        )
    except TableError as error:
        refused = TableError(_FOLDERS.sub("", error.found), expected=error.expected, hint=error.hint)
    raise refused


def _known(audit: Audit, subject: Subject, found: Mapping[str, AuditResult]) -> AuditResult:
    try:
        return known_result(audit, subject, found)
    except (OSError, ValueError) as error:
        what = type(error).__name__
    raise AuditIncomplete(
        f"could not read what audit {audit.name!r} needs to know: {what}",
        expected="manifests and kept results that can be read",
        hint="retry the task; if it happens again, look whether the storage answers and its files are there",
    )


def check_audits(audits: Sequence[Audit], schema: pa.Schema) -> None:
    """See whether each audit fits rows of ``schema``; no database is opened.

    :raises AuditFailed: one does not.
    """
    measures_of(with_suites(audits, contexts=False), schema)


def check_queries(
    audits: Sequence[Audit], schema: pa.Schema, *, work_dir: Path | None = None, in_spark: bool = False
) -> None:
    """See whether each ``SqlCheck`` is a query over rows of ``schema``, and each detector is there, before a load in vain.

    So with what of a suite is left to Great Expectations, which takes seconds to import.

    :param in_spark: whether Spark answers what it can: then queries are in its SQL, which only Spark can tell, and what is left to
        this machine is logged.
    :raises AuditFailed: one is no such query.
    :raises ArgumentError: a detector is not installed, or does not know what it is to look for.
    """
    check_suites(with_suites(audits), schema)
    check_detectors(audits)
    if in_spark:
        say_read_here(with_suites(audits), schema)
        return
    own = [audit for audit in audits if isinstance(audit, SqlCheck)]
    if not own:
        return  # a database takes longer to open than all the rest of a plan
    nothing = SourceRead(name=ROWS, schema=schema, field_ids=(), parts=())
    with _connection(None, work_dir) as worker:
        rows = Rows(worker, nothing)
        rows.bind()
        for audit in own:
            rows.view_of(audit)


@contextmanager
def _connection(memory_limit: str | None, work_dir: Path | None) -> Iterator[Worker]:
    """Open a connection that an exception in this thread, such as Airflow's timeout, stops in the middle of a query."""
    with (
        work_directory(work_dir, "audit") as directory,
        closing(Worker(open_connection(directory, memory_limit=memory_limit))) as worker,
    ):
        yield worker


def _count(rows: Rows, measures: Sequence[Measure]) -> tuple[int, dict[str, Counts]]:
    """Return the number of rows and, by its name, what each measure found, from one pass."""
    values = {name: value for m in measures for name, value in m.values.items()}
    total, taken = taken_apart(measures, rows.one_row(counting(measures, ROWS), values))
    doubled = [m for m in measures if shares(m, taken[m.name])]
    shared: dict[str, int] = {}
    if doubled:
        values = {name: value for m in doubled for name, value in m.values.items()}
        again = rows.one_row("SELECT " + ", ".join(f"({sharing(m.keys, ROWS)})" for m in doubled), values)
        shared.update(zip((m.name for m in doubled), again, strict=True))
    return total, counts_of(measures, total, taken, shared)
