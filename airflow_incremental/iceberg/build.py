"""Build one snapshot: files in, files out, on a given parent.

pyiceberg's producers read every manifest of the table to find deleted files, write all files under the default partition spec and
split an overwrite into several snapshots. This one rewrites only the manifests that hold a dropped file, so that the cost of a
write follows what it changes.
"""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
from pyiceberg.manifest import (
    DataFile,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    write_manifest,
    write_manifest_list,
)
from pyiceberg.table import Table, TableProperties
from pyiceberg.table.snapshots import Operation, Snapshot, SnapshotSummaryCollector, Summary, update_snapshot_summaries

from airflow_incremental.iceberg.naming import file_mark

#: Entries of a manifest that a compaction writes: dropping a file means to write its manifest anew.
MERGED_ENTRIES = 1000


@attrs.frozen
class LiveFile:
    """A data file of a snapshot together with the manifest that lists it, which has to be rewritten to drop it."""

    manifest: ManifestFile
    entry: ManifestEntry

    @property
    def file(self) -> DataFile:
        """The data file itself."""
        return self.entry.data_file


@attrs.frozen(kw_only=True)
class Built:
    """A snapshot whose manifests are written and that no ref knows yet."""

    snapshot: Snapshot
    #: Paths of the manifest list and the manifests written for it.
    written: tuple[str, ...]


def snapshot_index(table: Table) -> dict[int, Snapshot]:
    """Return id -> snapshot; pyiceberg's own look-up scans the list each time."""
    return {s.snapshot_id: s for s in table.metadata.snapshots}


def build_snapshot(
    table: Table,
    *,
    parent: Snapshot,
    added: Sequence[DataFile] = (),
    dropped: Sequence[LiveFile] = (),
    summary: Mapping[str, str],
    empty: bool = False,
    merged: Sequence[ManifestFile] = (),
    shown: Sequence[ManifestEntry] = (),
    carried: Sequence[ManifestFile] = (),
    replaces: bool = False,
) -> Built:
    """Write the manifests and the manifest list of one snapshot.

    :param parent: the snapshot it stands on; never None, since a snapshot without a parent can turn the table's sequence numbers
        back (pyiceberg does not check them there).
    :param added: files that become live, under the table's default partition spec.
    :param dropped: live files of ``parent`` that go.
    :param summary: additional summary properties.
    :param empty: list none of the parent's files: a record of a session, not data.
    :param merged: manifests of data files of ``parent``, under the table's default partition spec, that become one with that of
        the added files.
    :param shown: entries of another snapshot that are listed as they are, whatever specs they were written under.
    :param carried: manifests of another snapshot that are listed as they are.
    :param replaces: the added files hold the very rows of the dropped ones (compaction); manifests that are merged become as few as
        :data:`MERGED_ENTRIES` allows, by partition.
    """
    metadata, io = table.metadata, table.io
    snapshot_id = metadata.new_snapshot_id()
    write_uuid = uuid.uuid4()
    mark = file_mark(metadata.table_uuid)
    locations = table.location_provider()
    compression: Any = metadata.properties.get(
        TableProperties.WRITE_AVRO_COMPRESSION, TableProperties.WRITE_AVRO_COMPRESSION_DEFAULT
    )
    specs, schema = metadata.specs(), metadata.schema()
    written: list[str] = []
    collector = SnapshotSummaryCollector(
        int(
            metadata.properties.get(
                TableProperties.WRITE_PARTITION_SUMMARY_LIMIT, TableProperties.WRITE_PARTITION_SUMMARY_LIMIT_DEFAULT
            )
        )
    )

    def write(spec_id: int, entries: Sequence[ManifestEntry]) -> ManifestFile:
        path = locations.new_metadata_location(f"{mark}-{write_uuid}-m{len(written)}.avro")
        written.append(path)
        with write_manifest(
            format_version=metadata.format_version,
            spec=specs[spec_id],
            schema=schema,
            output_file=io.new_output(path),
            snapshot_id=snapshot_id,
            avro_compression=compression,
        ) as writer:
            for entry in entries:
                writer.add_entry(entry)
        return writer.to_manifest_file()

    manifests = [] if empty else list(parent.manifests(io))
    gone: dict[str, set[str]] = defaultdict(set)
    for live in dropped:
        gone[live.manifest.manifest_path].add(live.file.file_path)
        collector.remove_file(live.file, schema=schema, partition_spec=specs[live.manifest.partition_spec_id])
    rewritten: list[ManifestFile] = []
    together = {manifest.manifest_path for manifest in merged}
    merging: list[ManifestEntry] = []
    for manifest in manifests:
        if manifest.manifest_path in together:
            lost = gone[manifest.manifest_path]
            entries = manifest.fetch_manifest_entry(io, discard_deleted=True)
            merging += [_restated(e, snapshot_id, gone=e.data_file.file_path in lost) for e in entries]
            continue
        if manifest.manifest_path not in gone:
            # What an older snapshot deleted is told by that snapshot's own list; carrying it on would only grow this one.
            if manifest.has_added_files() or manifest.has_existing_files():
                rewritten.append(manifest)
            continue
        paths = gone[manifest.manifest_path]
        entries = [
            _restated(entry, snapshot_id, gone=entry.data_file.file_path in paths)
            for entry in manifest.fetch_manifest_entry(io, discard_deleted=True)
        ]
        rewritten.append(write(manifest.partition_spec_id, entries))
    fresh = [
        ManifestEntry.from_args(
            status=ManifestEntryStatus.ADDED,
            snapshot_id=snapshot_id,
            sequence_number=None,
            file_sequence_number=None,
            data_file=f,
        )
        for f in added
    ]
    for file in added:
        collector.add_file(file, schema=schema, partition_spec=metadata.spec())
    for entries in _shares([*fresh, *merging], by_partition=replaces):
        rewritten.insert(0, write(metadata.default_spec_id, entries))

    specs_shown = dict.fromkeys(entry.data_file.spec_id for entry in shown)
    rewritten += [
        write(s, [_restated(e, snapshot_id, gone=False) for e in shown if e.data_file.spec_id == s])
        for s in specs_shown
    ]
    rewritten += carried

    list_path = locations.new_metadata_location(f"snap-{snapshot_id}-{mark}-{write_uuid}.avro")
    written.append(list_path)
    sequence = metadata.next_sequence_number()
    with write_manifest_list(
        format_version=metadata.format_version,
        output_file=io.new_output(list_path),
        snapshot_id=snapshot_id,
        parent_snapshot_id=parent.snapshot_id,
        sequence_number=sequence,
        avro_compression=compression,
    ) as writer:
        writer.add_manifests(rewritten)
    operation = _operation(added=bool(added), dropped=bool(dropped), replaces=replaces)
    told = _summary(operation, {**collector.build(), **summary}, None if empty else parent)
    snapshot = Snapshot(
        snapshot_id=snapshot_id,
        parent_snapshot_id=parent.snapshot_id,
        sequence_number=sequence,
        timestamp_ms=max(int(time.time() * 1000), metadata.last_updated_ms),
        manifest_list=list_path,
        summary=told,
        schema_id=metadata.current_schema_id,
    )
    return Built(snapshot=snapshot, written=tuple(written))


def _operation(*, added: bool, dropped: bool, replaces: bool) -> Operation:
    if replaces:
        return Operation.REPLACE
    if not dropped:
        return Operation.APPEND
    return Operation.OVERWRITE if added else Operation.DELETE


def _summary(operation: Operation, words: Mapping[str, str], parent: Snapshot | None) -> Summary:
    """Return a summary with the totals that follow from those of the parent; None: there was nothing before."""
    # pyiceberg adds up only the operations it commits itself.
    counted = Operation.OVERWRITE if operation is Operation.REPLACE else operation
    found = update_snapshot_summaries(Summary(operation=counted, **words), None if parent is None else parent.summary)
    return found if counted is operation else Summary(operation=operation, **found.additional_properties)


def _shares(entries: list[ManifestEntry], *, by_partition: bool) -> Iterator[list[ManifestEntry]]:
    """Yield the entries of one manifest after the other: of one, or of as many as it takes by partition."""
    if by_partition:
        entries = sorted(entries, key=_by_partition)
    most = MERGED_ENTRIES if by_partition else max(1, len(entries))
    for start in range(0, len(entries), most):
        yield entries[start : start + most]


def _by_partition(entry: ManifestEntry) -> tuple[tuple[bool, Any], ...]:
    values = entry.data_file.partition
    return tuple((values[i] is None, 0 if values[i] is None else values[i]) for i in range(len(values)))


def _restated(entry: ManifestEntry, snapshot_id: int, *, gone: bool) -> ManifestEntry:
    """Carry an entry of the parent over: still there with its own history, or deleted by the new snapshot."""
    return ManifestEntry.from_args(
        status=ManifestEntryStatus.DELETED if gone else ManifestEntryStatus.EXISTING,
        snapshot_id=snapshot_id if gone else entry.snapshot_id,
        sequence_number=entry.sequence_number,
        file_sequence_number=entry.file_sequence_number,
        data_file=entry.data_file,
    )
