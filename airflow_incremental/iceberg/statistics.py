"""What the manifests of a sealed snapshot say of its files, and what its process published before; no data file is opened.

Bounds are decoded to what they are stored as, not to dates and decimals: ten thousand files are compared in milliseconds.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

import attrs
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.manifest import DataFile, DataFileContent, ManifestEntry, ManifestEntryStatus
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import (
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    LongType,
    TimestampType,
    TimestamptzType,
)
from pyiceberg.utils.lazydict import LazyDict

from airflow_incremental.core.audit import Over
from airflow_incremental.core.statistics import PastPublish, Statistics
from airflow_incremental.iceberg import naming
from airflow_incremental.iceberg.build import snapshot_index
from airflow_incremental.iceberg.history import main_lineage
from airflow_incremental.iceberg.manifests import ManifestReader
from airflow_incremental.iceberg.reads import schema_at
from airflow_incremental.iceberg.state import records, words_of
from airflow_incremental.iceberg.touched import partition_of

_DAY_MICROS = 86_400_000_000
#: Types -> how a value of so many bytes is packed.
_CODES: tuple[tuple[tuple[type, ...], dict[int, str]], ...] = (
    ((IntegerType, LongType, DateType, TimestampType, TimestamptzType), {4: "i", 8: "q"}),
    ((FloatType, DoubleType), {4: "f", 8: "d"}),
)
Partition = tuple[Hashable, ...]


def statistics_of(table: Table, snapshot_id: int, own: Sequence[DataFile]) -> Callable[[Over], Statistics]:
    """Return what is known of each scope of a sealed snapshot; manifests are read when it is asked for, once.

    :param own: the files with the session's own rows, the scope ``rows``.
    """
    schema = schema_at(table, snapshot_id)

    @lru_cache(maxsize=1)
    def live() -> _Live:
        return _Live.of(table, snapshot_id)

    @lru_cache(maxsize=3)
    def found(over: Over) -> Statistics:
        if over == "rows":
            return _statistics(schema, own, deleted=0, partitions=lambda: live().partitions(touched=True))
        files = live().files
        if over == "table":
            return _statistics(schema, files, live().deleted, partitions=lambda: live().partitions(touched=False))
        files = [f for f, place in zip(files, live().places, strict=True) if place in live().touched]
        return _statistics(schema, files, live().deleted, partitions=lambda: live().partitions(touched=True))

    return found


def past_publishes(table: Table, process: str) -> Iterator[PastPublish]:
    """Yield the publishes of a process that wrote rows or could have, newest first, as far as ``main`` keeps its history.

    What was undone is left out, and so is what a person did.
    """
    for record in records(main_lineage(table), process):
        words = words_of(record.snapshot)
        if record.undone_by is None and naming.BY not in words and words.get(naming.KIND) != "positions":
            total = words.get("total-records")
            yield PastPublish(
                session=words[naming.SESSION],
                rows=int(words[naming.ROWS]),
                total=None if total is None else int(total),
            )


@attrs.frozen(kw_only=True)
class _Live:
    """The live data files of a snapshot."""

    files: Sequence[DataFile]
    #: Data sequence number of each.
    sequences: Sequence[int]
    #: Partitions in which the snapshot added or removed a file.
    touched: frozenset[Partition]
    deleted: int | None

    @classmethod
    def of(cls, table: Table, snapshot_id: int) -> _Live:
        reader = ManifestReader(table.io)
        (manifests,) = reader.lists([snapshot_index(table)[snapshot_id]])
        deleted: int | None = 0
        files: list[DataFile] = []
        sequences: list[int] = []
        touched: set[Partition] = set()
        for entry in reader.entries(manifests, lambda e: _counts(e, snapshot_id)):
            file = entry.data_file
            gone = entry.status == ManifestEntryStatus.DELETED
            if file.content != DataFileContent.DATA:
                # How many rows equality deletes hide, no metadata tells.
                known = file.content == DataFileContent.POSITION_DELETES
                if not gone and deleted is not None:
                    deleted = deleted + file.record_count if known else None
                continue
            if entry.snapshot_id == snapshot_id and entry.status != ManifestEntryStatus.EXISTING:
                touched.add(partition_of(file))
            if not gone:
                files.append(file)
                sequences.append(entry.sequence_number or 0)
        return cls(files=files, sequences=sequences, touched=frozenset(touched), deleted=deleted)

    @cached_property
    def places(self) -> list[Partition]:
        """The partition of each file."""
        return [partition_of(file) for file in self.files]

    def partitions(self, *, touched: bool) -> dict[Partition, int]:
        """Return the rows of partitions, the one written last first: of the touched ones, emptied ones too, or of all."""
        rows: dict[Partition, int] = dict.fromkeys(self.touched, 0) if touched else {}
        newest: dict[Partition, int] = {}
        for file, place, sequence in zip(self.files, self.places, self.sequences, strict=True):
            if touched and place not in self.touched:
                continue
            rows[place] = rows.get(place, 0) + file.record_count
            newest[place] = max(sequence, newest.get(place, 0))
        return {p: rows[p] for p in sorted(rows, key=lambda p: newest.get(p, 0), reverse=True)}


def _counts(entry: ManifestEntry, snapshot_id: int) -> bool:
    return entry.status != ManifestEntryStatus.DELETED or entry.snapshot_id == snapshot_id


def _statistics(
    schema: Schema, files: Sequence[DataFile], deleted: int | None, partitions: Callable[[], dict[Partition, int]]
) -> Statistics:
    def nulls(path: str) -> list[int | None]:
        return _said([f.null_value_counts for f in files], schema.find_field(path).field_id)

    def bounds(path: str) -> tuple[list[Any], list[Any]]:
        field = schema.find_field(path)
        lower = _said([f.lower_bounds for f in files], field.field_id)
        upper = _said([f.upper_bounds for f in files], field.field_id)
        return _decoded(field.field_type, lower), _decoded(field.field_type, upper)

    return Statistics(
        schema=schema_to_pyarrow(schema, include_field_ids=False),
        rows=[f.record_count for f in files],
        deleted=deleted,
        nulls=lru_cache(nulls),
        bounds=lru_cache(bounds),
        partitions=partitions,
    )


def _said(maps: Sequence[Mapping[int, Any] | None], field_id: int) -> list[Any]:
    """Return what each map says of a field; None where it says nothing, or is not there."""
    return [_lookup(m, field_id) if type(m) is LazyDict else (m or {}).get(field_id) for m in maps]


def _lookup(read: LazyDict[int, Any], field_id: int) -> Any:
    """Look one field up in a map as it was read: making a dict of each takes five times as long, and is asked one thing."""
    for block in read._contents:  # noqa: SLF001  keys and values take turns
        keys = block[::2]
        if field_id in keys:
            return block[2 * keys.index(field_id) + 1]
    return None


def _decoded(kind: IcebergType, stored: Sequence[bytes | None]) -> list[Any]:
    """Return bounds as numbers; those of types whose bounds are cut short, or have no order, as None.

    Files keep the bounds of the type that the column had when they were written, which may have had fewer bytes. What has one size
    throughout, as almost all columns have, is decoded in one go.
    """
    if isinstance(kind, DecimalType):
        return [int.from_bytes(raw, "big", signed=True) if raw else None for raw in stored]
    codes = next((codes for kinds, codes in _CODES if isinstance(kind, kinds)), {})
    sizes = {0 if raw is None else len(raw) for raw in stored}
    values: list[Any]
    if len(sizes) == 1 and (code := codes.get(*sizes)):
        values = list(struct.unpack(f"<{len(stored)}{code}", b"".join(stored)))  # type: ignore[arg-type]  # none is None
    else:
        values = [struct.unpack(f"<{codes[len(raw)]}", raw)[0] if raw and len(raw) in codes else None for raw in stored]
    if isinstance(kind, (FloatType, DoubleType)):
        # Old writers put NaN into bounds, which then say nothing.
        return [None if v != v else v for v in values]  # noqa: PLR0124
    if isinstance(kind, (TimestampType, TimestamptzType)) and 4 in sizes:  # noqa: PLR2004  days, from when it was a date
        return [v * _DAY_MICROS if raw and len(raw) == 4 else v for v, raw in zip(values, stored, strict=True)]  # noqa: PLR2004
    return values
