"""Rows outside the planned ranges or the scope are refused, told by their times and numbers and by nothing else."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_incremental.core.errors import TransformError
from airflow_incremental.core.ranges import MAX_TIME, MICROSECOND, MIN_TIME, UTC, EventRanges, TimeRange
from airflow_incremental.iceberg.rowcheck import RowCheck

T0 = dt.datetime(2024, 1, 1, tzinfo=UTC)
HOUR = dt.timedelta(hours=1)
TZ = pa.timestamp("us", "UTC")


def hours(*starts: int, nulls: bool = False) -> EventRanges:
    return EventRanges(tuple(TimeRange(T0 + s * HOUR, T0 + (s + 1) * HOUR) for s in starts), nulls=nulls)


def batch(times: list[Any], kind: pa.DataType = TZ) -> pa.RecordBatch:
    return pa.record_batch({"at": pa.array(times, kind)})


def refused(check: RowCheck, rows: pa.RecordBatch) -> TransformError:
    with pytest.raises(TransformError) as caught:
        check.check(rows)
    return caught.value


def test_times_outside_are_told_with_their_ends_and_the_plan() -> None:
    check = RowCheck(event_time="at", ranges=hours(1, 3))
    check.check(batch([T0 + HOUR, T0 + 2 * HOUR - MICROSECOND, T0 + 3 * HOUR]))
    error = refused(check, batch([T0, T0 + HOUR, T0 + 2 * HOUR, T0 + 4 * HOUR]))
    assert str(error) == (
        "the transform returned 3 rows (of 4 in one batch) whose 'at' is outside the planned ranges, from "
        "2024-01-01T00:00:00Z to 2024-01-01T04:00:00Z. Expected: event times in "
        "2024-01-01T01:00:00Z/2024-01-01T02:00:00Z, 2024-01-01T03:00:00Z/2024-01-01T04:00:00Z. What to do: filter 'at' by "
        "the ranges in plan_ranges (range_start, range_end), or carry the source's event time through unchanged."
    )
    assert not error.retryable


def test_a_long_plan_is_told_in_short() -> None:
    error = refused(RowCheck(event_time="at", ranges=hours(*range(0, 2000, 2))), batch([T0 + HOUR]))
    assert error.expected.endswith("2024-01-01T10:00:00Z/2024-01-01T11:00:00Z and 994 more")
    assert refused(RowCheck(event_time="at", ranges=EventRanges()), batch([T0])).expected == "event times in nothing"


def test_null_times_need_a_range_of_their_own() -> None:
    rows = batch([T0, None, None])
    error = refused(RowCheck(event_time="at", ranges=hours(0)), rows)
    assert error.found == "the transform returned 2 rows (of 3 in one batch) whose event time 'at' is null"
    assert error.hint == "filter with at IS NOT NULL, or set on_null_event_time='own_range'"
    RowCheck(event_time="at", ranges=hours(0, nulls=True)).check(rows)


@pytest.mark.parametrize(
    ("kind", "inside", "outside"),
    [
        (pa.date32(), dt.date(2024, 1, 2), dt.date(2024, 1, 1)),
        (pa.timestamp("us"), dt.datetime(2024, 1, 2, 23, 59), dt.datetime(2024, 1, 3)),  # noqa: DTZ001
        (TZ, T0 + 24 * HOUR, T0 + 24 * HOUR - MICROSECOND),
    ],
    ids=str,
)
def test_times_are_moments_in_utc(kind: pa.DataType, inside: Any, outside: Any) -> None:
    check = RowCheck(event_time="at", ranges=EventRanges((TimeRange(T0 + 24 * HOUR, T0 + 48 * HOUR),)))
    check.check(batch([inside], kind))
    refused(check, batch([inside, outside], kind))


def test_everything_is_everything() -> None:
    check = RowCheck(event_time="at", ranges=EventRanges.everything())
    check.check(batch([None, MIN_TIME, T0, MAX_TIME]))
    check.check(pa.record_batch({"at": pa.array([-(2**62), 2**62], pa.int64()).cast(TZ)}))


def test_times_beyond_python_are_told_too() -> None:
    error = refused(RowCheck(event_time="at", ranges=hours(1)), batch([2**62]))
    assert f"to {2**62} microseconds since 1970" in error.found


def test_without_ranges_any_time_will_do() -> None:
    RowCheck(event_time="at").check(batch([None, T0]))
    RowCheck(ranges=hours(1)).check(batch([T0]))


_times = st.integers(-3, 400).flatmap(
    lambda h: st.sampled_from([-1, 0, 1]).map(lambda us: T0 + h * HOUR + us * MICROSECOND)
)


@given(
    st.lists(st.none() | _times, max_size=30),
    st.sets(st.integers(0, 400), max_size=200) | st.just(set(range(0, 400, 2))),
    st.booleans(),
)
def test_refused_is_what_a_plain_check_refuses(
    times: list[dt.datetime | None],
    starts: set[int],
    nulls: bool,
) -> None:
    ranges = hours(*starts, nulls=nulls)
    check = RowCheck(event_time="at", ranges=ranges)
    outside = [t for t in times if not ranges.contains(t)]
    if not outside:
        check.check(batch(times))
        return
    found = refused(check, batch(times)).found
    known = [t for t in outside if t is not None]
    count = len(outside) - len(known) if None in outside else len(known)
    assert found.startswith(f"the transform returned {count} rows (of {len(times)} in one batch)")


SCOPE = {"region": ("eu", None), "n": (1, 2)}


def test_rows_outside_the_scope_are_refused() -> None:
    rows = pa.record_batch({"region": ["eu", None, "us"], "n": [1, 2, 1]})
    check = RowCheck(scope=SCOPE)
    check.check(rows.slice(0, 2))
    error = refused(check, rows)
    assert error.found == (
        "the transform returned 1 rows (of 3 in one batch) whose 'region' is outside the scope of the process"
    )
    assert error.expected == "region in ('eu', None)"
    refused(check, pa.record_batch({"region": ["eu"], "n": pa.array([None], pa.int64())}))
    refused(check, pa.record_batch({"region": ["eu"], "n": [3]}))


@pytest.mark.parametrize("kind", [pa.bool_(), pa.int32(), pa.large_string()], ids=str)
def test_scopes_compare_in_the_columns_own_type(kind: pa.DataType) -> None:
    inside, outside = {"bool": (True, False), "int32": (7, 8), "large_string": ("007", "7")}[str(kind)]
    check = RowCheck(scope={"c": (inside,)})
    check.check(pa.record_batch({"c": pa.array([inside], kind)}))
    refused(check, pa.record_batch({"c": pa.array([outside], kind)}))
    refused(check, pa.record_batch({"c": pa.array([None], kind)}))
