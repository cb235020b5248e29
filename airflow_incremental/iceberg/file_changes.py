"""Manifest entries as file changes: which event times came or went with each file, as exactly as is asked for.

In order: column bounds, the partition under the file's own spec, the event-time column itself. The column is also read
where bounds span more than one unit of the grain, so that a file with two distant hours does not cost the hours
between them.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import attrs
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat

from airflow_incremental.core.changes import ChangeKind, FileChange, unknown_range
from airflow_incremental.core.ranges import EventRanges, Grain
from airflow_incremental.core.spec import OnMissingBounds
from airflow_incremental.iceberg.bounds import EventColumn
from airflow_incremental.iceberg.event_times import TimesReader, spans
from airflow_incremental.iceberg.parallel import in_parallel
from airflow_incremental.iceberg.window import Found

log = logging.getLogger(__name__)


@attrs.define
class Describer:
    """Turns entries into file changes; the same entry in the same role is worked out once."""

    column: EventColumn | None
    times: TimesReader | None
    on_missing_bounds: OnMissingBounds
    columns_read: int = attrs.field(default=0, init=False)
    _done: dict[tuple[str, ChangeKind, int], FileChange] = attrs.field(factory=dict, init=False)

    def describe(
        self, found: Iterable[Found], kind: ChangeKind, *, grain: Grain | None = None, must_know: bool = True
    ) -> tuple[FileChange, ...]:
        """Return file changes in the order of the entries.

        :param grain: make ranges that span more than one such unit exact; None takes bounds as they are.
        :param must_know: whether a file that does not tell its event times is an error; if not, its ranges stay None.
        :raises UnknownRange: as ``must_know`` says.
        """
        items = list(found)
        changes = [self._from_metadata(f, kind) for f in items]
        if self.column is not None:
            unclear = [
                i
                for i, c in enumerate(changes)
                if _key(c) not in self._done
                and (c.ranges is None or c.nulls is None or (grain is not None and _wide(c.ranges, grain)))
            ]
            for i, better in zip(unclear, in_parallel(lambda i: self._read(changes[i], grain), unclear), strict=True):
                changes[i] = better
            self.columns_read += len(unclear)
            for change in changes:
                if must_know and change.ranges is None:
                    raise unknown_range(
                        change.path,
                        why="it has no bounds for the event-time column and the file cannot be read"
                        if self.on_missing_bounds == "read"
                        else "it has no bounds for the event-time column, and on_missing_bounds='fail'",
                    )
        self._done.update((_key(c), c) for c in changes)
        return tuple(changes)

    def _from_metadata(self, found: Found, kind: ChangeKind) -> FileChange:
        entry = found.entry
        file = entry.data_file
        done = self._done.get((file.file_path, kind, found.snapshot_id))
        if done is not None:
            return done
        ranges, nulls = (None, None) if self.column is None else self._told(self.column, file, kind)
        return FileChange(
            path=file.file_path,
            kind=kind,
            snapshot_id=found.snapshot_id,
            sequence_number=entry.sequence_number or 0,
            spec_id=file.spec_id,
            rows=file.record_count,
            ranges=ranges,
            nulls=nulls,
            handle=file,
        )

    def _told(self, column: EventColumn, file: DataFile, kind: ChangeKind) -> tuple[EventRanges | None, int | None]:
        """Return what the manifest entry tells about ranges and nulls."""
        if kind != "deletes":
            return column.ranges(file, file.spec_id), column.nulls(file, file.spec_id)
        if file.content == DataFileContent.EQUALITY_DELETES and column.field_id in (file.equality_ids or ()):
            # The deleted rows equal those of the delete file in this column.
            return column.ranges(file, file.spec_id), column.nulls(file, file.spec_id)
        # Partitions without the event time say nothing, and its null rows lie in a partition of their own.
        partition = column.by_partition(file, file.spec_id)
        if partition is None:
            return None, 0 if column.required else None
        return partition, 0 if partition else file.record_count

    def _read(self, change: FileChange, grain: Grain | None) -> FileChange:
        """Return the change with what the file itself says; unchanged if it cannot be read or must not be."""
        if self.times is None or (change.ranges is None and self.on_missing_bounds != "read"):
            return change
        file = change.handle
        try:
            if change.kind != "deletes":
                read = self.times.occurring(file, grain)
                return attrs.evolve(change, ranges=read.ranges, nulls=read.nulls)
            if file.content == DataFileContent.POSITION_DELETES and file.file_format == FileFormat.PARQUET:
                gone = self._deleted(file)
                return attrs.evolve(change, ranges=spans(gone, grain), nulls=gone.null_count)
        except FileNotFoundError as error:
            log.warning("event times of %s are taken from its manifest entry, the file is gone: %s", change.path, error)
        return change

    def _deleted(self, file: DataFile) -> Any:
        """Return the event times of the rows that a file of position deletes removes."""
        times = self.times
        if times is None:
            raise AssertionError
        with times.table.io.new_input(file.file_path).open() as stream:
            deletes = pq.ParquetFile(stream).read(columns=["file_path", "pos"])
        rows: dict[str, list[int]] = defaultdict(list)
        for path, position in zip(
            deletes.column("file_path").to_pylist(), deletes.column("pos").to_pylist(), strict=True
        ):
            rows[path].append(position)
        found = [times.times_at(path).take(pa.array(positions)) for path, positions in rows.items()]
        return pa.chunked_array([c for f in found for c in f.chunks], pa.timestamp("us"))


def _key(change: FileChange) -> tuple[str, ChangeKind, int]:
    return change.path, change.kind, change.snapshot_id


def _wide(ranges: EventRanges, grain: Grain) -> bool:
    """Say whether ranges touch more than one unit."""
    span = ranges.span()
    return span is not None and grain.ceil(span.end) != grain.after(grain.floor(span.start))
