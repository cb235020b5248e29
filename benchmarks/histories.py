"""Tables with long histories, made in seconds: metadata as thousands of appends would have left it, written by hand.

What is real: the table's ``metadata.json`` with every snapshot (summary, log, parents); for the newest ``kept`` snapshots the
manifest list with an entry for every manifest of the table, and every manifest that these snapshots added with its entries (bounds,
counts, partition). What is not there: lists and manifests of older snapshots, which are named and counted but which nothing that is
measured opens, and the data files themselves, unless a caller makes them.
"""

from __future__ import annotations

import struct
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    PartitionFieldSummary,
    write_manifest,
)
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.serializers import ToOutputFile
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRef
from pyiceberg.table.snapshots import Operation, Snapshot, SnapshotLogEntry, Summary
from pyiceberg.transforms import HourTransform
from pyiceberg.typedef import Record
from pyiceberg.types import LongType, NestedField, StringType, TimestamptzType

from benchmarks.lists import Block, list_file

SCHEMA = Schema(
    NestedField(1, "id", LongType(), required=False),
    NestedField(2, "ts", TimestamptzType(), required=False),
    NestedField(3, "region", StringType(), required=False),
    NestedField(4, "v", LongType(), required=False),
)
BY_HOUR = PartitionSpec(PartitionField(source_id=2, field_id=1000, transform=HourTransform(), name="ts_hour"))

#: Hours since 1970 at which event times begin: 2024-01-01.
FIRST_HOUR = 473_352
HOUR_MICROS = 3_600_000_000
#: Name of the catalog, and of the Airflow connection to it: SQL catalogs keep the tables of each name apart.
CATALOG = "iceberg_default"
#: One more than the widest window that is measured.
KEPT = 101
_ROWS_PER_FILE = 10_000
_FILE_BYTES = 120_000


def places(home: Path) -> dict[str, str]:
    """Return the properties that say where a catalog below ``home`` keeps its database and its tables."""
    return {"uri": f"sqlite:///{home}/catalog.db", "warehouse": f"file://{home}/warehouse"}


def new_catalog(home: Path, **properties: str) -> SqlCatalog:
    """Return a catalog in a SQLite file with a warehouse beside it, as in a first deployment."""
    home.mkdir(parents=True, exist_ok=True)
    catalog = SqlCatalog(CATALOG, **places(home), **properties)
    for namespace in ("raw", "mart"):
        catalog.create_namespace_if_not_exists(namespace)
    return catalog


def data_file(path: str, hour: int, *, partitioned: bool = True, rows: int = _ROWS_PER_FILE) -> DataFile:
    """Return the manifest's view of a data file whose rows all lie in one hour (counted from ``FIRST_HOUR``)."""
    first = (FIRST_HOUR + hour) * HOUR_MICROS
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=Record(FIRST_HOUR + hour) if partitioned else Record(),
        record_count=rows,
        file_size_in_bytes=_FILE_BYTES,
        column_sizes={1: 40_000, 2: 40_000, 3: 400, 4: 39_600},
        value_counts=dict.fromkeys((1, 2, 3, 4), rows),
        null_value_counts=dict.fromkeys((1, 2, 3, 4), 0),
        nan_value_counts={},
        lower_bounds={1: _long(0), 2: _long(first), 3: b"eu", 4: _long(0)},
        upper_bounds={1: _long(rows), 2: _long(first + HOUR_MICROS - 1), 3: b"us", 4: _long(100)},
        key_metadata=None,
        split_offsets=[4],
        equality_ids=None,
        sort_order_id=None,
    )


def _long(value: int) -> bytes:
    return struct.pack("<q", value)


@attrs.frozen(kw_only=True)
class History:
    """What a table is to look like.

    :param snapshots: appends; before them comes one empty snapshot.
    :param files: data files of the whole table, spread evenly over the appends unless ``window_files`` says otherwise.
    :param window_files: data files each of the newest ``kept`` appends adds.
    :param manifests: manifests that hold the older files: one per append (None), or so many (as manifest merging leaves them).
    :param partitioned: whether the table is partitioned by the hour of ``ts``.
    :param summary: more summary properties of the n-th snapshot.
    :param properties: table properties.
    """

    snapshots: int
    files: int
    window_files: int | None = None
    manifests: int | None = None
    partitioned: bool = True
    summary: Callable[[int], Mapping[str, str]] = lambda _: {}
    properties: Mapping[str, str] = attrs.field(factory=dict)
    #: The n-th append's data files; the default makes them up.
    files_of: Callable[[int], Sequence[DataFile]] | None = None
    #: Write the manifests of the older appends too, for what reads the whole table.
    write_all: bool = False

    @property
    def kept(self) -> int:
        """How many of the newest snapshots can be read."""
        return min(KEPT, self.snapshots)

    def count(self, number: int) -> int:
        """Return how many files the n-th append (from 1) adds."""
        young = self.window_files if self.window_files is not None else self.files // self.snapshots
        if number > self.snapshots - self.kept:
            return young
        return (self.files - young * self.kept) // (self.snapshots - self.kept)


def make_table(catalog: Catalog, identifier: str, history: History) -> Table:
    """Create a table with a history and return it."""
    table = catalog.create_table(
        identifier,
        schema=SCHEMA,
        partition_spec=BY_HOUR if history.partitioned else PartitionSpec(),
        properties={"format-version": "2", **history.properties},
    )
    builder = _Builder(table=table, history=history)
    location = builder.write()
    catalog.drop_table(identifier)
    return catalog.register_table(identifier, location)


def copies(catalog: Catalog, table: Table, name: str) -> Iterator[str]:
    """Yield identifiers of tables that are as ``table`` was made, one per ``next``, whatever happened to the one before."""
    number = 0
    while True:
        number += 1
        identifier = f"{name}_{number}"
        catalog.register_table(identifier, table.metadata_location)
        yield identifier


@attrs.define(kw_only=True)
class _Builder:
    """Writes one history."""

    table: Table
    history: History
    tag: str = attrs.field(factory=lambda: uuid.uuid4().hex)

    def write(self) -> str:
        """Write lists, manifests and metadata; return where the metadata is."""
        history, metadata = self.history, self.table.metadata
        # Once a minute up to now, so that nothing is about to expire.
        newest = int(time.time() * 1000)
        ids = [4_000_000_000_000_000_000 + n for n in range(history.snapshots + 1)]
        times = [newest - 60_000 * (history.snapshots - n) for n in range(history.snapshots + 1)]
        snapshots = [
            Snapshot(
                snapshot_id=ids[n],
                parent_snapshot_id=ids[n - 1] if n else None,
                sequence_number=n + 1,
                timestamp_ms=times[n],
                manifest_list=self._list_path(n),
                summary=self._summary(n),
                schema_id=metadata.current_schema_id,
            )
            for n in range(history.snapshots + 1)
        ]
        self._write_lists(ids)
        changed = metadata.model_copy(
            update={
                "snapshots": snapshots,
                "snapshot_log": [
                    SnapshotLogEntry(snapshot_id=i, timestamp_ms=t) for i, t in zip(ids, times, strict=True)
                ],
                "refs": {MAIN_BRANCH: SnapshotRef.model_validate({"snapshot-id": ids[-1], "type": "branch"})},
                "current_snapshot_id": ids[-1],
                "last_sequence_number": history.snapshots + 1,
                "last_updated_ms": newest,
            }
        )
        location = self.table.location_provider().new_metadata_location(f"00000-{self.tag}.metadata.json")
        ToOutputFile.table_metadata(changed, self.table.io.new_output(location))
        return location

    def _list_path(self, number: int) -> str:
        return self.table.location_provider().new_metadata_location(f"snap-{number}-0-{self.tag}.avro")

    def _summary(self, number: int) -> Summary:
        """Return what an append says of itself."""
        added = self.history.count(number) if number else 0
        total = min(self.history.files, added * number)
        counts = {
            "added-files-size": added * _FILE_BYTES,
            "added-data-files": added,
            "added-records": added * _ROWS_PER_FILE,
            "changed-partition-count": 1,
            "total-data-files": total,
            "total-delete-files": 0,
            "total-records": total * _ROWS_PER_FILE,
            "total-files-size": total * _FILE_BYTES,
            "total-position-deletes": 0,
            "total-equality-deletes": 0,
        }
        return Summary(
            operation=Operation.APPEND, **{k: str(v) for k, v in counts.items()}, **self.history.summary(number)
        )

    def _write_lists(self, ids: Sequence[int]) -> None:
        """Write the manifest lists of the newest snapshots; each repeats the older manifests, encoded once."""
        history, io_ = self.history, self.table.io
        first = history.snapshots - history.kept + 1
        unopened = io_.new_output(self._list_path(0))
        older = Block.of(list(self._older(ids[:first])), unopened)
        younger = [Block.of([self._manifest(n, ids[n])], unopened) for n in range(first, history.snapshots + 1)]
        for position in range(-1, len(younger)):
            number = first + position
            with list_file(
                io_.new_output(self._list_path(number)),
                {
                    "snapshot-id": str(ids[number]),
                    "parent-snapshot-id": str(ids[number - 1]) if number else "null",
                    "sequence-number": str(number + 1),
                    "format-version": "2",
                },
            ) as listing:
                for block in (*younger[position::-1], older) if position >= 0 else (older,):
                    block.write(listing)

    def _older(self, ids: Sequence[int]) -> Iterator[ManifestFile]:
        """Yield the manifests of the older appends, which exist in lists only."""
        history = self.history
        if history.write_all:
            yield from (self._manifest(n, ids[n]) for n in range(1, len(ids)))
            return
        groups = history.manifests if history.manifests is not None else len(ids) - 1
        each = max(1, (len(ids) - 1) // max(1, groups))
        for start in range(1, len(ids), each):
            numbers = range(start, min(start + each, len(ids)))
            merged = len(numbers) > 1
            files = sum(history.count(n) for n in numbers)
            yield ManifestFile.from_args(
                manifest_path=self.table.location_provider().new_metadata_location(f"{self.tag}-m{numbers[-1]}.avro"),
                manifest_length=6_000 + 150 * files,
                partition_spec_id=self.table.metadata.default_spec_id,
                content=ManifestContent.DATA,
                sequence_number=numbers[-1] + 1,
                min_sequence_number=numbers[0] + 1,
                added_snapshot_id=ids[numbers[-1]],
                added_files_count=0 if merged else files,
                existing_files_count=files if merged else 0,
                deleted_files_count=0,
                added_rows_count=0 if merged else files * _ROWS_PER_FILE,
                existing_rows_count=files * _ROWS_PER_FILE if merged else 0,
                deleted_rows_count=0,
                partitions=[_hours(FIRST_HOUR + numbers[0], FIRST_HOUR + numbers[-1])] if history.partitioned else [],
                key_metadata=None,
            )

    def _manifest(self, number: int, snapshot_id: int) -> ManifestFile:
        """Write the manifest of one of the newest appends."""
        metadata, locations = self.table.metadata, self.table.location_provider()
        output = self.table.io.new_output(locations.new_metadata_location(f"{self.tag}-m{number}.avro"))
        with write_manifest(2, metadata.spec(), metadata.schema(), output, snapshot_id, "deflate") as writer:
            for file in self._files(number):
                writer.add_entry(
                    ManifestEntry.from_args(
                        status=ManifestEntryStatus.ADDED,
                        snapshot_id=snapshot_id,
                        sequence_number=None,
                        file_sequence_number=None,
                        data_file=file,
                    )
                )
        made = writer.to_manifest_file()
        made.sequence_number = made.min_sequence_number = number + 1
        return made

    def _files(self, number: int) -> Iterable[DataFile]:
        if self.history.files_of is not None:
            return self.history.files_of(number)
        partitioned = self.history.partitioned
        return (
            data_file(
                self.table.location_provider().new_data_location(f"{self.tag}-{number}-{i}.parquet"),
                number,
                partitioned=partitioned,
            )
            for i in range(self.history.count(number))
        )


def _hours(first: int, last: int) -> PartitionFieldSummary:
    return PartitionFieldSummary.from_args(
        contains_null=False,
        contains_nan=None,
        lower_bound=struct.pack("<i", first),
        upper_bound=struct.pack("<i", last),
    )
