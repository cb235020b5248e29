"""How a running task asks a person about a session, and what it does with the answer.

Airflow keeps one question per task and run. Putting it again, in a retry, takes an answer away that was given in the meantime, and
shows people the text of the first time. So the lock remembers what was asked: the same question is not put again, its answer is
waited for; and another one is refused, because nobody could see what it is about.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from airflow_incremental import compat
from airflow_incremental.compat import AirflowFailException, AirflowSkipException, TaskDeferred
from airflow_incremental.core.approval import Approval, Decision, must_ask
from airflow_incremental.core.audit import AuditReport
from airflow_incremental.core.errors import NotApproved, SessionSuperseded
from airflow_incremental.core.literals import default_audit_table
from airflow_incremental.core.ranges import UTC
from airflow_incremental.operators import question
from airflow_incremental.operators.handover import check_same, missing, skip_if_ended, state_of
from airflow_incremental.operators.runtime import catalog_of, owner_of

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

    from airflow_incremental.core.plan import Plan
    from airflow_incremental.iceberg.locks import Begin
    from airflow_incremental.iceberg.seal import Sealed
    from airflow_incremental.operators.approve import SessionApprovalOperator
    from airflow_incremental.sessions.process import Finished

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class _Matter:
    """What a person is to decide on."""

    catalog: Catalog
    begin: Begin
    sealed: Sealed
    report: AuditReport


def ask(operator: SessionApprovalOperator, context: Mapping[str, Any], *, anew: bool = False) -> dict[str, Any]:
    """Ask a person and wait, if one has to decide on the session.

    :param anew: put the question, although the lock says that it was put before.
    :returns: the task's result, where nobody has to be asked, or the answer is known.
    :raises BaseException: what makes Airflow wait.
    """
    from airflow_incremental.iceberg.commits import load_table
    from airflow_incremental.iceberg.seal import find_sealed
    from airflow_incremental.sessions.approving import note
    from airflow_incremental.sessions.process import Finished

    ti, ids = context["ti"], operator.stage_task_ids
    planned = state_of(ti, ids, "plan")
    skip_if_ended(planned)
    loaded, audited = state_of(ti, ids, "load"), state_of(ti, ids, "audit")
    skip_if_ended(loaded)
    session_id = loaded["session"]
    check_same(ids, "audit", audited, session_id)
    catalog = catalog_of(operator.iceberg_conn_id)
    try:
        opened = _find(catalog, planned, session_id)
    except SessionSuperseded:
        if ti.try_number > 1 and _was_rejected(catalog, planned, session_id):
            return _rejected(operator, session_id, None, "rejected, as an earlier try of this task noted")
        raise
    if isinstance(opened, Finished) or audited["report"] is None:
        log.info("session %s is published; there is nothing to approve", session_id)
        return _result(session_id)
    report = AuditReport.from_json(audited["report"])
    plan = opened.plan
    sealed = find_sealed(load_table(catalog, plan.target, role="target"), plan)
    if sealed is None or sealed.snapshot_id != report.snapshot_id:
        now = None if sealed is None else sealed.snapshot_id
        raise missing(
            ids, "audit", f"the audit is of snapshot {report.snapshot_id}; what is sealed now is snapshot {now}"
        )
    if not must_ask(report, operator.approval):
        log.info("nobody has to be asked: the audits %s, and approval is %r", report.verdict, operator.approval)
        return _result(session_id)
    wanted = _approval(operator, ti, sealed, report, owner_of(context, task_id=operator.group_name).clear_number)
    known = opened.approval
    if anew or known is None or not known.same_question(wanted):
        matter = _Matter(catalog=catalog, begin=opened, sealed=sealed, report=report)
        raise _asked(operator, context, matter, wanted)
    owner = owner_of(context, task_id=operator.group_name)
    if known.decision is not None:
        log.info("session %s was %s; nobody is asked again", session_id, known.decision)
        return _carry_out(operator, catalog, opened, known.decision, owner)
    log.info("session %s %s; the question stands, and its answer is waited for", session_id, known)
    note(catalog, opened, owner, attrs.evolve(known, task_instance=wanted.task_instance))
    raise _waiting(operator, ti, plan, known.deadline)


def answered(operator: SessionApprovalOperator, context: Mapping[str, Any], event: Mapping[str, Any]) -> dict[str, Any]:
    """Do what a person answered, or what is answered for one who did not.

    :raises AirflowSkipException: another session replaced this one, so the answer changes nothing.
    :raises AirflowFailException: it was rejected, and that fails the run.
    """
    from airflow_incremental.sessions.process import Finished

    ti, ids = context["ti"], operator.stage_task_ids
    planned, session_id = state_of(ti, ids, "plan"), state_of(ti, ids, "load")["session"]
    catalog = catalog_of(operator.iceberg_conn_id)
    superseded = event.get("error_type") == "superseded"
    answer = None if superseded else operator.read_answer(context, dict(event))  # type: ignore[arg-type]
    try:
        opened = _find(catalog, planned, session_id)
    except SessionSuperseded as error:
        raise AirflowSkipException(f"{error.found}; the answer changes nothing") from None
    if isinstance(opened, Finished):
        return _result(session_id)
    asked = opened.approval
    if answer is None or asked is None:
        msg = f"a later try of the run works on session {session_id}, and asks by itself; the answer changes nothing"
        raise AirflowSkipException(msg)
    owner = owner_of(context, task_id=operator.group_name)
    report = AuditReport.from_json(state_of(ti, ids, "audit")["report"])
    user = answer["responded_by_user"]
    decision = asked.decision or Decision(
        session=session_id,
        write_id=asked.write_id,
        snapshot_id=asked.snapshot_id,
        approved=answer["chosen_options"] == [operator.APPROVE],
        by=None if user is None else user["id"],
        name=None if user is None else user["name"],
        at=answer["responded_at"],
        about=asked.about,
    )
    log.info("session %s was %s", session_id, decision)
    _keep(operator, catalog, opened.plan, report, decision)
    try:
        return _carry_out(operator, catalog, opened, decision, owner)
    except SessionSuperseded as error:
        raise AirflowSkipException(f"{error.found}; the answer changes nothing") from None


def _find(catalog: Catalog, planned: Mapping[str, Any], session_id: str) -> Begin | Finished:
    from airflow_incremental.sessions.approving import find_open

    return find_open(catalog, planned["target"], planned["process"], session_id)


def _was_rejected(catalog: Catalog, planned: Mapping[str, Any], session_id: str) -> bool:
    from airflow_incremental.sessions.approving import was_kept

    return was_kept(catalog, planned["target"], session_id)


def _approval(
    operator: SessionApprovalOperator, ti: Any, sealed: Sealed, report: AuditReport, clear_number: int
) -> Approval:
    now = dt.datetime.now(UTC)
    return Approval(
        since=now,
        deadline=None if operator.response_timeout is None else now + operator.response_timeout,
        task=ti.task_id,
        task_instance=str(ti.id),
        clear_number=clear_number,
        snapshot_id=sealed.snapshot_id,
        write_id=str(sealed.output.write_id),
        # A person sees the whole report, so decides on all of it.
        about={r.name: r.offending for r in report.warnings},
    )


def _asked(
    operator: SessionApprovalOperator, context: Mapping[str, Any], matter: _Matter, wanted: Approval
) -> BaseException:
    """Put the question, see that it is this one that people are shown, note it in the lock, and return what waits."""
    from airflow_incremental.iceberg import naming
    from airflow_incremental.sessions.approving import note

    plan, sealed = matter.begin.plan, matter.sealed
    operator.subject = question.subject(plan, rows=sealed.output.rows, snapshot_id=sealed.snapshot_id)
    operator.body = question.body(
        plan,
        matter.report,
        operator.approval,
        rows=sealed.output.rows,
        branch=naming.data_ref(plan.process, plan.session),
        answer=question.consequences(operator.on_reject, operator.response_timeout, operator.default),
    )
    text = {"subject": operator.subject, "body": operator.body}
    shown = compat.ask_person(
        context["ti"].id,
        {
            **text,
            "options": operator.options,
            "defaults": operator.defaults,
            "params": operator.serialized_params,
            "assigned_users": operator.assigned_users or [],
        },
    )
    if shown != text:
        raise NotApproved(
            f"people would be shown an earlier question of this run, {shown['subject']!r}, and not {operator.subject!r}: Airflow "
            "keeps the first question of a task in a run",
            expected="a run that has not asked about anything else",
            hint="start a new run, which plans the same changes and asks about them",
        )
    # Only now, so that what the lock says was asked is what people see.
    note(matter.catalog, matter.begin, owner_of(context, task_id=operator.group_name), wanted)
    log.info("session %s %s", plan.session, wanted)
    for notifier in operator.notifiers:
        notifier(context)
    waiting = None
    if operator.when_pending == "skip":
        waiting = compat.wait_for_answer("execute_complete", operator.response_timeout)
    return waiting or _waiting(operator, context["ti"], plan, wanted.deadline)


def _waiting(operator: SessionApprovalOperator, ti: Any, plan: Plan, deadline: dt.datetime | None) -> TaskDeferred:
    """Return what waits in the triggerer, which finds an answer that was given already, and sees that a session was replaced."""
    from airflow_incremental.triggers.approval import ApprovalTrigger

    trigger = ApprovalTrigger(
        ti_id=ti.id,
        options=operator.options,
        defaults=operator.defaults,
        params=operator.serialized_params,
        multiple=False,
        timeout_datetime=deadline,
        iceberg_conn_id=operator.iceberg_conn_id,
        target=plan.target,
        process=plan.process,
        session=plan.session,
        look_interval=operator.poll_interval,
    )
    return TaskDeferred(trigger=trigger, method_name="execute_complete")


def _keep(
    operator: SessionApprovalOperator, catalog: Catalog, plan: Plan, report: AuditReport, decision: Decision
) -> None:
    """Keep what was decided where the results of audits are kept, before anything follows from it."""
    from airflow_incremental.sessions.results import keep_decision

    if report.results and operator.audit_table is not False:
        keep_decision(catalog, operator.audit_table or default_audit_table(plan.target), plan, report, decision)


def _carry_out(
    operator: SessionApprovalOperator, catalog: Catalog, opened: Begin, decision: Decision, owner: Any
) -> dict[str, Any]:
    from airflow_incremental.sessions.approving import decide

    # Rows go to quarantine in the task that publishes, which has what that takes; the session stays open until then.
    decide(catalog, opened, owner, decision, end=operator.on_reject != "quarantine")
    if decision.approved:
        return _result(decision.session, decision)
    return _rejected(operator, decision.session, decision, str(decision))


def _rejected(
    operator: SessionApprovalOperator, session_id: str, decision: Decision | None, text: str
) -> dict[str, Any]:
    if operator.on_reject == "fail":
        msg = f"session {session_id} was {text}: nothing is published, and the next run plans the same changes anew"
        raise AirflowFailException(msg)
    return _result(session_id, decision, rejected=text, on_reject=operator.on_reject)


def _result(session_id: str, decision: Decision | None = None, **more: Any) -> dict[str, Any]:
    return {
        "session": session_id,
        "decision": None if decision is None else decision.to_json(),
        "rejected": None,
        **more,
    }
