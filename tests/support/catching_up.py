"""What ``CatchUpTimetable`` promises, said a second time over a list of ticks."""

from __future__ import annotations

import datetime as dt
import operator
from contextlib import suppress
from typing import Any

import attrs
from dateutil.relativedelta import relativedelta
from hypothesis import strategies as st

from airflow_incremental import CatchUpTimetable
from airflow_incremental.core.errors import ArgumentError
from tests.support.schedules import argument, schedules
from tests.support.ticks import Schedule, first_tick, last_tick, offsets, ticks_between

Length = dt.timedelta | relativedelta | None
HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)
#: Longer than any tick of ``schedules``, and with the calendar.
_steps: st.SearchStrategy[Length] = st.sampled_from(
    [
        None,
        5 * HOUR,
        DAY,
        8 * DAY,
        100 * DAY,
        relativedelta(days=1),
        relativedelta(months=1),
        relativedelta(months=3, days=2),
    ]
)


@attrs.frozen
class Setup:
    """A DAG's schedule, as its author has it at some time."""

    schedule: Schedule
    lag: dt.timedelta = dt.timedelta(0)
    max_interval: Length = None
    backfill_interval: Length = None
    catchup: bool = False
    start: dt.datetime | None = None
    end: dt.datetime | None = None

    @property
    def timetable(self) -> CatchUpTimetable:
        return CatchUpTimetable(
            argument(self.schedule),
            lag=self.lag,
            max_interval=self.max_interval,
            backfill_interval=self.backfill_interval,
            timezone=self.schedule.zone,
        )

    @property
    def dag(self) -> dict[str, Any]:
        """The DAG's arguments."""
        return {
            "schedule": self.timetable,
            "start_date": self.start,
            "end_date": self.end,
            "catchup": self.catchup,
        }

    def tick_after(self, moment: dt.datetime) -> dt.datetime:
        return first_tick(self.schedule, moment, operator.gt)

    def tick_from(self, moment: dt.datetime) -> dt.datetime:
        return first_tick(self.schedule, moment, operator.ge)

    def reach(self, start: dt.datetime, length: Length) -> dt.datetime | None:
        """Return the time a length after another one; None for no bound."""
        if length is None or isinstance(length, dt.timedelta):
            return length and start + length
        zone = offsets(self.schedule.zone)
        return zone.one_instant(zone.wall(start) + length)

    def next_start(self, last: dt.datetime | None, now: dt.datetime) -> dt.datetime | None:
        """Return where the interval after the one that ended at ``last`` begins."""
        if last is not None:
            return last if self.start is None or self.start <= last else self.tick_from(self.start)
        if self.catchup:
            return self.start and self.tick_from(self.start)
        ready = last_tick(self.schedule, now - self.lag, operator.le)
        full = last_tick(self.schedule, ready, operator.lt)
        return full if self.start is None else max(full, self.tick_from(self.start))

    def next_interval(self, last: dt.datetime | None, now: dt.datetime) -> tuple[dt.datetime, dt.datetime] | None:
        """Return the interval after the one that ended at ``last``, asked at ``now``."""
        start = self.next_start(last, now)
        if start is None or (self.end is not None and start > self.end):
            return None
        found = self.tick_after(start)
        # The ticks it may be made longer by: those whose time has come, as far as the bounds.
        more = [] if self.catchup and self.backfill_interval is None else self._more(start, now)
        return start, max([found, *more])

    def _more(self, start: dt.datetime, now: dt.datetime) -> list[dt.datetime]:
        bound = self.reach(start, self.backfill_interval if self.catchup else self.max_interval)
        ready = ticks_between(self.schedule, start, now - self.lag)
        ticks = [tick for tick in ready if bound is None or tick <= bound]
        if self.end is None:
            return ticks
        if not self.catchup:
            return [tick for tick in ticks if tick <= self.end]
        return [tick for tick in ticks if last_tick(self.schedule, tick, operator.lt) <= self.end]


@st.composite
def setups(draw: st.DrawFn, **fixed: Any) -> Setup:
    """Draw what an author may write; intervals are at least as long as ticks."""
    drawn = {
        "schedule": draw(schedules),
        "lag": draw(st.sampled_from([0, 0, 1, 900, 5_400, 86_400, 3 * 86_400]).map(lambda n: dt.timedelta(seconds=n))),
        "max_interval": draw(_steps),
        "backfill_interval": draw(_steps),
        "catchup": draw(st.booleans()),
        **fixed,
    }
    setup = Setup(**drawn)
    for name in ("max_interval", "backfill_interval"):
        with suppress(ArgumentError):  # it is shorter than a tick
            CatchUpTimetable(argument(setup.schedule), timezone=setup.schedule.zone, **{name: getattr(setup, name)})
            continue
        setup = attrs.evolve(setup, **{name: None})
    return setup


def is_single(setup: Setup, start: dt.datetime, end: dt.datetime) -> bool:
    """Say whether an interval ends on the first tick after its start."""
    return end == setup.tick_after(start)
