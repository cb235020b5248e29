"""Where each aircraft is after each leg, how many legs it has flown, and the delay it brings into the next one.

That depends on the order of events: a flight that lands a day late changes every later leg of its aircraft. So everything from
its hour on is computed again, hour by hour, each starting from the state that the hour before has left (mode ``stateful``).

A second hop: it reads the fact table, and runs when ``flight_fact`` has published to it.
"""

from __future__ import annotations

import datetime as dt

from airflow.sdk import DAG

from airflow_incremental import (
    Between,
    CompleteThrough,
    IcebergSource,
    IcebergTarget,
    IncrementalLoadOperator,
    NotNull,
    Unique,
    iceberg_asset,
)

with DAG(
    "aircraft_state",
    schedule=[iceberg_asset("mart.flight_fact")],
    max_active_runs=1,
    tags=["example", "flights"],
    doc_md=__doc__,
):
    IncrementalLoadOperator(
        task_id="load",
        iceberg_conn_id="iceberg_default",
        sources={
            "flights": IcebergSource(
                "mart.flight_fact",
                event_time="sched_dep",
                # A row comes when the flight has landed: half of them three hours after the hour of departure, 99 of 100 within
                # seven and a half. An hour is therefore computed when eight more have passed. With less, every run would compute
                # its last hours anew in the next one; with more, everything would be known later. The flights that take longer
                # are late, and what they change is computed again.
                complete_through=CompleteThrough.latest_event(lateness=dt.timedelta(hours=8)),
            )
        },
        # Created beforehand, by hour of sched_dep (demo/landing.py): the transform reads it, so nobody else knows its columns.
        target=IcebergTarget("mart.aircraft_state", event_time="sched_dep"),
        process="aircraft_state",
        mode="stateful",
        state="latest_by(tailnum)",
        step="hour",
        transform="sql/aircraft_state.sql",
        audits=[NotNull("tailnum", "sched_dep", "flight_key"), Unique("flight_key"), Between("legs", 1, 5_000)],
    )
