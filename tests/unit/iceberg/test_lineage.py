"""Walking a table's history, and telling apart the ways in which a position can be lost in it."""

from __future__ import annotations

import datetime as dt

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from airflow_incremental.core.errors import TableError
from airflow_incremental.iceberg.lineage import (
    Reach,
    SnapshotIndex,
    committed_at,
    head_of,
    operation_of,
    position_of,
    snapshot_at,
    starts_anew,
    walk,
)
from tests.support.tables import (
    append,
    at,
    compact,
    expire,
    expire_dangling,
    head,
    make_table,
    replace_table,
    roll_back,
)


@pytest.fixture
def table(catalog: Catalog) -> Table:
    found = make_table(catalog)
    for n in range(5):
        append(found, (n, at(n)))
    return found.refresh()


def ids(table: Table) -> list[int]:
    return [s.snapshot_id for s in table.metadata.snapshots]


def test_the_index_finds_old_and_new_snapshots_and_reads_no_further_than_it_must(table: Table) -> None:
    first, *_, last = ids(table)
    index = SnapshotIndex(table.metadata)
    found = index.get(last)
    assert found is not None
    assert found.snapshot_id == last
    assert len(index._seen) == 1
    assert index.get(first) is not None
    assert index.get(123) is None
    assert index.get(None) is None
    assert [s.snapshot_id for s in index.ancestry(last)] == ids(table)[::-1]


def test_a_walk_gives_what_came_after_newest_first(table: Table) -> None:
    first, second, third, *_ = ids(table)
    walked = walk(SnapshotIndex(table.metadata), after=first, head=third)
    assert walked.reach is Reach.REACHED
    assert [s.snapshot_id for s in walked.snapshots] == [third, second]
    assert walk(SnapshotIndex(table.metadata), after=third, head=third).snapshots == ()


def test_a_position_in_the_rolled_back_future_is_detached(table: Table) -> None:
    _, second, *_, last = ids(table)
    roll_back(table, second)
    walked = walk(SnapshotIndex(table.metadata), after=last, head=second)
    assert walked.reach is Reach.DETACHED


def test_a_position_behind_an_expired_snapshot_is_detached(table: Table) -> None:
    first, second, *_, last = ids(table)
    expire(table, [second])
    walked = walk(SnapshotIndex(table.metadata), after=first, head=last)
    assert walked.reach is Reach.DETACHED
    assert len(walked.snapshots) == 3


def test_an_expired_position_is_told_from_one_that_java_left_dangling(table: Table) -> None:
    first, second, *_, last = ids(table)
    expire_dangling(table, [first])
    walked = walk(SnapshotIndex(table.metadata), after=first, head=last)
    assert walked.reach is Reach.REACHED
    assert walked.snapshots[-1].snapshot_id == second
    expire(table, [first])
    assert walk(SnapshotIndex(table.metadata), after=first, head=last).reach is Reach.EXPIRED


def test_a_true_beginning_is_told_from_a_lost_parent(table: Table) -> None:
    first, second, *_ = ids(table)
    index = SnapshotIndex(table.metadata)
    begin = index.get(first)
    assert begin is not None
    assert starts_anew(begin, begin.manifests(table.io))
    expire(table, [first])
    orphan = SnapshotIndex(table.metadata).get(second)
    assert orphan is not None
    assert orphan.parent_snapshot_id is None
    assert not starts_anew(orphan, orphan.manifests(table.io))


def test_a_compaction_that_lost_its_parent_is_no_beginning(table: Table) -> None:
    before = ids(table)
    compacted = compact(table)
    expire(table, before)
    assert not starts_anew(compacted, head(table).manifests(table.io))
    assert head(table).parent_snapshot_id is None
    assert not starts_anew(head(table), head(table).manifests(table.io))


def test_a_replaced_table_starts_anew(table: Table) -> None:
    snapshot = replace_table(table, (9, at(9)))
    assert starts_anew(snapshot, snapshot.manifests(table.io))


def test_operations(table: Table) -> None:
    compacted = compact(table)
    assert operation_of(compacted).value == "replace"
    assert operation_of(table.metadata.snapshots[0]).value == "append"
    assert operation_of(compacted.model_copy(update={"summary": None})).value == "overwrite"


def test_heads(catalog: Catalog, table: Table) -> None:
    table.manage_snapshots().create_branch(ids(table)[1], "dev").create_tag(ids(table)[0], "old").commit()
    found = head_of(table, "dev")
    assert found is not None
    assert found.snapshot_id == ids(table)[1]
    assert head_of(make_table(catalog, "raw.empty"), "main") is None
    with pytest.raises(TableError, match=r"raw.events has no branch 'prod'; it has dev, main, old"):
        head_of(table, "prod")
    with pytest.raises(TableError, match=r"'old' of table raw.events is a tag"):
        head_of(table, "old")


def test_positions(catalog: Catalog, table: Table) -> None:
    last = head(table)
    position = position_of(table, last)
    assert (position.snapshot_id, position.sequence_number) == (last.snapshot_id, 5)
    assert position.committed_at == committed_at(last)
    assert position.table_uuid == str(table.metadata.table_uuid)
    empty = position_of(table, None)
    assert (empty.snapshot_id, empty.sequence_number, empty.committed_at) == (None, None, None)
    old = make_table(catalog, "raw.old", version=1)
    assert position_of(old, append(old, (1, at(0)))).sequence_number is None


def test_the_snapshot_at_a_time(catalog: Catalog, table: Table) -> None:
    second, third = table.metadata.snapshots[1], table.metadata.snapshots[2]
    found = snapshot_at(table, "main", committed_at(second))
    assert found is not None
    # Two commits can share a millisecond; the later one counts.
    assert committed_at(found) == committed_at(second)
    earlier = snapshot_at(table, "main", committed_at(third) - dt.timedelta(milliseconds=1))
    assert earlier is None or committed_at(earlier) < committed_at(third)
    before = committed_at(table.metadata.snapshots[0]) - dt.timedelta(seconds=1)
    assert snapshot_at(table, "main", before) is None
    assert snapshot_at(make_table(catalog, "raw.empty"), "main", before) is None
    expire(table, [table.metadata.snapshots[0].snapshot_id])
    with pytest.raises(TableError, match=r"the history of branch 'main' of table raw\.events is kept back to"):
        snapshot_at(table, "main", before)
