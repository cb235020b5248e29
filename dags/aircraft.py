"""One row per aircraft: what it has flown so far, where it was seen last, and what is known of it.

A row depends on all legs of its aircraft, whenever they were, so the aircraft whose legs have changed are computed again from all
of theirs, and nothing else is (mode ``merge``). What is known of an aircraft is looked up: a change there makes no work, and shows
when the aircraft flies next.

A third hop: it reads what ``aircraft_state`` writes, hour by hour, and yet computes only aircraft of which a leg is another now.
"""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_incremental import IcebergSource, IcebergTarget, IncrementalLoadOperator, NotNull, Unique, iceberg_asset

with DAG(
    "aircraft",
    schedule=[iceberg_asset("mart.aircraft_state")],
    max_active_runs=1,
    tags=["example", "flights"],
    doc_md=__doc__,
):
    IncrementalLoadOperator(
        task_id="load",
        iceberg_conn_id="iceberg_default",
        sources={
            "legs": IcebergSource("mart.aircraft_state", event_time="sched_dep"),
            "planes": IcebergSource("raw.planes", role="lookup"),
        },
        # A few thousand short rows: one file, rewritten whole. A large table would be partitioned by bucket[n](tailnum).
        target=IcebergTarget("mart.aircraft", create=True),
        process="aircraft",
        mode="merge",
        keys=["tailnum"],
        transform="sql/aircraft.sql",
        audits=[NotNull("tailnum", "legs"), Unique("tailnum")],
    )
