"""What an author may write, what is refused when the DAG is parsed, and in which words."""

from __future__ import annotations

import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

import pendulum
import pytest
from dateutil.relativedelta import relativedelta

from airflow_incremental import CatchUpTimetable
from airflow_incremental.core.errors import ArgumentError

HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("0 0 30 2 *", ["failed to find next date", "never come"]),
        ("0 0 31 4,6,9,11 *", ["failed to find next date"]),
        ("61 * * * *", ["out of range"]),
        ("every hour", ["'every hour' has 2 fields", "five"]),
        ("* * * *", ["has 4 fields"]),
        ("0 0 1 1 * 0 2030", ["has 7 fields", "end_date"]),
        ("a b c d e", ["for which cron says"]),
        ("", ["the schedule is ''"]),
        ("@once", ["no intervals to catch up", "schedule='@once'"]),
        ("@continuous", ["no intervals to catch up", "schedule='@continuous'"]),
        ("@reboot", ["one of @hourly, @daily"]),
        ("R * * * *", ["the same whenever one looks"]),
        ("0 r(1-4) * * *", ["the same whenever one looks"]),
        ("H H * * *", ["the same whenever one looks"]),
        (None, ["the schedule is None", "a cron expression, a timedelta"]),
        (True, ["the schedule is True"]),
        (0, ["the schedule is 0", "at least one second"]),
        (-3_600, ["at least one second"]),
        (0.5, ["whole seconds"]),
        (float("nan"), ["whole seconds"]),
        (1e300, ["at most 100 years"]),
        (dt.timedelta(days=40_000), ["at most 100 years"]),
        (dt.timedelta(0), ["at least one second"]),
        (-DAY, ["at least one second"]),
        (dt.timedelta(milliseconds=1_500), ["whole seconds"]),
        (relativedelta(), ["at least one second"]),
        (relativedelta(days=-1), ["at least one second"]),
        (relativedelta(months=1, days=-1), ["at least one second"]),
        (relativedelta(years=101), ["at most 100 years"]),
        (relativedelta(hour=3), ["a length of time", "cron expression"]),
        (relativedelta(weekday=0), ["a length of time"]),
        (pendulum.duration(months=1), ["relativedelta for months"]),
    ],
)
def test_a_schedule_is_refused(schedule: Any, words: list[str]) -> None:
    with pytest.raises(ArgumentError) as refused:
        CatchUpTimetable(schedule)
    assert [word for word in words if word not in str(refused.value)] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lag": -1}, ["lag is -1", "not negative"]),
        ({"lag": -HOUR}, ["not negative"]),
        ({"lag": 3_600_000}, ["lag is 41 days 16 hours", "at most 31 days", "seconds"]),  # milliseconds
        ({"lag": relativedelta(months=1)}, ["days or less"]),
        ({"lag": "1h"}, ["lag is '1h'"]),
        ({"lag": None}, ["lag is None"]),
        ({"max_interval": 0}, ["max_interval is 0"]),
        ({"max_interval": -DAY}, ["max_interval is"]),
        ({"max_interval": 1_800}, ["max_interval is 30 minutes", "1 hour apart", "at least a tick"]),
        ({"backfill_interval": 1_800}, ["backfill_interval is 30 minutes", "at least a tick"]),
        ({"backfill_interval": relativedelta(days=0)}, ["backfill_interval is"]),
        ({"backfill_interval": "@daily"}, ["backfill_interval is '@daily'"]),
        ({"timezone": "Mars/Olympus"}, ["timezone is 'Mars/Olympus'", "Europe/Berlin"]),
        ({"timezone": "Europe"}, ["timezone is 'Europe'"]),
        ({"timezone": ""}, ["timezone is ''"]),
        ({"timezone": "../UTC"}, ["timezone is '../UTC'"]),
        ({"timezone": None}, ["timezone is None"]),
        ({"timezone": 3_600}, ["timezone is 3600"]),
    ],
)
def test_a_setting_is_refused(arguments: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ArgumentError) as refused:
        CatchUpTimetable("@hourly", **arguments)
    assert [word for word in words if word not in str(refused.value)] == []


def test_a_zone_that_would_change_nothing_is_refused() -> None:
    with pytest.raises(ArgumentError, match="counted in UTC"):
        CatchUpTimetable(DAY, timezone="Europe/Berlin")
    CatchUpTimetable(DAY, backfill_interval=relativedelta(months=1), timezone="Europe/Berlin")


@pytest.mark.parametrize(
    ("schedule", "lag"),
    [
        ("@hourly", 31 * DAY),
        ("@quarterly", 91 * DAY),
        (relativedelta(years=1), 300 * DAY),
        ("@hourly", relativedelta(days=2)),
    ],
)
def test_a_lag_may_be_as_long_as_a_tick_or_a_month(schedule: Any, lag: Any) -> None:
    CatchUpTimetable(schedule, lag=lag)
    with pytest.raises(ArgumentError, match="at most"):
        CatchUpTimetable(schedule, lag=366 * DAY + HOUR)


@pytest.mark.parametrize("arguments", [{"max_interval": 28 * DAY}, {"backfill_interval": 28 * DAY}])
def test_steps_of_the_calendar_count_at_their_longest(arguments: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match="29 days apart"):
        CatchUpTimetable("@monthly", **arguments)
    CatchUpTimetable("@monthly", **dict.fromkeys(arguments, relativedelta(months=1)))


@pytest.mark.parametrize(
    ("timezone", "stored"),
    [
        ("utc", "UTC"),
        (dt.timezone.utc, "UTC"),
        (pendulum.UTC, "UTC"),
        ("Europe/Berlin", "Europe/Berlin"),
        (ZoneInfo("Europe/Berlin"), "Europe/Berlin"),
        (pendulum.timezone("Europe/Berlin"), "Europe/Berlin"),
        (pendulum.timezone(-5_400), -5_400),
        (dt.timezone(dt.timedelta(hours=5, minutes=45)), 20_700),
    ],
)
def test_zones(timezone: Any, stored: Any) -> None:
    timetable = CatchUpTimetable("@daily", timezone=timezone)
    assert timetable.serialize()["timezone"] == stored
    assert CatchUpTimetable.deserialize(timetable.serialize()) == timetable


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (CatchUpTimetable("@hourly"), CatchUpTimetable("0  * * * *")),
        (CatchUpTimetable(3_600), CatchUpTimetable(relativedelta(hours=1))),
        (CatchUpTimetable("@hourly", lag=60), CatchUpTimetable("@hourly", lag=dt.timedelta(minutes=1))),
    ],
)
def test_ways_to_write_the_same(one: CatchUpTimetable, other: CatchUpTimetable) -> None:
    assert one == other
    assert hash(one) == hash(other)


@pytest.mark.parametrize(
    "other",
    [
        CatchUpTimetable("@daily"),
        CatchUpTimetable("@hourly", lag=1),
        CatchUpTimetable("@hourly", max_interval=DAY),
        CatchUpTimetable("@hourly", backfill_interval=DAY),
        CatchUpTimetable("@hourly", timezone="Europe/Berlin"),
        CatchUpTimetable(HOUR),
        "@hourly",
    ],
)
def test_others_are_not_the_same(other: object) -> None:
    assert CatchUpTimetable("@hourly") != other
