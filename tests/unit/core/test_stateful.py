"""The rule of the range a stateful process computes: Psyberg's examples, and what must hold of any history."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_incremental.core.ranges import UTC, EventRanges, Grain, TimeRange
from airflow_incremental.core.stateful import end_of, pending, steps_of
from airflow_incremental.core.thresholds import Thresholds

DAY = dt.datetime(2023, 9, 14, tzinfo=UTC)


def hour(n: int) -> dt.datetime:
    return DAY + dt.timedelta(hours=n)


def hours(*ns: int) -> EventRanges:
    return EventRanges(tuple(TimeRange(hour(n), hour(n + 1)) for n in ns))


def computed(affected: EventRanges, complete: int | None, processed: int | None) -> tuple[int, int] | None:
    known = {
        "complete": None if complete is None else hour(complete),
        "processed": None if processed is None else hour(processed),
    }
    # As a plan without thresholds computes it.
    share = Thresholds(process="p", grain=Grain.HOUR).in_order(pending(affected, **known), end_of(**known))
    found = share.now.span()
    assert not share.old
    assert not share.beyond
    if found is None:
        return None
    return int((found.start - DAY).total_seconds() // 3600), int((found.end - DAY).total_seconds() // 3600)


@pytest.mark.parametrize(
    ("affected", "complete", "processed", "expected", "why"),
    [
        (hours(5, 6, 7), 8, 6, (5, 8), "cancels: late hour 5, new hours 6 and 7"),
        (hours(2, 3, 6), 7, 7, (2, 7), "the dimension: late hours below what was processed, nothing newly complete"),
        (hours(), 8, 7, (7, 8), "an hour that completes without a row is processed"),
        (hours(7, 8), 7, 7, None, "changes at or past what is complete wait"),
        (hours(7), 9, 7, (7, 9), "and are there when it completes"),
        (hours(3), 5, 7, (3, 7), "a driver whose completeness fell back: the range ends at what was processed"),
        (hours(6), 5, 7, (6, 7), "also between the two"),
        (hours(8), 5, 7, None, "and not past it"),
        (hours(), 5, 7, None, "a fall alone is no work"),
        (hours(), 7, 7, None, "nothing new"),
        (hours(1, 2), 2, None, (1, 2), "a first run starts at the first event"),
        (hours(4), 2, None, None, "a first run with nothing complete"),
        (hours(4), None, None, None, "a driver that does not say"),
        (hours(4), None, 7, (4, 7), "not any more"),
    ],
)
def test_the_rule(
    affected: EventRanges, complete: int | None, processed: int | None, expected: tuple[int, int] | None, why: str
) -> None:
    assert computed(affected, complete, processed) == expected, why


@given(
    st.lists(st.tuples(st.sets(st.integers(0, 30)), st.integers(0, 30)), min_size=1, max_size=8),
)
def test_after_any_history_every_hour_below_processed_was_computed_after_its_last_change(
    ticks: list[tuple[set[int], int]],
) -> None:
    """Changes arrive in any hours while completeness goes up and down; nothing is forgotten and no list of pending work is kept."""
    processed: int | None = None
    last_change: dict[int, int] = {}
    last_computed: dict[int, int] = {}
    since: set[int] = set()
    for tick, (changed, complete) in enumerate(ticks):
        last_change.update(dict.fromkeys(changed, tick))
        since |= changed
        found = computed(hours(*since), complete, processed)
        if found is not None:
            last_computed.update(dict.fromkeys(range(*found), tick))
            processed = max(found[1], processed or 0)
        if processed is not None:
            since = set()  # the positions are published, also where only they moved; before a first result they are not
        for h, change in last_change.items():
            if processed is not None and h < processed:
                assert last_computed.get(h, -1) >= change


def test_steps() -> None:
    whole, across = EventRanges((TimeRange(hour(0), hour(3)),)), EventRanges((TimeRange(hour(0), hour(30)),))
    assert steps_of(whole, None) == whole.ranges
    assert steps_of(whole, Grain.HOUR) == tuple(TimeRange(hour(n), hour(n + 1)) for n in range(3))
    assert steps_of(across, Grain.DAY) == (TimeRange(hour(0), hour(24)), TimeRange(hour(24), hour(30)))
