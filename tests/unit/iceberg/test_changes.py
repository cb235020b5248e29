"""Change detection along a lineage: every operation, and every order of them that matters."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import ManifestEntry
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation

from airflow_incremental.core.changes import ChangeSet
from airflow_incremental.core.errors import PlanExpired, TableError
from airflow_incremental.core.plan import SourcePlan
from airflow_incremental.iceberg.changes import detect
from airflow_incremental.iceberg.lineage import SnapshotIndex, position_of
from airflow_incremental.iceberg.reads import AddedFiles
from tests.support.tables import (
    append,
    arrow_rows,
    at,
    commit_snapshot,
    compact,
    head,
    live_files,
    make_table,
    overwrite_files,
    write_data,
)


@pytest.fixture(params=[2, 1], ids=["v2", "v1"])
def table(catalog: Catalog, request: pytest.FixtureRequest) -> Table:
    """A table partitioned by hour that holds rows 1 (hour 0) and 2 (hour 1)."""
    found = make_table(catalog, partition_by=[("hour", "ts")], version=request.param)
    append(found, (1, at(0)), (2, at(1)))
    return found


def since(table: Table, snapshot_id: int | None, **options: Any) -> ChangeSet:
    """Detect from a snapshot (None: a first run) to the head."""
    defaults: dict[str, Any] = {"event_time": "ts", "mode": "append"}
    table.refresh()
    base = None if snapshot_id is None else position_of(table, SnapshotIndex(table.metadata).get(snapshot_id))
    return detect(table, base, head(table).snapshot_id, **(defaults | options))


def added_ids(table: Table, changes: ChangeSet) -> list[int]:
    """Return the ids of the added rows as a load would read them."""
    pinned = position_of(table, head(table))
    plan = SourcePlan(name="events", table="raw.events", base=None, pinned=pinned, derivation=changes.derivation)
    read = AddedFiles.of(table, plan, changes, event_time="ts").read()
    return sorted(i for part in read.parts for i in part.batches().read_all().column("id").to_pylist())


def hours_of(changes: ChangeSet) -> list[int]:
    """Return the event hours that changed."""
    return sorted({r.start.hour for r in changes.changed.ranges})


def path_of(table: Table, hour: int) -> str:
    """Return the path of the live file of an hour's partition."""
    return next(f.file_path for f in live_files(table.refresh()) if f"2024-01-01-{hour:02}" in f.file_path)


def test_a_first_run_takes_every_live_file(table: Table) -> None:
    table.delete("id = 1")
    append(table, (3, at(2)))
    changes = since(table, None)
    assert changes.derivation == "first_run"
    assert added_ids(table, changes) == [2, 3]
    assert hours_of(changes) == [1, 2]
    assert not changes.removed


def test_an_unchanged_source_reads_nothing(table: Table) -> None:
    changes = since(table, head(table).snapshot_id)
    assert changes == ChangeSet(derivation="unchanged")
    assert not changes


def test_late_and_new_rows_are_added(table: Table) -> None:
    base = head(table).snapshot_id
    append(table, (3, at(0.5)))
    append(table, (4, at(7)), (5, None))
    changes = since(table, base)
    assert changes.derivation == "lineage"
    assert added_ids(table, changes) == [3, 4, 5]
    assert hours_of(changes) == [0, 7]
    assert changes.changed.nulls
    assert set(changes.operations.values()) == {"append"}
    assert len(changes.snapshots) == 2
    assert (changes.rows_added, changes.rows_removed, dict(changes.rewrites)) == (3, 0, {})


def test_a_whole_file_that_is_deleted(table: Table) -> None:
    base = head(table).snapshot_id
    table.delete("id = 1")
    changes = since(table, base)
    assert (changes.rows_added, changes.rows_removed) == (0, 1)
    assert hours_of(changes) == [0]
    rewrite = changes.rewrites[head(table).snapshot_id]
    assert (len(rewrite.added), len(rewrite.removed), rewrite.unread) == (0, 1, ())


def test_a_row_that_is_deleted_rewrites_its_file(table: Table) -> None:
    append(table, (3, at(0.1)), (4, at(0.2)))
    base = head(table).snapshot_id
    table.delete("id = 3")
    changes = since(table, base)
    assert (changes.rows_added, changes.rows_removed) == (1, 2)
    assert hours_of(changes) == [0]
    rest, ignored_added, ignored_removed = changes.without_rewrites()
    assert not rest
    assert (ignored_added, ignored_removed) == (1, 2)


def test_an_overwrite_shows_both_sides(table: Table) -> None:
    base = head(table).snapshot_id
    table.overwrite(arrow_rows(table, [(9, at(5))]), "id = 2")
    changes = since(table, base, mode="overwrite")
    assert hours_of(changes) == [1, 5]
    assert {c.rows for c in changes.added} == {1}
    assert not changes.rewrites


def test_an_overwrite_that_removes_nothing_is_an_append(table: Table) -> None:
    base = head(table).snapshot_id
    overwrite_files(table, removed=[], rows=[(3, at(4))])
    changes = since(table, base)
    assert added_ids(table, changes) == [3]
    assert not changes.rewrites
    assert set(changes.operations.values()) == {"overwrite"}


def test_appended_and_deleted_within_the_window_is_nothing(table: Table) -> None:
    base = head(table).snapshot_id
    append(table, (3, at(4)))
    table.delete("id = 3")
    changes = since(table, base)
    assert not changes
    assert not changes.rewrites


def test_new_rows_that_are_rewritten_are_still_new(table: Table) -> None:
    base = head(table).snapshot_id
    append(table, (3, at(4)), (4, at(4.5)))
    table.delete("id = 3")
    changes = since(table, base)
    assert added_ids(table, changes) == [4]
    assert not changes.rewrites


def test_compaction_alone_is_nothing(table: Table) -> None:
    append(table, (3, at(0.5)))
    base = head(table).snapshot_id
    compact(table)
    assert not since(table, base)
    assert not since(table, base, mode="overwrite")


def test_rows_compacted_with_old_ones_are_read_from_their_own_file(table: Table) -> None:
    base = head(table).snapshot_id
    append(table, (3, at(0.5)))
    compact(table)
    changes = since(table, base)
    assert added_ids(table, changes) == [3]
    assert hours_of(changes) == [0]


def test_rows_compacted_among_themselves_are_read_from_what_is_live(table: Table) -> None:
    base = head(table).snapshot_id
    append(table, (3, at(4)))
    append(table, (4, at(4.5)))
    before = {f.file_path for f in live_files(table.refresh())}
    compact(table, [p for p in before if "2024-01-01-04" in p])
    changes = since(table, base)
    assert added_ids(table, changes) == [3, 4]
    assert {c.path for c in changes.added} == {path_of(table, 4)}
    assert before.isdisjoint({path_of(table, 4)})


def test_two_compactions_in_a_row(table: Table) -> None:
    base = head(table).snapshot_id
    append(table, (3, at(0.5)))
    compact(table)
    append(table, (4, at(0.6)))
    compact(table)
    changes = since(table, base)
    assert added_ids(table, changes) == [3, 4]
    assert not changes.removed


def test_deleting_from_a_compaction_of_old_and_new_rows_is_a_rewrite(table: Table) -> None:
    base = head(table).snapshot_id
    append(table, (3, at(0.5)))
    compact(table)
    table.delete("id = 1")
    changes = since(table, base)
    assert set(changes.rewrites) == {head(table).snapshot_id}
    assert hours_of(changes) == [0]
    rest, *_ = changes.without_rewrites()
    assert added_ids(table, rest) == [3]


def test_ignoring_a_rewrite_keeps_rows_it_took_before_they_were_read(table: Table) -> None:
    base = head(table).snapshot_id
    append(table, (3, at(1.5)))
    overwrite_files(table, removed=[f.file_path for f in live_files(table)], rows=[(2, at(1)), (3, at(1.5))])
    changes = since(table, base)
    rest, added, removed = changes.without_rewrites()
    assert added_ids(table, rest) == [3]
    assert (added, removed) == (2, 2)
    assert {r.start.hour for r in changes.rewrite_ranges().ranges} == {0, 1}


def test_a_file_that_is_rewritten_twice_shows_its_ends(table: Table) -> None:
    base = head(table).snapshot_id
    overwrite_files(table, removed=[path_of(table, 0)], rows=[(1, at(0)), (5, at(6))])
    overwrite_files(table, removed=[path_of(table, 6)], rows=[(6, at(7))])
    changes = since(table, base, mode="overwrite")
    assert hours_of(changes) == [0, 7]
    assert changes.rows_removed == 1


def test_merged_manifests_keep_the_snapshots_of_their_entries(catalog: Catalog) -> None:
    table = make_table(
        catalog, properties={"commit.manifest-merge.enabled": "true", "commit.manifest.min-count-to-merge": "3"}
    )
    for n in range(4):
        append(table, (n, at(n)))
    base = head(table).snapshot_id
    for n in range(4, 11):
        append(table, (n, at(n)))
    assert len(head(table).manifests(table.io)) < 7
    assert added_ids(table, since(table, base)) == list(range(4, 11))


def test_branches_are_followed_each_on_its_own(table: Table) -> None:
    base = head(table)
    table.manage_snapshots().create_branch(base.snapshot_id, "dev").commit()
    append(table, (3, at(3)), branch="dev")
    append(table, (4, at(4)))
    dev = head(table, "dev").snapshot_id
    on_dev = detect(table, position_of(table, base), dev, event_time="ts", mode="append")
    assert added_ids(table, on_dev) == [3]
    assert added_ids(table, since(table, base.snapshot_id)) == [4]


def test_what_came_after_an_empty_table_is_everything(catalog: Catalog) -> None:
    table = make_table(catalog)
    empty = position_of(table, None)
    assert detect(table, empty, None, event_time="ts", mode="append").derivation == "unchanged"
    assert detect(table, None, None, event_time="ts", mode="append") == ChangeSet(derivation="first_run")
    append(table, (1, at(0)))
    compact(table)
    changes = detect(table, empty, head(table).snapshot_id, event_time="ts", mode="append")
    assert changes.derivation == "lineage"
    assert added_ids(table, changes) == [1]


def test_an_upgrade_of_the_format_within_the_window(catalog: Catalog) -> None:
    table = make_table(catalog, partition_by=[("hour", "ts")], version=1)
    append(table, (1, at(0)))
    base = head(table).snapshot_id
    append(table, (2, at(0.1)))
    table.transaction().upgrade_table_version(2).commit_transaction()
    append(table, (3, at(0.2)))
    compact(table)
    append(table, (4, at(0.3)))
    changes = since(table, base)
    assert added_ids(table, changes) == [2, 3, 4]
    assert not changes.removed


def test_a_file_put_back_by_path_is_both_removed_and_added(table: Table) -> None:
    base = head(table).snapshot_id
    old = live_files(table)[0]
    commit_snapshot(table, Operation.DELETE, removed=[old.file_path])
    commit_snapshot(table, Operation.APPEND, added=[old])
    changes = since(table, base, mode="overwrite")
    assert (len(changes.added), len(changes.removed)) == (1, 1)


def test_a_file_that_is_listed_twice_is_refused(table: Table) -> None:
    base = head(table).snapshot_id
    file = write_data(table, arrow_rows(table, [(3, at(3))]))
    commit_snapshot(table, Operation.APPEND, added=file)
    commit_snapshot(table, Operation.APPEND, added=file)
    for snapshot_id in (base, None):
        with pytest.raises(TableError, match="is listed twice in one snapshot"):
            since(table, snapshot_id)


def test_entries_of_early_writers_tell_the_sequence_number_of_the_data_only(catalog: Catalog) -> None:
    table = make_table(catalog, partition_by=[("hour", "ts")])
    append(table, (1, at(0)), (2, at(1)))
    base = head(table).snapshot_id
    append(table, (3, at(4)))
    table.delete("id in (1, 3)")
    expected = since(table, base, mode="overwrite")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ManifestEntry, "file_sequence_number", None)
        assert since(table, base, mode="overwrite") == expected
    assert (expected.rows_added, expected.rows_removed) == (0, 1)


def test_without_an_event_time_nothing_is_known_about_it(table: Table) -> None:
    base = head(table).snapshot_id
    append(table, (3, at(3)))
    table.delete("id = 1")
    changes = since(table, base, event_time=None)
    assert {(c.ranges, c.nulls) for c in changes.files} == {(None, None)}
    assert changes.rows_added == 1


def test_a_head_that_is_gone_expires_the_plan(table: Table) -> None:
    with pytest.raises(PlanExpired, match=r"snapshot 7 of raw\.events does not exist"):
        detect(table, None, 7, event_time="ts", mode="append")


def test_format_version_3_is_refused(table: Table) -> None:
    fake = attrs.make_class("Metadata", ["format_version"])(3)
    table.metadata = fake
    with pytest.raises(TableError, match="has format version 3"):
        detect(table, None, 7, event_time="ts", mode="append")


def test_files_written_but_not_committed_are_nobodys(table: Table) -> None:
    base = head(table).snapshot_id
    write_data(table, arrow_rows(table, [(3, at(3))]))
    assert not since(table, base)
