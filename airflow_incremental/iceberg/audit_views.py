"""The branch on which Spark audits a sealed session: snapshots that show a part of the sealed one, and the application's answers.

To an engine that reads whole snapshots, the rows a session wrote are a snapshot that lists the session's files and no others; the
partitions it touched are one that lists theirs, with the row-level deletes there are. Both are metadata only. The branch is of one
attempt, like those that applications write to, and goes with the session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import ManifestContent, ManifestEntry, ManifestEntryStatus, ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertRefSnapshotId,
    SetSnapshotRefUpdate,
    TableRequirement,
    TableUpdate,
)

from airflow_incremental.core.audit import Over
from airflow_incremental.core.errors import TargetChanged
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.build import build_snapshot, snapshot_index
from airflow_incremental.iceberg.commits import Change, commit
from airflow_incremental.iceberg.locks import Begin, check_owned
from airflow_incremental.iceberg.manifests import ManifestReader
from airflow_incremental.iceberg.refs import removal
from airflow_incremental.iceberg.seal import Sealed
from airflow_incremental.iceberg.touched import partition_of, touched_partitions


@attrs.frozen(kw_only=True)
class AuditViews:
    """What an application is to look at, and where it leaves its answers.

    :param branch: the branch of this attempt.
    :param head: the snapshot it points at until the application is done.
    :param snapshots: for each scope, the snapshot whose rows are those of the scope.
    """

    branch: str
    head: int
    snapshots: Mapping[Over, int]


def make_views(catalog: Catalog, begin: Begin, sealed: Sealed, scopes: Sequence[Over]) -> AuditViews:
    """Make the branch of a new attempt with the snapshots for the scopes, and drop the branches of earlier attempts.

    :raises SessionSuperseded: the session does not hold the lock any more.
    :raises TargetChanged: the sealed snapshot is gone.
    """
    snapshots: dict[Over, int] = {"table": sealed.snapshot_id} if "table" in scopes else {}
    branch, head = "", 0
    # A branch has to begin with a snapshot of its own: what it grew from is not its to remove.
    for scope in [s for s in ("rows", "partitions") if s in scopes] or ["rows"]:
        branch, head = _add(catalog, begin, sealed, scope, branch=branch, head=head, empty=scope not in scopes)
        if scope in scopes:
            snapshots[scope] = head
    return AuditViews(branch=branch, head=head, snapshots=snapshots)


def _add(
    catalog: Catalog, begin: Begin, sealed: Sealed, scope: Over, *, branch: str, head: int, empty: bool
) -> tuple[str, int]:
    """Add a snapshot to the branch, a new one if it has no name yet, and return the branch and its head."""
    plan = begin.plan
    made: tuple[str, int] | None = None

    def build(table: Table) -> Change | None:
        nonlocal made
        check_owned(table, begin)
        refs, index = table.metadata.refs, snapshot_index(table)
        if made is not None and made[0] in refs and refs[made[0]].snapshot_id == made[1]:
            return None
        if sealed.snapshot_id not in index:
            raise TargetChanged(
                f"the sealed snapshot {sealed.snapshot_id} of {plan.target} is gone",
                expected="the session's branches to stay until it has ended",
                hint="retry the task; it plans anew",
            )
        found = {name: at for name in refs if (at := naming.audit_of_ref(name, plan.process, plan.session))}
        old = [] if branch else list(found)
        name = branch or naming.audit_ref(plan.process, plan.session, max(found.values(), default=0) + 1)
        entries, carried = ([], []) if empty else _SHOWN[scope](table, index[sealed.snapshot_id], sealed)
        built = build_snapshot(
            table,
            parent=index[head] if branch else index.get(plan.main, index[refs[MAIN_BRANCH].snapshot_id]),
            summary={naming.PROCESS: plan.process, naming.SESSION: plan.session},
            empty=True,
            shown=entries,
            carried=carried,
        )
        made = (name, built.snapshot.snapshot_id)
        updates: list[TableUpdate] = [
            *removal(table, old, fork=plan.main),
            AddSnapshotUpdate(snapshot=built.snapshot),
            SetSnapshotRefUpdate(ref_name=name, type=SnapshotRefType.BRANCH, snapshot_id=built.snapshot.snapshot_id),
        ]
        requirements: list[TableRequirement] = [
            AssertRefSnapshotId(ref=naming.lock_ref(plan.process), snapshot_id=begin.snapshot_id),
            AssertRefSnapshotId(ref=name, snapshot_id=head if branch else None),
            # An application that commits right now makes this commit look again, so that what it wrote goes as well.
            *(AssertRefSnapshotId(ref=r, snapshot_id=refs[r].snapshot_id) for r in old),
        ]
        return Change(updates=tuple(updates), requirements=tuple(requirements), written=built.written)

    commit(catalog, plan.target, build, what=f"what audits of session {plan.session} look at")
    if made is None:
        raise TargetChanged(f"nothing was made for audits of session {plan.session}", hint="retry the task")
    return made


def _rows(table: Table, snapshot: Snapshot, sealed: Sealed) -> tuple[list[ManifestEntry], list[ManifestFile]]:
    """Return the entries of the files that the session wrote, which have no row-level deletes."""
    paths = {f.file_path for f in sealed.output.files}
    return _live(table, snapshot, lambda entry: entry.data_file.file_path in paths)[0], []


def _partitions(table: Table, snapshot: Snapshot, sealed: Sealed) -> tuple[list[ManifestEntry], list[ManifestFile]]:
    """Return the entries of all files in the partitions that the session touched, and the manifests of row-level deletes."""
    del sealed
    touched = touched_partitions(table, snapshot)
    return _live(table, snapshot, lambda entry: partition_of(entry.data_file) in touched)


def _live(
    table: Table, snapshot: Snapshot, keep: Callable[[ManifestEntry], bool]
) -> tuple[list[ManifestEntry], list[ManifestFile]]:
    manifests = snapshot.manifests(table.io)
    data = [m for m in manifests if m.content == ManifestContent.DATA]
    entries = ManifestReader(table.io).entries(data, lambda e: e.status != ManifestEntryStatus.DELETED and keep(e))
    return list(entries), [m for m in manifests if m.content == ManifestContent.DELETES]


_SHOWN: Mapping[Over, Callable[[Table, Snapshot, Sealed], tuple[list[ManifestEntry], list[ManifestFile]]]] = {
    "rows": _rows,
    "partitions": _partitions,
}
