"""A second, naive reading of schedules: ticks listed day by day, without croniter, in zones looked at by hand."""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import cache
from zoneinfo import ZoneInfo

import attrs

UTC = dt.timezone.utc
DAY = dt.timedelta(days=1)
_QUARTER = dt.timedelta(minutes=15)


@attrs.frozen
class Offsets:
    """When a zone's clocks were moved, and what they show since: found by looking at every quarter of an hour."""

    since: list[dt.datetime]
    offset: list[dt.timedelta]

    def at(self, moment: dt.datetime) -> dt.timedelta:
        return self.offset[bisect_right(self.since, moment) - 1]

    def wall(self, moment: dt.datetime) -> dt.datetime:
        return (moment + self.at(moment)).replace(tzinfo=None)

    def all_instants(self, wall: dt.datetime) -> list[dt.datetime]:
        """Return when clocks show a time: once, twice, or never."""
        moments = {wall.replace(tzinfo=UTC) - offset for offset in self.offset}
        return sorted(moment for moment in moments if self.wall(moment) == wall)

    def one_instant(self, wall: dt.datetime) -> dt.datetime:
        """Return the second time that clocks show it, or as long after they were put forward as it is in what they left out."""
        shown = self.all_instants(wall)
        if shown:
            return shown[-1]
        for before, moment in zip(self.offset, self.since[1:], strict=False):
            left_out = (moment + before).replace(tzinfo=None)
            if left_out <= wall < self.wall(moment):
                return moment + (wall - left_out)
        raise AssertionError(wall)


@cache
def offsets(name: str, first: int = 2023, last: int = 2033) -> Offsets:
    """Return the offsets of a zone in some years."""
    zone = ZoneInfo(name)
    moment, end = dt.datetime(first, 1, 1, tzinfo=UTC), dt.datetime(last, 12, 31, tzinfo=UTC)
    since, found = [moment], [moment.astimezone(zone).utcoffset()]
    while moment < end:
        if (offset := moment.astimezone(zone).utcoffset()) != found[-1]:
            since.append(moment)
            found.append(offset)
        moment += _QUARTER
    return Offsets(since, found)  # type: ignore[arg-type]  # a zone has offsets


@attrs.frozen
class Cron:
    """A cron expression taken apart; None stands for a star."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...] | None = None
    days: tuple[int, ...] | None = None
    weekdays: tuple[int, ...] | None = None  # 0 is Sunday
    zone: str = "UTC"

    @property
    def expression(self) -> str:
        fields = (self.minutes, self.hours, self.days, None, self.weekdays)
        return " ".join("*" if field is None else ",".join(map(str, field)) for field in fields)

    def of_day(self, day: dt.date) -> list[dt.datetime]:
        """Return the ticks of a day on the wall."""
        weekday = day.isoweekday() % 7
        fits = [day.day in self.days if self.days else None, weekday in self.weekdays if self.weekdays else None]
        if fits != [None, None] and not any(fits):  # a star restricts nothing; of two restrictions one is enough
            return []
        zone = offsets(self.zone)
        found: set[dt.datetime] = set()
        for hour in range(24) if self.hours is None else self.hours:
            for minute in self.minutes:
                wall = dt.datetime.combine(day, dt.time(hour, minute))
                found |= set(zone.all_instants(wall)) if self.hours is None else {zone.one_instant(wall)}
        return sorted(found)


@attrs.frozen
class Every:
    """Seconds, counted from the beginning of 1970."""

    seconds: int
    zone: str = "UTC"

    def of_day(self, day: dt.date) -> list[dt.datetime]:
        midnight = int(dt.datetime.combine(day, dt.time(), tzinfo=UTC).timestamp())
        first = -(-midnight // self.seconds) * self.seconds
        return [dt.datetime.fromtimestamp(n, tz=UTC) for n in range(first, midnight + 86_400, self.seconds)]


@attrs.frozen
class Calendar:
    """Days or months, counted from the beginning of 1970, at midnight."""

    days: int = 0
    months: int = 0
    zone: str = "UTC"

    def of_day(self, day: dt.date) -> list[dt.datetime]:
        if self.months:
            fits = day.day == 1 and ((day.year - 1970) * 12 + day.month - 1) % self.months == 0
        else:
            fits = (day - dt.date(1970, 1, 1)).days % self.days == 0
        return [offsets(self.zone).one_instant(dt.datetime.combine(day, dt.time()))] if fits else []


Schedule = Cron | Every | Calendar


def _walk(schedule: Schedule, moment: dt.datetime, step: int) -> Iterator[list[dt.datetime]]:
    """Yield the ticks of three days around each day from ``moment`` on, so that their order is that of instants."""
    day = moment.date() - step * DAY
    while True:
        yield sorted({tick for n in (-1, 0, 1) for tick in _of_day(schedule, day + n * DAY)})
        day += step * DAY


@cache
def _of_day(schedule: Schedule, day: dt.date) -> tuple[dt.datetime, ...]:
    return tuple(schedule.of_day(day))


def ticks_between(schedule: Schedule, first: dt.datetime, last: dt.datetime) -> list[dt.datetime]:
    """Return the ticks later than ``first`` and not later than ``last``."""
    days = ((last - first) // DAY) + 5
    every = (tick for n in range(-2, days) for tick in _of_day(schedule, first.date() + n * DAY))
    return sorted({tick for tick in every if first < tick <= last})


def first_tick(
    schedule: Schedule, moment: dt.datetime, fits: Callable[[dt.datetime, dt.datetime], bool]
) -> dt.datetime:
    """Return the first tick that ``fits(tick, moment)``, of those that are later or equal."""
    return next(min(found) for ticks in _walk(schedule, moment, 1) if (found := [t for t in ticks if fits(t, moment)]))


def last_tick(schedule: Schedule, moment: dt.datetime, fits: Callable[[dt.datetime, dt.datetime], bool]) -> dt.datetime:
    """Return the last tick that ``fits(tick, moment)``, of those that are earlier or equal."""
    return next(max(found) for ticks in _walk(schedule, moment, -1) if (found := [t for t in ticks if fits(t, moment)]))
