"""Which interval comes next, and when its run is due: the cases of Airflow's own timetables, and those of catching up."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import pendulum
import pytest
from airflow.timetables.base import DataInterval, TimeRestriction
from airflow.timetables.interval import CronDataIntervalTimetable
from dateutil.relativedelta import relativedelta

from airflow_incremental import CatchUpTimetable
from tests.support.scheduling import CLOCK, plain

HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)
HOURLY = [
    CatchUpTimetable("@hourly"),
    CatchUpTimetable(HOUR),
    CatchUpTimetable(3_600),
    CatchUpTimetable(relativedelta(hours=1)),
]


def at(text: str) -> pendulum.DateTime:
    """Read ``2024-03-01 12:00`` as UTC."""
    moment = pendulum.parse(text)
    assert isinstance(moment, pendulum.DateTime)
    return moment


@pytest.fixture(autouse=True)
def clock() -> Iterator[list[pendulum.DateTime]]:
    """The time that timetables read, to be set by a test."""
    now = [at("2024-03-10 12:30")]
    with patch(CLOCK, lambda: plain(now[0])):
        yield now


def following(
    timetable: CatchUpTimetable,
    last: tuple[str, str] | None = None,
    *,
    earliest: str | None = None,
    latest: str | None = None,
    catchup: bool = False,
) -> Any:
    """Return the next interval and when it is due, as texts; None if there is none."""
    info = timetable.next_dagrun_info(
        last_automated_data_interval=last and DataInterval(*map(at, last)),
        restriction=TimeRestriction(earliest and at(earliest), latest and at(latest), catchup),  # type: ignore[arg-type]
    )
    if info is None:
        return None
    assert info.data_interval is not None
    return tuple(moment.format("YYYY-MM-DD HH:mm") for moment in (*info.data_interval, info.run_after))


class TestFirst:
    @pytest.mark.parametrize("timetable", HOURLY)
    def test_without_catchup_it_is_the_last_full_tick(self, timetable: CatchUpTimetable) -> None:
        expected = ("2024-03-10 11:00", "2024-03-10 12:00", "2024-03-10 12:00")
        assert following(timetable) == following(timetable, earliest="2021-09-04") == expected

    def test_its_lag_must_have_passed(self) -> None:
        timetable = CatchUpTimetable("@hourly", lag=45 * 60)
        assert following(timetable) == ("2024-03-10 10:00", "2024-03-10 11:00", "2024-03-10 11:45")

    def test_at_the_very_end_of_a_tick_it_is_that_tick(self, clock: list[pendulum.DateTime]) -> None:
        clock[0] = at("2024-03-10 12:00")
        assert following(HOURLY[0]) == ("2024-03-10 11:00", "2024-03-10 12:00", "2024-03-10 12:00")

    def test_a_start_date_of_today_comes_first(self) -> None:
        expected = ("2024-03-10 12:00", "2024-03-10 13:00", "2024-03-10 13:00")
        assert following(HOURLY[0], earliest="2024-03-10 11:20") == expected

    @pytest.mark.parametrize("catchup", [True, False])
    def test_a_start_date_to_come_is_waited_for(self, catchup: bool) -> None:
        expected = ("2024-04-01 00:00", "2024-04-01 01:00", "2024-04-01 01:00")
        assert following(HOURLY[0], earliest="2024-04-01", catchup=catchup) == expected

    @pytest.mark.parametrize("timetable", HOURLY)
    def test_with_catchup_it_begins_on_the_first_tick_from_the_start_date(self, timetable: CatchUpTimetable) -> None:
        exact = following(timetable, earliest="2021-09-04", catchup=True)
        assert exact == ("2021-09-04 00:00", "2021-09-04 01:00", "2021-09-04 01:00")
        between = following(timetable, earliest="2021-09-04 00:00:01", catchup=True)
        assert between == ("2021-09-04 01:00", "2021-09-04 02:00", "2021-09-04 02:00")

    def test_with_catchup_and_no_start_date_there_is_none(self) -> None:
        assert following(HOURLY[0], catchup=True) is None

    @pytest.mark.parametrize("timetable", [CatchUpTimetable("0 0 1 * *"), CatchUpTimetable(relativedelta(months=1))])
    def test_months_are_as_long_as_they_are(self, timetable: CatchUpTimetable) -> None:
        assert following(timetable)[:2] == ("2024-02-01 00:00", "2024-03-01 00:00")
        assert following(timetable, ("2023-01-01", "2023-02-01"), catchup=True)[1] == "2023-03-01 00:00"

    def test_days_that_not_every_month_has(self) -> None:
        timetable = CatchUpTimetable("0 0 31 * *")
        assert following(timetable)[:2] == ("2023-12-31 00:00", "2024-01-31 00:00")
        assert following(CatchUpTimetable("0 0 29 2 *"))[:2] == ("2020-02-29 00:00", "2024-02-29 00:00")


class TestAfterAnOutage:
    LAST = ("2024-03-01 00:00", "2024-03-01 01:00")

    @pytest.mark.parametrize("timetable", HOURLY)
    def test_all_that_was_missed_is_one_interval(self, timetable: CatchUpTimetable) -> None:
        assert following(timetable, self.LAST) == ("2024-03-01 01:00", "2024-03-10 12:00", "2024-03-10 12:00")

    def test_up_to_what_the_lag_has_passed_for(self) -> None:
        timetable = CatchUpTimetable("@hourly", lag=45 * 60)
        assert following(timetable, self.LAST) == ("2024-03-01 01:00", "2024-03-10 11:00", "2024-03-10 11:45")

    def test_nothing_missed_is_one_tick(self) -> None:
        expected = ("2024-03-10 12:00", "2024-03-10 13:00", "2024-03-10 13:00")
        assert following(HOURLY[0], ("2024-03-10 11:00", "2024-03-10 12:00")) == expected

    def test_an_interval_to_come_is_one_tick(self) -> None:
        """As the calendar of the UI asks."""
        expected = ("2024-05-01 01:00", "2024-05-01 02:00", "2024-05-01 02:00")
        assert following(HOURLY[0], ("2024-05-01 00:00", "2024-05-01 01:00")) == expected

    @pytest.mark.parametrize(
        ("longest", "end"),
        [
            (DAY, "2024-03-02 01:00"),
            (90 * 60, "2024-03-01 02:00"),  # the last tick that it reaches
            (relativedelta(days=7), "2024-03-08 01:00"),
            (relativedelta(months=1), "2024-03-10 12:00"),  # more than was missed
        ],
    )
    def test_max_interval_bounds_it(self, longest: Any, end: str) -> None:
        assert following(CatchUpTimetable("@hourly", max_interval=longest), self.LAST)[:2] == ("2024-03-01 01:00", end)

    def test_max_interval_on_the_wall_clock(self, clock: list[pendulum.DateTime]) -> None:
        """On 31 March Berlin has 23 hours: a ``relativedelta`` ends at midnight there, a ``timedelta`` an hour later."""
        clock[0] = at("2024-06-01")
        midnight = ("2024-03-29 23:00", "2024-03-30 23:00")
        for longest, end in [(relativedelta(days=1), "2024-03-31 22:00"), (DAY, "2024-03-31 23:00")]:
            berlin = CatchUpTimetable("@hourly", max_interval=longest, timezone="Europe/Berlin")
            assert following(berlin, midnight)[:2] == ("2024-03-30 23:00", end)

    def test_a_single_tick_may_be_longer_than_max_interval(self) -> None:
        """Of an expression for office hours, the night is one tick."""
        office = CatchUpTimetable("0 9-17 * * 1-5", max_interval=4 * HOUR)
        assert following(office, ("2024-03-07 16:00", "2024-03-07 17:00"))[:2] == (
            "2024-03-07 17:00",
            "2024-03-08 09:00",
        )
        assert following(office, ("2024-03-07 17:00", "2024-03-08 09:00"))[:2] == (
            "2024-03-08 09:00",
            "2024-03-08 13:00",
        )

    def test_never_past_the_end_date(self) -> None:
        """The tick that begins at the end date is a run as in Airflow's own timetables, but of its own."""
        long = following(HOURLY[0], self.LAST, latest="2024-03-05")
        last = following(HOURLY[0], ("2024-03-01 01:00", "2024-03-05 00:00"), latest="2024-03-05")
        assert long[:2] == ("2024-03-01 01:00", "2024-03-05 00:00")
        assert last[:2] == ("2024-03-05 00:00", "2024-03-05 01:00")
        assert following(HOURLY[0], ("2024-03-05 00:00", "2024-03-05 01:00"), latest="2024-03-05") is None

    def test_an_end_date_between_ticks(self) -> None:
        assert following(HOURLY[0], self.LAST, latest="2024-03-05 23:59")[1] == "2024-03-05 23:00"
        last = following(HOURLY[0], ("2024-03-01 01:00", "2024-03-05 23:00"), latest="2024-03-05 23:59")
        assert last[:2] == ("2024-03-05 23:00", "2024-03-06 00:00")
        assert following(HOURLY[0], last[:2], latest="2024-03-05 23:59") is None

    def test_catchup_makes_a_run_of_each_tick(self) -> None:
        info = following(HOURLY[0], self.LAST, earliest="2021-09-04", catchup=True)
        assert info == ("2024-03-01 01:00", "2024-03-01 02:00", "2024-03-01 02:00")


class TestChanges:
    @pytest.mark.parametrize("catchup", [True, False])
    @pytest.mark.parametrize("earliest", [None, "2021-09-04"])
    def test_another_cron_goes_on_where_the_old_one_ended(self, catchup: bool, earliest: str | None) -> None:
        daily = CatchUpTimetable("30 16 * * *")
        info = following(daily, ("2024-03-09 09:00", "2024-03-09 10:00"), earliest=earliest, catchup=catchup)
        assert info == ("2024-03-09 10:00", "2024-03-09 16:30", "2024-03-09 16:30")

    def test_another_cron_after_an_outage(self) -> None:
        daily = CatchUpTimetable("30 16 * * *")
        assert following(daily, ("2024-03-01 09:00", "2024-03-01 10:00"))[:2] == (
            "2024-03-01 10:00",
            "2024-03-09 16:30",
        )

    def test_a_longer_lag_moves_what_is_due(self) -> None:
        last = ("2024-03-10 10:00", "2024-03-10 11:00")
        assert following(CatchUpTimetable("@hourly", lag=10), last)[1:] == ("2024-03-10 12:00", "2024-03-10 12:00")
        longer = CatchUpTimetable("@hourly", lag=DAY)
        assert following(longer, last) == ("2024-03-10 11:00", "2024-03-10 12:00", "2024-03-11 12:00")

    def test_a_later_start_date_leaves_out_what_is_before_it(self) -> None:
        info = following(HOURLY[0], ("2024-03-01 00:00", "2024-03-01 01:00"), earliest="2024-03-09 00:30")
        assert info[:2] == ("2024-03-09 01:00", "2024-03-10 12:00")

    def test_a_start_date_within_the_tick_after_a_changed_schedule_leaves_no_hole(self) -> None:
        info = following(HOURLY[0], ("2024-03-10 11:00", "2024-03-10 11:30"), earliest="2024-03-10 11:10")
        assert info[:2] == ("2024-03-10 11:30", "2024-03-10 12:00")

    @pytest.mark.parametrize("catchup", [True, False])
    def test_a_point_in_time_is_not_taken_twice(self, catchup: bool) -> None:
        """A DAG that was scheduled by ``CronTriggerTimetable`` has runs whose intervals are points, and their logical dates."""
        point = ("2024-03-08 17:00", "2024-03-08 17:00")
        info = following(CatchUpTimetable("0 17 * * *"), point, catchup=catchup)
        assert info[:2] == ("2024-03-09 17:00", "2024-03-10 17:00")


class TestBackfillSteps:
    LAST = ("2024-03-01 00:00", "2024-03-01 01:00")

    def test_a_step_with_catchup(self) -> None:
        by_day = CatchUpTimetable("@hourly", backfill_interval=DAY, lag=600)
        assert following(by_day, self.LAST, catchup=True) == (
            "2024-03-01 01:00",
            "2024-03-02 01:00",
            "2024-03-02 01:10",
        )

    def test_it_is_none_of_a_step_without(self) -> None:
        by_day = CatchUpTimetable("@hourly", backfill_interval=DAY, max_interval=4 * HOUR)
        assert following(by_day, self.LAST)[:2] == ("2024-03-01 01:00", "2024-03-01 05:00")

    def test_up_to_now_in_steps_then_in_ticks(self) -> None:
        """A DAG with catchup is as frequent as its schedule says; steps are for the past."""
        by_day = CatchUpTimetable("@hourly", backfill_interval=DAY, lag=45 * 60)
        rest = following(by_day, ("2024-03-09 00:00", "2024-03-10 00:00"), catchup=True)
        assert rest == ("2024-03-10 00:00", "2024-03-10 11:00", "2024-03-10 11:45")
        assert following(by_day, rest[:2], catchup=True)[:2] == ("2024-03-10 11:00", "2024-03-10 12:00")

    def test_as_far_as_the_ticks_would_go(self) -> None:
        """The last tick of a backfill is the one that begins at or before its end, whatever the step."""
        by_day = CatchUpTimetable("@hourly", backfill_interval=DAY)
        assert following(by_day, self.LAST, latest="2024-03-01 23:00", catchup=True)[1] == "2024-03-02 00:00"
        assert following(by_day, self.LAST, latest="2024-03-01 23:59", catchup=True)[1] == "2024-03-02 00:00"
        assert following(by_day, self.LAST, latest="2024-03-01 22:59", catchup=True)[1] == "2024-03-01 23:00"

    def test_days_of_the_wall_clock(self) -> None:
        """As those of ``max_interval``."""
        at_midnight = ("2024-03-29 23:00", "2024-03-30 23:00")
        for step, end in [(relativedelta(days=1), "2024-03-31 22:00"), (DAY, "2024-03-31 23:00")]:
            berlin = CatchUpTimetable("@hourly", backfill_interval=step, timezone="Europe/Berlin")
            with patch(CLOCK, lambda: plain(at("2024-06-01"))):
                assert following(berlin, at_midnight, catchup=True)[:2] == ("2024-03-30 23:00", end)


class TestByHand:
    @pytest.mark.parametrize(
        ("moment", "lag", "expected"),
        [
            ("2022-08-08 01:00", 0, ("2022-08-07", "2022-08-08")),
            ("2022-08-08 00:00", 0, ("2022-08-07", "2022-08-08")),  # a run that is due at that very time
            ("2022-08-08 01:00", 3_600, ("2022-08-07", "2022-08-08")),
            ("2022-08-08 01:00", 3_601, ("2022-08-06", "2022-08-07")),
        ],
    )
    def test_it_is_the_last_tick_whose_lag_has_passed(self, moment: str, lag: int, expected: tuple[str, str]) -> None:
        found = CatchUpTimetable("@daily", lag=lag).infer_manual_data_interval(run_after=at(moment))
        assert found == DataInterval(*map(at, expected))

    @pytest.mark.parametrize(
        ("cron", "zone", "moment", "expected"),
        [
            ("0 2 * * *", "America/New_York", "2024-03-10 07:30", ("2024-03-09 07:00", "2024-03-10 07:00")),
            ("0 2 * * *", "America/New_York", "2024-03-10 07:00", ("2024-03-09 07:00", "2024-03-10 07:00")),
            ("0 2 * * *", "Europe/Zurich", "2023-03-26 01:30", ("2023-03-25 01:00", "2023-03-26 01:00")),
            ("0 2 * * *", "Australia/Lord_Howe", "2024-10-05 15:30", ("2024-10-04 15:30", "2024-10-05 15:30")),
            ("0 1 * * *", "America/New_York", "2024-11-03 05:30", ("2024-11-01 05:00", "2024-11-02 05:00")),
        ],
    )
    def test_about_when_clocks_are_moved(
        self, cron: str, zone: str, moment: str, expected: tuple[str, str], clock: list[pendulum.DateTime]
    ) -> None:
        timetable = CatchUpTimetable(cron, timezone=zone)
        assert timetable.infer_manual_data_interval(run_after=at(moment)) == DataInterval(*map(at, expected))
        clock[0] = at(moment)
        assert following(timetable)[:2] == expected


class TestMovedClocks:
    """The intervals over the days in which clocks are moved, in UTC; the cases are those of Airflow's own tests."""

    @pytest.mark.parametrize(
        ("cron", "zone", "start", "expected"),
        [
            ("0 3 * * *", "Europe/Zurich", "2023-03-24", ["24 02", "25 02", "26 01", "27 01"]),
            ("0 2 * * *", "Europe/Zurich", "2023-03-24", ["24 01", "25 01", "26 01", "27 00"]),  # 2 o'clock is left out
            ("0 3 * * *", "Europe/Zurich", "2023-10-27", ["27 01", "28 01", "29 02", "30 02"]),
            ("0 2 * * *", "Europe/Zurich", "2023-10-27", ["27 00", "28 00", "29 01", "30 01"]),  # 2 o'clock comes twice
            ("0 7-8 * * *", "America/Los_Angeles", "2020-03-07", ["07 15", "07 16", "08 14", "08 15"]),
            ("0 7,9 * * *", "America/Los_Angeles", "2020-03-07", ["07 15", "07 17", "08 14", "08 16"]),
            ("0 * * * *", "Europe/Zurich", "2023-10-28T23:00", ["28 23", "29 00", "29 01", "29 02"]),
            ("0 * * * *", "Europe/Zurich", "2023-03-25T23:00", ["25 23", "26 00", "26 01", "26 02"]),
        ],
    )
    def test_as_in_airflow(self, cron: str, zone: str, start: str, expected: list[str]) -> None:
        restriction = TimeRestriction(at(start), None, catchup=True)
        for timetable in (CatchUpTimetable(cron, timezone=zone), CronDataIntervalTimetable(cron, zone)):
            info, found = None, []
            for _ in range(3):
                info = timetable.next_dagrun_info(
                    last_automated_data_interval=info and info.data_interval, restriction=restriction
                )
                assert info is not None
                found.append(info.data_interval)
            assert [moment.format("DD HH") for moment in (found[0].start, *(i.end for i in found))] == expected
            assert all(a.end == b.start for a, b in pairwise(found))

    def test_half_hours_in_an_hour_that_comes_twice(self) -> None:
        timetable = CatchUpTimetable("*/30 * * * *", timezone="Europe/Zurich")
        last, ends = ("2023-10-28 23:00", "2023-10-28 23:30"), []
        for _ in range(6):
            last = following(timetable, last, catchup=True)[:2]
            ends.append(last[1])
        assert [end[11:] for end in ends] == ["00:00", "00:30", "01:00", "01:30", "02:00", "02:30"]

    def test_an_hour_that_is_moved_by_half(self) -> None:
        """Airflow's own timetable makes a tick of half past one there, which is no full hour."""
        timetable = CatchUpTimetable("0 * * * *", timezone="Australia/Lord_Howe")
        last = following(timetable, ("2024-04-06 13:00", "2024-04-06 14:00"), catchup=True)  # one o'clock
        assert last[:2] == ("2024-04-06 14:00", "2024-04-06 15:30")

    def test_a_day_that_was_left_out(self) -> None:
        """In Samoa 29 December 2011 was followed by the 31st."""
        for every in ("@daily", relativedelta(days=1)):
            timetable = CatchUpTimetable(every, timezone="Pacific/Apia")
            last = following(timetable, ("2011-12-28 10:00", "2011-12-29 10:00"), catchup=True)
            assert last[:2] == ("2011-12-29 10:00", "2011-12-30 10:00")  # midnight of the 31st
            assert following(timetable, last[:2], catchup=True)[1] == "2011-12-31 10:00"
            found = timetable.infer_manual_data_interval(run_after=at("2011-12-31 09:00"))
            assert found == DataInterval(at("2011-12-29 10:00"), at("2011-12-30 10:00"))
