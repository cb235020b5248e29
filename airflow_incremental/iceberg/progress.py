"""Finished steps of a session that is computed in steps, kept on its scratch branch: a retry goes on after them.

The branch points at one snapshot that lists the files of the steps done so far, and nothing else. It is replaced as more steps are
done, and goes with the session.
"""

from __future__ import annotations

import datetime as dt
import uuid

import attrs
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertRefSnapshotId,
    RemoveSnapshotsUpdate,
    SetSnapshotRefUpdate,
    TableUpdate,
)

from airflow_incremental.core.plan import Plan
from airflow_incremental.core.ranges import format_time, parse_time
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.build import build_snapshot, snapshot_index
from airflow_incremental.iceberg.commits import Change, commit
from airflow_incremental.iceberg.locks import Begin, check_owned
from airflow_incremental.iceberg.state import words_of


@attrs.frozen(kw_only=True)
class Progress:
    """The steps of a session that are done."""

    #: End of the last of them, exclusive.
    through: dt.datetime
    files: tuple[DataFile, ...] = attrs.field(repr=False)
    write_id: uuid.UUID
    #: Of the transform that computed them.
    fingerprint: str


def find_progress(table: Table, plan: Plan, fingerprint: str) -> Progress | None:
    """Return what an earlier try got done with the same transform and under the same schema and partition spec, if anything."""
    ref = table.metadata.refs.get(naming.scratch_ref(plan.process, plan.session))
    if ref is None:
        return None
    snapshot = snapshot_index(table)[ref.snapshot_id]
    words = words_of(snapshot)
    files = tuple(
        entry.data_file
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
    )
    current = (table.metadata.current_schema_id, {table.metadata.default_spec_id})
    found = (snapshot.schema_id, {f.spec_id for f in files} or {table.metadata.default_spec_id})
    if words.get(naming.RECORD) != naming.STEPS or words[naming.FINGERPRINT] != fingerprint or found != current:
        return None
    return Progress(
        through=parse_time(words[naming.THROUGH]),
        files=files,
        write_id=uuid.UUID(words[naming.WRITE_ID]),
        fingerprint=fingerprint,
    )


def save_progress(catalog: Catalog, begin: Begin, progress: Progress) -> None:
    """Keep what is done so far, in one commit.

    :raises SessionSuperseded: the session does not hold the lock any more.
    """
    plan = begin.plan
    scratch = naming.scratch_ref(plan.process, plan.session)
    made: set[int] = set()

    def build(table: Table) -> Change | None:
        check_owned(table, begin)
        ref = table.metadata.refs.get(scratch)
        if ref is not None and ref.snapshot_id in made:
            return None
        built = build_snapshot(
            table,
            parent=snapshot_index(table)[table.metadata.refs[MAIN_BRANCH].snapshot_id],
            added=progress.files,
            summary={
                naming.RECORD: naming.STEPS,
                naming.PROCESS: plan.process,
                naming.SESSION: plan.session,
                naming.THROUGH: format_time(progress.through),
                naming.WRITE_ID: str(progress.write_id),
                naming.FINGERPRINT: progress.fingerprint,
            },
            empty=True,
        )
        made.add(built.snapshot.snapshot_id)
        updates: list[TableUpdate] = [
            AddSnapshotUpdate(snapshot=built.snapshot),
            SetSnapshotRefUpdate(ref_name=scratch, type=SnapshotRefType.BRANCH, snapshot_id=built.snapshot.snapshot_id),
        ]
        if ref is not None:
            updates.append(RemoveSnapshotsUpdate(snapshot_ids=[ref.snapshot_id]))
        return Change(
            updates=tuple(updates),
            requirements=(
                AssertRefSnapshotId(ref=naming.lock_ref(plan.process), snapshot_id=begin.snapshot_id),
                AssertRefSnapshotId(ref=scratch, snapshot_id=None if ref is None else ref.snapshot_id),
            ),
            written=built.written,
        )

    commit(catalog, plan.target, build, what=f"the finished steps of session {plan.session}")
