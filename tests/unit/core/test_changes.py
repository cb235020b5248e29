"""What follows from a change set."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from airflow_incremental.core.changes import ChangeKind, ChangeSet, FileChange, Rewrite
from airflow_incremental.core.errors import UnknownRange
from airflow_incremental.core.ranges import MICROSECOND, UTC, EventRanges, TimeRange

DAY = dt.datetime(2024, 1, 1, tzinfo=UTC)


def hours(start: float, end: float, *, nulls: bool = False) -> EventRanges:
    return EventRanges((TimeRange(DAY + dt.timedelta(hours=start), DAY + dt.timedelta(hours=end)),), nulls=nulls)


def change(path: str, kind: ChangeKind = "added", **fields: Any) -> FileChange:
    defaults: dict[str, Any] = {
        "snapshot_id": 1,
        "sequence_number": 1,
        "spec_id": 0,
        "rows": 10,
        "ranges": hours(0, 1),
        "nulls": 0,
    }
    return FileChange(path=path, kind=kind, **(defaults | fields))


def test_changed_is_the_union_of_all_sides_with_nulls_unless_there_are_none() -> None:
    changes = ChangeSet(
        derivation="lineage",
        added=(change("a"),),
        removed=(change("b", "removed", ranges=hours(3, 4)),),
        deletes=(change("c", "deletes", ranges=hours(1, 2)),),
    )
    assert changes.changed == EventRanges((*hours(0, 2).ranges, *hours(3, 4).ranges))
    assert (changes.rows_added, changes.rows_removed) == (10, 20)
    for nulls in (3, None):
        assert ChangeSet(derivation="lineage", added=(change("a", nulls=nulls),)).changed == hours(0, 1, nulls=True)


def test_files_that_do_not_tell_are_listed_and_say_nothing() -> None:
    changes = ChangeSet(derivation="lineage", added=(change("a"), change("b", ranges=None)))
    assert [c.path for c in changes.unknown] == ["b"]
    assert changes.changed == hours(0, 1)


def test_late_is_the_part_below_a_moment() -> None:
    changes = ChangeSet(derivation="lineage", added=(change("a", ranges=hours(2, 5)),))
    assert changes.late(DAY + dt.timedelta(hours=3)) == hours(2, 3)
    assert changes.late(None) == EventRanges()


def test_max_event_time_is_that_of_added_files_alone() -> None:
    changes = ChangeSet(
        derivation="lineage", added=(change("a"),), removed=(change("b", "removed", ranges=hours(8, 9)),)
    )
    assert changes.max_event_time == DAY + dt.timedelta(hours=1) - MICROSECOND
    assert ChangeSet(derivation="lineage", added=(change("a", ranges=EventRanges()),)).max_event_time is None


def test_the_digest_tells_sets_of_paths_apart_whatever_their_order() -> None:
    one = ChangeSet(derivation="lineage", added=(change("a"), change("b")))
    same = ChangeSet(derivation="diff", added=(change("b", rows=1), change("a")))
    other = ChangeSet(derivation="lineage", added=(change("a"), change("c")))
    assert one.digest == same.digest != other.digest
    assert len(one.digest) == 16


def test_without_rewrites_leaves_both_sides_out_and_brings_unread_rows_back() -> None:
    new, moved, old = change("new", rows=7), change("moved", snapshot_id=2, rows=9), change("old", "removed", rows=4)
    changes = ChangeSet(
        derivation="lineage",
        added=(change("plain"), moved),
        removed=(old,),
        deletes=(change("d", "deletes", rows=1),),
        rewrites={
            2: Rewrite(
                added=(moved,),
                removed=(old, change("new", "removed", rows=7)),
                deletes=(change("d", "deletes", rows=1),),
                unread=(new,),
            )
        },
    )
    rest, added, removed = changes.without_rewrites()
    assert [c.path for c in rest.added] == ["plain", "new"]
    assert (rest.removed, rest.deletes, dict(rest.rewrites)) == ((), (), {})
    assert (added, removed) == (9, 5)
    assert rest.without_rewrites() == (rest, 0, 0)


def test_rewrite_ranges_cover_both_sides_or_say_that_they_cannot() -> None:
    rewrite = Rewrite(added=(change("a"),), removed=(change("b", "removed", ranges=hours(4, 5), nulls=1),))
    changes = ChangeSet(derivation="lineage", rewrites={1: rewrite})
    assert changes.rewrite_ranges() == EventRanges((*hours(0, 1).ranges, *hours(4, 5).ranges), nulls=True)
    blind = ChangeSet(derivation="lineage", rewrites={1: Rewrite(deletes=(change("d", "deletes", ranges=None),))})
    with pytest.raises(UnknownRange, match="which event times file d holds"):
        blind.rewrite_ranges()


def test_a_change_set_is_true_when_something_changed() -> None:
    assert not ChangeSet(derivation="unchanged")
    assert ChangeSet(derivation="lineage", deletes=(change("d", "deletes"),))
