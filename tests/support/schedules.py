"""Random schedules, and the timetable's own reading of them."""

from __future__ import annotations

import datetime as dt

from dateutil.relativedelta import relativedelta
from hypothesis import strategies as st

from tests.support.ticks import UTC, Calendar, Cron, Every, Schedule, offsets

#: Clocks moved by an hour at night or at midnight, by half an hour, about Ramadan, never; an offset of three quarters of an hour.
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Asia/Kathmandu",
]
_MINUTES = st.lists(st.sampled_from([0, 1, 15, 29, 30, 45, 59]), min_size=1, max_size=4, unique=True)


def _some(least: int, most: int, size: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(least, most), min_size=1, max_size=size, unique=True).map(sorted).map(tuple)


#: Half of them at the hours in which clocks are moved.
_HOURS = _some(0, 3, 4) | _some(0, 23, 6)

crons = st.builds(
    Cron,
    minutes=_MINUTES.map(sorted).map(tuple),
    hours=st.none() | _HOURS,
    days=st.none() | st.none() | _some(1, 31, 2),
    weekdays=st.none() | st.none() | _some(0, 6, 2),
    zone=st.sampled_from(ZONES),
)
schedules: st.SearchStrategy[Schedule] = (
    crons
    | crons
    | st.builds(Every, seconds=st.sampled_from([60, 420, 900, 3_600, 7 * 3_600, 86_400]))
    | st.builds(Calendar, days=st.sampled_from([1, 3, 7]), zone=st.sampled_from(ZONES))
    | st.builds(Calendar, months=st.sampled_from([1, 2]), zone=st.sampled_from(ZONES))
)


def argument(schedule: Schedule) -> str | int | relativedelta:
    """Return what an author would write."""
    if isinstance(schedule, Cron):
        return schedule.expression
    return (
        schedule.seconds if isinstance(schedule, Every) else relativedelta(days=schedule.days, months=schedule.months)
    )


@st.composite
def moments(draw: st.DrawFn, zone: str) -> dt.datetime:
    """Draw a time of 2024, most of them about when clocks of the zone are moved."""
    moves = [moment for moment in offsets(zone).since if moment.year == 2024]
    about = draw(st.sampled_from(moves) if moves else st.just(dt.datetime(2024, 2, 29, tzinfo=UTC)))
    return about + draw(
        st.integers(-4 * 60, 4 * 60).map(lambda n: dt.timedelta(minutes=n))
        | st.integers(-3 * 86_400_000_000, 3 * 86_400_000_000).map(lambda n: dt.timedelta(microseconds=n))
    )
