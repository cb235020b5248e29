"""The audit of a session: its checks over the sealed snapshot, and what follows from what they found."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import attrs

from airflow_incremental.audits.run import run_audits
from airflow_incremental.audits.subject import ROWS, Subject
from airflow_incremental.core.audit import AuditReport
from airflow_incremental.core.errors import AuditFailed
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.commits import load_table
from airflow_incremental.iceberg.locks import end_session
from airflow_incremental.iceberg.reads import read_files, read_ranges
from airflow_incremental.iceberg.touched import read_touched

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyiceberg.table import Table

    from airflow_incremental.audits import Audit
    from airflow_incremental.core.audit import Over
    from airflow_incremental.core.plan import Plan
    from airflow_incremental.core.reads import SourceRead
    from airflow_incremental.iceberg.seal import Sealed
    from airflow_incremental.sessions.process import Session

log = logging.getLogger(__name__)


def audit(session: Session, sealed: Sealed) -> AuditReport:
    """Check what the session wrote, exactly the sealed snapshot, and end the session if a blocking audit fails.

    :raises AuditFailed: nothing is published; the sealed snapshot is kept on a branch for inspection.
    """
    return _conclude(session, sealed, session.process.audits, earlier=None)


def audit_again(session: Session, sealed: Sealed, report: AuditReport) -> AuditReport:
    """Bring a report up to date for the same rows sealed again on another ``main``: audits that look beyond them run again.

    :raises AuditFailed: as :func:`audit`.
    """
    beyond = [a for a in session.process.audits if a.over != "rows"]
    if not beyond:
        return attrs.evolve(report, snapshot_id=sealed.snapshot_id)
    return _conclude(session, sealed, beyond, earlier=report)


def _conclude(session: Session, sealed: Sealed, audits: Sequence[Audit], *, earlier: AuditReport | None) -> AuditReport:
    process, plan = session.process, session.plan
    target = load_table(process.catalog, plan.target, role="target")
    try:
        report = run_audits(
            audits,
            subject_of(target, plan, sealed),
            samples=process.samples,
            memory_limit=process.engine.memory_limit,
            work_dir=process.work_dir,
        )
        if earlier is not None:
            kept = tuple(r for r in earlier.results if r.over == "rows")
            report = attrs.evolve(report, results=(*kept, *report.results))
        log.info("%s", report.describe())
        report.raise_if_failed(
            inspect=f"The rows are kept on branch {naming.failed_ref(plan.session)!r} of {plan.target}"
        )
    except AuditFailed:
        end_session(process.catalog, session.begin, keep=True, reason="a blocking audit failed")
        raise
    return report


def subject_of(target: Table, plan: Plan, sealed: Sealed) -> Subject:
    """Return what audits look at of a sealed session."""

    def read(over: Over) -> SourceRead:
        if over == "rows":
            return session_rows(target, sealed)
        if over == "partitions":
            return read_touched(target, ROWS, sealed.snapshot_id)
        return read_ranges(target, ROWS, sealed.snapshot_id, event_time=None, keep=None)

    return Subject(
        snapshot_id=sealed.snapshot_id, read=read, process=plan.process, session=plan.session, target=plan.target
    )


def session_rows(target: Table, sealed: Sealed) -> SourceRead:
    """Return the rows a session wrote, under the name ``rows``."""
    return read_files(target, ROWS, sealed.output.files)
