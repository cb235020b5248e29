"""Publish: the one commit that makes a session's sealed snapshot ``main`` and moves its watermark.

In the same compare-and-set: ``main`` to the sealed snapshot, the state property and the tag, and away with the session's branches
and their snapshots, so that history grows by one snapshot per session. Asserted: table uuid, ``main``, the data branch, the lock
(the fence), schema and spec.
"""

from __future__ import annotations

import uuid

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertCurrentSchemaId,
    AssertDefaultSpecId,
    AssertRefSnapshotId,
    SetPropertiesUpdate,
    SetSnapshotRefUpdate,
    TableUpdate,
)

from airflow_incremental.core.approval import Decision
from airflow_incremental.core.errors import SessionBusy
from airflow_incremental.core.plan import Plan
from airflow_incremental.core.spec import ProcessSpec
from airflow_incremental.core.watermark import Published
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.build import build_snapshot, snapshot_index
from airflow_incremental.iceberg.commits import Change, commit, discard
from airflow_incremental.iceberg.history import main_lineage
from airflow_incremental.iceberg.locks import Begin, check_base, check_owned
from airflow_incremental.iceberg.refs import removal, session_refs
from airflow_incremental.iceberg.seal import Output, Sealed, check_shape, summary_of
from airflow_incremental.iceberg.sharing import check_scopes
from airflow_incremental.iceberg.state import is_publish_of, published_by, state_value


class SealOutdated(Exception):
    """The sealed snapshot cannot be published as it is and has to be sealed again: ``main`` moved, or the run was cleared since."""


def find_published(table: Table, plan: Plan) -> Published | None:
    """Return the publish of this very session if it is on ``main``."""
    for snapshot in main_lineage(table):
        if is_publish_of(snapshot, plan.process):
            found = published_by(snapshot)
            if found.session == plan.session:
                return found
            if found.session == plan.base_session:
                return None
    return None


def publish(
    catalog: Catalog, begin: Begin, sealed: Sealed, *, verdict: str, decision: Decision | None = None
) -> Published:
    """Make the sealed snapshot ``main``, once.

    :param verdict: what the audits said, kept in the state property.
    :param decision: of the person who was asked, kept next to the verdict.
    :raises SealOutdated: seal again, then publish.
    :raises SessionSuperseded: the session lost its lock.
    """
    plan = begin.plan
    data, lock = naming.data_ref(plan.process, plan.session), naming.lock_ref(plan.process)
    leftovers: tuple[str, ...] = ()

    def build(table: Table) -> Change | None:
        nonlocal leftovers
        if find_published(table, plan) is not None:
            return None
        check_owned(table, begin)
        check_base(table, plan)
        check_shape(table, sealed.output, plan)
        main = table.metadata.refs[MAIN_BRANCH].snapshot_id
        ref = table.metadata.refs.get(data)
        if main != sealed.parent or ref is None or ref.snapshot_id != sealed.snapshot_id:
            raise SealOutdated
        if sealed.owner != plan.owner:
            # Published under the number of an earlier clear, the next retry would take it for work of before this one.
            raise SealOutdated
        index = snapshot_index(table)
        found = published_by(index[sealed.snapshot_id])
        leftovers = (index[begin.snapshot_id].manifest_list,)
        refs = session_refs(table, plan.process, plan.session)
        updates: tuple[TableUpdate, ...] = (
            SetSnapshotRefUpdate(ref_name=MAIN_BRANCH, type=SnapshotRefType.BRANCH, snapshot_id=sealed.snapshot_id),
            *removal(table, refs, keep=sealed.snapshot_id, fork=plan.main),
            *_state_updates(table, plan, found, verdict, decision),
        )
        return Change(
            updates=updates,
            requirements=(
                AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=main),
                AssertRefSnapshotId(ref=data, snapshot_id=sealed.snapshot_id),
                AssertRefSnapshotId(ref=lock, snapshot_id=begin.snapshot_id),
                AssertCurrentSchemaId(current_schema_id=table.metadata.current_schema_id),
                AssertDefaultSpecId(default_spec_id=table.metadata.default_spec_id),
            ),
        )

    table = commit(catalog, plan.target, build, what=f"the publish of session {plan.session}")
    found = find_published(table, plan)
    if found is None:
        # Published, and rolled back or expired by somebody before this look: the snapshot's own words are still the answer.
        found = Published(session=plan.session, snapshot_id=sealed.snapshot_id, watermark=plan.watermark)
    discard(table.io, leftovers)
    return found


def publish_positions(catalog: Catalog, spec: ProcessSpec, plan: Plan) -> Published:
    """Publish a watermark that moved without any row: one empty snapshot on ``main``, no lock needed.

    :raises SessionBusy: a session is open; it publishes positions of its own.
    """
    output = Output(files=(), write_id=uuid.uuid4(), fingerprint="", schema_id=-1, spec_id=-1)

    def build(table: Table) -> Change | None:
        if find_published(table, plan) is not None:
            return None
        if naming.lock_ref(plan.process) in table.metadata.refs:
            raise SessionBusy(f"process {plan.process!r} has an open session", hint="retry the task")
        check_base(table, plan)
        check_scopes(table, spec)
        main = table.metadata.refs[MAIN_BRANCH].snapshot_id
        built = build_snapshot(table, parent=snapshot_index(table)[main], summary=summary_of(plan, output))
        found = published_by(built.snapshot)
        return Change(
            updates=(
                AddSnapshotUpdate(snapshot=built.snapshot),
                SetSnapshotRefUpdate(
                    ref_name=MAIN_BRANCH, type=SnapshotRefType.BRANCH, snapshot_id=built.snapshot.snapshot_id
                ),
                *_state_updates(table, plan, found, "none"),
            ),
            requirements=(
                AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=main),
                AssertRefSnapshotId(ref=naming.lock_ref(plan.process), snapshot_id=None),
            ),
            written=built.written,
        )

    table = commit(catalog, plan.target, build, what=f"the watermark of process {plan.process!r}")
    found = find_published(table, plan)
    if found is None:
        msg = f"the watermark of process {plan.process!r} was moved again by somebody else"
        raise SessionBusy(msg, hint="retry the task")
    return found


def _state_updates(
    table: Table, plan: Plan, found: Published, verdict: str, decision: Decision | None = None
) -> tuple[TableUpdate, ...]:
    value = state_value(table, found, mode=plan.mode, may_replace=plan.may_replace, verdict=verdict, decision=decision)
    return (
        SetSnapshotRefUpdate(
            ref_name=naming.watermark_tag(plan.process), type=SnapshotRefType.TAG, snapshot_id=found.snapshot_id
        ),
        SetPropertiesUpdate(updates={naming.state_property(plan.process): value}),
    )
