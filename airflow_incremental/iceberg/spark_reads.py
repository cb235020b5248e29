"""What a session reads from a source, as Spark can read it: the same rows that :mod:`airflow_incremental.iceberg.reads` binds.

Added rows come by one incremental read for each run of consecutive append snapshots, which costs what was appended. An incremental
read applies no row-level deletes and knows no other operations, so what is left is read from a snapshot that has it, by file:

- files with rows that were deleted before anybody consumed them, with these deletes;
- files of other snapshots that count as appends;
- everything, where Spark cannot tell the appends (the lineage is broken), or would not see a column that was dropped since.

Such a read is told the event times of its files: Spark does not prune by file, but by these.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs
from pyiceberg.manifest import DataFile, DataFileContent, ManifestContent, ManifestEntryStatus
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot
from pyiceberg.types import IcebergType, ListType, MapType, StructType

from airflow_incremental.core.changes import ChangeSet, FileChange
from airflow_incremental.core.errors import PlanExpired, TableError
from airflow_incremental.core.plan import SourcePlan
from airflow_incremental.core.ranges import EventRanges
from airflow_incremental.core.spark_job import SparkRead
from airflow_incremental.iceberg.bounds import EventColumn
from airflow_incremental.iceberg.lineage import SnapshotIndex, operation_of
from airflow_incremental.iceberg.manifests import ManifestReader
from airflow_incremental.iceberg.reads import schema_at
from airflow_incremental.iceberg.scan import RowDeletesIndex, lies_in

#: Event times that a read of files is told; more are merged.
_RANGES = 64


def snapshot_reads(table: Table, source: SourcePlan, *, keep: EventRanges | None = None) -> list[SparkRead]:
    """Return the rows of the pinned snapshot whose event time lies in ``keep`` (None: all).

    :raises PlanExpired: the snapshot is gone.
    """
    at = source.pinned.snapshot_id
    schema = schema_at(table, at)
    return [] if at is None else [SparkRead(snapshot=at, keep=keep, columns=_columns(schema, schema) or {})]


def added_reads(
    table: Table, source: SourcePlan, changes: ChangeSet, *, event_time: str | None, drop: EventRanges | None = None
) -> list[SparkRead]:
    """Return the rows a change set added, under the columns of the pinned snapshot.

    Rows that were deleted before anybody consumed them are left out.

    :param changes: from the plan's base to its pinned snapshot.
    :param drop: rows to leave out by event time.
    :raises PlanExpired: a snapshot is gone.
    :raises TableError: nested columns evolved between a file that is gone from the pinned snapshot and that snapshot.
    """
    if not changes.added or source.pinned.snapshot_id is None:
        return []
    if source.base is None or source.base.snapshot_id is None:
        # All live files of the pinned snapshot.
        return [attrs.evolve(read, drop=drop) for read in snapshot_reads(table, source)]
    return _Added.of(table, source, changes, event_time, drop).reads()


def changed_reads(
    table: Table, source: SourcePlan, changes: ChangeSet, *, event_time: str | None
) -> tuple[list[SparkRead], list[SparkRead]]:
    """Return the rows of a source that came and those that went; what is on both sides did not change.

    See :mod:`airflow_incremental.iceberg.changed_rows`, whose rules these are.

    :param changes: from the plan's base to its pinned snapshot.
    :raises PlanExpired: a snapshot is gone.
    """
    index = SnapshotIndex(table.metadata)
    base = index.get(None if source.base is None else source.base.snapshot_id)
    head = index.get(source.pinned.snapshot_id)
    if base is None or head is None or not (changes.removed or changes.deletes):
        return added_reads(table, source, changes, event_time=event_time), []
    at = _Reader.of(table, source, event_time)
    old = _live(table, base)
    if not changes.deletes and all(c.path in old for c in changes.removed):
        removed = [_File.of_change(c) for c in changes.removed]
        return (
            added_reads(table, source, changes, event_time=event_time),
            at.of_files(base.snapshot_id, removed),
        )
    new = _live(table, head)
    return (
        at.of_files(head.snapshot_id, _unlike(new, old)),
        at.of_files(base.snapshot_id, _unlike(old, new)),
    )


@attrs.frozen(kw_only=True)
class _File:
    """A data file, with what is known of its event times."""

    file: DataFile
    sequence_number: int
    ranges: EventRanges | None = None
    nulls: int | None = None
    #: Files of row-level deletes that hide rows of it.
    hidden: frozenset[str] = frozenset()

    @classmethod
    def of_change(cls, change: FileChange) -> _File:
        return cls(file=change.handle, sequence_number=change.sequence_number, ranges=change.ranges, nulls=change.nulls)

    @property
    def path(self) -> str:
        return str(self.file.file_path)


def _live(table: Table, snapshot: Snapshot) -> dict[str, _File]:
    """Return the live data files of a snapshot by path."""
    reader, deletes = ManifestReader(table.io), RowDeletesIndex(table)
    (manifests,) = reader.lists([snapshot])
    data = []
    for entry in reader.entries(manifests, lambda e: e.status != ManifestEntryStatus.DELETED):
        if entry.data_file.content == DataFileContent.DATA:
            data.append((entry.data_file, entry.sequence_number or 0))
        else:
            deletes.add(entry.data_file, entry.sequence_number or 0)
    return {
        file.file_path: _File(
            file=file, sequence_number=number, hidden=frozenset(d.file_path for d in deletes.hiding(file, number))
        )
        for file, number in data
    }


def _unlike(these: Mapping[str, _File], those: Mapping[str, _File]) -> list[_File]:
    """Return the files that are not among the others, or have other rows deleted there."""
    return [f for path, f in these.items() if path not in those or f.hidden != those[path].hidden]


@attrs.frozen(kw_only=True)
class _Reader:
    """Reads of given files at a snapshot that has them."""

    table: Table
    #: Of the pinned snapshot, whose columns all rows have.
    schema: Schema
    column: EventColumn | None

    @classmethod
    def of(cls, table: Table, source: SourcePlan, event_time: str | None) -> _Reader:
        schema = schema_at(table, source.pinned.snapshot_id)
        column = None if event_time is None else EventColumn.of(table, event_time, schema=schema)
        return cls(table=table, schema=schema, column=column)

    def of_files(self, snapshot_id: int, files: Sequence[_File], *, drop: EventRanges | None = None) -> list[SparkRead]:
        """Return the rows that files have in a snapshot.

        :raises TableError: nested columns evolved between it and the pinned one.
        """
        if not files:
            return []
        columns = _columns(schema_at(self.table, snapshot_id), self.schema)
        if columns is None:
            raise TableError(
                f"rows of table {'.'.join(self.table.name())} have to be read from snapshot {snapshot_id}, since which fields of a "
                "nested column were renamed; Spark finds them by name",
                expected="fields of nested columns to keep their names between two runs in which rows are rewritten",
                hint="run this load on DuckDB, which reads every file under the newer columns",
            )
        return [
            SparkRead(
                snapshot=snapshot_id,
                files=tuple(sorted(f.path for f in files)),
                keep=self._told(files),
                drop=drop,
                columns=columns,
            )
        ]

    def _told(self, files: Iterable[_File]) -> EventRanges | None:
        """Return event times that hold those of all rows; None if they are not known."""
        if self.column is None:
            return None
        found = []
        for item in files:
            ranges = item.ranges if item.ranges is not None else self.column.ranges(item.file, item.file.spec_id)
            if ranges is None:
                return None
            nulls = item.nulls if item.nulls is not None else self.column.nulls(item.file, item.file.spec_id)
            found.append(EventRanges(ranges.ranges, nulls=nulls != 0))
        return EventRanges.union_of(found).coalesce(_RANGES)


@attrs.frozen(kw_only=True)
class _Added:
    """The added rows of a window of snapshots."""

    at: _Reader
    changes: ChangeSet
    pinned: int
    #: Of the window, oldest first.
    snapshots: tuple[Snapshot, ...]
    drop: EventRanges | None
    #: Snapshot -> files it added, and files it removed; appends remove none.
    added: Mapping[int, Mapping[str, _File]]
    removed: Mapping[int, Mapping[str, _File]]
    deletes: RowDeletesIndex

    @classmethod
    def of(
        cls, table: Table, source: SourcePlan, changes: ChangeSet, event_time: str | None, drop: EventRanges | None
    ) -> _Added:
        at = _Reader.of(table, source, event_time)
        index = SnapshotIndex(table.metadata)
        # A diff stands for its head alone, in which all its files are live.
        ids = () if changes.derivation == "diff" else tuple(reversed(changes.snapshots))
        snapshots = tuple(_kept(table, index, i) for i in ids)
        added, removed = _read_window(table, snapshots)
        deletes = RowDeletesIndex(table)
        for mask in changes.masks:
            deletes.add(mask.handle, mask.sequence_number)
        return cls(
            at=at,
            changes=changes,
            pinned=source.pinned.snapshot_id or 0,
            snapshots=snapshots,
            drop=drop,
            added=added,
            removed=removed,
            deletes=deletes,
        )

    def reads(self) -> list[SparkRead]:
        wanted = self._as_appended({c.path: _File.of_change(c) for c in self.changes.added})
        found: list[SparkRead] = []
        now = self.at.table.schema()
        columns = _columns(now, self.at.schema)
        if columns is not None and set(self.at.schema.field_ids) <= set(now.field_ids):
            for run in self._runs():
                if run[0].parent_snapshot_id is None:
                    continue  # Spark has to be told where it starts.
                brought = {path for s in run for path in self.added[s.snapshot_id]}
                whole = {p for p in brought if p in wanted and not self._masked(wanted[p])}
                if any(not self._dropped(wanted[p]) for p in whole):
                    found.append(self._incremental(run, brought, whole, columns))
                for path in whole:
                    del wanted[path]
        places: dict[int, list[_File]] = defaultdict(list)
        for item in wanted.values():
            if not self._dropped(item):
                places[self._last_seen(item)].append(item)
        for snapshot_id, files in places.items():
            found += self.at.of_files(snapshot_id, files, drop=self.drop)
        return found

    def _as_appended(self, wanted: dict[str, _File]) -> dict[str, _File]:
        """Return the files that new rows were appended with, where they were compacted since, alone.

        The plan names the files they are in now, which an incremental read does not show.
        """
        born = {path for files in self.added.values() for path in files}
        for snapshot in reversed(self.snapshots):
            made, gone = self.added[snapshot.snapshot_id], self.removed[snapshot.snapshot_id]
            alone = operation_of(snapshot) is Operation.REPLACE and made and made.keys() <= wanted.keys()
            if alone and gone.keys() <= born and not any(self._masked(f) for f in made.values()):
                for path in made:
                    del wanted[path]
                wanted.update(gone)
        return wanted

    def _runs(self) -> Iterator[list[Snapshot]]:
        """Yield the longest runs of consecutive append snapshots, oldest first."""
        run: list[Snapshot] = []
        for snapshot in self.snapshots:
            if operation_of(snapshot) is Operation.APPEND:
                run.append(snapshot)
            elif run:
                yield run
                run = []
        if run:
            yield run

    def _incremental(
        self, run: Sequence[Snapshot], brought: set[str], whole: set[str], columns: Mapping[str, str]
    ) -> SparkRead:
        rest = brought - whole
        listed = len(rest) <= len(whole)
        return SparkRead(
            start=run[0].parent_snapshot_id,
            end=run[-1].snapshot_id,
            files=None if listed else tuple(sorted(whole)),
            not_files=tuple(sorted(rest)) if listed and rest else None,
            drop=self.drop,
            columns=columns,
        )

    def _masked(self, item: _File) -> bool:
        return bool(self.deletes.hiding(item.file, item.sequence_number))

    def _dropped(self, item: _File) -> bool:
        """Say whether all rows of a file are left out by event time."""
        return self.drop is not None and lies_in(item.ranges, item.nulls, self.drop)

    def _last_seen(self, item: _File) -> int:
        """Return the last snapshot in which a file is live, with all deletes that hide rows of it."""
        for snapshot in reversed(self.snapshots):
            if item.path in self.added[snapshot.snapshot_id]:
                break
            if item.path in self.removed[snapshot.snapshot_id]:
                before = snapshot.parent_snapshot_id
                return _kept(self.at.table, SnapshotIndex(self.at.table.metadata), before).snapshot_id
        return self.pinned


def _kept(table: Table, index: SnapshotIndex, snapshot_id: int | None) -> Snapshot:
    found = index.get(snapshot_id)
    if found is None:
        raise PlanExpired(
            f"snapshot {snapshot_id} of table {'.'.join(table.name())}, whose appends the plan reads, does not exist any more",
            expected="snapshots that are kept longer than a session takes",
            hint="retry the task; it plans anew. Keep source snapshots longer if this happens again",
        )
    return found


def _read_window(
    table: Table, snapshots: Sequence[Snapshot]
) -> tuple[dict[int, dict[str, _File]], dict[int, dict[str, _File]]]:
    """Return which data files each snapshot added and which it removed, as its own manifests say: what Spark goes by, too."""
    reader = ManifestReader(table.io)
    added: dict[int, dict[str, _File]] = {s.snapshot_id: {} for s in snapshots}
    removed: dict[int, dict[str, _File]] = {s.snapshot_id: {} for s in snapshots}
    own = {
        m.manifest_path: m
        for snapshot, manifests in zip(snapshots, reader.lists(snapshots), strict=True)
        for m in manifests
        if m.added_snapshot_id == snapshot.snapshot_id and m.content == ManifestContent.DATA
    }
    wanted = (ManifestEntryStatus.ADDED, ManifestEntryStatus.DELETED)
    for entry in reader.entries(own.values(), lambda e: e.snapshot_id in added and e.status in wanted):
        side = added if entry.status == ManifestEntryStatus.ADDED else removed
        file = _File(file=entry.data_file, sequence_number=entry.sequence_number or 0)
        side[entry.snapshot_id or 0][file.path] = file
    return added, removed


def _columns(read: Schema, pinned: Schema) -> dict[str, str] | None:
    """Return how the columns of a schema are called in that of the pinned snapshot, in the order there.

    None if fields of a nested column go by other names: below the top, Spark finds them by name.
    """
    here = {f.field_id: f for f in read.fields}
    found: dict[str, str] = {}
    for field in pinned.fields:
        mine = here.get(field.field_id)
        if mine is None:
            continue
        if not _fits(mine.field_type, field.field_type):
            return None
        found[mine.name] = field.name
    return found


def _fits(read: IcebergType, pinned: IcebergType) -> bool:
    """Say whether fields of the same name are the same ones, however deep; types without fields may be wider."""
    if isinstance(read, StructType) and isinstance(pinned, StructType):
        names = {f.name: f for f in read.fields}
        ids = {f.field_id for f in read.fields}
        for field in pinned.fields:
            mine = names.get(field.name)
            if mine is None and field.field_id in ids:
                return False
            if mine is not None and (mine.field_id != field.field_id or not _fits(mine.field_type, field.field_type)):
                return False
        return True
    if isinstance(read, ListType) and isinstance(pinned, ListType):
        return _fits(read.element_type, pinned.element_type)
    if isinstance(read, MapType) and isinstance(pinned, MapType):
        same_keys = read.key_type == pinned.key_type
        return same_keys and _fits(read.value_type, pinned.value_type)
    return True
