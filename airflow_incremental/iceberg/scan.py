"""Which files to read, with the row-level deletes that apply to each: live ones, or the added ones of a change set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import attrs
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
)
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.delete_file_index import DeleteFileIndex
from pyiceberg.table.snapshots import Snapshot

from airflow_incremental.core.changes import FileChange
from airflow_incremental.core.errors import TableError
from airflow_incremental.core.ranges import EventRanges
from airflow_incremental.iceberg.bounds import EventColumn
from airflow_incremental.iceberg.manifests import ManifestReader


@attrs.define
class RowDeletesIndex:
    """Files of row-level deletes, asked which of them hide rows of a data file."""

    table: Table
    _positions: DeleteFileIndex = attrs.field(factory=DeleteFileIndex, init=False)
    _equality: list[tuple[DataFile, int]] = attrs.field(factory=list, init=False)

    def add(self, file: DataFile, sequence_number: int) -> None:
        """Add a delete file with its data sequence number."""
        if file.content == DataFileContent.EQUALITY_DELETES:
            self._equality.append((file, sequence_number))
            return
        entry = ManifestEntry.from_args(
            status=ManifestEntryStatus.ADDED, snapshot_id=0, sequence_number=sequence_number, data_file=file
        )
        self._positions.add_delete_file(entry, partition_key=file.partition)

    def hiding(self, file: DataFile, sequence_number: int) -> list[DataFile]:
        """Return the files of row-level deletes that may hide rows of a data file."""
        return [
            *self._positions.for_data_file(sequence_number, file, partition_key=file.partition),
            *self._equal(file, sequence_number),
        ]

    def task(self, file: DataFile, sequence_number: int) -> FileScanTask:
        """Return how a data file has to be read.

        :raises TableError: equality deletes apply to it, which cannot be read.
        """
        for deletes in self._equal(file, sequence_number):
            raise TableError(
                f"equality deletes in {deletes.file_path} hide rows of {file.file_path} of table {'.'.join(self.table.name())}",
                expected="files without equality deletes, which pyiceberg cannot apply",
                hint="compact the table with its own engine (rewrite_data_files), which applies them",
            )
        return FileScanTask(
            file, delete_files=self._positions.for_data_file(sequence_number, file, partition_key=file.partition)
        )

    def _equal(self, file: DataFile, sequence_number: int) -> Iterator[DataFile]:
        for deletes, sequence in self._equality:
            if sequence > sequence_number and self._same_partition(deletes, file):
                yield deletes

    def _same_partition(self, deletes: DataFile, file: DataFile) -> bool:
        if self.table.specs()[deletes.spec_id].is_unpartitioned():
            return True
        return deletes.spec_id == file.spec_id and deletes.partition == file.partition


def live_tasks(
    table: Table, snapshot: Snapshot, *, column: EventColumn | None, keep: EventRanges | None
) -> list[FileScanTask]:
    """Return the live files of a snapshot that may hold rows of ``keep`` (None: all).

    Only manifests whose partition summaries do not rule it out are opened, whatever specs they were written under; a
    file is left out only if it is known to hold no such row.
    """
    reader = ManifestReader(table.io)
    (manifests,) = reader.lists([snapshot], summaries=True)
    wanted = [m for m in manifests if m.content == ManifestContent.DELETES or _may_list(m, column, keep)]
    data: list[ManifestEntry] = []
    deletes = RowDeletesIndex(table)
    for entry in reader.entries(wanted, lambda e: e.status != ManifestEntryStatus.DELETED):
        file = entry.data_file
        if file.content != DataFileContent.DATA:
            deletes.add(file, entry.sequence_number or 0)
        elif (
            column is None
            or keep is None
            or may_hold(column.ranges(file, file.spec_id), column.nulls(file, file.spec_id), keep)
        ):
            data.append(entry)
    return [deletes.task(e.data_file, e.sequence_number or 0) for e in data]


def row_deletes(table: Table, snapshot: Snapshot) -> RowDeletesIndex:
    """Return the row-level deletes that are live in a snapshot."""
    reader = ManifestReader(table.io)
    (manifests,) = reader.lists([snapshot])
    deletes = RowDeletesIndex(table)
    wanted = [m for m in manifests if m.content == ManifestContent.DELETES]
    for entry in reader.entries(wanted, lambda e: e.status != ManifestEntryStatus.DELETED):
        deletes.add(entry.data_file, entry.sequence_number or 0)
    return deletes


def added_tasks(
    table: Table,
    added: Sequence[FileChange],
    masks: Iterable[FileChange],
    *,
    keep: EventRanges | None,
    drop: EventRanges | None,
) -> list[FileScanTask]:
    """Return the added files that may hold rows of ``keep`` (None: all) outside ``drop`` (None: none)."""
    deletes = RowDeletesIndex(table)
    for mask in masks:
        deletes.add(mask.handle, mask.sequence_number)
    return [
        deletes.task(c.handle, c.sequence_number)
        for c in added
        if (keep is None or may_hold(c.ranges, c.nulls, keep))
        and not (drop is not None and lies_in(c.ranges, c.nulls, drop))
    ]


def may_hold(ranges: EventRanges | None, nulls: int | None, wanted: EventRanges) -> bool:
    """Say whether a file with these ranges (None: unknown) and nulls (None: unknown) may hold a row of ``wanted``."""
    if wanted.nulls and nulls != 0:
        return True
    return ranges is None or any(wanted.overlaps(r) for r in ranges.ranges)


def _may_list(manifest: ManifestFile, column: EventColumn | None, keep: EventRanges | None) -> bool:
    told = None if column is None or keep is None else column.manifest_ranges(manifest)
    return told is None or keep is None or may_hold(told, int(told.nulls), keep)


def lies_in(ranges: EventRanges | None, nulls: int | None, wanted: EventRanges) -> bool:
    """Say whether every row of a file with these ranges (None: unknown) and nulls (None: unknown) is known to be in ``wanted``."""
    if ranges is None or (nulls != 0 and not wanted.nulls):
        return False
    return all(wanted.covers(r) for r in ranges.ranges)
