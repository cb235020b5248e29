"""What a session reads: exactly the planned rows, from as few files as hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.types import StringType

from airflow_incremental.core.changes import ChangeSet
from airflow_incremental.core.errors import PlanExpired, TableError
from airflow_incremental.core.plan import SourcePlan
from airflow_incremental.core.ranges import EventRanges, TimeRange
from airflow_incremental.core.reads import SourceRead
from airflow_incremental.iceberg.changes import detect
from airflow_incremental.iceberg.lineage import position_of
from airflow_incremental.iceberg.reads import AddedFiles, read_files, read_ranges
from airflow_incremental.iceberg.scan import may_hold
from tests.support.tables import (
    append,
    append_without_bounds,
    at,
    delete_rows_by_position,
    expire,
    head,
    live_files,
    make_table,
    rename_column,
    repartition,
    utc_at,
)


@pytest.fixture
def table(catalog: Catalog) -> Table:
    """Hours 0, 5 and 30 (the next day) in partitions of days, then of hours."""
    found = make_table(catalog, partition_by=[("day", "ts")])
    append(found, (1, at(0)), (2, at(5)), (3, at(30)))
    repartition(found, [("hour", "ts")])
    append(found, (4, at(5.5)), (5, at(31)), (6, None))
    return found.refresh()


def span(start: float, end: float, *, nulls: bool = False) -> EventRanges:
    return EventRanges((TimeRange(utc_at(start), utc_at(end)),), nulls=nulls)


def opened(read: SourceRead) -> list[dict[str, Any]]:
    """Return all rows of the opened files, before the engine keeps and drops."""
    return [r for part in read.parts for r in part.batches().read_all().to_pylist()]


def ids(read: SourceRead) -> list[int]:
    return sorted(r["id"] for r in opened(read))


def ranges(table: Table, keep: EventRanges | None, snapshot_id: int | None = None) -> SourceRead:
    return read_ranges(table, "events", snapshot_id or head(table).snapshot_id, event_time="ts", keep=keep)


def changes_since(table: Table, position: int) -> tuple[ChangeSet, SourcePlan]:
    base = position_of(table, table.metadata.snapshots[position])
    pinned = position_of(table, head(table))
    found = detect(table, base, pinned.snapshot_id, event_time="ts", mode="append")
    return found, SourcePlan(name="e", table="raw.events", base=base, pinned=pinned, derivation=found.derivation)


def test_a_whole_snapshot(table: Table) -> None:
    read = ranges(table, None)
    assert ids(read) == [1, 2, 3, 4, 5, 6]
    assert (read.name, read.event_time, read.files, read.rows) == ("events", "ts", 5, 6)
    assert read.schema.names == ["id", "ts", "name"]
    assert read.field_ids == (1, 2, 3)
    assert read.bytes == sum(f.file_size_in_bytes for f in live_files(table))


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (span(0, 1), [1, 2]),  # the whole file of the first day: the engine keeps hour 0
        (span(5, 6), [1, 2, 4]),
        (span(6, 24), []),
        (span(30, 31), [3]),
        (span(24, 48), [3, 5]),
        (EventRanges(nulls=True), [6]),
        (span(31, 32, nulls=True), [5, 6]),
    ],
)
def test_ranges_open_only_files_that_may_hold_some(table: Table, keep: EventRanges, expected: list[int]) -> None:
    read = ranges(table, keep)
    assert ids(read) == expected
    assert all(part.keep in (keep, None) and part.drop is None for part in read.parts)


def test_rows_of_files_that_lie_inside_are_not_looked_at(table: Table) -> None:
    assert [part.keep for part in ranges(table, span(24, 48)).parts] == [None]
    assert [part.keep for part in ranges(table, span(0, 1)).parts] == [span(0, 1)]
    assert {part.keep for part in ranges(table, span(5, 48)).parts} == {None, span(5, 48)}


def test_parts_tell_the_paths_an_engine_may_open(table: Table) -> None:
    (part,) = ranges(table, span(24, 48)).parts
    assert part.paths is not None
    assert sorted(i for p in part.paths for i in pq.read_table(p).column("id").to_pylist()) == [3, 5]


def test_streams_can_be_opened_again(table: Table) -> None:
    (part,) = ranges(table, None).parts
    assert part.batches().read_all().num_rows == part.batches().read_all().num_rows == 6


def test_files_with_row_level_deletes_come_as_batches(table: Table) -> None:
    delete_rows_by_position(table, [1])
    read = ranges(table, None)
    with_paths, without = read.parts
    assert with_paths.paths is not None
    assert without.paths is None
    assert without.batches().read_all().column("id").to_pylist() == [2]
    assert ids(read) == [2, 3, 4, 5, 6]


def test_files_without_bounds_are_opened_unless_their_partition_rules_them_out(table: Table) -> None:
    append_without_bounds(table, (7, at(3)))
    assert ids(ranges(table, span(3, 4))) == [1, 2, 7]
    assert ids(ranges(table, span(30, 31))) == [3]
    repartition(table, [])
    append_without_bounds(table, (8, at(3)))
    assert ids(ranges(table, span(30, 31))) == [3, 8]


@pytest.mark.parametrize(
    ("ranges", "nulls", "wanted", "expected"),
    [
        (span(1, 2), 0, span(1, 3), True),
        (span(1, 2), 0, span(2, 3), False),
        (span(1, 2), 0, span(2, 3, nulls=True), False),
        (span(1, 2), 3, span(2, 3, nulls=True), True),
        (span(1, 2), None, span(2, 3, nulls=True), True),
        (span(1, 2), None, span(2, 3), False),
        (None, 0, span(2, 3), True),
        (EventRanges(), 2, span(2, 3), False),
    ],
)
def test_a_file_is_left_out_only_if_it_is_known_to_hold_nothing(
    ranges: EventRanges | None, nulls: int | None, wanted: EventRanges, *, expected: bool
) -> None:
    assert may_hold(ranges, nulls, wanted) is expected


def test_an_older_snapshot(table: Table) -> None:
    assert ids(ranges(table, None, table.metadata.snapshots[0].snapshot_id)) == [1, 2, 3]


def test_a_table_without_snapshots_has_no_rows(catalog: Catalog) -> None:
    read = read_ranges(make_table(catalog), "events", None, event_time="ts", keep=None)
    assert (read.parts, read.rows, read.schema.names) == ((), 0, ["id", "ts", "name"])


def test_added_rows(table: Table) -> None:
    changes, plan = changes_since(table, 0)
    assert ids(AddedFiles.of(table, plan, changes, event_time="ts").read()) == [4, 5, 6]
    kept = AddedFiles.of(table, plan, changes, event_time="ts").read(keep=span(5, 6))
    assert ids(kept) == [4]
    dropped = AddedFiles.of(table, plan, changes, event_time="ts").read(drop=span(5, 6))
    assert ids(dropped) == [5, 6]
    assert [p.drop for p in dropped.parts] == [span(5, 6)]
    assert ids(AddedFiles.of(table, plan, changes, event_time="ts").read(drop=span(5, 6, nulls=True))) == [5]
    # A file that is partly dropped is opened; the engine leaves its rows out.
    assert ids(AddedFiles.of(table, plan, changes, event_time="ts").read(drop=span(5, 5.5))) == [4, 5, 6]


def test_given_files(table: Table) -> None:
    read = read_files(table, "rows", live_files(table)[:1])
    assert (read.name, read.files, read.event_time) == ("rows", 1, None)
    assert len(ids(read)) == read.rows


def test_columns_are_those_of_the_pinned_snapshot(table: Table) -> None:
    first, last = table.metadata.snapshots[0].snapshot_id, head(table).snapshot_id
    with table.update_schema() as update:
        update.add_column("extra", StringType())
    rename_column(table, "ts", "happened_at")
    for snapshot_id in (first, last):
        read = read_ranges(table, "events", snapshot_id, event_time="happened_at", keep=span(5, 6))
        assert read.schema.names == ["id", "ts", "name"]
        assert read.event_time == "ts"
        assert 2 in ids(read)
    append(table, (7, at(5)))
    read = read_ranges(table, "events", head(table).snapshot_id, event_time="happened_at", keep=span(5, 6))
    assert read.schema.names == ["id", "happened_at", "name", "extra"]
    assert read.event_time == "happened_at"
    assert {r["id"]: r["happened_at"] for r in opened(read)} == {1: at(0), 2: at(5), 4: at(5.5), 7: at(5)}


def test_rows_come_in_the_reads_schema_whatever_the_file_holds(catalog: Catalog, tmp_path: Path) -> None:
    mapping = '[{"field-id":1,"names":["id"]},{"field-id":2,"names":["ts"]},{"field-id":3,"names":["name"]}]'
    table = make_table(catalog, properties={"schema.name-mapping.default": mapping})
    path = tmp_path / "plain.parquet"
    rows = {"ts": pa.array([at(1)], pa.timestamp("ms")), "id": pa.array([7], pa.int32()), "name": ["x"]}
    pq.write_table(pa.table(rows), path)
    table.add_files([f"file://{path}"])
    read = ranges(table.refresh(), None)
    (part,) = read.parts
    assert part.paths is None
    stream = part.batches()
    assert stream.schema == read.schema
    assert stream.read_all().to_pylist() == [{"id": 7, "ts": at(1), "name": "x"}]


def test_a_file_of_another_table_is_refused_by_name(table: Table, tmp_path: Path) -> None:
    path = tmp_path / "foreign.parquet"
    schema = pa.schema(
        [
            pa.field("id", pa.int64(), metadata={"PARQUET:field_id": "7"}),
            pa.field("ts", pa.timestamp("us"), metadata={"PARQUET:field_id": "2"}),
        ]
    )
    pq.write_table(pa.table({"id": [70], "ts": [at(5)]}, schema=schema), path)
    table.add_files([f"file://{path}"])
    # What happens without the check: the id is lost without a word.
    assert None in table.scan().to_arrow().column("id").to_pylist()
    with pytest.raises(TableError, match=r"foreign.parquet of table raw\.events has its column 'id' under field id 7"):
        ranges(table, None)
    with pytest.raises(TableError, match="its columns would be read as NULL"):
        AddedFiles.of(table, changes_since(table, 1)[1], changes_since(table, 1)[0], event_time="ts").read()


def test_what_is_gone_expires_the_plan(table: Table) -> None:
    first = table.metadata.snapshots[0].snapshot_id
    path = live_files(table)[0].file_path
    table.io.delete(path)
    with pytest.raises(PlanExpired, match=r"data file .* which the plan reads, is gone"):
        ranges(table, None)
    expire(table, [first])
    with pytest.raises(PlanExpired, match=rf"snapshot {first} of table raw\.events"):
        ranges(table, None, first)
