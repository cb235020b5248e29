"""Positions that the head does not show to descend from: what can still be told, and what is refused."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation

from airflow_incremental.core.changes import ChangeSet
from airflow_incremental.core.errors import WatermarkLost
from airflow_incremental.core.watermark import SourcePosition
from airflow_incremental.iceberg.changes import detect
from airflow_incremental.iceberg.lineage import position_of
from tests.support.tables import (
    append,
    at,
    commit_snapshot,
    compact,
    delete_rows_by_position,
    expire,
    expire_dangling,
    head,
    live_files,
    make_table,
    overwrite_files,
    replace_table,
    roll_back,
)


@pytest.fixture
def table(catalog: Catalog) -> Table:
    found = make_table(catalog, partition_by=[("hour", "ts")])
    append(found, (1, at(0)), (2, at(1)))
    return found


def here(table: Table) -> SourcePosition:
    return position_of(table, head(table))


def since(table: Table, base: SourcePosition, **options: Any) -> ChangeSet:
    defaults: dict[str, Any] = {"event_time": "ts", "mode": "append"}
    table.refresh()
    return detect(table, base, head(table).snapshot_id, **(defaults | options))


def hours_of(changes: ChangeSet) -> list[int]:
    return sorted({r.start.hour for r in changes.changed.ranges})


def test_a_base_that_java_expired_is_still_reached(table: Table) -> None:
    base = here(table)
    append(table, (3, at(3)))
    compact(table)
    expected = since(table, base)
    expire_dangling(table, [base.snapshot_id or 0])
    changes = detect(table, base, head_id(table), event_time="ts", mode="append")
    assert changes.derivation == "lineage"
    assert changes.digest == expected.digest
    assert changes.rows_added == 1


def head_id(table: Table) -> int:
    """Return the head as this handle knows it, without looking at the catalog again."""
    snapshot = table.current_snapshot()
    assert snapshot is not None
    return snapshot.snapshot_id


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_the_middle_expired_compares_the_two_snapshots(table: Table, mode: str) -> None:
    base = here(table)
    middle = append(table, (3, at(3)))
    append(table, (4, at(4)))
    expected = since(table, base)
    expire(table, [middle.snapshot_id])
    changes = since(table, base, mode=mode)
    assert changes.derivation == "diff"
    assert changes.digest == expected.digest
    assert hours_of(changes) == [3, 4]
    assert (changes.rows_removed, changes.snapshots) == (0, (head(table).snapshot_id,))


def test_a_tag_keeps_the_base_but_not_the_chain(table: Table) -> None:
    base = here(table)
    table.manage_snapshots().create_tag(base.snapshot_id or 0, "consumer").commit()
    append(table, (3, at(3)))
    append(table, (4, at(4)))
    expire(table, [s.snapshot_id for s in table.refresh().metadata.snapshots[1:-1]])
    assert since(table, base).derivation == "diff"


def test_compaction_behind_an_expired_snapshot_is_refused_in_append_and_widened_in_overwrite(table: Table) -> None:
    base = here(table)
    append(table, (3, at(0.5)))
    compacted = compact(table)
    append(table, (4, at(4)))
    expire(table, [compacted.snapshot_id])
    with pytest.raises(WatermarkLost, match=r"2 data files of it are gone and 0 files of row-level deletes"):
        since(table, base)
    changes = since(table, base, mode="overwrite")
    assert hours_of(changes) == [0, 1, 4]
    assert not changes.rewrites


def test_row_level_deletes_behind_an_expired_snapshot(table: Table) -> None:
    base = here(table)
    deleted = delete_rows_by_position(table, [1])
    append(table, (4, at(4)))
    expire(table, [deleted.snapshot_id])
    with pytest.raises(WatermarkLost, match="1 files of row-level deletes"):
        since(table, base)
    assert hours_of(since(table, base, mode="overwrite")) == [0, 4]


def test_row_level_deletes_that_went_bring_rows_back(table: Table) -> None:
    delete_rows_by_position(table, [1])
    base = here(table)
    gone = commit_snapshot(table, Operation.OVERWRITE, undeleted=True)
    append(table, (4, at(4)))
    expire(table, [gone.snapshot_id])
    assert hours_of(since(table, base, mode="overwrite")) == [0, 4]


def test_a_rollback_is_refused_in_append_and_undone_in_overwrite(table: Table) -> None:
    before = head(table).snapshot_id
    append(table, (3, at(3)))
    base = here(table)
    roll_back(table, before)
    append(table, (4, at(4)))
    with pytest.raises(WatermarkLost, match="the branch was rolled back, or snapshots between the two were expired"):
        since(table, base)
    changes = since(table, base, mode="overwrite")
    assert changes.derivation == "diff"
    assert (changes.rows_added, changes.rows_removed) == (1, 1)
    assert hours_of(changes) == [3, 4]


def test_a_head_behind_the_base_shows_what_went(table: Table) -> None:
    before = head(table).snapshot_id
    append(table, (3, at(3)))
    base = here(table)
    roll_back(table, before)
    assert hours_of(since(table, base, mode="overwrite")) == [3]


def test_another_table_of_the_same_name_is_refused(catalog: Catalog, table: Table) -> None:
    base = here(table)
    catalog.drop_table("raw.events")
    again = make_table(catalog)
    append(again, (1, at(0)))
    for policy in ("fail", "reload", "added_only"):
        with pytest.raises(WatermarkLost, match=r"belongs to a table with uuid .*, which this one \(.*\) replaced"):
            since(again, base, on_lost_watermark=policy)


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_a_replaced_table_that_kept_its_uuid_is_refused(table: Table, mode: str) -> None:
    base = here(table)
    replace_table(table, (1, at(0)), (3, at(3)))
    append(table, (4, at(4)))
    with pytest.raises(WatermarkLost, match=r"its history starts anew .* \(CREATE OR REPLACE keeps the uuid"):
        since(table, base, mode=mode)
    expire(table, [base.snapshot_id or 0])
    with pytest.raises(WatermarkLost, match=r"its history starts anew"):
        since(table, base, mode=mode, on_lost_watermark="added_only")


def test_a_branch_without_a_head_is_refused(table: Table) -> None:
    with pytest.raises(WatermarkLost, match="the branch has no snapshot now"):
        detect(table, here(table), None, event_time="ts", mode="append")


def test_an_empty_first_snapshot_that_expired_in_between_is_no_replacement(catalog: Catalog) -> None:
    table = make_table(catalog)
    commit_snapshot(table, Operation.APPEND)
    base = here(table)
    middle = commit_snapshot(table, Operation.APPEND)
    append(table, (1, at(0)))
    expire(table, [middle.snapshot_id])
    changes = since(table, base)
    assert (changes.derivation, changes.rows_added) == ("diff", 1)


class TestExpiredBase:
    """The base's snapshot is gone; only its sequence number is left."""

    @pytest.fixture
    def base(self, table: Table) -> SourcePosition:
        return here(table)

    def forget(self, table: Table, base: SourcePosition, *others: int) -> None:
        expire(table, [base.snapshot_id or 0, *others])

    @pytest.mark.parametrize("policy", ["fail", "reload"])
    def test_is_refused_unless_the_process_says_so(self, table: Table, base: SourcePosition, policy: str) -> None:
        append(table, (3, at(3)))
        self.forget(table, base)
        with pytest.raises(WatermarkLost, match="has been expired, or was never part of this branch") as lost:
            since(table, base, on_lost_watermark=policy)
        assert "on_lost_watermark='reload'" in lost.value.hint

    @pytest.mark.parametrize("mode", ["append", "overwrite"])
    def test_newer_files_are_taken(self, table: Table, base: SourcePosition, mode: str) -> None:
        append(table, (3, at(3)))
        append(table, (4, at(4)))
        expected = since(table, base)
        self.forget(table, base)
        changes = since(table, base, mode=mode, on_lost_watermark="added_only")
        assert changes.derivation == "sequence"
        assert changes.digest == expected.digest
        assert hours_of(changes) == [3, 4]

    def test_never_across_a_compaction_in_append(self, table: Table, base: SourcePosition) -> None:
        append(table, (3, at(0.5)))
        compacted = compact(table)
        self.forget(table, base)
        with pytest.raises(WatermarkLost, match=f"snapshot {compacted.snapshot_id} has compacted the table"):
            since(table, base, on_lost_watermark="added_only")
        changes = since(table, base, mode="overwrite", on_lost_watermark="added_only")
        assert hours_of(changes) == [0]

    def test_never_past_snapshots_nobody_knows_in_append(self, table: Table, base: SourcePosition) -> None:
        middle = append(table, (3, at(3)))
        append(table, (4, at(4)))
        self.forget(table, base, middle.snapshot_id)
        with pytest.raises(WatermarkLost, match=f"later snapshots \\({middle.snapshot_id}\\) that added files"):
            since(table, base, on_lost_watermark="added_only")
        changes = since(table, base, mode="overwrite", on_lost_watermark="added_only")
        assert hours_of(changes) == [3, 4]

    def test_files_that_came_and_went_by_unknown_snapshots(self, table: Table, base: SourcePosition) -> None:
        middle = append(table, (3, at(3)))
        path = next(f.file_path for f in live_files(table.refresh()) if "-03/" in f.file_path)
        overwrite_files(table, removed=[path], rows=[(4, at(4))])
        self.forget(table, base, middle.snapshot_id)
        with pytest.raises(WatermarkLost, match="whose files are gone"):
            since(table, base, on_lost_watermark="added_only")
        changes = since(table, base, mode="overwrite", on_lost_watermark="added_only")
        assert hours_of(changes) == [4]
        assert changes.rows_removed == 0

    def test_rewritten_rows_are_for_the_policy_of_the_process(self, table: Table, base: SourcePosition) -> None:
        append(table, (3, at(3)))
        table.delete("id = 1")
        self.forget(table, base)
        changes = since(table, base, on_lost_watermark="added_only")
        assert set(changes.rewrites) == {head(table).snapshot_id}
        assert changes.without_rewrites()[0].rows_added == 1

    def test_a_head_older_than_the_base_is_refused(self, table: Table, base: SourcePosition) -> None:
        first = base.snapshot_id
        append(table, (3, at(3)))
        later = here(table)
        roll_back(table, first or 0)
        self.forget(table, later)
        with pytest.raises(WatermarkLost, match="is older: the branch was rolled back"):
            since(table, later, on_lost_watermark="added_only")

    def test_format_version_1_has_nothing_to_go_by(self, catalog: Catalog) -> None:
        table = make_table(catalog, "raw.old", version=1)
        append(table, (1, at(0)))
        base = here(table)
        append(table, (2, at(1)))
        self.forget(table, base)
        with pytest.raises(WatermarkLost, match="format version 1 has no sequence numbers"):
            since(table, base, on_lost_watermark="added_only")

    def test_an_unknown_snapshot_is_as_good_as_expired(self, table: Table, base: SourcePosition) -> None:
        append(table, (3, at(3)))
        stranger = attrs.evolve(base, snapshot_id=12345)
        with pytest.raises(WatermarkLost, match=r"\(snapshot 12345\) has been expired, or was never part"):
            since(table, stranger)
