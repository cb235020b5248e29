"""Row-level deletes in a source: what they touch, and what is left to read."""

from __future__ import annotations

from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation

from airflow_incremental.core.changes import ChangeSet
from airflow_incremental.core.errors import TableError, UnknownRange
from airflow_incremental.core.plan import SourcePlan
from airflow_incremental.core.ranges import MICROSECOND, EventRanges, Grain, TimeRange
from airflow_incremental.iceberg.changes import detect
from airflow_incremental.iceberg.lineage import SnapshotIndex, position_of
from airflow_incremental.iceberg.reads import AddedFiles, read_ranges
from tests.support.tables import (
    append,
    at,
    commit_snapshot,
    compact,
    delete_rows_by_position,
    equality_delete_file,
    head,
    live_files,
    make_table,
    utc_at,
)


def since(table: Table, snapshot_id: int | None, **options: Any) -> ChangeSet:
    defaults: dict[str, Any] = {"event_time": "ts", "mode": "overwrite", "grain": Grain.HOUR}
    base = None if snapshot_id is None else position_of(table, SnapshotIndex(table.metadata).get(snapshot_id))
    return detect(table, base, head(table).snapshot_id, **(defaults | options))


def moments(*hours: float) -> EventRanges:
    return EventRanges(tuple(TimeRange(utc_at(h), utc_at(h) + MICROSECOND) for h in hours))


def ids(table: Table, changes: ChangeSet) -> list[int]:
    pinned = position_of(table, head(table))
    plan = SourcePlan(name="events", table="raw.events", base=None, pinned=pinned, derivation=changes.derivation)
    read = AddedFiles.of(table, plan, changes, event_time="ts").read()
    return sorted(i for part in read.parts for i in part.batches().read_all().column("id").to_pylist())


@pytest.mark.parametrize(("bounds", "per_file"), [(True, True), (False, True), (True, False)])
def test_position_deletes_touch_exactly_the_rows_they_name(catalog: Catalog, *, bounds: bool, per_file: bool) -> None:
    table = make_table(catalog)
    append(table, (1, at(0)), (2, at(9)))
    append(table, (3, at(20)), (4, at(30)), (5, None))
    base = head(table).snapshot_id
    delete_rows_by_position(table, [2, 3], bounds=bounds, per_file=per_file)
    changes = since(table, base)
    assert changes.changed == moments(9, 20)
    assert (len(changes.added), len(changes.removed), changes.rows_removed) == (0, 0, 2)


def test_deleted_rows_without_event_time_touch_the_nulls(catalog: Catalog) -> None:
    table = make_table(catalog)
    append(table, (1, at(0)), (2, None))
    base = head(table).snapshot_id
    delete_rows_by_position(table, [2])
    assert since(table, base).changed == EventRanges(nulls=True)


def test_the_partition_tells_without_reading_anything(catalog: Catalog) -> None:
    table = make_table(catalog, partition_by=[("hour", "ts")])
    append(table, (1, at(3.2)), (2, at(3.4)), (3, None))
    base = head(table).snapshot_id
    delete_rows_by_position(table, [1])
    changes = since(table, base)
    assert changes.changed == EventRanges((TimeRange(utc_at(3), utc_at(4)),))
    assert changes.columns_read == 0
    delete_rows_by_position(table, [3])
    assert since(table, head(table).parent_snapshot_id).changed == EventRanges(nulls=True)


def test_a_coarse_partition_is_made_exact_by_reading(catalog: Catalog) -> None:
    table = make_table(catalog, partition_by=[("day", "ts")])
    append(table, (1, at(3)), (2, at(9)))
    base = head(table).snapshot_id
    delete_rows_by_position(table, [1])
    assert since(table, base).changed == moments(3)
    coarse = since(table, base, grain=None).changed
    assert coarse == EventRanges((TimeRange(utc_at(0), utc_at(24)),))


def test_what_they_refer_to_may_be_gone(catalog: Catalog) -> None:
    table = make_table(catalog, partition_by=[("day", "ts")])
    append(table, (1, at(3)), (2, at(9)))
    base = head(table).snapshot_id
    (file,) = live_files(table.refresh())
    delete_rows_by_position(table, [1])
    table.io.delete(file.file_path)
    assert since(table, base).changed == EventRanges((TimeRange(utc_at(0), utc_at(24)),))


def test_in_append_they_are_a_rewrite(catalog: Catalog) -> None:
    table = make_table(catalog)
    append(table, (1, at(0)), (2, at(9)))
    base = head(table).snapshot_id
    snapshot = delete_rows_by_position(table, [2])
    append(table, (3, at(5)))
    changes = since(table, base, mode="append")
    assert set(changes.rewrites) == {snapshot.snapshot_id}
    assert changes.rewrite_ranges() == moments(9)
    assert ids(table, changes.without_rewrites()[0]) == [3]


def test_in_append_rows_deleted_before_they_were_read_are_no_rewrite(catalog: Catalog) -> None:
    table = make_table(catalog)
    append(table, (1, at(0)))
    base = head(table).snapshot_id
    append(table, (2, at(1)), (3, at(2)))
    delete_rows_by_position(table, [3])
    changes = since(table, base, mode="append")
    assert not changes.rewrites
    assert ids(table, changes) == [2]


def test_deleted_then_compacted_rows_stay_deleted(catalog: Catalog) -> None:
    table = make_table(catalog)
    append(table, (1, at(0)))
    base = head(table).snapshot_id
    append(table, (2, at(1)), (3, at(2)))
    delete_rows_by_position(table, [3])
    compact(table)
    changes = since(table, base, mode="append")
    assert not changes.rewrites
    assert ids(table, changes) == [2]


def test_a_first_run_hides_deleted_rows(catalog: Catalog) -> None:
    table = make_table(catalog, partition_by=[("hour", "ts")])
    append(table, (1, at(0)), (2, at(0.5)), (3, at(2)))
    delete_rows_by_position(table, [2])
    changes = since(table, None, mode="append")
    assert ids(table, changes) == [1, 3]
    assert (changes.deletes, len(changes.masks)) == ((), 1)


def test_compaction_that_applies_deletes_is_nothing(catalog: Catalog) -> None:
    table = make_table(catalog)
    append(table, (1, at(0)), (2, at(1)))
    delete_rows_by_position(table, [1])
    base = head(table).snapshot_id
    compact(table)
    assert not since(table, base)
    assert not since(table, base, mode="append")


def test_deletes_that_go_bring_rows_back(catalog: Catalog) -> None:
    table = make_table(catalog)
    append(table, (1, at(4)), (2, at(8)))
    delete_rows_by_position(table, [1])
    base = head(table).snapshot_id
    commit_snapshot(table, Operation.OVERWRITE, undeleted=True)
    changes = since(table, base)
    assert changes.changed == moments(4)
    assert set(since(table, base, mode="append").rewrites) == {head(table).snapshot_id}


def test_deletes_that_go_with_their_file_are_no_further_change(catalog: Catalog) -> None:
    table = make_table(catalog)
    append(table, (1, at(4)), (2, at(8)))
    (file,) = live_files(table.refresh())
    append(table, (3, at(20)))
    delete_rows_by_position(table, [1])
    base = head(table).snapshot_id
    commit_snapshot(table, Operation.OVERWRITE, removed=[file.file_path], undeleted=True)
    changes = since(table, base)
    assert (len(changes.removed), changes.deletes) == (1, ())
    assert changes.changed == moments(4, 8)


def test_deletes_older_than_any_file_left_are_no_change(catalog: Catalog) -> None:
    table = make_table(catalog)
    append(table, (1, at(4)))
    (file,) = live_files(table.refresh())
    delete_rows_by_position(table, [1], bounds=False)
    append(table, (2, at(8)))
    commit_snapshot(table, Operation.DELETE, removed=[file.file_path])
    base = head(table).snapshot_id
    commit_snapshot(table, Operation.OVERWRITE, undeleted=True)
    assert not since(table, base)


class TestEqualityDeletes:
    """pyiceberg cannot apply them, so they are seen, and refused where they matter."""

    def table(self, catalog: Catalog, *partition_by: tuple[str, str]) -> Table:
        found = make_table(catalog, partition_by=partition_by)
        append(found, (1, at(0)), (2, at(5)))
        return found

    def delete(self, table: Table, *equality_ids: int) -> int:
        """Delete by equality in the partition of row 1 and return the snapshot before."""
        before = head(table).snapshot_id
        file = next(f for f in live_files(table) if f.lower_bounds[1] == (1).to_bytes(8, "little"))
        deletes = equality_delete_file(table, like=file, equality_ids=list(equality_ids))
        commit_snapshot(table, Operation.DELETE, deletes=[deletes])
        return before

    def test_they_touch_their_partition(self, catalog: Catalog) -> None:
        table = self.table(catalog, ("hour", "ts"))
        base = self.delete(table, 1)
        assert since(table, base).changed == EventRanges((TimeRange(utc_at(0), utc_at(1)),))

    def test_without_one_nobody_knows_what_they_touch(self, catalog: Catalog) -> None:
        table = self.table(catalog)
        base = self.delete(table, 1)
        with pytest.raises(UnknownRange, match=r"it is not known which event times file .*equality"):
            since(table, base)
        changes = since(table, base, mode="append")
        assert set(changes.rewrites) == {head(table).snapshot_id}
        with pytest.raises(UnknownRange):
            changes.rewrite_ranges()
        rest, *_ = changes.without_rewrites()
        assert not rest

    def test_rows_they_apply_to_are_not_read(self, catalog: Catalog) -> None:
        table = self.table(catalog, ("hour", "ts"))
        self.delete(table, 1)
        with pytest.raises(TableError, match=r"equality deletes in .* hide rows of .*2024-01-01-00"):
            read_ranges(table, "events", head(table).snapshot_id, event_time="ts", keep=None)
        untouched = EventRanges((TimeRange(utc_at(5), utc_at(6)),))
        read = read_ranges(table, "events", head(table).snapshot_id, event_time="ts", keep=untouched)
        assert (read.files, read.rows) == (1, 1)

    def test_those_of_an_unpartitioned_spec_apply_to_everything_older(self, catalog: Catalog) -> None:
        table = self.table(catalog)
        self.delete(table, 1)
        with pytest.raises(TableError, match="pyiceberg cannot apply"):
            read_ranges(table, "events", head(table).snapshot_id, event_time="ts", keep=None)
