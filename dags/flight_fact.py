"""Load flights into a fact table as they land, however late: each session appends exactly the rows that are new.

The landing table ``raw.flights`` is filed by day of arrival, the fact table by hour of departure, so late rows go into
old partitions. The load is a task group: plan, load, audit and publish are tasks of their own, and nothing is visible
in ``mart.flight_fact`` before its audits have passed.
"""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_incremental import Expectations, IcebergSource, IcebergTarget, IncrementalLoad

with DAG(
    "flight_fact",
    # Runs when it is triggered: the demonstration does so after each delivery. In production "@hourly" or an asset
    # works just as well, because a run computes its work from the source and the watermark, and not from its data
    # interval.
    schedule=None,
    max_active_runs=1,
    tags=["example", "flights"],
    doc_md=__doc__,
):
    IncrementalLoad(
        "flight_fact",
        iceberg_conn_id="iceberg_default",
        sources={"flights": IcebergSource("raw.flights", event_time="time_hour")},
        # Created on the first run. By hour, so that what is late is known to the hour; by default it is by day.
        target=IcebergTarget("mart.flight_fact", event_time="time_hour", create=True, partition_by=["hour(time_hour)"]),
        process="flight_fact",
        mode="append",
        transform="sql/flight_fact.sql",
        # A Great Expectations suite, as any tool of theirs writes it; the path is from the folder of this file. What is critical
        # blocks the publish, the rest warns.
        audits=[Expectations("suites/flight_fact.json")],
    )
