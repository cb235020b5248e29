"""Event times read from the column itself: exact ranges, missing bounds, exact counts of late rows."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import FileFormat
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.types import DateType, TimestamptzType

from airflow_incremental.core.changes import ChangeSet, FileChange
from airflow_incremental.core.errors import TableError, UnknownRange
from airflow_incremental.core.ranges import MICROSECOND, EventRanges, Grain, TimeRange
from airflow_incremental.iceberg.bounds import EventColumn
from airflow_incremental.iceberg.changes import detect
from airflow_incremental.iceberg.event_times import TimesReader, count_before, spans
from airflow_incremental.iceberg.lineage import SnapshotIndex, position_of
from tests.support.tables import (
    append,
    append_without_bounds,
    at,
    commit_snapshot,
    head,
    live_files,
    make_table,
    overwrite_files,
    rename_column,
    utc_at,
)

MAPPING = '[{"field-id":1,"names":["id"]},{"field-id":2,"names":["ts","time"]},{"field-id":3,"names":["name"]}]'


def since(table: Table, snapshot_id: int | None, **options: Any) -> ChangeSet:
    defaults: dict[str, Any] = {"event_time": "ts", "mode": "overwrite", "grain": Grain.HOUR}
    base = None if snapshot_id is None else position_of(table, SnapshotIndex(table.metadata).get(snapshot_id))
    return detect(table, base, head(table).snapshot_id, **(defaults | options))


def moments(*hours: float, nulls: bool = False) -> EventRanges:
    return EventRanges(tuple(TimeRange(utc_at(h), utc_at(h) + MICROSECOND) for h in hours), nulls=nulls)


@pytest.fixture
def table(catalog: Catalog) -> Table:
    """An unpartitioned table with one row."""
    found = make_table(catalog)
    append(found, (0, at(0)))
    return found


def test_spans_go_from_the_first_to_the_last_event_of_each_unit() -> None:
    times = pa.chunked_array([pa.array([at(2.5), at(2), None, at(7)], pa.timestamp("us"))])
    expected = EventRanges((TimeRange(utc_at(2), utc_at(2.5) + MICROSECOND), *moments(7).ranges))
    assert spans(times, Grain.HOUR) == expected
    whole = EventRanges((TimeRange(utc_at(2), utc_at(7) + MICROSECOND),))
    assert spans(times, Grain.DAY) == spans(times, None) == whole
    for grain in (*Grain, None):
        assert spans(pa.chunked_array([pa.nulls(2, pa.timestamp("us"))]), grain) == EventRanges()


def test_a_file_of_distant_hours_changes_just_those(table: Table) -> None:
    base = head(table).snapshot_id
    append(table, (1, at(2)), (2, at(3)), (3, at(6)), (4, None))
    changes = since(table, base)
    assert changes.changed == moments(2, 3, 6, nulls=True)
    assert changes.columns_read == 1
    coarse = since(table, base, grain=None)
    assert coarse.changed == EventRanges((TimeRange(utc_at(2), utc_at(6) + MICROSECOND),), nulls=True)
    assert coarse.columns_read == 0


def test_a_file_within_one_unit_is_not_read(table: Table) -> None:
    base = head(table).snapshot_id
    append(table, (1, at(2)), (2, at(2.75)))
    assert since(table, base).columns_read == 0
    append(table, (3, at(2.9)), (4, at(3)))
    assert since(table, base).columns_read == 1
    assert since(table, base, grain=Grain.DAY).columns_read == 0


def test_both_sides_of_an_overwrite_are_exact(table: Table) -> None:
    append(table, (1, at(2)), (2, at(9)))
    base = head(table).snapshot_id
    overwrite_files(table, removed=[live_files(table)[0].file_path], rows=[(3, at(4)), (4, at(20))])
    assert since(table, base).changed == moments(2, 9, 4, 20)


def test_in_append_only_rewrites_are_read(table: Table) -> None:
    base = head(table).snapshot_id
    append(table, (1, at(2)), (2, at(9)))
    changes = since(table, base, mode="append")
    assert changes.columns_read == 0
    base = head(table).snapshot_id
    overwrite_files(table, removed=[live_files(table)[0].file_path], rows=[(3, at(4)), (4, at(20))])
    changes = since(table, base, mode="append")
    assert changes.rewrite_ranges() == moments(2, 9, 4, 20)
    assert changes.columns_read == 2


def test_a_first_run_is_as_exact_as_it_is_asked_to_be(table: Table) -> None:
    append(table, (1, at(2)), (2, at(9)))
    assert since(table, None).changed == moments(0, 2, 9)
    assert since(table, None, grain=None).columns_read == 0


def test_a_removed_file_that_is_gone_falls_back_to_its_bounds(table: Table, caplog: pytest.LogCaptureFixture) -> None:
    append(table, (1, at(2)), (2, at(9)))
    base = head(table).snapshot_id
    path = live_files(table)[0].file_path
    overwrite_files(table, removed=[path], rows=[(3, at(4))])
    table.io.delete(path)
    assert since(table, base).changed == EventRanges((TimeRange(utc_at(2), utc_at(9) + MICROSECOND),))
    assert "are taken from its manifest entry, the file is gone" in caplog.text


class TestMissingBounds:
    def test_the_column_is_read(self, table: Table) -> None:
        base = head(table).snapshot_id
        append_without_bounds(table, (1, at(2)), (2, None), (3, at(9)))
        changes = since(table, base)
        assert changes.changed == moments(2, 9, nulls=True)
        assert [c.nulls for c in changes.added] == [1]
        whole = since(table, base, grain=None)
        assert whole.changed == EventRanges((TimeRange(utc_at(2), utc_at(9) + MICROSECOND),), nulls=True)
        assert since(table, None, mode="append").changed.span() == TimeRange(utc_at(0), utc_at(9) + MICROSECOND)

    @pytest.mark.parametrize("mode", ["append", "overwrite"])
    def test_or_refused_if_the_process_says_so(self, table: Table, mode: str) -> None:
        base = head(table).snapshot_id
        append_without_bounds(table, (1, at(2)))
        with pytest.raises(UnknownRange, match="on_missing_bounds='fail'") as unknown:
            since(table, base, mode=mode, on_missing_bounds="fail")
        assert "set on_missing_bounds='read'" in unknown.value.hint

    def test_a_partition_is_enough_where_reading_is_refused(self, catalog: Catalog) -> None:
        table = make_table(catalog, partition_by=[("hour", "ts")])
        append(table, (0, at(0)))
        base = head(table).snapshot_id
        append_without_bounds(table, (1, at(2.5)))
        changes = since(table, base, on_missing_bounds="fail")
        assert changes.changed == EventRanges((TimeRange(utc_at(2), utc_at(3)),))

    def test_a_file_that_is_gone_too_is_an_error(self, table: Table) -> None:
        append_without_bounds(table, (1, at(2)))
        base = head(table).snapshot_id
        path = live_files(table)[0].file_path
        overwrite_files(table, removed=[path], rows=[(3, at(4))])
        table.io.delete(path)
        with pytest.raises(UnknownRange, match="and the file cannot be read"):
            since(table, base)
        changes = since(table, base, mode="append")
        assert [c.path for c in changes.unknown] == [path]

    def test_a_file_older_than_the_column_holds_nulls(self, table: Table) -> None:
        with table.update_schema() as update:
            update.add_column("seen", TimestamptzType())
        changes = since(table.refresh(), None, event_time="seen")
        assert changes.changed == EventRanges(nulls=True)
        assert [c.nulls for c in changes.added] == [1]


class TestColumns:
    """Every form in which a column can be stored."""

    def times(self, table: Table, column: str = "ts") -> list[dt.datetime | None]:
        reader = TimesReader.of(table, EventColumn.of(table, column))
        return [t for f in live_files(table.refresh()) for t in reader.times(f).to_pylist()]

    def test_a_renamed_column_is_found_by_id(self, table: Table) -> None:
        rename_column(table, "ts", "happened_at")
        assert self.times(table, "happened_at") == [at(0)]

    def test_zones_come_out_as_utc(self, catalog: Catalog) -> None:
        table = make_table(catalog, time_type=TimestamptzType())
        append(table, (1, utc_at(5)), (2, None))
        assert self.times(table) == [at(5), None]

    def test_dates_come_out_as_midnight(self, catalog: Catalog) -> None:
        table = make_table(catalog, time_type=DateType())
        append(table, (1, dt.date(2024, 1, 2)))
        assert self.times(table) == [at(24)]

    @pytest.mark.parametrize("unit", ["ms", "us", "ns"])
    def test_units_and_files_without_ids(self, catalog: Catalog, tmp_path: Path, unit: str) -> None:
        table = make_table(catalog, properties={"schema.name-mapping.default": MAPPING})
        path = tmp_path / "plain.parquet"
        rows = {"id": pa.array([1]), "time": pa.array([at(5)], pa.timestamp(unit)), "name": pa.array(["a"])}
        pq.write_table(pa.table(rows), path)
        reader = TimesReader.of(table, EventColumn.of(table, "ts"))
        assert reader.times_at(f"file://{path}").to_pylist() == [at(5)]

    def test_orc(self, catalog: Catalog, tmp_path: Path) -> None:
        table = make_table(catalog, properties={"schema.name-mapping.default": MAPPING})
        append(table, (1, at(5)))
        (like,) = live_files(table.refresh())
        path = tmp_path / "file.orc"
        orc.write_table(pa.table({"id": [7], "ts": pa.array([at(7)], pa.timestamp("us")), "name": ["x"]}), path)
        like[1], like[2] = f"file://{path}", FileFormat.ORC
        reader = TimesReader.of(table, EventColumn.of(table, "ts"))
        assert reader.times(like).to_pylist() == [at(7)]

    def test_a_foreign_file_is_refused(self, table: Table, tmp_path: Path) -> None:
        path = tmp_path / "foreign.parquet"
        schema = pa.schema([pa.field("ts", pa.timestamp("us"), metadata={"PARQUET:field_id": "9"})])
        pq.write_table(pa.table({"ts": [at(1)]}, schema=schema), path)
        with pytest.raises(
            TableError, match=r"foreign.parquet of table raw\.events has its column 'ts' under field id 9"
        ):
            TimesReader.of(table, EventColumn.of(table, "ts")).times_at(f"file://{path}")


class TestCountBefore:
    @pytest.fixture
    def change(self, table: Table) -> FileChange:
        base = head(table).snapshot_id
        append(table, (1, at(2)), (2, at(3)), (3, at(3)), (4, None), (5, at(8)))
        (found,) = since(table, base, mode="append").added
        return found

    @pytest.mark.parametrize(("hour", "count"), [(1, 0), (2, 0), (2.5, 1), (3, 1), (3.5, 3), (8, 3), (8.5, 4), (99, 4)])
    def test_counts_rows_with_an_earlier_event_time(
        self, table: Table, change: FileChange, hour: float, count: int
    ) -> None:
        assert count_before(table, change, utc_at(hour), "ts") == count

    def test_bounds_answer_where_they_can(self, table: Table, change: FileChange) -> None:
        table.io.delete(change.path)
        assert count_before(table, change, utc_at(2), "ts") == 0
        assert count_before(table, change, utc_at(99), "ts") == 4
        # Nobody can tell any more; all that might be late are counted.
        assert count_before(table, change, utc_at(3), "ts") == 4

    def test_without_bounds_the_column_is_counted(self, table: Table) -> None:
        snapshot = append_without_bounds(table, (1, at(2)), (2, None))
        base = snapshot.parent_snapshot_id
        (change,) = since(table, base, mode="append", event_time=None).added
        assert (change.ranges, change.nulls) == (None, None)
        assert count_before(table, change, utc_at(5), "ts") == 1
        assert count_before(table, change, utc_at(1), "ts") == 0
        table.io.delete(change.path)
        assert count_before(table, change, utc_at(1), "ts") == 2


def test_deletes_of_snapshots_that_add_nothing_need_no_event_time(table: Table) -> None:
    base = head(table).snapshot_id
    commit_snapshot(table, Operation.DELETE, removed=[live_files(table)[0].file_path])
    changes = since(table, base, mode="append", event_time=None)
    assert changes.rows_removed == 1
