"""What Spark is told to read: as few reads as can be, of no more than has to be read."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.types import IntegerType, ListType, LongType, MapType, NestedField, StringType, StructType

from airflow_incremental.core.changes import ChangeSet
from airflow_incremental.core.errors import PlanExpired, TableError
from airflow_incremental.core.plan import SourcePlan
from airflow_incremental.core.ranges import EventRanges, TimeRange
from airflow_incremental.core.spark_job import SparkRead
from airflow_incremental.core.spec import Mode
from airflow_incremental.core.watermark import SourcePosition
from airflow_incremental.iceberg.changes import detect
from airflow_incremental.iceberg.lineage import head_of, position_of
from airflow_incremental.iceberg.spark_reads import added_reads, changed_reads, snapshot_reads
from tests.support.spark_reads import spark_rows
from tests.support.tables import (
    append,
    at,
    commit_snapshot,
    compact,
    delete_rows_by_position,
    equality_delete_file,
    expire,
    head,
    live_files,
    make_table,
    overwrite_files,
    rename_column,
    sql_catalog,
    utc_at,
)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """A table in which everything was consumed up to its head."""
    found = make_table(sql_catalog(tmp_path))
    append(found, (1, at(0)), (2, at(1)))
    return found


def here(table: Table) -> SourcePosition:
    return position_of(table, head_of(table.refresh(), "main"))


def planned(
    table: Table, base: SourcePosition | None, mode: Mode = "append", lost: str = "fail"
) -> tuple[SourcePlan, ChangeSet]:
    pinned = here(table)
    changes = detect(table, base, pinned.snapshot_id, event_time="ts", mode=mode, on_lost_watermark=lost)  # type: ignore[arg-type]
    source = SourcePlan(name="events", table="raw.events", base=base, pinned=pinned, derivation=changes.derivation)
    return source, changes


def reads_since(table: Table, base: SourcePosition | None, drop: EventRanges | None = None) -> list[SparkRead]:
    source, changes = planned(table, base)
    return added_reads(table, source, changes.without_rewrites()[0], event_time="ts", drop=drop)


def ids(table: Table, reads: list[SparkRead]) -> list[int]:
    columns = list(reads[0].columns.values()) if reads else []
    return sorted(row[0] for row in spark_rows(table, reads, columns, "ts").elements())


def test_one_read_for_each_run_of_appends(table: Table) -> None:
    base = here(table)
    append(table, (3, at(2)))
    second = append(table, (4, at(3)))
    moved = compact(table)
    last = append(table, (5, at(4)))
    reads = reads_since(table, base)
    assert [(r.start, r.end) for r in reads] == [
        (base.snapshot_id, second.snapshot_id),
        (moved.snapshot_id, last.snapshot_id),
    ]
    assert all((r.files, r.not_files, r.keep, r.drop) == (None,) * 4 for r in reads)
    assert reads[0].columns == {"id": "id", "ts": "ts", "name": "name"}
    assert ids(table, reads) == [3, 4, 5]


def test_the_first_run_reads_the_pinned_snapshot(table: Table) -> None:
    source, changes = planned(table, None)
    reads = added_reads(table, source, changes, event_time="ts")
    assert reads == snapshot_reads(table, source)
    assert [(r.snapshot, r.files, r.keep) for r in reads] == [(here(table).snapshot_id, None, None)]


def test_nothing_new_and_an_empty_table_are_no_reads(table: Table, tmp_path: Path) -> None:
    assert reads_since(table, here(table)) == []
    empty = make_table(sql_catalog(tmp_path), "raw.empty")
    source, changes = planned(empty, None)
    assert added_reads(empty, source, changes, event_time="ts") == []
    assert snapshot_reads(empty, source) == []


def test_rows_deleted_within_the_window_are_read_from_a_snapshot_with_their_deletes(table: Table) -> None:
    base = here(table)
    append(table, (3, at(2)), (4, at(2.5)))
    append(table, (5, at(9)))
    masked = next(f.file_path for f in live_files(table) if f.record_count == 2 and f.file_path not in _of(table, base))
    deleted = delete_rows_by_position(table, [3])
    appended, by_name = reads_since(table, base)
    assert appended.not_files == (masked,)
    assert (by_name.snapshot, by_name.files) == (deleted.snapshot_id, (masked,))
    assert by_name.keep is not None
    assert by_name.keep.covers(TimeRange(utc_at(2), utc_at(2.5)))
    assert not by_name.keep.overlaps(TimeRange(utc_at(3), utc_at(9.5))), "Iceberg prunes by event time"
    assert ids(table, [appended, by_name]) == [4, 5]


def test_masked_rows_that_were_compacted_away_are_read_from_before(table: Table) -> None:
    base = here(table)
    append(table, (3, at(2)), (4, at(2)))
    deleted = delete_rows_by_position(table, [3])
    compact(table)
    (read,) = reads_since(table, base)
    assert read.snapshot == deleted.snapshot_id
    assert ids(table, [read]) == [4]


def test_what_came_and_went_is_left_out_of_its_run(table: Table) -> None:
    base = here(table)
    for n in range(3, 7):
        append(table, (n, at(n)))
    gone = [f.file_path for f in live_files(table) if f.file_path not in _of(table, base)]
    commit_snapshot(table, Operation.DELETE, removed=gone[:1])
    (read,) = reads_since(table, base)
    assert read.not_files == (gone[0],)
    assert len(ids(table, [read])) == 3
    commit_snapshot(table, Operation.DELETE, removed=gone[1:3])
    (read,) = reads_since(table, base)
    assert (read.files, read.not_files) == ((gone[3],), None), "the shorter of the two lists"
    assert len(ids(table, [read])) == 1


def test_an_overwrite_that_removes_nothing_is_read_by_its_files(table: Table) -> None:
    base = here(table)
    overwrite_files(table, removed=[], rows=[(3, at(2))])
    last = append(table, (4, at(3)))
    by_run, by_name = reads_since(table, base)
    assert by_run.end == last.snapshot_id
    assert by_name.files is not None
    assert len(by_name.files) == 1
    assert ids(table, [by_run, by_name]) == [3, 4]


def test_new_rows_that_were_compacted_alone_are_read_as_they_were_appended(table: Table) -> None:
    base = here(table)
    append(table, (3, at(2)))
    last = append(table, (4, at(3)))
    new = [f.file_path for f in live_files(table) if f.file_path not in _of(table, base)]
    compact(table, new)
    compact(table, [f.file_path for f in live_files(table) if f.file_path not in _of(table, base)])
    (read,) = reads_since(table, base)
    assert (read.start, read.end, read.files, read.not_files) == (base.snapshot_id, last.snapshot_id, None, None)
    assert ids(table, [read]) == [3, 4]


def test_rows_that_come_with_their_ranges_are_dropped(table: Table) -> None:
    base = here(table)
    append(table, (3, at(2)))
    append(table, (4, at(7)))
    drop = EventRanges((TimeRange(utc_at(2), utc_at(3)),))
    (read,) = reads_since(table, base, drop)
    assert read.drop == drop
    assert ids(table, [read]) == [4]
    assert reads_since(table, base, EventRanges.everything()) == []


def test_columns_are_named_as_they_are_where_they_are_read(table: Table) -> None:
    base = here(table)
    append(table, (3, at(2)))
    deleted = delete_rows_by_position(append_pair(table), [4])
    source, changes = planned(table, base)
    rename_column(table, "name", "title")
    with table.update_schema() as update:
        update.add_column("note", StringType())
    by_run, by_name = added_reads(table.refresh(), source, changes, event_time="ts")
    assert by_run.columns == {"id": "id", "ts": "ts", "title": "name"}, "an incremental read has today's columns"
    assert (by_name.snapshot, by_name.columns) == (deleted.snapshot_id, {"id": "id", "ts": "ts", "name": "name"})
    assert ids(table, [by_run, by_name]) == [3, 5]


def append_pair(table: Table) -> Table:
    append(table, (4, at(5)), (5, at(6)))
    return table


def test_a_column_that_was_dropped_since_is_read_from_the_pinned_snapshot(table: Table) -> None:
    base = here(table)
    append(table, (3, at(2)))
    source, changes = planned(table, base)
    with table.update_schema() as update:
        update.delete_column("name")
    (read,) = added_reads(table.refresh(), source, changes, event_time="ts")
    assert (read.start, read.snapshot) == (None, source.pinned.snapshot_id)
    assert spark_rows(table, [read], ["id", "name"], "ts").keys() == {(3, "row 3")}


def test_nested_columns_that_evolve(table: Table) -> None:
    """Wider types and new fields are found by name, renamed ones are not."""
    with table.update_schema() as update:
        update.add_column("n", IntegerType())
        update.add_column("s", StructType(NestedField(100, "x", IntegerType(), required=False)))
        update.add_column("l", ListType(101, IntegerType(), element_required=False))
        update.add_column("m", MapType(102, StringType(), 103, IntegerType(), value_required=False))
    append(table, (3, at(2)))
    base = here(table)
    append(table, (4, at(3)), (5, at(3)))
    delete_rows_by_position(table, [4])
    compact(table)
    with table.update_schema() as update:
        update.update_column("n", LongType())
        update.update_column("s.x", LongType())
        update.update_column("l.element", LongType())
        update.update_column("m.value", LongType())
        update.add_column(("s", "y"), StringType())
    append(table.refresh(), (6, at(4)))
    assert ids(table, reads_since(table, base)) == [5, 6]
    with table.update_schema() as update:
        update.rename_column("s.y", "z")
    append(table.refresh(), (7, at(4)))
    assert ids(table, reads_since(table, base)) == [5, 6, 7], "there was none of that name"
    with table.update_schema() as update:
        update.rename_column("s.x", "w")
    append(table.refresh(), (8, at(4)))
    with pytest.raises(TableError, match="fields of a nested column were renamed"):
        reads_since(table, base)


def test_a_nested_field_that_was_dropped_since_is_read_from_the_pinned_snapshot(table: Table) -> None:
    with table.update_schema() as update:
        update.add_column(
            "s",
            StructType(
                NestedField(100, "x", IntegerType(), required=False),
                NestedField(101, "y", IntegerType(), required=False),
            ),
        )
    base = here(table)
    append(table.refresh(), (3, at(2)))
    source, changes = planned(table, base)
    with table.update_schema() as update:
        update.delete_column("s.y")
    (read,) = added_reads(table.refresh(), source, changes, event_time="ts")
    assert (read.start, read.snapshot) == (None, source.pinned.snapshot_id)


def test_a_position_that_is_gone_is_read_by_files(table: Table) -> None:
    """There is no snapshot an incremental read could start from."""
    base = here(table)
    append(table, (3, at(2)))
    append(table, (4, at(3)))
    assert base.snapshot_id is not None
    expire(table, [base.snapshot_id])
    source, changes = planned(table, base, lost="added_only")
    assert changes.derivation == "sequence"
    reads = added_reads(table, source, changes, event_time="ts")
    assert [(r.snapshot, len(r.files or ())) for r in reads] == [(source.pinned.snapshot_id, 2)]
    assert ids(table, reads) == [3, 4]


def test_a_snapshot_of_the_window_is_gone(table: Table) -> None:
    base = here(table)
    middle = append(table, (3, at(2)))
    append(table, (4, at(3)))
    source, changes = planned(table, base)
    expire(table, [middle.snapshot_id])
    with pytest.raises(PlanExpired, match=str(middle.snapshot_id)):
        added_reads(table, source, changes, event_time="ts")


def test_changed_rows_of_a_rewritten_file(table: Table) -> None:
    base = here(table)
    (old,) = live_files(table)
    overwrite_files(table, removed=[old.file_path], rows=[(1, at(0)), (2, at(8))])
    source, changes = planned(table, base, "overwrite")
    added, removed = changed_reads(table, source, changes, event_time="ts")
    assert [(r.snapshot, r.files) for r in removed] == [(base.snapshot_id, (old.file_path,))]
    assert (ids(table, added), ids(table, removed)) == ([1, 2], [1, 2])
    source = attrs.evolve(source, base=None)
    assert changed_reads(table, source, changes, event_time="ts")[1] == [], "nothing is known to have gone"


def test_equality_deletes_are_sparks_to_apply(table: Table) -> None:
    """They cannot be read here, but say where to look: in the two snapshots."""
    base = here(table)
    (old,) = live_files(table)
    deletes = equality_delete_file(table, like=old, equality_ids=[1])
    commit_snapshot(table, Operation.DELETE, deletes=[deletes])
    source = SourcePlan(name="events", table="raw.events", base=base, pinned=here(table), derivation="lineage")
    changes = detect(table, base, head(table).snapshot_id, event_time=None, mode="overwrite")
    added, removed = changed_reads(table, source, changes, event_time="ts")
    assert [(r.snapshot, r.files) for r in (*added, *removed)] == [
        (head(table).snapshot_id, (old.file_path,)),
        (base.snapshot_id, (old.file_path,)),
    ]


def _of(table: Table, position: SourcePosition) -> set[str]:
    return {t.file.file_path for t in table.scan(snapshot_id=position.snapshot_id).plan_files()}
