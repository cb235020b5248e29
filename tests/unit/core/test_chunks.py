"""How plans are cut into chunks: whole units, about equal bytes, nothing lost and nothing twice."""

from __future__ import annotations

import datetime as dt
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_incremental.core.chunks import Chunking, cuts_of, times_read
from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.plan import Plan
from airflow_incremental.core.ranges import MAX_TIME, MIN_TIME, EventRanges, Grain, TimeRange
from airflow_incremental.iceberg.bounds import half_open
from tests.support.world import hour
from tests.unit.core.test_plan import plan


def span(start: float, end: float) -> EventRanges:
    return EventRanges((TimeRange(hour(start), hour(end)),))


ranges = st.lists(
    st.tuples(st.integers(0, 400), st.integers(1, 40)).map(lambda r: TimeRange(hour(r[0]), hour(r[0] + r[1]))),
    min_size=1,
    max_size=8,
).map(tuple)
files = st.lists(
    st.tuples(
        st.one_of(
            st.none(),
            st.just(EventRanges()),
            st.tuples(st.floats(0, 450), st.floats(0.001, 60)).map(lambda r: span(r[0], r[0] + r[1])),
        ),
        st.integers(0, 1000),
    ),
    max_size=30,
)

#: When the sources were committed last, well after all events.
LATEST = hour(1e5)


@given(
    work=st.builds(EventRanges, ranges, nulls=st.booleans()),
    files=files,
    unit=st.sampled_from(list(Grain)),
    size=st.integers(1, 5000),
    most=st.integers(1, 12),
    latest=st.floats(1, 1000).map(hour),
)
def test_chunks_make_up_the_work_and_each_holds_some(
    work: EventRanges,
    files: list[tuple[EventRanges | None, int]],
    unit: Grain,
    size: int,
    most: int,
    latest: dt.datetime,
) -> None:
    work = work.align(unit)
    cuts = cuts_of(work, files, unit, Chunking(size, most), latest=latest)
    assert list(cuts) == sorted(set(cuts))
    assert len(cuts) < most
    assert all(unit.floor(cut) == cut for cut in cuts)
    cut_plan = attrs.evolve(plan(work), cuts=cuts)
    parts = [cut_plan.only(chunk) for chunk in cut_plan.chunks]
    assert EventRanges.union_of(p.replaced for p in parts) == work
    assert sum(p.replaced.count(unit) for p in parts) == work.count(unit), "no unit is in two chunks"
    assert all(p.replaced.ranges for p in parts)
    assert [p.replaced.nulls for p in parts[:-1]] == [False] * (len(parts) - 1)


@given(ranges=ranges, cuts=st.lists(st.integers(0, 450).map(hour), unique=True).map(sorted), size=st.integers(1, 9))
def test_a_file_is_read_for_each_chunk_that_it_reaches_into(
    ranges: tuple[TimeRange, ...], cuts: list[dt.datetime], size: int
) -> None:
    held = EventRanges(ranges)
    chunks = attrs.evolve(plan(span(0, 9)), cuts=tuple(cuts)).chunks
    reached = sum(1 for chunk in chunks if held.intersect(chunk))
    assert times_read([(held, size)], cuts) == reached
    assert times_read([(None, size)], cuts) == len(chunks)
    assert times_read([(EventRanges(), size), (held, size)], cuts) == (1 + reached) / 2
    assert times_read([], cuts) == 1


def test_chunks_are_about_equal_where_the_bytes_allow() -> None:
    # Ten files of an hour, of which the last three are large.
    held = [(span(n, n + 1), 100 if n < 7 else 700) for n in range(10)]
    cuts = cuts_of(span(0, 10), held, Grain.HOUR, Chunking(1000, 100), latest=LATEST)
    sizes = [
        sum(size for found, size in held if found is not None and chunk.covers(found.ranges[0]))
        for chunk in attrs.evolve(plan(span(0, 10)), cuts=cuts).chunks
    ]
    assert sum(sizes) == 2800
    assert max(sizes) <= 1400
    assert len(sizes) == 3


def test_only_files_within_the_work_count() -> None:
    # A restatement of one day in a source of a year: the year's bytes are no reason to cut it.
    year = [(span(24 * n, 24 * n + 24), 100) for n in range(365)]
    assert cuts_of(span(48, 72), year, Grain.HOUR, Chunking(100, 100), latest=LATEST) == ()
    assert len(cuts_of(span(48, 72), year, Grain.HOUR, Chunking(10, 100), latest=LATEST)) == 9
    assert cuts_of(EventRanges(nulls=True), year, Grain.HOUR, Chunking(1, 100), latest=LATEST) == ()


def test_everything_is_cut_where_the_files_are() -> None:
    held = [(span(n, n + 1), 100) for n in range(8)]
    cuts = cuts_of(EventRanges.everything(), held, Grain.HOUR, Chunking(400, 100), latest=LATEST)
    assert cuts == (hour(4),)
    first, last = attrs.evolve(plan(EventRanges.everything()), cuts=cuts).chunks
    assert first.union(last).is_everything
    assert (first.nulls, last.nulls) == (False, True)


@pytest.mark.parametrize("unit", list(Grain))
def test_times_that_stand_for_never_and_for_ever(unit: Grain) -> None:
    first, last = (EventRanges((half_open(at, at),)) for at in (MIN_TIME, MAX_TIME))
    everything = EventRanges.everything()
    for held in ([first], [last], [first, span(0, 9), last], [everything], [everything, first, last]):
        for work in (EventRanges.union_of(held), EventRanges.union_of(held).align(unit), everything):
            for most in range(2, 9):
                cuts = cuts_of(work, ((ranges, 1000) for ranges in held), unit, Chunking(1, most), latest=LATEST)
                assert len(cuts) < most
                chunks = attrs.evolve(plan(work), cuts=cuts).chunks
                assert EventRanges.union_of(chunks) == everything


@pytest.mark.parametrize(("never", "size", "least"), [(MAX_TIME, 200, 3), (MIN_TIME, 20, 2)])
def test_a_few_rows_without_a_known_time_do_not_pull_the_cuts_away(never: dt.datetime, size: int, least: int) -> None:
    """Each file of eight years has a row of the year 1 or 9999."""
    year = 365 * 24
    files = [(EventRanges((*span(n * year, (n + 1) * year).ranges, half_open(never, never))), 100) for n in range(8)]
    work = EventRanges.union_of(held for held, _ in files)
    cuts = cuts_of(work, files, Grain.DAY, Chunking(size, 100), latest=hour(8 * year))
    assert sum(hour(0) < cut < hour(8 * year) for cut in cuts) >= least


def test_events_that_lie_ahead_count_where_they_lie() -> None:
    """Bookings: each day's file reaches a year ahead."""
    files = [(span(24 * n, 24 * (n + 365)), 100) for n in range(365)]
    cuts = cuts_of(span(0, 24 * 730), files, Grain.DAY, Chunking(3700, 100), latest=hour(24 * 365))
    assert len(cuts) == 9
    assert hour(24 * 360) < cuts[4] < hour(24 * 370)
    assert cuts[8] > hour(24 * 500)


def test_cuts_are_kept_with_the_plan() -> None:
    stored = attrs.evolve(plan(span(0, 9)), cuts=(hour(3), hour(6)))
    assert Plan.decode(stored.encode()) == stored
    assert "in 3 chunks" in stored.describe()
    assert [str(stored.only(chunk).replaced) for chunk in stored.chunks] == [
        str(span(0, 3)),
        str(span(3, 6)),
        str(span(6, 9)),
    ]


@pytest.mark.parametrize(
    ("given", "bytes_"),
    [(1, 1), ("512MB", 512_000_000), ("2GiB", 2 * 1024**3), ("1.5 kB", 1500), ("100", 100), ("1TiB", 1024**4)],
)
def test_sizes(given: Any, bytes_: int) -> None:
    assert Chunking(given).bytes == bytes_


@pytest.mark.parametrize("given", [0, -1, True, "0", "big", "5 parsecs", None, 1.5])
def test_wrong_sizes(given: Any) -> None:
    with pytest.raises(ArgumentError, match=r"chunk_bytes is .* Expected: .*'512MB'"):
        Chunking(given)


@pytest.mark.parametrize("given", [0, 1001, "3", True, None])
def test_wrong_numbers_of_chunks(given: Any) -> None:
    with pytest.raises(ArgumentError, match=r"max_chunks is .* Expected: a whole number from 1 to 1,000"):
        Chunking(100, given)


def test_what_is_late_in_a_chunk_is_its_own() -> None:
    """A transform that is called for a chunk is told of no event times but those it computes."""
    whole = attrs.evolve(plan(span(0, 9)), cuts=(hour(3), hour(6)), late=span(1, 4))
    assert [whole.only(chunk).late for chunk in whole.chunks] == [span(1, 3), span(3, 4), EventRanges()]


def test_five_years_by_the_hour_with_holes() -> None:
    # Every other hour for five years: the plan keeps what it can of the holes, and the ends of its chunks.
    work = EventRanges(tuple(TimeRange(hour(n), hour(n + 1)) for n in range(0, 43_800, 2)))
    cuts = cuts_of(
        work, ((EventRanges((r,)), 1000) for r in work.ranges), Grain.HOUR, Chunking(1000, 100), latest=LATEST
    )
    assert len(cuts) == 99
    assert all(work.contains(cut) for cut in cuts)
    assert dt.timedelta(hours=430) < cuts[1] - cuts[0] < dt.timedelta(hours=450)
