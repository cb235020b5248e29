"""Compaction: many small files of a partition become few, and many small manifests, in one ``replace`` snapshot on ``main``.

The rows stay what they are, bit for bit, in the order in which they lie; row-level deletes are applied on the way. Nothing is
sorted: no more do the writes of sessions. Whoever reads changes sees none, whether by this package, pyiceberg or Spark.

Sessions may be open meanwhile: what they seal they put on top of what ``main`` is then, and compaction is no change to them. The
commit asserts ``main``; if it moved, what still holds of the work is committed on top of it, and the rest is left to the next run.
"""

from __future__ import annotations

import logging
import math
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import attrs
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import DataFile, DataFileContent, ManifestContent, ManifestFile
from pyiceberg.table import Table, TableProperties
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertCurrentSchemaId,
    AssertDefaultSpecId,
    AssertRefSnapshotId,
    SetSnapshotRefUpdate,
)

from airflow_incremental.core.errors import IncrementalError, TableError
from airflow_incremental.core.maintenance import MaintenancePolicy
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.build import MERGED_ENTRIES, LiveFile, build_snapshot
from airflow_incremental.iceberg.commits import Change, commit, discard
from airflow_incremental.iceberg.completeness import arrived_ms
from airflow_incremental.iceberg.datafiles import DataFileWriter
from airflow_incremental.iceberg.history import main_lineage
from airflow_incremental.iceberg.needs import needs_of
from airflow_incremental.iceberg.partitioning import check_writable
from airflow_incremental.iceberg.rewriting import rewritten, with_bounds_of
from airflow_incremental.iceberg.scan import RowDeletesIndex, row_deletes
from airflow_incremental.iceberg.targets import check_format
from airflow_incremental.iceberg.touched import Partition, partition_of

log = logging.getLogger(__name__)

#: A file is small below this part of the target size, as in Iceberg's own ``rewrite_data_files``.
SMALL = 0.75


@attrs.frozen(kw_only=True)
class Group:
    """Small files of one partition that become few.

    :param files: oldest first.
    :param outputs: how many files they become.
    """

    partition: Partition
    files: tuple[LiveFile, ...] = attrs.field(repr=False)
    outputs: int

    @property
    def bytes(self) -> int:
        """What the small files take together."""
        return sum(live.file.file_size_in_bytes for live in self.files)


@attrs.frozen(kw_only=True)
class Compaction:
    """What a compaction does, or did.

    :param snapshot_id: the ``replace`` snapshot; None if there is none.
    :param partitions: how many are rewritten.
    :param files_before: files that are rewritten.
    :param files_after: files they become; before the work, as planned.
    :param manifests: small manifests that are merged.
    :param notes: what was left alone, and why.
    """

    snapshot_id: int | None = None
    partitions: int = 0
    files_before: int = 0
    files_after: int = 0
    bytes: int = 0
    manifests: int = 0
    notes: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class _Plan:
    groups: tuple[Group, ...] = ()
    merged: tuple[ManifestFile, ...] = ()
    notes: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class _Done:
    """The files that stand for a group, and the row-level deletes that were applied: by file, their paths."""

    group: Group
    files: tuple[DataFile, ...]
    applied: Mapping[str, frozenset[str]]


def preview(table: Table, policy: MaintenancePolicy) -> Compaction:
    """Say what :func:`compact` would do, touching nothing."""
    planned = _plan(table, policy)
    return Compaction(
        partitions=len(planned.groups),
        files_before=sum(len(g.files) for g in planned.groups),
        files_after=sum(g.outputs for g in planned.groups),
        bytes=sum(g.bytes for g in planned.groups),
        manifests=len(planned.merged),
        notes=planned.notes,
    )


def compact(catalog: Catalog, table: Table, policy: MaintenancePolicy) -> Compaction:
    """Rewrite small files of partitions that have too many, and small manifests, in one commit.

    :param table: as it is now.
    """
    planned = _plan(table, policy)
    if not planned.groups and not planned.merged:
        return Compaction(notes=planned.notes)
    notes = list(planned.notes)
    done = _rewrite(table, planned.groups, notes)
    committed: list[_Done] = []
    merged = 0
    made: set[int] = set()

    def build(now: Table) -> Change | None:
        nonlocal committed, merged
        if made.intersection(s.snapshot_id for s in main_lineage(now)):
            return None
        head = now.current_snapshot()
        committed, merged = [], 0
        if head is None or not _same_shape(table.metadata, now.metadata):
            return None
        listed = head.manifests(now.io)
        live = _live(now, listed) if done else {}
        deletes = row_deletes(now, head)
        committed = [item for item in done if _holds(item, live, deletes)]
        together = _to_merge(now.metadata, listed, policy)
        if not committed and not together:
            return None
        built = build_snapshot(
            now,
            parent=head,
            added=[f for item in committed for f in item.files],
            dropped=[live[f.file.file_path] for item in committed for f in item.group.files],
            summary={naming.MAINTENANCE: "compaction", naming.ARRIVED: str(arrived_ms(now, head))},
            merged=together,
            replaces=True,
        )
        merged = len(together)
        made.add(built.snapshot.snapshot_id)
        return Change(
            updates=(
                AddSnapshotUpdate(snapshot=built.snapshot),
                SetSnapshotRefUpdate(
                    ref_name=MAIN_BRANCH, type=SnapshotRefType.BRANCH, snapshot_id=built.snapshot.snapshot_id
                ),
            ),
            requirements=(
                AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=head.snapshot_id),
                AssertCurrentSchemaId(current_schema_id=now.metadata.current_schema_id),
                AssertDefaultSpecId(default_spec_id=now.metadata.default_spec_id),
            ),
            written=built.written,
        )

    after = commit(catalog, ".".join(table.name()), build, what="a compaction")
    landed = next((s.snapshot_id for s in main_lineage(after) if s.snapshot_id in made), None)
    lost = [item for item in done if item not in committed or landed is None]
    if lost:
        notes.append(f"{len(lost)} partitions were changed by others meanwhile; the next run compacts them")
        # An attempt that seemed to fail may have landed all the same, and its snapshot be gone since: the sweep looks closer.
        if landed is not None or not made:
            discard(table.io, tuple(f.file_path for item in lost for f in item.files))
    kept = [item for item in committed if landed is not None]
    return Compaction(
        snapshot_id=landed,
        partitions=len(kept),
        files_before=sum(len(item.group.files) for item in kept),
        files_after=sum(len(item.files) for item in kept),
        bytes=sum(item.group.bytes for item in kept),
        manifests=0 if landed is None else merged,
        notes=tuple(notes),
    )


def _plan(table: Table, policy: MaintenancePolicy) -> _Plan:
    head = table.current_snapshot()
    if head is None:
        return _Plan()
    try:
        check_format(table)
        check_writable(table)
    except TableError as error:
        return _Plan(notes=(f"nothing was compacted: {error.found}",))
    # A watermark that shows only by the files it left is lost once these are rewritten.
    doubts = needs_of(table).doubts
    if doubts:
        return _Plan(notes=tuple(f"nothing was compacted: {why}" for why in doubts))
    listed = head.manifests(table.io)
    notes: list[str] = []
    groups: tuple[Group, ...] = ()
    try:
        if policy.compact is not None:
            groups = tuple(_groups(table, head, listed, policy, notes))
    except TableError as error:
        notes.append(f"no file was compacted: {error.found}")
    return _Plan(groups=groups, merged=tuple(_to_merge(table.metadata, listed, policy)), notes=tuple(notes))


def _groups(
    table: Table, head: Snapshot, listed: Sequence[ManifestFile], policy: MaintenancePolicy, notes: list[str]
) -> Iterator[Group]:
    target = policy.target_file_size or _target_size(table)
    small: dict[Partition, list[LiveFile]] = defaultdict(list)
    for live in _live(table, listed).values():
        if live.file.file_size_in_bytes < SMALL * target:
            small[partition_of(live.file)].append(live)
    deletes = row_deletes(table, head)
    older = hidden = 0
    for partition, files in small.items():
        outputs = max(1, math.ceil(sum(f.file.file_size_in_bytes for f in files) / target))
        # Fewer each time, so that it comes to an end wherever compression takes the sizes.
        if len(files) <= (policy.compact or 0) or outputs >= len(files):
            continue
        if partition[0] != table.metadata.default_spec_id:
            older += 1
        elif not all(_readable(deletes, live) for live in files):
            hidden += 1
        else:
            files.sort(key=lambda f: (f.entry.sequence_number or 0, f.file.file_path))
            yield Group(partition=partition, files=tuple(files), outputs=outputs)
    if older:
        notes.append(
            f"{older} partitions of earlier partition specs were left alone: their rows belong to several of now"
        )
    if hidden:
        notes.append(f"{hidden} partitions were left alone, because equality deletes hide rows of theirs")


def _readable(deletes: RowDeletesIndex, live: LiveFile) -> bool:
    try:
        deletes.task(live.file, live.entry.sequence_number or 0)
    except TableError:
        return False
    return True


def _to_merge(metadata: TableMetadata, listed: Sequence[ManifestFile], policy: MaintenancePolicy) -> list[ManifestFile]:
    """Return the small manifests, if there are so many that they should become few."""
    small = [
        m
        for m in listed
        if m.content == ManifestContent.DATA
        and m.partition_spec_id == metadata.default_spec_id
        and (m.added_files_count or 0) + (m.existing_files_count or 0) < MERGED_ENTRIES
    ]
    return small if len(small) > policy.merge_manifests else []


def _rewrite(table: Table, groups: Sequence[Group], notes: list[str]) -> list[_Done]:
    """Write the files of groups anew; one that cannot be is left alone."""
    head = table.current_snapshot()
    if head is None or not groups:
        return []
    deletes = row_deletes(table, head)
    inputs = [live.file for group in groups for live in group.files]
    writer = DataFileWriter(with_bounds_of(table.metadata, inputs), table.io, uuid.uuid4())
    done = []
    for group in groups:
        try:
            files = tuple(rewritten(table, group.files, group.outputs, deletes, writer))
        except IncrementalError as error:
            notes.append(f"a partition was left alone: {error.found}")
            continue
        done.append(_Done(group=group, files=files, applied=_hiding(group, deletes)))
        log.info("rewrote %d files of one partition as %d", len(group.files), len(files))
    return done


def _live(table: Table, listed: Sequence[ManifestFile]) -> dict[str, LiveFile]:
    """Return path -> the live data file of a snapshot.

    :raises TableError: a file is listed twice.
    """
    found: dict[str, LiveFile] = {}
    for manifest in listed:
        if manifest.content != ManifestContent.DATA:
            continue
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
            path = entry.data_file.file_path
            if path in found:
                raise TableError(
                    f"{path} is listed twice in one snapshot of {'.'.join(table.name())}, so its rows count twice",
                    expected="each data file once",
                    hint="delete the file from the table by its path and append it again, once",
                )
            if entry.data_file.content == DataFileContent.DATA:
                found[path] = LiveFile(manifest, entry)
    return found


def _hiding(group: Group, deletes: RowDeletesIndex) -> dict[str, frozenset[str]]:
    return {
        live.file.file_path: frozenset(d.file_path for d in deletes.hiding(live.file, live.entry.sequence_number or 0))
        for live in group.files
    }


def _holds(item: _Done, live: Mapping[str, LiveFile], deletes: RowDeletesIndex) -> bool:
    """Say whether all files of a group are still live, with the row-level deletes that were applied and no others."""
    return all(f.file.file_path in live for f in item.group.files) and _hiding(item.group, deletes) == item.applied


def _same_shape(then: TableMetadata, now: TableMetadata) -> bool:
    return (then.table_uuid, then.current_schema_id, then.default_spec_id) == (
        now.table_uuid,
        now.current_schema_id,
        now.default_spec_id,
    )


def _target_size(table: Table) -> int:
    name, default = TableProperties.WRITE_TARGET_FILE_SIZE_BYTES, TableProperties.WRITE_TARGET_FILE_SIZE_BYTES_DEFAULT
    try:
        return int(table.properties.get(name, default))
    except ValueError:
        raise TableError(
            f"the property {name!r} of table {'.'.join(table.name())} is {table.properties[name]!r}",
            expected="a whole number of bytes",
        ) from None
