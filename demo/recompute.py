"""What the targets should hold: computed from scratch from all flights that have landed, without the package.

Written a second time on purpose, as plain DuckDB over an Arrow table, so that a mistake of the package cannot hide in
both.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import attrs
import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from demo.flights import load_planes

_FLIGHT_FACT = """
    select *, case when air_time is not null then 'flown' when dep_delay is not null then 'diverted' else 'cancelled'
    end
        as outcome
    from landed
"""

_HOURLY_DEPARTURES = """
    with marked as (
        select time_hour, origin, dep_delay, (dep_delay is not null)::bigint as left_ground,
            coalesce(dep_delay >= 15, false)::bigint as left_late
        from landed
    )
    select time_hour, origin, sum(left_ground)::bigint as departures, sum(1 - left_ground)::bigint as cancellations,
        sum(left_late)::bigint as late_departures, sum(dep_delay)::double / nullif(sum(left_ground), 0) as mean_delay
    from marked group by all
"""

_AIRCRAFT_STATE = """
    with flown as (
        select tailnum, sched_dep, row_number() over (partition by tailnum order by sched_dep, flight_key) as legs,
            flight_key, if(air_time is null, null, dest) as airport, if(arr_delay > 0, arr_delay, 0) as delay
        from landed where tailnum is not null and dep_delay is not null
    )
    select this.*, coalesce(previous.delay, 0) as carried_delay
    from flown as this left join flown as previous
        on previous.tailnum = this.tailnum and previous.legs = this.legs - 1
"""

_AIRCRAFT = """
    with flown as (
        select tailnum, sched_dep, flight_key, if(air_time is null, null, dest) as airport,
            if(arr_delay > 0, arr_delay, 0) as delay
        from landed where tailnum is not null and dep_delay is not null
    ),
    totals as (
        select tailnum, count(*) as legs, sum(delay)::bigint as delay, max(sched_dep) as last_leg,
            list(airport order by sched_dep desc, flight_key desc) filter (airport is not null) as airports
        from flown group by tailnum
    )
    select tailnum, legs, delay, last_leg, airports[1] as airport, manufacturer, model, seats, year as built
    from totals left join planes using (tailnum)
"""

#: Target table -> query over ``landed`` and ``planes``.
RECOMPUTE: Mapping[str, str] = {
    "mart.flight_fact": _FLIGHT_FACT,
    "mart.hourly_departures": _HOURLY_DEPARTURES,
    "mart.aircraft_state": _AIRCRAFT_STATE,
    "mart.aircraft": _AIRCRAFT,
}


@attrs.frozen(kw_only=True)
class Comparison:
    """How the rows of a target differ from what they should be; rows are counted as often as they occur."""

    rows: int
    missing: int
    unexpected: int

    @property
    def matches(self) -> bool:
        """Whether the target holds exactly the rows that it should."""
        return self.missing == 0 and self.unexpected == 0


def compare(target: str, actual: pa.Table, landed: pa.Table, *, through: dt.datetime | None = None) -> Comparison:
    """Compare the rows of a target, column by column, with a full recompute over all flights that have landed.

    :param target: identifier of the target, one of ``RECOMPUTE``.
    :param actual: all rows of the target, with its columns in any order.
    :param landed: all flights that have landed, as ``demo.flights`` has them.
    :param through: event hour before which the target is processed; later flights have to wait. None: all are.
    """
    if through is not None:
        landed = landed.filter(pc.less(landed["time_hour"], pa.scalar(through, landed["time_hour"].type)))
    with duckdb.connect(":memory:") as db:
        db.register("landed", landed)
        db.register("planes", load_planes())
        db.register("actual", actual)
        db.execute(f"create table expected as {RECOMPUTE[target]}")
        columns = [row[0] for row in db.execute("describe expected").fetchall()]
        if set(columns) != set(actual.column_names):
            msg = f"{target} has the columns {sorted(actual.column_names)}; expected {sorted(columns)}"
            raise ValueError(msg)
        names = ", ".join(columns)
        missing = _surplus(db, names, "expected", "actual")
        unexpected = _surplus(db, names, "actual", "expected")
    return Comparison(rows=actual.num_rows, missing=missing, unexpected=unexpected)


def _surplus(db: duckdb.DuckDBPyConnection, columns: str, left: str, right: str) -> int:
    """Count the rows of one relation that the other lacks."""
    query = f"select {columns} from {left} except all select {columns} from {right}"  # noqa: S608 - our own names
    row = db.execute(f"select count(*) from ({query})").fetchone()  # noqa: S608 - as above
    return int(row[0]) if row else 0
