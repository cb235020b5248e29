"""Three hops of loads: the first by the hour, for backfills and the form, the others behind the asset of the one before."""

from __future__ import annotations

import datetime as dt

from airflow.sdk import DAG

from airflow_incremental import (
    CatchUpTimetable,
    IcebergSource,
    IcebergTarget,
    IncrementalLoad,
    IncrementalLoadOperator,
    restate_params,
)

START = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)
DEFAULTS = {"retries": 2, "retry_delay": dt.timedelta(seconds=1)}
#: The Variable stands for SQL that somebody corrects.
FACTOR = "{{ var.value.get('backfills_factor', '1') }}"

with DAG(
    "backfills_hourly",
    schedule=CatchUpTimetable("@hourly", lag=dt.timedelta(minutes=5)),
    start_date=START,
    catchup=False,
    default_args=DEFAULTS,
    params=restate_params(),
):
    first = IncrementalLoadOperator(
        task_id="load",
        sources={"events": IcebergSource("raw.backfills", event_time="ts")},
        target=IcebergTarget("mart.backfills_1", event_time="hour_ts"),
        mode="overwrite",
        transform="SELECT date_trunc('hour', ts) AS hour_ts, region, count(*) AS n, "
        f"sum(v * {FACTOR})::BIGINT AS total FROM events GROUP BY ALL",
        poll_interval=1,
    )

with DAG("backfills_second", schedule=[first.asset], max_active_runs=1, default_args=DEFAULTS):
    second = IncrementalLoad(
        "load",
        sources={"hours": IcebergSource("mart.backfills_1", event_time="hour_ts")},
        target=IcebergTarget("mart.backfills_2", event_time="hour_ts"),
        mode="append",
        on_rewrite="overwrite",
        transform="SELECT hour_ts, region, n, total FROM hours",
    )

with DAG("backfills_third", schedule=[second.asset], max_active_runs=1, default_args=DEFAULTS):
    IncrementalLoadOperator(
        task_id="load",
        sources={"hours": IcebergSource("mart.backfills_2", event_time="hour_ts")},
        target=IcebergTarget("mart.backfills_3"),
        mode="merge",
        keys=["region"],
        transform="SELECT region, sum(n)::BIGINT AS n, sum(total)::BIGINT AS total FROM hours GROUP BY region",
    )
