"""What a session reads from a source, bound to exact files: added rows, whole ranges at a snapshot, or given files.

Local Parquet files whose columns an engine can find by field id are handed over as paths; everything else (row-level
deletes, remote storage, evolved nested columns) comes as record batches, one batch at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import attrs
import pyarrow as pa
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.manifest import DataFile, FileFormat
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask, Table

from airflow_incremental.core.changes import ChangeSet, FileChange
from airflow_incremental.core.errors import PlanExpired
from airflow_incremental.core.plan import SourcePlan
from airflow_incremental.core.ranges import EventRanges
from airflow_incremental.core.reads import KeyFilter, PlacedFile, ReadPart, SourceRead
from airflow_incremental.iceberg.bounds import EventColumn
from airflow_incremental.iceberg.columns import ColumnReader, identity_positions, local_path, plain_in
from airflow_incremental.iceberg.file_index import FileIndex
from airflow_incremental.iceberg.keys import KeyIndex, KeySet
from airflow_incremental.iceberg.lineage import SnapshotIndex
from airflow_incremental.iceberg.parallel import in_parallel
from airflow_incremental.iceberg.rows import row_batches
from airflow_incremental.iceberg.scan import added_tasks, lies_in, live_tasks


@attrs.frozen(kw_only=True)
class AddedFiles:
    """The files a change set added, looked up once for any number of reads of parts of them, under the schema of a snapshot."""

    table: Table
    name: str
    schema: Schema
    event_time: str | None
    _files: FileIndex[FileChange]
    _masks: tuple[FileChange, ...]

    @classmethod
    def of(cls, table: Table, source: SourcePlan, changes: ChangeSet, *, event_time: str | None) -> AddedFiles:
        """Look the files up.

        :raises PlanExpired: the pinned snapshot is gone.
        """
        return cls(
            table=table,
            name=source.name,
            schema=schema_at(table, source.pinned.snapshot_id),
            event_time=event_time,
            files=FileIndex.of((c, c.ranges, c.nulls) for c in changes.added),
            masks=changes.masks,
        )

    def read(self, *, keep: EventRanges | None = None, drop: EventRanges | None = None) -> SourceRead:
        """Return the added rows; those that were deleted before anybody consumed them are left out.

        :param keep: rows to keep by event time; None keeps all.
        :param drop: rows to leave out by event time.
        :raises PlanExpired: a file is gone.
        :raises TableError: a file does not fit the table.
        """
        near = self._files.holding(keep)
        tasks = added_tasks(self.table, near, self._masks, keep=keep, drop=drop)
        return source_read(self.table, self.name, self.schema, tasks, event_time=self.event_time, keep=keep, drop=drop)


@attrs.frozen(kw_only=True)
class SnapshotFiles:
    """The live files of a snapshot that may hold rows of some event times, looked up once for any number of reads of parts."""

    table: Table
    schema: Schema
    event_time: str | None
    _column: EventColumn | None
    _files: FileIndex[FileScanTask]

    @classmethod
    def of(
        cls,
        table: Table,
        snapshot_id: int | None,
        *,
        event_time: str | None,
        keep: EventRanges | None,
        schema: Schema | None = None,
    ) -> SnapshotFiles:
        """Look the files up.

        :param snapshot_id: None for a table without snapshots, which has no rows.
        :param keep: event times that may be read; None for all.
        :param schema: columns to read; default is those of the snapshot.
        :raises PlanExpired: the snapshot is gone.
        :raises TableError: equality deletes apply.
        """
        of_snapshot = schema_at(table, snapshot_id)
        schema = of_snapshot if schema is None else schema
        snapshot = SnapshotIndex(table.metadata).get(snapshot_id)
        column = None if event_time is None else EventColumn.of(table, event_time, schema=schema)
        tasks = [] if snapshot is None else live_tasks(table, snapshot, column=column, keep=keep)
        return cls(
            table=table,
            schema=schema,
            event_time=event_time,
            column=column,
            files=FileIndex.of((task, *_times(column, task)) for task in tasks),
        )

    def read(self, name: str, keep: EventRanges | None) -> SourceRead:
        """Return the rows whose event time lies in ``keep``; the cost follows the ranges, not the table.

        :param keep: None keeps all.
        :raises PlanExpired: a file is gone.
        :raises TableError: a file does not fit the table.
        """
        column = self._column
        tasks = self._files.holding(keep)
        if keep is None or column is None:
            return self._bound(name, tasks)
        # Rows of files that lie wholly inside need no look at their event times, which costs most where ranges are many.
        inside = [t for t in tasks if lies_in(*_times(column, t), keep)]
        paths = {t.file.file_path for t in inside}
        across = [t for t in tasks if t.file.file_path not in paths]
        return self._bound(name, inside).joined(self._bound(name, across, keep=keep))

    def _bound(self, name: str, tasks: Sequence[FileScanTask], *, keep: EventRanges | None = None) -> SourceRead:
        return source_read(self.table, name, self.schema, tasks, event_time=self.event_time, keep=keep)


def _times(column: EventColumn | None, task: FileScanTask) -> tuple[EventRanges | None, int | None]:
    """Return the event times of a file and how many of its rows have none; None is unknown."""
    if column is None:
        return None, None
    return column.ranges(task.file, task.file.spec_id), column.nulls(task.file, task.file.spec_id)


def read_ranges(
    table: Table,
    name: str,
    snapshot_id: int | None,
    *,
    event_time: str | None,
    keep: EventRanges | None,
    schema: Schema | None = None,
) -> SourceRead:
    """Return the rows of a snapshot whose event time lies in ``keep``, for those that read once; see :class:`SnapshotFiles`."""
    return SnapshotFiles.of(table, snapshot_id, event_time=event_time, keep=keep, schema=schema).read(name, keep)


def read_keys(
    table: Table,
    name: str,
    snapshot_id: int | None,
    *,
    keys: KeySet,
    columns: Sequence[str],
    event_time: str | None,
    within: EventRanges | None,
) -> SourceRead:
    """Return all rows of given keys in a snapshot.

    :param columns: the source's columns that hold the key, in the order of the keys' columns.
    :param within: event times all rows of the keys are known to have; None looks everywhere.
    :raises PlanExpired: the snapshot or a file is gone.
    :raises TableError: a key column is missing, or a file does not fit the table.
    """
    schema = schema_at(table, snapshot_id)
    index = KeyIndex.of(table, columns, schema, keys)
    snapshot = SnapshotIndex(table.metadata).get(snapshot_id)
    column = None if event_time is None else EventColumn.of(table, event_time, schema=schema)
    tasks = [] if snapshot is None else live_tasks(table, snapshot, column=column, keep=within)
    read = source_read(table, name, schema, [t for t in tasks if index.may_hold(t.file)], event_time=event_time)
    return attrs.evolve(read, keys=KeyFilter(columns=tuple(columns), keys=keys.rows))


def read_files(table: Table, name: str, files: Sequence[DataFile], *, event_time: str | None = None) -> SourceRead:
    """Return the rows of given data files that have no row-level deletes, under the table's current schema."""
    return source_read(table, name, table.schema(), [FileScanTask(f) for f in files], event_time=event_time)


def placed_files(table: Table, files: Sequence[DataFile]) -> tuple[PlacedFile, ...]:
    """Return given data files without row-level deletes one by one, as :func:`read_files` returns their rows together."""
    schema, tasks = table.schema(), [FileScanTask(f) for f in files]
    paths = {task.file.file_path: path for task, path in _split(table, schema, tasks)[0]}
    return tuple(
        PlacedFile(path=paths.get(t.file.file_path), batches=partial(row_batches, table, schema, [t])) for t in tasks
    )


def schema_at(table: Table, snapshot_id: int | None) -> Schema:
    """Return the schema of a snapshot: a replayed plan sees the same columns, whatever was added to the table since."""
    if snapshot_id is None:
        return table.schema()
    snapshot = SnapshotIndex(table.metadata).get(snapshot_id)
    if snapshot is None:
        raise PlanExpired(
            f"snapshot {snapshot_id} of table {'.'.join(table.name())}, which the plan reads, does not exist any more",
            expected="snapshots that are kept longer than a session takes",
            hint="retry the task; it plans anew. Keep source snapshots longer if this happens again",
        )
    return table.schemas().get(snapshot.schema_id, table.schema()) if snapshot.schema_id is not None else table.schema()


def arrow_schema(schema: Schema) -> pa.Schema:
    """Return the columns of rows that are read under a schema, as Arrow has them."""
    return schema_to_pyarrow(schema, include_field_ids=False)


def source_read(
    table: Table,
    name: str,
    schema: Schema,
    tasks: Sequence[FileScanTask],
    *,
    event_time: str | None,
    keep: EventRanges | None = None,
    drop: EventRanges | None = None,
) -> SourceRead:
    """Return the rows of files under a schema, bound to a name."""
    plain, rest = _split(table, schema, tasks)
    parts = []
    if plain:
        paths = tuple(path for _, path in plain)
        batches = partial(row_batches, table, schema, [t for t, _ in plain])
        parts.append(ReadPart(paths=paths, batches=batches, keep=keep, drop=drop))
    if rest:
        parts.append(ReadPart(paths=None, batches=partial(row_batches, table, schema, rest), keep=keep, drop=drop))
    column = None if event_time is None else EventColumn.of(table, event_time, schema=schema)
    return SourceRead(
        name=name,
        schema=arrow_schema(schema),
        field_ids=tuple(f.field_id for f in schema.fields),
        parts=tuple(parts),
        event_time=None if column is None else schema.find_column_name(column.field_id),
        rows=sum(t.file.record_count for t in tasks),
        bytes=sum(t.file.file_size_in_bytes for t in tasks),
        files=len(tasks),
    )


def _split(
    table: Table, schema: Schema, tasks: Sequence[FileScanTask]
) -> tuple[list[tuple[FileScanTask, str]], list[FileScanTask]]:
    """Look into every file and tell those an engine may open itself, with their paths, from the others."""
    reader, identity = ColumnReader(table), identity_positions(table)

    def path_if_plain(task: FileScanTask) -> str | None:
        file = task.file
        if file.file_format != FileFormat.PARQUET:
            return None
        try:
            columns = reader.of_file(file.file_path)
        except FileNotFoundError as error:
            raise PlanExpired(
                f"data file {file.file_path} of table {'.'.join(table.name())}, which the plan reads, is gone",
                expected="files that are kept longer than a session takes",
                hint="retry the task; it plans anew. Keep source snapshots longer if this happens again",
            ) from error
        if task.delete_files or not plain_in(columns, schema, file, identity.get(file.spec_id, {})):
            return None
        return local_path(file.file_path)

    plain: list[tuple[FileScanTask, str]] = []
    rest: list[FileScanTask] = []
    for task, path in zip(tasks, in_parallel(path_if_plain, tasks), strict=True):
        if path is None:
            rest.append(task)
        else:
            plain.append((task, path))
    return plain, rest
