"""Tables in every state a source can be in, made with pyiceberg where it can and by hand where it cannot.

pyiceberg has no compaction, no row-level deletes on write, and always fills bounds; the snapshots that show these are
put together here from manifests, the way engines that have them do it.
"""

from __future__ import annotations

import datetime as dt
import itertools
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan, _dataframe_to_data_files, schema_to_pyarrow
from pyiceberg.manifest import (
    DATA_FILE_TYPE,
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    ManifestWriter,
    ManifestWriterV2,
    write_manifest,
    write_manifest_list,
)
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Operation, Snapshot, Summary
from pyiceberg.table.update import AddSnapshotUpdate, AssertRefSnapshotId, SetSnapshotRefUpdate
from pyiceberg.transforms import parse_transform
from pyiceberg.types import IcebergType, LongType, NestedField, StringType, TimestampType

from airflow_incremental.core.ranges import UTC

Row = tuple[int, dt.datetime | dt.date | None]

_DELETE_PATH, _DELETE_POSITION = 2147483546, 2147483545
_POSITION_DELETES = pa.schema(
    [
        pa.field("file_path", pa.string(), nullable=False, metadata={"PARQUET:field_id": str(_DELETE_PATH)}),
        pa.field("pos", pa.int64(), nullable=False, metadata={"PARQUET:field_id": str(_DELETE_POSITION)}),
    ]
)


def sql_catalog(home: Path) -> SqlCatalog:
    """Return a catalog in a SQLite file below ``home``, with its warehouse beside it and a namespace ``raw``."""
    catalog = SqlCatalog("test", uri=f"sqlite:///{home}/catalog.db", warehouse=f"file://{home}/warehouse")
    catalog.create_namespace_if_not_exists("raw")
    return catalog


def at(hour: float) -> dt.datetime:
    """Return a naive time so many hours after 2024-01-01, as a timestamp column without zone takes it."""
    return dt.datetime(2024, 1, 1) + dt.timedelta(hours=hour)  # noqa: DTZ001


def utc_at(hour: float) -> dt.datetime:
    """Return the same time in UTC, as ranges have it."""
    return at(hour).replace(tzinfo=UTC)


def make_table(
    catalog: Catalog,
    name: str = "raw.events",
    *,
    partition_by: Sequence[tuple[str, str]] = (),
    version: int = 2,
    time_type: IcebergType | None = None,
    bounds: bool = True,
    properties: Mapping[str, str] | None = None,
) -> Table:
    """Create a table ``(id, ts, name)``.

    :param partition_by: ``(transform, column)`` pairs.
    :param bounds: whether files get column bounds and counts.
    """
    schema = Schema(
        NestedField(1, "id", LongType(), required=False),
        NestedField(2, "ts", time_type or TimestampType(), required=False),
        NestedField(3, "name", StringType(), required=False),
    )
    metrics = {} if bounds else {"write.metadata.metrics.default": "none"}
    every = {"format-version": str(version), **metrics, **(properties or {})}
    table = catalog.create_table(name, schema=schema, properties=every)
    repartition(table, partition_by)
    return catalog.load_table(name)


def repartition(table: Table, partition_by: Sequence[tuple[str, str]]) -> None:
    """Replace the partition spec; files written so far keep theirs."""
    with table.update_spec() as update:
        for field in table.spec().fields:
            update.remove_field(field.name)
        for transform, column in partition_by:
            update.add_field(
                column, parse_transform(transform), f"{column}_{transform.split('[')[0]}_{uuid.uuid4().hex[:4]}"
            )


def arrow_rows(table: Table, rows: Iterable[Row]) -> pa.Table:
    """Return ``(id, time)`` rows in the table's schema; ``name`` is derived from the id."""
    items = list(rows)
    names = [f.name for f in table.schema().fields]
    columns: list[list[Any]] = [[i for i, _ in items], [t for _, t in items], [f"row {i}" for i, _ in items]]
    columns.extend([None] * len(items) for _ in names[3:])
    types = schema_to_pyarrow(table.schema(), include_field_ids=False)
    return pa.table(dict(zip(names, columns, strict=True)), schema=types)


def append(table: Table, *rows: Row, branch: str = MAIN_BRANCH) -> Snapshot:
    """Append rows in one snapshot and return it."""
    table.append(arrow_rows(table, rows), branch=branch)
    return head(table, branch)


def head(table: Table, branch: str = MAIN_BRANCH) -> Snapshot:
    """Return the head of a branch."""
    found = table.refresh().snapshot_by_name(branch)
    assert found is not None
    return found


def rows_at(table: Table, snapshot_id: int | None = None) -> list[tuple[int, Any]]:
    """Return all ``(id, time)`` rows of a snapshot by a full scan, sorted by id."""
    read = table.scan(snapshot_id=snapshot_id).to_arrow()
    id_name, time_name = (table.schema().find_column_name(i) or "" for i in (1, 2))
    names = read.schema.names
    ids = read.column(id_name if id_name in names else names[0]).to_pylist()
    times = read.column(time_name if time_name in names else names[1]).to_pylist()
    return sorted(zip(ids, times, strict=True), key=lambda r: r[0])


def live_entries(table: Table, snapshot: Snapshot | None = None) -> list[tuple[ManifestFile, ManifestEntry]]:
    """Return the live entries of a snapshot with their manifests."""
    found = snapshot or table.current_snapshot()
    if found is None:
        return []
    return [(m, e) for m in found.manifests(table.io) for e in m.fetch_manifest_entry(table.io, discard_deleted=True)]


def live_files(table: Table) -> list[DataFile]:
    """Return the live data files of ``main``."""
    return [e.data_file for _, e in live_entries(table) if e.data_file.content == DataFileContent.DATA]


def compact(table: Table, paths: Iterable[str] | None = None) -> Snapshot:
    """Rewrite live data files (all, or those with given paths) into new ones under the current spec, as one
    ``replace`` snapshot.

    Row-level deletes are applied on the way, and go if every data file is rewritten.
    """
    table.refresh()
    chosen = None if paths is None else set(paths)
    tasks = [t for t in table.scan().plan_files() if chosen is None or t.file.file_path in chosen]
    return commit_snapshot(
        table,
        Operation.REPLACE,
        added=write_data(table, _read(table, tasks)),
        removed=[t.file.file_path for t in tasks],
        undeleted=chosen is None,
    )


def _read(table: Table, tasks: Sequence[FileScanTask]) -> pa.Table:
    types = schema_to_pyarrow(table.schema(), include_field_ids=False)
    return ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue()).to_table(tasks).cast(types)


def write_data(table: Table, rows: pa.Table) -> list[DataFile]:
    """Write data files under the current spec without committing them."""
    if rows.num_rows == 0:
        return []
    return list(_dataframe_to_data_files(table_metadata=table.metadata, df=rows, io=table.io))


def overwrite_files(
    table: Table, *, removed: Iterable[str], rows: Iterable[Row], branch: str = MAIN_BRANCH
) -> Snapshot:
    """Replace data files by rows in one ``overwrite`` snapshot."""
    added = write_data(table, arrow_rows(table, rows))
    return commit_snapshot(table, Operation.OVERWRITE, added=added, removed=removed, branch=branch)


def position_delete_file(
    table: Table, rows: Iterable[tuple[str, int]], *, like: DataFile, bounds: bool = True
) -> DataFile:
    """Write a file of position deletes.

    :param rows: (data file path, position) pairs.
    :param like: a data file of the partition and spec the delete file belongs to.
    :param bounds: whether the manifest entry tells the paths it refers to.
    """
    items = sorted(rows)
    path = f"{table.location()}/data/deletes-{uuid.uuid4()}.parquet"
    columns = {"file_path": [p for p, _ in items], "pos": [i for _, i in items]}
    with table.io.new_output(path).create() as stream:
        pq.write_table(pa.table(columns, schema=_POSITION_DELETES), stream)
    return delete_file_entry(
        path,
        content=DataFileContent.POSITION_DELETES,
        rows=len(items),
        like=like,
        lower={_DELETE_PATH: items[0][0].encode()} if bounds else {},
        upper={_DELETE_PATH: items[-1][0].encode()} if bounds else {},
    )


def delete_file_entry(
    path: str,
    *,
    content: DataFileContent,
    rows: int,
    like: DataFile,
    lower: dict[int, bytes],
    upper: dict[int, bytes],
    equality_ids: list[int] | None = None,
) -> DataFile:
    """Return the manifest's view of a delete file."""
    file = DataFile.from_args(
        content=content,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=like.partition,
        record_count=rows,
        file_size_in_bytes=1,
        column_sizes={},
        value_counts={},
        null_value_counts={},
        nan_value_counts={},
        lower_bounds=lower,
        upper_bounds=upper,
        key_metadata=None,
        split_offsets=None,
        equality_ids=equality_ids,
        sort_order_id=None,
    )
    file.spec_id = like.spec_id
    return file


def equality_delete_file(table: Table, *, like: DataFile, equality_ids: list[int]) -> DataFile:
    """Return a file of equality deletes that exists in metadata only: nothing here can read one."""
    return delete_file_entry(
        f"{table.location()}/data/equality-{uuid.uuid4()}.parquet",
        content=DataFileContent.EQUALITY_DELETES,
        rows=1,
        like=like,
        lower={},
        upper={},
        equality_ids=equality_ids,
    )


def delete_rows_by_position(
    table: Table, ids: Iterable[int], *, bounds: bool = True, per_file: bool = True
) -> Snapshot:
    """Delete rows by id through files of position deletes, in one ``delete`` snapshot.

    :param per_file: one delete file per data file; otherwise one per partition, which refers to several data files.
    """
    gone = set(ids)
    found: list[tuple[DataFile, int]] = []
    for task in table.refresh().scan().plan_files():
        with table.io.new_input(task.file.file_path).open() as stream:
            stored = pq.read_table(stream).column(0).to_pylist()
        found.extend((task.file, i) for i, row in enumerate(stored) if row in gone)
    groups: dict[Any, list[tuple[DataFile, int]]] = {}
    for file, position in found:
        key = (
            file.file_path if per_file else (file.spec_id, tuple(file.partition[i] for i in range(len(file.partition))))
        )
        groups.setdefault(key, []).append((file, position))
    deletes = [
        position_delete_file(table, [(f.file_path, i) for f, i in group], like=group[0][0], bounds=bounds)
        for group in groups.values()
    ]
    return commit_snapshot(table, Operation.DELETE, deletes=deletes)


class _DeleteManifestWriter(ManifestWriterV2):
    """Writes manifests of delete files, for which pyiceberg has no writer."""

    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


def commit_snapshot(
    table: Table,
    operation: Operation,
    *,
    added: Sequence[DataFile] = (),
    removed: Iterable[str] = (),
    deletes: Sequence[DataFile] = (),
    undeleted: bool = False,
    orphan: bool = False,
    branch: str = MAIN_BRANCH,
) -> Snapshot:
    """Commit one snapshot put together by hand, with any operation.

    :param added: data files, under the current spec.
    :param removed: paths of live data files.
    :param deletes: files of row-level deletes that are added.
    :param undeleted: take away all row-level delete files that are live.
    :param orphan: begin a new history without a parent.
    """
    metadata = table.refresh().metadata
    expected = metadata.refs[branch].snapshot_id if branch in metadata.refs else None
    parent = None if orphan else table.snapshot_by_name(branch)
    maker = _SnapshotMaker(table=table, snapshot_id=metadata.new_snapshot_id())
    manifests: list[ManifestFile] = []
    if added:
        entries = [maker.entry(ManifestEntryStatus.ADDED, f) for f in added]
        manifests.append(maker.write(metadata.default_spec_id, entries))
    for spec_id, group in itertools.groupby(sorted(deletes, key=lambda f: f.spec_id), key=lambda f: f.spec_id):
        entries = [maker.entry(ManifestEntryStatus.ADDED, f) for f in group]
        manifests.append(maker.write(spec_id, entries, ManifestContent.DELETES))
    if parent is not None:
        manifests.extend(maker.carry_over(parent, removed=set(removed), undeleted=undeleted))
    snapshot = maker.snapshot(operation, manifests, parent)
    table.catalog.commit_table(
        table,
        (AssertRefSnapshotId(ref=branch, snapshot_id=expected),),
        (
            AddSnapshotUpdate(snapshot=snapshot),
            SetSnapshotRefUpdate(ref_name=branch, type="branch", snapshot_id=snapshot.snapshot_id),
        ),
    )
    return head(table, branch)


@attrs.frozen(kw_only=True)
class _SnapshotMaker:
    """Writes the manifests and the manifest list of one snapshot."""

    table: Table
    snapshot_id: int
    tag: str = attrs.field(factory=lambda: uuid.uuid4().hex)
    numbers: Iterator[int] = attrs.field(factory=itertools.count)

    def location(self, name: str) -> str:
        return self.table.location_provider().new_metadata_location(name)

    def entry(self, status: ManifestEntryStatus, file: DataFile, old: ManifestEntry | None = None) -> ManifestEntry:
        return ManifestEntry.from_args(
            status=status,
            snapshot_id=old.snapshot_id
            if old is not None and status == ManifestEntryStatus.EXISTING
            else self.snapshot_id,
            sequence_number=None if old is None else old.sequence_number,
            file_sequence_number=None if old is None else old.file_sequence_number,
            data_file=file,
        )

    def write(
        self, spec_id: int, entries: Sequence[ManifestEntry], content: ManifestContent = ManifestContent.DATA
    ) -> ManifestFile:
        metadata = self.table.metadata
        output = self.table.io.new_output(self.location(f"{self.tag}-m{next(self.numbers)}.avro"))
        spec, schema = metadata.specs()[spec_id], metadata.schema()
        writer: ManifestWriter
        if content == ManifestContent.DATA:
            writer = write_manifest(metadata.format_version, spec, schema, output, self.snapshot_id, "deflate")
        else:
            writer = _DeleteManifestWriter(spec, schema, output, self.snapshot_id, "deflate")
        with writer:
            for entry in entries:
                writer.add_entry(entry)
        return writer.to_manifest_file()

    def carry_over(self, parent: Snapshot, *, removed: set[str], undeleted: bool) -> Iterator[ManifestFile]:
        """Yield the parent's manifests, rewritten where a file goes."""
        for manifest in parent.manifests(self.table.io):
            live = manifest.fetch_manifest_entry(self.table.io, discard_deleted=True)
            if not live:
                continue
            drops_all = undeleted and manifest.content == ManifestContent.DELETES
            if not drops_all and removed.isdisjoint(e.data_file.file_path for e in live):
                yield manifest
                continue
            deleted, existing = ManifestEntryStatus.DELETED, ManifestEntryStatus.EXISTING
            entries = [
                self.entry(deleted if drops_all or e.data_file.file_path in removed else existing, e.data_file, e)
                for e in live
            ]
            yield self.write(manifest.partition_spec_id, entries, manifest.content)

    def snapshot(self, operation: Operation, manifests: list[ManifestFile], parent: Snapshot | None) -> Snapshot:
        metadata = self.table.metadata
        location = self.location(f"snap-{self.snapshot_id}-{self.tag}.avro")
        sequence, parent_id = metadata.next_sequence_number(), None if parent is None else parent.snapshot_id
        output = self.table.io.new_output(location)
        with write_manifest_list(
            metadata.format_version, output, self.snapshot_id, parent_id, sequence, "deflate"
        ) as writer:
            writer.add_manifests(manifests)
        return Snapshot(
            snapshot_id=self.snapshot_id,
            parent_snapshot_id=parent_id,
            sequence_number=sequence,
            timestamp_ms=max(int(dt.datetime.now(UTC).timestamp() * 1000), metadata.last_updated_ms),
            manifest_list=location,
            summary=Summary(operation=operation),
            schema_id=metadata.current_schema_id,
        )


def without_metrics(file: DataFile, *, counts: bool = False) -> DataFile:
    """Take the column bounds from a file's manifest entry; ``counts`` keeps the null counts."""
    positions = {f.name: i for i, f in enumerate(DATA_FILE_TYPE[2].fields)}
    for name in ("lower_bounds", "upper_bounds", *(() if counts else ("null_value_counts", "value_counts"))):
        file[positions[name]] = {}
    return file


def append_without_bounds(table: Table, *rows: Row, counts: bool = False) -> Snapshot:
    """Append rows whose files tell no bounds; ``counts`` keeps null counts."""
    files = write_data(table.refresh(), arrow_rows(table, rows))
    return commit_snapshot(table, Operation.APPEND, added=[without_metrics(f, counts=counts) for f in files])


def replace_table(table: Table, *rows: Row) -> Snapshot:
    """Replace the table the way CREATE OR REPLACE AS does: same uuid, a history that starts anew."""
    return commit_snapshot(table, Operation.APPEND, added=write_data(table, arrow_rows(table, rows)), orphan=True)


def expire(table: Table, snapshot_ids: Iterable[int]) -> Table:
    """Expire snapshots the way pyiceberg does, which nulls the parent of their children."""
    table.refresh().maintenance.expire_snapshots().by_ids(list(snapshot_ids)).commit()
    return table.refresh()


def expire_dangling(table: Table, snapshot_ids: Iterable[int]) -> Table:
    """Forget snapshots in this handle only, keeping the parent ids of their children, as metadata written by Java has them."""
    gone = set(snapshot_ids)
    table.refresh()
    kept = [s for s in table.metadata.snapshots if s.snapshot_id not in gone]
    table.metadata = table.metadata.model_copy(update={"snapshots": kept})
    return table


def roll_back(table: Table, snapshot_id: int) -> Table:
    """Set ``main`` back to an ancestor."""
    table.manage_snapshots().rollback_to_snapshot(snapshot_id).commit()
    return table.refresh()


def rename_column(table: Table, old: str, new: str) -> Table:
    """Rename a column; its field id stays."""
    with table.update_schema() as update:
        update.rename_column(old, new)
    return table.refresh()
