"""The ticks of a schedule: a fixed set of instants, in order, the same whenever and from wherever one looks.

Airflow's own timetables step from where they are. That gives the same instants on ordinary days, but where clocks are moved a step
back may land after where it began, and a schedule by ``timedelta`` has no points of its own. Intervals that are to tile time, in
whatever order they are asked for, need points that do not depend on the asker.
"""

from __future__ import annotations

import datetime as dt
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise

from croniter import croniter
from dateutil.relativedelta import relativedelta

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.timetables.zones import UTC, Zone

#: Names that Airflow and cron know.
PRESETS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = dt.timedelta(seconds=1)
#: Where a cron expression is tried out. Any time would do; it is fixed, so that what is refused does not depend on the day.
_TRIAL = dt.datetime(2024, 1, 1, tzinfo=UTC)
_TRIED = 12


class Ticks(ABC):
    """Instants on whole seconds, without a first or a last one."""

    @abstractmethod
    def after(self, moment: dt.datetime) -> dt.datetime:
        """Return the first tick later than ``moment``, in UTC."""

    @abstractmethod
    def before(self, moment: dt.datetime) -> dt.datetime:
        """Return the last tick earlier than ``moment``, in UTC."""

    def floor(self, moment: dt.datetime) -> dt.datetime:
        """Return the last tick that is not later than ``moment``."""
        return self.before(moment.replace(microsecond=0) + _SECOND)

    def ceil(self, moment: dt.datetime) -> dt.datetime:
        """Return the first tick that is not earlier than ``moment``."""
        return self.after(moment - dt.timedelta(microseconds=1))

    def gaps(self) -> list[dt.timedelta]:
        """Return the lengths between some ticks in a row."""
        ticks = [self.after(_TRIAL)]
        for _ in range(_TRIED):
            ticks.append(self.after(ticks[-1]))
        return [later - earlier for earlier, later in pairwise(ticks)]


class CronTicks(Ticks):
    """The times of a cron expression on the wall clock of a zone.

    Where clocks are moved, an expression that covers every hour of the day keeps to the clock as it is: an hour that is left out
    has no ticks, one that comes twice has them twice. Any other expression ticks as often as on other days: in the second of two
    hours, and for an hour that is left out in the one after it. Both are as Airflow's own timetables mean to do.

    :param expression: five fields, six with seconds at the end, or a preset such as ``@daily``.
    :raises ArgumentError: cron knows no such expression, or its time never comes.
    """

    def __init__(self, expression: str, zone: Zone) -> None:
        self.expression = PRESETS.get(expression.strip().lower(), " ".join(expression.split()))
        self._zone = zone
        _check(self.expression)
        try:
            self._every_hour = croniter(self.expression).expanded[1] == ["*"]
            self.after(_TRIAL)
            self.before(_TRIAL)
        except ValueError as error:  # all of croniter's errors are
            raise ArgumentError(
                f"the cron expression is {expression!r}, for which cron says: {error}",
                expected="minute, hour, day of the month, month and day of the week, of a time that comes again and again",
                hint="try it out, for example 0 * * * * for every hour; days such as 30 February never come",
            ) from None

    def after(self, moment: dt.datetime) -> dt.datetime:
        """Return the first tick later than ``moment``, in UTC."""
        moment = moment.replace(microsecond=0)
        times = croniter(self.expression, self._zone.wall(moment) - self._slack(moment))
        found: list[dt.datetime] = []
        while True:
            wall = times.get_next(dt.datetime)
            if found and wall > self._zone.wall(found[0]) + self._slack(found[0]):
                return found[0]
            found = sorted([*found, *(tick for tick in self._instants(wall) if tick > moment)])[:1]
            if found and not self._slack(found[0]):
                return found[0]

    def before(self, moment: dt.datetime) -> dt.datetime:
        """Return the last tick earlier than ``moment``, in UTC."""
        if moment.microsecond:
            moment = moment.replace(microsecond=0) + _SECOND
        times = croniter(self.expression, self._zone.wall(moment) + self._slack(moment))
        found: list[dt.datetime] = []
        while True:
            wall = times.get_prev(dt.datetime)
            if found and wall < self._zone.wall(found[0]) - self._slack(found[0]):
                return found[0]
            found = sorted([*found, *(tick for tick in self._instants(wall) if tick < moment)])[-1:]
            if found and not self._slack(found[0]):
                return found[0]

    def _instants(self, wall: dt.datetime) -> tuple[dt.datetime, ...]:
        early, late = self._zone.instants(wall)
        if early == late or not self._every_hour:
            return (late,)
        return (early, late) if self._zone.wall(late) == wall else ()

    def _slack(self, moment: dt.datetime) -> dt.timedelta:
        """Return how far the order of times on the wall may differ from the order of instants, about the time of ``moment``."""
        return dt.timedelta(0) if self._zone.is_utc else 2 * self._zone.shift(moment)


class FixedTicks(Ticks):
    """Multiples of an absolute length of time, counted from the beginning of 1970 in UTC.

    :param every: whole seconds, at least one.
    """

    def __init__(self, every: dt.timedelta) -> None:
        self.every = every

    def after(self, moment: dt.datetime) -> dt.datetime:
        """Return the first tick later than ``moment``, in UTC."""
        return _EPOCH + ((moment - _EPOCH) // self.every + 1) * self.every

    def before(self, moment: dt.datetime) -> dt.datetime:
        """Return the last tick earlier than ``moment``, in UTC."""
        return _EPOCH - ((_EPOCH - moment) // self.every + 1) * self.every


class CalendarTicks(Ticks):
    """Multiples of days, months or years on the calendar of a zone, counted from the beginning of 1970 there.

    So days begin at midnight and months on their first day.

    :param every: at least a day.
    """

    def __init__(self, every: relativedelta, zone: Zone) -> None:
        self.every = every
        self._zone = zone
        months = every.years * 12 + every.months
        self._about = dt.timedelta(days=30.436875 * months + every.days, hours=every.hours, minutes=every.minutes)

    def after(self, moment: dt.datetime) -> dt.datetime:
        """Return the first tick later than ``moment``, in UTC."""
        number = self._number(moment, lambda tick: tick <= moment)
        return self._tick(number + 1)

    def before(self, moment: dt.datetime) -> dt.datetime:
        """Return the last tick earlier than ``moment``, in UTC."""
        return self._tick(self._number(moment, lambda tick: tick < moment))

    def _number(self, moment: dt.datetime, passed: Callable[[dt.datetime], bool]) -> int:
        """Return the number of the last tick that ``passed``."""
        number = (moment - _EPOCH) // self._about
        while passed(self._tick(number + 1)):
            number += 1
        while not passed(self._tick(number)):
            number -= 1
        return number

    def _tick(self, number: int) -> dt.datetime:
        return self._zone.instant(_EPOCH.replace(tzinfo=None) + self.every * number)


def _check(expression: str) -> None:
    """Refuse what is no schedule that comes again and again, and what croniter reads as something else than it says."""
    if not expression or expression.startswith("@"):
        alone = expression in {"@once", "@continuous"}
        raise ArgumentError(
            f"the schedule is {expression!r}" + (", which has no intervals to catch up" if alone else ""),
            expected=f"a cron expression, one of {', '.join(PRESETS)}, or a length of time",
            hint=f"write schedule={expression!r} in the DAG instead of a timetable" if alone else "",
        )
    fields = expression.split()
    if len(fields) not in {5, 6}:
        raise ArgumentError(
            f"the cron expression {expression!r} has {len(fields)} field{'' if len(fields) == 1 else 's'}",
            expected="five: minute, hour, day of the month, month, day of the week; or a sixth for seconds",
            hint="bound the DAG by start_date and end_date" if len(fields) == 7 else "",  # noqa: PLR2004  # the year
        )
    if any(part[:1] in "RrHh" for field in fields for part in field.split(",")):
        raise ArgumentError(
            f"the cron expression is {expression!r}",
            expected="times that are the same whenever one looks",
            hint="write numbers instead of R or H",
        )
