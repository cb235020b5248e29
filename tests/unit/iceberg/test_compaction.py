"""Compaction: fewer files, the same rows bit for bit, no change to anybody who reads changes."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.manifest import DATA_FILE_TYPE, DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.types import ListType, LongType, NestedField, StringType, StructType, TimestamptzType

from airflow_incremental.core.maintenance import MaintenancePolicy
from airflow_incremental.iceberg import build, rewriting
from airflow_incremental.iceberg.changes import detect
from airflow_incremental.iceberg.lineage import position_of
from airflow_incremental.iceberg.maintenance import maintain
from airflow_incremental.iceberg.rows import row_batches
from airflow_incremental.iceberg.scan import live_tasks
from airflow_incremental.iceberg.writer import write
from tests.support.maintaining import KEEN, maintained
from tests.support.tables import (
    append,
    append_without_bounds,
    at,
    commit_snapshot,
    delete_rows_by_position,
    equality_delete_file,
    head,
    live_entries,
    live_files,
    make_table,
    rename_column,
    repartition,
    rows_at,
    sql_catalog,
)
from tests.support.types import EVERY_TYPE, every_type_rows

NAME = "raw.events"
COMPACT = attrs.evolve(KEEN, parts=("compact",), merge_manifests=100)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return sql_catalog(tmp_path)


def own_rows(table: Table) -> pa.Table:
    """Return all rows as this package reads them: pyiceberg's scan makes empty lists of null ones."""
    snapshot = head(table)
    tasks = live_tasks(table, snapshot, column=None, keep=None)
    return row_batches(table, table.schema(), tasks).read_all()


def as_text(rows: pa.Table) -> Counter[str]:
    return Counter(map(repr, rows.to_pylist()))


def now(table: Table) -> list[DataFile]:
    """Return the live data files."""
    return live_files(table.refresh())


def files_by_partition(table: Table) -> dict[str, int]:
    return dict(Counter(str(f.partition) for f in now(table)))


def test_partitions_beyond_the_threshold_become_one_file_each(catalog: Catalog) -> None:
    table = make_table(catalog, partition_by=[("hour", "ts")])
    for n in range(4):
        append(table, (n, at(0)), (10 + n, at(1)), (20 + n, None))
    append(table, (99, at(5)))
    before = rows_at(table)
    done = maintained(catalog, NAME, attrs.evolve(COMPACT, compact=3))
    assert sorted(files_by_partition(table).values()) == [1, 1, 1, 1]
    assert (done.compaction.partitions, done.compaction.files_before, done.compaction.files_after) == (3, 12, 3)
    assert rows_at(table) == before
    snapshot = head(table)
    assert snapshot.summary is not None
    assert snapshot.summary.operation.value == "replace"
    assert snapshot.summary["total-data-files"] == "4"
    assert snapshot.summary["total-records"] == str(len(before))
    assert maintained(catalog, NAME, attrs.evolve(COMPACT, compact=3)).compaction.snapshot_id is None
    assert maintained(catalog, NAME, MaintenancePolicy()).compaction.partitions == 0, "not asked for"


def test_every_type_is_kept_bit_for_bit(catalog: Catalog) -> None:
    table = catalog.create_table(NAME, schema=EVERY_TYPE, properties={"format-version": "2"})
    rows = every_type_rows(schema_to_pyarrow(table.schema(), include_field_ids=False))
    for n in range(rows.num_rows):
        files = write(table, rows.slice(n, 1).to_reader(), write_id=uuid.uuid4(), check=None).files
        commit_snapshot(table, Operation.APPEND, added=files)
    before = own_rows(table)
    assert maintained(catalog, NAME, COMPACT).compaction.files_before == rows.num_rows
    after = own_rows(table)
    assert after.schema.equals(before.schema)
    assert as_text(after) == as_text(before)
    oldest_first = pa.concat_tables(before.slice(n, 1) for n in reversed(range(before.num_rows)))
    assert after.equals(oldest_first)


def test_null_lists_of_structs_stay_null(catalog: Catalog) -> None:
    """apache/iceberg-python#3833: pyiceberg's own write makes them empty."""
    schema = Schema(
        NestedField(1, "id", LongType()),
        NestedField(2, "items", ListType(3, StructType(NestedField(4, "at", TimestamptzType())))),
    )
    table = catalog.create_table(NAME, schema=schema)
    arrow = schema_to_pyarrow(table.schema(), include_field_ids=False)
    values: list[Any] = [None, [], [None], [{"at": None}]]
    for n, value in enumerate(values):
        rows = pa.Table.from_pylist([{"id": n, "items": value}], schema=arrow)
        files = write(table, rows.to_reader(), write_id=uuid.uuid4(), check=None).files
        commit_snapshot(table, Operation.APPEND, added=files)
    before = as_text(own_rows(table))
    assert maintained(catalog, NAME, COMPACT).compaction.files_after == 1
    assert as_text(own_rows(table)) == before


def added(table: Table, base: int | None, mode: Any = "append") -> tuple[int, int]:
    """Return rows added and removed since a snapshot, as detection sees them."""
    table.refresh()
    index = build.snapshot_index(table)
    position = position_of(table, None if base is None else index[base])
    found = detect(table, position, table.metadata.current_snapshot_id, event_time="ts", mode=mode)
    assert found.derivation in ("lineage", "unchanged")
    return found.rows_added, found.rows_removed


@pytest.mark.parametrize("mode", ["append", "overwrite"])
@pytest.mark.parametrize("partition_by", [[], [("hour", "ts")], [("day", "ts")]])
def test_who_reads_changes_sees_none(catalog: Catalog, mode: str, partition_by: list[tuple[str, str]]) -> None:
    table = make_table(catalog, partition_by=partition_by)
    ids = [append(table, (n, at(n % 2)), (50 + n, None)).snapshot_id for n in range(4)]
    policy = attrs.evolve(KEEN, parts=("compact",), compact=1, merge_manifests=1)
    assert maintained(catalog, NAME, policy).compaction.snapshot_id is not None
    first = head(table).snapshot_id
    for behind, base in enumerate(reversed(ids)):
        assert added(table, base, mode) == (2 * behind, 0)
    late = [append(table, (100 + n, at(0)), (200 + n, None)).snapshot_id for n in range(3)]
    assert maintained(catalog, NAME, policy).compaction.snapshot_id is not None
    assert added(table, first, mode) == (6, 0), "appended and compacted in one window"
    assert added(table, ids[1], mode) == (10, 0), "and compacted again"
    assert added(table, late[0], mode) == (4, 0)
    assert added(table, head(table).snapshot_id, mode) == (0, 0)


def test_pyicebergs_incremental_scan_sees_what_was_appended_once(catalog: Catalog) -> None:
    table = make_table(catalog)
    ids = [append(table, (n, at(n))).snapshot_id for n in range(4)]
    maintained(catalog, NAME, attrs.evolve(COMPACT, merge_manifests=1))
    compacted = head(table).snapshot_id
    last = append(table, (9, at(9))).snapshot_id
    maintained(catalog, NAME, attrs.evolve(COMPACT, merge_manifests=1))
    end = head(table).snapshot_id

    def seen(start: int) -> list[int]:
        scan = table.incremental_append_scan(from_snapshot_id_exclusive=start, to_snapshot_id_inclusive=end)
        return sorted(scan.to_arrow().column("id").to_pylist())

    assert seen(ids[1]) == [2, 3, 9]
    assert seen(compacted) == [9]
    assert seen(last) == []


def test_deleted_rows_stay_deleted_and_reading_changes_too(catalog: Catalog) -> None:
    table = make_table(catalog, partition_by=[("hour", "ts")])
    base = append(table, (1, at(0)), (2, at(0))).snapshot_id
    append(table, (3, at(0)), (4, at(0)))
    delete_rows_by_position(table, [2, 4])
    before = rows_at(table)
    assert maintained(catalog, NAME, COMPACT).compaction.files_after == 1
    assert rows_at(table) == before == [(1, at(0)), (3, at(0))]
    found = added(table, base, "overwrite")
    assert found[0] >= 1
    assert added(table, head(table).snapshot_id) == (0, 0)


def test_a_partition_all_of_whose_rows_are_deleted_has_no_file_left(catalog: Catalog) -> None:
    table = make_table(catalog, partition_by=[("hour", "ts")])
    append(table, (1, at(0)))
    append(table, (2, at(0)))
    append(table, (3, at(1)))
    delete_rows_by_position(table, [1, 2])
    assert maintain(catalog, NAME, COMPACT).compaction.files_after == 0
    assert rows_at(table) == [(3, at(1))]
    assert len(now(table)) == 1


def test_equality_deletes_are_left_alone(catalog: Catalog) -> None:
    table = make_table(catalog, partition_by=[("hour", "ts")])
    for n in range(2):
        append(table, (n, at(0)), (10 + n, at(1)))
    like = next(f for f in now(table) if f.partition[0] == now(table)[0].partition[0])
    deletes = equality_delete_file(table, like=like, equality_ids=[1])
    commit_snapshot(table, Operation.DELETE, deletes=[deletes])
    done = maintain(catalog, NAME, COMPACT)
    assert done.compaction.partitions == 1
    assert "equality deletes" in done.all_notes[0]
    assert sorted(files_by_partition(table).values()) == [1, 2]


def test_files_of_earlier_partition_specs_are_left_alone(catalog: Catalog) -> None:
    table = make_table(catalog, partition_by=[("day", "ts")])
    append(table, (1, at(0)))
    append(table, (2, at(1)))
    repartition(table, [("hour", "ts")])
    append(table, (3, at(0)))
    append(table, (4, at(0)))
    before = rows_at(table)
    done = maintained(catalog, NAME, attrs.evolve(COMPACT, merge_manifests=1))
    assert (done.compaction.files_before, done.compaction.files_after) == (2, 1)
    assert "1 partitions of earlier partition specs" in done.all_notes[0]
    assert len(now(table)) == 3
    assert rows_at(table) == before


def test_columns_that_came_went_and_were_renamed(catalog: Catalog) -> None:
    table = make_table(catalog)
    append(table, (1, at(0)))
    with table.update_schema() as update:
        update.add_column("extra", StringType())
    append(table.refresh(), (2, at(1)))
    rename_column(table, "name", "label")
    append(table, (3, at(2)))
    with table.update_schema() as update:
        update.delete_column("extra")
        update.add_column("extra", LongType())
    append(table.refresh(), (4, at(3)))
    before = as_text(own_rows(table))
    assert maintained(catalog, NAME, COMPACT).compaction.files_after == 1
    assert as_text(own_rows(table)) == before
    old = catalog.load_table(NAME).metadata.snapshots[1].snapshot_id
    assert len(rows_at(table, old)) == 2


def test_bounds_are_kept_whatever_the_table_asks_for(catalog: Catalog) -> None:
    """Sessions keep those of the event time in tables without metrics; without them no later change could be told by range."""
    table = make_table(catalog)
    for n in range(2):
        append(table, (n, at(n)))
    with table.transaction() as transaction:
        transaction.set_properties({"write.metadata.metrics.default": "none"})
    maintained(catalog, NAME, COMPACT)
    (file,) = now(table)
    assert set(file.lower_bounds) == {1, 2, 3}
    other = make_table(catalog, "raw.other", properties={"write.metadata.metrics.default": "none"})
    append_without_bounds(other, (1, at(1)))
    append_without_bounds(other, (2, at(2)))
    maintained(catalog, "raw.other", COMPACT)
    assert not now(other)[0].lower_bounds, "none of those that went had any"


@pytest.mark.parametrize("target", [1, 1200, 4000, 2**20])
def test_it_comes_to_an_end_whatever_the_target_size(catalog: Catalog, target: int) -> None:
    table = make_table(catalog, properties={"write.target-file-size-bytes": str(target)})
    for n in range(12):
        append(table, *((100 * n + i, at(i)) for i in range(40)))
    before, policy = rows_at(table), MaintenancePolicy(parts=("compact",), compact=1)
    for _ in range(12):
        if maintained(catalog, NAME, policy).compaction.snapshot_id is None:
            break
    else:
        raise AssertionError
    assert rows_at(table) == before


def test_rows_are_shared_out_among_files_of_the_target_size(catalog: Catalog) -> None:
    table = make_table(catalog)
    for n in range(8):
        append(table, *((1000 * n + i, at(i)) for i in range(1000)))
    size = sum(f.file_size_in_bytes for f in now(table))
    done = maintained(catalog, NAME, attrs.evolve(COMPACT, target_file_size=size // 3 + 1))
    assert done.compaction.files_after == 3
    assert [f.record_count for f in now(table)] == [2667, 2667, 2666]
    assert [r[0] for r in own_order(table)] == [r for n in range(8) for r in range(1000 * n, 1000 * n + 1000)]


def test_memory_is_bounded_by_a_row_group(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    table = make_table(catalog)
    for n in range(5):
        append(table, *((1000 * n + i, at(i)) for i in range(1000)))
    monkeypatch.setattr(rewriting, "_GROUP_ROWS", 1500)
    assert maintained(catalog, NAME, COMPACT).compaction.files_after == 1
    (file,) = now(table)
    with table.io.new_input(file.file_path).open() as stream:
        groups = pq.ParquetFile(stream).metadata
    assert [groups.row_group(n).num_rows for n in range(groups.num_row_groups)] == [2000, 2000, 1000]
    assert [r[0] for r in own_order(table)] == list(range(5000))


def own_order(table: Table) -> Sequence[tuple[int]]:
    tasks = sorted(live_tasks(table, head(table), column=None, keep=None), key=lambda t: t.file.file_path)
    return [(i,) for i in row_batches(table, table.schema(), tasks).read_all().column("id").to_pylist()]


def test_files_whose_metadata_is_not_true_are_left_alone(catalog: Catalog) -> None:
    table = make_table(catalog, partition_by=[("hour", "ts")])
    for hour in (0, 1, 2):
        append(table, (hour, at(hour)))
        append(table, (10 + hour, at(hour)))
    files = now(table)
    wrong = [copy_of(f, partition=files[-1].partition) for f in files[:1]]
    commit_snapshot(table, Operation.OVERWRITE, added=wrong, removed=[files[0].file_path])
    before = as_text(own_rows(table))
    done = maintain(catalog, NAME, COMPACT)
    assert any("another partition than it is listed under" in note for note in done.all_notes)
    assert as_text(own_rows(table)) == before
    assert done.orphans == ()


def copy_of(file: DataFile, **changes: Any) -> DataFile:
    """Return a file's metadata with other values."""
    names = [f.name for f in DATA_FILE_TYPE[2].fields]
    made = DataFile.from_args(**{n: changes.get(n, file[i]) for i, n in enumerate(names)})
    made.spec_id = file.spec_id
    return made


def test_a_file_that_is_listed_twice_keeps_counting_twice(catalog: Catalog) -> None:
    table = make_table(catalog)
    append(table, (1, at(1)))
    (file,) = now(table)
    commit_snapshot(table, Operation.APPEND, added=[file])
    append(table, (2, at(2)))
    done = maintained(catalog, NAME, attrs.evolve(COMPACT, merge_manifests=1))
    assert any("no file was compacted" in note and "listed twice" in note for note in done.all_notes)
    assert done.compaction.manifests == 3
    assert [i for i, _ in rows_at(table)] == [1, 1, 2]


def test_many_small_manifests_become_few_by_partition(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    table = make_table(catalog, partition_by=[("hour", "ts")])
    base = [append(table, (n, at(n)), (50 + n, at(99 - n))).snapshot_id for n in range(6)][2]
    policy = MaintenancePolicy(parts=("compact",), merge_manifests=5)
    monkeypatch.setattr(build, "MERGED_ENTRIES", 5)
    entries = {e.data_file.file_path: (e.snapshot_id, e.sequence_number) for _, e in live_entries(table)}
    done = maintained(catalog, NAME, policy)
    assert (done.compaction.manifests, done.compaction.files_before) == (6, 0)
    manifests = head(table).manifests(table.io)
    assert [m.existing_files_count for m in manifests] == [2, 5, 5]
    assert {e.data_file.file_path: (e.snapshot_id, e.sequence_number) for _, e in live_entries(table)} == entries
    hours = sorted([e.data_file.partition[0] for e in m.fetch_manifest_entry(table.io)] for m in manifests)
    assert [h for part in hours for h in part] == sorted(h for part in hours for h in part), (
        "ranges that do not overlap"
    )
    assert added(table, base) == (6, 0)
    assert maintained(catalog, NAME, policy).compaction.snapshot_id is None


def test_tables_that_cannot_be_written_are_left_alone(catalog: Catalog) -> None:
    table = make_table(catalog, version=1)
    append(table, (1, at(1)))
    append(table, (2, at(2)))
    done = maintained(catalog, NAME)
    assert done.compaction.partitions == 0
    assert any("nothing was compacted" in note and "format version 1" in note for note in done.all_notes)
