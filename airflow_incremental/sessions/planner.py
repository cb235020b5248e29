"""The first step: read the watermark, detect changes, decide, and take the lock."""

from __future__ import annotations

import datetime as dt
import logging
from typing import TYPE_CHECKING

import attrs

from airflow_incremental.audits.run import check_audits, check_queries
from airflow_incremental.audits.trend import check_trends
from airflow_incremental.core.commands import abandon_command
from airflow_incremental.core.declared import check_target_declared
from airflow_incremental.core.errors import (
    ApprovalPending,
    ArgumentError,
    ForeignSession,
    SessionBusy,
    TargetChanged,
    WatermarkLost,
)
from airflow_incremental.core.facts import TargetFacts
from airflow_incremental.core.plan import Owner, Plan
from airflow_incremental.core.planning import NothingToDo, make_plan
from airflow_incremental.core.ranges import UTC
from airflow_incremental.core.watermark import Published
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.audit_table import find_audit_table
from airflow_incremental.iceberg.locks import (
    Begin,
    bootstrap,
    end_session,
    read_lock,
    renew_lock,
    take_lock,
)
from airflow_incremental.iceberg.publish import publish_positions
from airflow_incremental.iceberg.quarantine_schema import check_quarantine_table
from airflow_incremental.iceberg.scopes import resolve_scope
from airflow_incremental.iceberg.sharing import check_scopes
from airflow_incremental.iceberg.state import publish_of_owner, published
from airflow_incremental.iceberg.targets import (
    check_first_run,
    create_target,
    find_target,
    target_facts,
)
from airflow_incremental.sessions.chunking import with_cuts
from airflow_incremental.sessions.creating import columns_of_new, draft_everything, no_target
from airflow_incremental.sessions.facts import source_facts
from airflow_incremental.sessions.keys import with_key_scans
from airflow_incremental.sessions.pinning import pin_sources
from airflow_incremental.sessions.process import Finished, Process, Session
from airflow_incremental.sessions.quarantine import settle_last, settle_process
from airflow_incremental.sessions.requested import requested
from airflow_incremental.sessions.restating import restatement

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from airflow_incremental.core.parts import SourceFacts

log = logging.getLogger(__name__)

#: How often a plan is made again because the target moved under it before the lock was taken.
_ROUNDS = 5


def plan(process: Process) -> Session | Finished:
    """Open a session, find the one this run already has, or find that there is nothing to do.

    A session of the same task is resumed: the lock is renewed, so that the try that began the session, should it be alive, changes
    nothing any more. One whose run is over is taken over, and its changes are planned anew together with what came since. One whose
    run is alive raises :class:`SessionBusy`, one of another deployment :class:`ForeignSession`. One that waits for a person raises
    :class:`ApprovalPending`, or is taken over like one whose run is over (``replace_pending``).
    """
    for attempt in range(_ROUNDS):
        target = _target(process)
        settle_last(process, target)
        process = attrs.evolve(process, spec=resolve_scope(target, process.spec))
        found = _open_session(process, target)
        if isinstance(found, Session):
            return found
        over = found
        try:
            drafted = draft(process, target)
            if over is not None and (isinstance(drafted, Finished) or drafted.kind == "positions"):
                end_session(process.catalog, over, keep=False, reason="nothing is left to do")
                over = None
            if isinstance(drafted, Finished):
                pin_sources(process, drafted.published)
                return drafted
            if drafted.kind == "positions":
                done = publish_positions(process.catalog, process.spec, drafted)
                log.info("published the watermark of process %r without rows: %s", process.spec.process, drafted.reason)
                pin_sources(process, done)
                return Finished(outcome="nothing_to_do", reason=drafted.reason, published=done, plan=drafted)
            begin = take_lock(process.catalog, process.spec, drafted, over=over, scratch=process.transform is None)
        except TargetChanged as error:
            if attempt + 1 == _ROUNDS:
                raise
            log.info("planning again: %s", error.found)
            continue
        if over is not None:
            why = "whose run is over" if over.approval is None else f"which {over.approval}"
            log.warning("took over session %s of %s, %s", over.plan.session, over.plan.owner, why)
            settle_process(process)
        return Session(process=process, begin=begin)
    raise AssertionError  # the last round returns or raises


def _open_session(process: Process, target: Table) -> Session | Begin | None:
    """Return this task's open session to go on with, or another one that may be taken over, or None."""
    lock = read_lock(target, process.spec.process)
    if lock is None:
        return None
    if not lock.plan.owner.same_task(process.owner):
        return _may_take_over(process, lock)
    if ended_as_declared_anew(process, target, lock):
        return None
    begin = renew_lock(process.catalog, lock, process.owner)
    if begin is None:
        return None  # published or ended a moment ago, which taking the lock will notice
    log.info("resuming session %s of this run", lock.plan.session)
    return Session(process=process, begin=begin)


def ended_as_declared_anew(process: Process, target: Table, lock: Begin) -> bool:
    """End a session that was planned from another declaration of the load, whose ranges would be read by the rules of this one."""
    if lock.plan.declared == resolve_scope(target, process.spec).digest:
        return False
    end_session(process.catalog, lock, keep=False, reason="the load was declared anew since it was planned")
    log.warning("session %s was planned from another declaration of the load", lock.plan.session)
    return True


def draft(process: Process, target: Table) -> Plan | Finished:
    """Decide what a session would do, touching nothing: what a preview shows is this very plan.

    :raises AuditFailed: an audit does not fit the target's columns.
    :raises TableError: the table in which results are to be kept is one for something else.
    """
    spec = resolve_scope(target, process.spec)
    if spec.mode == "merge" and process.transform is None:
        raise ArgumentError(
            f"process {spec.process!r} has mode='merge' and no transform",
            expected="a transform: which keys are replaced is found while it is loaded",
        )
    process = attrs.evolve(process, spec=spec)
    now = dt.datetime.now(UTC)
    facts = target_facts(target, spec)
    mine = publish_of_owner(target, spec.process, process.owner)
    if mine is not None and Owner.from_json(mine.owner).clear_number >= process.owner.clear_number:
        # Where only positions were published, the first try had nothing to do, and so has this one: no event tells of rows.
        moved = mine.summary.get(naming.KIND) == "positions"
        return Finished(
            outcome="nothing_to_do" if moved else "already_published",
            reason=f"session {mine.session} of this run is published",
            published=mine,
        )
    # An audit that names a column the target does not have is found before the load, not after.
    check_audits(process.audits, target.schema().as_arrow())
    if process.puts_aside:
        check_quarantine_table(process.catalog, process.quarantine, target, of=spec.target.table)
    check_trends(process.audits, kept=process.audit_table is not False)
    again = _again(process, target, facts, mine, now)
    if again is not None:
        return with_cuts(process, again, {}) if isinstance(again, Plan) else again
    last, reload = _last_publish(process, target, facts)
    if last is not None:
        _check_alone(process, Owner.from_json({"deployment": "", **last.owner}))
    check_scopes(target, spec, replaces=reload is not None)
    if last is None and reload is None:
        check_first_run(target, spec)
    try:
        sources = _sources(process, target, facts, last, reset=reload is not None)
    except WatermarkLost as error:
        if spec.on_lost_watermark != "reload":
            raise
        reload = f"everything is computed again, because {error.found}"
        check_scopes(target, spec, replaces=True)
        sources = _sources(process, target, facts, last, reset=True)
    decided = make_plan(
        spec, target=facts, published=last, sources=sources, owner=process.owner, now=now, reload=reload
    )
    if isinstance(decided, NothingToDo):
        return Finished(outcome="nothing_to_do", reason=decided.reason, published=decided.published)
    _check_before_load(process, target)
    return with_cuts(process, decided, sources)


def _again(
    process: Process, target: Table, facts: TargetFacts, mine: Published | None, now: dt.datetime
) -> Plan | Finished | None:
    """Plan what is computed again on purpose: what somebody asks for, or what this run wrote before it was cleared."""
    if process.restate is not None:
        asked = requested(process, target, facts, process.restate, now)
        if isinstance(asked, Plan):
            _check_before_load(process, target)
        return asked
    if mine is not None:
        return restatement(process, target, facts, mine, now)
    if process.owner.clear_number > 0:
        log.info(
            "this run was cleared, and no publish of it is kept (it never made one, or that was undone or is expired): what "
            "changed since the last publish is loaded; to compute other event times again, restate them"
        )
    return None


def _check_before_load(process: Process, target: Table) -> None:
    """Refuse what would fail only after the load, where it takes a database or another table to tell."""
    check_queries(
        process.audits, target.schema().as_arrow(), work_dir=process.work_dir, in_spark=process.audit_runner is not None
    )
    if process.results_table is not None:
        find_audit_table(process.catalog, process.results_table)


def _sources(
    process: Process, target: Table, facts: TargetFacts, last: Published | None, *, reset: bool
) -> dict[str, SourceFacts]:
    """Return what there is to know of the sources, their keys checked."""
    found = {name: source_facts(process, name, last, facts.grain, reset=reset) for name in process.spec.sources}
    return with_key_scans(process, target, found) if process.spec.mode == "merge" else found


def _last_publish(process: Process, target: Table, facts: TargetFacts) -> tuple[Published | None, str | None]:
    """Return where the process stands, and why everything is to be computed again if it is."""
    spec = process.spec
    last: Published | None = None
    try:
        last = published(target, spec.process)
        if last is not None:
            check_target_declared(spec, last, facts)
    except WatermarkLost as error:
        if spec.on_lost_watermark != "reload":
            raise
        return last, f"everything is computed again, because {error.found}"
    return last, None


def _check_alone(process: Process, other: Owner) -> None:
    """Refuse a process that another mapped instance of this task works for in this run: it would find its work done by the other.

    :param other: who holds the lock, or published last.
    """
    mine = process.owner
    twin = attrs.evolve(other, map_index=mine.map_index).same_task(mine) and other.clear_number == mine.clear_number
    if twin and other.map_index != mine.map_index:
        raise ArgumentError(
            f"map indexes {other.map_index} and {mine.map_index} of task {mine.task_id!r} in run {mine.run_id!r} are both the "
            f"process {process.spec.process!r}",
            expected="a process, and a scope or a target, for each mapped instance",
            hint="put process into what the task is expanded over: expand_kwargs([{'process': ..., 'target': ...}, ...])",
        )


def _may_take_over(process: Process, lock: Begin) -> Begin:
    """Return the open session if its run is over, or waits for a person and may be replaced; else say who has it."""
    holder = lock.plan.owner
    _check_alone(process, holder)
    name = process.spec.process
    abandon = abandon_command(process.spec.target.table, name)
    if holder.deployment != process.owner.deployment:
        raise ForeignSession(
            f"process {name!r} is locked by session {lock.plan.session} of {holder}, "
            f"begun {lock.plan.created_at:%Y-%m-%d %H:%M:%S} UTC; this deployment is {process.owner.deployment!r}",
            expected="one deployment per process: nobody here can tell whether a run over there is alive",
            hint=f"let the other deployment finish, or, if it is gone for good, end its session with {abandon}",
        )
    if not process.run_is_over(holder):
        if lock.approval is not None and lock.approval.is_pending:
            if process.replace_pending:
                return lock
            raise ApprovalPending(
                f"process {name!r} is locked by session {lock.plan.session} of {holder}, which {lock.approval}",
                expected="one open session per process",
                hint="answer that question; the next run takes the changes that came since. To plan them together with the ones "
                "that wait, and ask anew, set when_pending='replace'",
            )
        hint = "wait for that run, or choose when_busy='wait' or 'skip'"
        if not holder.run_id:
            hint = (
                f"if nobody works on it any more, go on with it by airflow_incremental.sessions.steps.resume(process, "
                f"{lock.plan.session!r}, again=True), or end it by {abandon}"
            )
        raise SessionBusy(
            f"process {name!r} is locked by session {lock.plan.session} of {holder}, begun "
            f"{lock.plan.created_at:%Y-%m-%d %H:%M:%S} UTC, and "
            + ("that run is not over" if holder.run_id else "nobody can tell whether that is over"),
            expected="one open session per process",
            hint=hint,
        )
    return lock


def _target(process: Process) -> Table:
    """Load the target with a first snapshot, creating it if it was asked for."""
    spec = process.spec
    found = find_target(process.catalog, spec.target)
    if found is None:
        found = _create(process)
    if "main" not in found.metadata.refs:
        found = bootstrap(process.catalog, spec.target.table)
    return found


def _create(process: Process) -> Table:
    """Create the target from what the transform returns, or say with which statement somebody can."""
    spec = process.spec
    schema = columns_of_new(process, draft_everything(process))
    if not spec.target.create:
        raise no_target(process, schema)
    created = create_target(process.catalog, spec.target, schema)
    log.info("created the target %s", spec.target.table)
    return created
