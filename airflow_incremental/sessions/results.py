"""What a session's audits found, kept for later: every result of every run of them, once, whatever became of the session."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_incremental.audits.forms import digest_of
from airflow_incremental.core.audit import AuditReport, AuditResult
from airflow_incremental.core.ranges import UTC
from airflow_incremental.iceberg.audit_table import append_results, find_audit_table, results_of

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

    from airflow_incremental.audits import Audit
    from airflow_incremental.core.approval import Decision
    from airflow_incremental.core.plan import Plan
    from airflow_incremental.sessions.process import Process, Session

log = logging.getLogger(__name__)

#: What the decision of a person is called among the results.
DECISION = "a person's approval"


def keep_results(
    session: Session, audits: Sequence[Audit], results: Sequence[AuditResult], report: AuditReport
) -> None:
    """Write the results of a run of the session's audits into the table they are kept in.

    A run is known by its session, snapshot and audits, so a try that was killed before it could tell anybody what it found, and the
    next one, leave one set of rows.

    :param audits: the audits that ran.
    :param results: what they found.
    :param report: the report they are part of.
    :raises IncrementalError: they could not be kept, so nothing may be published on them; a retry finds what was.
    """
    process, plan = session.process, session.plan
    if process.results_table is None or not results:
        return
    owner = plan.owner
    mark = hashlib.sha256(f"{plan.session}/{report.snapshot_id}/{digest_of(audits)}".encode()).hexdigest()[:32]
    shared = {
        "audited_at": dt.datetime.now(UTC),
        "process": plan.process,
        "session": plan.session,
        "snapshot_id": report.snapshot_id,
        "target": plan.target,
        "audit_run": mark,
        "session_rows": report.rows,
        "verdict": report.verdict,
        "dag_id": owner.dag_id or None,
        "run_id": owner.run_id or None,
        "task_id": owner.task_id or None,
    }
    rows = [{**shared, **_columns(result)} for result in results]
    append_results(process.catalog, process.results_table, rows, since=plan.created_at)
    log.info("kept %s results of audits in %s", len(rows), process.results_table)


def keep_decision(catalog: Catalog, table: str, plan: Plan, report: AuditReport, decision: Decision) -> None:
    """Write what a person decided on a session beside the results it was decided on, once.

    :param table: the one that the results are kept in.
    :raises IncrementalError: it could not be kept; a retry does it.
    """
    said = decision.to_json()
    row = {
        "audited_at": decision.at,
        "process": plan.process,
        "session": plan.session,
        "snapshot_id": decision.snapshot_id,
        "target": plan.target,
        "audit_run": hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32],
        "audit": DECISION,
        "kind": "approval",
        "severity": "ask",
        "passed": decision.approved,
        "message": str(decision),
        "observed": _text({name: said[name] for name in ("by", "name", "at")}),
        "session_rows": report.rows,
        "verdict": report.verdict,
        "dag_id": plan.owner.dag_id or None,
        "run_id": plan.owner.run_id or None,
        "task_id": plan.owner.task_id or None,
    }
    append_results(catalog, table, [row], since=plan.created_at)


def kept_results(process: Process, sessions: Sequence[str], name: str) -> list[AuditResult]:
    """Return the kept results of one name in given sessions, the last of each where there is one."""
    table = None if process.results_table is None else find_audit_table(process.catalog, process.results_table)
    if table is None:
        return []
    last = {
        row["session"]: row
        for row in results_of(table, sessions)
        if row["audit"] == name
        and row["process"] == process.spec.process
        and row["target"] == process.spec.target.table
    }
    return [_result(last[session]) for session in sessions if session in last]


def _columns(result: AuditResult) -> dict[str, Any]:
    return {
        "audit": result.name,
        "kind": result.kind,
        "extent": result.over,
        "path": result.path,
        "severity": result.severity,
        "passed": result.passed,
        "offending": result.offending,
        "checked": result.checked,
        "quarantined": result.quarantined,
        "observed": _text(result.observed),
        "message": result.message,
        "result": _text(result.full),
    }


def _result(row: Mapping[str, Any]) -> AuditResult:
    return AuditResult(
        name=row["audit"],
        severity=row["severity"],
        passed=row["passed"],
        offending=row["offending"] or 0,
        checked=row["checked"] or 0,
        message=row["message"] or "",
        observed=None if row["observed"] is None else json.loads(row["observed"]),
    )


def _text(value: Any) -> str | None:
    return None if value is None else json.dumps(_finite(value), sort_keys=True, default=str)


def _finite(value: Any) -> Any:
    """Return a JSON value whose numbers every reader of JSON knows: NaN and the infinities as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, (list, tuple)) else value
