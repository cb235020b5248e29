"""In Airflow's scheduler: what it stores and when, what a person can do to it, backfills, and within a schedule by assets."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import pytest
from airflow.models.backfill import _get_info_list
from airflow.sdk import Asset, AssetOrTimeSchedule
from airflow.timetables.base import DataInterval, Timetable
from airflow.utils.types import DagRunType

from airflow_incremental import CatchUpTimetable
from tests.support.scheduling import CLOCK, UTC, Scheduler, plain, stored

HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)
NOON = dt.datetime(2024, 3, 10, 12, tzinfo=UTC)


def with_assets(timetable: CatchUpTimetable) -> Any:
    return AssetOrTimeSchedule(timetable=timetable, assets=[Asset("orders")])  # type: ignore[arg-type]  # of the core


def alone(timetable: CatchUpTimetable) -> Any:
    return timetable


ways = pytest.mark.parametrize("schedule", [alone, with_assets])


class Hourly(Scheduler):
    """An hourly DAG whose runs wait ten minutes, as it is after some hours of work."""

    def __init__(self, schedule: Any = alone, **settings: Any) -> None:
        super().__init__(NOON + dt.timedelta(minutes=11))
        self.schedule = schedule
        self.deploy(**{"lag": 600, **settings})
        for _ in range(3):
            assert self.made() == 1
            self.now += HOUR

    def deploy(
        self, cron: str = "@hourly", *, start_date: dt.datetime | None = None, catchup: bool = False, **settings: Any
    ) -> None:
        """Parse the DAG's file after its author has changed it."""
        self.timetable = self.schedule(CatchUpTimetable(cron, **settings))
        self.parse(None, schedule=self.timetable, start_date=start_date, catchup=catchup)

    def parse_again(self) -> None:
        self.parse(None, schedule=self.timetable, catchup=False)

    def made(self) -> int:
        """Make the runs that are due, and return how many there were."""
        before = len(self.runs)
        for _ in range(50):
            if not self.loop():
                break
        return len(self.runs) - before


@ways
def test_an_outage_is_two_runs_the_old_short_one_first(schedule: Any) -> None:
    airflow = Hourly(schedule)
    airflow.now += 9 * HOUR
    assert airflow.made() == 2
    hours = [(run.end - run.start) / HOUR for run in airflow.runs]
    assert hours == [1, 1, 1, 1, 9]
    assert all(earlier.end == later.start for earlier, later in pairwise(airflow.runs))


@ways
def test_a_pause_is_one_run(schedule: Any) -> None:
    """The file of a paused DAG is parsed, and what is stored grows."""
    airflow = Hourly(schedule)
    for _ in range(3):
        airflow.now += 3 * HOUR
        airflow.parse_again()
    assert airflow.made() == 1
    assert (airflow.runs[-1].end - airflow.runs[-1].start) == 10 * HOUR


def test_max_interval_makes_as_many_as_it_takes() -> None:
    airflow = Hourly(max_interval=4 * HOUR)
    airflow.now += 9 * HOUR
    airflow.made()
    assert [(run.end - run.start) / HOUR for run in airflow.runs[3:]] == [1, 4, 4, 1]


@ways
def test_runs_that_are_due_at_the_same_time_have_other_ids(schedule: Any) -> None:
    """After two hours less of lag a run is due when one before it was; ``Scheduler`` refuses an id that is taken."""
    airflow = Hourly(schedule, lag=3 * HOUR)
    last = airflow.runs[-1]
    airflow.now = last.run_after
    airflow.deploy(lag=2 * HOUR)
    assert airflow.due == last.run_after
    assert airflow.made() == 1
    assert airflow.runs[-1].run_after == last.run_after
    assert airflow.runs[-1].start == last.end


def test_a_run_by_hand_on_the_next_logical_date_does_not_stop_the_schedule() -> None:
    """Airflow goes on from the run that has the date; where that is one by hand, its interval ends before it."""
    airflow = Hourly()
    next_start = airflow.runs[-1].end
    airflow.trigger(next_start)
    assert airflow.made() == 0
    airflow.now += 5 * HOUR
    airflow.parse_again()
    assert airflow.planned is not None
    assert airflow.planned[0] == next_start
    assert airflow.made() == 1
    assert (airflow.runs[-1].start, airflow.runs[-1].end) == (next_start + HOUR, plain(airflow.now).replace(minute=0))


def test_a_run_by_hand_on_another_date_changes_nothing() -> None:
    airflow, undisturbed = Hourly(), Hourly()
    airflow.trigger(airflow.runs[-1].end + dt.timedelta(minutes=1))
    airflow.trigger(airflow.runs[0].start + dt.timedelta(minutes=1))
    for each in (airflow, undisturbed):
        each.now += 5 * HOUR
        each.parse_again()
        each.made()
    assert [run.end for run in airflow.runs] == [run.end for run in undisturbed.runs]


def test_a_backfill_within_a_long_interval_lets_the_next_one_begin_there() -> None:
    """Airflow goes on from the automated run of the latest logical date: time is covered twice, once, and none is left out."""
    airflow = Hourly()
    airflow.now += 30 * HOUR
    airflow.parse_again()
    assert airflow.made() == 1
    long = airflow.runs[-1]
    assert len(airflow.backfill(long.start + 5 * HOUR, long.start + 7 * HOUR)) == 3
    airflow.now += HOUR
    airflow.parse_again()
    assert airflow.made() == 1
    assert airflow.runs[-1].start == long.start + 8 * HOUR
    assert airflow.runs[-1].end == long.end + HOUR
    airflow.now += 5 * HOUR
    airflow.made()
    assert all(earlier.end == later.start for earlier, later in pairwise(airflow.runs[4:]))


def test_a_backfill_of_what_was_missed_is_not_made_again() -> None:
    airflow = Hourly()
    last = airflow.runs[-1].end
    airflow.now += 9 * HOUR
    airflow.backfill(last, last + 4 * HOUR)
    airflow.parse_again()
    assert airflow.made() == 1
    assert airflow.runs[-1].start == last + 5 * HOUR


def test_ids() -> None:
    timetable = CatchUpTimetable("@hourly", lag=600)
    interval = DataInterval(NOON, NOON + HOUR)  # type: ignore[arg-type]  # plain times do
    arguments: dict[str, Any] = {"run_after": NOON + HOUR + dt.timedelta(minutes=10), "data_interval": interval}
    scheduled = timetable.generate_run_id(run_type=DagRunType.SCHEDULED, **arguments)
    assert scheduled == "scheduled__2024-03-10T12:00:00+00:00_to_2024-03-10T13:00:00+00:00"
    by_hand = timetable.generate_run_id(run_type=DagRunType.MANUAL, **arguments)
    assert by_hand == "manual__2024-03-10T13:10:00+00:00"
    assert timetable.generate_run_id(run_type=DagRunType.SCHEDULED, **{**arguments, "data_interval": None}).startswith(
        "scheduled__2024-03-10T13:10"
    )


def backfill(schedule: Any, first: dt.datetime, last: dt.datetime, *, now: dt.datetime) -> list[DataInterval]:
    """Return the intervals that Airflow would make a backfill's runs for."""
    dag = stored(schedule=schedule, start_date=dt.datetime(2024, 1, 1, tzinfo=UTC))
    with patch(CLOCK, lambda: now), patch("airflow.models.backfill.timezone.utcnow", lambda: now):
        infos = _get_info_list(from_date=first, to_date=last, reverse=False, dag=dag)
    return [DataInterval(*map(plain, info.data_interval)) for info in infos if info.data_interval]


MIDNIGHT = dt.datetime(2024, 2, 1, tzinfo=UTC)


@ways
def test_a_backfill_of_a_day_is_that_day_in_ticks(schedule: Any) -> None:
    hourly = schedule(CatchUpTimetable("@hourly", lag=600, max_interval=DAY))
    found = backfill(hourly, MIDNIGHT, MIDNIGHT + 23 * HOUR, now=NOON)
    assert found == [(MIDNIGHT + n * HOUR, MIDNIGHT + (n + 1) * HOUR) for n in range(24)]


@ways
def test_a_backfill_of_a_week_by_day(schedule: Any) -> None:
    by_day = schedule(CatchUpTimetable("@hourly", lag=600, backfill_interval=DAY))
    found = backfill(by_day, MIDNIGHT, MIDNIGHT + 7 * DAY - dt.timedelta(seconds=1), now=NOON)
    assert found == [(MIDNIGHT + n * DAY, MIDNIGHT + (n + 1) * DAY) for n in range(7)]


def test_a_backfill_up_to_now_ends_in_ticks() -> None:
    """A step holds nothing that is not due; Airflow leaves out what has not ended."""
    by_day = CatchUpTimetable("@hourly", lag=2 * HOUR, backfill_interval=DAY)
    midnight = NOON.replace(hour=0)
    found = backfill(by_day, midnight - DAY, midnight + DAY, now=NOON + dt.timedelta(minutes=30))
    hours = [(interval.end - midnight) / HOUR for interval in found]
    assert hours == [0, 10, 11, 12]


def test_a_backfill_of_times_to_come_is_in_ticks() -> None:
    by_day = CatchUpTimetable("@hourly", backfill_interval=DAY)
    dag = stored(schedule=by_day)
    with patch(CLOCK, lambda: NOON):
        infos = list(dag.iter_dagrun_infos_between(NOON + DAY, NOON + DAY + 5 * HOUR))
    assert len(infos) == 6


@ways
def test_the_next_executions_are_ticks(schedule: Any) -> None:
    """As the calendar of the UI and ``airflow dags next-execution`` walk on from the last run."""
    dag = stored(schedule=schedule(CatchUpTimetable("@hourly", lag=600)))
    info = dag.next_dagrun_info(last_automated_run_info=None)
    assert info is not None
    ends = []
    for _ in range(4):
        info = dag.timetable.next_dagrun_info_v2(last_dagrun_info=info, restriction=dag._time_restriction)
        assert info is not None
        ends.append(info.run_after)
    assert [later - earlier for earlier, later in pairwise(ends)] == [HOUR] * 3


def test_it_is_periodic_and_no_partitions() -> None:
    timetable: Timetable = CatchUpTimetable("@hourly")
    assert timetable.periodic
    assert timetable.can_be_scheduled
    assert not timetable.partitioned
    assert timetable.active_runs_limit is None
    timetable.validate()
