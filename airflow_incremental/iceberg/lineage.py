"""The history of a table: which snapshots led to which, and where a consumed position stands in it.

pyiceberg looks snapshots up by scanning the whole list, so that walking a lineage is quadratic; here a walk costs what
it passes.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Iterator

import attrs
from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Operation, Snapshot

from airflow_incremental.core.errors import TableError
from airflow_incremental.core.ranges import EPOCH, format_time
from airflow_incremental.core.watermark import SourcePosition


class SnapshotIndex:
    """Snapshots by id, filled as far as it is asked, newest first: a look-up near the head does not read the whole history."""

    def __init__(self, metadata: TableMetadata) -> None:
        self._rest = reversed(metadata.snapshots)
        self._seen: dict[int, Snapshot] = {}

    def get(self, snapshot_id: int | None) -> Snapshot | None:
        """Return a snapshot, or None if the table does not have it (any more)."""
        if snapshot_id is None:
            return None
        found = self._seen.get(snapshot_id)
        if found is not None:
            return found
        for snapshot in self._rest:
            self._seen[snapshot.snapshot_id] = snapshot
            if snapshot.snapshot_id == snapshot_id:
                return snapshot
        return None

    def ancestry(self, snapshot_id: int | None) -> Iterator[Snapshot]:
        """Yield a snapshot and its ancestors, newest first, as far as they are kept."""
        current = self.get(snapshot_id)
        while current is not None:
            yield current
            current = self.get(current.parent_snapshot_id)


class Reach(enum.Enum):
    """Whether a walk back from a head came to the position it was looking for, and why not."""

    REACHED = "reached"
    #: The position's snapshot exists, but the head does not descend from it any more as far as the history is kept.
    DETACHED = "detached"
    #: The position's snapshot is gone, and the kept history of the head does not tell whether it descended from it.
    EXPIRED = "expired"


@attrs.frozen(kw_only=True)
class Walk:
    """The snapshots after a position up to a head, newest first, and whether the walk got there."""

    reach: Reach
    #: Up to the position if it was reached, else all that are kept.
    snapshots: tuple[Snapshot, ...]


def walk(index: SnapshotIndex, *, after: int, head: int) -> Walk:
    """Walk from ``head`` back to ``after``, both snapshot ids; ``after`` itself is not part of the result.

    Java's expiry keeps the parent id of a snapshot whose parent is gone, so a position can be reached although its
    snapshot is not there any more; pyiceberg's expiry sets the parent to null.
    """
    found: list[Snapshot] = []
    for snapshot in index.ancestry(head):
        if snapshot.snapshot_id == after:
            return Walk(reach=Reach.REACHED, snapshots=tuple(found))
        found.append(snapshot)
        if snapshot.parent_snapshot_id == after:
            return Walk(reach=Reach.REACHED, snapshots=tuple(found))
    return Walk(reach=Reach.EXPIRED if index.get(after) is None else Reach.DETACHED, snapshots=tuple(found))


def operation_of(snapshot: Snapshot) -> Operation:
    """Return a snapshot's operation; one without a summary may have done anything, which is what ``overwrite`` means."""
    return snapshot.summary.operation if snapshot.summary is not None else Operation.OVERWRITE


def starts_anew(root: Snapshot, manifests: list[ManifestFile]) -> bool:
    """Say whether a snapshot without a parent began with nothing, rather than lost its parent to expiry.

    :param manifests: the snapshot's manifest list.
    """
    return root.parent_snapshot_id is None and all(
        m.added_snapshot_id == root.snapshot_id and m.existing_files_count == 0 and m.deleted_files_count == 0
        for m in manifests
    )


def head_of(table: Table, branch: str) -> Snapshot | None:
    """Return the head of a branch, or None for ``main`` of a table that has no snapshot yet.

    :raises TableError: there is no such branch, or the name is a tag.
    """
    name = ".".join(table.name())
    ref = table.metadata.refs.get(branch)
    if ref is None:
        if branch == MAIN_BRANCH:
            return None
        raise TableError(
            f"table {name} has no branch {branch!r}; it has {', '.join(sorted(table.metadata.refs)) or 'none'}",
            expected="a branch of the source",
            hint="correct the branch of the IcebergSource, or create it",
        )
    if ref.snapshot_ref_type.value != "branch":
        raise TableError(
            f"{branch!r} of table {name} is a {ref.snapshot_ref_type.value}", expected="a branch, which can move on"
        )
    return SnapshotIndex(table.metadata).get(ref.snapshot_id)


def committed_at(snapshot: Snapshot) -> dt.datetime:
    """Return when a snapshot was committed."""
    return EPOCH + dt.timedelta(milliseconds=snapshot.timestamp_ms)


def position_of(table: Table, snapshot: Snapshot | None) -> SourcePosition:
    """Return the position of having consumed a snapshot (None: a table without any)."""
    return SourcePosition(
        snapshot_id=None if snapshot is None else snapshot.snapshot_id,
        sequence_number=None if snapshot is None else snapshot.sequence_number or None,
        committed_at=None if snapshot is None else committed_at(snapshot),
        table_uuid=str(table.metadata.table_uuid),
    )


def snapshot_at(table: Table, branch: str, moment: dt.datetime) -> Snapshot | None:
    """Return the last snapshot of a branch committed at or before a time, or None if the branch was empty then.

    :raises TableError: the history of the branch is not kept that far back.
    """
    oldest = head_of(table, branch)
    if oldest is None:
        return None
    for snapshot in SnapshotIndex(table.metadata).ancestry(oldest.snapshot_id):
        oldest = snapshot
        if committed_at(snapshot) <= moment:
            return snapshot
    if starts_anew(oldest, oldest.manifests(table.io)):
        return None
    raise TableError(
        f"the history of branch {branch!r} of table {'.'.join(table.name())} is kept back to {format_time(committed_at(oldest))}, "
        f"which is after {format_time(moment)}",
        expected="a time at or after the oldest snapshot that is kept",
        hint="name a later time or a snapshot id, or start from 'all' or 'current'",
    )
