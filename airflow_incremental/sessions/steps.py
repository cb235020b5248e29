"""The steps of a session after its plan: load (and seal), audit, publish. Each can be repeated, and finds its own earlier work."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from airflow_incremental.core.audit import AuditReport
from airflow_incremental.core.chunks import CUT_MODES
from airflow_incremental.core.errors import ArgumentError, PlanExpired, SessionSuperseded, TargetChanged
from airflow_incremental.core.spark_job import SparkRunner
from airflow_incremental.iceberg.commits import load_table
from airflow_incremental.iceberg.locks import (
    abandon_session,
    check_owned,
    end_session,
    read_lock,
    renew_lock,
    superseded,
)
from airflow_incremental.iceberg.publish import SealOutdated, find_published
from airflow_incremental.iceberg.publish import publish as commit_publish
from airflow_incremental.iceberg.seal import Sealed, find_sealed, quarantined_by
from airflow_incremental.iceberg.seal import seal as commit_seal
from airflow_incremental.sessions.approving import check_approved
from airflow_incremental.sessions.auditing import answers, audit, audit_again
from airflow_incremental.sessions.closed import closed
from airflow_incremental.sessions.keys import changed_keys
from airflow_incremental.sessions.output import produce, produce_chunk
from airflow_incremental.sessions.pinning import pin_sources
from airflow_incremental.sessions.planner import ended_as_declared_anew
from airflow_incremental.sessions.planner import plan as open_session
from airflow_incremental.sessions.process import Finished, Process, Session
from airflow_incremental.sessions.quarantine import check_staged, settle, settle_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyiceberg.catalog import Catalog

    from airflow_incremental.core.approval import Decision
    from airflow_incremental.core.plan import Plan
    from airflow_incremental.core.watermark import Published

log = logging.getLogger(__name__)

#: How often a session is sealed again because ``main`` moved between its seal and its publish, before it gives way.
_ROUNDS = 8


def resume(process: Process, session_id: str, *, again: bool) -> Session | Finished:
    """Find a session by its id: open, or published already.

    :param again: an earlier try of this step may be alive, asleep or cut off. The lock is renewed, one commit, and from then on the
        earlier try changes nothing. False where the step before hands the session over and nobody else has begun this one.
    :raises SessionSuperseded: it is neither; another session took over or it was ended. Or yet another try renewed the lock first.
        Or it was planned from another declaration of the load, and was ended for that.
    """
    target = load_table(process.catalog, process.spec.target.table, role="target")
    lock = read_lock(target, process.spec.process)
    if lock is not None and lock.plan.session == session_id:
        if ended_as_declared_anew(process, target, lock):
            raise SessionSuperseded(
                f"session {session_id} of process {process.spec.process!r} was planned from another declaration of the load, so it "
                "was ended",
                expected="the arguments of the load to stay as they were planned with",
                hint="clear the run's plan task to plan anew; else the next run takes the same changes",
            )
        begin = renew_lock(process.catalog, lock, process.owner) if again else lock
        if begin is not None:
            return Session(process=process, begin=begin)
        target = load_table(process.catalog, process.spec.target.table, role="target")
        lock = read_lock(target, process.spec.process)
    finished = closed(target, process.spec.process, session_id, lock)
    settle_process(process, finished.published)
    return finished


def load(session: Session) -> Sealed:
    """Run the transform over what the plan says, write its rows and seal them on top of ``main``.

    A session that is sealed already is not loaded again, unless the transform was changed in the meantime.

    :raises PlanExpired: what the plan pinned is gone; the session was ended.
    :raises TargetChanged: others changed the target under the session; it was ended.
    """
    process, plan = session.process, session.plan
    target = load_table(process.catalog, plan.target, role="target")
    check_owned(target, session.begin)
    sealed = find_sealed(target, plan)
    # Own writes may have been done again since; what is on the scratch branch now decides.
    # Taken before the transform runs, which may change what it holds.
    fingerprint = process.fingerprint
    same = sealed is not None and sealed.output.fingerprint == fingerprint and process.transform is not None
    if sealed is not None and same:
        log.info("session %s is sealed already as snapshot %s", plan.session, sealed.snapshot_id)
        return sealed
    try:
        keys = changed_keys(process, plan, target)
        output = produce(session, target, fingerprint, keys)
        aside = None if sealed is None else sealed.output.quarantined
        if sealed is not None and aside is not None and aside.of == str(output.write_id):
            log.info("session %s is sealed already, without the rows that were put aside", plan.session)
            return sealed
        sealed = commit_seal(process.catalog, process.spec, session.begin, output, keys=keys, progress=log.info)
    except (PlanExpired, TargetChanged) as error:
        _end(session, error.found)
        raise
    log.info("sealed %s rows as snapshot %s; nothing is visible on main yet", f"{output.rows:,}", sealed.snapshot_id)
    return sealed


def load_chunk(session: Session, chunk: int) -> tuple[int, int]:
    """Compute one chunk of a session and keep it for the load, beside workers of other chunks.

    :param chunk: its number, from 0.
    :returns: how many chunks are done, and of how many.
    :raises PlanExpired: what the plan pinned is gone; the session was ended.
    :raises SessionSuperseded: the session is over.
    """
    process, plan = session.process, session.plan
    if process.transform is None or isinstance(process.transform, SparkRunner):
        raise ArgumentError(
            f"a chunk of session {plan.session} was asked for, whose rows this worker does not write",
            expected="SQL or a callable that runs on the worker",
            hint="leave parallel_chunks out",
        )
    if plan.mode not in CUT_MODES:
        log.info("a plan of mode %r is computed in order: all of it when it is sealed", plan.mode)
        return 0, 1
    try:
        return produce_chunk(session, process.transform, chunk)
    except PlanExpired as error:
        _end(session, error.found)
        raise


def publish(session: Session, report: AuditReport, decision: Decision | None = None) -> Finished:
    """Make the audited snapshot ``main`` and move the watermark, in one commit.

    If ``main`` moved since the seal, or the run was cleared, the same rows are sealed again on top of it first. A report of another
    snapshot than the one sealed now, or not by all the audits there are now, is not believed: the audits run again. An approval
    stands for the same rows; what the audits find now has to be what was decided on.

    :param decision: of the person who was asked, if one was.
    :raises NotApproved: a person has to decide, and did not, or on something else.
    """
    process, plan = session.process, session.plan
    for _ in range(_ROUNDS):
        target = load_table(process.catalog, plan.target, role="target")
        done = find_published(target, plan)
        if done is not None:
            settle_process(process, done)
            pin_sources(process, done)
            return _finished(plan, done, report, decision)
        check_owned(target, session.begin)
        sealed = find_sealed(target, plan)
        if sealed is None:
            raise superseded(plan, target)
        if not answers(session, sealed, report):
            report = audit(session, sealed)
            if report.snapshot_id != sealed.snapshot_id:
                continue  # rows were put aside, and the rest was sealed
        check_approved(session, sealed, report, decision)
        try:
            check_staged(session, sealed)
            found = commit_publish(process.catalog, session.begin, sealed, verdict=report.verdict, decision=decision)
        except SealOutdated:
            log.info(
                "main moved, or the run was cleared, since snapshot %s was sealed; sealing the same rows again",
                sealed.snapshot_id,
            )
            again = _reseal(session, sealed)
            # The session's own rows are the very same files.
            report = audit_again(session, again, report)
            continue
        except TargetChanged as error:
            _end(session, error.found)
            raise
        log.info("published session %s as snapshot %s of %s", plan.session, found.snapshot_id, plan.target)
        settle_process(process, found)
        pin_sources(process, found)
        return _finished(plan, found, report, decision)
    raise TargetChanged(
        f"main of {plan.target} moved {_ROUNDS} times while session {plan.session} tried to publish",
        expected="a target that is quiet for a moment",
        hint="retry the task; it goes on with the same rows",
    )


def run(
    process: Process,
    *,
    on_plan: Callable[[Session], None] = lambda _: None,
    on_load: Callable[[Sealed], None] = lambda _: None,
    on_audit: Callable[[AuditReport], None] = lambda _: None,
) -> Finished:
    """Run all steps, going on where an earlier try stopped.

    :param on_plan: called when the session is open, as ``on_load`` and ``on_audit`` are when their steps are done.
    """
    started = time.monotonic()
    opened = open_session(process)
    if isinstance(opened, Finished):
        log.info("%s: %s", opened.outcome.replace("_", " "), opened.reason)
        return opened
    log.info("%s", opened.plan.describe())
    on_plan(opened)
    sealed = load(opened)
    on_load(sealed)
    report = audit(opened, sealed)
    on_audit(report)
    finished = publish(opened, report)
    log.info("session %s took %.1f s", opened.plan.session, time.monotonic() - started)
    return finished


def abandon(catalog: Catalog, target: str, process: str, *, reason: str) -> str | None:
    """End the open session of a process by hand, whoever holds it, and return its id; None if none is open.

    What it wrote is not published, and nothing that was published changes. A task that still works on it notices before it commits.

    :param reason: why, for the log.
    """
    table = load_table(catalog, target, role="target")
    aside = quarantined_by(table, process)
    ended = abandon_session(catalog, target, process, reason=reason)
    if ended is None:
        return None
    session, owner = ended
    if aside is not None:
        settle(catalog, target, process, [aside.table])
    log.warning("abandoned session %s of process %r, held by %s: %s", session, process, owner, reason)
    return session


def _finished(plan: Plan, found: Published, report: AuditReport, decision: Decision | None) -> Finished:
    return Finished(
        outcome="published",
        reason=plan.reason,
        published=found,
        plan=plan,
        verdict=report.verdict,
        decision=decision,
    )


def _reseal(session: Session, sealed: Sealed) -> Sealed:
    process, plan = session.process, session.plan
    try:
        keys = changed_keys(process, plan, load_table(process.catalog, plan.target, role="target"))
        return commit_seal(process.catalog, process.spec, session.begin, sealed.output, keys=keys, progress=log.info)
    except (PlanExpired, TargetChanged) as error:
        _end(session, error.found)
        raise


def _end(session: Session, reason: str) -> None:
    end_session(session.process.catalog, session.begin, keep=False, reason=reason)
    settle_process(session.process)
