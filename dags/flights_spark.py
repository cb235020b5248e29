"""The loads of ``flight_fact`` and ``hourly_departures`` on Spark: the same SQL, audits and publish, one argument more.

The fact is a task group and appends what is new; the aggregate, which reads the fact, is a single task and computes the hours
again that changed. The worker plans, audits and publishes; ``spark-submit`` runs the SQL and writes a branch of the target that
nobody reads before its audits have passed. A driver that is lost costs a retry, and never a row.

Worker and Spark have to see the same tables, so the catalog is one that both reach: here a REST catalog. Spark is found by the
connection ``spark_default``; where it runs (YARN, Kubernetes, a standalone master, this machine) is its business, and the jars of
Iceberg that fit its version are asked for by themselves.
"""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_incremental import (
    Between,
    Expectations,
    IcebergSource,
    IcebergTarget,
    IncrementalLoad,
    NotNull,
    RowCount,
    SparkLoadOperator,
    SparkTransform,
    SqlCheck,
)

with DAG(
    "flights_spark",
    schedule=None,  # triggered, as flight_fact is
    max_active_runs=1,
    params={"late_minutes": 15},
    tags=["example", "flights", "spark"],
    doc_md=__doc__,
):
    fact = IncrementalLoad(
        "flight_fact",
        iceberg_conn_id="iceberg_rest",
        sources={"flights": IcebergSource("raw.flights", event_time="time_hour")},
        # Both targets are created beforehand, by hour (demo/landing.py): what Spark returns is not known before it has run.
        target=IcebergTarget("mart.flight_fact", event_time="time_hour"),
        process="flight_fact",
        mode="append",
        # In mode append Spark reads the rows that were added since the last publish, and no others.
        transform=SparkTransform("sql/flight_fact.sql", spark_conn_id="spark_default"),
        audits=[Expectations("suites/flight_fact.json")],
    )
    departures = SparkLoadOperator(
        task_id="hourly_departures",
        iceberg_conn_id="iceberg_rest",
        sources={"flights": IcebergSource("mart.flight_fact", event_time="time_hour")},
        target=IcebergTarget("mart.hourly_departures", event_time="time_hour"),
        process="hourly_departures",
        mode="overwrite",
        sql="sql/hourly_departures.sql",
        spark_conn_id="spark_default",
        audits=[
            NotNull("time_hour", "origin"),
            RowCount(min=1),
            Between("departures", 0, 1_000),
            SqlCheck("late flights have left", "SELECT * FROM rows WHERE late_departures > departures"),
        ],
    )
    fact >> departures
