"""A person's approval of a sealed session: asked, answered, and checked before the publish.

That a session waits, and what was decided, stands in its lock, put there by compare-and-set: newer runs see whom the session waits
for, and a retry after the answer asks nobody again.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import attrs

from airflow_incremental.core.approval import Approval, Decision, asked_about, must_ask
from airflow_incremental.core.errors import NotApproved
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.commits import load_table
from airflow_incremental.iceberg.locks import Begin, end_session, read_lock, renew_lock, superseded
from airflow_incremental.iceberg.seal import find_sealed
from airflow_incremental.sessions.closed import closed
from airflow_incremental.sessions.quarantine import quarantine_all, settle_process

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

    from airflow_incremental.core.audit import AuditReport
    from airflow_incremental.core.plan import Owner
    from airflow_incremental.core.quarantine import Quarantined
    from airflow_incremental.iceberg.seal import Sealed
    from airflow_incremental.sessions.process import Finished, Session

log = logging.getLogger(__name__)


def find_open(catalog: Catalog, target: str, process: str, session_id: str) -> Begin | Finished:
    """Return a session by its id, open or published; nothing of it is changed.

    :raises SessionSuperseded: it is neither.
    """
    table = load_table(catalog, target, role="target")
    lock = read_lock(table, process)
    if lock is not None and lock.plan.session == session_id:
        return lock
    return closed(table, process, session_id, lock)


def note(catalog: Catalog, begin: Begin, owner: Owner, approval: Approval) -> Begin:
    """Put into a session's lock that it waits for a person, or what was decided.

    :raises SessionSuperseded: it does not hold the lock any more.
    """
    renewed = renew_lock(catalog, begin, owner, approval=approval)
    if renewed is None:
        plan = begin.plan
        raise superseded(plan, load_table(catalog, plan.target, role="target"))
    return renewed


def decide(catalog: Catalog, begin: Begin, owner: Owner, decision: Decision, *, end: bool) -> None:
    """Carry a decision out: note it in the lock, or end the session.

    :param end: a rejected session is over; its sealed snapshot is kept on a branch for inspection.
    :raises SessionSuperseded: the session does not hold the lock any more, so nothing is left to decide on.
    """
    plan = begin.plan
    if decision.approved or not end:
        if begin.approval is not None and begin.approval.decision != decision:
            note(catalog, begin, owner, attrs.evolve(begin.approval, decision=decision))
    elif not end_session(catalog, begin, keep=True, reason=str(decision)):
        raise superseded(plan, load_table(catalog, plan.target, role="target"))


def was_kept(catalog: Catalog, target: str, session_id: str) -> bool:
    """Say whether a session was ended unpublished, its sealed snapshot kept for inspection."""
    return naming.failed_ref(session_id) in load_table(catalog, target, role="target").metadata.refs


def quarantine_rejected(session: Session, why: str) -> Quarantined:
    """Put all rows of a rejected session aside and end it; can be repeated until it has ended.

    :param why: the decision, in words; becomes the reason of every row.
    :raises SessionSuperseded: the session does not hold the lock any more.
    """
    process, plan = session.process, session.plan
    target = load_table(process.catalog, plan.target, role="target")
    sealed = find_sealed(target, plan)
    if sealed is None:
        raise superseded(plan, target)
    aside = quarantine_all(session, sealed, why)
    end_session(process.catalog, session.begin, keep=True, reason=why)
    settle_process(process)
    return aside


def check_approved(session: Session, sealed: Sealed, report: AuditReport, decision: Decision | None) -> None:
    """Raise unless what is about to be published needs no person's approval, or has it.

    :raises NotApproved: a finding nobody decided on ends the session; an approval of something else does not.
    """
    process, plan = session.process, session.plan
    findings = asked_about(report, process.approval)
    if decision is None and not must_ask(report, process.approval):
        return
    if decision is not None:
        write_id = str(sealed.output.write_id)
        if (decision.session, decision.write_id) != (plan.session, write_id):
            raise NotApproved(
                f"the approval is of session {decision.session} (rows {decision.write_id}), to be published is session "
                f"{plan.session} (rows {write_id})",
                expected="an approval of the very rows that are published",
                hint="clear the task that asks for the approval, with everything downstream",
            )
        if not decision.approved:
            raise NotApproved(f"session {plan.session} was {decision}", expected="an approved session")
        if decision.covers(findings):
            return
    found = "; ".join(f"{r.name}: {r.message}" for r in findings) or "the load asks for every session"
    end_session(process.catalog, session.begin, keep=True, reason="a person has to decide, and did not on this")
    settle_process(process)
    since = f"; what was {decision} was less, before main of {plan.target} moved" if decision is not None else ""
    raise NotApproved(
        f"a person has to decide on session {plan.session} before it is published ({found}){since}",
        expected="an approval of exactly this",
        hint=f"nothing was published; the rows are kept on branch {naming.failed_ref(plan.session)!r} of {plan.target}, and the "
        "next run plans the same changes anew"
        + ("" if process.approval else ". To be asked, use the task group IncrementalLoad(..., approval=...)"),
    )
