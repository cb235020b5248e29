"""The timetable under Airflow's scheduler, over random schedules, outages, pauses and changes, against a naive second reading."""

from __future__ import annotations

import datetime as dt
import operator
from itertools import pairwise

import attrs
from airflow.models.backfill import _get_info_list
from airflow.timetables.base import DataInterval
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from airflow_incremental import CatchUpTimetable
from tests.support.catching_up import DAY, HOUR, Setup, is_single, setups
from tests.support.schedules import argument, moments, schedules
from tests.support.scheduling import Run, Scheduler, plain, stored
from tests.support.ticks import UTC, Schedule, first_tick, last_tick, ticks_between

many = settings(max_examples=settings().max_examples * 2, deadline=None, suppress_health_check=[HealthCheck.too_slow])
#: The runs that are looked at after something happened; a stepwise catch-up may be thousands.
_ENOUGH = 60


@many
@given(st.data(), schedules)
def test_ticks_are_those_of_a_list(data: st.DataObject, schedule: Schedule) -> None:
    moment = data.draw(moments(schedule.zone))
    ticks = CatchUpTimetable(argument(schedule), timezone=schedule.zone)._ticks
    assert ticks.after(moment) == first_tick(schedule, moment, operator.gt)
    assert ticks.ceil(moment) == first_tick(schedule, moment, operator.ge)
    assert ticks.before(moment) == last_tick(schedule, moment, operator.lt)
    assert ticks.floor(moment) == last_tick(schedule, moment, operator.le)


class Story:
    """A DAG's life: what happens to Airflow, to the DAG, and what the timetable makes of it."""

    def __init__(self, now: dt.datetime, setup: Setup) -> None:
        self.airflow = Scheduler(now)
        self.setup = setup
        self.parse(setup)

    def parse(self, setup: Setup) -> None:
        self.setup = setup
        self.airflow.parse(setup, **setup.dag)
        self.check_plan()

    def check_plan(self) -> None:
        """The stored interval is the one that the list of ticks has next."""
        runs = self.airflow.runs
        expected = self.setup.next_interval(runs[-1].end if runs else None, self.airflow.now)
        assert self.airflow.planned == expected
        if expected is not None:
            assert self.airflow.due == expected[1] + self.setup.lag

    def make_runs(self) -> list[Run]:
        """Make all runs that are due now, or enough of them."""
        before = len(self.airflow.runs)
        while self.airflow.loop():
            self.check_plan()
            if len(self.airflow.runs) - before >= _ENOUGH:
                break
        return self.airflow.runs[before:]

    def wait(self, length: dt.timedelta) -> None:
        """Let all go on as it should for a while."""
        until = self.airflow.now + length
        while self.airflow.due is not None and self.airflow.due <= until:
            self.airflow.now = max(self.airflow.now, self.airflow.due)
            if len(self.make_runs()) >= _ENOUGH:
                break
        self.airflow.now = until

    def unit(self) -> dt.timedelta:
        """Return about the length of a tick."""
        tick = self.setup.tick_after(self.airflow.now)
        return min(self.setup.tick_after(tick) - tick, 6 * DAY)  # the naive zones know ten years

    def everything_due_was_made(self) -> bool:
        """Say whether no run is missing up to now."""
        return self.airflow.due is None or self.airflow.due > self.airflow.now


def check_tiling(runs: list[Run]) -> None:
    for run in runs:
        assert run.start < run.end
        assert run.end + run.by.lag == run.run_after <= run.created
        start_date = run.by.start
        assert start_date is None or run.start >= start_date
        assert run.by.end is None or run.start <= run.by.end
    for earlier, later in pairwise(runs):
        moved = later.by.start is not None and later.by.start > earlier.end
        assert later.start == (later.by.tick_from(later.by.start) if moved else earlier.end)


def check_bounds(runs: list[Run]) -> None:
    for run in runs:
        if is_single(run.by, run.start, run.end):
            continue
        bound = run.by.reach(run.start, run.by.backfill_interval if run.by.catchup else run.by.max_interval)
        assert bound is None or run.end <= bound
        assert run.end + run.by.lag <= run.computed, "a long interval holds nothing that is not due"
        if run.by.end is not None and not run.by.catchup:
            assert run.end <= run.by.end


_happenings = st.lists(
    st.tuples(st.sampled_from(["wait", "outage", "pause", "deaf", "change"]), st.integers(1, 12), st.floats(0, 1)),
    min_size=2,
    max_size=7,
)


@many
@given(st.data(), setups(), _happenings)
def test_intervals_tile_time_whatever_happens(
    data: st.DataObject, setup: Setup, happenings: list[tuple[str, int, float]]
) -> None:
    now = data.draw(moments(setup.schedule.zone))
    if setup.catchup or data.draw(st.booleans()):
        setup = attrs.evolve(setup, start=now - data.draw(st.integers(-2, 20)) * HOUR)
    if data.draw(st.integers(0, 3)) == 0:
        setup = attrs.evolve(setup, end=now + data.draw(st.integers(1, 200)) * HOUR)
    story = Story(now, setup)
    for what, ticks, part in happenings:
        length = story.unit() * (ticks + part)
        if what in {"wait", "deaf"}:
            story.wait(length)
        elif what == "change":
            story.parse(attrs.evolve(data.draw(setups(catchup=setup.catchup)), start=setup.start, end=setup.end))
        elif what == "outage":
            story.airflow.now += 5 * length
        else:  # the DAG is parsed, and no run made: it is paused, or as many as may be are running
            story.airflow.now += 4 * length
            story.parse(story.setup)
            story.airflow.now += length
        if what in {"wait", "pause"} or data.draw(st.booleans()):
            story.parse(story.setup)
        made = story.make_runs()
        assert len(made) >= _ENOUGH or story.everything_due_was_made()
    check_tiling(story.airflow.runs)
    check_bounds(story.airflow.runs)


@many
@given(st.data(), setups(catchup=False), st.integers(2, 60), st.booleans())
def test_an_outage_becomes_one_or_two_runs(data: st.DataObject, setup: Setup, ticks: int, parsed: bool) -> None:
    """Or as many as ``max_interval`` makes of it: each but the first and the last is as long as it may be."""
    story = Story(data.draw(moments(setup.schedule.zone)), setup)
    story.wait(story.unit() * 3)
    assume(story.airflow.runs)
    story.airflow.now += story.unit() * ticks
    if parsed:
        story.parse(setup)
    made = story.make_runs()
    assert len(made) >= _ENOUGH or story.everything_due_was_made()
    if setup.max_interval is None:
        assert len(made) <= (1 if parsed else 2)
    for run in made[0 if parsed else 1 : -1]:
        bound = setup.reach(run.start, setup.max_interval)
        assert bound is not None
        assert setup.tick_after(run.end) > bound


@many
@given(st.data(), setups(catchup=True), st.integers(0, 90), st.integers(0, 3 * 86_400))
def test_a_backfill_covers_its_ticks_step_by_step(data: st.DataObject, setup: Setup, days: int, more: int) -> None:
    """Airflow's own list of the runs of a backfill, against the ticks that begin in its range."""
    first = data.draw(moments(setup.schedule.zone))
    last = first + dt.timedelta(days=days, seconds=more)
    if setup.backfill_interval is None:
        last = min(last, first + 40 * (setup.tick_after(setup.tick_after(first)) - setup.tick_after(first)))
    dag = stored(schedule=setup.timetable, start_date=dt.datetime(2024, 6, 1, tzinfo=UTC))
    infos = _get_info_list(from_date=first, to_date=last, reverse=False, dag=dag)
    assert _get_info_list(from_date=first, to_date=last, reverse=True, dag=dag) == infos[::-1]
    begins = ticks_between(setup.schedule, first - dt.timedelta(microseconds=1), last)
    if not begins:
        assert infos == []
        return
    intervals = [DataInterval(*map(plain, info.data_interval)) for info in infos if info.data_interval is not None]
    assert intervals[0].start == begins[0]
    assert intervals[-1].end == setup.tick_after(begins[-1])
    assert all(a.end == b.start for a, b in pairwise(intervals))
    assert all(info.run_after == info.data_interval.end + setup.lag for info in infos if info.data_interval)
    if setup.backfill_interval is None:
        assert [interval.start for interval in intervals] == begins
    for interval in intervals:
        bound = setup.reach(interval.start, setup.backfill_interval)
        assert is_single(setup, interval.start, interval.end) or interval.end <= bound  # type: ignore[operator]  # long ones have it
    for interval in intervals[:-1]:
        bound = setup.reach(interval.start, setup.backfill_interval)
        assert bound is None or setup.tick_after(interval.end) > bound, "as long as it may be"


@many
@given(st.data(), setups())
def test_a_run_by_hand_has_the_last_full_tick(data: st.DataObject, setup: Setup) -> None:
    now = data.draw(moments(setup.schedule.zone))
    interval = stored(schedule=setup.timetable).timetable.infer_manual_data_interval(run_after=now)
    end = last_tick(setup.schedule, now - setup.lag, operator.le)
    interval = DataInterval(*map(plain, interval))
    assert interval == (last_tick(setup.schedule, end, operator.lt), end)
    assert interval.end + setup.lag <= now < setup.tick_after(interval.end) + setup.lag
