"""Departures, cancellations and mean delay per airport and hour, computed again where flights have changed.

A number of an hour depends on all flights of that hour, so a late flight means computing its partition again: mode
``overwrite``. All steps run in one task, which suits many small loads; a try that was killed is resumed where it
stopped.
"""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_incremental import (
    Between,
    IcebergSource,
    IcebergTarget,
    IncrementalLoadOperator,
    NotNull,
    RowCount,
    SqlCheck,
)

with DAG(
    "hourly_departures",
    schedule=None,  # triggered, as flight_fact is
    max_active_runs=1,
    # A flight is late when it leaves a quarter of an hour after its time or later, as the US authorities count.
    params={"late_minutes": 15},
    tags=["example", "flights"],
    doc_md=__doc__,
):
    IncrementalLoadOperator(
        task_id="load",
        iceberg_conn_id="iceberg_default",
        sources={"flights": IcebergSource("raw.flights", event_time="time_hour")},
        # The partitions are the units that are replaced: a flight that is a day late costs the one hour it belongs to.
        target=IcebergTarget(
            "mart.hourly_departures", event_time="time_hour", create=True, partition_by=["hour(time_hour)"]
        ),
        process="hourly_departures",
        mode="overwrite",
        transform="sql/hourly_departures.sql",
        audits=[
            NotNull("time_hour", "origin"),
            RowCount(min=1),
            Between("departures", 0, 1_000),
            SqlCheck("late flights have left", "SELECT * FROM rows WHERE late_departures > departures"),
        ],
    )
