"""Flights per carrier and hour, every hour, a quarter of an hour after it has ended; what an outage has left out is one run.

The load also runs whenever somebody says that flights have landed; the schedule is the sweep that finds what nobody has said. What
a run loads follows from the tables alone: flights that come after the lag of their hour are loaded by the next run.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Asset
from airflow.timetables.assets import AssetOrTimeSchedule
from dateutil.relativedelta import relativedelta

from airflow_incremental import (
    CatchUpTimetable,
    IcebergSource,
    IcebergTarget,
    IncrementalLoad,
    NotNull,
    restate_params,
)

HOURLY = CatchUpTimetable(
    "@hourly",
    lag=timedelta(minutes=15),
    max_interval=timedelta(days=7),
    # A backfill of a year is 365 runs and not 8,760.
    backfill_interval=relativedelta(days=1),
    timezone="America/New_York",
)

with DAG(
    "hourly_catch_up",
    schedule=AssetOrTimeSchedule(timetable=HOURLY, assets=[Asset("flights_landed")]),
    max_active_runs=1,
    # Trigger DAG asks for event times to compute again, and why; left empty, the run loads what has changed.
    params=restate_params(),
    tags=["example", "flights"],
    doc_md=__doc__,
):
    IncrementalLoad(
        "carrier_hours",
        iceberg_conn_id="iceberg_default",
        sources={"flights": IcebergSource("raw.flights", event_time="time_hour")},
        target=IcebergTarget(
            "mart.carrier_hours", event_time="time_hour", create=True, partition_by=["day(time_hour)"]
        ),
        mode="overwrite",
        transform="SELECT time_hour, carrier, count(*) AS flights FROM flights GROUP BY ALL",
        audits=[NotNull("time_hour", "carrier")],
        # An hour is one mapped task. Years that are computed again are one for each 512 MB of flights, four at a time, and a
        # task that is killed does its own part again.
        chunk_bytes="512MB",
        parallel_chunks=4,
    )
