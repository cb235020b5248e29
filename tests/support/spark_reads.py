"""What Spark makes of the reads of a job, done by hand with pyiceberg: the rules of Iceberg's own Spark reader, and no JVM.

A read of a snapshot has that snapshot's columns and its row-level deletes. An incremental read takes the files that the appends
between two snapshots of one lineage added, under the table's current columns, whatever was deleted since.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from pyiceberg.manifest import DataFileContent, ManifestContent, ManifestEntryStatus
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.snapshots import Operation

from airflow_incremental.core.ranges import EventRanges, utc
from airflow_incremental.core.spark_job import SparkRead
from airflow_incremental.iceberg.rows import row_batches

Rows = Counter[tuple[Any, ...]]


def spark_rows(table: Table, reads: Iterable[SparkRead], columns: Iterable[str], event_time: str | None) -> Rows:
    """Return the rows of reads under the given columns of the pinned snapshot, with how often each occurs."""
    names, found = list(columns), Rows()
    for read in reads:
        assert read.files is None or read.not_files is None
        for row in _read(table, read):
            values = {theirs: row[mine] for mine, theirs in read.columns.items()}
            time = None if event_time is None else _moment(values.get(event_time))
            if (read.keep is None or read.keep.contains(time)) and not (read.drop and read.drop.contains(time)):
                found[tuple(values.get(name) for name in names)] += 1
    return found


def _read(table: Table, read: SparkRead) -> Iterator[dict[str, Any]]:
    if read.start is None:
        snapshot = table.snapshot_by_id(read.snapshot or 0)
        assert snapshot is not None, "the snapshot is kept"
        schema = table.schema() if snapshot.schema_id is None else table.schemas()[snapshot.schema_id]
        tasks = list(table.scan(snapshot_id=read.snapshot).plan_files())
    else:
        schema, tasks = table.schema(), _appended(table, read.start, read.end)
    kept = [
        t
        for t in tasks
        if (read.files is None or t.file.file_path in read.files) and t.file.file_path not in (read.not_files or ())
    ]
    if read.files is not None:
        assert {t.file.file_path for t in kept} == set(read.files), "every file that is named is there"
    yield from _rows(table, schema, kept)


def _appended(table: Table, start: int, end: int | None) -> list[FileScanTask]:
    """Return the files that a run of appends added, as ``IncrementalAppendScan`` of Iceberg's Java library plans them."""
    by_id = {s.snapshot_id: s for s in table.metadata.snapshots}
    run, at = [], end
    while at != start:
        assert at is not None, "the end descends from the start"
        assert at in by_id, "every snapshot of the run is kept"
        run.append(by_id[at])
        at = by_id[at].parent_snapshot_id
    assert run, "there is something to read"
    ids = {s.snapshot_id for s in run}
    assert all(s.summary is not None and s.summary.operation is Operation.APPEND for s in run), "runs hold appends only"
    files = {
        e.data_file.file_path: e.data_file
        for s in run
        for m in s.manifests(table.io)
        if m.content == ManifestContent.DATA and m.added_snapshot_id in ids
        for e in m.fetch_manifest_entry(table.io, discard_deleted=True)
        if e.status == ManifestEntryStatus.ADDED and e.snapshot_id in ids
    }
    assert all(f.content == DataFileContent.DATA for f in files.values())
    return [FileScanTask(f) for f in files.values()]


def _rows(table: Table, schema: Schema, tasks: list[FileScanTask]) -> Iterator[dict[str, Any]]:
    for batch in row_batches(table, schema, tasks):
        yield from batch.to_pylist()


def _moment(value: Any) -> dt.datetime | None:
    if value is None or isinstance(value, dt.datetime):
        return None if value is None else utc(value.replace(tzinfo=value.tzinfo or dt.timezone.utc))
    return dt.datetime(value.year, value.month, value.day, tzinfo=dt.timezone.utc)


def outside(rows: Rows, ranges: EventRanges, position: int) -> Rows:
    """Return the rows whose event time is not in ranges."""
    return Rows({r: n for r, n in rows.items() if not ranges.contains(_moment(r[position]))})
