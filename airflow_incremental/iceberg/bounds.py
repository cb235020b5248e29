"""Which event times a file holds, as far as its manifest entry tells: column bounds, null counts, partition values.

Columns are found by field id, so a renamed column keeps its history. Bounds are inclusive and ignore nulls; ranges are
half-open.
"""

from __future__ import annotations

import datetime as dt
import struct
from collections.abc import Callable, Mapping
from functools import lru_cache

import attrs
from pyiceberg.manifest import DataFile, DataFileContent, ManifestFile
from pyiceberg.partitioning import PartitionField
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import DayTransform, HourTransform, IdentityTransform, MonthTransform, YearTransform
from pyiceberg.types import DateType, TimestampType, TimestamptzType

from airflow_incremental.core.errors import TableError
from airflow_incremental.core.ranges import EPOCH, MAX_TIME, MICROSECOND, MIN_TIME, EventRanges, TimeRange

_DAY_MICROS = 86_400_000_000
_HOUR_MICROS = 3_600_000_000
#: Reserved field id of ``file_path`` in files of position deletes.
_PATH_FIELD_ID = 2147483546


def moment_of(micros: int) -> dt.datetime:
    """Return a time from microseconds since 1970; what lies outside the years 1 to 9999 is taken to the nearest end."""
    try:
        return EPOCH + dt.timedelta(microseconds=micros)
    except OverflowError:
        return MIN_TIME if micros < 0 else MAX_TIME


def half_open(first: dt.datetime, end: dt.datetime) -> TimeRange:
    """Return ``[first, end)``, never empty at the very end of what a time can be."""
    return TimeRange(
        min(first, MAX_TIME - MICROSECOND), max(end, first + MICROSECOND) if first < MAX_TIME else MAX_TIME
    )


@lru_cache(maxsize=4096)
def _ranges(first: int, end: int) -> EventRanges:
    """Return the range of micros ``[first, end)``; cached because the files of one landing often share it."""
    return EventRanges((half_open(moment_of(first), moment_of(end)),))


def _month(ordinal: int) -> int:
    """Return the micros at which a month (counted from 1970-01) starts."""
    year, month = 1970 + ordinal // 12, ordinal % 12 + 1
    if not MIN_TIME.year <= year <= MAX_TIME.year:
        return -(2**62) if year < 1 else 2**62
    return (dt.datetime(year, month, 1, tzinfo=EPOCH.tzinfo) - EPOCH) // MICROSECOND


@attrs.frozen(kw_only=True)
class PartitionTime:
    """A partition field on the event time: where its value stands in the partition tuple, and which micros a value means."""

    position: int
    span: Callable[[int], tuple[int, int]] = attrs.field(eq=False)


@attrs.frozen(kw_only=True)
class EventColumn:
    """The event-time column of a table, by field id, with the partition fields that tell something about it."""

    name: str
    field_id: int
    is_date: bool
    required: bool
    #: Spec id -> fields, finest first.
    partitions: Mapping[int, tuple[PartitionTime, ...]] = attrs.field(eq=False)

    @classmethod
    def of(cls, table: Table, name: str, *, schema: Schema | None = None) -> EventColumn:
        """Find the column.

        :param schema: schema the name is looked up in first, such as a snapshot's; the table's current one comes
            second.
        :raises TableError: there is no such column, or it is not a date, timestamp or timestamp with zone.
        """
        schemas = [s for s in (schema, table.schema()) if s is not None]
        field = next((f for s in schemas for f in s.fields if f.name == name), None)
        if field is None:
            raise TableError(
                f"table {'.'.join(table.name())} has no column {name!r}; it has {', '.join(f.name for f in schemas[-1].fields)}",
                expected="the event_time column, at the top level of the table",
                hint="correct event_time",
            )
        if not isinstance(field.field_type, (DateType, TimestampType, TimestamptzType)):
            raise TableError(
                f"event_time {name!r} of table {'.'.join(table.name())} is of type {field.field_type}",
                expected="date, timestamp or timestamptz",
                hint="name a column that says when the event happened, or add one",
            )
        is_date = isinstance(field.field_type, DateType)
        return cls(
            name=name,
            field_id=field.field_id,
            is_date=is_date,
            required=field.required,
            partitions={
                spec.spec_id: _partition_times(spec.fields, field.field_id, is_date=is_date)
                for spec in table.metadata.partition_specs
            },
        )

    def by_bounds(self, file: DataFile) -> EventRanges | None:
        """Return the range between a file's bounds, or None if it has none (nothing but nulls gives no range at all)."""
        lower, upper = (file.lower_bounds or {}).get(self.field_id), (file.upper_bounds or {}).get(self.field_id)
        first, last = self._micros(lower), self._micros(upper)
        if first is None or last is None:
            nulls = (file.null_value_counts or {}).get(self.field_id)
            return EventRanges() if nulls is not None and nulls == file.record_count else None
        return _ranges(first, last + (_DAY_MICROS if self.is_date else 1))

    def by_partition(self, file: DataFile, spec_id: int) -> EventRanges | None:
        """Return the range of a file's partition under its own spec, or None if it is not partitioned by the event time."""
        for field in self.partitions.get(spec_id, ()):
            value = file.partition[field.position]
            if value is None:
                return EventRanges()
            return _ranges(*field.span(value))
        return None

    def ranges(self, file: DataFile, spec_id: int) -> EventRanges | None:
        """Return the event times a data file holds, or a superset, without the null flag; None is unknown."""
        found = self.by_bounds(file)
        return self.by_partition(file, spec_id) if found is None else found

    def nulls(self, file: DataFile, spec_id: int) -> int | None:
        """Return how many rows have no event time; None is unknown."""
        if self.required:
            return 0
        counted = (file.null_value_counts or {}).get(self.field_id)
        if counted is not None:
            return counted
        for field in self.partitions.get(spec_id, ()):
            return file.record_count if file.partition[field.position] is None else 0
        return None

    def manifest_ranges(self, manifest: ManifestFile) -> EventRanges | None:
        """Return the event times of all partitions a manifest lists, null flag included; None if its summaries do not tell."""
        summaries = manifest.partitions
        for field in self.partitions.get(manifest.partition_spec_id, ()):
            if not summaries or len(summaries) <= field.position:
                return None
            summary = summaries[field.position]
            low, high = _integer(summary.lower_bound), _integer(summary.upper_bound)
            if low is None or high is None:
                return EventRanges(nulls=True) if summary.contains_null else None
            spanned = _ranges(field.span(low)[0], field.span(high)[1])
            return attrs.evolve(spanned, nulls=summary.contains_null)
        return None

    def _micros(self, bound: bytes | None) -> int | None:
        value = _integer(bound)
        if value is None or bound is None:
            return None
        # Four bytes are days, which a column that was a date before it became a timestamp still has in its old files.
        return value * _DAY_MICROS if len(bound) == 4 else value  # noqa: PLR2004


def _integer(raw: bytes | None) -> int | None:
    """Read a bound: Iceberg stores days and partition ordinals as 4-byte and micros as 8-byte little-endian integers."""
    if raw is None:
        return None
    if len(raw) == 8:  # noqa: PLR2004
        return int(struct.unpack("<q", raw)[0])
    return int(struct.unpack("<i", raw)[0]) if len(raw) == 4 else None  # noqa: PLR2004


def _partition_times(fields: tuple[PartitionField, ...], field_id: int, *, is_date: bool) -> tuple[PartitionTime, ...]:
    """Return the fields of a spec whose values are spans of event time, finest first; void and bucket are none."""

    def days(value: int) -> tuple[int, int]:
        return value * _DAY_MICROS, (value + 1) * _DAY_MICROS

    spans: tuple[tuple[type, Callable[[int], tuple[int, int]]], ...] = (
        (IdentityTransform, days if is_date else lambda v: (v, v + 1)),
        (HourTransform, lambda v: (v * _HOUR_MICROS, (v + 1) * _HOUR_MICROS)),
        (DayTransform, days),
        (MonthTransform, lambda v: (_month(v), _month(v + 1))),
        (YearTransform, lambda v: (_month(v * 12), _month(v * 12 + 12))),
    )
    return tuple(
        PartitionTime(position=position, span=span)
        for kind, span in spans
        for position, field in enumerate(fields)
        if field.source_id == field_id and isinstance(field.transform, kind)
    )


def referenced_file(file: DataFile) -> str | None:
    """Return the one data file that a file of position deletes refers to, or None if it may refer to several."""
    if file.content != DataFileContent.POSITION_DELETES:
        return None
    lower, upper = (file.lower_bounds or {}).get(_PATH_FIELD_ID), (file.upper_bounds or {}).get(_PATH_FIELD_ID)
    # Bounds of strings may be cut short, and then differ; equal ones are whole.
    return lower.decode() if lower and lower == upper else None
