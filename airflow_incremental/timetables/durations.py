"""Lengths of time in a timetable: read, added, put into words, and stored.

A ``timedelta`` is absolute: 24 hours are 24 hours. A ``relativedelta`` with days, months or years is counted on the calendar and
the wall clock of the timetable's zone: a day is as long as the day is.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, TypeAlias

from dateutil.relativedelta import relativedelta

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.timetables.zones import UTC, Zone

Duration: TypeAlias = dt.timedelta | relativedelta

_UNITS = ("years", "months", "days", "hours", "minutes", "seconds")
_SHORT = {"years": "y", "months": "mo", "days": "d", "hours": "h", "minutes": "m", "seconds": "s"}
_POINTS = ("year", "month", "day", "weekday", "hour", "minute", "second", "microsecond")
#: Longer is a mistake, and soon beyond what a calendar holds.
_MOST_YEARS = 100
_END_OF_TIME = dt.datetime.max.replace(tzinfo=UTC)


def read_duration(given: Any, *, what: str, least: int = 1, forms: str = "") -> Duration:
    """Read what an author wrote: a ``timedelta``, a number of seconds, or a ``relativedelta``.

    :param what: how an error names it.
    :param least: 1, or 0 where no time at all is a length, too.
    :param forms: what an error says that it may be besides a length of time.
    :raises ArgumentError: it is no length of time in whole seconds, too short, or longer than a century.
    """
    bounds = f"{'of at least one second' if least else 'not negative'}, in whole seconds, at most {_MOST_YEARS} years"
    refused = ArgumentError(
        f"{what} is {given!r}", expected=f"{forms}a timedelta, a number of seconds or a relativedelta, {bounds}"
    )
    if isinstance(given, relativedelta):
        length = _calendar(given, refused)
    elif isinstance(given, dt.timedelta):
        if getattr(given, "years", 0) or getattr(given, "months", 0):  # of pendulum, where a month is always 30 days
            raise ArgumentError(refused.found, expected="a dateutil relativedelta for months and years")
        length = _absolute(given.total_seconds(), refused)
    elif isinstance(given, int | float) and not isinstance(given, bool):
        length = _absolute(given, refused)
    else:
        raise refused
    if isinstance(length, dt.timedelta) and not least <= length.total_seconds() <= _MOST_YEARS * 365.25 * 86_400:
        raise refused
    return length


def _absolute(seconds: float, refused: ArgumentError) -> dt.timedelta:
    try:
        length = dt.timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        raise refused from None
    if length.microseconds:
        raise refused
    return length


def _calendar(given: relativedelta, refused: ArgumentError) -> Duration:
    if given.leapdays or any(getattr(given, point) is not None for point in _POINTS):
        raise ArgumentError(
            refused.found,
            expected="a length of time",
            hint="singular arguments of a relativedelta, such as hour=6, name a point in time; write a cron expression for it",
        )
    length = given.normalized()
    if length.microseconds or any(getattr(length, unit) < 0 for unit in _UNITS):
        raise refused
    if length.years + length.months / 12 + length.days / 365.25 > _MOST_YEARS:
        raise refused
    if length.years or length.months or length.days:
        return length
    return dt.timedelta(hours=length.hours, minutes=length.minutes, seconds=length.seconds)


def plus(moment: dt.datetime, length: Duration, zone: Zone) -> dt.datetime:
    """Return the instant a length of time after ``moment``; the end of time where it lies beyond."""
    try:
        if isinstance(length, dt.timedelta):
            return moment + length
        return zone.instant(zone.wall(moment) + length)
    except (OverflowError, ValueError):
        return _END_OF_TIME


def store(length: Duration) -> int | dict[str, int]:
    """Return the JSON form."""
    if isinstance(length, dt.timedelta):
        return int(length.total_seconds())
    return _parts(length)


def restore(stored: int | dict[str, int]) -> Duration:
    """Return what ``store`` was given."""
    return relativedelta(**stored) if isinstance(stored, dict) else dt.timedelta(seconds=stored)


def in_words(length: Duration) -> str:
    """Return it as ``1 day 6 hours``."""
    return " ".join(f"{n} {unit if n != 1 else unit[:-1]}" for unit, n in _parts(length).items()) or "0 seconds"


def in_short(length: Duration) -> str:
    """Return it as ``1d6h``."""
    return "".join(f"{n}{_SHORT[unit]}" for unit, n in _parts(length).items()) or "0s"


def _parts(length: Duration) -> dict[str, int]:
    if isinstance(length, dt.timedelta):
        minutes, seconds = divmod(length.seconds, 60)
        hours, minutes = divmod(minutes, 60)
        values = {"days": length.days, "hours": hours, "minutes": minutes, "seconds": seconds}
    else:
        values = {unit: int(getattr(length, unit)) for unit in _UNITS}
    return {unit: n for unit, n in values.items() if n}
