"""Event times of files from their manifest entries."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.types import DateType, IcebergType, TimestamptzType

from airflow_incremental.core.errors import TableError
from airflow_incremental.core.ranges import MAX_TIME, MICROSECOND, MIN_TIME, UTC, EventRanges, TimeRange
from airflow_incremental.iceberg.bounds import EventColumn, half_open, moment_of, referenced_file
from tests.support.tables import (
    append,
    append_without_bounds,
    at,
    live_entries,
    live_files,
    make_table,
    position_delete_file,
    rename_column,
    repartition,
    utc_at,
)


def span(start: float, end: float) -> EventRanges:
    return EventRanges((TimeRange(utc_at(start), utc_at(end)),))


def only(table: Table) -> DataFile:
    (file,) = live_files(table.refresh())
    return file


def told(table: Table, file: DataFile, column: str = "ts") -> tuple[EventRanges | None, int | None]:
    found = EventColumn.of(table, column)
    return found.ranges(file, file.spec_id), found.nulls(file, file.spec_id)


def test_bounds_become_half_open_to_the_microsecond(catalog: Catalog) -> None:
    table = make_table(catalog)
    append(table, (1, at(1.5)), (2, at(3)), (3, None))
    expected = EventRanges((TimeRange(utc_at(1.5), utc_at(3) + MICROSECOND),))
    assert told(table, only(table)) == (expected, 1)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (TimestamptzType(), (utc_at(2), utc_at(4)), TimeRange(utc_at(2), utc_at(4) + MICROSECOND)),
        (DateType(), (dt.date(2024, 1, 2), dt.date(2024, 1, 4)), TimeRange(utc_at(24), utc_at(4 * 24))),
        (
            DateType(),
            (dt.date(1969, 12, 31),) * 2,
            TimeRange(dt.datetime(1969, 12, 31, tzinfo=UTC), dt.datetime(1970, 1, 1, tzinfo=UTC)),
        ),
    ],
)
def test_every_type_of_event_time(
    catalog: Catalog, kind: IcebergType, values: tuple[Any, Any], expected: TimeRange
) -> None:
    table = make_table(catalog, time_type=kind)
    append(table, (1, values[0]), (2, values[1]))
    assert told(table, only(table)) == (EventRanges((expected,)), 0)


def test_the_ends_of_time_do_not_overflow(catalog: Catalog) -> None:
    table = make_table(catalog, time_type=DateType())
    append(table, (1, dt.date(1, 1, 1)), (2, dt.date(9999, 12, 31)))
    assert told(table, only(table))[0] == EventRanges((TimeRange(MIN_TIME, MAX_TIME),))
    assert moment_of(2**62) == MAX_TIME
    assert moment_of(-(2**62)) == MIN_TIME
    assert half_open(MAX_TIME, MAX_TIME) == TimeRange(MAX_TIME - MICROSECOND, MAX_TIME)
    assert half_open(MIN_TIME, MIN_TIME) == TimeRange(MIN_TIME, MIN_TIME + MICROSECOND)


def test_nothing_but_nulls_is_no_range(catalog: Catalog) -> None:
    table = make_table(catalog)
    append(table, (1, None), (2, None))
    assert told(table, only(table)) == (EventRanges(), 2)


def test_a_renamed_column_keeps_its_bounds(catalog: Catalog) -> None:
    table = make_table(catalog)
    append(table, (1, at(1)))
    rename_column(table, "ts", "happened_at")
    assert told(table, only(table), "happened_at")[0] == EventRanges((TimeRange(utc_at(1), utc_at(1) + MICROSECOND),))


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        ("hour", span(26, 27)),
        ("day", span(24, 48)),
        ("month", EventRanges((TimeRange(utc_at(0), dt.datetime(2024, 2, 1, tzinfo=UTC)),))),
        ("year", EventRanges((TimeRange(utc_at(0), dt.datetime(2025, 1, 1, tzinfo=UTC)),))),
        ("identity", EventRanges((TimeRange(utc_at(26.5), utc_at(26.5) + MICROSECOND),))),
    ],
)
def test_without_bounds_the_partition_tells(catalog: Catalog, transform: str, expected: EventRanges) -> None:
    table = make_table(catalog, partition_by=[(transform, "ts")])
    append_without_bounds(table, (1, at(26.5)), (2, None))
    by_nulls = {told(table, f)[1]: told(table, f)[0] for f in live_files(table)}
    # Rows without event time have a partition of their own, so the other one holds none.
    assert by_nulls == {0: expected, 1: EventRanges()}


def test_an_identity_partition_of_a_date(catalog: Catalog) -> None:
    table = make_table(catalog, partition_by=[("identity", "ts")], time_type=DateType())
    append_without_bounds(table, (1, dt.date(2024, 1, 2)))
    assert told(table, only(table)) == (span(24, 48), 0)


def test_other_partitions_tell_nothing(catalog: Catalog) -> None:
    for name, partition_by in {"none": [], "bucket": [("bucket[4]", "ts")], "other": [("identity", "name")]}.items():
        table = make_table(catalog, f"raw.{name}", partition_by=partition_by)
        append_without_bounds(table, (1, at(1)))
        assert told(table, only(table)) == (None, None)


def test_each_file_is_told_under_its_own_spec(catalog: Catalog) -> None:
    table = make_table(catalog, partition_by=[("day", "ts")])
    append_without_bounds(table, (1, at(30)))
    repartition(table, [("hour", "ts")])
    append_without_bounds(table, (2, at(30)))
    repartition(table, [])
    append_without_bounds(table, (3, at(30)))
    assert {told(table, f)[0] for f in live_files(table)} == {span(24, 48), span(30, 31), None}


def test_null_counts_without_bounds(catalog: Catalog) -> None:
    table = make_table(catalog)
    append_without_bounds(table, (1, at(1)), (2, None), counts=True)
    assert told(table, only(table)) == (None, 1)


def test_a_required_column_has_no_nulls(catalog: Catalog) -> None:
    table = make_table(catalog, bounds=False)
    append_without_bounds(table, (1, at(1)))
    column = EventColumn.of(table, "ts")
    assert column.nulls(only(table), 0) is None
    with table.update_schema(allow_incompatible_changes=True) as update:
        update.update_column("ts", required=True)
    assert EventColumn.of(table.refresh(), "ts").nulls(only(table), 0) == 0


def test_four_byte_bounds_are_days(catalog: Catalog) -> None:
    table = make_table(catalog)
    append(table, (1, at(1)))
    file = only(table)
    file.lower_bounds[2] = file.upper_bounds[2] = (19724).to_bytes(4, "little")
    assert told(table, file)[0] == EventRanges((TimeRange(utc_at(24), utc_at(24) + MICROSECOND),))
    file.lower_bounds[2] = b"odd"
    assert told(table, file)[0] is None


def test_manifest_summaries_span_their_partitions(catalog: Catalog) -> None:
    table = make_table(catalog, partition_by=[("bucket[2]", "id"), ("day", "ts")])
    append(table, (1, at(5)), (2, at(53)), (3, None))
    ((manifest, _), *_) = live_entries(table.refresh())
    column = EventColumn.of(table, "ts")
    found = column.manifest_ranges(manifest)
    assert found == EventRanges((TimeRange(utc_at(0), utc_at(72)),), nulls=True)
    unpartitioned = make_table(catalog, "raw.plain")
    append(unpartitioned, (1, at(5)))
    assert column.manifest_ranges(live_entries(unpartitioned.refresh())[0][0]) is None


def test_columns_are_refused_by_name_and_type(catalog: Catalog) -> None:
    table = make_table(catalog)
    with pytest.raises(TableError, match="has no column 'when'; it has id, ts, name") as missing:
        EventColumn.of(table, "when")
    assert missing.value.hint == "correct event_time"
    with pytest.raises(TableError, match=r"event_time 'name' of table raw.events is of type string"):
        EventColumn.of(table, "name")


def test_a_name_of_an_older_schema_finds_the_column(catalog: Catalog) -> None:
    table = make_table(catalog)
    old = table.schema()
    rename_column(table, "ts", "happened_at")
    assert (
        EventColumn.of(table, "ts", schema=old).field_id
        == EventColumn.of(table, "happened_at", schema=old).field_id
        == 2
    )


def test_the_data_file_a_delete_file_refers_to(catalog: Catalog) -> None:
    table = make_table(catalog)
    append(table, (1, at(1)))
    append(table, (2, at(2)))
    first, second = live_files(table)
    one = position_delete_file(table, [(first.file_path, 0)], like=first)
    both = position_delete_file(table, [(first.file_path, 0), (second.file_path, 0)], like=first)
    blind = position_delete_file(table, [(first.file_path, 0)], like=first, bounds=False)
    assert referenced_file(one) == first.file_path
    assert referenced_file(both) is None
    assert referenced_file(blind) is None
    assert referenced_file(first) is None
