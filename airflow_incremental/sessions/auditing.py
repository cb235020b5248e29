"""The audit of a session: its checks over the sealed snapshot, and what follows from what they found."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import attrs

from airflow_incremental.audits.forms import digest_of
from airflow_incremental.audits.offenders import find_offenders
from airflow_incremental.audits.run import run_audits
from airflow_incremental.audits.subject import ROWS, Subject
from airflow_incremental.audits.trend import Trend
from airflow_incremental.core.audit import AuditIncomplete, AuditReport
from airflow_incremental.core.errors import AuditFailed, PlanExpired, TargetChanged
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.commits import load_table
from airflow_incremental.iceberg.locks import check_owned, end_session
from airflow_incremental.iceberg.reads import arrow_schema, placed_files, read_files, read_ranges, schema_at
from airflow_incremental.iceberg.statistics import past_publishes, statistics_of
from airflow_incremental.iceberg.touched import read_touched
from airflow_incremental.sessions.quarantine import put_aside, settle_process
from airflow_incremental.sessions.results import keep_results, kept_results
from airflow_incremental.sessions.spark_audits import SparkAudits

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from pyiceberg.table import Table

    from airflow_incremental.audits import Audit
    from airflow_incremental.audits.offenders import Offenders
    from airflow_incremental.audits.scope import Scope
    from airflow_incremental.core.audit import AuditResult, Over
    from airflow_incremental.core.plan import Plan
    from airflow_incremental.core.quarantine import Quarantined
    from airflow_incremental.core.reads import SourceRead
    from airflow_incremental.core.statistics import PastPublish
    from airflow_incremental.iceberg.seal import Sealed
    from airflow_incremental.sessions.process import Process, Session

log = logging.getLogger(__name__)


def audit(session: Session, sealed: Sealed) -> AuditReport:
    """Check what the session wrote, exactly the sealed snapshot, and end the session if a blocking audit fails.

    Rows that offend audits with severity ``quarantine`` are put aside if nothing else blocks: the rest is sealed in their place,
    and all audits run again over that. The report is of the snapshot that is sealed then.

    :raises AuditFailed: nothing is published; the sealed snapshot is kept on a branch for inspection.
    """
    with _ending(session):
        report, offenders = _run(session, sealed, session.process.audits)
        first: AuditReport | None = None
        if offenders is not None and all(r.severity == "quarantine" for r in report.failed):
            log.info("%s", report.describe())
            first, sealed = report, _put_aside(session, sealed, offenders)
            report, _ = _run(session, sealed, session.process.audits, earlier=first.results)
        report = _accounted(report, sealed.output.quarantined, first)
        return _concluded(session, report, session.process.audits, report.results)


def answers(session: Session, sealed: Sealed, report: AuditReport) -> bool:
    """Say whether a report lets a sealed snapshot be published: one of that very snapshot, by all audits of the load as it is now.

    An audit that was added or edited since, or a report that is only half there, says nothing of what was not asked.
    """
    if report.snapshot_id != sealed.snapshot_id or report.verdict == "failed":
        return False
    if report.audits != digest_of(session.process.audits):
        return False
    found = [r.name for r in report.results]
    # The results of a suite that is only named are called after it.
    return all(
        any(name == wanted or name.startswith(f"{wanted}:") for name in found)
        for each in session.process.audits
        for wanted in each.result_names
    )


def audit_again(session: Session, sealed: Sealed, report: AuditReport) -> AuditReport:
    """Bring a report up to date for the same rows sealed again on another ``main``: audits that look beyond them run again.

    :raises AuditFailed: as :func:`audit`.
    """
    beyond = [a for a in session.process.audits if a.over != "rows"]
    names = {name for a in beyond for name in a.result_names}
    beyond += [a for a in session.process.audits if isinstance(a, Trend) and a.audit in names]
    if not beyond:
        return attrs.evolve(report, snapshot_id=sealed.snapshot_id)
    with _ending(session):
        again, _ = _run(session, sealed, beyond, earlier=report.results)
        names = {r.name for r in again.results}
        kept = tuple(r for r in report.results if r.name not in names)
        results = (*kept, *again.results)
        report = attrs.evolve(again, results=results, quarantined=report.quarantined)
        return _concluded(session, report, beyond, again.results)


def _run(
    session: Session, sealed: Sealed, audits: Sequence[Audit], *, earlier: Sequence[AuditResult] = ()
) -> tuple[AuditReport, Offenders | None]:
    """Run audits, and find the rows to put aside unless that was done before.

    :param earlier: results of audits that are not run again, or of an earlier run.
    """
    process, plan = session.process, session.plan
    target = load_table(process.catalog, plan.target, role="target")
    # A later try may have sealed anew, and then there is nothing here to look at.
    check_owned(target, session.begin)
    found: list[Offenders | None] = [None]

    def look(scope: Scope, results: Sequence[AuditResult]) -> None:
        if process.puts_aside and sealed.output.quarantined is None:
            found[0] = find_offenders(audits, scope, results, lambda: placed_files(target, sealed.output.files))

    report = run_audits(
        audits,
        subject_of(process, target, plan, sealed),
        samples=process.samples,
        memory_limit=process.engine.memory_limit,
        work_dir=process.work_dir,
        earlier=earlier,
        look=look,
        ask=None
        if process.audit_runner is None
        else SparkAudits(runner=process.audit_runner, session=session, sealed=sealed).ask,
    )
    return report, found[0]


def _accounted(report: AuditReport, aside: Quarantined | None, first: AuditReport | None) -> AuditReport:
    """Return the report of what is left with the rows that were put aside before it.

    :param first: what was found before they were; None if an earlier try did it.
    """
    if aside is None:
        return report
    before = {r.name: r for r in first.results} if first is not None else {}
    results = []
    for result in report.results:
        offending, checked = aside.counts.get(result.name, (0, 0))
        # Rows that offend although all that did are gone are no rows that were put aside: the result stays, and blocks.
        if not offending or not result.passed:
            results.append(result)
            continue
        said = attrs.evolve(result, checked=checked, message=f"{offending:,} of {checked:,} rows offend it")
        said = before.get(result.name, said)
        message = f"{said.message}; put aside"
        results.append(attrs.evolve(said, passed=False, offending=offending, quarantined=offending, message=message))
    return attrs.evolve(report, results=tuple(results), quarantined=aside.rows)


def _concluded(
    session: Session, report: AuditReport, audits: Sequence[Audit], found: Sequence[AuditResult]
) -> AuditReport:
    """Return the report unless a blocking audit failed.

    :param audits: the audits that ran now.
    :param found: what they found.
    """
    report = attrs.evolve(report, audits=digest_of(session.process.audits))
    log.info("%s", report.describe())
    # Before the session can end: nothing is published or refused unrecorded.
    keep_results(session, audits, found, report)
    plan = session.plan
    report.raise_if_failed(inspect=f"The rows are kept on branch {naming.failed_ref(plan.session)!r} of {plan.target}")
    return report


@contextmanager
def _ending(session: Session) -> Iterator[None]:
    """End the session if what is done here says that it cannot be published."""
    catalog, begin = session.process.catalog, session.begin
    try:
        yield
    except AuditFailed:
        end_session(catalog, begin, keep=True, reason="a blocking audit failed")
        settle_process(session.process)
        raise


def _put_aside(session: Session, sealed: Sealed, offenders: Offenders) -> Sealed:
    try:
        return put_aside(session, sealed, offenders)
    except FileNotFoundError:
        pass  # what it says names the file by its path, which holds partition values
    except (PlanExpired, TargetChanged) as error:
        end_session(session.process.catalog, session.begin, keep=False, reason=error.found)
        settle_process(session.process)
        raise
    raise AuditIncomplete(
        f"a data file of session {session.plan.session} was gone when rows of it were to be put aside",
        expected="files that stay until the session has ended",
        hint="retry the task; if files are gone for good, abandon the session so that the next run plans anew",
    )


def subject_of(process: Process, target: Table, plan: Plan, sealed: Sealed) -> Subject:
    """Return what audits look at of a sealed session."""

    def read(over: Over) -> SourceRead:
        if over == "rows":
            return session_rows(target, sealed)
        if over == "partitions":
            return read_touched(target, ROWS, sealed.snapshot_id)
        return read_ranges(target, ROWS, sealed.snapshot_id, event_time=None, keep=None)

    def publishes(last: int) -> list[PastPublish]:
        return list(islice(past_publishes(target, plan.process), last))

    def schema(over: Over) -> pa.Schema:
        # The session's files are read under the table's schema, which is the one it was sealed under.
        columns = target.schema() if over == "rows" else schema_at(target, sealed.snapshot_id)
        return arrow_schema(columns)

    return Subject(
        snapshot_id=sealed.snapshot_id,
        read=read,
        schema=schema,
        statistics=statistics_of(target, sealed.snapshot_id, sealed.output.files),
        publishes=publishes,
        kept=partial(kept_results, process),
        process=plan.process,
        session=plan.session,
        target=plan.target,
    )


def session_rows(target: Table, sealed: Sealed) -> SourceRead:
    """Return the rows a session wrote, under the name ``rows``."""
    return read_files(target, ROWS, sealed.output.files)
