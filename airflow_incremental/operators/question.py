"""What a person is shown who has to approve a session, in Markdown; the same for every try, and never with a value of a row."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow_incremental.core.approval import asked_about
from airflow_incremental.core.plan import shorten

if TYPE_CHECKING:
    from airflow_incremental.core.approval import ApprovalDefault, ApprovalPolicy, OnReject
    from airflow_incremental.core.audit import AuditReport, AuditResult
    from airflow_incremental.core.plan import Plan

_REJECTED = {
    "fail": "nothing is published and this task fails",
    "discard": "nothing is published and the run goes on without it",
    "quarantine": "nothing is published and all rows of the session are put aside in the quarantine table",
}


def subject(plan: Plan, *, rows: int, snapshot_id: int) -> str:
    """Return the headline; it names the session and the snapshot, by which a question is told from another one."""
    return f"Publish {rows:,} rows to {plan.target}? (session {plan.session}, snapshot {snapshot_id})"


def body(plan: Plan, report: AuditReport, policy: ApprovalPolicy, *, rows: int, branch: str, answer: str) -> str:
    """Return what is needed to decide.

    :param answer: what an answer does, see ``consequences``.
    """
    snapshot_id = report.snapshot_id
    late = f", {plan.rows_late:,} of the source rows late" if plan.rows_late else ""
    facts = [
        ("Process", f"{_code(plan.process)} ({plan.mode}, {plan.kind}), into {_code(plan.target)}"),
        ("Rows", f"{rows:,} written{late}"),
        ("Event times", shorten(plan.affected)),
        *([("Late part", shorten(plan.late))] if plan.late else []),
        ("Why there is a session", plan.reason),
        ("Run by", f"DAG {_code(plan.owner.dag_id)}, run {_code(plan.owner.run_id)}"),
    ]
    audits = [
        (_mark(r), _code(r.name), r.message + ("" if r.over == "rows" else f" (over the {r.over})"))
        for r in sorted(report.results, key=lambda r: r.passed)
    ]
    parts = [
        f"**Why you are asked:** {_why(report, policy)}",
        _table(("Session", _code(plan.session)), facts),
        f"**Audits** of snapshot {snapshot_id}: {report.verdict}",
        _table(("", "Audit", "Found"), audits) if audits else "_No audit was asked for._",
        f"**Look at the rows**: snapshot `{snapshot_id}`, branch `{branch}`: the table as it would be.",
        _code_block(
            "python", f'catalog.load_table("{plan.target}").scan(snapshot_id={snapshot_id}).to_arrow()  # pyiceberg'
        ),
        _code_block(
            "sql",
            "\n".join(
                f"SELECT * FROM {plan.target} {clause} {snapshot_id}  -- {engine}"  # noqa: S608  (for people to copy)
                for engine, clause in (("Spark", "VERSION AS OF"), ("Trino", "FOR VERSION AS OF"))
            ),
        ),
        answer,
    ]
    return "\n\n".join(parts)


def consequences(on_reject: OnReject, timeout: dt.timedelta | None, default: ApprovalDefault) -> str:
    """Return what an answer does, and what happens without one."""
    lines = [
        "**Approve**: exactly these rows are published.",
        f"**Reject**: {_REJECTED[on_reject]}; the next run plans the same changes anew.",
    ]
    if timeout is not None:
        lines.append(f"**No answer within {timeout}**: as {'rejected' if default == 'deny' else 'approved'}.")
    return "\n\n".join(lines)


def _why(report: AuditReport, policy: ApprovalPolicy) -> str:
    findings = asked_about(report, policy)
    if not findings:
        return "this load asks before every publish."
    names = ", ".join(_code(r.name) for r in findings)
    return f"{'an audit leaves' if len(findings) == 1 else 'audits leave'} it to a person: {names}."


def _mark(result: AuditResult) -> str:
    return "ok" if result.passed else "**ASK**" if result.asks else "**WARN**"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [
        head,
        ("---",) * len(head),
        *(tuple(cell.replace("|", "\\|").replace("\n", " ") for cell in row) for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(text: str) -> str:
    return f"`{text}`"


def _code_block(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"
