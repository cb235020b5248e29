"""Change detection: what changed in a source between a consumed position and a head, from metadata.

A ladder of ways, best first: follow the lineage; compare two existing snapshots; take the files that are newer than a position that
is gone (only if the process says so). What no rung can answer is a lost watermark, never a guess.
"""

from __future__ import annotations

from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from airflow_incremental.core.changes import ChangeSet, Rewrite
from airflow_incremental.core.errors import PlanExpired, TableError
from airflow_incremental.core.netting import net
from airflow_incremental.core.ranges import Grain
from airflow_incremental.core.spec import Mode, OnLostWatermark, OnMissingBounds
from airflow_incremental.core.watermark import SourcePosition
from airflow_incremental.iceberg.bounds import EventColumn
from airflow_incremental.iceberg.event_times import TimesReader
from airflow_incremental.iceberg.file_changes import Describer
from airflow_incremental.iceberg.findings import Finding, everything
from airflow_incremental.iceberg.lineage import Reach, SnapshotIndex, operation_of, walk
from airflow_incremental.iceberg.lost import added_since, difference, lost
from airflow_incremental.iceberg.manifests import ManifestReader
from airflow_incremental.iceberg.partitioning import check_readable
from airflow_incremental.iceberg.window import read_window


def detect(
    table: Table,
    base: SourcePosition | None,
    head_snapshot_id: int | None,
    *,
    event_time: str | None,
    mode: Mode,
    on_lost_watermark: OnLostWatermark = "fail",
    on_missing_bounds: OnMissingBounds = "read",
    grain: Grain | None = None,
) -> ChangeSet:
    """Find what changed between a consumed position and a snapshot.

    :param base: position consumed before; None on a first run, where every live file is new.
    :param head_snapshot_id: snapshot to read up to; None for a table without snapshots.
    :param event_time: column whose ranges are wanted; None leaves them unknown.
    :param mode: ``append`` can only take changes that add rows (what changed others is in ``rewrites``, for the planner's policy);
        ``overwrite`` needs the event times of every change.
    :param on_lost_watermark: ``added_only`` allows to go on from a position whose snapshot is gone.
    :param on_missing_bounds: whether the event-time column of files without bounds may be read.
    :param grain: make the ranges of changed files exact to this unit, by reading the column of files whose bounds span several;
        in ``append`` only those of rewriting snapshots. None takes bounds as they are.
    :raises WatermarkLost: the position cannot be tied to the head.
    :raises UnknownRange: a changed file does not tell its event times.
    :raises PlanExpired: the head's snapshot is gone.
    :raises TableError: the table's format version, partitioning or event-time column does not fit.
    """
    metadata = table.metadata
    if metadata.format_version not in (1, 2):
        raise TableError(
            f"the source {'.'.join(table.name())} has format version {metadata.format_version}",
            expected="Iceberg format version 1 or 2",
            hint="row lineage and deletion vectors of version 3 cannot be followed yet",
        )
    check_readable(table, "source")
    if base is not None and base.table_uuid != str(metadata.table_uuid):
        why = f"belongs to a table with uuid {base.table_uuid}, which this one ({metadata.table_uuid}) replaced"
        raise lost(table, base, why)
    reader, index = ManifestReader(table.io), SnapshotIndex(metadata)
    if head_snapshot_id is None:
        return _without_head(table, base)
    head = index.get(head_snapshot_id)
    if head is None:
        raise PlanExpired(
            f"snapshot {head_snapshot_id} of {'.'.join(table.name())} does not exist (any more)",
            expected="the snapshot that was to be read up to",
            hint="retry; the next plan reads up to the current head. Keep snapshots longer than a session can take",
        )
    if base is not None and base.snapshot_id == head.snapshot_id:
        return ChangeSet(derivation="unchanged")
    finding = _find(table, base, head, index, reader, mode=mode, added_only=on_lost_watermark == "added_only")
    describer = _describer(table, event_time, head, on_missing_bounds)
    return _change_set(finding, describer, reader, mode=mode, grain=grain)


def _without_head(table: Table, base: SourcePosition | None) -> ChangeSet:
    if base is None:
        return ChangeSet(derivation="first_run")
    if base.snapshot_id is None:
        return ChangeSet(derivation="unchanged")
    raise lost(table, base, "was consumed, but the branch has no snapshot now: the table was replaced")


def _find(
    table: Table,
    base: SourcePosition | None,
    head: Snapshot,
    index: SnapshotIndex,
    reader: ManifestReader,
    *,
    mode: Mode,
    added_only: bool,
) -> Finding:
    """Climb down the ladder."""
    if base is None or base.snapshot_id is None:
        return everything(reader, head, "first_run" if base is None else "lineage")
    walked = walk(index, after=base.snapshot_id, head=head.snapshot_id)
    if walked.reach is Reach.REACHED:
        window = read_window(reader, walked.snapshots, base_sequence=base.sequence_number or 0)
        return Finding(derivation="lineage", snapshots=walked.snapshots, net=net(window.steps), masks=window.masks)
    before = index.get(base.snapshot_id)
    if before is not None:
        return difference(table, base, before, walked.snapshots, reader, mode=mode)
    return added_since(table, base, walked.snapshots, reader, mode=mode, allowed=added_only)


def _describer(table: Table, event_time: str | None, head: Snapshot, on_missing_bounds: OnMissingBounds) -> Describer:
    if event_time is None:
        return Describer(column=None, times=None, on_missing_bounds=on_missing_bounds)
    schema = table.schemas().get(head.schema_id) if head.schema_id is not None else None
    column = EventColumn.of(table, event_time, schema=schema)
    return Describer(column=column, times=TimesReader.of(table, column), on_missing_bounds=on_missing_bounds)


def _change_set(
    finding: Finding, describer: Describer, reader: ManifestReader, *, mode: Mode, grain: Grain | None
) -> ChangeSet:
    """Give the files of a finding their event times, as far and as exactly as the mode needs them."""
    found = finding.net
    strict = mode != "append"
    exact = grain if strict else None
    # First, because a file is worked out once, and of these the planner may want to know more.
    rewrites = {
        snapshot_id: Rewrite(
            added=describer.describe(item.added.values(), "added", grain=grain, must_know=False),
            removed=describer.describe(item.removed.values(), "removed", grain=grain, must_know=False),
            deletes=describer.describe(item.deletes, "deletes", grain=grain, must_know=False),
            unread=describer.describe(item.unread.values(), "added", must_know=False),
        )
        for snapshot_id, item in found.rewrites.items()
        if not strict
    }
    added = describer.describe(found.added.values(), "added", grain=exact)
    removed = describer.describe(found.removed.values(), "removed", grain=exact, must_know=strict)
    deletes = describer.describe(found.deletes, "deletes", grain=exact, must_know=strict)
    # What the masks hide are rows of added files, not changes: nothing need be known about event times.
    unknown = Describer(column=None, times=None, on_missing_bounds="fail")
    return ChangeSet(
        derivation=finding.derivation,
        snapshots=tuple(s.snapshot_id for s in finding.snapshots),
        operations={s.snapshot_id: operation_of(s).value for s in finding.snapshots},
        added=added,
        removed=removed,
        deletes=deletes,
        rewrites=rewrites,
        masks=unknown.describe(finding.masks, "deletes"),
        lists_read=reader.lists_read,
        manifests_read=reader.manifests_read,
        entries_read=reader.entries_read,
        columns_read=describer.columns_read,
    )
