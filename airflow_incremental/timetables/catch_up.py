"""A timetable whose intervals leave nothing out: missed time becomes one or two long intervals."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.timetables.base import DagRunInfo, DataInterval, Timetable
from airflow.utils.types import DagRunType
from dateutil.relativedelta import relativedelta

from airflow_incremental.core.errors import ArgumentError
from airflow_incremental.core.ranges import UTC, utc
from airflow_incremental.timetables.durations import (
    Duration,
    in_short,
    in_words,
    plus,
    read_duration,
    restore,
    store,
)
from airflow_incremental.timetables.ticks import CalendarTicks, CronTicks, FixedTicks, Ticks
from airflow_incremental.timetables.zones import Zone

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from airflow.timetables.base import TimeRestriction

#: Of the stored form; another one is read by another version of the package.
VERSION = 1
#: The longest lag, where ticks are not further apart than that.
MOST_LAG = dt.timedelta(days=31)
#: A month of 31 days begins there: lengths of the calendar are taken at their longest.
_JANUARY = dt.datetime(2024, 1, 1, tzinfo=UTC)
_AUTOMATED = {DagRunType.SCHEDULED, DagRunType.BACKFILL_JOB}


class CatchUpTimetable(Timetable):
    """Contiguous, half-open data intervals that wait for late data, and that an outage makes longer instead of more.

    Each interval begins where the one before it ended and ends on a tick of the schedule; its run is due ``lag`` after its end.
    When runs were missed (the scheduler was down, the DAG was paused, a run took long), one interval covers all that is due by now,
    if the DAG says ``catchup=False``. With ``catchup=True``, and in backfills, time is stepped through by ``backfill_interval``.
    Loads of this package read no intervals except in backfills: a lag or a long interval changes when they run, not what they load.

    :param cron_or_interval: a cron expression (or ``@hourly``, ``@daily`` and so on), whose times are on the wall clock of
        ``timezone``; a ``timedelta`` or a number of seconds, counted from the beginning of 1970 in UTC; or a ``relativedelta`` of
        days, months or years, counted from then on the calendar of ``timezone``.
    :param lag: how long a run waits after the end of its interval: a ``timedelta`` or seconds, at most 31 days, or a tick where
        ticks are further apart.
    :param max_interval: the longest interval that missed time is put together to, as ``timedelta``, seconds or ``relativedelta``;
        a single tick may be longer. Default: all of it in one.
    :param backfill_interval: the step of backfills, in the same forms; it ends on the last tick that it reaches. Default: the tick.
    :param timezone: an IANA name or a ``tzinfo``. Intervals are in UTC whatever it is.
    :raises ArgumentError: a cron expression whose time never comes, a negative length, a lag longer than sense, an interval
        shorter than a tick, a zone that nobody knows or that would change nothing.
    """

    def __init__(
        self,
        cron_or_interval: str | Duration | float,
        *,
        lag: Duration | float = 0,
        max_interval: Duration | float | None = None,
        backfill_interval: Duration | float | None = None,
        timezone: str | dt.tzinfo = "UTC",
    ) -> None:
        self._zone = Zone(timezone)
        self._every: str | Duration
        if isinstance(cron_or_interval, str):
            cron = CronTicks(cron_or_interval, self._zone)
            self._ticks: Ticks = cron
            self._every = cron.expression
        else:
            self._every = read_duration(cron_or_interval, what="the schedule", forms="a cron expression, ")
            self._ticks = (
                FixedTicks(self._every)
                if isinstance(self._every, dt.timedelta)
                else CalendarTicks(self._every, self._zone)
            )
        gaps = self._ticks.gaps()
        self._lag = _read_lag(lag, longest=max(gaps))
        self._max_interval = _read_step(max_interval, what="max_interval", shortest=min(gaps))
        self._backfill_interval = _read_step(backfill_interval, what="backfill_interval", shortest=min(gaps))
        self._check_zone()
        self.description = self._describe()

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """Return the interval after the last one, and when its run is due; None if there is none before the DAG's end.

        Airflow asks when it has created a run and whenever it has parsed the DAG, and keeps the answer until then. Reads the clock.
        """
        ready = _now() - self._lag
        start = self._start(last_automated_data_interval, restriction, ready)
        latest = restriction.latest and _plain(restriction.latest)
        if start is None or (latest and start > latest):
            return None
        end = self._ticks.after(start)
        limit = self._limit(start, latest, ready, catchup=restriction.catchup)
        if limit is not None and limit > end:
            end = max(end, self._ticks.floor(limit))
        return DagRunInfo(run_after=_pendulum(end + self._lag), data_interval=_interval(start, end))

    def infer_manual_data_interval(self, *, run_after: pendulum.DateTime) -> DataInterval:
        """Return the last tick's interval that ``lag`` has passed for: what a scheduled run would have at the latest."""
        end = self._ticks.floor(_plain(run_after) - self._lag)
        return _interval(self._ticks.before(end), end)

    def generate_run_id(
        self, *, run_type: DagRunType, run_after: pendulum.DateTime, data_interval: DataInterval | None, **extra: Any
    ) -> str:
        """Name scheduled runs by both ends of their interval.

        When they are due is no name: after a change of the lag two runs may be due at the same time.
        """
        if run_type == DagRunType.SCHEDULED and data_interval is not None:
            start, end = (_pendulum(_plain(moment)).isoformat() for moment in data_interval)
            return run_type.generate_run_id(suffix=f"{start}_to_{end}")
        return super().generate_run_id(run_type=run_type, run_after=run_after, data_interval=data_interval, **extra)

    def run_info_from_dag_run(self, *, dag_run: DagRun) -> DagRunInfo:
        """Return what a run was made for; Airflow asks since 3.3.

        A run that a person gave the logical date of the next interval stands in its way: Airflow makes no second one of that date,
        and goes on from the run that is there. By the interval of that run, which ended before, it would come to the same date
        again, for ever.
        """
        if dag_run.run_type not in _AUTOMATED and dag_run.logical_date is not None:
            taken = _pendulum(_plain(dag_run.logical_date))
            return DagRunInfo(run_after=taken, data_interval=DataInterval(taken, taken))
        return super().run_info_from_dag_run(dag_run=dag_run)

    def _start(self, last: DataInterval | None, restriction: TimeRestriction, ready: dt.datetime) -> dt.datetime | None:
        earliest = restriction.earliest and _plain(restriction.earliest)
        if last is None:
            if restriction.catchup:
                return earliest and self._ticks.ceil(earliest)
            # Time before the DAG was there was not missed: as in Airflow's own timetables, the last full tick comes first.
            start = self._ticks.before(self._ticks.floor(ready))
            return max(start, self._ticks.ceil(earliest)) if earliest else start
        start = _plain(last.end)
        if start <= _plain(last.start):
            # A point in time, as timetables by trigger have them: its logical date is taken.
            start = self._ticks.after(_plain(last.start))
        return self._ticks.ceil(earliest) if earliest and earliest > start else start

    def _limit(
        self, start: dt.datetime, latest: dt.datetime | None, ready: dt.datetime, *, catchup: bool
    ) -> dt.datetime | None:
        """Return the time up to which an interval may be longer than a tick; None for not at all."""
        if catchup:
            if self._backfill_interval is None:
                return None
            # What a step covers is what the ticks from the first to ``latest`` would, of which the last begins there.
            bounds = [plus(start, self._backfill_interval, self._zone), ready]
            return min([*bounds, self._ticks.after(latest)] if latest else bounds)
        bounds = [ready] if self._max_interval is None else [ready, plus(start, self._max_interval, self._zone)]
        return min([*bounds, latest] if latest else bounds)

    def serialize(self) -> dict[str, Any]:
        """Return the form that Airflow stores with the DAG; the same for the same timetable."""
        every = {"cron": self._every} if isinstance(self._every, str) else {"interval": store(self._every)}
        return {
            "version": VERSION,
            **every,
            "lag": store(self._lag),
            "max_interval": self._max_interval and store(self._max_interval),
            "backfill_interval": self._backfill_interval and store(self._backfill_interval),
            "timezone": self._zone.stored,
        }

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> CatchUpTimetable:
        """Return the timetable that ``serialize`` was asked of.

        :raises ArgumentError: it was stored by a version of this package that stores other things.
        """
        if data.get("version") != VERSION:
            raise ArgumentError(
                f"a stored CatchUpTimetable has version {data.get('version')!r}",
                expected=f"version {VERSION}, which is what this version of airflow-incremental reads",
                hint="install one version of airflow-incremental in all of Airflow's components, and let the DAG be parsed again",
            )
        steps = {name: data[name] for name in ("max_interval", "backfill_interval")}
        return cls(
            data["cron"] if "cron" in data else restore(data["interval"]),
            lag=restore(data["lag"]),
            timezone=Zone.restore(data["timezone"]).tz,
            **{name: None if stored is None else restore(stored) for name, stored in steps.items()},
        )

    @property
    def summary(self) -> str:
        """What the list of DAGs shows, for example ``0 * * * *, lag 15m``."""
        every = self._every if isinstance(self._every, str) else f"every {in_short(self._every)}"
        return f"{every}, lag {in_short(self._lag)}" if self._lag else every

    def __repr__(self) -> str:
        return f"CatchUpTimetable({self.description!r})"

    def __eq__(self, other: object) -> bool:
        return self.serialize() == other.serialize() if isinstance(other, CatchUpTimetable) else NotImplemented

    def __hash__(self) -> int:
        return hash(repr(self.serialize()))

    def _describe(self) -> str:
        if isinstance(self._every, str):
            from airflow.timetables.interval import CronDataIntervalTimetable

            text = CronDataIntervalTimetable(self._every, "UTC").description or f"By cron {self._every}"
        else:
            words = in_words(self._every)
            text = f"Every {words.removeprefix('1 ') if words.count(' ') == 1 else words}"
        parts = [text if self._zone.is_utc else f"{text} ({self._zone.name})"]
        if self._lag:
            parts.append(f"{in_words(self._lag)} after the end of the interval")
        missed = "missed time is made up for in one run"
        if self._max_interval is not None:
            missed = f"missed time is made up for in runs of up to {in_words(self._max_interval)}"
        parts.append(missed)
        if self._backfill_interval is not None:
            parts.append(f"backfills step by {in_words(self._backfill_interval)}")
        return "; ".join(parts)

    def _check_zone(self) -> None:
        steps = (self._every, self._max_interval, self._backfill_interval)
        if not self._zone.is_utc and not any(isinstance(step, str | relativedelta) for step in steps):
            raise ArgumentError(
                f"timezone is {self._zone.name!r} and the interval {in_words(self._every)}",
                expected="UTC: a timedelta is counted in UTC, whatever the clocks show",
                hint="write a cron expression, or dateutil's relativedelta(days=1) for days of the zone",
            )


def _read_lag(given: Any, *, longest: dt.timedelta) -> dt.timedelta:
    lag = read_duration(given, what="lag", least=0)
    # Months are no length that can be taken off, and no days of the calendar are waited for.
    if isinstance(lag, relativedelta):
        if lag.years or lag.months:
            raise ArgumentError(
                f"lag is {given!r}", expected="days or less, as a timedelta, a number of seconds, or a relativedelta"
            )
        lag = dt.timedelta(days=lag.days, hours=lag.hours, minutes=lag.minutes, seconds=lag.seconds)
    most = max(MOST_LAG, longest)
    if lag > most:
        raise ArgumentError(
            f"lag is {in_words(lag)}",
            expected=f"at most {in_words(most)}",
            hint=(
                "a number is one of seconds. A lag need not cover the latest rows of all: what comes after it, the next run loads"
            ),
        )
    return lag


def _read_step(given: Any, *, what: str, shortest: dt.timedelta) -> Duration | None:
    if given is None:
        return None
    step = read_duration(given, what=what)
    reach = step if isinstance(step, dt.timedelta) else _JANUARY + step - _JANUARY
    if reach < shortest:
        raise ArgumentError(
            f"{what} is {in_words(step)}, and ticks are {in_words(shortest)} apart",
            expected="at least a tick",
            hint="make it longer, or the schedule finer",
        )
    return step


def _now() -> dt.datetime:
    return dt.datetime.now(UTC)


def _plain(moment: dt.datetime) -> dt.datetime:
    """Return a time without pendulum, whose arithmetic is another, and slow."""
    moment = utc(moment, what="a time of Airflow's")
    return dt.datetime.combine(moment.date(), moment.time(), tzinfo=UTC)


def _pendulum(moment: dt.datetime) -> pendulum.DateTime:
    return pendulum.DateTime.combine(moment.date(), moment.time(), tzinfo=pendulum.UTC)


def _interval(start: dt.datetime, end: dt.datetime) -> DataInterval:
    return DataInterval(_pendulum(start), _pendulum(end))
