"""Event ranges against a model that holds single quarter hours."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.ranges import MAX_TIME, MIN_TIME, UTC, EventRanges, Grain, TimeRange, parse_time, utc

ZERO = dt.datetime(2024, 2, 28, 21, tzinfo=UTC)
QUARTER = dt.timedelta(minutes=15)
HORIZON = 200


def at(n: int) -> dt.datetime:
    return ZERO + n * QUARTER


@st.composite
def event_ranges(draw: st.DrawFn) -> EventRanges:
    pairs = draw(st.lists(st.tuples(st.integers(0, HORIZON), st.integers(1, 30)), max_size=8))
    return EventRanges(tuple(TimeRange(at(s), at(s + n)) for s, n in pairs), nulls=draw(st.booleans()))


def model(ranges: EventRanges) -> set[int | None]:
    found: set[int | None] = {n for n in range(HORIZON + 40) if any(r.start <= at(n) < r.end for r in ranges.ranges)}
    return found | ({None} if ranges.nulls else set())


@given(event_ranges(), event_ranges())
def test_set_operations_are_those_of_sets(a: EventRanges, b: EventRanges) -> None:
    assert model(a.union(b)) == model(a) | model(b)
    assert model(a.intersect(b)) == model(a) & model(b)
    assert model(a.subtract(b)) == model(a) - model(b)
    for result in (a.union(b), a.intersect(b), a.subtract(b)):
        assert all(x.end < y.start for x, y in zip(result.ranges, result.ranges[1:], strict=False)), "normalised"


@given(event_ranges(), st.integers(0, HORIZON), st.integers(1, 30))
def test_membership(a: EventRanges, start: int, length: int) -> None:
    item = TimeRange(at(start), at(start + length))
    inside = {n in model(a) for n in range(start, start + length)}
    assert a.contains(at(start)) == (start in model(a))
    assert a.contains(None) == a.nulls
    assert a.covers(item) == (inside == {True})
    assert a.overlaps(item) == (True in inside)


@given(event_ranges(), st.sampled_from(list(Grain)))
def test_align_is_the_smallest_cover_of_whole_units(a: EventRanges, grain: Grain) -> None:
    aligned = a.align(grain)
    assert aligned.nulls == a.nulls
    assert all(grain.floor(r.start) == r.start and grain.floor(r.end) == r.end for r in aligned.ranges)
    units = {grain.floor(at(n)) for n in model(a) if n is not None}
    assert aligned.count(grain) == len(units) + a.nulls
    assert all(aligned.contains(u) for u in units)


@given(event_ranges(), st.integers(1, 5))
def test_coalesce_is_a_superset_of_at_most_n_ranges(a: EventRanges, most: int) -> None:
    merged = a.coalesce(most)
    assert len(merged.ranges) <= max(most, 1)
    assert merged.union(a) == merged
    assert merged.span() == a.span()


@given(event_ranges())
def test_json_round_trip(a: EventRanges) -> None:
    assert EventRanges.from_json(a.to_json()) == a


@given(event_ranges(), st.integers(0, HORIZON))
def test_below(a: EventRanges, cut: int) -> None:
    assert model(a.below(at(cut))) == {n for n in model(a) if n is not None and n < cut}
    assert not a.below(None)


def test_everything_holds_everything() -> None:
    every = EventRanges.everything()
    assert every.is_everything
    assert every.contains(None)
    assert every.contains(MIN_TIME)
    assert every.contains(ZERO)
    assert every.align(Grain.YEAR).ranges[0].end == MAX_TIME
    assert str(every) == "everything"


def test_months_and_years_end_where_the_calendar_says() -> None:
    leap = dt.datetime(2024, 2, 29, 23, 59, tzinfo=UTC)
    assert Grain.MONTH.ceil(leap) == dt.datetime(2024, 3, 1, tzinfo=UTC)
    assert Grain.YEAR.ceil(dt.datetime(2023, 12, 31, 1, tzinfo=UTC)) == dt.datetime(2024, 1, 1, tzinfo=UTC)
    assert Grain.MONTH.after(dt.datetime(2024, 12, 1, tzinfo=UTC)) == dt.datetime(2025, 1, 1, tzinfo=UTC)


def test_naive_times_are_refused_with_what_to_do() -> None:
    with pytest.raises(ArgumentError, match=r"naive datetime 2024-01-01T00:00:00.*add a time zone"):
        utc(dt.datetime(2024, 1, 1))  # noqa: DTZ001
    with pytest.raises(ArgumentError, match=r"which has no zone.*write it like 2024-01-01T00:00:00Z"):
        parse_time("2024-01-01")
    with pytest.raises(ArgumentError, match="ISO 8601"):
        parse_time("yesterday")
    assert parse_time("2024-01-01T02:00:00+02:00") == dt.datetime(2024, 1, 1, tzinfo=UTC)


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(ArgumentError, match="is empty"):
        TimeRange(ZERO, ZERO)
