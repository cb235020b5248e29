"""Sessions that wait for a person, without Airflow."""

from __future__ import annotations

import datetime as dt
from typing import Any

import attrs

from airflow_incremental.audits import RowCount
from airflow_incremental.core.approval import Approval, Decision
from airflow_incremental.core.audit import AuditReport
from airflow_incremental.iceberg.locks import read_lock
from airflow_incremental.iceberg.seal import Sealed
from airflow_incremental.sessions import steps
from airflow_incremental.sessions.approving import note
from airflow_incremental.sessions.planner import plan
from airflow_incremental.sessions.process import Session
from tests.support.world import World

NOW = dt.datetime(2024, 1, 2, tzinfo=dt.timezone.utc)
#: Leaves it to a person when a session writes more than one row.
ASKS = (RowCount(max=1, severity="ask"),)


@attrs.frozen
class Waiting:
    """A session whose lock says that it waits for a person."""

    session: Session
    sealed: Sealed
    report: AuditReport
    approval: Approval


def audited(world: World, run_id: str = "asks", **changes: Any) -> tuple[Session, Sealed, AuditReport]:
    """Go with a new session as far as its audit, which leaves it to a person."""
    session = plan(world.process(run_id, **{"audits": ASKS, "approval": "on_warning", **changes}))
    assert isinstance(session, Session)
    sealed = steps.load(session)
    return session, sealed, steps.audit(session, sealed)


def approval_of(session: Session, sealed: Sealed, report: AuditReport, **changes: Any) -> Approval:
    """Return what the lock of such a session says while it waits."""
    values: dict[str, Any] = {
        "since": NOW,
        "deadline": None,
        "task": "fact.approve",
        "task_instance": "018f",
        "clear_number": session.plan.owner.clear_number,
        "snapshot_id": sealed.snapshot_id,
        "write_id": str(sealed.output.write_id),
        "about": {r.name: r.offending for r in report.warnings},
    }
    return Approval(**{**values, **changes})


def ask(world: World, run_id: str = "asks", **changes: Any) -> Waiting:
    """Let a new session wait for a person."""
    session, sealed, report = audited(world, run_id, **changes)
    approval = approval_of(session, sealed, report)
    begin = note(world.catalog, session.begin, session.plan.owner, approval)
    return Waiting(attrs.evolve(session, begin=begin), sealed, report, approval)


def decision_on(waiting: Waiting, *, approved: bool = True, **changes: Any) -> Decision:
    """Return what a person decides on it."""
    values: dict[str, Any] = {
        "session": waiting.session.plan.session,
        "write_id": waiting.approval.write_id,
        "snapshot_id": waiting.approval.snapshot_id,
        "approved": approved,
        "by": "ann",
        "name": "Ann",
        "at": NOW,
        "about": waiting.approval.about,
    }
    return Decision(**{**values, **changes})


def lock_of(world: World) -> Any:
    """Return the process's lock as the table has it."""
    return read_lock(world.target, world.name)
