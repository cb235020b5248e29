"""The keys of a ``merge``: which files may hold rows of them, and which rows do.

A file is left out if its partition (bucket, identity, truncate of a key column) or its bounds rule out every key. What is left is
searched by the key columns alone.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, reduce
from typing import Any

import attrs
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import BucketTransform, IdentityTransform, TruncateTransform
from pyiceberg.types import DoubleType, FloatType, NestedField, TimeType, UUIDType

from airflow_incremental.core.errors import TableError

#: Column that numbers rows while they are matched.
_ROW = "__incremental_row"


def key_fields(table: Table, columns: Sequence[str], schema: Schema, *, what: str) -> tuple[NestedField, ...]:
    """Return the columns that make up a key.

    :param what: of what they are the keys, for errors.
    :raises TableError: one is missing, or of a type whose values are not told apart the same way everywhere.
    """
    found = []
    for name in columns:
        field = next((f for f in schema.fields if f.name == name), None)
        if field is None:
            raise TableError(
                f"the {what} {'.'.join(table.name())} has no column {name!r}, which is a key",
                expected=f"the keys among its columns {', '.join(f.name for f in schema.fields)}",
                hint="correct keys; if a source holds them under other names, write IcebergSource(key_columns=[...])",
            )
        if not field.field_type.is_primitive or isinstance(field.field_type, (FloatType, DoubleType)):
            raise TableError(
                f"the key {name!r} of the {what} {'.'.join(table.name())} is of type {field.field_type}",
                expected="whole numbers, decimals, strings, dates, times, UUIDs, booleans or bytes: equal ones are the same key",
                hint="choose other keys, or cast the column in the table",
            )
        found.append(field)
    return tuple(found)


@attrs.frozen(eq=False)
class KeySet:
    """The keys a session computes: distinct, without nulls, ordered by the first column, under the target's names and types."""

    rows: pa.Table = attrs.field(repr=False)

    @classmethod
    def of(cls, rows: pa.Table) -> KeySet:
        """Return the distinct keys among rows."""
        names = rows.column_names
        # Arrow compares and sorts what an extension type (UUIDs) is stored as, not the type itself.
        stored = pa.table([_plain(c) for c in rows.columns], names=names)
        distinct = stored.group_by(names).aggregate([]).sort_by(names[0])
        columns = [_typed(distinct.column(f.name), f.type) for f in rows.schema]
        return cls(pa.table(columns, schema=rows.schema))

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    @cached_property
    def values(self) -> tuple[list[Any], ...]:
        """The values of each key column, as manifests hold them."""
        return tuple(_internal(c).to_pylist() for c in self.rows.columns)

    @cached_property
    def _members(self) -> frozenset[Any]:
        return frozenset(self.values[0] if len(self.values) == 1 else zip(*self.values, strict=True))

    def mask(self, batch: pa.RecordBatch | pa.Table, columns: Sequence[str]) -> Any:
        """Return a boolean array that says of each row whether it has one of the keys.

        :param columns: columns of the batch that hold the key, in the order of the keys' columns.
        """
        keys = [_plain(c) for c in self.rows.columns]
        given = [_plain(batch.column(c)) for c in columns]
        given = [g.cast(k.type) for g, k in zip(given, keys, strict=True)]
        if len(self) > batch.num_rows:
            # Arrow hashes all keys anew for every batch: a second and more for millions of them.
            values = [_internal(g).to_pylist() for g in given]
            wanted = self._members
            found = [v in wanted for v in (values[0] if len(values) == 1 else zip(*values, strict=True))]
            return pa.array(found, pa.bool_())
        if len(keys) == 1:
            return pc.is_in(given[0], value_set=keys[0])
        names = [f"k{i}" for i in range(len(keys))]
        numbers = pa.array(range(batch.num_rows), pa.int64())
        rows = pa.table([*given, numbers], names=[*names, _ROW])
        matched = rows.join(pa.table(keys, names=names), keys=names, join_type="left semi", use_threads=False)
        return pc.is_in(numbers, value_set=matched.column(_ROW).combine_chunks())


@attrs.frozen(kw_only=True, eq=False)
class KeyIndex:
    """Keys in the form in which one table's manifests speak of them."""

    fields: tuple[NestedField, ...]
    #: Values of the first key column, in their order.
    first: list[Any] = attrs.field(repr=False)
    #: Values of the others, by the order of the first.
    rest: tuple[Any, ...] = attrs.field(repr=False)
    #: Spec id -> position in the partition tuple -> partition values that hold keys.
    partitions: Mapping[int, Mapping[int, frozenset[Any]]] = attrs.field(repr=False)

    @classmethod
    def of(cls, table: Table, columns: Sequence[str], schema: Schema, keys: KeySet) -> KeyIndex:
        """Prepare keys for a table.

        :param columns: the table's columns that hold the key, in the order of the keys' columns.
        """
        fields = key_fields(table, columns, schema, what="table")
        values = keys.values
        partitions: dict[int, dict[int, frozenset[Any]]] = {}
        for spec in table.metadata.partition_specs:
            told = partitions.setdefault(spec.spec_id, {})
            for position, part in enumerate(spec.fields):
                at = next((i for i, f in enumerate(fields) if f.field_id == part.source_id), None)
                if at is not None and _tells(part.transform, fields[at]):
                    told[position] = _transformed(part.transform, fields[at], values[at])
        rest = tuple(_ordered(c) for c in keys.rows.columns[1:])
        return cls(fields=fields, first=values[0], rest=rest, partitions=partitions)

    def may_hold(self, file: DataFile) -> bool:
        """Say whether a file may hold a row of one of the keys."""
        for position, wanted in self.partitions.get(file.spec_id, {}).items():
            if file.partition[position] not in wanted:
                return False
        first, *others = [bounds_of(file, field) for field in self.fields]
        start = 0 if first is None else bisect_left(self.first, first[0])
        end = len(self.first) if first is None else bisect_right(self.first, first[1])
        if start >= end:
            return False
        within = [
            pc.and_(pc.greater_equal(part, _bound(low, part.type)), pc.less_equal(part, _bound(high, part.type)))
            for part, (low, high) in (
                (array.slice(start, end - start), ends)
                for array, ends in zip(self.rest, others, strict=True)
                if ends is not None
            )
        ]
        return not within or bool(pc.any(reduce(pc.and_, within)).as_py())


@attrs.frozen(kw_only=True)
class KeySpans:
    """Where keys can lie, as far as the manifests of the files that hold them tell: a superset, found without opening a file."""

    #: Spans of the first key column, disjoint and in order; None if a file does not tell.
    spans: tuple[tuple[Any, Any], ...] | None

    @classmethod
    def of(cls, files: Iterable[tuple[DataFile, NestedField]]) -> KeySpans:
        """Take in the bounds of files of changed rows, each with the first key column of its table."""
        told = [bounds_of(file, field) for file, field in files]
        if any(b is None for b in told):
            return cls(spans=None)
        merged: list[tuple[Any, Any]] = []
        for low, high in sorted(b for b in told if b is not None):
            if merged and low <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
            else:
                merged.append((low, high))
        return cls(spans=tuple(merged))

    def may_hold(self, file: DataFile, field: NestedField) -> bool:
        """Say whether a file may hold a row of one of the keys."""
        bounds = bounds_of(file, field)
        if self.spans is None or bounds is None:
            return True
        at = bisect_right(self.spans, bounds[1], key=lambda s: s[0])
        return at > 0 and bool(self.spans[at - 1][1] >= bounds[0])


def bounds_of(file: DataFile, field: NestedField) -> tuple[Any, Any] | None:
    """Return the least and the greatest value a file's manifest entry allows in a column; None if it does not tell."""
    if isinstance(field.field_type, UUIDType):
        return None  # writers have disagreed on their order
    lower, upper = (file.lower_bounds or {}).get(field.field_id), (file.upper_bounds or {}).get(field.field_id)
    if lower is None or upper is None:
        return None
    kind: Any = field.field_type
    return from_bytes(kind, lower), from_bytes(kind, upper)


def scan_bytes(file: DataFile, fields: Sequence[NestedField]) -> int:
    """Return how many bytes of a file its key columns take; all of it if that is not known."""
    sizes = file.column_sizes or {}
    if any(f.field_id not in sizes for f in fields):
        return int(file.file_size_in_bytes)
    return sum(sizes[f.field_id] for f in fields)


def _plain(array: Any) -> Any:
    """Return values without the Arrow extension type that UUIDs have, and without chunks."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    return array.storage if isinstance(array, pa.ExtensionArray) else array


def _typed(column: pa.ChunkedArray, kind: pa.DataType) -> Any:
    """Return stored values under their type again."""
    array = column.combine_chunks()
    return pa.ExtensionArray.from_storage(kind, array) if isinstance(kind, pa.ExtensionType) else array


def _internal(column: pa.Array | pa.ChunkedArray) -> Any:
    """Return values in the form in which manifests hold them: days and microseconds since 1970, bytes of UUIDs."""
    array = _plain(column)
    kind = array.type
    if pa.types.is_date32(kind):
        return array.cast(pa.int32())
    if pa.types.is_timestamp(kind):
        return array.cast(pa.timestamp("us", kind.tz)).cast(pa.int64())
    return array.cast(pa.time64("us")).cast(pa.int64()) if pa.types.is_time(kind) else array


def _ordered(column: pa.ChunkedArray) -> Any:
    """Return values in a form in which Arrow compares them with bounds, which of bytes may be cut short."""
    array = _internal(column)
    if pa.types.is_boolean(array.type):
        return array.cast(pa.int8())
    return array.cast(pa.binary()) if pa.types.is_fixed_size_binary(array.type) else array


def _bound(value: Any, kind: pa.DataType) -> pa.Scalar:
    return pa.scalar(int(value) if isinstance(value, bool) else value, kind)


def _tells(transform: Any, field: NestedField) -> bool:
    known = isinstance(transform, (BucketTransform, IdentityTransform, TruncateTransform))
    return known and not isinstance(field.field_type, (UUIDType, TimeType))


def _transformed(transform: Any, field: NestedField, values: Sequence[Any]) -> frozenset[Any]:
    """Return the partition values of keys; of buckets no more than there are."""
    apply = transform.transform(field.field_type)
    found: set[Any] = set()
    for value in values:
        found.add(apply(value))
        if isinstance(transform, BucketTransform) and len(found) == transform.num_buckets:
            break
    return frozenset(found)
