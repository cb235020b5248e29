"""The cost of planning follows what changed: metadata outside the window is not even there in these tests."""

from __future__ import annotations

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from airflow_incremental.core.ranges import EventRanges, TimeRange
from airflow_incremental.iceberg.changes import detect
from airflow_incremental.iceberg.lineage import position_of
from airflow_incremental.iceberg.reads import read_ranges
from tests.support.tables import append, at, compact, head, make_table, utc_at


@pytest.fixture(params=[2, 1], ids=["v2", "v1"])
def table(catalog: Catalog, request: pytest.FixtureRequest) -> Table:
    """Twelve appends, one file each in an hour of its own."""
    found = make_table(catalog, partition_by=[("hour", "ts")], version=request.param)
    for n in range(12):
        append(found, (n, at(n)))
    return found.refresh()


def forget(table: Table, *, manifests_up_to: int, lists_but: int) -> None:
    """Delete the files of manifests added by the first snapshots, and all manifest lists but one."""
    snapshots = table.metadata.snapshots
    early = {s.snapshot_id for s in snapshots[:manifests_up_to]}
    for manifest in snapshots[-1].manifests(table.io):
        if manifest.added_snapshot_id in early:
            table.io.delete(manifest.manifest_path)
    for snapshot in snapshots:
        if snapshot.snapshot_id != lists_but:
            table.io.delete(snapshot.manifest_list)


@pytest.mark.parametrize("window", [1, 3, 10])
def test_appends_cost_one_list_and_their_own_manifests(table: Table, window: int) -> None:
    last = head(table)
    base = position_of(table, table.metadata.snapshots[-1 - window])
    forget(table, manifests_up_to=12 - window, lists_but=last.snapshot_id)
    changes = detect(table, base, last.snapshot_id, event_time="ts", mode="append")
    assert (changes.lists_read, changes.manifests_read, changes.entries_read) == (1, window, window)
    assert (changes.rows_added, changes.columns_read) == (window, 0)


def test_other_operations_cost_their_own_list_too(table: Table) -> None:
    base = position_of(table, head(table))
    append(table, (20, at(20)))
    table.delete("id = 3")
    append(table, (21, at(21)))
    changes = detect(table, base, head(table).snapshot_id, event_time="ts", mode="overwrite")
    assert changes.lists_read <= 3  # format version 1 has to ask the appends what they added
    assert (changes.rows_added, changes.rows_removed) == (2, 1)


def test_a_compaction_is_read_only_where_it_took_part(table: Table) -> None:
    base = position_of(table, head(table))
    append(table, (20, at(20)))
    compact(table)
    changes = detect(table, base, head(table).snapshot_id, event_time="ts", mode="append")
    assert changes.rows_added == 1
    assert changes.lists_read <= 3


def test_a_difference_opens_no_shared_manifest(table: Table) -> None:
    last = head(table)
    base = position_of(table, table.metadata.snapshots[-3])
    middle = table.metadata.snapshots[-2].snapshot_id
    table.maintenance.expire_snapshots().by_id(middle).commit()
    table.refresh()
    changes = detect(table, base, last.snapshot_id, event_time="ts", mode="append")
    assert changes.derivation == "diff"
    # Both ends, and the oldest snapshot that still has its place in the head's lineage (here the head itself).
    assert (changes.lists_read, changes.manifests_read, changes.entries_read) == (2, 2, 2)


def test_ranges_open_only_manifests_of_their_partitions(table: Table) -> None:
    last = head(table)
    forget(table, manifests_up_to=8, lists_but=last.snapshot_id)
    keep = EventRanges((TimeRange(utc_at(8), utc_at(10)),))
    read = read_ranges(table, "events", last.snapshot_id, event_time="ts", keep=keep)
    assert (read.files, read.rows) == (2, 2)
    with pytest.raises(FileNotFoundError):
        read_ranges(table, "events", last.snapshot_id, event_time="ts", keep=None)
