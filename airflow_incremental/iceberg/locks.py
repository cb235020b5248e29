"""The process's lock: a branch that exists exactly while a session is open, pointing at an empty begin record with the plan.

Taking, taking over, renewing and giving up the lock are compare-and-set commits on that branch. Every later commit of the session
asserts that the branch still points at its own begin record; that fence stops a process that slept through its own succession.
A later try of the same run renews the lock: it gets a begin record of its own, with the same plan, so that an earlier try, which
may be asleep with an older transform in hand, holds it no more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress

import attrs
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertRefSnapshotId,
    RemoveSnapshotRefUpdate,
    RemoveSnapshotsUpdate,
    SetSnapshotRefUpdate,
    TableRequirement,
    TableUpdate,
)

from airflow_incremental.core.approval import Approval
from airflow_incremental.core.errors import (
    IncrementalError,
    SessionBusy,
    SessionSuperseded,
    TableError,
    TargetChanged,
    TargetReplaced,
    WatermarkLost,
)
from airflow_incremental.core.plan import Owner, Plan
from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.build import Built, build_snapshot, snapshot_index
from airflow_incremental.iceberg.commits import Change, commit, discard, load_table
from airflow_incremental.iceberg.history import main_lineage
from airflow_incremental.iceberg.refs import removal, session_refs, stray_refs
from airflow_incremental.iceberg.sharing import check_scopes
from airflow_incremental.iceberg.state import publish_of_session, published, words_of

BOOTSTRAP = "bootstrap"
#: Sealed snapshots of failed sessions that are kept for inspection, per process.
KEEP_FAILED = 3


@attrs.frozen(kw_only=True)
class Begin:
    """An open session as the table knows it: the plan, and the id of the begin record that fences it."""

    snapshot_id: int
    plan: Plan
    #: What it says about a person's approval, if one was asked for.
    approval: Approval | None = None


def read_lock(table: Table, process: str) -> Begin | None:
    """Return the open session of a process, or None.

    :raises IncrementalError: its plan was stored by a version of this package that cannot be read.
    """
    snapshot = _lock_record(table, process)
    if snapshot is None:
        return None
    words = words_of(snapshot)
    approval = words.get(naming.APPROVAL)
    return Begin(
        snapshot_id=snapshot.snapshot_id,
        plan=Plan.decode(words[naming.PLAN]),
        approval=None if approval is None else Approval.from_json(json.loads(approval)),
    )


def open_plans(table: Table) -> Iterator[Plan]:
    """Yield the plans of all open sessions of a target, whatever their process; one that cannot be read is left out."""
    index = snapshot_index(table)
    for ref in table.metadata.refs.values():
        snapshot = index.get(ref.snapshot_id)
        words = {} if snapshot is None else words_of(snapshot)
        if words.get(naming.RECORD) == naming.BEGIN:
            with suppress(IncrementalError):
                yield Plan.decode(words[naming.PLAN])


def session_of_lock(table: Table, process: str) -> str | None:
    """Return the id of the open session of a process, or None; its plan is not read."""
    snapshot = _lock_record(table, process)
    return None if snapshot is None else words_of(snapshot)[naming.SESSION]


def _lock_record(table: Table, process: str) -> Snapshot | None:
    """Return the begin record the lock of a process points at; None if no session is open."""
    ref = table.metadata.refs.get(naming.lock_ref(process))
    if ref is None:
        return None
    snapshot = snapshot_index(table)[ref.snapshot_id]
    if words_of(snapshot).get(naming.RECORD) != naming.BEGIN:
        raise TableError(
            f"branch {naming.lock_ref(process)!r} of the target does not point at a begin record of process {process!r}",
            expected="that only sessions of the process move this branch",
            hint="somebody wrote to or created the branch by hand; drop it, then retry",
        )
    return snapshot


def bootstrap(catalog: Catalog, target: str) -> Table:
    """Give an empty target its first, empty snapshot on ``main``: Iceberg knows no branch of a table without one."""

    def build(table: Table) -> Change | None:
        if table.metadata.refs.get(MAIN_BRANCH) is not None:
            return None
        transaction = table.transaction()
        updates, requirements = (
            transaction.update_snapshot(snapshot_properties={naming.RECORD: BOOTSTRAP}).fast_append()._commit()  # noqa: SLF001
        )
        return Change(updates=updates, requirements=requirements)

    return commit(catalog, target, build, what="the first snapshot")


def take_lock(catalog: Catalog, spec: ProcessSpec, plan: Plan, *, over: Begin | None, scratch: bool = False) -> Begin:
    """Open a session: put the begin record with the plan on the lock branch.

    :param over: the session that is taken over, whose run is known to be over; its refs and snapshots go in the same commit.
    :param scratch: also fork the scratch branch from ``main``, for writes of the author's own.
    :raises SessionBusy: another session got there first.
    :raises TargetChanged: the watermark the plan starts from is not the current one any more.
    """
    lock = naming.lock_ref(plan.process)
    made: set[int] = set()

    def build(table: Table) -> Change | None:
        now = read_lock(table, plan.process)
        if now is not None and now.plan.session == plan.session:
            # Known by its id: a later try may have renewed the lock before this one learnt that it had it.
            return None
        if (now.snapshot_id if now else None) != (over.snapshot_id if over else None):
            raise SessionBusy(
                f"process {plan.process!r} was locked in the meantime by {now.plan.owner if now else 'nobody (it was released)'}",
                hint="retry the task",
            )
        check_base(table, plan)
        check_scopes(table, spec, replaces=bool(plan.replaced))
        built = _begin_record(table, plan, parent=table.metadata.refs[MAIN_BRANCH].snapshot_id)
        made.add(built.snapshot.snapshot_id)
        updates: list[TableUpdate] = [RemoveSnapshotRefUpdate(ref_name=r) for r in stray_refs(table, plan.process)]
        if over is not None:
            # The lock ref itself is moved, not removed: everything else of the old session goes.
            old = [r for r in session_refs(table, plan.process, over.plan.session) if r != lock]
            updates += removal(table, old, fork=over.plan.main)
        updates += [
            AddSnapshotUpdate(snapshot=built.snapshot),
            SetSnapshotRefUpdate(ref_name=lock, type=SnapshotRefType.BRANCH, snapshot_id=built.snapshot.snapshot_id),
        ]
        if over is not None:
            updates.append(RemoveSnapshotsUpdate(snapshot_ids=[over.snapshot_id]))
        requirements: list[TableRequirement] = [
            AssertRefSnapshotId(ref=lock, snapshot_id=over.snapshot_id if over else None)
        ]
        if scratch:
            name = naming.scratch_ref(plan.process, plan.session)
            updates.append(SetSnapshotRefUpdate(ref_name=name, type=SnapshotRefType.BRANCH, snapshot_id=plan.main))
            requirements.append(AssertRefSnapshotId(ref=name, snapshot_id=None))
        return Change(updates=tuple(updates), requirements=tuple(requirements), written=built.written)

    table = commit(catalog, plan.target, build, what=f"the lock of session {plan.session}")
    begin = read_lock(table, plan.process)
    if begin is None or begin.snapshot_id not in made:
        raise superseded(plan, table)
    return begin


def renew_lock(catalog: Catalog, begin: Begin, owner: Owner, *, approval: Approval | None = None) -> Begin | None:
    """Take the lock of an open session again for a later try of its run: a begin record of its own, with the same plan.

    :param owner: who works on the session from now on; its clear number may be a later one.
    :param approval: what the record says about a person's approval from now on. By default a decision is kept, because it is about
        certain rows and stays true; a question is not, because whoever works on the session now waits for nobody.
    :returns: None if the session is not open any more: it was published, taken over or ended since it was looked at.
    :raises SessionSuperseded: yet another try renewed it first.
    """
    plan = attrs.evolve(begin.plan, owner=owner)
    if approval is None and begin.approval is not None and not begin.approval.is_pending:
        approval = begin.approval
    lock = naming.lock_ref(plan.process)
    made: set[int] = set()
    old: tuple[str, ...] = ()

    def build(table: Table) -> Change | None:
        nonlocal old
        now = read_lock(table, plan.process)
        if now is None or now.plan.session != plan.session or now.snapshot_id in made:
            return None
        check_owned(table, begin)
        index = snapshot_index(table)
        old = (index[begin.snapshot_id].manifest_list,)
        # It stands where the old one stands, so that what is removed with the session stays the same.
        parent = plan.main if plan.main in index else table.metadata.refs[MAIN_BRANCH].snapshot_id
        built = _begin_record(table, plan, parent=parent, approval=approval)
        made.add(built.snapshot.snapshot_id)
        return Change(
            updates=(
                AddSnapshotUpdate(snapshot=built.snapshot),
                SetSnapshotRefUpdate(
                    ref_name=lock, type=SnapshotRefType.BRANCH, snapshot_id=built.snapshot.snapshot_id
                ),
                RemoveSnapshotsUpdate(snapshot_ids=[begin.snapshot_id]),
            ),
            requirements=(AssertRefSnapshotId(ref=lock, snapshot_id=begin.snapshot_id),),
            written=built.written,
        )

    table = commit(catalog, plan.target, build, what=f"the renewed lock of session {plan.session}")
    renewed = read_lock(table, plan.process)
    if renewed is None or renewed.snapshot_id not in made:
        return None
    discard(table.io, old)
    return renewed


def _begin_record(table: Table, plan: Plan, *, parent: int, approval: Approval | None = None) -> Built:
    about = {} if approval is None else {naming.APPROVAL: json.dumps(approval.to_json(), separators=(",", ":"))}
    return build_snapshot(
        table,
        parent=snapshot_index(table)[parent],
        summary={
            naming.RECORD: naming.BEGIN,
            naming.PROCESS: plan.process,
            naming.SESSION: plan.session,
            naming.OWNER: json.dumps(plan.owner.to_json()),
            naming.PLAN: plan.encode(),
            **about,
        },
        empty=True,
    )


def check_owned(table: Table, begin: Begin) -> None:
    """Raise SessionSuperseded unless the lock still points at this session's begin record."""
    check_same_table(table, begin.plan)
    ref = table.metadata.refs.get(naming.lock_ref(begin.plan.process))
    if ref is None or ref.snapshot_id != begin.snapshot_id:
        raise superseded(begin.plan, table)


def check_same_table(table: Table, plan: Plan) -> None:
    """Raise TargetReplaced if another table has the target's name now."""
    if str(table.metadata.table_uuid) != plan.target_uuid:
        raise TargetReplaced(
            f"the target {plan.target} is another table (uuid {table.metadata.table_uuid}) than the one session {plan.session} was "
            f"planned for (uuid {plan.target_uuid}): it was dropped and created anew",
            expected="the table to stay while a session works on it",
            hint="if that was meant, retry the task: it plans anew, and the new table is loaded from the start. If not, drop the "
            "new table and register the last metadata file of the old one, which has its rows and watermark",
        )


def superseded(plan: Plan, table: Table) -> SessionSuperseded:
    """Say that a session lost its lock, and to whom."""
    now = read_lock(table, plan.process)
    hint = (
        "nothing of this session was lost or is left half done; clear the task to plan anew if its run is still wanted"
    )
    if publish_of_session(table, plan.process, plan.session) is not None:
        by = "and published by another try of its own run"
        hint = "nothing is left to do: that try has done it all"
    elif now is None:
        by = "and released"
    elif now.plan.session == plan.session:
        by = "by a later try of its own run"
        hint = "leave it to that try, which goes on with the session"
    else:
        by = f"by session {now.plan.session} of {now.plan.owner}"
    return SessionSuperseded(
        f"session {plan.session} of process {plan.process!r} was taken over {by}",
        expected="to still hold the lock",
        hint=hint,
    )


def check_base(table: Table, plan: Plan) -> None:
    """Raise TargetChanged unless the watermark the plan starts from is still the process's last publish."""
    check_same_table(table, plan)
    try:
        last = published(table, plan.process)
    except WatermarkLost:
        if plan.kind != "reload":
            # Where expiry had cut the history, earlier metadata told of it, and a session in many chunks pushes that out of the
            # table's log. What stood on the history of the plan's head stands on that of main as long as main descends from it.
            if plan.main in {snapshot.snapshot_id for snapshot in main_lineage(table)}:
                return
            raise
        last = None  # what the reload is for
    if (last.session if last else None) != plan.base_session:
        raise TargetChanged(
            f"the watermark of process {plan.process!r} moved from session {plan.base_session} to "
            f"{last.session if last else None} since session {plan.session} was planned",
            expected="the watermark the plan starts from",
            hint="retry the task; it plans anew",
        )


def end_session(catalog: Catalog, begin: Begin, *, keep: bool, reason: str) -> bool:
    """Give the lock up without publishing, in one commit: refs and snapshots of the session go.

    :param keep: keep the sealed snapshot on a ``inc_failed_`` branch for inspection (the last few of a process).
    :param reason: why, for whoever looks at the kept branch's commit in the log.
    :returns: whether this call ended it; False if it was published or taken over before.
    """
    plan = begin.plan
    held = _Held(snapshot_id=begin.snapshot_id, process=plan.process, session=plan.session, fork=plan.main)
    return _end(catalog, plan.target, held, keep=keep, reason=reason)


def abandon_session(catalog: Catalog, target: str, process: str, *, reason: str) -> tuple[str, Owner] | None:
    """End the open session of a process, whoever holds it, and return its id and who held it; None if none is open.

    Its plan is not read, so one that another version of this package stored is no obstacle.
    """
    record = _lock_record(load_table(catalog, target, role="target"), process)
    if record is None:
        return None
    words = words_of(record)
    session = words[naming.SESSION]
    held = _Held(snapshot_id=record.snapshot_id, process=process, session=session, fork=record.parent_snapshot_id)
    if not _end(catalog, target, held, keep=True, reason=reason):
        return None
    return session, Owner.from_json(json.loads(words[naming.OWNER]))


@attrs.frozen(kw_only=True)
class _Held:
    """What has to be known of an open session to end it."""

    #: Of its begin record.
    snapshot_id: int
    process: str
    session: str
    #: Head of ``main`` its branches grew from.
    fork: int | None


def _end(catalog: Catalog, target: str, held: _Held, *, keep: bool, reason: str) -> bool:
    lock = naming.lock_ref(held.process)
    ended = False

    def build(table: Table) -> Change | None:
        nonlocal ended
        ref = table.metadata.refs.get(lock)
        if ref is None or ref.snapshot_id != held.snapshot_id:
            return None
        ended = True
        data = table.metadata.refs.get(naming.data_ref(held.process, held.session))
        updates: list[TableUpdate] = []
        if keep and data is not None:
            kept = naming.failed_ref(held.session)
            updates.append(
                SetSnapshotRefUpdate(ref_name=kept, type=SnapshotRefType.BRANCH, snapshot_id=data.snapshot_id)
            )
            for name in failed_refs(table, held.process)[: -(KEEP_FAILED - 1) or None]:
                updates += removal(table, [name])
        updates += removal(
            table,
            session_refs(table, held.process, held.session),
            keep=data.snapshot_id if keep and data is not None else None,
            fork=held.fork,
        )
        return Change(
            updates=tuple(updates), requirements=(AssertRefSnapshotId(ref=lock, snapshot_id=held.snapshot_id),)
        )

    commit(catalog, target, build, what=f"the end of session {held.session} ({reason})")
    return ended


def failed_refs(table: Table, process: str) -> list[str]:
    """Return the kept branches of failed sessions of a process, oldest first."""
    index = snapshot_index(table)
    found = []
    for name, ref in table.metadata.refs.items():
        snapshot = index.get(ref.snapshot_id)
        summary = snapshot.summary if snapshot is not None else None
        if name.startswith(naming.FAILED_PREFIX) and summary is not None and summary.get(naming.PROCESS) == process:
            found.append(name)
    return sorted(found)
