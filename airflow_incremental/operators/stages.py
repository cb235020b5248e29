"""What the stages of a load do in a running task. Each finds a session, does its step, and says how it went.

Between the tasks of a group travel, by XCom, the session's id, the audit report and small summaries; everything else is read from
the target again. A stage believes what an earlier one said only if it speaks of the same session.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_incremental.compat import AirflowSkipException
from airflow_incremental.core.approval import Decision
from airflow_incremental.core.audit import AuditReport
from airflow_incremental.core.errors import AuditFailed, IncrementalError, SessionBusy, SessionSuperseded, StoreError
from airflow_incremental.operators import metrics, reports
from airflow_incremental.operators.busy import give_way
from airflow_incremental.operators.handover import check_same, missing, skip_if_ended
from airflow_incremental.operators.job import Job
from airflow_incremental.operators.restate import wants_preview

if TYPE_CHECKING:
    from airflow_incremental.operators.load import IncrementalLoadOperator
    from airflow_incremental.sessions.process import Finished, Session

log = logging.getLogger(__name__)

#: How often a lock that was free again by the time it was looked at is tried for, before the task's own retries take over.
_ROUNDS = 3


def run_stage(operator: IncrementalLoadOperator, context: Mapping[str, Any], *, stage: str | None = None) -> Any:
    """Run the operator's stage; its result is the task's return value.

    :param stage: another one than the operator's, for a task that works for it.
    :raises IncrementalError: with what to do; the operator tells Airflow whether a retry can help.
    """
    stages = {"all": _all, "plan": _plan, "chunk": _chunk, "load": _load, "audit": _audit, "publish": _publish}
    run = stages[stage or operator.stage]
    operator.plan_summary = ""
    job = Job.of(operator, context)
    if operator.stage in ("all", "plan") and wants_preview(context):
        _preview(job)
    for _ in range(_ROUNDS):
        try:
            return run(job)
        except SessionBusy as error:
            busy = error
            give_way(job, error)
        except StoreError:
            raise  # what there was to say of the session is said
        except IncrementalError as error:
            if isinstance(error, AuditFailed):
                metrics.audit_failed(job.process.spec.process, dag_id=job.dag_id)
            job.session_log.failed(error)
            raise
    raise busy


def _preview(job: Job) -> NoReturn:
    """Show what the run would do, and skip the rest of it."""
    from airflow_incremental.sessions.preview import preview

    text = preview(job.process).describe()
    job.show(text)
    log.info("%s", text)
    raise AirflowSkipException("this run was only to show what it would do (preview_only)")


def _all(job: Job) -> dict[str, Any]:
    from airflow_incremental.sessions import steps

    def show(session: Session) -> None:
        job.show(session.plan.describe())
        job.tell_plan(session)

    told = job.session_log
    return job.finish(steps.run(job.process, on_plan=show, on_load=told.loaded, on_audit=told.audited))


def _plan(job: Job) -> dict[str, Any] | list[str]:
    from airflow_incremental.iceberg import naming
    from airflow_incremental.sessions.planner import plan
    from airflow_incremental.sessions.process import Finished

    own_writes = job.process.transform is None
    opened = plan(job.process)
    if isinstance(opened, Finished):
        _nothing_left(job, opened, planned=None)
    job.show(opened.plan.describe())
    log.info("%s", opened.plan.describe())
    job.tell_plan(opened)
    name = naming.scratch_ref if own_writes else naming.data_ref
    state = reports.session_values(opened.plan, branch=name(opened.plan.process, opened.plan.session))
    job.push_session(state)
    return job.hand_over(state, chunks=[reports.name_of_chunk(opened.plan, chunk) for chunk in opened.plan.chunks])


def _chunk(job: Job) -> dict[str, Any]:
    """Compute one chunk; what the stage after this one finds missing, it computes itself."""
    from airflow_incremental.sessions import steps
    from airflow_incremental.sessions.process import Finished

    planned = job.state_of("plan")
    skip_if_ended(planned)
    try:
        opened = steps.resume(job.process, planned["session"], again=False)
    except SessionSuperseded as error:
        # The next stage plans anew, and computes everything.
        return _chunk_is_over(job, planned, error.found)
    if isinstance(opened, Finished):
        return _chunk_is_over(job, planned, f"{opened.reason}; to compute it again, clear the run")
    plan, number = opened.plan, job.map_index
    job.session_log.reopened(plan)
    name = f"chunk {number + 1:,} of {len(plan.chunks):,} of session {plan.session}"
    log.info("%s of process %r: %s", name, plan.process, reports.name_of_chunk(plan, plan.chunks[number]))
    done, chunks = steps.load_chunk(opened, number)
    if chunks > 1:
        job.session_log.progressed(done, chunks)
    text = f"{name} is computed; {done:,} of {chunks:,} are"
    job.show(text)
    log.info("%s", text)
    return {"session": plan.session, "done": done, "chunks": chunks}


def _chunk_is_over(job: Job, planned: Mapping[str, Any], why: str) -> dict[str, Any]:
    text = f"nothing was computed: {why}"
    log.warning("%s", text)
    job.show(text)
    return {"session": planned["session"], "done": None, "chunks": None}


def _load(job: Job) -> dict[str, Any]:
    from airflow_incremental.sessions import steps
    from airflow_incremental.sessions.process import Finished

    planned = job.state_of("plan")
    skip_if_ended(planned)
    opened = _reopen(job, planned["session"])
    if isinstance(opened, Finished):
        _nothing_left(job, opened, planned=planned["session"])
    job.session_log.reopened(opened.plan)
    sealed = steps.load(opened)
    job.session_log.loaded(sealed)
    job.show(f"session {opened.plan.session}: sealed as snapshot {sealed.snapshot_id}, not visible on main yet")
    return {
        "planned": planned["session"],
        "session": opened.plan.session,
        "snapshot_id": sealed.snapshot_id,
        "rows": sealed.output.rows,
    }


def _audit(job: Job) -> dict[str, Any]:
    from airflow_incremental.iceberg.commits import load_table
    from airflow_incremental.iceberg.seal import find_sealed
    from airflow_incremental.sessions import steps
    from airflow_incremental.sessions.auditing import audit
    from airflow_incremental.sessions.process import Finished

    planned = job.state_of("plan")
    skip_if_ended(planned)
    loaded = _loaded(job, planned)
    skip_if_ended(loaded)
    opened = steps.resume(job.process, loaded["session"], again=job.is_retry)
    if isinstance(opened, Finished):
        log.info("%s; there is nothing to audit before a publish", opened.reason)
        return {"session": loaded["session"], "report": None}
    sealed = find_sealed(load_table(job.process.catalog, opened.plan.target, role="target"), opened.plan)
    if sealed is None:
        raise missing(job.operator.stage_task_ids, "load", f"session {opened.plan.session} has no sealed snapshot")
    job.session_log.reopened(opened.plan)
    # Sample rows may hold personal data: they stay in the log, where they were asked for.
    report = audit(opened, sealed).brief()
    job.session_log.audited(report)
    job.show(report.describe())
    return {"session": opened.plan.session, "report": report.to_json()}


def _publish(job: Job) -> dict[str, Any]:
    from airflow_incremental.sessions import steps
    from airflow_incremental.sessions.process import Finished

    planned = job.state_of("plan")
    if "finished" in planned:
        return job.close(planned)
    loaded = _loaded(job, planned)
    if "finished" in loaded:
        return job.close(loaded)
    audited = job.state_of("audit")
    check_same(job.operator.stage_task_ids, "audit", audited, loaded["session"])
    decision = None
    if job.operator.approval is not None:
        answered = job.state_of("approve")
        check_same(job.operator.stage_task_ids, "approve", answered, loaded["session"])
        if answered["rejected"] is not None:
            if answered["on_reject"] == "quarantine":
                _quarantine(job, loaded["session"], answered["rejected"])
            raise AirflowSkipException(f"session {loaded['session']} was {answered['rejected']}: nothing is published")
        decision = None if answered["decision"] is None else Decision.from_json(answered["decision"])
    opened = steps.resume(job.process, loaded["session"], again=job.is_retry)
    if isinstance(opened, Finished):
        return job.finish(opened)
    job.session_log.reopened(opened.plan)
    if audited["report"] is None:
        raise missing(
            job.operator.stage_task_ids, "audit", f"session {loaded['session']} is open, but its audit reported nothing"
        )
    return job.finish(steps.publish(opened, AuditReport.from_json(audited["report"]), decision))


def _reopen(job: Job, session_id: str) -> Session | Finished:
    """Find the planned session. One that was ended or taken over is planned anew here, unless the author's tasks wrote for it."""
    from airflow_incremental.sessions import steps
    from airflow_incremental.sessions.planner import plan

    try:
        return steps.resume(job.process, session_id, again=job.is_retry)
    except SessionSuperseded as error:
        if job.process.transform is None:
            raise
        log.warning("%s; planning anew", error.found)
    return plan(job.process)


def _loaded(job: Job, planned: Mapping[str, Any]) -> dict[str, Any]:
    loaded = job.state_of("load")
    if loaded["planned"] != planned["session"]:
        raise missing(
            job.operator.stage_task_ids,
            "load",
            f"the load's result is of plan {loaded['planned']}, not of {planned['session']}",
        )
    return loaded


def _quarantine(job: Job, session_id: str, why: str) -> None:
    """Put all rows of a rejected session aside, and end it; what an earlier try did of that is found."""
    from airflow_incremental.sessions import steps
    from airflow_incremental.sessions.approving import quarantine_rejected
    from airflow_incremental.sessions.process import Finished
    from airflow_incremental.sessions.quarantine import settle_process

    try:
        opened = steps.resume(job.process, session_id, again=job.is_retry)
    except SessionSuperseded as error:
        log.info("%s; what was put aside of it is released", error.found)
        settle_process(job.process)
        return
    if isinstance(opened, Finished):
        return
    aside = quarantine_rejected(opened, why)
    job.show(f"put {aside.rows:,} rows aside in {aside.table}: {why}")


def _nothing_left(job: Job, finished: Finished, *, planned: str | None) -> NoReturn:
    """Skip the stages up to the last, which says how the load ended."""
    state = {**reports.no_session(), **job.ending(finished), "planned": planned}
    job.show(reports.describe(state["finished"]))
    log.info("%s: %s", finished.outcome.replace("_", " "), finished.reason)
    if planned is None:
        job.push_session(state)
    job.skip_to_publish(state)
