"""The flights are the ones that were published, and they are as late as the demonstration says."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from demo.flights import CLOSED_AFTER, cut_into_ticks, departing, load_flights, load_planes

NEW_YORK = ZoneInfo("America/New_York")


def utc(year: int, month: int, day: int, hour: int = 0) -> dt.datetime:
    return dt.datetime(year, month, day, hour, tzinfo=dt.timezone.utc)


@pytest.fixture(scope="module")
def flights() -> pa.Table:
    return load_flights()


def lateness(flights: pa.Table) -> list[float]:
    """Return hours between event time and landing, sorted."""
    return sorted(d.total_seconds() / 3600 for d in pc.subtract(flights["landed_at"], flights["time_hour"]).to_pylist())


def test_all_flights_are_there_once(flights: pa.Table) -> None:
    assert flights.num_rows == 336_776
    assert pc.count_distinct(flights["flight_key"]).as_py() == 336_776
    assert flights["air_time"].null_count == 9_430
    for name in (
        "flight_key",
        "time_hour",
        "sched_dep",
        "carrier",
        "flight",
        "origin",
        "dest",
        "distance",
        "landed_at",
    ):
        assert flights[name].null_count == 0, name


def test_published_lateness(flights: pa.Table) -> None:
    hours = lateness(flights)
    count = len(hours)
    assert hours[0] > 0
    assert 2.5 < hours[count // 2] < 3
    assert sum(h > 7.5 for h in hours) / count == pytest.approx(0.01, abs=0.0005)
    assert 32 < hours[-1] < 33
    landed, event = (pc.floor_temporal(flights[c], unit="day") for c in ("landed_at", "time_hour"))
    assert pc.mean(pc.not_equal(landed, event).cast(pa.int8())).as_py() == pytest.approx(0.19, abs=0.005)


def test_scheduled_departure_is_new_yorks_clock_on_every_day_of_the_year(flights: pa.Table) -> None:
    # The key starts with New York's day and time_hour is UTC: both must name the same day through both changes of the
    # clock.
    hours: dict[dt.datetime, str] = dict(
        zip(
            flights["time_hour"].to_pylist(),
            pc.utf8_slice_codeunits(flights["flight_key"], 0, 10).to_pylist(),
            strict=True,
        )
    )
    assert len(hours) > 6_900
    assert all(hour.astimezone(NEW_YORK).date().isoformat() == day for hour, day in hours.items())
    offsets = {hour.astimezone(NEW_YORK).utcoffset() for hour in hours}
    assert offsets == {dt.timedelta(hours=-5), dt.timedelta(hours=-4)}


def test_one_flight_by_hand(flights: pa.Table) -> None:
    # JFK to Honolulu, planned for 9:00 on 9 January, left 1,301 minutes late and flew 640 minutes: the latest row of
    # all.
    worst = flights.filter(pc.equal(flights["flight_key"], "2013-01-09 HA51 JFK")).to_pylist()
    assert [row["landed_at"] for row in worst] == [utc(2013, 1, 9, 14) + dt.timedelta(minutes=1301 + 640)]
    assert worst[0]["time_hour"] == worst[0]["sched_dep"] == utc(2013, 1, 9, 14)


def test_flights_that_did_not_arrive_are_closed_by_rule(flights: pa.Table) -> None:
    gone = flights.filter(pc.is_null(flights["air_time"])).to_pylist()
    for row in gone:
        left = row["sched_dep"] + dt.timedelta(minutes=row["dep_delay"] or 0)
        assert row["landed_at"] == left + CLOSED_AFTER
    assert {row["dep_delay"] is None for row in gone} == {True, False}, "cancelled and diverted flights"


@pytest.mark.parametrize("count", [1, 10, 12, 24])
def test_ticks_hold_every_row_once_in_the_order_of_landing(flights: pa.Table, count: int) -> None:
    some = departing(flights, utc(2013, 1, 1), utc(2013, 1, 11, 5))
    ticks = cut_into_ticks(some, count)
    assert len(ticks) == count
    assert pa.concat_tables(t.rows for t in ticks).combine_chunks().equals(some)
    assert all(a.end == b.start for a, b in pairwise(ticks))
    for tick in ticks:
        assert tick.start <= pc.min(tick.rows["landed_at"]).as_py() <= pc.max(tick.rows["landed_at"]).as_py() < tick.end


def test_most_ticks_bring_late_rows(flights: pa.Table) -> None:
    ticks = cut_into_ticks(departing(flights, utc(2013, 1, 1), utc(2013, 1, 11, 5)), 12)
    late = [
        pc.sum(pc.less(now.rows["time_hour"], pc.max(before.rows["time_hour"]))).as_py()
        for before, now in pairwise(ticks)
    ]
    assert sum(n > 0 for n in late) >= 9
    assert sum(late) > 500


def test_too_many_ticks_are_refused(flights: pa.Table) -> None:
    one_day = departing(flights, utc(2013, 1, 1), utc(2013, 1, 2))
    with pytest.raises(ValueError, match=r"of 5000 ticks, number .* holds no flight.*take fewer ticks"):
        cut_into_ticks(one_day, 5_000)


def test_times_without_a_zone_are_refused(flights: pa.Table) -> None:
    with pytest.raises(ValueError, match="expected times with a time zone"):
        departing(flights, dt.datetime(2013, 1, 1), utc(2013, 1, 2))  # noqa: DTZ001


def test_planes_are_known_once_and_most_of_those_that_flew_are(flights: pa.Table) -> None:
    planes = load_planes()
    known = planes["tailnum"].to_pylist()
    assert (planes.num_rows, len(set(known)), planes["tailnum"].null_count) == (3_322, 3_322, 0)
    flew = set(flights["tailnum"].to_pylist()) - {None}
    assert len(flew) == 4_043
    assert len(flew & set(known)) == 3_322, "what is known is joined to, and not everything is known"
    assert planes["year"].null_count == 70, "'NA' is read as unknown"
    assert planes.filter(pc.equal(planes["tailnum"], "N10156")).drop_columns(["tailnum"]).to_pylist() == [
        {
            "year": 2004,
            "engines": 2,
            "seats": 55,
            "type": "Fixed wing multi engine",
            "manufacturer": "EMBRAER",
            "model": "EMB-145XR",
            "engine": "Turbo-fan",
        }
    ]
