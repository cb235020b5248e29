"""Files by event time: the index finds what a look at every file finds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_incremental.core.ranges import EventRanges, TimeRange
from airflow_incremental.iceberg import file_index
from airflow_incremental.iceberg.file_index import FileIndex
from airflow_incremental.iceberg.scan import may_hold
from tests.support.world import hour

sets = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), max_size=3).map(
    lambda items: EventRanges(tuple(TimeRange(hour(a), hour(a + n)) for a, n in items))
)
held = st.tuples(st.one_of(st.none(), sets), st.one_of(st.none(), st.integers(0, 2)))


@given(files=st.lists(held, max_size=25), ranges=sets, nulls=st.booleans())
def test_it_finds_every_file_that_may_hold_a_row(
    files: list[tuple[EventRanges | None, int | None]], ranges: EventRanges, nulls: bool
) -> None:
    wanted = EventRanges(ranges.ranges, nulls=nulls)
    index = FileIndex.of((n, ranges, count) for n, (ranges, count) in enumerate(files))
    expected = [n for n, (found, count) in enumerate(files) if may_hold(found, count, wanted)]
    assert index.holding(wanted) == expected
    assert index.holding(None) == list(range(len(files)))


def test_a_file_of_all_times_does_not_make_every_range_look_at_all_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of many small files and one wide one, and a backfill with holes: the cost is their sum, not their product."""
    files = [(0, EventRanges((TimeRange(hour(0), hour(400)),)), 0)]
    files += [(n, EventRanges((TimeRange(hour(n - 1), hour(n)),)), 0) for n in range(1, 401)]
    index = FileIndex.of(files)
    looks = 0

    def counting(*args: Any) -> bool:
        nonlocal looks
        looks += 1
        return may_hold(*args)

    monkeypatch.setattr(file_index, "may_hold", counting)
    wanted = EventRanges(tuple(TimeRange(hour(n), hour(n + 1)) for n in range(0, 400, 2)))
    assert index.holding(wanted) == [0, *range(1, 401, 2)]
    assert looks <= len(files)
